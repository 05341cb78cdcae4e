//! Rules: a pattern, what it means, and the examples that show that it does.

use std::ops::Range;

use regex_automata::meta::{Config, Regex};
use regex_automata::{Anchored, Input, PatternID};
use serde::Deserialize;

use crate::checksum::Checksum;
use crate::date;
use crate::fold::folded;
use crate::prefilter::{Collection, Hits, MAX_WORD, Needs};
use crate::screening::{Family, Severity};
use crate::validator::Validator;
use crate::view::OPAQUE;

/// Longest match of any pattern, bytes: with it the search is linear in the text, since a failed match is
/// searched again from its second character.
const MAX_MATCH: usize = 4096;

/// Largest automaton of a pattern, bytes.
const MAX_AUTOMATON: usize = 10 * 1024 * 1024;

/// Bytes before and after a value in which its context words may stand.
pub(crate) const CONTEXT_BEFORE: usize = 64;
const CONTEXT_AFTER: usize = 32;

/// What a context word right beside the value adds to a rule's confidence, thousandths; each byte between takes one
/// away, so that of two rules the one whose word is nearer is the surer one.
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
    /// Check digits, all of which must be right.
    #[serde(default)]
    pub(crate) checksums: Vec<Checksum>,
    /// Layout of a date among the letters and digits of the value, e.g. `YYMMDD`; any other character stands for
    /// one that is no part of it.
    #[serde(default)]
    pub(crate) date: Option<String>,
    /// Words that stand near such a value; names of lists in the file's `contexts`, in angle brackets, stand for
    /// the words of the list.
    #[serde(default)]
    pub(crate) context: Vec<String>,
    /// Without a context word there is no value,
    #[serde(default)]
    pub(crate) context_required: bool,
    /// unless the text is nothing but the value.
    #[serde(default)]
    pub(crate) alone: bool,
    /// Bytes before the value in which a context word may stand, if fewer than [`CONTEXT_BEFORE`].
    #[serde(default = "context_before")]
    pub(crate) within: usize,
    /// The value may be a part of a longer number, such as one with a decimal point.
    #[serde(default)]
    pub(crate) joined: bool,
    /// Words in lower case that, right before a value, say that it is something else (`version 10.0.0.1`); words such as
    /// `number` or `is` may stand between. Names of lists stand for their words.
    #[serde(default)]
    pub(crate) unless: Vec<String>,
    /// Values that are nobody's, compared without case.
    #[serde(default)]
    pub(crate) allow: Vec<String>,
    pub(crate) positive: Vec<String>,
    pub(crate) negative: Vec<String>,
}

const fn context_before() -> usize {
    CONTEXT_BEFORE
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
    /// Place among the rules for personal data.
    number: usize,
    pattern: Regex,
    /// Number of the group named `value`.
    value_group: Option<usize>,
    needs: Needs,
    /// Numbers of the literals of which one must be in the text.
    literals: Vec<usize>,
    /// Numbers of the context words, in order.
    words: Vec<usize>,
}

/// A compiled rule for injections.
#[derive(Debug)]
pub(crate) struct InjectionRule {
    pub(crate) source: InjectionSource,
    pattern: Regex,
    needs: Needs,
    literals: Vec<usize>,
}

/// A value that a rule accepts, in the view's bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Match {
    pub(crate) range: Range<usize>,
    pub(crate) confidence: u16,
}

impl PiiRule {
    /// `number` is its place among the rules for personal data.
    pub(crate) fn compile(
        source: PiiSource,
        number: usize,
        literals: &mut Collection,
    ) -> Result<Self, String> {
        let (pattern, needs) = compile(&source.pattern)?;
        if source.context_required && source.context.is_empty() {
            return Err("context_required without context words".to_owned());
        }
        if source.confidence > 1000 {
            return Err("confidence above 1000".to_owned());
        }
        if let Some(long) = source.context.iter().find(|word| word.len() > MAX_WORD) {
            return Err(format!(
                "context word {long:?} is longer than {MAX_WORD} bytes"
            ));
        }
        let value_group = pattern.group_info().to_index(PatternID::ZERO, "value");
        let mut words: Vec<usize> = source
            .context
            .iter()
            .flat_map(|word| spellings(&folded(word)))
            .map(|word| literals.number(&word))
            .collect();
        words.sort_unstable();
        words.dedup();
        let literals = needs
            .literals
            .iter()
            .map(|literal| literals.number(literal))
            .collect();
        Ok(Self {
            source,
            number,
            pattern,
            value_group,
            needs,
            literals,
            words,
        })
    }

    /// Numbers of the context words, in order.
    pub(crate) fn words(&self) -> &[usize] {
        &self.words
    }

    /// Every value in `text`, of which `hits` tells, from left to right.
    pub(crate) fn find<'r>(
        &'r self,
        text: &'r str,
        hits: &'r Hits,
    ) -> impl Iterator<Item = Match> + 'r {
        let mut stretches = self.stretches(text, hits).into_iter();
        let mut stretch = stretches.next();
        std::iter::from_fn(move || {
            while let Some(left) = &mut stretch {
                let Some(candidate) = self.candidate(text, left) else {
                    stretch = stretches.next();
                    continue;
                };
                if let Some(found) = self.accept(text, &candidate, hits) {
                    left.start = found.range.end;
                    return Some(found);
                }
                left.start = text.ceil_char_boundary(candidate.start + 1);
            }
            None
        })
    }

    /// The stretches of `text` in which a value can be, ordered and apart.
    fn stretches(&self, text: &str, hits: &Hits) -> Vec<Range<usize>> {
        let all = || std::iter::once(0..text.len()).collect();
        if !self.needs.met_by(hits) || !hits.any(&self.literals) {
            return Vec::new();
        }
        let reach = self.needs.max_length;
        if self.source.context_required {
            if self.source.alone && text.len() <= reach + 2 * MAX_MARGIN {
                return all();
            }
            if !hits.has_context(self.number) {
                return Vec::new();
            }
            return hits.around(
                text,
                &self.words,
                CONTEXT_AFTER + reach,
                self.source.within + reach,
            );
        }
        if self.needs.digits {
            return hits.around_digits(text, reach);
        }
        all()
    }

    fn candidate(&self, text: &str, stretch: &Range<usize>) -> Option<Range<usize>> {
        if stretch.start > stretch.end {
            return None;
        }
        let input = Input::new(text).span(stretch.clone());
        match self.value_group {
            None => self.pattern.find(input).map(|found| found.range()),
            Some(group) => {
                // Groups cost much more than a search, and most searches find nothing.
                let found = self.pattern.find(input.clone())?;
                let input = input.span(found.range()).anchored(Anchored::Yes);
                let mut captures = self.pattern.create_captures();
                self.pattern.search_captures(&input, &mut captures);
                captures.get_group(group).map(|found| found.range())
            }
        }
    }

    fn accept(&self, text: &str, candidate: &Range<usize>, hits: &Hits) -> Option<Match> {
        let source = &self.source;
        let value = &text[candidate.clone()];
        let length = source
            .validator
            .map_or(Some(value.len()), |validator| validator.accept(value))?;
        let range = candidate.start..candidate.start + length;
        let value = &text[range.clone()];
        let ours = value.is_empty() || value.contains(OPAQUE);
        let nobodys = || {
            source
                .allow
                .iter()
                .any(|allowed| allowed.eq_ignore_ascii_case(value))
        };
        if ours
            || nobodys()
            || (!source.joined && is_part_of_number(text, &range))
            || (!source.unless.is_empty()
                && source.unless.contains(&name_before(text, range.start)))
        {
            return None;
        }
        if !source
            .checksums
            .iter()
            .all(|checksum| checksum.holds(value))
            || !source
                .date
                .as_ref()
                .is_none_or(|layout| date::holds(layout, value))
        {
            return None;
        }
        let distance = if self.words.is_empty() {
            None
        } else {
            hits.distance(text, &self.words, &range, source.within, CONTEXT_AFTER)
        };
        if source.context_required && distance.is_none() && !(source.alone && is_all(text, &range))
        {
            return None;
        }
        let gain = distance.map_or(0, |distance| {
            CONTEXT_GAIN.saturating_sub(u16::try_from(distance).unwrap_or(CONTEXT_GAIN))
        });
        Some(Match {
            range,
            confidence: (source.confidence + gain).min(1000),
        })
    }
}

/// The ways in which a context word is written: several words in keys (`card number`, `card_number`, `cardnumber`), and
/// capitals that are not ASCII, which the search tells apart.
fn spellings(word: &str) -> Vec<String> {
    let mut all: Vec<String> = [" ", "_", "-", ""]
        .map(|joint| word.replace(' ', joint))
        .into();
    if !word.is_ascii() {
        all.push(word.to_uppercase());
        let mut characters = word.chars();
        all.extend(
            characters
                .next()
                .map(|first| first.to_uppercase().chain(characters).collect()),
        );
    }
    all
}

/// Whether digits go on beyond `range`, after a point or a hyphen: `0.4111…`, `12-219-45-6780`.
fn is_part_of_number(text: &str, range: &Range<usize>) -> bool {
    let bytes = text.as_bytes();
    let digit = |at: Option<usize>| {
        at.and_then(|at| bytes.get(at))
            .is_some_and(u8::is_ascii_digit)
    };
    let joint = |at: Option<usize>| {
        at.and_then(|at| bytes.get(at))
            .is_some_and(|byte| matches!(byte, b'.' | b'-'))
    };
    let before = digit(Some(range.start))
        && joint(range.start.checked_sub(1))
        && digit(range.start.checked_sub(2));
    let after =
        digit(range.end.checked_sub(1)) && joint(Some(range.end)) && digit(Some(range.end + 1));
    before || after
}

/// Bytes before a value in which its name is looked for.
const NAME_REACH: usize = 32;

/// The word before byte `at` that names what stands there, in lower case: words that only join the two are passed over.
fn name_before(text: &str, at: usize) -> String {
    let start = text.ceil_char_boundary(at.saturating_sub(NAME_REACH));
    let line = text[start..at].rsplit(['\n', ';', OPAQUE]).next();
    let words = line
        .unwrap_or_default()
        .rsplit(|character: char| !character.is_alphanumeric());
    words
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
        .find(|word| {
            !matches!(
                word.as_str(),
                "no" | "nr" | "number" | "num" | "id" | "is" | "to"
            )
        })
        .unwrap_or_default()
}

/// Bytes of space and quotes on either side of a value that is all of a text.
const MAX_MARGIN: usize = 8;

/// Whether `text` is nothing but what stands at `range`.
fn is_all(text: &str, range: &Range<usize>) -> bool {
    let nothing = |part: &str| {
        part.bytes()
            .all(|byte| byte.is_ascii_whitespace() || matches!(byte, b'.' | b'"' | b'\''))
    };
    range.start <= MAX_MARGIN
        && text.len() - range.end <= MAX_MARGIN
        && nothing(&text[..range.start])
        && nothing(&text[range.end..])
}

impl InjectionRule {
    pub(crate) fn compile(
        source: InjectionSource,
        literals: &mut Collection,
    ) -> Result<Self, String> {
        let (pattern, needs) = compile(&source.pattern)?;
        let literals = needs
            .literals
            .iter()
            .map(|literal| literals.number(literal))
            .collect();
        Ok(Self {
            source,
            pattern,
            needs,
            literals,
        })
    }

    /// Every match in `text`, of which `hits` tells, from left to right.
    pub(crate) fn find<'r>(
        &'r self,
        text: &'r str,
        hits: &Hits,
    ) -> impl Iterator<Item = Range<usize>> + 'r {
        let possible = self.needs.met_by(hits) && hits.any(&self.literals);
        possible
            .then(|| self.pattern.find_iter(text).map(|found| found.range()))
            .into_iter()
            .flatten()
    }
}

/// Compiles a pattern whose matches are neither empty nor longer than [`MAX_MATCH`].
fn compile(pattern: &str) -> Result<(Regex, Needs), String> {
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
    let config = Config::new().nfa_size_limit(Some(MAX_AUTOMATON));
    let regex = Regex::builder()
        .configure(config)
        .build_from_hir(&syntax)
        .map_err(|error| error.to_string())?;
    Ok((regex, Needs::of(&syntax)))
}
