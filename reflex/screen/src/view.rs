//! Normalisation: the text as the rules see it, with the way back to the original.
//!
//! Characters that have no width are left out; full-width forms, Unicode spaces and dashes become their ASCII
//! counterparts. What is replaced already, a placeholder such as `[EMAIL_1]`, is one opaque character: no rule
//! matches in it, and a redacted text reads exactly like the text from which its values were taken, which is
//! why redaction is idempotent.

use std::borrow::Cow;
use std::ops::Range;

use crate::placeholder;
use crate::ruleset::Ruleset;

/// Stands for a value that is taken out: U+FFFC OBJECT REPLACEMENT CHARACTER, in no rule's alphabet.
pub(crate) const OPAQUE: char = '\u{FFFC}';

/// A stretch of the view and the stretch of the original that it stands for.
#[derive(Clone, Debug, PartialEq)]
struct Piece {
    /// First byte in the view.
    at: usize,
    /// Bytes in the original.
    from: Range<usize>,
    /// The bytes are the same on both sides, so a place inside maps one to one.
    verbatim: bool,
}

/// A normalised text.
#[derive(Clone, Debug)]
pub(crate) struct View<'t> {
    text: Cow<'t, str>,
    /// In order, without gaps in the view; the original may have gaps, which are characters left out.
    pieces: Vec<Piece>,
}

impl<'t> View<'t> {
    /// Normalises `original`.
    pub(crate) fn of(original: &'t str, ruleset: &Ruleset) -> Self {
        if original.is_ascii() && !original.contains('[') {
            let piece = Piece {
                at: 0,
                from: 0..original.len(),
                verbatim: true,
            };
            return Self {
                text: Cow::Borrowed(original),
                pieces: vec![piece],
            };
        }
        let mut view = Writer::default();
        let mut at = 0;
        while let Some(character) = original[at..].chars().next() {
            let mut end = at + character.len_utf8();
            if let Some(length) = placeholder::length_at(&original[at..], ruleset) {
                end = at + length;
                view.replaced(at..end, OPAQUE);
            } else {
                match fold(character) {
                    Some(same) if same == character => view.verbatim(at..end, &original[at..end]),
                    Some(other) => view.replaced(at..end, other),
                    None => {}
                }
            }
            at = end;
        }
        view.finish()
    }

    /// The normalised text.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// The bytes of the original that `range`, not empty and on character boundaries of the view, stands for.
    pub(crate) fn origin(&self, range: &Range<usize>) -> Range<usize> {
        let first = &self.pieces[self.index_of(range.start)];
        let last = &self.pieces[self.index_of(range.end - 1)];
        let start = if first.verbatim {
            first.from.start + (range.start - first.at)
        } else {
            first.from.start
        };
        let end = if last.verbatim {
            last.from.start + (range.end - last.at)
        } else {
            last.from.end
        };
        start..end
    }

    /// This view with each of `ranges`, ordered and apart, taken out: one opaque character stands in its place.
    pub(crate) fn without(&self, ranges: &[Range<usize>]) -> Self {
        let mut view = Writer::default();
        let mut at = 0;
        for range in ranges {
            self.copy(at..range.start, &mut view);
            view.replaced(self.origin(range), OPAQUE);
            at = range.end;
        }
        self.copy(at..self.text.len(), &mut view);
        view.finish()
    }

    fn copy(&self, range: Range<usize>, view: &mut Writer) {
        let mut at = range.start;
        while at < range.end {
            let index = self.index_of(at);
            let piece = &self.pieces[index];
            let piece_end = self
                .pieces
                .get(index + 1)
                .map_or(self.text.len(), |next| next.at);
            let end = piece_end.min(range.end);
            if piece.verbatim {
                view.verbatim(self.origin(&(at..end)), &self.text[at..end]);
            } else {
                view.piece(piece.from.clone(), &self.text[at..end], false);
            }
            at = end;
        }
    }

    fn index_of(&self, at: usize) -> usize {
        self.pieces.partition_point(|piece| piece.at <= at) - 1
    }
}

#[derive(Default)]
struct Writer {
    text: String,
    pieces: Vec<Piece>,
}

impl Writer {
    fn verbatim(&mut self, from: Range<usize>, text: &str) {
        match self.pieces.last_mut() {
            Some(last) if last.verbatim && last.from.end == from.start => {
                last.from.end = from.end;
                self.text.push_str(text);
            }
            _ => self.piece(from, text, true),
        }
    }

    fn replaced(&mut self, from: Range<usize>, by: char) {
        self.piece(from, by.encode_utf8(&mut [0; 4]), false);
    }

    fn piece(&mut self, from: Range<usize>, text: &str, verbatim: bool) {
        self.pieces.push(Piece {
            at: self.text.len(),
            from,
            verbatim,
        });
        self.text.push_str(text);
    }

    fn finish<'t>(self) -> View<'t> {
        View {
            text: Cow::Owned(self.text),
            pieces: self.pieces,
        }
    }
}

/// What the rules see of a character; None where it has no width or is our own mark. Source of the ranges: Unicode 16,
/// `Default_Ignorable_Code_Point`, `White_Space`, `Dash`, and the block Halfwidth and Fullwidth Forms.
pub(crate) fn fold(character: char) -> Option<char> {
    match character {
        '\u{AD}' | '\u{34F}' | '\u{61C}' | '\u{180E}' | '\u{FEFF}' => None,
        '\u{200B}'..='\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2060}'..='\u{206F}' => None,
        OPAQUE | '\u{FE00}'..='\u{FE0F}' | '\u{E0000}'..='\u{E0FFF}' => None,
        '\u{A0}' | '\u{1680}' | '\u{2000}'..='\u{200A}' | '\u{202F}' | '\u{205F}' | '\u{3000}' => {
            Some(' ')
        }
        '\u{85}' | '\u{2028}' | '\u{2029}' => Some('\n'),
        '\u{2010}'..='\u{2015}' | '\u{2212}' | '\u{FE58}' | '\u{FE63}' => Some('-'),
        '\u{FF01}'..='\u{FF5E}' => char::from_u32(character as u32 - 0xFEE0),
        _ => Some(character),
    }
}

#[cfg(test)]
mod tests {
    use std::slice::from_ref;

    use super::*;

    fn view(text: &str) -> View<'_> {
        View::of(text, Ruleset::builtin())
    }

    #[test]
    fn plain_text_is_itself() {
        assert!(matches!(view("plain").text, Cow::Borrowed("plain")));
    }

    #[test]
    fn hidden_and_wide_characters_map_back() {
        let original = "a\u{200B}b\u{FF20}ｃ";
        let view = view(original);
        assert_eq!(view.text(), "ab@c");
        assert_eq!(&original[view.origin(&(0..2))], "a\u{200B}b");
        assert_eq!(&original[view.origin(&(2..4))], "\u{FF20}ｃ");
    }

    #[test]
    fn a_placeholder_is_opaque_and_other_brackets_are_text() {
        assert_eq!(
            view("x [EMAIL_1] [EMAIL] [NOPE_1] [[EMAIL_2]]").text(),
            "x \u{FFFC} \u{FFFC} [NOPE_1] [\u{FFFC}]"
        );
    }

    #[test]
    fn taking_out_twice_maps_back_to_the_original() {
        let original = "é one two three";
        let first = view(original).without(from_ref(&(3..6)));
        assert_eq!(first.text(), "é \u{FFFC} two three");
        let second = first.without(from_ref(&(7..10)));
        assert_eq!(second.text(), "é \u{FFFC} \u{FFFC} three");
        assert_eq!(&original[second.origin(&(3..6))], "one");
        assert_eq!(&original[second.origin(&(7..10))], "two");
        assert_eq!(&original[second.origin(&(11..16))], "three");
    }
}
