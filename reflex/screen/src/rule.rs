//! Rules: a pattern, what it means, and the examples that show that it does.

use std::ops::Range;

use regex::{Regex, RegexBuilder};
use serde::Deserialize;

use crate::screening::{Family, Severity};
use crate::validator::Validator;
use crate::view::OPAQUE;

/// Longest match of any pattern, bytes: with it the search is linear in the text, since a failed match is
/// searched again from its second character.
const MAX_MATCH: usize = 4096;

/// Bytes before and after a value in which its context words may stand.
pub(crate) const CONTEXT_BEFORE: usize = 64;
const CONTEXT_AFTER: usize = 32;

/// What context words add to a rule's confidence, thousandths.
const CONTEXT_GAIN: u16 = 150;

/// A rule that finds personal data, as the files write it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PiiSource {
    pub(crate) id: String,
    #[serde(rename = "type")]
    pub(crate) kind: String,
    /// A group named `value`, if there is one, is the value; what is around it only delimits.
    pub(crate) pattern: String,
    /// Thousandths.
    pub(crate) confidence: u16,
    #[serde(default)]
    pub(crate) validator: Option<Validator>,
    /// Words that stand near such a value.
    #[serde(default)]
    pub(crate) context: Vec<String>,
    /// Without a context word there is no value.
    #[serde(default)]
    pub(crate) context_required: bool,
    /// Values that are nobody's, compared without case.
    #[serde(default)]
    pub(crate) allow: Vec<String>,
    pub(crate) positive: Vec<String>,
    pub(crate) negative: Vec<String>,
}

/// A rule that finds a sign of prompt injection, as the files write it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct InjectionSource {
    pub(crate) id: String,
    pub(crate) family: Family,
    pub(crate) severity: Severity,
    pub(crate) pattern: String,
    pub(crate) positive: Vec<String>,
    pub(crate) negative: Vec<String>,
}

/// A compiled rule for personal data.
#[derive(Debug)]
pub(crate) struct PiiRule {
    pub(crate) source: PiiSource,
    pattern: Regex,
    has_value_group: bool,
    context: Option<Regex>,
}

/// A compiled rule for injections.
#[derive(Debug)]
pub(crate) struct InjectionRule {
    pub(crate) source: InjectionSource,
    pub(crate) pattern: Regex,
}

/// A value that a rule accepts, in the view's bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Match {
    pub(crate) range: Range<usize>,
    pub(crate) confidence: u16,
}

impl PiiRule {
    pub(crate) fn compile(source: PiiSource) -> Result<Self, String> {
        let pattern = compile(&source.pattern)?;
        let words: Vec<String> = source
            .context
            .iter()
            .map(|word| regex::escape(word))
            .collect();
        let context = (!words.is_empty())
            .then(|| compile(&format!(r"(?i)\b(?:{})\b", words.join("|"))))
            .transpose()?;
        if source.context_required && context.is_none() {
            return Err("context_required without context words".to_owned());
        }
        if source.confidence > 1000 {
            return Err("confidence above 1000".to_owned());
        }
        let has_value_group = pattern
            .capture_names()
            .flatten()
            .any(|name| name == "value");
        Ok(Self {
            source,
            pattern,
            has_value_group,
            context,
        })
    }

    /// Every value in `text`, from left to right.
    pub(crate) fn find<'r>(&'r self, text: &'r str) -> impl Iterator<Item = Match> + 'r {
        let mut at = 0;
        std::iter::from_fn(move || {
            while let Some(candidate) = self.candidate(text, at) {
                if let Some(found) = self.accept(text, &candidate) {
                    at = found.range.end;
                    return Some(found);
                }
                at = text.ceil_char_boundary(candidate.start + 1);
            }
            None
        })
    }

    fn candidate(&self, text: &str, at: usize) -> Option<Range<usize>> {
        let whole = || self.pattern.find_at(text, at).map(|found| found.range());
        let value = || {
            self.pattern
                .captures_at(text, at)?
                .name("value")
                .map(|found| found.range())
        };
        if self.has_value_group {
            value()
        } else {
            whole()
        }
    }

    fn accept(&self, text: &str, candidate: &Range<usize>) -> Option<Match> {
        let value = &text[candidate.clone()];
        let length = self
            .source
            .validator
            .map_or(Some(value.len()), |validator| validator.accept(value))?;
        let range = candidate.start..candidate.start + length;
        let value = &text[range.clone()];
        let ours = value.is_empty() || value.contains(OPAQUE);
        if ours
            || self
                .source
                .allow
                .iter()
                .any(|allowed| allowed.eq_ignore_ascii_case(value))
        {
            return None;
        }
        let in_context = self.context.as_ref().is_some_and(|words| {
            let before = text.floor_char_boundary(range.start.saturating_sub(CONTEXT_BEFORE));
            let after = text.ceil_char_boundary((range.end + CONTEXT_AFTER).min(text.len()));
            words.is_match(&text[before..range.start]) || words.is_match(&text[range.end..after])
        });
        if self.source.context_required && !in_context {
            return None;
        }
        let gain = if in_context { CONTEXT_GAIN } else { 0 };
        Some(Match {
            range,
            confidence: (self.source.confidence + gain).min(1000),
        })
    }
}

impl InjectionRule {
    pub(crate) fn compile(source: InjectionSource) -> Result<Self, String> {
        let pattern = compile(&source.pattern)?;
        Ok(Self { source, pattern })
    }
}

/// Compiles a pattern whose matches are neither empty nor longer than [`MAX_MATCH`].
fn compile(pattern: &str) -> Result<Regex, String> {
    let syntax = regex_syntax::parse(pattern).map_err(|error| error.to_string())?;
    match (
        syntax.properties().minimum_len(),
        syntax.properties().maximum_len(),
    ) {
        (Some(1..), Some(..=MAX_MATCH)) => {}
        (minimum, maximum) => {
            return Err(format!(
                "matches of {minimum:?} to {maximum:?} bytes; 1 to {MAX_MATCH} are allowed"
            ));
        }
    }
    RegexBuilder::new(pattern)
        .build()
        .map_err(|error| error.to_string())
}
