//! Detection: the rules over a view.

use std::ops::Range;

use crate::encoding;
use crate::ruleset::Ruleset;
use crate::screening::{Finding, MAX_FINDINGS, MAX_SPANS, Place, Span, UNSCREENED};
use crate::spelling;
use crate::view::View;

/// Passes over a text. A value that is taken out can bare another one (`ada@example.org219-45-6780`), so the rules
/// run until they find nothing; a text that is not done by then was made to be so.
const MAX_PASSES: usize = 4;

/// Encodings within encodings that are undone.
const MAX_DEPTH: usize = 2;

/// A value in the bytes of the text, not yet set against the others.
#[derive(Clone)]
struct Candidate<'r> {
    range: Range<usize>,
    kind: &'r str,
    rule: &'r str,
    confidence: u16,
}

/// Finds the personal data of `original`.
///
/// Gives the view without it, the spans in order, and whether a limit was met. What is left in that view is what a
/// redacted text reads like, and the rules find nothing in it.
pub(crate) fn personal_data<'t>(
    original: &'t str,
    ruleset: &Ruleset,
) -> (View<'t>, Vec<Span>, bool) {
    let mut found: Vec<Candidate<'_>> = Vec::new();
    let mut taken: Vec<Range<usize>> = Vec::new();
    for pass in 0.. {
        let view = View::of(original, &taken, ruleset);
        let candidates = apart(candidates(&view, ruleset, MAX_DEPTH));
        if candidates.is_empty() {
            if found.len() > MAX_SPANS {
                return unscreened(original, found, MAX_SPANS - 1, ruleset);
            }
            return (view, spans(original, &found), false);
        }
        if pass == MAX_PASSES {
            break;
        }
        found.extend(candidates);
        found.sort_unstable_by_key(|candidate| candidate.range.start);
        taken = found
            .iter()
            .map(|candidate| candidate.range.clone())
            .collect();
    }
    unscreened(original, found, 0, ruleset)
}

/// Finds the signs of injection in `view` of `original`. Also says whether there were more than are given.
pub(crate) fn injections(
    original: &str,
    view: &View<'_>,
    ruleset: &Ruleset,
) -> (Vec<Finding>, bool) {
    let mut found = signs(view, ruleset, MAX_DEPTH);
    found.sort_by_key(|(rule, range)| {
        let source = &ruleset.injection[*rule].source;
        (
            std::cmp::Reverse(source.severity),
            range.start,
            &source.id,
            range.end,
        )
    });
    found.dedup();
    let cut = found.len() > MAX_FINDINGS;
    found.truncate(MAX_FINDINGS);
    found.sort_by_key(|(rule, range)| (range.start, &ruleset.injection[*rule].source.id));
    let mut ruler = Ruler::new(original);
    let findings = found.into_iter().map(|(rule, range)| {
        let source = &ruleset.injection[rule].source;
        Finding {
            family: source.family,
            rule: source.id.clone(),
            severity: source.severity,
            place: ruler.place(&range),
        }
    });
    (findings.collect(), cut)
}

/// Matches of the injection rules, each its number and its place in the original, in every reading of the view.
fn signs(view: &View<'_>, ruleset: &Ruleset, depth: usize) -> Vec<(usize, Range<usize>)> {
    let mut found = Vec::new();
    let mut read = |view: &View<'_>| {
        let hits = ruleset.literals.find(view.text());
        for (number, rule) in ruleset.injection.iter().enumerate() {
            let matches = rule.find(view.text(), &hits).take(MAX_FINDINGS);
            found.extend(matches.map(|range| (number, view.origin(&range))));
        }
    };
    read(view);
    if let Some(respelled) = spelling::respelled(view) {
        read(&respelled);
    }
    if depth > 0 {
        for (range, inner) in encoding::decoded(view.text()) {
            let origin = view.origin(&range);
            let inner = View::of(&inner, &[], ruleset);
            found.extend(
                signs(&inner, ruleset, depth - 1)
                    .into_iter()
                    .map(|(rule, _)| (rule, origin.clone())),
            );
        }
    }
    found
}

/// What the rules find in every reading of the view, in the bytes of the original.
fn candidates<'r>(view: &View<'_>, ruleset: &'r Ruleset, depth: usize) -> Vec<Candidate<'r>> {
    let mut candidates = Vec::new();
    read(view, ruleset, &mut candidates);
    if let Some(respelled) = spelling::respelled(view) {
        read(&respelled, ruleset, &mut candidates);
    }
    if depth > 0 {
        for (range, inner) in encoding::decoded(view.text()) {
            let inner = View::of(&inner, &[], ruleset);
            let surest = self::candidates(&inner, ruleset, depth - 1)
                .into_iter()
                .reduce(|best, next| {
                    if next.confidence > best.confidence {
                        next
                    } else {
                        best
                    }
                });
            candidates.extend(surest.map(|inner| Candidate {
                range: view.origin(&range),
                ..inner
            }));
        }
    }
    candidates
}

fn read<'r>(view: &View<'_>, ruleset: &'r Ruleset, candidates: &mut Vec<Candidate<'r>>) {
    let hits = ruleset.literals.find(view.text());
    for rule in &ruleset.pii {
        candidates.extend(rule.find(view.text(), &hits).map(|found| Candidate {
            range: view.origin(&found.range),
            kind: &rule.source.kind,
            rule: &rule.source.id,
            confidence: found.confidence,
        }));
    }
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
) -> (View<'t>, Vec<Span>, bool) {
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
    let taken: Vec<Range<usize>> = found
        .iter()
        .map(|candidate| candidate.range.clone())
        .collect();
    (
        View::of(original, &taken, ruleset),
        spans(original, &found),
        true,
    )
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
