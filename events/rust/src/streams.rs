//! Streams, consumers and object stores of `events/streams.json`. In production `octo up` makes them; this is for tests.

use crate::bus::Bus;
use async_nats::Request;
use async_nats::jetstream::object_store;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::sync::LazyLock;
use std::time::Duration;

const API_TIMEOUT: Duration = Duration::from_secs(10);

/// The contract's streams, consumers and object stores.
#[derive(Deserialize)]
struct Contract {
    streams: Vec<Map<String, Value>>,
    consumers: Vec<Map<String, Value>>,
    object_stores: Vec<ObjectStore>,
}

#[derive(Deserialize)]
struct ObjectStore {
    bucket: String,
    description: String,
}

static CONTRACT: LazyLock<Contract> = LazyLock::new(|| {
    serde_json::from_str(include_str!("../../streams.json"))
        .expect("streams.json has the contract's form")
});

/// A numeric setting of a stream; `None` where there is none.
pub fn setting(stream: &str, name: &str) -> Option<u64> {
    let configs = CONTRACT.streams.iter();
    configs
        .filter(|it| it["name"] == stream)
        .find_map(|it| it.get(name)?.as_u64())
}

/// The `ack_wait` of a durable.
pub(crate) fn ack_wait(stream: &str, durable: &str) -> Duration {
    let configs = CONTRACT.consumers.iter();
    let nanoseconds = configs
        .filter(|it| it["stream"] == stream && it["durable_name"] == durable)
        .find_map(|it| it["ack_wait"].as_u64());
    Duration::from_nanos(nanoseconds.expect("streams.json has the durable"))
}

/// The broker did not make something.
#[derive(Debug, thiserror::Error)]
#[error("{what} was not made: {reason}")]
pub struct EnsureError {
    what: String,
    reason: String,
}

/// Makes what is missing; what exists with the same settings stays as it is, other settings are an error.
pub async fn ensure(bus: &Bus) -> Result<(), EnsureError> {
    for stream in &CONTRACT.streams {
        let name = text(stream, "name");
        let config = Value::Object(stream.clone());
        create(bus, &format!("$JS.API.STREAM.CREATE.{name}"), config).await?;
    }
    for consumer in &CONTRACT.consumers {
        let (stream, name) = (text(consumer, "stream"), text(consumer, "durable_name"));
        let mut config = consumer.clone();
        config.remove("stream");
        let subject = format!("$JS.API.CONSUMER.DURABLE.CREATE.{stream}.{name}");
        let body = json!({ "stream_name": stream, "config": config });
        create(bus, &subject, body).await?;
    }
    for store in &CONTRACT.object_stores {
        let config = object_store::Config {
            bucket: store.bucket.clone(),
            description: Some(store.description.clone()),
            ..object_store::Config::default()
        };
        let made = bus.jetstream().create_object_store(config).await;
        made.map_err(|error| EnsureError {
            what: store.bucket.clone(),
            reason: error.to_string(),
        })?;
    }
    Ok(())
}

async fn create(bus: &Bus, subject: &str, body: Value) -> Result<(), EnsureError> {
    let failed = |reason: String| EnsureError {
        what: subject.to_owned(),
        reason,
    };
    let request = Request::new()
        .payload(body.to_string().into())
        .timeout(Some(API_TIMEOUT));
    let answer = bus
        .client()
        .send_request(subject.to_owned(), request)
        .await
        .map_err(|error| failed(error.to_string()))?;
    let answer: Value =
        serde_json::from_slice(&answer.payload).map_err(|error| failed(error.to_string()))?;
    match answer["error"]["description"].as_str() {
        Some(reason) => Err(failed(reason.to_owned())),
        None => Ok(()),
    }
}

fn text<'a>(config: &'a Map<String, Value>, key: &str) -> &'a str {
    config[key].as_str().expect("names are strings")
}
