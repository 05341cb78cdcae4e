//! What the screen says of one text.

use std::io::Write;

use octollm_screen::{Placeholders, Ruleset, Screening, Strategy, redact, screen};
use serde::Serialize;

use super::{Arguments, ScreenError};

/// The screening of a text, what is left of it, and the rules that said so.
#[derive(Serialize)]
struct Report<'a> {
    #[serde(flatten)]
    screening: &'a Screening,
    redacted: &'a str,
    ruleset: RulesetName<'a>,
}

#[derive(Serialize)]
struct RulesetName<'a> {
    version: &'a str,
    digest: &'a str,
}

pub fn run(
    arguments: &Arguments,
    rules: &Ruleset,
    strategy: Option<Strategy>,
    text: &str,
    out: &mut impl Write,
) -> Result<(), ScreenError> {
    let screening = screen(text, arguments.role(), rules);
    let redacted = redacted(text, &screening, strategy.unwrap_or_default());
    if arguments.json {
        let report = Report {
            screening: &screening,
            redacted: &redacted,
            ruleset: RulesetName {
                version: rules.version(),
                digest: rules.digest(),
            },
        };
        serde_json::to_writer(&mut *out, &report).map_err(std::io::Error::from)?;
        writeln!(out)?;
    } else if strategy.is_some() {
        // As it came, so that a pipe gets nothing that was not there.
        out.write_all(redacted.as_bytes())?;
        if arguments.text.is_some() {
            writeln!(out)?;
        }
    } else {
        table(&screening, &redacted, out)?;
    }
    Ok(())
}

/// The text without its personal data. Placeholders that it spells out itself are not given out again.
pub fn redacted(text: &str, screening: &Screening, strategy: Strategy) -> String {
    let mut placeholders = Placeholders::default();
    placeholders.reserve(text);
    redact(text, screening, strategy, &mut placeholders)
}

fn table(screening: &Screening, redacted: &str, out: &mut impl Write) -> std::io::Result<()> {
    for span in &screening.spans {
        let place = format!("{}-{}", span.place.start, span.place.end);
        let confidence = f64::from(span.confidence) / 1000.0;
        writeln!(
            out,
            "{:<20} {place:<12} {confidence:.2}  {}",
            span.kind, span.rule
        )?;
    }
    for found in &screening.findings {
        let place = format!("{}-{}", found.place.start, found.place.end);
        let severity = found.severity.as_str();
        writeln!(
            out,
            "{:<20} {place:<12} {severity}  {}",
            found.family.as_str(),
            found.rule
        )?;
    }
    let score = f64::from(screening.score) / 1000.0;
    writeln!(
        out,
        "decision             {}, score {score:.3}",
        screening.decision.as_str()
    )?;
    if screening.truncated {
        writeln!(
            out,
            "truncated            there is more than is listed; the rest is redacted as a whole"
        )?;
    }
    writeln!(out, "redacted             {}", redacted.trim_end())
}
