//! Secrets that have no form of their own.

/// Words of placeholders, examples and references to a value that stands elsewhere.
const PLACEHOLDERS: &[&str] = &[
    "example",
    "placeholder",
    "changeme",
    "change_me",
    "your_",
    "your-",
    "yourkey",
    "xxxx",
    "****",
    "....",
    "redacted",
    "process.env",
    "os.environ",
    "getenv",
    "env.",
    "secrets.",
    "vault.",
    "config.",
    "settings.",
    "dummy",
    "<",
    "{{",
    "${",
    "$(",
    "%(",
    "abcdef",
    "0123456789",
    "abc123",
    "00000000",
    "insert",
    "function",
    "return",
    "const_",
    "test_key",
    "undefined",
];

/// Fewest different characters of a random value, by its length: a quarter, at least seven.
fn is_varied(value: &str) -> bool {
    let mut seen = [false; 256];
    for byte in value.bytes() {
        seen[usize::from(byte)] = true;
    }
    let different = seen.iter().filter(|seen| **seen).count();
    different >= (value.len() / 4).clamp(7, 16)
}

/// Whether a value under a name such as `token` is one: letters and digits mixed, varied, and no placeholder.
pub(super) fn is_secret(value: &str) -> bool {
    let letters = value.bytes().filter(u8::is_ascii_alphabetic).count();
    let digits = value.bytes().filter(u8::is_ascii_digit).count();
    letters >= 2 && digits >= 2 && is_varied(value) && !is_placeholder(value) && !is_path(value)
}

/// Whether what follows the mark of an issuer is a token rather than words.
pub(super) fn is_token(value: &str) -> bool {
    let any = |is: fn(&u8) -> bool| value.as_bytes().iter().any(is);
    let mixed =
        any(u8::is_ascii_digit) || (any(u8::is_ascii_uppercase) && any(u8::is_ascii_lowercase));
    mixed && !is_repeated(value) && !is_placeholder(value)
}

/// Whether a token that may lack digits is one: its issuer's mark and length leave no words.
pub(super) fn is_issued(value: &str) -> bool {
    is_varied(value) && !is_repeated(value) && !is_placeholder(value)
}

fn is_repeated(value: &str) -> bool {
    let mut runs = value.as_bytes().windows(6);
    runs.any(|run| run.iter().all(|byte| *byte == run[0]))
}

/// Whether a value under a name such as `password` may be one.
pub(super) fn is_password(value: &str) -> bool {
    let lower = value.to_ascii_lowercase();
    let word = lower.trim_matches(|character: char| !character.is_ascii_alphanumeric());
    let empty = [
        "",
        "none",
        "null",
        "true",
        "false",
        "string",
        "str",
        "password",
        "passwd",
        "required",
        "is",
        "the",
        "and",
        "or",
        "reset",
        "field",
        "hash",
        "for",
        "to",
        "in",
        "of",
        "protected",
        "incorrect",
        "must",
        "should",
        "input",
        "secret",
        "user",
    ];
    !empty.contains(&word) && !is_placeholder(value)
}

fn is_placeholder(value: &str) -> bool {
    let lower = value.to_ascii_lowercase();
    PLACEHOLDERS.iter().any(|word| lower.contains(word))
}

/// A path or an address of the web, which has words of its own.
fn is_path(value: &str) -> bool {
    value.contains("://") || value.matches('/').count() > 3 || value.matches('.').count() > 4
}
