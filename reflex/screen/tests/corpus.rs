//! Our own corpus of personal data: what the built-in rules find in it, against the floors that they may not fall below.
//!
//! `corpus/pii/generated.jsonl` is what `write.py` beside it writes; `written.txt` is by hand.

use std::collections::BTreeMap;
use std::path::Path;

use octollm_screen::{Role, Ruleset, Span, screen};
use serde::Deserialize;

/// In thousandths, for every type and for all of them.
const MIN_RECALL: usize = 970;
const MIN_RECALL_OF_ALL: usize = 990;
const MIN_PRECISION_OF_ALL: usize = 990;
/// Lines without a value in which something is found, in thousandths.
const MAX_FALSE_ALARMS: usize = 5;
/// Lines with a value of which a letter or digit is left, in thousandths.
const MAX_LEAKS: usize = 10;

#[derive(Deserialize)]
struct Line {
    id: String,
    text: String,
    spans: Vec<Mark>,
}

#[derive(Deserialize)]
struct Mark {
    /// Code points.
    start: usize,
    end: usize,
    #[serde(rename = "type")]
    kind: String,
}

fn corpus() -> Vec<Line> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/pii");
    let read = |name| std::fs::read_to_string(directory.join(name)).expect("the corpus");
    let generated = read("generated.jsonl");
    let generated = generated
        .lines()
        .map(|line| serde_json::from_str(line).expect("a line of the corpus"));
    let written = read("written.txt");
    let written = written
        .lines()
        .zip(1..)
        .filter(|(line, _)| !line.starts_with("# "))
        .map(|(line, number)| marked(&format!("written/{number}"), line));
    generated.chain(written).collect()
}

/// A line with marks, `⟦EMAIL:ada@example.org⟧`.
fn marked(id: &str, line: &str) -> Line {
    let (mut text, mut spans) = (String::new(), Vec::new());
    let mut parts = line.split('⟦');
    text.push_str(parts.next().unwrap_or_default());
    for part in parts {
        let (mark, after) = part.split_once('⟧').expect("a mark ends");
        let (kind, value) = mark.split_once(':').expect("a mark has a type");
        let start = text.chars().count();
        text.push_str(value);
        spans.push(Mark {
            start,
            end: text.chars().count(),
            kind: kind.to_owned(),
        });
        text.push_str(after);
    }
    Line {
        id: id.to_owned(),
        text,
        spans,
    }
}

/// Whether `span` is of the type of `mark` and each covers at least half of the other.
fn matches(span: &Span, mark: &Mark) -> bool {
    let common = span
        .place
        .end
        .min(mark.end)
        .saturating_sub(span.place.start.max(mark.start));
    let longer = (span.place.end - span.place.start).max(mark.end - mark.start);
    span.kind == mark.kind && 2 * common >= longer
}

/// Whether a letter or digit of a value is in no span.
fn leaks(line: &Line, spans: &[Span]) -> bool {
    let covered = |at: usize| {
        spans
            .iter()
            .any(|span| (span.place.start..span.place.end).contains(&at))
    };
    line.text.chars().enumerate().any(|(at, character)| {
        let marked = line
            .spans
            .iter()
            .any(|mark| (mark.start..mark.end).contains(&at));
        marked && character.is_alphanumeric() && !covered(at)
    })
}

#[test]
fn the_rules_keep_to_their_floors() {
    let lines = corpus();
    assert!(lines.len() > 3000, "{} lines", lines.len());
    let mut recall: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    let (mut right, mut wrong, mut leaking, mut with_values, mut alarms) = (0, 0, 0, 0, 0);
    let mut failures = Vec::new();
    for line in &lines {
        let spans = screen(&line.text, Role::Goal, Ruleset::builtin()).spans;
        for mark in &line.spans {
            let found = spans.iter().any(|span| matches(span, mark));
            let counts = recall.entry(&mark.kind).or_default();
            counts.0 += usize::from(found);
            counts.1 += 1;
            if !found {
                failures.push(format!("{} misses {}", line.id, mark.kind));
            }
        }
        for span in &spans {
            if line.spans.iter().any(|mark| matches(span, mark)) {
                right += 1;
            } else {
                wrong += 1;
                failures.push(format!("{} has a {} of {}", line.id, span.kind, span.rule));
            }
        }
        if line.spans.is_empty() {
            alarms += usize::from(!spans.is_empty());
        } else {
            with_values += 1;
            if leaks(line, &spans) {
                leaking += 1;
                failures.push(format!("{} leaks", line.id));
            }
        }
    }
    let thousandths = |part: usize, whole: usize| 1000 * part / whole.max(1);
    for (kind, (found, all)) in &recall {
        println!("{kind:<16}{found:>5} of {all:>5}");
        assert!(
            thousandths(*found, *all) >= MIN_RECALL,
            "{kind}: {failures:#?}"
        );
    }
    let (found, all) = recall
        .values()
        .fold((0, 0), |sum, (found, all)| (sum.0 + found, sum.1 + all));
    assert!(
        thousandths(found, all) >= MIN_RECALL_OF_ALL,
        "{failures:#?}"
    );
    assert!(
        thousandths(right, right + wrong) >= MIN_PRECISION_OF_ALL,
        "{failures:#?}"
    );
    assert!(
        thousandths(alarms, lines.len() - with_values) <= MAX_FALSE_ALARMS,
        "{failures:#?}"
    );
    assert!(
        thousandths(leaking, with_values) <= MAX_LEAKS,
        "{failures:#?}"
    );
}
