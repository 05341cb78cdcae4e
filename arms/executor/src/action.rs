//! What a step asks for, parsed once at the edge.
//!
//! The shapes are those of `events/schemas/plan/v1.json`. Unknown fields are refused, and so are combinations that
//! the schema can't express (both `text` and `base64`, content for a `mkdir`), so that nothing behind this module
//! has to look at an action twice.

use base64::Engine;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::criterion::Criterion;
use crate::http;
use crate::workspace::WorkspacePath;

/// Stages of a pipeline, at most.
pub const MAX_STAGES: usize = 16;
/// Program and arguments of one stage, at most.
pub const MAX_ARGUMENTS: usize = 256;
/// Bytes of one argument, at most (4,096 characters of up to four bytes).
pub const MAX_ARGUMENT_BYTES: usize = 16_384;
/// Bytes of `stdin` and of a file's content, at most (65,536 characters of up to four bytes).
pub const MAX_TEXT_BYTES: usize = 262_144;
/// Criteria of a check action, at most.
pub const MAX_CRITERIA: usize = 20;

/// An action that can't be carried out as written. The code is `INVALID_REQUEST`.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the action is not valid: {0}")]
pub struct InvalidAction(pub String);

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Action {
    /// Run programs wired by pipes, without a shell.
    Command(Command),
    /// Change one path of the workspace.
    File(FileChange),
    /// Make one request.
    Http(http::Request),
    /// Check machine criteria.
    Check(Check),
    /// Run a program that the step brings along.
    Script(Script),
}

impl Action {
    /// Parses and validates an action.
    ///
    /// # Errors
    /// [`InvalidAction`] names what breaks the contract.
    pub fn parse(action: &Value) -> Result<Self, InvalidAction> {
        let action = Self::deserialize(action).map_err(|error| InvalidAction(error.to_string()))?;
        match &action {
            Self::Command(command) => command.validate()?,
            Self::Script(script) => script.validate()?,
            Self::Check(check) => {
                let count = check.criteria.len();
                if !(1..=MAX_CRITERIA).contains(&count) {
                    return Err(InvalidAction(format!(
                        "{count} criteria, 1 to {MAX_CRITERIA} are allowed"
                    )));
                }
            }
            Self::File(_) | Self::Http(_) => {}
        }
        Ok(action)
    }
}

/// A pipeline of programs.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Command {
    /// Stages; each is a program's bare name and its arguments.
    pub pipeline: Vec<Vec<String>>,
    /// Standard input of the first stage; without it, it is empty.
    pub stdin: Option<String>,
    /// Where the last stage's stdout goes instead of the output.
    pub redirect: Option<Redirect>,
}

impl Command {
    fn validate(&self) -> Result<(), InvalidAction> {
        let stages = self.pipeline.len();
        if !(1..=MAX_STAGES).contains(&stages) {
            return Err(InvalidAction(format!(
                "{stages} stages, 1 to {MAX_STAGES} are allowed"
            )));
        }
        for (index, argv) in self.pipeline.iter().enumerate() {
            if !(1..=MAX_ARGUMENTS).contains(&argv.len()) {
                let count = argv.len();
                return Err(InvalidAction(format!(
                    "stage {index} has {count} arguments, 1 to {MAX_ARGUMENTS} are allowed"
                )));
            }
            for argument in argv {
                if argument.len() > MAX_ARGUMENT_BYTES {
                    return Err(InvalidAction(format!(
                        "stage {index} has an argument of {} bytes, {MAX_ARGUMENT_BYTES} are allowed; \
                         put long text into stdin or a file",
                        argument.len()
                    )));
                }
                if argument.contains('\0') {
                    return Err(InvalidAction(format!(
                        "stage {index} has an argument with a NUL byte"
                    )));
                }
            }
        }
        validate_text("stdin", self.stdin.as_deref().unwrap_or_default())
    }
}

fn validate_text(name: &str, text: &str) -> Result<(), InvalidAction> {
    if text.len() > MAX_TEXT_BYTES {
        return Err(InvalidAction(format!(
            "{name} is longer than {MAX_TEXT_BYTES} bytes"
        )));
    }
    Ok(())
}

/// A program in one of the languages that there is an interpreter for.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Script {
    /// The language.
    pub lang: Language,
    /// The program's text. It is a file of the sandbox, never an argument.
    pub source: String,
    /// Standard input; without it, it is empty.
    pub stdin: Option<String>,
}

impl Script {
    fn validate(&self) -> Result<(), InvalidAction> {
        validate_text("the script", &self.source)?;
        validate_text("stdin", self.stdin.as_deref().unwrap_or_default())
    }
}

/// A language of scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Language {
    /// Bash.
    Bash,
    /// Python 3.
    Python,
}

impl Language {
    /// The name in actions and policies.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bash => "bash",
            Self::Python => "python",
        }
    }

    /// The interpreter, and the options that keep it to the script: no start-up files, no modules from elsewhere.
    #[must_use]
    pub const fn interpreter(self) -> &'static [&'static str] {
        match self {
            Self::Bash => &["bash", "--noprofile", "--norc"],
            Self::Python => &["python3", "-I"],
        }
    }
}

/// A redirection of the last stage's stdout.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Redirect {
    /// The file; its directory must exist.
    pub path: WorkspacePath,
    /// Append instead of replacing.
    #[serde(default)]
    pub append: bool,
}

/// Machine criteria that must all hold.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Check {
    /// The criteria, in order.
    pub criteria: Vec<Criterion>,
}

/// A change of one path.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "FileChangeForm")]
pub struct FileChange {
    /// The path.
    pub path: WorkspacePath,
    /// What happens to it.
    pub op: FileOp,
}

/// What happens to a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileOp {
    /// Replace the file, or make it; missing parent directories are made.
    Write {
        /// The whole content.
        content: Vec<u8>,
        /// Permission bits.
        mode: Mode,
    },
    /// Append to the file, or make it; missing parent directories are made.
    Append {
        /// What is added.
        content: Vec<u8>,
        /// Permission bits of a new file, and of the present one where they are given.
        mode: Option<Mode>,
    },
    /// Make the directory and its missing parents; a directory that is there is left as it is.
    MakeDirectory {
        /// Permission bits of a new directory.
        mode: Mode,
    },
    /// Remove a file, a symbolic link, or an empty directory.
    Delete,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum FileOpName {
    Write,
    Append,
    Mkdir,
    Delete,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileChangeForm {
    op: FileOpName,
    path: WorkspacePath,
    text: Option<String>,
    base64: Option<String>,
    mode: Option<Mode>,
}

impl TryFrom<FileChangeForm> for FileChange {
    type Error = String;

    fn try_from(form: FileChangeForm) -> Result<Self, Self::Error> {
        let has_content = form.text.is_some() || form.base64.is_some();
        let op = match form.op {
            FileOpName::Write => FileOp::Write {
                content: content(form.text, form.base64.as_deref())?,
                mode: form.mode.unwrap_or(Mode::FILE),
            },
            FileOpName::Append => FileOp::Append {
                content: content(form.text, form.base64.as_deref())?,
                mode: form.mode,
            },
            FileOpName::Mkdir | FileOpName::Delete if has_content => {
                return Err("only write and append take text or base64".to_owned());
            }
            FileOpName::Mkdir => FileOp::MakeDirectory {
                mode: form.mode.unwrap_or(Mode::DIRECTORY),
            },
            FileOpName::Delete if form.mode.is_some() => {
                return Err("delete takes no mode".to_owned());
            }
            FileOpName::Delete => FileOp::Delete,
        };
        Ok(Self {
            path: form.path,
            op,
        })
    }
}

/// The bytes that `text` or `base64` stands for; neither is empty content.
pub(crate) fn content(text: Option<String>, base64: Option<&str>) -> Result<Vec<u8>, String> {
    let content = match (text, base64) {
        (Some(_), Some(_)) => return Err("text and base64 exclude each other".to_owned()),
        (Some(text), None) => text.into_bytes(),
        (None, Some(encoded)) => base64::engine::general_purpose::STANDARD
            .decode(encoded)
            .map_err(|error| format!("base64: {error}"))?,
        (None, None) => Vec::new(),
    };
    if content.len() > MAX_TEXT_BYTES {
        return Err(format!("content is longer than {MAX_TEXT_BYTES} bytes"));
    }
    Ok(content)
}

/// Permission bits, 0 to 0o777: no set-id and no sticky bit can be written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Mode(u32);

impl Mode {
    /// `0644`.
    pub const FILE: Self = Self(0o644);
    /// `0755`.
    pub const DIRECTORY: Self = Self(0o755);

    /// The permission bits of a file's mode; the rest is dropped.
    #[must_use]
    pub const fn masked(bits: u32) -> Self {
        Self(bits & 0o777)
    }

    /// The bits.
    #[must_use]
    pub fn bits(self) -> u32 {
        self.0
    }
}

impl TryFrom<String> for Mode {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let digits = if text.len() == 4 {
            text.strip_prefix('0')
        } else {
            Some(text.as_str())
        };
        digits
            .filter(|digits| {
                digits.len() == 3 && digits.bytes().all(|byte| matches!(byte, b'0'..=b'7'))
            })
            .and_then(|digits| u32::from_str_radix(digits, 8).ok())
            .map(Self)
            .ok_or_else(|| format!("mode {text:?} is not three octal digits such as 0644"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_command_parses_with_all_its_parts() {
        let action = Action::parse(&json!({
            "kind": "command", "pipeline": [["cat"], ["wc", "-l"]], "stdin": "a\n",
            "redirect": {"path": "out/count.txt", "append": true}
        }))
        .unwrap();
        let Action::Command(command) = action else {
            panic!("not a command")
        };
        assert_eq!(command.pipeline[1], ["wc", "-l"]);
        assert_eq!(command.redirect.unwrap().path.as_str(), "out/count.txt");
    }

    #[test]
    fn what_breaks_the_contract_is_refused() {
        let long = "x".repeat(MAX_ARGUMENT_BYTES + 1);
        for action in [
            json!({"kind": "command", "pipeline": []}),
            json!({"kind": "command", "pipeline": [[]]}),
            json!({"kind": "command", "pipeline": vec![["true"]; MAX_STAGES + 1]}),
            json!({"kind": "command", "pipeline": [vec!["true"; MAX_ARGUMENTS + 1]]}),
            json!({"kind": "command", "pipeline": [["echo", long]]}),
            json!({"kind": "command", "pipeline": [["echo", "a\u{0}b"]]}),
            json!({"kind": "command", "pipeline": [["echo"]], "shell": true}),
            json!({"kind": "command", "pipeline": [["echo"]], "redirect": {"path": "/etc/passwd"}}),
            json!({"kind": "command", "pipeline": [["echo"]], "redirect": {"path": "a", "mode": "0644"}}),
            json!({"kind": "script", "source": "true"}),
            json!({"kind": "script", "lang": "perl", "source": "1"}),
            json!({"kind": "script", "lang": "bash", "source": "true", "redirect": {"path": "a"}}),
            json!({"kind": "script", "lang": "bash", "source": "x".repeat(MAX_TEXT_BYTES + 1)}),
            json!({"kind": "file", "op": "write", "path": "../a", "text": ""}),
            json!({"kind": "file", "op": "write", "path": "a", "text": "", "base64": ""}),
            json!({"kind": "file", "op": "write", "path": "a", "base64": "!"}),
            json!({"kind": "file", "op": "write", "path": "a", "mode": "4755"}),
            json!({"kind": "file", "op": "write", "path": "a", "mode": "+755"}),
            json!({"kind": "file", "op": "mkdir", "path": "a", "text": "x"}),
            json!({"kind": "file", "op": "delete", "path": "a", "mode": "0644"}),
            json!({"kind": "file", "op": "chmod", "path": "a"}),
            json!({"kind": "check", "criteria": []}),
            json!({"kind": "check", "criteria": [{"kind": "contains", "text": "a", "path": "p", "step": "s"}]}),
            json!({"kind": "check", "criteria": [{"kind": "exit_code", "code": 256}]}),
            json!({"kind": "check", "criteria": [{"kind": "looks_nice"}]}),
            json!("echo"),
        ] {
            assert!(Action::parse(&action).is_err(), "accepted {action}");
        }
    }

    #[test]
    fn file_content_is_decoded() {
        let action = Action::parse(
            &json!({"kind": "file", "op": "append", "path": "a", "base64": "AP8=", "mode": "600"}),
        );
        let Ok(Action::File(change)) = action else {
            panic!("not a file action")
        };
        assert_eq!(
            change.op,
            FileOp::Append {
                content: vec![0, 255],
                mode: Some(Mode(0o600))
            }
        );
    }
}
