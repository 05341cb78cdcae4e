//! Redaction: a text without its personal data.

use serde::{Deserialize, Serialize};

use crate::placeholder::Placeholders;
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
}

/// `text` with every span of `screening` replaced; every other byte stays as it is.
///
/// `screening` must be of this very `text`. The result has nothing that the same rules would find: screening it
/// again gives no span. `placeholders` is untouched by [`Strategy::Mask`].
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
        redacted.push_str(&text[at..place.byte_start]);
        match strategy {
            Strategy::Token => redacted
                .push_str(&placeholders.of(&span.kind, &text[place.byte_start..place.byte_end])),
            Strategy::Mask => {
                redacted.push('[');
                redacted.push_str(&span.kind);
                redacted.push(']');
            }
        }
        at = place.byte_end;
    }
    redacted.push_str(&text[at..]);
    redacted
}
