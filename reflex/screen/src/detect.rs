//! Detection: the rules over a view.

use std::cmp::Reverse;
use std::ops::Range;

use crate::model::{self, Logit};
use crate::reading::Reading;
use crate::ruleset::Ruleset;
use crate::screening::{
    Family, Finding, MAX_FINDINGS, MAX_SPANS, Place, Severity, Span, UNSCREENED,
};

/// Passes over a text. A value that is taken out can bare another one (`ada@example.org219-45-6780`), so the rules
/// run until they find nothing; a text that is not done by then was made to be so.
const MAX_PASSES: usize = 4;

/// A value in the bytes of the text, not yet set against the others.
struct Candidate<'r> {
    range: Range<usize>,
    kind: &'r str,
    rule: &'r str,
    confidence: u16,
}

/// Finds the personal data of `original`.
///
/// Gives the readings without it, the spans in order, and whether a limit was met. What is left in those readings is
/// what a redacted text reads like, and the rules find nothing in it.
pub(crate) fn personal_data<'t>(
    original: &'t str,
    ruleset: &Ruleset,
) -> (Vec<Reading<'t>>, Vec<Span>, bool) {
    let mut found: Vec<Candidate<'_>> = Vec::new();
    for pass in 0.. {
        let mut readings = Reading::plain(original, &ranges(&found), ruleset);
        let candidates = apart(candidates(&readings, ruleset));
        if candidates.is_empty() {
            if found.len() > MAX_SPANS {
                return unscreened(original, found, MAX_SPANS - 1, ruleset);
            }
            Reading::substitute(&mut readings, ruleset);
            return (readings, spans(original, &found), false);
        }
        if pass == MAX_PASSES {
            break;
        }
        found.extend(candidates);
        found.sort_unstable_by_key(|candidate| candidate.range.start);
    }
    unscreened(original, found, 0, ruleset)
}

fn ranges(found: &[Candidate<'_>]) -> Vec<Range<usize>> {
    let ranges = found.iter().map(|candidate| candidate.range.clone());
    ranges.collect()
}

/// Id of the model's findings among those of the rules.
const MODEL: &str = "model.window";

/// The signs of injection in a text.
pub(crate) struct Signs {
    pub(crate) findings: Vec<Finding>,
    /// How likely the model takes an attack to be, in thousandths.
    pub(crate) chance: u16,
    /// There were more findings than are given.
    pub(crate) cut: bool,
}

/// A finding in the bytes of the original.
struct Sign<'r> {
    family: Family,
    severity: Severity,
    rule: &'r str,
    range: Range<usize>,
}

/// Finds the signs of injection in the readings of `original`.
pub(crate) fn injections(original: &str, readings: &[Reading<'_>], ruleset: &Ruleset) -> Signs {
    let mut found = Vec::new();
    let mut worst: Option<Logit> = None;
    for reading in readings {
        for rule in &ruleset.injection {
            let source = &rule.source;
            let matches = rule.find(reading.text(), &reading.hits).take(MAX_FINDINGS);
            found.extend(matches.map(|range| Sign {
                family: source.family,
                severity: source.severity,
                rule: &source.id,
                range: reading.origin(&range),
            }));
        }
        let model = ruleset.model;
        if let Some(window) = model.worst(reading.text()) {
            worst = worst.max(Some(window.logit));
            found.extend(model.severity(window.logit).map(|severity| Sign {
                family: Family::Learned,
                severity,
                rule: MODEL,
                range: reading.origin(&window.range),
            }));
        }
    }
    found.sort_by_key(|sign| {
        let gravest_first = Reverse(sign.severity);
        (gravest_first, sign.range.start, sign.rule, sign.range.end)
    });
    found.dedup_by(|next, last| next.rule == last.rule && next.range == last.range);
    let cut = found.len() > MAX_FINDINGS;
    found.truncate(MAX_FINDINGS);
    found.sort_by_key(|sign| (sign.range.start, sign.rule));
    let mut ruler = Ruler::new(original);
    let findings = found.into_iter().map(|sign| Finding {
        family: sign.family,
        rule: sign.rule.to_owned(),
        severity: sign.severity,
        place: ruler.place(&sign.range),
    });
    Signs {
        findings: findings.collect(),
        chance: worst.map_or(0, model::chance),
        cut,
    }
}

/// What the rules find in the readings, in the bytes of the original.
fn candidates<'r>(readings: &[Reading<'_>], ruleset: &'r Ruleset) -> Vec<Candidate<'r>> {
    let mut candidates = Vec::new();
    for reading in readings {
        for rule in &ruleset.pii {
            let matches = rule.find(reading.text(), &reading.hits);
            candidates.extend(matches.map(|found| Candidate {
                range: reading.origin(&found.range),
                kind: &rule.source.kind,
                rule: &rule.source.id,
                confidence: found.confidence,
            }));
        }
    }
    candidates
}

/// Makes one candidate of those that overlap: it covers all that they cover, so that no part of a value is left, and
/// it is what the surest of them says, the longest of equals, the first in the rules of those.
fn apart(mut candidates: Vec<Candidate<'_>>) -> Vec<Candidate<'_>> {
    candidates.sort_by_key(|candidate| (candidate.range.start, candidate.range.end));
    let mut apart: Vec<Candidate<'_>> = Vec::with_capacity(candidates.len());
    let mut best = (0, 0);
    for candidate in candidates {
        let rank = (candidate.confidence, candidate.range.len());
        match apart.last_mut() {
            Some(last) if candidate.range.start < last.range.end => {
                let range = last.range.start..last.range.end.max(candidate.range.end);
                if rank > best {
                    best = rank;
                    *last = Candidate { range, ..candidate };
                } else {
                    last.range = range;
                }
            }
            _ => {
                best = rank;
                apart.push(candidate);
            }
        }
    }
    apart
}

/// The first `keep` of `found`, and one span over everything after them.
fn unscreened<'t>(
    original: &'t str,
    mut found: Vec<Candidate<'_>>,
    keep: usize,
    ruleset: &Ruleset,
) -> (Vec<Reading<'t>>, Vec<Span>, bool) {
    let start = if keep == 0 {
        0
    } else {
        found[keep].range.start
    };
    found.truncate(keep);
    found.push(Candidate {
        range: start..original.len(),
        kind: UNSCREENED,
        rule: "limit",
        confidence: 1000,
    });
    let mut readings = Reading::plain(original, &ranges(&found), ruleset);
    Reading::substitute(&mut readings, ruleset);
    (readings, spans(original, &found), true)
}

fn spans(original: &str, found: &[Candidate<'_>]) -> Vec<Span> {
    let mut ruler = Ruler::new(original);
    let span = |candidate: &Candidate<'_>| Span {
        kind: candidate.kind.to_owned(),
        place: ruler.place(&candidate.range),
        rule: candidate.rule.to_owned(),
        confidence: candidate.confidence,
    };
    found.iter().map(span).collect()
}

/// Turns bytes into code points, for ranges in the order of their starts.
struct Ruler<'t> {
    text: &'t str,
    byte: usize,
    point: usize,
}

impl<'t> Ruler<'t> {
    const fn new(text: &'t str) -> Self {
        Self {
            text,
            byte: 0,
            point: 0,
        }
    }

    fn place(&mut self, range: &Range<usize>) -> Place {
        self.point += self.text[self.byte..range.start].chars().count();
        self.byte = range.start;
        let end = self.point + self.text[range.clone()].chars().count();
        Place {
            byte_start: range.start,
            byte_end: range.end,
            start: self.point,
            end,
        }
    }
}
