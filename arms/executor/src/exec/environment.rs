//! The names that a request may put into a program's environment.
//!
//! A positive form for the name, and then the names that make a program run or load something else than it was asked
//! to: whoever may set `LD_PRELOAD`, `GIT_SSH_COMMAND` or `BASH_ENV` needs no allow-list any more. The list errs on the
//! side of refusal, for nothing that computes needs one of these.

use std::collections::BTreeMap;

use octollm_events::carrier::ErrorCode;

use super::answer::Refusal;

/// Variables, at most.
const MAX_VARIABLES: usize = 64;
/// Bytes of a name, at most.
const MAX_NAME_BYTES: usize = 128;
/// Bytes of a value, at most.
const MAX_VALUE_BYTES: usize = 32 << 10;

/// Families of names: a dynamic linker, an interpreter, a version control system or a tool behind each.
const DENIED_PREFIXES: [&str; 19] = [
    "LD_", "DYLD_", "GIT_", "SSH_", "BASH", "PYTHON", "PERL", "RUBY", "NODE_", "NPM_", "JAVA_",
    "JDK_", "LUA_", "PHP", "GCONV_", "MALLOC_", "GLIBC_", "TAR_", "OCTO_",
];
/// What every program has from the sandbox, and keeps.
const OURS: [&str; 4] = ["PATH", "HOME", "LANG", "TMPDIR"];
/// What has no family. `TERMINFO` and the like name files that a library parses.
const DENIED_NAMES: [&str; 40] = [
    "ENV",
    "IFS",
    "CDPATH",
    "SHELL",
    "SHELLOPTS",
    "GLOBIGNORE",
    "PS4",
    "PROMPT_COMMAND",
    "EDITOR",
    "VISUAL",
    "PAGER",
    "MANPAGER",
    "BROWSER",
    "LESS",
    "LESSOPEN",
    "LESSCLOSE",
    "MAKEFLAGS",
    "MFLAGS",
    "AWKPATH",
    "AWKLIBPATH",
    "CLASSPATH",
    "RUSTC_WRAPPER",
    "RUSTFLAGS",
    "CC",
    "CXX",
    "NLSPATH",
    "LOCPATH",
    "LOCALDOMAIN",
    "RES_OPTIONS",
    "HOSTALIASES",
    "GETCONF_DIR",
    "RESOLV_HOST_CONF",
    "TZDIR",
    "TERMINFO",
    "TERMINFO_DIRS",
    "TERMCAP",
    "INPUTRC",
    "RIPGREP_CONFIG_PATH",
    "POSIXLY_CORRECT",
    "GZIP",
];
/// A proxy leads requests elsewhere, under any of its names.
const DENIED_SUFFIX: &str = "_PROXY";

/// Checks every name and value.
///
/// # Errors
/// `INVALID_REQUEST` for what can be no variable, or is too much; `POLICY_DENIED` for a name that is denied.
pub(super) fn check(environment: &BTreeMap<String, String>) -> Result<(), Refusal> {
    let invalid = |problem: String| Err(Refusal::new(ErrorCode::InvalidRequest, problem));
    if environment.len() > MAX_VARIABLES {
        let count = environment.len();
        return invalid(format!(
            "env has {count} variables, {MAX_VARIABLES} are allowed"
        ));
    }
    for (name, value) in environment {
        if !is_name(name) {
            return invalid(format!(
                "env: {name:?} is not a name of at most {MAX_NAME_BYTES} letters, digits and underscores that starts with no digit"
            ));
        }
        if value.len() > MAX_VALUE_BYTES || value.contains('\0') {
            return invalid(format!(
                "env: the value of {name} has more than {MAX_VALUE_BYTES} bytes, or a NUL byte"
            ));
        }
        if OURS.contains(&name.as_str()) {
            return Err(Refusal::new(
                ErrorCode::PolicyDenied,
                format!("env: {name} is the sandbox's own; leave it out"),
            ));
        }
        if is_denied(name) {
            return Err(Refusal::new(
                ErrorCode::PolicyDenied,
                format!(
                    "env: {name} is not allowed: it changes what a program loads or starts; leave it out"
                ),
            ));
        }
    }
    Ok(())
}

fn is_name(name: &str) -> bool {
    (1..=MAX_NAME_BYTES).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && !name.starts_with(|first: char| first.is_ascii_digit())
}

/// Whatever the case: `http_proxy` is as good as `HTTP_PROXY`.
fn is_denied(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    DENIED_NAMES.contains(&name.as_str())
        || DENIED_PREFIXES
            .iter()
            .any(|prefix| name.starts_with(prefix))
        || name.ends_with(DENIED_SUFFIX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(name: &str, value: &str) -> Option<ErrorCode> {
        let environment = BTreeMap::from([(name.to_owned(), value.to_owned())]);
        check(&environment).err().map(|refusal| refusal.code)
    }

    #[test]
    fn plain_variables_are_taken() {
        for name in ["A", "_x", "LC_ALL", "TZ", "MY_PATH", "my_var_1"] {
            assert_eq!(code(name, "value with = and \n"), None, "{name}");
        }
    }

    #[test]
    fn what_is_no_variable_is_invalid() {
        let long = "A".repeat(129);
        for name in [
            "",
            "1A",
            "A=B",
            "A B",
            "A-B",
            "Ä",
            "A\0",
            "BASH_FUNC_x%%",
            &long,
        ] {
            assert_eq!(code(name, "x"), Some(ErrorCode::InvalidRequest), "{name:?}");
        }
        assert_eq!(code("A", "a\0b"), Some(ErrorCode::InvalidRequest));
        assert_eq!(code("A", &"x".repeat(32 << 10)), None);
        assert_eq!(
            code("A", &"x".repeat((32 << 10) + 1)),
            Some(ErrorCode::InvalidRequest)
        );
        let many = (0..=64).map(|number| (format!("A{number}"), String::new()));
        assert!(check(&many.collect()).is_err());
    }

    #[test]
    fn what_loads_or_starts_other_code_is_denied() {
        for name in [
            "LD_PRELOAD",
            "LD_AUDIT",
            "ld_library_path",
            "GIT_SSH_COMMAND",
            "GIT_CONFIG_COUNT",
            "BASH_ENV",
            "BASHOPTS",
            "ENV",
            "PYTHONPATH",
            "PYTHONSTARTUP",
            "PERL5OPT",
            "PERLLIB",
            "RUBYOPT",
            "NODE_OPTIONS",
            "IFS",
            "PATH",
            "http_proxy",
            "HTTPS_PROXY",
            "ALL_PROXY",
            "GCONV_PATH",
            "GLIBC_TUNABLES",
            "TAR_OPTIONS",
            "LESSOPEN",
            "PAGER",
            "JAVA_TOOL_OPTIONS",
        ] {
            assert_eq!(code(name, "x"), Some(ErrorCode::PolicyDenied), "{name}");
        }
    }
}
