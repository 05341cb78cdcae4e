//! Screens JSON lines `{"id": …, "text": …}` from standard input and writes what was found as JSON lines: spans in
//! code points for a span scorer, score and flag for an injection scorer. The texts are screened as goals, with the
//! built-in rules or with those of the files that the arguments name.

use std::io::{BufRead, Write, stdin, stdout};

use octollm_screen::{Decision, Role, Ruleset, screen};
use serde_json::{Value, json};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut files = Vec::new();
    for name in std::env::args().skip(1) {
        let text = std::fs::read_to_string(&name)?;
        files.push((name, text));
    }
    let files: Vec<(&str, &str)> = files
        .iter()
        .map(|(name, text)| (name.as_str(), text.as_str()))
        .collect();
    let loaded;
    let ruleset = if files.is_empty() {
        Ruleset::builtin()
    } else {
        loaded = Ruleset::load(&files)?;
        &loaded
    };
    let mut out = stdout().lock();
    for line in stdin().lock().lines() {
        let document: Value = serde_json::from_str(&line?)?;
        let text = document["text"].as_str().unwrap_or_default();
        let screening = screen(text, Role::Goal, ruleset);
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
