//! Folding of characters: what a rule sees of one, whatever disguise it wears.
//!
//! Sources: Unicode 16 `Default_Ignorable_Code_Point`, `White_Space` and `Dash`; NFKC (UAX 15) for full-width,
//! mathematical and enclosed forms; the confusables of UTS 39 for letters of other scripts.

use unicode_normalization::UnicodeNormalization;
use unicode_security::confusable_detection::skeleton;

use crate::view::OPAQUE;

/// What the rules see of a character.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Folded {
    /// The character itself.
    Same,
    /// Nothing: it has no width, or it is our own mark.
    Nothing,
    /// Another character.
    One(char),
    /// Several characters, such as those of a ligature.
    Many(String),
}

/// Zeros of the decimal digits (`Nd`) that NFKC leaves alone; the nine after each follow it.
const ZEROS: &[u32] = &[
    0x0660, 0x06F0, 0x07C0, 0x0966, 0x09E6, 0x0A66, 0x0AE6, 0x0B66, 0x0BE6, 0x0C66, 0x0CE6, 0x0D66,
    0x0DE6, 0x0E50, 0x0ED0, 0x0F20, 0x1040, 0x17E0, 0x1810,
];

pub(crate) fn fold(character: char) -> Folded {
    match character {
        '\0'..='\x7F' => Folded::Same,
        '\u{AD}' | '\u{34F}' | '\u{61C}' | '\u{115F}' | '\u{1160}' | '\u{17B4}' | '\u{17B5}' => {
            Folded::Nothing
        }
        '\u{180B}'..='\u{180F}' | '\u{200B}'..='\u{200F}' | '\u{202A}'..='\u{202E}' => {
            Folded::Nothing
        }
        '\u{2060}'..='\u{206F}'
        | '\u{3164}'
        | '\u{FE00}'..='\u{FE0F}'
        | '\u{FEFF}'
        | '\u{FFA0}' => Folded::Nothing,
        // Marks that are drawn over the letter before them.
        '\u{300}'..='\u{36F}' => Folded::Nothing,
        // Tag characters spell ASCII that nobody sees and a model reads.
        '\u{E0020}'..='\u{E007E}' => {
            char::from_u32(character as u32 - 0xE0000).map_or(Folded::Nothing, Folded::One)
        }
        OPAQUE | '\u{1D173}'..='\u{1D17A}' | '\u{E0000}'..='\u{E0FFF}' => Folded::Nothing,
        '\u{A0}' | '\u{1680}' | '\u{2000}'..='\u{200A}' | '\u{202F}' | '\u{205F}' | '\u{3000}' => {
            Folded::One(' ')
        }
        '\u{85}' | '\u{2028}' | '\u{2029}' => Folded::One('\n'),
        '\u{2010}'..='\u{2015}' | '\u{2212}' | '\u{FE58}' | '\u{FE63}' => Folded::One('-'),
        '\u{2018}' | '\u{2019}' | '\u{2032}' => Folded::One('\''),
        '\u{201C}' | '\u{201D}' | '\u{2033}' => Folded::One('"'),
        '\u{2024}' | '\u{3002}' | '\u{FF61}' => Folded::One('.'),
        _ => digit(character).map_or_else(|| compatible(character), Folded::One),
    }
}

/// Every character of `text` folded.
pub(crate) fn folded(text: &str) -> String {
    let mut folded = String::with_capacity(text.len());
    for character in text.chars() {
        match fold(character) {
            Folded::Same => folded.push(character),
            Folded::Nothing => {}
            Folded::One(other) => folded.push(other),
            Folded::Many(others) => folded.push_str(&others),
        }
    }
    folded
}

fn digit(character: char) -> Option<char> {
    let code = character as u32;
    let zero = ZEROS
        .iter()
        .find(|zero| (**zero..**zero + 10).contains(&code))?;
    char::from_digit(code - zero, 10)
}

/// The NFKC form of one character.
fn compatible(character: char) -> Folded {
    let mut form = std::iter::once(character).nfkc();
    match (form.next(), form.next()) {
        (Some(one), None) if one == character => Folded::Same,
        (Some(one), None) => Folded::One(one),
        _ => Folded::Many(std::iter::once(character).nfkc().collect()),
    }
}

/// The ASCII letter or digit that a letter of another script is drawn like, e.g. `a` for Cyrillic U+0430.
pub(crate) fn lookalike(character: char) -> Option<char> {
    if !is_foreign(character) {
        return None;
    }
    let shape = std::iter::once(character).collect::<String>();
    let mut shape = skeleton(&shape);
    match (shape.next(), shape.next()) {
        (Some(one), None) if one.is_ascii_alphanumeric() => Some(one),
        _ => None,
    }
}

/// A letter that no Latin script has. Latin letters with marks are letters in their own right.
pub(crate) fn is_foreign(character: char) -> bool {
    character >= '\u{250}' && character.is_alphabetic()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disguises_are_undone() {
        for (character, seen) in [
            ('a', Folded::Same),
            ('é', Folded::Same),
            ('ж', Folded::Same),
            ('ａ', Folded::One('a')),
            ('𝐚', Folded::One('a')),
            ('①', Folded::One('1')),
            ('٣', Folded::One('3')),
            ('७', Folded::One('7')),
            ('ﬁ', Folded::Many("fi".to_owned())),
            ('\u{200B}', Folded::Nothing),
            ('\u{E0041}', Folded::One('A')),
            ('\u{2011}', Folded::One('-')),
        ] {
            assert_eq!(fold(character), seen, "{character:?}");
        }
    }

    #[test]
    fn letters_drawn_alike_are_known() {
        for (character, letter) in [
            ('а', Some('a')),
            ('о', Some('o')),
            ('ж', None),
            ('é', None),
            ('a', None),
        ] {
            assert_eq!(lookalike(character), letter, "{character:?}");
        }
    }
}
