//! The lexicon: words of many languages that mean the same to an attack, such as *ignore*, *vergiss* and *忽略*.
//!
//! What the model learns of a class in one language holds in all.

use std::collections::BTreeMap;

use crate::model::token::{Fnv, letter};

/// A class of words, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Class(pub(crate) u8);

/// Slots of the table: at most a quarter is taken, so that most words are told from none with one look.
const MIN_SLOTS: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Word,
    Prefix,
}

/// Words and beginnings of words by class.
#[derive(Clone, Debug)]
pub(crate) struct Lexicon {
    /// Open addressing by the low bits of the hash.
    slots: Vec<Option<(u32, Part, Class)>>,
    mask: usize,
}

impl Default for Lexicon {
    fn default() -> Self {
        Self {
            slots: vec![None; MIN_SLOTS],
            mask: MIN_SLOTS - 1,
        }
    }
}

impl Lexicon {
    /// Most characters in a word of a script without spaces.
    pub(crate) const MAX_IDEOGRAPHS: usize = 4;

    /// Fewest letters of a beginning.
    const MIN_PREFIX: usize = 3;

    /// Reads a lexicon: a class name for each list of words, where `ignor*` is every word that begins so.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let classes: BTreeMap<String, Vec<String>> =
            toml::from_str(text).map_err(|error| error.to_string())?;
        let count: usize = classes.values().map(Vec::len).sum();
        let size = (4 * count).next_power_of_two().max(MIN_SLOTS);
        let mut lexicon = Self {
            slots: vec![None; size],
            mask: size - 1,
        };
        for (number, (name, words)) in classes.iter().enumerate() {
            let class = u8::try_from(number + 1).map_err(|_| "more than 255 classes")?;
            for word in words {
                lexicon
                    .insert(word, Class(class))
                    .map_err(|message| format!("{name}: {word}: {message}"))?;
            }
        }
        Ok(lexicon)
    }

    fn insert(&mut self, word: &str, class: Class) -> Result<(), &'static str> {
        let (word, part) = match word.strip_suffix('*') {
            Some(prefix) => (prefix, Part::Prefix),
            None => (word, Part::Word),
        };
        let letters: Option<String> = word.chars().map(letter).collect();
        let letters = letters.ok_or("is more than letters")?;
        if part == Part::Prefix && letters.chars().count() < Self::MIN_PREFIX {
            return Err("is too short for a beginning");
        }
        let hash = Fnv::of(&letters);
        if self.find(hash, part).is_some() {
            return Err("is there already");
        }
        let mut slot = hash.0 as usize & self.mask;
        while self.slots[slot].is_some() {
            slot = (slot + 1) & self.mask;
        }
        self.slots[slot] = Some((hash.0, part, class));
        Ok(())
    }

    /// The class of a whole word.
    pub(crate) fn word(&self, hash: Fnv) -> Option<Class> {
        self.find(hash, Part::Word)
    }

    /// The class of the words that begin with `length` letters of this hash.
    pub(crate) fn prefix(&self, hash: Fnv, length: usize) -> Option<Class> {
        if length < Self::MIN_PREFIX {
            return None;
        }
        self.find(hash, Part::Prefix)
    }

    /// The class of the longest word at the end of `characters`.
    pub(crate) fn ideographs(&self, characters: &[char; Self::MAX_IDEOGRAPHS]) -> Option<Class> {
        (0..Self::MAX_IDEOGRAPHS)
            .filter(|start| characters[*start] != '\0')
            .find_map(|start| {
                let word = characters[start..].iter().copied();
                self.word(word.fold(Fnv::EMPTY, Fnv::with))
            })
    }

    fn find(&self, hash: Fnv, part: Part) -> Option<Class> {
        let mut slot = hash.0 as usize & self.mask;
        while let Some((own, kind, class)) = self.slots[slot] {
            if own == hash.0 && kind == part {
                return Some(class);
            }
            slot = (slot + 1) & self.mask;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::token::tokens;

    fn classes(text: &str) -> Vec<Option<u8>> {
        let lexicon = Lexicon::parse("a = ['ignor*', '忽略']\nb = ['ignorant', 'règle']").unwrap();
        let mut classes = Vec::new();
        tokens(text, &lexicon, |token, _| {
            classes.push(token.class.map(|class| class.0));
        });
        classes
    }

    #[test]
    fn words_beginnings_and_characters_have_their_class() {
        assert_eq!(
            classes("Ignorez ignorant regle RÈGLE ign"),
            [Some(1), Some(2), Some(2), Some(2), None]
        );
        assert_eq!(classes("请忽略"), [None, None, Some(1)]);
    }

    #[test]
    fn what_is_wrong_is_refused() {
        for text in [
            "a = ['x*']",
            "a = ['two words']",
            "a = ['one']\nb = ['one']",
            "a = 1",
        ] {
            assert!(Lexicon::parse(text).is_err(), "{text}");
        }
    }
}
