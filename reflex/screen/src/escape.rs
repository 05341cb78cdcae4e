//! Escapes: characters written as ASCII, in the notations of URLs, HTML, JSON and programming languages.

/// Escapes within escapes that are undone, e.g. 2 for `%2540`.
const MAX_DEPTH: usize = 3;

/// Longest escape, bytes: a character of four bytes, each as `%XX`, three times over.
const MAX_LENGTH: usize = 64;

/// Names of the HTML entities that stand for ASCII and matter to a pattern.
const ENTITIES: &[(&str, char)] = &[
    ("amp;", '&'),
    ("apos;", '\''),
    ("colon;", ':'),
    ("commat;", '@'),
    ("dash;", '-'),
    ("equals;", '='),
    ("gt;", '>'),
    ("hyphen;", '-'),
    ("lowbar;", '_'),
    ("lt;", '<'),
    ("nbsp;", ' '),
    ("num;", '#'),
    ("percnt;", '%'),
    ("period;", '.'),
    ("plus;", '+'),
    ("quot;", '"'),
    ("shy;", '\u{AD}'),
    ("sol;", '/'),
    ("zwnj;", '\u{200C}'),
];

/// The character that `text` begins with in an escaped form, and the bytes of that form.
pub(crate) fn character_at(text: &str) -> Option<(char, usize)> {
    let (mut character, mut length) = once(text)?;
    for _ in 1..MAX_DEPTH {
        if !matches!(character, '%' | '&' | '\\') || text.len() == length {
            break;
        }
        // The escape of an escape: its first character is what was undone just now.
        let end = text.floor_char_boundary((length + MAX_LENGTH).min(text.len()));
        let inner = format!("{character}{}", &text[length..end]);
        let Some((next, taken)) = once(&inner) else {
            break;
        };
        (character, length) = (next, length + taken - 1);
    }
    Some((character, length))
}

fn once(text: &str) -> Option<(char, usize)> {
    match text.as_bytes().first()? {
        b'%' => percent(text),
        b'&' => entity(&text[1..]).map(|(character, length)| (character, length + 1)),
        b'\\' => backslash(&text[1..]).map(|(character, length)| (character, length + 1)),
        _ => None,
    }
}

/// Percent-encoding of one UTF-8 character (RFC 3986).
fn percent(text: &str) -> Option<(char, usize)> {
    let byte = |index: usize| {
        let triple = text.as_bytes().get(3 * index..3 * index + 3)?;
        (triple[0] == b'%').then(|| hexadecimal(&triple[1..]))?
    };
    let first = u8::try_from(byte(0)?).ok()?;
    let count = match first {
        0x20..=0x7F | b'\n' | b'\r' | b'\t' => 1,
        0xC2..=0xDF => 2,
        0xE0..=0xEF => 3,
        0xF0..=0xF4 => 4,
        _ => return None,
    };
    let mut bytes = [0; 4];
    for (index, slot) in bytes[..count].iter_mut().enumerate() {
        *slot = u8::try_from(byte(index)?).ok()?;
    }
    let character = std::str::from_utf8(&bytes[..count]).ok()?.chars().next()?;
    Some((character, 3 * count))
}

fn entity(text: &str) -> Option<(char, usize)> {
    if let Some(number) = text.strip_prefix('#') {
        let (digits, radix, before) = match number.as_bytes().first()? {
            b'x' | b'X' => (&number[1..], 16, 2),
            _ => (number, 10, 1),
        };
        let length = digits
            .bytes()
            .take(8)
            .take_while(|byte| char::from(*byte).is_digit(radix))
            .count();
        let code = u32::from_str_radix(&digits[..length], radix).ok()?;
        let semicolon = usize::from(digits.as_bytes().get(length) == Some(&b';'));
        return Some((visible(code)?, before + length + semicolon));
    }
    ENTITIES
        .iter()
        .find(|(name, _)| text.starts_with(name))
        .map(|(name, character)| (*character, name.len()))
}

fn backslash(text: &str) -> Option<(char, usize)> {
    let rest = text.as_bytes();
    match rest.first()? {
        b'n' => Some(('\n', 1)),
        b'r' => Some(('\r', 1)),
        b't' => Some(('\t', 1)),
        b'"' => Some(('"', 1)),
        b'x' => Some((visible(hexadecimal(rest.get(1..3)?)?)?, 3)),
        b'u' if rest.get(1) == Some(&b'{') => {
            let length = rest[2..]
                .iter()
                .take(6)
                .take_while(|byte| byte.is_ascii_hexdigit())
                .count();
            let code = hexadecimal(&rest[2..2 + length])?;
            (rest.get(2 + length) == Some(&b'}')).then(|| Some((visible(code)?, 3 + length)))?
        }
        b'u' => {
            let code = hexadecimal(rest.get(1..5)?)?;
            if let 0xD800..=0xDBFF = code {
                let low = rest.get(5..11).filter(|pair| pair.starts_with(b"\\u"))?;
                let low = hexadecimal(&low[2..])?
                    .checked_sub(0xDC00)
                    .filter(|low| *low < 0x400)?;
                return Some((visible(0x10000 + ((code - 0xD800) << 10) + low)?, 11));
            }
            Some((visible(code)?, 5))
        }
        _ => None,
    }
}

fn visible(code: u32) -> Option<char> {
    char::from_u32(code)
        .filter(|character| *character >= ' ' || matches!(character, '\n' | '\r' | '\t'))
}

fn hexadecimal(digits: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(digits).ok()?;
    text.bytes()
        .all(|byte| byte.is_ascii_hexdigit())
        .then(|| u32::from_str_radix(text, 16).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_of_all_notations() {
        for (text, character) in [
            ("%40x", Some(('@', 3))),
            ("%C3%A9", Some(('é', 6))),
            ("%2540", Some(('@', 5))),
            ("%25252540", Some(('%', 7))),
            ("%4", None),
            ("%zz", None),
            ("%00", None),
            ("%C3x", None),
            ("&#64;", Some(('@', 5))),
            ("&#x40;", Some(('@', 6))),
            ("&#64 ", Some(('@', 4))),
            ("&commat;", Some(('@', 8))),
            ("&amp;#64;", Some(('@', 9))),
            ("& ", None),
            ("&#;", None),
            ("\\u0040", Some(('@', 6))),
            ("\\u{40}", Some(('@', 6))),
            ("\\x40", Some(('@', 4))),
            ("\\ud83d\\ude00", Some(('😀', 12))),
            ("\\ud83d", None),
            ("\\u{}", None),
            ("\\n", Some(('\n', 2))),
            ("\\d", None),
            ("", None),
        ] {
            assert_eq!(character_at(text), character, "{text}");
        }
    }
}
