//! What other rules would change.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};

use octollm_screen::{Decision, Ruleset, Screening, Span, screen};
use serde::Serialize;
use serde_json::Value;

use super::lines::{self, Document};
use super::{Arguments, ScreenError};

/// What changes of one line.
#[derive(Serialize)]
struct Change<'a> {
    line: usize,
    #[serde(skip_serializing_if = "Value::is_null")]
    id: Value,
    /// Spans that only the old rules find.
    gone: Vec<&'a Span>,
    /// Spans that only the new rules find.
    added: Vec<&'a Span>,
    #[serde(skip_serializing_if = "Option::is_none")]
    decision: Option<[Decision; 2]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    score: Option<[f64; 2]>,
}

#[derive(Default)]
struct Totals {
    lines: AtomicUsize,
    changed: AtomicUsize,
    gone: AtomicUsize,
    added: AtomicUsize,
    decisions: AtomicUsize,
}

/// Screens every line with both rule sets and writes what differs: a span with another place or type, another decision,
/// another score. The totals go to standard error.
pub fn run(
    arguments: &Arguments,
    old: &Ruleset,
    new: &Ruleset,
    out: &mut impl Write,
) -> Result<(), ScreenError> {
    let totals = Totals::default();
    let compare = |number: usize, line: &[u8]| -> Result<Vec<u8>, String> {
        let document = if arguments.jsonl {
            lines::parsed(line)?
        } else {
            Document {
                id: Value::Null,
                text: std::str::from_utf8(line)
                    .map_err(|_| "is not UTF-8 text".to_owned())?
                    .to_owned(),
                role: None,
            }
        };
        let role = document.role.unwrap_or(arguments.role());
        let [old, new] = [old, new].map(|rules| screen(&document.text, role, rules));
        totals.lines.fetch_add(1, Ordering::Relaxed);
        let Some(change) = change(number, document.id, &old, &new) else {
            return Ok(Vec::new());
        };
        totals.changed.fetch_add(1, Ordering::Relaxed);
        totals.gone.fetch_add(change.gone.len(), Ordering::Relaxed);
        totals
            .added
            .fetch_add(change.added.len(), Ordering::Relaxed);
        totals
            .decisions
            .fetch_add(usize::from(change.decision.is_some()), Ordering::Relaxed);
        Ok(if arguments.json {
            serde_json::to_vec(&change).expect("a change is representable as JSON")
        } else {
            change.in_words().into_bytes()
        })
    };
    lines::each(arguments, &compare, out)?;
    let [lines, changed, gone, added, decisions] = [
        &totals.lines,
        &totals.changed,
        &totals.gone,
        &totals.added,
        &totals.decisions,
    ]
    .map(|count| count.load(Ordering::Relaxed));
    eprintln!(
        "{changed} of {lines} texts would change: {gone} spans gone, {added} spans added, {decisions} other decisions"
    );
    Ok(())
}

fn change<'a>(
    line: usize,
    id: Value,
    old: &'a Screening,
    new: &'a Screening,
) -> Option<Change<'a>> {
    let key = |span: &'a Span| (span.place.start, span.place.end, span.kind.as_str());
    let keys = |screening: &'a Screening| screening.spans.iter().map(key).collect::<BTreeSet<_>>();
    let (before, after) = (keys(old), keys(new));
    let only = |screening: &'a Screening, others: &BTreeSet<_>| {
        screening
            .spans
            .iter()
            .filter(|span| !others.contains(&key(span)))
            .collect::<Vec<_>>()
    };
    let change = Change {
        line,
        id,
        gone: only(old, &after),
        added: only(new, &before),
        decision: (old.decision != new.decision).then_some([old.decision, new.decision]),
        score: (old.score != new.score)
            .then_some([old.score, new.score].map(|score| f64::from(score) / 1000.0)),
    };
    let same = change.gone.is_empty()
        && change.added.is_empty()
        && change.decision.is_none()
        && change.score.is_none();
    (!same).then_some(change)
}

impl Change<'_> {
    /// A line of text for each difference. The values themselves are not shown.
    fn in_words(&self) -> String {
        let mut words = String::new();
        let name = match &self.id {
            Value::Null => format!("line {}", self.line),
            Value::String(id) => format!("line {} ({id})", self.line),
            id => format!("line {} ({id})", self.line),
        };
        for (sign, spans) in [('-', &self.gone), ('+', &self.added)] {
            for span in spans {
                let (start, end) = (span.place.start, span.place.end);
                let _ = writeln!(
                    words,
                    "{name}: {sign} {} {start}-{end} {}",
                    span.kind, span.rule
                );
            }
        }
        if let Some([old, new]) = self.decision {
            let _ = writeln!(
                words,
                "{name}: decision {} -> {}",
                old.as_str(),
                new.as_str()
            );
        }
        if let Some([old, new]) = self.score {
            let _ = writeln!(words, "{name}: score {old:.3} -> {new:.3}");
        }
        words.truncate(words.trim_end().len());
        words
    }
}
