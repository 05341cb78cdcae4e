//! What `/process` costs without a screen: parses and checks the same body, answers in the same form. The bench's
//! ceiling. Prints its address.

use actix_web::web::{Bytes, PayloadConfig, post};
use actix_web::{App, HttpResponse, HttpServer};
use octollm_screen::{Role, Ruleset, Screening, Strategy};
use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "read to be checked")]
struct Query {
    text: String,
    role: Option<Role>,
    redact: Option<Strategy>,
}

#[derive(Serialize)]
struct Answer {
    #[serde(flatten)]
    screening: Screening,
    redacted: String,
    ruleset: Name,
}

#[derive(Serialize)]
struct Name {
    version: &'static str,
    digest: &'static str,
}

async fn answer(body: Bytes) -> HttpResponse {
    let Ok(query) = serde_json::from_slice::<Query>(&body) else {
        return HttpResponse::UnprocessableEntity().finish();
    };
    HttpResponse::Ok().json(Answer {
        screening: Screening::default(),
        redacted: query.text,
        ruleset: Name {
            version: Ruleset::builtin().version(),
            digest: Ruleset::builtin().digest(),
        },
    })
}

#[actix_web::main]
async fn main() -> std::io::Result<()> {
    let server = HttpServer::new(|| {
        App::new()
            .app_data(PayloadConfig::new(1024 * 1024))
            .route("/process", post().to(answer))
    })
    .bind(("127.0.0.1", 0))?;
    for address in server.addrs() {
        println!("{address}");
    }
    server.run().await
}
