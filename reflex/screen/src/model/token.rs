//! Tokens: the words of a reading as the model knows them, without case and accents.

use std::ops::Range;

use crate::model::lexicon::{Class, Lexicon};

/// Letters of one word that count. What is longer is no word of any language.
const MAX_LETTERS: usize = 24;

/// A word, a number, or one character of a script that is written without spaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    /// FNV-1a of its letters.
    pub(crate) hash: u32,
    pub(crate) class: Option<Class>,
    /// The first of a sentence or a line, where an imperative stands.
    pub(crate) first: bool,
    /// Bytes of the text.
    pub(crate) range: Range<usize>,
}

/// FNV-1a, 32 bits (RFC 9923), over the code points of a word, each as one symbol.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fnv(pub(crate) u32);

impl Fnv {
    pub(crate) const EMPTY: Self = Self(0x811C_9DC5);

    pub(crate) const fn with(self, letter: char) -> Self {
        Self((self.0 ^ letter as u32).wrapping_mul(0x0100_0193))
    }

    pub(crate) fn of(word: &str) -> Self {
        word.chars().fold(Self::EMPTY, Self::with)
    }
}

/// Calls `each` with every token of `text` and its letters, from left to right.
pub(crate) fn tokens(text: &str, lexicon: &Lexicon, mut each: impl FnMut(Token, &[char])) {
    let mut letters = ['\0'; MAX_LETTERS];
    let mut first = true;
    // The characters before, of a script without spaces.
    let mut ideographs = ['\0'; Lexicon::MAX_IDEOGRAPHS];
    let mut characters = text.char_indices().peekable();
    while let Some((start, character)) = characters.next() {
        let Some(letter) = letter(character) else {
            first |= matches!(character, '.' | '!' | '?' | ':' | ';' | '\n');
            if !character.is_whitespace() {
                ideographs = Default::default();
            }
            continue;
        };
        if is_ideograph(letter) {
            ideographs.rotate_left(1);
            ideographs[Lexicon::MAX_IDEOGRAPHS - 1] = letter;
            let token = Token {
                hash: Fnv::EMPTY.with(letter).0,
                class: lexicon.ideographs(&ideographs),
                first,
                range: start..start + character.len_utf8(),
            };
            each(token, &[letter]);
            first = false;
            continue;
        }
        ideographs = Default::default();
        let mut end = start + character.len_utf8();
        let mut length = 0;
        let mut hash = Fnv::EMPTY;
        let mut class = None;
        let mut number = true;
        let mut next = Some(letter);
        loop {
            if let Some(letter) = next
                && length < MAX_LETTERS
            {
                letters[length] = letter;
                length += 1;
                hash = hash.with(letter);
                number &= letter.is_ascii_digit();
                class = lexicon.prefix(hash, length).or(class);
            }
            // An apostrophe between letters joins them: don't is one word.
            next = match characters.peek() {
                Some((_, '\'')) => None,
                Some((_, character)) => match self::letter(*character) {
                    Some(letter) if !is_ideograph(letter) => Some(letter),
                    _ => break,
                },
                None => break,
            };
            if let Some((at, character)) = characters.next() {
                end = at + character.len_utf8();
            }
        }
        let token = Token {
            // All numbers are one.
            hash: if number {
                Fnv::EMPTY.with('0').0
            } else {
                hash.0
            },
            class: lexicon.word(hash).or(class),
            first,
            range: start..end,
        };
        each(token, &letters[..length]);
        first = false;
    }
}

/// A letter or digit in lower case and without accents; None for what stands between words.
pub(crate) fn letter(character: char) -> Option<char> {
    if character.is_ascii() {
        return character
            .is_ascii_alphanumeric()
            .then(|| character.to_ascii_lowercase());
    }
    if character == crate::view::OPAQUE {
        return Some(character);
    }
    if !character.is_alphanumeric() {
        return None;
    }
    let lower = character.to_lowercase().next().unwrap_or(character);
    Some(match lower {
        'à'..='å' | 'ā' | 'ă' | 'ą' => 'a',
        'ç' | 'ć' | 'ĉ' | 'ċ' | 'č' => 'c',
        'ď' | 'đ' => 'd',
        'è'..='ë' | 'ē' | 'ĕ' | 'ė' | 'ę' | 'ě' | 'ё' => {
            if lower == 'ё' {
                'е'
            } else {
                'e'
            }
        }
        'ĝ' | 'ğ' | 'ġ' | 'ģ' => 'g',
        'ì'..='ï' | 'ĩ' | 'ī' | 'ĭ' | 'į' | 'ı' => 'i',
        'ł' | 'ĺ' | 'ļ' | 'ľ' => 'l',
        'ñ' | 'ń' | 'ņ' | 'ň' => 'n',
        'ò'..='ö' | 'ø' | 'ō' | 'ŏ' | 'ő' => 'o',
        'ŕ' | 'ř' => 'r',
        'ś' | 'ŝ' | 'ş' | 'š' | 'ș' => 's',
        'ţ' | 'ť' | 'ț' => 't',
        'ù'..='ü' | 'ũ' | 'ū' | 'ŭ' | 'ů' | 'ű' | 'ų' => 'u',
        'ý' | 'ÿ' => 'y',
        'ź' | 'ż' | 'ž' => 'z',
        other => other,
    })
}

/// Characters of scripts that put no spaces between words: Han, kana, Thai.
const fn is_ideograph(letter: char) -> bool {
    matches!(letter, '\u{E00}'..='\u{E7F}' | '\u{3040}'..='\u{30FF}' | '\u{3400}'..='\u{9FFF}' | '\u{20000}'..='\u{3FFFF}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<(String, bool)> {
        let mut words = Vec::new();
        tokens(text, &Lexicon::default(), |token, letters| {
            words.push((letters.iter().collect(), token.first));
        });
        words
    }

    fn word(word: &str, first: bool) -> (String, bool) {
        (word.to_owned(), first)
    }

    #[test]
    fn words_without_case_and_accents() {
        assert_eq!(
            words("Don't IGNORE, s'il vous plaît: été."),
            [
                word("dont", true),
                word("ignore", false),
                word("sil", false),
                word("vous", false),
                word("plait", false),
                word("ete", true),
            ]
        );
    }

    #[test]
    fn scripts_without_spaces_are_characters() {
        assert_eq!(
            words("忽略a指"),
            [
                word("忽", true),
                word("略", false),
                word("a", false),
                word("指", false)
            ]
        );
    }

    #[test]
    fn ranges_are_those_of_the_text() {
        let text = "Ça, l'été";
        let mut ranges = Vec::new();
        tokens(text, &Lexicon::default(), |token, _| {
            ranges.push(text[token.range].to_owned());
        });
        assert_eq!(ranges, ["Ça", "l'été"]);
    }
}
