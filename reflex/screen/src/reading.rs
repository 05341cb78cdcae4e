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

    /// Puts before the readings those in which only words can be read: with letters put back, read backwards or joined. Most texts
    /// make no sense so, and are no reading then.
    pub(crate) fn substitute(readings: &mut Vec<Self>, ruleset: &Ruleset) {
        let mut substituted = Vec::new();
        for reading in &*readings {
            let view = &reading.view;
            let leetspeak = substitution::has_leetspeak(view.text());
            let backwards = substitution::reversed(view.text());
            let words = substitution::reversed_words(view.text());
            let views = [
                Some(view.substituted(substitution::rot13)),
                leetspeak.then(|| view.substituted(substitution::leetspeak)),
                Some(view.as_a_whole(backwards)),
                Some(view.as_a_whole(words)),
                substitution::joined(view.text()).map(|text| view.as_a_whole(text)),
            ];
            let views = views.into_iter().flatten();
            let sensible = views.filter(|view| ruleset.model.reads(view.text()));
            substituted.extend(sensible.map(|view| Self {
                hits: ruleset.literals.find(view.text()),
                view,
                encoded: reading.encoded.clone(),
            }));
        }
        substituted.append(readings);
        *readings = substituted;
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
