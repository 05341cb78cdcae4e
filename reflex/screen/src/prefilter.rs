//! The prefilter: one pass over a text that says which rules can match in it at all.
//!
//! From every pattern the literals are derived of which a match must contain one, and the sets of ASCII characters of
//! which it must contain a member. One Aho-Corasick automaton finds the literals of all rules, and their context words,
//! together; only the rules it names run.

use aho_corasick::{AhoCorasick, AhoCorasickBuilder, AhoCorasickKind, MatchKind};
use regex_syntax::hir::{Class, Hir, HirKind};
use std::collections::BTreeMap;
use std::ops::Range;

use crate::view::OPAQUE;

/// Strings that a part of a pattern may stand for before it is taken as open.
const MAX_STRINGS: usize = 160;

/// What every match of a pattern contains.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Needs {
    /// One of these, in lower case; no demand if empty.
    pub(crate) literals: Vec<String>,
    /// A member of each of these sets of ASCII characters.
    sets: Vec<u128>,
    /// A digit.
    pub(crate) digits: bool,
    /// Digits in all, and without a break.
    count: Count,
    /// Letters and digits without a break.
    word: usize,
    /// Longest match, bytes.
    pub(crate) max_length: usize,
}

/// The ASCII digits as a set.
const DIGITS: u128 = 0x3FF << b'0';

impl Needs {
    pub(crate) fn of(pattern: &Hir) -> Self {
        let part = Part::of(pattern);
        let mut sets = part.sets;
        sets.sort_unstable();
        sets.dedup();
        let literals = match (part.exact, part.literals) {
            (Some(exact), _) if weight(&exact) >= 2 => exact,
            (_, Some(literals)) if weight(&literals) >= 2 => literals,
            _ => Vec::new(),
        };
        Self {
            literals,
            digits: sets.iter().any(|set| set & !DIGITS == 0),
            count: Count::of(pattern, u8::is_ascii_digit),
            word: Count::of(pattern, u8::is_ascii_alphanumeric).run,
            sets,
            max_length: pattern.properties().maximum_len().unwrap_or(usize::MAX / 4),
        }
    }

    /// Whether the characters of a text allow a match.
    pub(crate) fn met_by(&self, hits: &Hits) -> bool {
        hits.longest_number >= self.count.run
            && hits.longest_word >= self.word
            && hits.densest(self.max_length) >= self.count.all
            && self.sets.iter().all(|set| set & hits.characters.0 != 0)
    }
}

/// Fewest characters of a kind, such as digits, that a match of a pattern has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Count {
    /// In all.
    all: usize,
    /// In its longest run.
    run: usize,
    /// In the run that it begins with.
    head: usize,
    /// In the run that it ends with.
    tail: usize,
    /// Nothing else.
    pure: bool,
}

impl Count {
    fn of(pattern: &Hir, is_counted: fn(&u8) -> bool) -> Self {
        match pattern.kind() {
            HirKind::Empty | HirKind::Look(_) => Self::pure(0),
            HirKind::Literal(literal) => literal.0.iter().fold(Self::pure(0), |count, byte| {
                count.then(Self::character(is_counted(byte)))
            }),
            HirKind::Class(Class::Unicode(class)) => {
                let mut ends = class
                    .ranges()
                    .iter()
                    .map(|range| (range.start(), range.end()));
                Self::character(ends.all(|(start, end)| {
                    // Letters that fold to ASCII are ASCII by the time a rule sees them.
                    let folds = start == end && matches!(start, '\u{17F}' | '\u{212A}');
                    let counted = |code| u8::try_from(code).is_ok_and(|byte| is_counted(&byte));
                    folds || (end.is_ascii() && (u32::from(start)..=u32::from(end)).all(counted))
                }))
            }
            HirKind::Class(Class::Bytes(_)) => Self::default(),
            HirKind::Capture(capture) => Self::of(&capture.sub, is_counted),
            HirKind::Repetition(repetition) => {
                let one = Self::of(&repetition.sub, is_counted);
                match repetition.min {
                    0 => Self::pure(0).or(one),
                    min if one.pure => Self::pure(one.all * min as usize),
                    min => Self {
                        all: one.all * min as usize,
                        ..one
                    },
                }
            }
            HirKind::Concat(parts) => parts.iter().fold(Self::pure(0), |count, part| {
                count.then(Self::of(part, is_counted))
            }),
            HirKind::Alternation(parts) => parts
                .iter()
                .map(|part| Self::of(part, is_counted))
                .reduce(Self::or)
                .unwrap_or_default(),
        }
    }

    const fn pure(count: usize) -> Self {
        Self {
            all: count,
            run: count,
            head: count,
            tail: count,
            pure: true,
        }
    }

    fn character(is_counted: bool) -> Self {
        if is_counted {
            Self::pure(1)
        } else {
            Self::default()
        }
    }

    fn then(self, next: Self) -> Self {
        Self {
            all: self.all + next.all,
            run: self.run.max(next.run).max(self.tail + next.head),
            head: if self.pure {
                self.all + next.head
            } else {
                self.head
            },
            tail: if next.pure {
                self.tail + next.all
            } else {
                next.tail
            },
            pure: self.pure && next.pure,
        }
    }

    fn or(self, other: Self) -> Self {
        Self {
            all: self.all.min(other.all),
            run: self.run.min(other.run),
            head: self.head.min(other.head),
            tail: self.tail.min(other.tail),
            pure: self.pure && other.pure,
        }
    }
}

/// The ASCII characters of a text.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Characters(u128);

impl Characters {
    pub(crate) fn of(text: &str) -> Self {
        let mut seen = [false; 256];
        for byte in text.bytes() {
            seen[usize::from(byte)] = true;
        }
        let bit = |set: u128, code: usize| set | (u128::from(seen[code]) << code);
        Self((0..128).fold(0, bit))
    }
}

/// What is known of a part of a pattern.
struct Part {
    /// All that it can match, in lower case, if that is little.
    exact: Option<Vec<String>>,
    /// Literals of which a match has one.
    literals: Option<Vec<String>>,
    /// Sets of ASCII characters of which a match has a member.
    sets: Vec<u128>,
}

impl Part {
    fn of(pattern: &Hir) -> Self {
        match pattern.kind() {
            HirKind::Empty | HirKind::Look(_) => Self::exact(vec![String::new()]),
            HirKind::Literal(literal) => match std::str::from_utf8(&literal.0) {
                Ok(text) => {
                    let ascii = text.bytes().filter(u8::is_ascii);
                    Self {
                        sets: ascii.map(|byte| both_cases(u128::from(byte))).collect(),
                        ..Self::exact(vec![text.to_ascii_lowercase()])
                    }
                }
                Err(_) => Self::open(),
            },
            HirKind::Class(class) => Self::class(class),
            HirKind::Capture(capture) => Self::of(&capture.sub),
            HirKind::Repetition(repetition) => {
                let part = Self::of(&repetition.sub);
                match (repetition.min, repetition.max) {
                    (0, Some(1)) => Self {
                        exact: part.exact.map(|mut exact| {
                            exact.push(String::new());
                            exact
                        }),
                        literals: None,
                        sets: Vec::new(),
                    },
                    (0, _) => Self::open(),
                    _ => Self {
                        literals: better(part.literals, part.exact),
                        exact: None,
                        sets: part.sets,
                    },
                }
            }
            HirKind::Concat(parts) => Self::concat(parts),
            HirKind::Alternation(parts) => Self::alternation(parts),
        }
    }

    fn exact(exact: Vec<String>) -> Self {
        Self {
            exact: Some(exact),
            literals: None,
            sets: Vec::new(),
        }
    }

    fn open() -> Self {
        Self {
            exact: None,
            literals: None,
            sets: Vec::new(),
        }
    }

    fn class(class: &Class) -> Self {
        let Class::Unicode(class) = class else {
            return Self::open();
        };
        let mut set = 0;
        let mut exact: Vec<String> = Vec::new();
        let mut count = 0;
        for range in class.ranges() {
            count += range.len();
            let (start, end) = (u32::from(range.start()), u32::from(range.end()));
            set |= (start..=end.min(127)).fold(0_u128, |set, code| set | 1 << code);
            if count <= 8 {
                // Letters that fold to ASCII are ASCII by the time a rule sees them.
                let seen = (start..=end).filter_map(char::from_u32);
                let seen = seen.filter(|letter| !matches!(letter, '\u{17F}' | '\u{212A}'));
                exact.extend(seen.map(|letter| letter.to_ascii_lowercase().to_string()));
            }
        }
        exact.sort_unstable();
        exact.dedup();
        let open = count > 8;
        let foreign = class.ranges().iter().any(|range| range.end() > '\u{7F}');
        let folds = !open && exact.iter().all(|letter| letter.is_ascii());
        Self {
            exact: (!open).then_some(exact),
            literals: None,
            sets: if foreign && !folds {
                Vec::new()
            } else {
                vec![set]
            },
        }
    }

    fn concat(parts: &[Hir]) -> Self {
        let mut whole = Self::exact(vec![String::new()]);
        let mut run: Option<Vec<String>> = whole.exact.take();
        let mut closed = true;
        for part in parts {
            let part = Self::of(part);
            whole.sets.extend(part.sets);
            let product = run
                .as_deref()
                .zip(part.exact.as_deref())
                .and_then(|(left, right)| product(left, right));
            if let Some(product) = product {
                run = Some(product);
            } else {
                closed = false;
                whole.literals = better(whole.literals, run);
                whole.literals = better(whole.literals, part.literals);
                run = Some(part.exact.unwrap_or_else(|| vec![String::new()]));
            }
        }
        if closed {
            whole.exact = run;
        } else {
            whole.literals = better(whole.literals, run);
        }
        whole
    }

    fn alternation(parts: &[Hir]) -> Self {
        let parts: Vec<Self> = parts.iter().map(Self::of).collect();
        let all = |of: &dyn Fn(&Self) -> Option<Vec<String>>| {
            let mut union = Vec::new();
            for part in &parts {
                union.extend(of(part)?);
            }
            union.sort_unstable();
            union.dedup();
            (union.len() <= MAX_STRINGS).then_some(union)
        };
        // A set that every branch demands; of several the first, which is as good as any.
        let union = parts
            .iter()
            .try_fold(0, |set, part| Some(set | part.sets.first()?));
        Self {
            exact: all(&|part| part.exact.clone()),
            literals: all(&|part| better(part.literals.clone(), part.exact.clone())),
            sets: union.into_iter().collect(),
        }
    }
}

fn both_cases(byte: u128) -> u128 {
    let byte = u8::try_from(byte).unwrap_or_default();
    1 << byte.to_ascii_lowercase() | 1 << byte.to_ascii_uppercase()
}

fn product(left: &[String], right: &[String]) -> Option<Vec<String>> {
    (left.len() * right.len() <= MAX_STRINGS).then(|| {
        let pairs = left
            .iter()
            .flat_map(|head| right.iter().map(move |tail| format!("{head}{tail}")));
        pairs.collect()
    })
}

/// The set of literals that says more: the one whose shortest is longer.
fn better(left: Option<Vec<String>>, right: Option<Vec<String>>) -> Option<Vec<String>> {
    [left, right]
        .into_iter()
        .flatten()
        .max_by_key(|set| weight(set))
        .filter(|set| weight(set) > 0)
}

fn weight(set: &[String]) -> usize {
    set.iter().map(String::len).min().unwrap_or(0)
}

/// All literals of a rule set.
#[derive(Debug)]
pub(crate) struct Literals {
    automaton: AhoCorasick,
    /// Rules by the numbers of their context words.
    rules: Vec<Vec<usize>>,
    /// Rules that have context words.
    rule_count: usize,
}

/// Collects the literals of all rules, each once.
#[derive(Default)]
pub(crate) struct Collection {
    ids: BTreeMap<String, usize>,
    literals: Vec<String>,
}

impl Collection {
    /// The number of `literal`, which is new or there already.
    pub(crate) fn number(&mut self, literal: &str) -> usize {
        let literal = literal.to_ascii_lowercase();
        if let Some(number) = self.ids.get(&literal) {
            return *number;
        }
        self.literals.push(literal.clone());
        self.ids.insert(literal, self.literals.len() - 1);
        self.literals.len() - 1
    }

    /// `words` are the numbers of the context words of each rule.
    pub(crate) fn compile<'r>(
        self,
        words: impl Iterator<Item = &'r [usize]>,
    ) -> Result<Literals, String> {
        let automaton = AhoCorasickBuilder::new()
            .ascii_case_insensitive(true)
            .match_kind(MatchKind::Standard)
            .kind(Some(AhoCorasickKind::DFA))
            .build(&self.literals)
            .map_err(|error| error.to_string())?;
        let mut rules = vec![Vec::new(); self.literals.len()];
        let mut rule_count = 0;
        for own in words {
            for word in own {
                rules[*word].push(rule_count);
            }
            rule_count += 1;
        }
        Ok(Literals {
            automaton,
            rules,
            rule_count,
        })
    }
}

/// Where the literals of a rule set stand in one text.
#[derive(Debug)]
pub(crate) struct Hits {
    seen: Vec<bool>,
    /// Rules of which a context word is there.
    with_context: Vec<bool>,
    /// Whole words: the number of the literal and its place, in the order of their ends.
    words: Vec<(usize, Range<usize>)>,
    /// Stretches with digits: first and last digit, at most [`MAX_GAP`] bytes between two.
    digits: Vec<Range<usize>>,
    /// Digits of the longest run of them.
    longest_number: usize,
    /// Letters and digits of the longest run of them, ASCII.
    longest_word: usize,
    /// Most digits in a stretch of each of the lengths of [`STRETCHES`], and in all.
    densest: [usize; STRETCHES.len() + 1],
    characters: Characters,
}

impl Literals {
    pub(crate) fn find(&self, text: &str) -> Hits {
        let positions = digit_positions(text);
        let mut hits = Hits {
            seen: vec![false; self.rules.len()],
            with_context: vec![false; self.rule_count],
            words: Vec::new(),
            digits: digits(&positions),
            longest_number: longest_run(&positions),
            longest_word: longest_word(text),
            densest: densest(&positions),
            characters: Characters::of(text),
        };
        for found in self.automaton.find_overlapping_iter(text) {
            let number = found.pattern().as_usize();
            hits.seen[number] = true;
            if !self.rules[number].is_empty() && is_word(text.as_bytes(), &found.range()) {
                for rule in &self.rules[number] {
                    hits.with_context[*rule] = true;
                }
                hits.words.push((number, found.range()));
            }
        }
        hits
    }
}

impl Hits {
    pub(crate) fn any(&self, literals: &[usize]) -> bool {
        literals.is_empty() || literals.iter().any(|number| self.seen[*number])
    }

    /// Whether a context word of the rule of this number is there.
    pub(crate) fn has_context(&self, rule: usize) -> bool {
        self.with_context[rule]
    }

    /// Most digits that a stretch of so many bytes has, or somewhat more.
    fn densest(&self, length: usize) -> usize {
        let index = STRETCHES.partition_point(|stretch| *stretch < length);
        self.densest[index]
    }

    /// The stretches of `text` within `before` and `after` bytes of one of `words`, ordered and apart.
    pub(crate) fn around(
        &self,
        text: &str,
        words: &[usize],
        before: usize,
        after: usize,
    ) -> Vec<Range<usize>> {
        let own = self
            .words
            .iter()
            .filter(|(number, _)| words.binary_search(number).is_ok());
        let places = own.map(|(_, place)| place.start.saturating_sub(before)..place.end + after);
        merged(text, places.collect())
    }

    /// The stretches of `text` within `reach` bytes of a digit, ordered and apart.
    pub(crate) fn around_digits(&self, text: &str, reach: usize) -> Vec<Range<usize>> {
        let places = self.digits.iter();
        merged(
            text,
            places
                .map(|digits| digits.start.saturating_sub(reach)..digits.end + reach)
                .collect(),
        )
    }

    /// Bytes between `value` and the nearest of the words, which `words` lists in order; None if none is near.
    ///
    /// A word belongs to the first value after it: one that stands beyond another value is no context, unless the two
    /// make a list. A word behind the value is its context on the same line, if it has no value of its own.
    pub(crate) fn distance(
        &self,
        text: &str,
        words: &[usize],
        value: &Range<usize>,
        before: usize,
        after: usize,
    ) -> Option<usize> {
        let first = self
            .words
            .partition_point(|(_, place)| place.end + before < value.start);
        let near = self.words[first..]
            .iter()
            .take_while(|(_, place)| place.end <= value.end + after + MAX_WORD);
        near.filter(|(number, _)| words.binary_search(number).is_ok())
            .filter_map(|(_, place)| {
                if place.end <= value.start {
                    let free = leads(&text[place.end..value.start]);
                    free.then_some(value.start - place.end)
                } else if place.start >= value.end {
                    let distance = place.start - value.end;
                    let free = distance <= after && trails(text, value.end..place.start, place.end);
                    free.then_some(distance + AFTER)
                } else {
                    None
                }
            })
            .min()
    }
}

/// Bytes between two digits of one stretch: fewer stretches are worth more than short ones.
const MAX_GAP: usize = 64;

/// Lengths of stretches of which is known how many digits they have at most, bytes.
const STRETCHES: [usize; 6] = [12, 16, 20, 28, 40, 64];

fn digit_positions(text: &str) -> Vec<usize> {
    let bytes = text.bytes().enumerate();
    bytes
        .filter(|(_, byte)| byte.is_ascii_digit())
        .map(|(at, _)| at)
        .collect()
}

fn digits(positions: &[usize]) -> Vec<Range<usize>> {
    let mut stretches: Vec<Range<usize>> = Vec::new();
    for at in positions {
        match stretches.last_mut() {
            Some(last) if at - last.end <= MAX_GAP => last.end = at + 1,
            _ => stretches.push(*at..at + 1),
        }
    }
    stretches
}

fn longest_run(positions: &[usize]) -> usize {
    let runs = positions.chunk_by(|at, next| at + 1 == *next);
    runs.map(<[usize]>::len).max().unwrap_or(0)
}

fn longest_word(text: &str) -> usize {
    let words = text.as_bytes().split(|byte| !byte.is_ascii_alphanumeric());
    words.map(<[u8]>::len).max().unwrap_or(0)
}

fn densest(positions: &[usize]) -> [usize; STRETCHES.len() + 1] {
    let mut densest = [positions.len(); STRETCHES.len() + 1];
    for (most, length) in densest.iter_mut().zip(STRETCHES) {
        *most = 0;
        let mut first = 0;
        for (index, at) in positions.iter().enumerate() {
            while at - positions[first] >= length {
                first += 1;
            }
            *most = (*most).max(index + 1 - first);
        }
    }
    densest
}

/// `places`, cut to the text and its characters, in order and apart.
fn merged(text: &str, mut places: Vec<Range<usize>>) -> Vec<Range<usize>> {
    places.sort_unstable_by_key(|place| place.start);
    let mut merged: Vec<Range<usize>> = Vec::new();
    for place in places {
        let place = text.floor_char_boundary(place.start)
            ..text.ceil_char_boundary(place.end.min(text.len()));
        match merged.last_mut() {
            Some(last) if place.start <= last.end => last.end = last.end.max(place.end),
            _ => merged.push(place),
        }
    }
    merged
}

/// Digits that make a value of a word.
const MIN_DIGITS: usize = 4;

/// Whether nothing between a word and a value takes the word for itself: no other value, or one that the value is listed
/// after.
fn leads(between: &str) -> bool {
    let mut after_value = None;
    let mut end = 0;
    for token in between.split_inclusive([' ', '\n', '\t', ';', ',']) {
        end += token.len();
        let digits = token.bytes().filter(u8::is_ascii_digit).count();
        if digits >= MIN_DIGITS || token.contains(OPAQUE) {
            after_value = Some(end);
        }
    }
    after_value.is_none_or(|end| {
        between[end..]
            .split(|byte: char| !byte.is_alphanumeric())
            .all(is_joint)
    })
}

/// Whether a word joins the items of a list.
fn is_joint(word: &str) -> bool {
    matches!(
        word.to_ascii_lowercase().as_str(),
        "" | "and" | "or" | "und" | "oder" | "et" | "ou" | "y" | "o" | "e" | "en"
    )
}

/// Whether a word that begins after `between` and ends at `end` speaks of the value before it.
fn trails(text: &str, between: Range<usize>, end: usize) -> bool {
    let rest = &text[end..text.floor_char_boundary((end + AFTER).min(text.len()))];
    let rest = rest.split('\n').next().unwrap_or_default();
    let own = rest.bytes().any(|byte| byte.is_ascii_digit()) || rest.contains(OPAQUE);
    !own && !text[between].contains(['\n', ';', OPAQUE])
}

/// Longest context word, bytes.
pub(crate) const MAX_WORD: usize = 64;

/// A word after the value is as good as one that is so much farther before it.
const AFTER: usize = 16;

/// Whether `range` is bounded as a word is: by anything but letters and digits, or where `camelCase` begins a word.
fn is_word(text: &[u8], range: &Range<usize>) -> bool {
    let inside = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    let before = range.start.checked_sub(1).and_then(|at| text.get(at));
    let (first, next) = (text[range.start], text.get(range.end));
    let starts = !inside(before)
        || (before.is_some_and(u8::is_ascii_lowercase) && first.is_ascii_uppercase());
    let ends = !inside(next)
        || (text[range.end - 1].is_ascii_lowercase() && next.is_some_and(u8::is_ascii_uppercase))
        || !text[range.end - 1].is_ascii_alphanumeric();
    starts && ends
}

#[cfg(test)]
mod tests {
    use super::*;

    fn literals(pattern: &str) -> Vec<String> {
        Needs::of(&regex_syntax::parse(pattern).expect("parses")).literals
    }

    #[test]
    fn literals_are_those_that_every_match_has() {
        assert_eq!(literals("sk-[a-z]{20}"), ["sk-"]);
        assert_eq!(literals("(?i)Ghp_[a-z]{3}"), ["ghp_"]);
        assert_eq!(
            literals("gh[pous]_[a-z]{3}"),
            ["gho_", "ghp_", "ghs_", "ghu_"]
        );
        assert_eq!(literals("(?:ab|cd)?xyz"), ["abxyz", "cdxyz", "xyz"]);
        assert_eq!(literals("[0-9]{3}|abc"), [""; 0]);
        assert_eq!(literals("[a-z]{1,9}@[a-z]{1,9}"), [""; 0]);
        assert_eq!(literals("(?:foo|bar)[0-9]{1,3}longer"), ["longer"]);
    }

    fn met(pattern: &str, text: &str) -> bool {
        let hits = Collection::default()
            .compile(std::iter::empty())
            .expect("compiles")
            .find(text);
        Needs::of(&regex_syntax::parse(pattern).expect("parses")).met_by(&hits)
    }

    #[test]
    fn sets_are_those_that_every_match_has() {
        assert!(!met("[a-z]{1,9}@[a-z]", "no sign"));
        assert!(met("[a-z]{1,9}@[a-z]", "a@b"));
        assert!(!met("[0-9]{2}-[0-9]", "no digit -"));
        assert!(met("[0-9]{2}|x", "x"));
        assert!(met("é[0-9]{0,2}", "é"));
    }

    #[test]
    fn digits_are_counted_as_every_match_has_them() {
        for (pattern, all, run) in [
            ("[0-9]{3}-[0-9]{2}-[0-9]{4}", 9, 4),
            ("[0-9]{3}[ -]?[0-9]{2}", 5, 3),
            ("[0-9]{4}[0-9]{3}", 7, 7),
            ("(?:19|20)?[0-9]{6}", 6, 6),
            ("[0-9]{8}|[a-z][0-9]{2}", 2, 2),
            ("[0-9](?:[ -]?[0-9]){5,19}", 6, 1),
            ("(?:[0-9]{1,3}[.]){3}[0-9]{1,3}", 4, 1),
            ("[0-9a-f]{8}", 0, 0),
            ("A12b3[0-9]", 4, 2),
            ("x?[0-9]{2}y?", 2, 2),
        ] {
            let count = Count::of(
                &regex_syntax::parse(pattern).expect("parses"),
                u8::is_ascii_digit,
            );
            assert_eq!((count.all, count.run), (all, run), "{pattern}");
        }
        assert!(met("(?i)[a-z0-9]{8}", "abcdef78"));
        assert!(!met("(?i)[a-z0-9]{8}", "ab cdef 78"));
        assert!(met("[A-z]{4}", "a_b^"));
        assert!(met("[0-9]{3}-[0-9]{2}", "on 123-45"));
        assert!(!met("[0-9]{3}-[0-9]{2}", "12-34-56"));
        assert!(!met(
            "[0-9](?: ?[0-9]){11}",
            "123456 and then at last 123456"
        ));
    }
}
