//! The variables of a program: four of ours, and what was granted besides.

use std::ffi::CString;

/// What every program has.
const OURS: [(&str, &str); 4] = [
    ("PATH", "/usr/bin:/bin"),
    ("HOME", "/work"),
    ("LANG", "C.UTF-8"),
    ("TMPDIR", "/tmp"),
];
/// Variables by which a loader, a shell or an interpreter is made to run something else, by how their names start.
const REFUSED: [&str; 15] = [
    "LD_",
    "GLIBC_",
    "MALLOC_",
    "GCONV_PATH",
    "LOCPATH",
    "NLSPATH",
    "BASH",
    "ENV",
    "SHELLOPTS",
    "IFS",
    "PS4",
    "PYTHON",
    "PERL",
    "RUBY",
    "NODE_",
];
/// Bytes of all names and values, at most.
const MAX_BYTES: usize = 64 << 10;

/// Names of a program's variables, ours first.
#[must_use]
pub fn environment_names(granted: &[(String, String)]) -> Vec<String> {
    let ours = OURS.iter().map(|(name, _)| (*name).to_owned());
    ours.chain(granted.iter().map(|(name, _)| name.clone()))
        .collect()
}

/// The environment as `execve` takes it.
///
/// # Errors
/// The variable that must not be set, and why.
pub(super) fn environment(granted: &[(String, String)]) -> Result<Vec<CString>, String> {
    let mut bytes = 0;
    for (name, value) in granted {
        bytes += name.len() + value.len();
        let problem = if !is_name(name) {
            "is not a name"
        } else if OURS.iter().any(|(ours, _)| ours == name) {
            "is the sandbox's own"
        } else if REFUSED.iter().any(|start| name.starts_with(start)) {
            "makes programs run other code"
        } else if value.contains('\0') {
            "has a NUL in its value"
        } else if bytes > MAX_BYTES {
            "is too much: names and values have at most 65536 bytes in all"
        } else {
            continue;
        };
        return Err(format!("the variable {name:?} {problem}"));
    }
    let granted = granted
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()));
    let variables = OURS.into_iter().chain(granted);
    variables
        .map(|(name, value)| {
            CString::new(format!("{name}={value}")).map_err(|error| error.to_string())
        })
        .collect()
}

fn is_name(name: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    name.bytes().all(is_word)
        && name
            .bytes()
            .next()
            .is_some_and(|byte| !byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: &str, value: &str) -> Result<Vec<CString>, String> {
        environment(&[(name.to_owned(), value.to_owned())])
    }

    #[test]
    fn what_is_granted_is_added() {
        let variables = with("TZ", "UTC").unwrap();
        assert_eq!(variables.len(), 5);
        assert_eq!(variables[4].as_c_str(), c"TZ=UTC");
    }

    #[test]
    fn what_loads_other_code_is_refused() {
        for name in [
            "LD_PRELOAD",
            "LD_AUDIT",
            "LD_LIBRARY_PATH",
            "GLIBC_TUNABLES",
            "GCONV_PATH",
            "BASH_ENV",
            "BASH_FUNC_x",
            "ENV",
            "PYTHONPATH",
            "PERL5OPT",
            "RUBYOPT",
            "NODE_OPTIONS",
            "PATH",
            "HOME",
            "",
            "1A",
            "A=B",
            "A\0",
            "a b",
        ] {
            assert!(with(name, "x").is_err(), "{name:?}");
        }
        assert!(with("A", "x\0y").is_err());
        assert!(with("A", &"x".repeat(MAX_BYTES)).is_err());
    }
}
