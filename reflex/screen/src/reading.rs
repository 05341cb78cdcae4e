//! Readings: all the ways in which a text says something, each with what the prefilter knows of it.

use std::ops::Range;

use crate::encoding;
use crate::prefilter::Hits;
use crate::ruleset::Ruleset;
use crate::spelling;
use crate::substitution;
use crate::view::View;

/// Encodings within encodings that are undone.
const MAX_DEPTH: usize = 2;

/// A text as one of its readers sees it: as it stands, with what is spelled out written as usual, with letters put back,
/// or decoded.
#[derive(Debug)]
pub(crate) struct Reading<'t> {
    view: View<'t>,
    pub(crate) hits: Hits,
    /// Bytes of the original that encode this reading; None if the view has the way back.
    encoded: Option<Range<usize>>,
}

impl<'t> Reading<'t> {
    /// The readings of `original` in which values can be read, without those at `opaque`, ordered and apart.
    pub(crate) fn plain(
        original: &'t str,
        opaque: &[Range<usize>],
        ruleset: &Ruleset,
    ) -> Vec<Self> {
        let mut readings = Vec::new();
        let view = View::of(original, opaque, ruleset);
        collect(view, None, MAX_DEPTH, ruleset, &mut readings);
        readings
    }

    /// Adds the readings in which only words can be read: with letters put back.
    pub(crate) fn substitute(readings: &mut Vec<Self>, ruleset: &Ruleset) {
        for index in 0..readings.len() {
            let leetspeak = substitution::has_leetspeak(readings[index].text());
            readings.push(readings[index].substituted(substitution::rot13, ruleset));
            if leetspeak {
                readings.push(readings[index].substituted(substitution::leetspeak, ruleset));
            }
        }
    }

    fn substituted(&self, by: fn(u8) -> u8, ruleset: &Ruleset) -> Self {
        let view = self.view.substituted(by);
        Self {
            hits: ruleset.literals.find(view.text()),
            view,
            encoded: self.encoded.clone(),
        }
    }

    pub(crate) fn text(&self) -> &str {
        self.view.text()
    }

    /// The bytes of the original that `range` of this reading stands for.
    pub(crate) fn origin(&self, range: &Range<usize>) -> Range<usize> {
        self.encoded
            .clone()
            .unwrap_or_else(|| self.view.origin(range))
    }
}

fn collect<'t>(
    view: View<'t>,
    encoded: Option<Range<usize>>,
    depth: usize,
    ruleset: &Ruleset,
    readings: &mut Vec<Reading<'t>>,
) {
    if depth > 0 {
        for (range, inner) in encoding::decoded(view.text()) {
            let origin = encoded.clone().unwrap_or_else(|| view.origin(&range));
            let inner = View::of(&inner, &[], ruleset).into_owned();
            collect(inner, Some(origin), depth - 1, ruleset, readings);
        }
    }
    let mut push = |view: View<'t>| {
        readings.push(Reading {
            hits: ruleset.literals.find(view.text()),
            view,
            encoded: encoded.clone(),
        });
    };
    if let Some(respelled) = spelling::respelled(&view) {
        push(respelled);
    }
    push(view);
}
