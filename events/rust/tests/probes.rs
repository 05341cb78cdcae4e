//! The probe routes.

use actix_web::http::StatusCode;
use actix_web::{App, test};
use octollm_events::service::Probes;
use prometheus::{IntCounter, Registry};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

#[actix_web::test]
async fn probes_say_what_is_alive_what_fails_and_what_was_counted() {
    let registry = Registry::new();
    let counter = IntCounter::new("taken_total", "Taken").unwrap();
    registry.register(Box::new(counter.clone())).unwrap();
    let up = Arc::new(AtomicBool::new(false));
    let state = up.clone();
    let probes = Probes::new("reflex", registry)
        .check("nats", || async { Ok::<(), String>(()) })
        .check("redis", move || {
            let up = state.load(Ordering::SeqCst);
            async move {
                if up {
                    Ok(())
                } else {
                    Err("refused the connection")
                }
            }
        })
        .detail("acks", || async { json!("fsynced") });
    let app = test::init_service(App::new().configure(|app| probes.routes(app))).await;
    let get = async |path: &str| {
        let request = test::TestRequest::get().uri(path).to_request();
        let response = test::call_service(&app, request).await;
        (response.status(), test::read_body(response).await)
    };

    assert_eq!(get("/health").await.0, StatusCode::OK);
    let (status, body) = get("/ready").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    let body: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(
        body["checks"],
        json!({ "nats": "ok", "redis": "refused the connection" })
    );
    assert_eq!(body["failing"], json!(["redis"]));
    assert_eq!(body["details"], json!({ "acks": "fsynced" }));
    up.store(true, Ordering::SeqCst);
    assert_eq!(get("/ready").await.0, StatusCode::OK);

    counter.inc_by(3);
    let (status, body) = get("/metrics").await;
    assert_eq!(status, StatusCode::OK);
    assert!(String::from_utf8_lossy(&body).contains("taken_total 3"));
}
