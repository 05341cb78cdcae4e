//! What receipts cost: bytes of each in the shared vectors, and the time to sign and to verify one.
//!
//! `cargo run -p octollm-executor --example receipts`, with `--release` for figures that matter.

use std::error::Error;
use std::fs;
use std::hint::black_box;
use std::time::Instant;

use octollm_events::carrier::{ErrorCode, ReceiptAction, ReceiptEnvelope, ReceiptLimits};
use octollm_executor::receipt::{self, Evidence, Key, PublicKeys, Terms};
use octollm_executor::step::{Failure, Outcome};
use serde_json::{Value, json};
use time::OffsetDateTime;

const ROUNDS: u32 = 1000;

fn main() -> Result<(), Box<dyn Error>> {
    let file = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../events/corpus/receipt/messages.jsonl"
    );
    for line in fs::read_to_string(file)?.lines() {
        let message: octollm_events::chain::Message = serde_json::from_str(line)?;
        let payload: Value = serde_json::from_slice(&message.body)?;
        if let Some(receipt) = payload.get(receipt::MEMBER) {
            let envelope: ReceiptEnvelope = serde_json::from_value(receipt.clone())?;
            let bare = message.body.len() - receipt::attach(b"{}", &envelope).len() + 2;
            println!(
                "{} #{}: {} bytes, {bare} without its receipt",
                message.subject,
                message.seq,
                message.body.len()
            );
        }
    }
    let key = Key::from_seed(&[7; 32]);
    let keys = PublicKeys::parse(&key.public()).map_err(|line| format!("line {line}"))?;
    let terms = Terms {
        policy: "0".repeat(64),
        is_policy_bypassed: false,
        is_degraded_allowed: false,
    };
    let outcome = Outcome::refused(Failure::new(ErrorCode::PolicyDenied, "denied"));
    let result = json!({"plan_version": 1, "step_id": "step", "attempt": 1}).to_string();
    let evidence = Evidence {
        name: "example".to_owned(),
        attempt: None,
        previous: None,
        action: ReceiptAction {
            kind: "command".to_owned(),
            digest: "0".repeat(64),
        },
        limits: ReceiptLimits {
            wall_ms: 1,
            memory_bytes: 1,
            output_bytes: 1,
            cpu_seconds: None,
            processes: None,
            open_files: None,
            file_bytes: None,
            tmp_bytes: None,
        },
        terms: &terms,
        outcome: &outcome,
        code: Some(ErrorCode::PolicyDenied),
        violations: Vec::new(),
        ended_at: OffsetDateTime::now_utc(),
        result: result.as_bytes(),
    };
    let envelope = receipt::sign(&evidence, &key)?;
    let started = Instant::now();
    for _ in 0..ROUNDS {
        black_box(receipt::sign(&evidence, &key)?);
    }
    println!("signed in {:?} each", started.elapsed() / ROUNDS);
    let started = Instant::now();
    for _ in 0..ROUNDS {
        black_box(receipt::open(&envelope, &keys)).map_err(|fault| format!("{fault:?}"))?;
    }
    println!("opened in {:?} each", started.elapsed() / ROUNDS);
    Ok(())
}
