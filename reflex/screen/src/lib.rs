//! The screen: finds personal data (PII) and prompt injections in a text, and takes the personal data out.
//!
//! Everything here is a pure function of its arguments: no I/O, no clock, no environment, no iteration order of
//! a hash map. The same text, role and rules give the same bytes on every machine, so a verdict that is on
//! record can be computed again and compared.
//!
//! A text passes these stages, each a module:
//!
//! 1. `view` normalises (`fold`, `escape`): it undoes what hides a value from a pattern and keeps a map back to the
//!    original; `spelling` reads what is spelled out, `substitution` rot13 and leetspeak, `encoding` base64 and
//!    hexadecimal; together they are the text's readings,
//! 2. `prefilter` says in one pass which rules can match at all,
//! 3. `detect` runs those until nothing new is found,
//!    and the `model`, which was trained on attacks and honest texts, scores every window of every reading,
//! 4. `decide` turns injection findings, the model's score and the text's [`Role`] into a score and a [`Decision`],
//! 5. [`redact`] replaces the personal data and leaves every other byte alone.
//!
//! Time is linear in the text: every pattern is a finite automaton with a bounded match (checked when the rules
//! are loaded), and the number of passes is fixed.
//!
//! ```
//! use octollm_screen::{Decision, Placeholders, Role, Ruleset, Strategy, redact, screen};
//!
//! let text = "Write to ada@example.org";
//! let screening = screen(text, Role::Goal, Ruleset::builtin());
//! assert_eq!(screening.decision, Decision::Allow);
//! let clean = redact(text, &screening, Strategy::Token, &mut Placeholders::default());
//! assert_eq!(clean, "Write to [EMAIL_1]");
//! ```

mod checksum;
mod date;
mod decide;
mod detect;
mod encoding;
mod escape;
mod fold;
#[cfg(feature = "training")]
pub mod model;
#[cfg(not(feature = "training"))]
mod model;
mod placeholder;
mod prefilter;
mod reading;
mod redact;
mod rule;
mod ruleset;
mod screening;
mod spelling;
mod substitution;
mod validator;
mod view;

pub use placeholder::Placeholders;
pub use redact::{HashKey, Strategy, redact};
pub use ruleset::{Ruleset, RulesetError};
pub use screening::{
    Decision, Family, Finding, MAX_FINDINGS, MAX_SPANS, Place, Role, Screening, Severity, Span,
    UNSCREENED,
};

/// Screens one text.
///
/// `spans` are what [`redact`] replaces; `decision` rests on `findings` and `role` alone, since personal data is
/// replaced, not refused. Never fails and never panics, whatever the text.
#[must_use]
pub fn screen(text: &str, role: Role, ruleset: &Ruleset) -> Screening {
    judged(text, role, ruleset).0
}

/// The screening of a text, and how likely the model takes an attack to be.
fn judged(text: &str, role: Role, ruleset: &Ruleset) -> (Screening, u16) {
    let (readings, spans, spans_cut) = detect::personal_data(text, ruleset);
    let signs = detect::injections(text, &readings, ruleset);
    let (score, decision) = decide::decide(&signs.findings, signs.chance, role);
    let screening = Screening {
        spans,
        findings: signs.findings,
        score,
        decision,
        truncated: spans_cut || signs.cut,
    };
    (screening, signs.chance)
}

/// Screens a value that stands under a key, such as a member of a JSON object: the key is the value's context (a bare
/// number under `ssn` is one). Places are those in `value`; the key itself is screened with [`screen`].
#[must_use]
pub fn screen_member(key: &str, value: &str, role: Role, ruleset: &Ruleset) -> Screening {
    // More of the key can't matter: no context word is farther away.
    let tail = &key[key.ceil_char_boundary(key.len().saturating_sub(rule::CONTEXT_BEFORE))..];
    let prefix = format!("{tail}: ");
    let (whole, chance) = judged(&format!("{prefix}{value}"), role, ruleset);
    let points = prefix.chars().count();
    let spans = whole.spans.into_iter().filter_map(|span| {
        let place = span.place.after(prefix.len(), points)?;
        Some(Span { place, ..span })
    });
    // A rule's finding that takes in the key is a play of words of ours: `system: …` forges a role, the member system
    // does not. The model's is a stretch around the attack, and no key makes one.
    let own = whole
        .findings
        .into_iter()
        .filter(|found| found.place.byte_start >= prefix.len() || found.family == Family::Learned);
    let findings: Vec<Finding> = own
        .filter_map(|found| {
            Some(Finding {
                place: found.place.after(prefix.len(), points)?,
                ..found
            })
        })
        .collect();
    let (score, decision) = decide::decide(&findings, chance, role);
    Screening {
        spans: spans.collect(),
        findings,
        score,
        decision,
        truncated: whole.truncated,
    }
}
