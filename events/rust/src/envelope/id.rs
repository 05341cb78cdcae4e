//! Deterministic ids.

use time::OffsetDateTime;
use uuid::Uuid;

/// Namespace of ids that no task precedes: UUIDv5(DNS namespace, `octollm`).
pub const OCTOLLM: Uuid = uuid::uuid!("8047c669-ce86-5034-a476-38d2fffd93e4");

/// The deterministic id of a decision. `key` says what it is about (`<plan version>/<step>/<attempt>`, …), never a position.
pub fn event_id(task_id: Uuid, causation_id: Uuid, kind: &str, key: &str) -> Uuid {
    let name = format!("{causation_id}/{kind}/{key}");
    Uuid::new_v5(&task_id, name.as_bytes())
}

/// The id of a raw `task.submit` that names none. `created`: the creation time of `COMMANDS` as the broker
/// writes it; `seq`, `stored_at`: the message's.
pub fn submitted_task_id(created: &str, seq: u64, stored_at: OffsetDateTime) -> Uuid {
    let name = format!("{created}/{seq}/{}", stored_at.unix_timestamp_nanos());
    Uuid::new_v5(&OCTOLLM, name.as_bytes())
}
