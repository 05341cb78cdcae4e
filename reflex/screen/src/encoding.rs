//! Encodings of whole texts within a text: base64, hexadecimal and binary.

use std::ops::Range;

use base64::Engine;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// Shortest encoded part that is looked at, bytes: it holds 9 in base64, 7 in hexadecimal.
const MIN_BASE64: usize = 12;
const MIN_HEX: usize = 14;

/// What stands between two bytes.
const PAIR_SEPARATORS: &[u8] = b" :-,._\n";

/// Longest encoded part that is looked at, bytes. A longer one is a file.
const MAX_ENCODED: usize = 64 * 1024;

const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_padding_mode(DecodePaddingMode::Indifferent)
    .with_decode_allow_trailing_bits(true);
const BASE64: GeneralPurpose = GeneralPurpose::new(&STANDARD, LENIENT);
const BASE64_URL: GeneralPurpose = GeneralPurpose::new(&URL_SAFE, LENIENT);

/// The texts that stand encoded in `text`, with the stretches that encode them.
pub(crate) fn decoded(text: &str) -> Vec<(Range<usize>, String)> {
    let bytes = text.as_bytes();
    let mut found = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let length = bytes[at..]
            .iter()
            .take_while(|byte| is_symbol(**byte))
            .count();
        if (MIN_BASE64..=MAX_ENCODED).contains(&length) {
            let padding = bytes[at + length..]
                .iter()
                .take(2)
                .take_while(|byte| **byte == b'=')
                .count();
            let run = at..at + length;
            if let Some(inner) = decode(&text[run.clone()]) {
                found.push((run.start..run.end + padding, inner));
            }
        }
        at += length.max(1);
    }
    found.extend(decoded_pairs(text));
    found.extend(decoded_bits(text));
    found
}

/// The texts of which every byte stands as eight binary digits, one space apart: `01101000 01101001`.
fn decoded_bits(text: &str) -> Vec<(Range<usize>, String)> {
    let bytes = text.as_bytes();
    let word = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_alphanumeric);
    let octet = |at: usize| -> Option<u8> {
        let digits = bytes.get(at..at + 8)?;
        let bit = |value: u8, digit: &u8| match digit {
            b'0' | b'1' => Some(value << 1 | (digit - b'0')),
            _ => None,
        };
        let value = digits.iter().try_fold(0, bit)?;
        let alone = (at == 0 || !word(at - 1)) && !word(at + 8);
        alone.then_some(value)
    };
    let mut found = Vec::new();
    let mut at = 0;
    while at + 8 < bytes.len() {
        let Some(first) = octet(at) else {
            at += 1;
            continue;
        };
        let mut values = vec![first];
        let mut end = at + 8;
        while bytes.get(end) == Some(&b' ')
            && let Some(value) = octet(end + 1)
        {
            values.push(value);
            end += 9;
        }
        if (MIN_HEX / 2..=MAX_ENCODED).contains(&values.len())
            && let Some(inner) = readable(values)
        {
            found.push((at..end, inner));
        }
        at = end;
    }
    found
}

/// The texts of which every byte stands as two hexadecimal digits of its own: `68 65 6c 6c 6f`.
fn decoded_pairs(text: &str) -> Vec<(Range<usize>, String)> {
    let bytes = text.as_bytes();
    let word = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_alphanumeric);
    let pair = |at: usize| -> Option<u8> {
        let value = hex::decode(bytes.get(at..at + 2)?).ok()?[0];
        let alone = (at == 0 || !word(at - 1)) && !word(at + 2);
        alone.then_some(value)
    };
    let mut found = Vec::new();
    let mut at = 0;
    while at + 2 < bytes.len() {
        let separator = bytes[at + 2];
        let Some(first) = pair(at).filter(|_| PAIR_SEPARATORS.contains(&separator)) else {
            at += 1;
            continue;
        };
        let mut values = vec![first];
        let mut end = at + 2;
        while bytes.get(end) == Some(&separator)
            && let Some(value) = pair(end + 1)
        {
            values.push(value);
            end += 3;
        }
        if (MIN_HEX / 2..=MAX_ENCODED).contains(&values.len())
            && let Some(inner) = readable(values)
        {
            found.push((at..end, inner));
        }
        at = end;
    }
    found
}

fn decode(run: &str) -> Option<String> {
    let hexadecimal = run.strip_prefix("0x").unwrap_or(run);
    if hexadecimal.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return (hexadecimal.len() >= MIN_HEX && hexadecimal.len().is_multiple_of(2))
            .then(|| hex::decode(hexadecimal).ok().and_then(readable))?;
    }
    let engine = if run.contains(['-', '_']) {
        &BASE64_URL
    } else {
        &BASE64
    };
    // A last symbol alone holds no byte.
    let whole = if run.len() % 4 == 1 {
        run.len() - 1
    } else {
        run.len()
    };
    engine.decode(&run[..whole]).ok().and_then(readable)
}

/// Bytes as text, if they are text: UTF-8 without control characters.
fn readable(bytes: Vec<u8>) -> Option<String> {
    let text = String::from_utf8(bytes).ok()?;
    let control =
        |character: char| character.is_control() && !matches!(character, '\n' | '\r' | '\t');
    (!text.contains(control)).then_some(text)
}

const fn is_symbol(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'-' | b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_that_stand_encoded() {
        for (text, inner) in [
            (
                "see YWRhQGV4YW1wbGUub3Jn now",
                Some((4..24, "ada@example.org")),
            ),
            (
                "YWRhQGV4YW1wbGUub3JnCg==",
                Some((0..24, "ada@example.org\n")),
            ),
            (
                "x 616461406578616d706c652e6f7267",
                Some((2..32, "ada@example.org")),
            ),
            (
                "0x616461406578616d706c652e6f7267",
                Some((0..32, "ada@example.org")),
            ),
            (
                "x 61 64 61 40 65 78 61 6d 70 6c 65 2e 6f 72 67 y",
                Some((2..46, "ada@example.org")),
            ),
            ("a:61:64:61:40:65:78:61", Some((2..22, "ada@exa"))),
            (
                "x 01100001 01100100 01100001 01000000 01100101 01111000 01100001",
                Some((2..64, "ada@exa")),
            ),
            ("00000000 11111111 00000000", None),
            ("00:1a:2b:3c:4d:5e:6f:70", None),
            ("61 64 61 40", None),
            ("internationalization of everything", None),
            ("d41d8cd98f00b204e9800998ecf8427e", None),
            ("", None),
        ] {
            let found = decoded(text);
            let found = found
                .first()
                .map(|(range, inner)| (range.clone(), inner.as_str()));
            assert_eq!(found, inner, "{text}");
        }
    }
}
