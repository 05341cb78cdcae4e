//! `GET /capabilities`: what this instance screens with and for, and its limits.

use std::fmt;

use actix_web::HttpResponse;
use actix_web::http::header::ContentType;
use actix_web::web::{Bytes, Data};
use octollm_screen::{
    Decision, Family, MAX_FINDINGS, MAX_SPANS, Role, Ruleset, Severity, Strategy,
};
use serde::de::{DeserializeOwned, Deserializer, Error, Visitor};
use serde_json::{Value, json};

use crate::process::MAX_BATCH;
use crate::settings::Settings;

/// The answer, which never changes while the process runs.
pub struct Capabilities(Bytes);

impl Capabilities {
    /// Of the rules and settings in use.
    pub fn new(ruleset: &Ruleset, settings: &Settings) -> Self {
        let limits = &settings.limits;
        let document = json!({
            "ruleset": {
                "version": ruleset.version(),
                "digest": ruleset.digest(),
                "source": if settings.ruleset.is_some() { "directory" } else { "built in" },
            },
            "types": ruleset.kinds().collect::<Vec<_>>(),
            "families": names::<Family>(),
            "severities": names::<Severity>(),
            "decisions": names::<Decision>(),
            "roles": names::<Role>(),
            "strategies": names::<Strategy>(),
            "limits": {
                "body_bytes": settings.max_body_bytes,
                "batch_texts": MAX_BATCH,
                "spans": MAX_SPANS,
                "findings": MAX_FINDINGS,
                "requests_per_minute": {
                    "tiers": { "free": 60, "basic": 600, "pro": 6000, "unlimited": Value::Null },
                    "ip": limits.per_ip.map(|limit| limit.tokens()),
                    "tasks": limits.per_endpoint.tasks.map(|limit| limit.tokens()),
                    "commands": limits.per_endpoint.commands.map(|limit| limit.tokens()),
                    "process": limits.per_endpoint.process.map(|limit| limit.tokens()),
                    "global": limits.global.map(|limit| limit.tokens()),
                },
            },
        });
        Self(document.to_string().into())
    }
}

/// Tells them.
pub async fn tell(capabilities: Data<Capabilities>) -> HttpResponse {
    HttpResponse::Ok()
        .content_type(ContentType::json())
        .body(capabilities.0.clone())
}

/// The names of an enumeration's values, as serde reads them.
pub fn names<T: DeserializeOwned>() -> &'static [&'static str] {
    match T::deserialize(Names) {
        Err(Told(names)) => names,
        Ok(_) => &[],
    }
}

/// Asks a type what it could be instead of giving it a value.
struct Names;

#[derive(Debug)]
struct Told(&'static [&'static str]);

impl fmt::Display for Told {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("the names were asked for")
    }
}

impl std::error::Error for Told {}

impl Error for Told {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self(&[])
    }
}

impl<'de> Deserializer<'de> for Names {
    type Error = Told;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Told> {
        Err(Told(&[]))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        names: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Told> {
        Err(Told(names))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}
