//! Redaction: a text without its personal data.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use crate::placeholder::{self, Placeholders};
use crate::screening::Screening;

/// What stands in the place of a value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// A numbered placeholder, `[EMAIL_1]`: the same value keeps its number throughout a task.
    #[default]
    Token,
    /// The type alone, `[EMAIL]`: for texts of which nobody keeps the values, such as a program's output.
    Mask,
    /// The type and what tells values apart without giving them away: the domain of an e-mail address, the last four
    /// letters or digits of a number, `[EMAIL:***@example.org]`, `[CREDIT_CARD:***1111]`. Of types whose end says too
    /// much, or of short values, nothing is kept: `[PASSWORD:***]`.
    Partial,
    /// The mark of an omission, `[...]`: not even the type is told. It stays so that what stood on either side of a value
    /// does not become one.
    Remove,
    /// The type and a keyed hash, `[EMAIL:hbkfacdpoonmglie]`: the same value has the same one wherever the key is used,
    /// and without the key nobody can try values.
    #[serde(skip)]
    Hash(HashKey),
}

/// The key of [`Strategy::Hash`]. It can't be printed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct HashKey([u8; 32]);

impl HashKey {
    /// From 32 random bytes.
    #[must_use]
    pub const fn new(key: [u8; 32]) -> Self {
        Self(key)
    }

    /// The first 64 bits of HMAC-SHA256 over type, NUL and canonical value, four bits a letter from `a` to `p`: without
    /// digits no hash can be taken for a number.
    fn hash(&self, kind: &str, value: &str) -> String {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes keys of any length");
        mac.update(kind.as_bytes());
        mac.update(&[0]);
        mac.update(placeholder::canonical(kind, value).as_bytes());
        let letter = |nibble: u8| char::from(b'a' + nibble);
        let bytes = mac.finalize().into_bytes();
        let head = bytes.iter().take(placeholder::HASH_LETTERS / 2);
        head.flat_map(|byte| [letter(byte >> 4), letter(byte & 15)])
            .collect()
    }
}

impl fmt::Debug for HashKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("HashKey(…)")
    }
}

/// `text` with every span of `screening` replaced; every other byte stays as it is.
///
/// `screening` must be of this very `text`. The result has nothing that the same rules would find: screening it
/// again gives no span. `placeholders` changes with [`Strategy::Token`] alone.
#[must_use]
pub fn redact(
    text: &str,
    screening: &Screening,
    strategy: Strategy,
    placeholders: &mut Placeholders,
) -> String {
    let mut redacted = String::with_capacity(text.len());
    let mut at = 0;
    for span in &screening.spans {
        let place = &span.place;
        let (kind, value) = (&span.kind, &text[place.byte_start..place.byte_end]);
        redacted.push_str(&text[at..place.byte_start]);
        redacted.push_str(&match strategy {
            Strategy::Token => placeholders.of(kind, value),
            Strategy::Mask => format!("[{kind}]"),
            Strategy::Partial => format!("[{kind}:{}{}]", placeholder::HIDDEN, rest(kind, value)),
            Strategy::Remove => placeholder::OMITTED.to_owned(),
            Strategy::Hash(key) => format!("[{kind}:{}]", key.hash(kind, value)),
        });
        at = place.byte_end;
    }
    redacted.push_str(&text[at..]);
    redacted
}

/// Types of numbers that people tell apart by their last digits.
const NUMBERED: &[&str] = &[
    "API_KEY",
    "AWS_KEY",
    "BANK_ACCOUNT",
    "CREDIT_CARD",
    "CRYPTO_WALLET",
    "DEVICE_ID",
    "DRIVER_LICENSE",
    "GITHUB_TOKEN",
    "IBAN",
    "MEDICAL_ID",
    "NATIONAL_ID",
    "PASSPORT",
    "PHONE",
    "US_SSN",
    "VEHICLE",
];

/// What [`Strategy::Partial`] keeps of a value: never more than half of it.
fn rest(kind: &str, value: &str) -> String {
    let canonical = placeholder::canonical(kind, value);
    if kind == "EMAIL" {
        let domain = canonical.rfind('@').map(|at| &canonical[at..]);
        return domain
            .filter(|domain| placeholder::is_domain(domain))
            .unwrap_or_default()
            .to_owned();
    }
    let length = canonical.len();
    let told =
        NUMBERED.contains(&kind) && canonical.is_ascii() && length >= 2 * placeholder::TAIL_SYMBOLS;
    if told {
        canonical[length - placeholder::TAIL_SYMBOLS..].to_owned()
    } else {
        String::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ruleset::Ruleset;
    use crate::screening::Role;

    fn redacted(text: &str, strategy: Strategy) -> String {
        let screening = crate::screen(text, Role::Goal, Ruleset::builtin());
        redact(text, &screening, strategy, &mut Placeholders::default())
    }

    #[test]
    fn what_each_strategy_leaves() {
        let text = "ada@example.org paid with 4111 1111 1111 1111, password: hunter22!";
        for (strategy, left) in [
            (
                Strategy::Token,
                "[EMAIL_1] paid with [CREDIT_CARD_1], password: [PASSWORD_1]",
            ),
            (
                Strategy::Mask,
                "[EMAIL] paid with [CREDIT_CARD], password: [PASSWORD]",
            ),
            (
                Strategy::Partial,
                "[EMAIL:***@example.org] paid with [CREDIT_CARD:***1111], password: [PASSWORD:***]",
            ),
            (Strategy::Remove, "[...] paid with [...], password: [...]"),
        ] {
            assert_eq!(redacted(text, strategy), left);
        }
    }

    #[test]
    fn a_hash_depends_on_key_type_and_value_not_on_notation() {
        let hashed = |key: u8, text: &str| redacted(text, Strategy::Hash(HashKey::new([key; 32])));
        let card = hashed(1, "4111 1111 1111 1111");
        assert_eq!(card, hashed(1, "4111-1111-1111-1111"));
        assert_ne!(card, hashed(2, "4111 1111 1111 1111"));
        assert_ne!(card, hashed(1, "5555 5555 5555 4444"));
        assert_eq!(
            card.len(),
            "[CREDIT_CARD:]".len() + placeholder::HASH_LETTERS
        );
    }

    #[test]
    fn a_domain_that_could_hold_a_number_is_not_kept() {
        assert_eq!(
            redacted("ada@4111111111111111.example.org", Strategy::Partial),
            "[EMAIL:***]"
        );
    }

    #[test]
    fn a_key_is_not_printed() {
        assert_eq!(format!("{:?}", HashKey::new([7; 32])), "HashKey(…)");
    }
}
