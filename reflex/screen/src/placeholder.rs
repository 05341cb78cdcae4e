//! Placeholders: what stands where a value was.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::fold::folded;
use crate::ruleset::Ruleset;
use crate::screening::Screening;

/// Longest placeholder, in bytes: a type of 40, what is kept of a value, punctuation.
const MAX_LENGTH: usize = 96;

/// What is left of a value that is removed.
pub(crate) const OMITTED: &str = "[...]";

/// Stands for the hidden part of a value.
pub(crate) const HIDDEN: &str = "***";

/// Letters of a hash.
pub(crate) const HASH_LETTERS: usize = 16;

/// Letters and digits at the end of a value that may be kept.
pub(crate) const TAIL_SYMBOLS: usize = 4;

/// Longest domain that is kept, with its sign.
const MAX_DOMAIN: usize = 48;

/// Length in bytes of the placeholder that `text` begins with, of a type that the rules know: `[EMAIL_1]`, `[EMAIL]`,
/// `[EMAIL:***@example.org]`, `[EMAIL:hbkfacdpoonmglie]` or `[...]`.
///
/// No placeholder has room for a value: else a value could be hidden in what looks like one.
pub(crate) fn length_at(text: &str, ruleset: &Ruleset) -> Option<usize> {
    let inner = text.strip_prefix('[')?;
    let length = inner
        .bytes()
        .take(MAX_LENGTH)
        .position(|byte| byte == b']')?;
    let name = &inner[..length];
    let known = name == "..."
        || ruleset.knows(name)
        || numbered(name).is_some_and(|(kind, _)| ruleset.knows(kind))
        || name
            .split_once(':')
            .is_some_and(|(kind, left)| ruleset.knows(kind) && (is_hash(left) || is_rest(left)));
    known.then_some(length + 2)
}

fn is_hash(left: &str) -> bool {
    left.len() == HASH_LETTERS && left.bytes().all(|byte| (b'a'..=b'p').contains(&byte))
}

fn is_rest(left: &str) -> bool {
    let tail = |tail: &str| {
        tail.len() <= TAIL_SYMBOLS && tail.bytes().all(|byte| byte.is_ascii_alphanumeric())
    };
    left.strip_prefix(HIDDEN)
        .is_some_and(|rest| tail(rest) || is_domain(rest))
}

/// Whether `domain`, with its `@`, may stand in a placeholder: without digits it holds no value.
pub(crate) fn is_domain(domain: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || matches!(byte, b'.' | b'-');
    domain.len() <= MAX_DOMAIN
        && domain
            .strip_prefix('@')
            .is_some_and(|name| name.bytes().all(plain))
}

/// Type and number of a numbered placeholder's name, `EMAIL_1`.
fn numbered(name: &str) -> Option<(&str, u32)> {
    let (kind, digits) = name.rsplit_once('_')?;
    let canonical =
        (1..=6).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
    canonical
        .then(|| digits.parse().ok())
        .flatten()
        .map(|number| (kind, number))
}

/// The numbered placeholders of one task: the same value has the same placeholder in all of its texts.
///
/// It holds raw values, in memory only and for as long as the task's texts are redacted; it can't be printed or
/// serialised.
#[derive(Default)]
pub struct Placeholders {
    /// Placeholder number by type and value in its canonical form.
    numbers: BTreeMap<(String, String), u32>,
    /// Last number given out by type.
    last: BTreeMap<String, u32>,
    /// Numbers that stand in the caller's texts already, by type.
    taken: BTreeSet<(String, u32)>,
}

impl Placeholders {
    /// Keeps clear of the placeholders that `text` spells out itself, so that none of ours is mistaken for them.
    /// Call it for every text of a task before the first is redacted.
    pub fn reserve(&mut self, text: &str) {
        for (start, _) in text.match_indices('[') {
            let inner = &text[start + 1..];
            let end = inner.bytes().take(MAX_LENGTH).position(|byte| byte == b']');
            if let Some((kind, number)) = end.and_then(|end| numbered(&inner[..end])) {
                self.taken.insert((kind.to_owned(), number));
            }
        }
    }

    /// The placeholder of `value`; case and punctuation make no other value of it.
    pub(crate) fn of(&mut self, kind: &str, value: &str) -> String {
        let key = (kind.to_owned(), canonical(kind, value));
        let number = match self.numbers.get(&key) {
            Some(number) => *number,
            None => {
                let last = self.last.entry(kind.to_owned()).or_default();
                *last += 1;
                while self.taken.contains(&(kind.to_owned(), *last)) {
                    *last += 1;
                }
                let number = *last;
                self.numbers.insert(key, number);
                number
            }
        };
        format!("[{kind}_{number}]")
    }

    /// The placeholders that stand for the spans of `screening` of `text`, in their order.
    #[must_use]
    pub fn for_spans(&mut self, text: &str, screening: &Screening) -> Vec<String> {
        screening
            .spans
            .iter()
            .map(|span| {
                self.of(
                    &span.kind,
                    &text[span.place.byte_start..span.place.byte_end],
                )
            })
            .collect()
    }
}

impl fmt::Debug for Placeholders {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Placeholders")
            .field("last", &self.last)
            .finish_non_exhaustive()
    }
}

/// A value without its notation: e-mail addresses ignore case (RFC 5321 leaves the local part to the host, and no
/// host that matters tells case apart), everything else is its letters and digits.
pub(crate) fn canonical(kind: &str, value: &str) -> String {
    let folded = folded(value);
    if kind == "EMAIL" {
        return folded.to_lowercase();
    }
    folded
        .chars()
        .filter(|character| character.is_alphanumeric())
        .flat_map(char::to_uppercase)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_value_has_the_same_placeholder() {
        let mut placeholders = Placeholders::default();
        assert_eq!(placeholders.of("EMAIL", "Ada@Example.org"), "[EMAIL_1]");
        assert_eq!(placeholders.of("EMAIL", "bob@example.org"), "[EMAIL_2]");
        assert_eq!(placeholders.of("EMAIL", "ada@example.ORG"), "[EMAIL_1]");
        assert_eq!(
            placeholders.of("CREDIT_CARD", "4111 1111-11111111"),
            "[CREDIT_CARD_1]"
        );
        assert_eq!(
            placeholders.of("CREDIT_CARD", "4111111111111111"),
            "[CREDIT_CARD_1]"
        );
    }

    #[test]
    fn placeholders_in_the_text_are_not_given_out_again() {
        let mut placeholders = Placeholders::default();
        placeholders.reserve("see [EMAIL_1] and [EMAIL_3]");
        assert_eq!(placeholders.of("EMAIL", "a@example.org"), "[EMAIL_2]");
        assert_eq!(placeholders.of("EMAIL", "b@example.org"), "[EMAIL_4]");
    }

    #[test]
    fn printing_shows_no_value() {
        let mut placeholders = Placeholders::default();
        let _ = placeholders.of("EMAIL", "ada@example.org");
        assert!(!format!("{placeholders:?}").contains("ada"));
    }
}
