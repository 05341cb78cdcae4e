//! Appends and reads as asked by JSON lines, so that other languages can test against this crate. All that is asked is
//! done at once, and answered in the order in which it is done; an answer carries the `ticket` of its request.
//!
//! `{"ticket", "task_id", "kind", "key", "causation_id", "payload", "expected"?}` appends after `expected`, a position
//! `{"seq", "version", "hash", "terminal"}`, or else after the task's last event. It is answered by the new position,
//! `{"conflict": {"duplicate"}}`, `{"unavailable"}` or `{"error"}` with the reason.
//! `{"ticket", "task_id", "after"?}` reads, and is answered by `{"events": [{"id", "position"}]}`, or as an append is.
//!
//! The broker is `OCTO_NATS__URL`, the argument the service to append as.

use octollm_events::config::{self, NatsSettings};
use octollm_events::log::ReadError;
use octollm_events::{AppendError, Bus, Log, NewEvent, Position};
use serde::Deserialize;
use serde_json::{Value, json};
use std::io::BufRead;
use tokio::task::JoinSet;
use uuid::Uuid;

#[derive(Deserialize)]
#[serde(untagged)]
enum Request {
    Append(Append),
    Read(Read),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Append {
    ticket: u64,
    task_id: Uuid,
    kind: String,
    key: String,
    causation_id: Uuid,
    payload: Value,
    expected: Option<Place>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Read {
    ticket: u64,
    task_id: Uuid,
    after: Option<Place>,
}

/// A position as JSON.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Place {
    seq: u64,
    version: u64,
    hash: String,
    terminal: bool,
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let settings: NatsSettings = config::load("nats")?;
    let service = std::env::args().nth(1).unwrap_or("append".to_owned());
    let log = Log::new(Bus::connect(&settings, &service).await?, service);
    let mut running = JoinSet::new();
    // Waiting here blocks this thread alone: what is spawned runs on the others.
    for line in std::io::stdin().lock().lines() {
        let request: Request = serde_json::from_str(&line?)?;
        let log = log.clone();
        running.spawn(async move {
            let (ticket, answer) = match request {
                Request::Append(asked) => (asked.ticket, append(&log, asked).await),
                Request::Read(asked) => (asked.ticket, read(&log, asked).await),
            };
            let mut answer = answer.unwrap_or_else(|error| json!({ "error": error.to_string() }));
            answer["ticket"] = ticket.into();
            println!("{answer}");
        });
    }
    running.join_all().await;
    Ok(())
}

async fn append(log: &Log, asked: Append) -> Result<Value, Failure> {
    let event = NewEvent::from_json(&asked.kind, &asked.payload, asked.causation_id, asked.key)?;
    let expected = match asked.expected {
        Some(place) => place.position()?,
        None => {
            let events = log.read(asked.task_id, None).await?;
            events
                .last()
                .map_or(Position::START, |event| event.position())
        }
    };
    match log.append(asked.task_id, &event, &expected).await {
        Ok(position) => Ok(told(&position)),
        Err(AppendError::Conflict { duplicate, .. }) => {
            Ok(json!({ "conflict": { "duplicate": duplicate } }))
        }
        Err(error @ AppendError::Unavailable { .. }) => Ok(unavailable(&error)),
        Err(error) => Err(error.into()),
    }
}

async fn read(log: &Log, asked: Read) -> Result<Value, Failure> {
    let after = asked.after.map(Place::position).transpose()?;
    let events = match log.read(asked.task_id, after.as_ref()).await {
        Err(error @ ReadError::Unavailable { .. }) => return Ok(unavailable(&error)),
        outcome => outcome?,
    };
    let events: Vec<_> = events
        .iter()
        .map(|event| json!({ "id": event.id, "position": told(&event.position()) }))
        .collect();
    Ok(json!({ "events": events }))
}

fn unavailable(error: &dyn std::error::Error) -> Value {
    json!({ "unavailable": error.to_string() })
}

fn told(position: &Position) -> Value {
    json!({
        "seq": position.seq,
        "version": position.version,
        "hash": position.hash.to_string(),
        "terminal": position.terminal,
    })
}

impl Place {
    fn position(self) -> Result<Position, Failure> {
        Ok(Position {
            seq: self.seq,
            version: self.version,
            hash: self.hash.parse()?,
            terminal: self.terminal,
        })
    }
}
