//! Screens JSON lines `{"id": …, "text": …}` from standard input and writes what was found as JSON lines: spans in
//! code points for a span scorer, score and flag for an injection scorer. The texts are screened as goals.

use std::io::{BufRead, Write, stdin, stdout};

use octollm_screen::{Decision, Role, Ruleset, screen};
use serde_json::{Value, json};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut out = stdout().lock();
    for line in stdin().lock().lines() {
        let document: Value = serde_json::from_str(&line?)?;
        let screening = screen(
            document["text"].as_str().unwrap_or_default(),
            Role::Goal,
            Ruleset::builtin(),
        );
        let prediction = json!({
            "id": document["id"],
            "spans": screening.spans,
            "findings": screening.findings,
            "score": f64::from(screening.score) / 1000.0,
            "flag": screening.decision != Decision::Allow,
            "block": screening.decision == Decision::Block,
        });
        writeln!(out, "{prediction}")?;
    }
    Ok(())
}
