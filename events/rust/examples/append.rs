//! Appends events given as JSON lines, so that other languages can test against this crate:
//! `{"task_id", "kind", "key", "causation_id", "payload"}` in, `{"seq", "version", "hash"}` out.
//! Each goes after the task's last event; `{"error"}` says why one was not appended. The broker is `OCTO_NATS__URL`,
//! the argument the service to append as.

use octollm_events::config::{self, NatsSettings};
use octollm_events::{Bus, Log, NewEvent, Position};
use serde::Deserialize;
use serde_json::{Value, json};
use std::io::BufRead;
use uuid::Uuid;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    task_id: Uuid,
    kind: String,
    key: String,
    causation_id: Uuid,
    payload: Value,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let settings: NatsSettings = config::load("nats")?;
    let service = std::env::args().nth(1).unwrap_or("append".to_owned());
    let log = Log::new(Bus::connect(&settings, &service).await?, service);
    for line in std::io::stdin().lock().lines() {
        let line: Line = serde_json::from_str(&line?)?;
        let event = NewEvent::from_json(&line.kind, &line.payload, line.causation_id, line.key)?;
        let events = log.read(line.task_id, None).await?;
        let expected = events
            .last()
            .map_or(Position::START, |event| event.position());
        let answer = match log.append(line.task_id, &event, &expected).await {
            Ok(Position {
                seq, version, hash, ..
            }) => json!({ "seq": seq, "version": version, "hash": hash.to_string() }),
            Err(error) => json!({ "error": error.to_string() }),
        };
        println!("{answer}");
    }
    Ok(())
}
