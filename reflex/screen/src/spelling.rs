//! Spelling: addresses spelled out (`ada [at] example dot org`) and characters set apart (`2 1 9 - 4 5`).

use std::borrow::Cow;
use std::ops::Range;
use std::sync::LazyLock;

use regex::Regex;

use crate::view::View;

/// Characters set apart that make a spaced word; fewer are initials or a list.
const MIN_SPACED: usize = 6;

/// Houses of mail whose name after the word `at` makes an address.
const MAIL_HOUSES: &[&str] = &[
    "mail.", "yahoo.", "outlook.", "icloud.", "aol.", "gmx.", "proton.",
];

/// What stands between characters set apart.
const SEPARATORS: &[u8] = b" ._-*|/~+,";

/// Words for `@` and for the dot, in brackets or with words around them that make an address.
static SPELLED: LazyLock<Regex> = LazyLock::new(|| {
    let pattern = concat!(
        r"(?i)(?P<at>[ \t]{0,2}[\[({<]{1,2}[ \t]{0,2}(?:at|arroba|chez|@|a t)[ \t]{0,2}[\])}>]{1,2}[ \t]{0,2}",
        r"|[ \t]{1,2}@[ \t]{1,2})",
        r"|(?P<dot>[ \t]{0,2}[\[({<]{1,2}[ \t]{0,2}(?:dot|punkt|punto|point|d o t|\.)[ \t]{0,2}[\])}>]{1,2}[ \t]{0,2}",
        r"|[ \t]{1,2}\.[ \t]{1,2})",
        r"|(?P<words>(?-u:\b)[a-z0-9][a-z0-9._%+-]{0,63}[ _]{1,2}at[ _]{1,2}[a-z0-9-]{1,63}",
        r"(?:[ _]{1,2}dot[ _]{1,2}[a-z0-9-]{2,63}){1,4}(?-u:\b)",
        r"|(?-u:\b)[a-z0-9][a-z0-9._%+-]{0,63}[ _]{1,2}at[ _]{1,2}",
        r"(?:g?mail|googlemail|hotmail|protonmail|yahoo|outlook|icloud|aol|gmx|proton)\.[a-z]{2,3}(?-u:\b))",
    );
    // A literal of this file; its test compiles it.
    Regex::new(pattern).unwrap_or_else(|error| panic!("the pattern of spelled addresses: {error}"))
});

/// The view with what is spelled out written as usual; None if nothing is.
pub(crate) fn respelled(view: &View<'_>) -> Option<View<'static>> {
    let gaps = spaced(view.text());
    let joined = (!gaps.is_empty()).then(|| view.respelled(&gaps));
    let signs = addresses(joined.as_ref().map_or(view.text(), View::text));
    if signs.is_empty() {
        return joined;
    }
    Some(
        joined
            .as_ref()
            .map_or_else(|| view.respelled(&signs), |joined| joined.respelled(&signs)),
    )
}

/// Whether the pattern of addresses can match at all: a bracket before a word for a sign, a sign set apart, the word
/// `dot`, or a house of mail that is named.
fn has_sign(text: &str) -> bool {
    let bytes = text.as_bytes();
    let signs = bytes.windows(3).any(|three| match three {
        [b'[' | b'(' | b'{' | b'<', next, after] => {
            let next = if *next == b' ' { after } else { next };
            matches!(
                next.to_ascii_lowercase(),
                b'a' | b'd' | b'@' | b'.' | b'p' | b'c'
            )
        }
        [b' ', b'@' | b'.', b' '] => true,
        [b'd' | b'D', b'o' | b'O', b't' | b'T'] => true,
        _ => false,
    });
    signs || MAIL_HOUSES.iter().any(|house| text.contains(house))
}

fn addresses(text: &str) -> Vec<(Range<usize>, Cow<'static, str>)> {
    if !has_sign(text) {
        return Vec::new();
    }
    let mut edits: Vec<(Range<usize>, Cow<'static, str>)> = Vec::new();
    for found in SPELLED.captures_iter(text) {
        if let Some(at) = found.name("at") {
            edits.push((at.range(), "@".into()));
        } else if let Some(dot) = found.name("dot") {
            edits.push((dot.range(), ".".into()));
        } else if let Some(words) = found.name("words") {
            words_of(text, words.range(), &mut edits);
        }
    }
    edits
}

/// The separators of `ada at example dot org`.
fn words_of(text: &str, range: Range<usize>, edits: &mut Vec<(Range<usize>, Cow<'static, str>)>) {
    let mut start = range.start;
    let bytes = text.as_bytes();
    let separator = |byte: u8| matches!(byte, b' ' | b'_');
    let mut words: Vec<Range<usize>> = Vec::new();
    for at in range.clone() {
        if separator(bytes[at]) {
            if at > start {
                words.push(start..at);
            }
            start = at + 1;
        }
    }
    words.push(start..range.end);
    let mut signed = false;
    for (index, word) in words.iter().enumerate() {
        let sign = match &text[word.clone()] {
            at if !signed && at.eq_ignore_ascii_case("at") => "@",
            dot if signed && dot.eq_ignore_ascii_case("dot") => ".",
            _ => continue,
        };
        signed = true;
        let before = index
            .checked_sub(1)
            .map_or(range.start, |index| words[index].end);
        let after = words.get(index + 1).map_or(range.end, |next| next.start);
        edits.push((before..after, sign.into()));
    }
}

/// The separators between characters set apart: each is dropped, a wider gap is a space.
fn spaced(text: &str) -> Vec<(Range<usize>, Cow<'static, str>)> {
    let mut edits = Vec::new();
    let bytes = text.as_bytes();
    let mut at = 0;
    while at + 2 * MIN_SPACED - 1 <= bytes.len() {
        // Single characters stand at every second byte of a run; a separator at `at + 1` begins one.
        let separator = bytes[at + 1];
        if !SEPARATORS.contains(&separator) || !single(bytes, at, separator) {
            at += 1;
            continue;
        }
        let mut gaps: Vec<(Range<usize>, Cow<'static, str>)> = Vec::new();
        let mut count = 1;
        let mut last = at;
        loop {
            let gap = bytes[last + 1..]
                .iter()
                .take(4)
                .take_while(|byte| **byte == separator)
                .count();
            let next = last + 1 + gap;
            let wide = separator == b' ' && gap > 1;
            if gap == 0
                || (gap > 1 && !wide)
                || next >= bytes.len()
                || !single(bytes, next, separator)
            {
                break;
            }
            gaps.push((last + 1..next, if wide { " ".into() } else { "".into() }));
            count += 1;
            last = next;
        }
        if count >= MIN_SPACED {
            edits.extend(gaps);
        }
        at = last + 1;
    }
    edits
}

/// Whether a character stands alone at `at`: neither side of it is a letter or a digit. Next to a sign it does (`a d a,`).
fn single(bytes: &[u8], at: usize, separator: u8) -> bool {
    let word = |at: Option<usize>| {
        at.and_then(|at| bytes.get(at))
            .is_some_and(u8::is_ascii_alphanumeric)
    };
    bytes[at].is_ascii_graphic()
        && bytes[at] != separator
        && !word(at.checked_sub(1))
        && !word(Some(at + 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ruleset::Ruleset;

    fn spelled(text: &str) -> Option<String> {
        let view = View::of(text, &[], Ruleset::builtin());
        respelled(&view).map(|view| view.text().to_owned())
    }

    #[test]
    fn addresses_spelled_out() {
        for (text, plain) in [
            ("ada [at] example [dot] org", Some("ada@example.org")),
            ("ada(at)example.org", Some("ada@example.org")),
            (
                "ada at example dot co dot uk now",
                Some("ada@example.co.uk now"),
            ),
            ("ada @ example . org", Some("ada@example.org")),
            ("john at gmail.com", Some("john@gmail.com")),
            ("look at example", None),
            ("look at example.com", None),
            ("meet at noon dot", None),
        ] {
            assert_eq!(spelled(text).as_deref(), plain, "{text}");
        }
    }

    #[test]
    fn characters_set_apart() {
        for (text, plain) in [
            ("is 2 1 9 - 4 5 - 6 7 8 0, yes", Some("is 219-45-6780, yes")),
            ("a d a @ e x a m p l e . o r g", Some("ada@example.org")),
            ("i g n o r e   a l l", Some("ignore all")),
            ("4.1.1.1.1.1.1.1", Some("41111111")),
            ("a b c", None),
            ("1, 2, 3, 4, 5, 6, 7, 8", None),
        ] {
            assert_eq!(spelled(text).as_deref(), plain, "{text}");
        }
    }
}
