//! Normalisation: the text as the rules see it, with the way back to the original.
//!
//! Characters that have no width are left out; full-width and other compatible forms, foreign digits, escapes and
//! letters that are drawn alike become their ASCII counterparts. What is replaced already, a placeholder such as
//! `[EMAIL_1]`, is one opaque character: no rule matches in it. What a view reads like depends on the characters and
//! on where the opaque stretches stand, never on what is in them, so a redacted text reads exactly like the text from
//! which its values were taken; that is why redaction is idempotent.

use std::borrow::Cow;
use std::ops::Range;

use crate::escape;
use crate::fold::{Folded, fold, is_foreign, lookalike};
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
    /// Normalises `original`. `opaque` are the stretches of values that are taken out, ordered and apart.
    pub(crate) fn of(original: &'t str, opaque: &[Range<usize>], ruleset: &Ruleset) -> Self {
        if opaque.is_empty() && !original.bytes().any(is_special) {
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
        for range in opaque {
            read(original, at..range.start, ruleset, &mut view);
            view.replaced(range.clone(), OPAQUE);
            at = range.end;
        }
        read(original, at..original.len(), ruleset, &mut view);
        view.finish()
    }

    /// This view with every ASCII character read as another one.
    pub(crate) fn substituted(&self, by: fn(u8) -> u8) -> View<'static> {
        let character = |character: char| match u8::try_from(character) {
            Ok(byte) if byte.is_ascii() => char::from(by(byte)),
            _ => character,
        };
        View {
            text: Cow::Owned(self.text.chars().map(character).collect()),
            pieces: self.pieces.clone(),
        }
    }

    /// Another text for all of this view: every place in it is the whole.
    pub(crate) fn as_a_whole(&self, text: String) -> View<'static> {
        let from = match self.text.len() {
            0 => 0..0,
            length => self.origin(&(0..length)),
        };
        View {
            text: Cow::Owned(text),
            pieces: vec![Piece {
                at: 0,
                from,
                verbatim: false,
            }],
        }
    }

    /// This view with a text of its own.
    pub(crate) fn into_owned(self) -> View<'static> {
        View {
            text: Cow::Owned(self.text.into_owned()),
            pieces: self.pieces,
        }
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

    /// This view with each of `edits`, ordered and apart, spelled otherwise: a stretch and what stands in its place.
    pub(crate) fn respelled(&self, edits: &[(Range<usize>, Cow<'static, str>)]) -> View<'static> {
        let mut view = Writer::default();
        let mut at = 0;
        for (range, spelling) in edits {
            self.copy(at..range.start, &mut view);
            if !spelling.is_empty() {
                view.piece(self.origin(range), spelling, false);
            }
            at = range.end;
        }
        self.copy(at..self.text.len(), &mut view);
        view.finish()
    }

    fn copy(&self, range: Range<usize>, view: &mut Writer) {
        let mut at = range.start;
        let mut index = if at < range.end { self.index_of(at) } else { 0 };
        while at < range.end {
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
            index += 1;
        }
    }

    fn index_of(&self, at: usize) -> usize {
        self.pieces.partition_point(|piece| piece.at <= at) - 1
    }
}

/// Bytes at which a text may be other than it reads.
const fn is_special(byte: u8) -> bool {
    byte >= 0x80 || matches!(byte, b'[' | b'%' | b'&' | b'\\')
}

/// Reads a stretch of the original between two values into the view.
fn read(original: &str, stretch: Range<usize>, ruleset: &Ruleset, view: &mut Writer) {
    let text = &original[..stretch.end];
    let mut at = stretch.start;
    // Where the word that was last looked at ends, and whether its letters are of mixed scripts.
    let mut word = (at, false);
    while at < stretch.end {
        let plain = text.as_bytes()[at..]
            .iter()
            .position(|byte| is_special(*byte))
            .map_or(stretch.end, |length| at + length);
        if plain > at {
            view.verbatim(at..plain, &text[at..plain]);
            at = plain;
            continue;
        }
        let rest = &text[at..];
        if let Some(length) = placeholder::length_at(rest, ruleset) {
            view.replaced(at..at + length, OPAQUE);
            at += length;
            continue;
        }
        let Some(own) = rest.chars().next() else {
            break;
        };
        let (character, length) = escape::character_at(rest).unwrap_or((own, own.len_utf8()));
        if at >= word.0 && !character.is_ascii() {
            word = mixed_word(text, stretch.start, at);
        }
        let from = at..at + length;
        match fold(character) {
            _ if character == OPAQUE => {}
            Folded::Nothing => {}
            Folded::Many(characters) => view.piece(from, &characters, false),
            folded => {
                let character = match folded {
                    Folded::One(other) => other,
                    _ => character,
                };
                let seen = lookalike(character).filter(|_| word.1).unwrap_or(character);
                if seen == own && length == own.len_utf8() {
                    view.verbatim(from, &rest[..length]);
                } else {
                    view.replaced(from, seen);
                }
            }
        }
        at += length;
    }
}

/// The end of the word around `at`, and whether letters of another script in it pass for ASCII ones: there is an ASCII
/// letter in it, and every foreign letter is drawn like one. A word ends at white space, a bracket or a value.
fn mixed_word(text: &str, start: usize, at: usize) -> (usize, bool) {
    let delimits =
        |character: char| character.is_whitespace() || matches!(character, '[' | ']' | OPAQUE);
    let first = text[start..at]
        .rfind(delimits)
        .map_or(start, |found| start + found);
    let end = text[at..]
        .find(delimits)
        .map_or(text.len(), |length| at + length);
    let word = &text[first..end];
    let mixed = word.bytes().any(|byte| byte.is_ascii_alphabetic())
        && word
            .chars()
            .all(|character| !is_foreign(character) || passes_for_ascii(character));
    (end.max(at + 1), mixed)
}

/// Whether a letter that is not of ASCII reads like one.
fn passes_for_ascii(character: char) -> bool {
    match fold(character) {
        Folded::Same => lookalike(character).is_some(),
        Folded::One(other) => other.is_ascii() || lookalike(other).is_some(),
        Folded::Nothing | Folded::Many(_) => true,
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

#[cfg(test)]
mod tests {
    use std::slice::from_ref;

    use super::*;

    fn view(text: &str) -> View<'_> {
        View::of(text, &[], Ruleset::builtin())
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
    fn a_value_taken_out_reads_like_its_placeholder() {
        let original = "é one two";
        let view = View::of(original, from_ref(&(3..6)), Ruleset::builtin());
        assert_eq!(view.text(), "é \u{FFFC} two");
        assert_eq!(&original[view.origin(&(3..6))], "one");
        assert_eq!(&original[view.origin(&(7..10))], "two");
    }

    #[test]
    fn escapes_and_letters_drawn_alike_are_read() {
        let original = "аdа%40ехаmple&#46;org на сайте";
        let view = view(original);
        assert_eq!(view.text(), "ada@example.org на сайте");
        assert_eq!(&original[view.origin(&(0..3))], "аdа");
        assert_eq!(&original[view.origin(&(3..12))], "%40ехаmple&#46;");
    }

    #[test]
    fn a_respelled_view_maps_back_to_the_original() {
        let original = "é ada [at] b";
        let view = view(original).respelled(&[(6..12, "@".into())]);
        assert_eq!(view.text(), "é ada@b");
        assert_eq!(&original[view.origin(&(3..8))], "ada [at] b");
    }
}
