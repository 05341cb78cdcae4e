//! Machine criteria: statements about outputs and files that are true or false.

use regex::RegexBuilder;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json_path::JsonPath;

use crate::workspace::WorkspacePath;

/// Compiled size of a regular expression, bytes at most.
const REGEX_SIZE_LIMIT: usize = 1 << 20;
/// Characters of a text that a verdict quotes, at most.
const QUOTE_CHARACTERS: usize = 120;

/// A statement that can be checked without judgement.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(try_from = "CriterionForm", into = "CriterionForm")]
pub enum Criterion {
    /// The target contains the text, byte for byte.
    Contains {
        /// What must occur.
        text: String,
        /// Where it must occur.
        target: Target,
    },
    /// The target equals the text once trailing newlines of both are taken off.
    Equals {
        /// The whole target.
        text: String,
        /// What is compared.
        target: Target,
    },
    /// The target matches a linear-time regular expression (RE2 syntax).
    Regex {
        /// The expression; it may match anywhere unless anchored.
        pattern: String,
        /// What is searched.
        target: Target,
    },
    /// The step ended with this exit code.
    ExitCode {
        /// The code.
        code: u8,
    },
    /// At least one node that the query (RFC 9535) selects equals the value.
    JsonPath {
        /// The query.
        query: String,
        /// The value.
        equals: Value,
        /// The JSON document.
        target: Target,
    },
    /// The workspace holds this path, whatever it is.
    FileExists {
        /// The path.
        path: WorkspacePath,
    },
}

/// What a criterion looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// The stdout of the step itself.
    OwnStdout,
    /// A file of the workspace.
    File(WorkspacePath),
    /// The recorded stdout of an earlier step.
    Step(String),
}

/// The text behind a [`Target`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Evidence {
    /// All of it.
    Whole(Vec<u8>),
    /// Its start and its end; what lay between was not kept.
    Excerpt {
        /// The first bytes.
        head: Vec<u8>,
        /// The last bytes.
        tail: Vec<u8>,
    },
}

impl Evidence {
    fn parts(&self) -> Vec<&[u8]> {
        match self {
            Self::Whole(bytes) => vec![bytes],
            Self::Excerpt { head, tail } => vec![head, tail],
        }
    }

    fn whole(&self) -> Result<&[u8], String> {
        match self {
            Self::Whole(bytes) => Ok(bytes),
            Self::Excerpt { .. } => Err(
                "the output is too long to be kept whole; redirect it into a file and check that"
                    .to_owned(),
            ),
        }
    }
}

/// What a criterion is checked against.
pub trait Facts {
    /// The text behind a target, or why there is none.
    ///
    /// # Errors
    /// A sentence for the verdict's detail: no such file, no such step, too large.
    fn evidence(&self, target: &Target) -> Result<Evidence, String>;
    /// Exit code of the step; none when a signal ended it.
    fn exit_code(&self) -> Option<u8>;
    /// Whether the workspace holds the path.
    fn exists(&self, path: &WorkspacePath) -> bool;
}

/// A criterion's verdict.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Verdict {
    /// What was checked.
    pub criterion: Criterion,
    /// Whether it holds.
    pub passed: bool,
    /// What was found; quotes output, so it must be screened before it is recorded.
    pub detail: String,
}

impl Criterion {
    /// Whether it decides about exit codes.
    #[must_use]
    pub fn is_exit_code(&self) -> bool {
        matches!(self, Self::ExitCode { .. })
    }

    /// The step whose recorded output the criterion reads.
    #[must_use]
    pub fn step(&self) -> Option<&str> {
        match self {
            Self::Contains {
                target: Target::Step(id),
                ..
            }
            | Self::Equals {
                target: Target::Step(id),
                ..
            }
            | Self::Regex {
                target: Target::Step(id),
                ..
            }
            | Self::JsonPath {
                target: Target::Step(id),
                ..
            } => Some(id),
            _ => None,
        }
    }

    /// The criterion in a few words, for messages.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::Contains { text, target } => format!("{target} contains {:?}", quote(text)),
            Self::Equals { text, target } => format!("{target} equals {:?}", quote(text)),
            Self::Regex { pattern, target } => format!("{target} matches /{}/", quote(pattern)),
            Self::ExitCode { code } => format!("exit code is {code}"),
            Self::JsonPath {
                query,
                equals,
                target,
            } => {
                format!(
                    "{} in {target} equals {}",
                    quote(query),
                    quote(&equals.to_string())
                )
            }
            Self::FileExists { path } => format!("{path} exists"),
        }
    }

    /// Checks the criterion. What can't be read or compiled is a failed check, never an error: the verdict says why.
    #[must_use]
    pub fn check(&self, facts: &impl Facts) -> Verdict {
        let (passed, detail) = match self.holds(facts) {
            Ok(found) => found,
            Err(reason) => (false, reason),
        };
        Verdict {
            criterion: self.clone(),
            passed,
            detail,
        }
    }

    fn holds(&self, facts: &impl Facts) -> Result<(bool, String), String> {
        Ok(match self {
            Self::Contains { text, target } => {
                let evidence = facts.evidence(target)?;
                found(
                    evidence
                        .parts()
                        .into_iter()
                        .any(|part| contains(part, text)),
                )
            }
            Self::Equals { text, target } => {
                let evidence = facts.evidence(target)?;
                let actual = trim_newlines(evidence.whole()?);
                if actual == trim_newlines(text.as_bytes()) {
                    (true, "equal".to_owned())
                } else {
                    (
                        false,
                        format!("it is {:?}", quote(&String::from_utf8_lossy(actual))),
                    )
                }
            }
            Self::Regex { pattern, target } => {
                let regex = RegexBuilder::new(pattern)
                    .size_limit(REGEX_SIZE_LIMIT)
                    .dfa_size_limit(REGEX_SIZE_LIMIT)
                    .build()
                    .map_err(|error| format!("the pattern can't be used: {error}"))?;
                let evidence = facts.evidence(target)?;
                found(
                    evidence
                        .parts()
                        .into_iter()
                        .any(|part| regex.is_match(&String::from_utf8_lossy(part))),
                )
            }
            Self::ExitCode { code } => match facts.exit_code() {
                Some(actual) => (actual == *code, format!("exit code {actual}")),
                None => (false, "the step was ended by a signal".to_owned()),
            },
            Self::JsonPath {
                query,
                equals,
                target,
            } => {
                let path = JsonPath::parse(query)
                    .map_err(|error| format!("the query can't be used: {error}"))?;
                let evidence = facts.evidence(target)?;
                let document: Value = serde_json::from_slice(evidence.whole()?)
                    .map_err(|error| format!("it is not JSON: {error}"))?;
                let nodes = path.query(&document).all();
                let passed = nodes.iter().any(|node| same_value(node, equals));
                let detail = match nodes.first() {
                    _ if passed => "found".to_owned(),
                    None => "the query selects nothing".to_owned(),
                    Some(node) => format!("it is {}", quote(&node.to_string())),
                };
                (passed, detail)
            }
            Self::FileExists { path } => {
                let exists = facts.exists(path);
                (
                    exists,
                    if exists {
                        "it exists"
                    } else {
                        "there is no such path"
                    }
                    .to_owned(),
                )
            }
        })
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::OwnStdout => write!(formatter, "stdout"),
            Self::File(path) => write!(formatter, "{path}"),
            Self::Step(id) => write!(formatter, "stdout of step {id}"),
        }
    }
}

fn found(passed: bool) -> (bool, String) {
    (
        passed,
        if passed { "found" } else { "not found" }.to_owned(),
    )
}

/// Whether the needle occurs, in linear time (the regex crate's literal search).
fn contains(haystack: &[u8], needle: &str) -> bool {
    regex::bytes::Regex::new(&regex::escape(needle)).is_ok_and(|literal| literal.is_match(haystack))
}

fn trim_newlines(bytes: &[u8]) -> &[u8] {
    let end = bytes
        .iter()
        .rposition(|byte| !matches!(byte, b'\n' | b'\r'))
        .map_or(0, |last| last + 1);
    &bytes[..end]
}

/// Equality of JSON values in which `1` and `1.0` are the same number, as in RFC 9535, section 2.3.5.2.2.
fn same_value(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => {
            left == right || left.as_f64() == right.as_f64()
        }
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len()
                && left
                    .iter()
                    .zip(right)
                    .all(|(left, right)| same_value(left, right))
        }
        (Value::Object(left), Value::Object(right)) => {
            left.len() == right.len()
                && left.iter().all(|(key, value)| {
                    right.get(key).is_some_and(|other| same_value(value, other))
                })
        }
        _ => left == right,
    }
}

fn quote(text: &str) -> String {
    match text.char_indices().nth(QUOTE_CHARACTERS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// The wire form: `path` and `step` beside each other, as the schema writes them.
#[derive(Clone, Deserialize, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
enum CriterionForm {
    Contains {
        text: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        path: Option<WorkspacePath>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        step: Option<String>,
    },
    Equals {
        text: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        path: Option<WorkspacePath>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        step: Option<String>,
    },
    Regex {
        pattern: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        path: Option<WorkspacePath>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        step: Option<String>,
    },
    ExitCode {
        code: u8,
    },
    JsonPath {
        query: String,
        equals: Value,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        path: Option<WorkspacePath>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        step: Option<String>,
    },
    FileExists {
        path: WorkspacePath,
    },
}

fn target(path: Option<WorkspacePath>, step: Option<String>) -> Result<Target, String> {
    match (path, step) {
        (None, None) => Ok(Target::OwnStdout),
        (Some(path), None) => Ok(Target::File(path)),
        (None, Some(step)) => Ok(Target::Step(step)),
        (Some(_), Some(_)) => Err("a criterion reads a path or a step, not both".to_owned()),
    }
}

impl TryFrom<CriterionForm> for Criterion {
    type Error = String;

    fn try_from(form: CriterionForm) -> Result<Self, Self::Error> {
        Ok(match form {
            CriterionForm::Contains { text, path, step } => Self::Contains {
                text,
                target: target(path, step)?,
            },
            CriterionForm::Equals { text, path, step } => Self::Equals {
                text,
                target: target(path, step)?,
            },
            CriterionForm::Regex {
                pattern,
                path,
                step,
            } => Self::Regex {
                pattern,
                target: target(path, step)?,
            },
            CriterionForm::ExitCode { code } => Self::ExitCode { code },
            CriterionForm::JsonPath {
                query,
                equals,
                path,
                step,
            } => Self::JsonPath {
                query,
                equals,
                target: target(path, step)?,
            },
            CriterionForm::FileExists { path } => Self::FileExists { path },
        })
    }
}

impl From<Criterion> for CriterionForm {
    fn from(criterion: Criterion) -> Self {
        let fields = |target| match target {
            Target::OwnStdout => (None, None),
            Target::File(path) => (Some(path), None),
            Target::Step(step) => (None, Some(step)),
        };
        match criterion {
            Criterion::Contains { text, target } => {
                let (path, step) = fields(target);
                Self::Contains { text, path, step }
            }
            Criterion::Equals { text, target } => {
                let (path, step) = fields(target);
                Self::Equals { text, path, step }
            }
            Criterion::Regex { pattern, target } => {
                let (path, step) = fields(target);
                Self::Regex {
                    pattern,
                    path,
                    step,
                }
            }
            Criterion::ExitCode { code } => Self::ExitCode { code },
            Criterion::JsonPath {
                query,
                equals,
                target,
            } => {
                let (path, step) = fields(target);
                Self::JsonPath {
                    query,
                    equals,
                    path,
                    step,
                }
            }
            Criterion::FileExists { path } => Self::FileExists { path },
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    struct Fixed {
        stdout: Evidence,
        exit_code: Option<u8>,
    }

    impl Facts for Fixed {
        fn evidence(&self, target: &Target) -> Result<Evidence, String> {
            match target {
                Target::OwnStdout => Ok(self.stdout.clone()),
                Target::File(path) if path.as_str() == "data.json" => Ok(Evidence::Whole(
                    br#"{"items":[{"n":1},{"n":2.0}],"name":"x"}"#.to_vec(),
                )),
                Target::Step(id) if id == "first" => {
                    Ok(Evidence::Whole(b"of the first\n".to_vec()))
                }
                other => Err(format!("there is no {other}")),
            }
        }

        fn exit_code(&self) -> Option<u8> {
            self.exit_code
        }

        fn exists(&self, path: &WorkspacePath) -> bool {
            path.as_str() == "data.json"
        }
    }

    fn passes(stdout: &str, criterion: Value) -> bool {
        let facts = Fixed {
            stdout: Evidence::Whole(stdout.as_bytes().to_vec()),
            exit_code: Some(3),
        };
        Criterion::deserialize(criterion)
            .unwrap()
            .check(&facts)
            .passed
    }

    #[test]
    fn every_kind_tells_true_from_false() {
        for (stdout, criterion, expected) in [
            (
                "hello world\n",
                json!({"kind": "contains", "text": "lo wo"}),
                true,
            ),
            (
                "hello world\n",
                json!({"kind": "contains", "text": "Lo"}),
                false,
            ),
            ("a.c", json!({"kind": "contains", "text": "a.c"}), true),
            ("abc", json!({"kind": "contains", "text": "a.c"}), false),
            ("x\n\n", json!({"kind": "equals", "text": "x"}), true),
            ("x", json!({"kind": "equals", "text": "x\n"}), true),
            (" x", json!({"kind": "equals", "text": "x"}), false),
            (
                "n=42",
                json!({"kind": "regex", "pattern": "^n=\\d+$"}),
                true,
            ),
            ("n=", json!({"kind": "regex", "pattern": "^n=\\d+$"}), false),
            ("", json!({"kind": "regex", "pattern": "("}), false),
            (
                "",
                json!({"kind": "regex", "pattern": "((a{100}){100}){100}"}),
                false,
            ),
            ("", json!({"kind": "exit_code", "code": 3}), true),
            ("", json!({"kind": "exit_code", "code": 0}), false),
            (
                "[1, 2]",
                json!({"kind": "json_path", "query": "$[*]", "equals": 2}),
                true,
            ),
            (
                "[1, 2]",
                json!({"kind": "json_path", "query": "$[*]", "equals": 3}),
                false,
            ),
            (
                "[1",
                json!({"kind": "json_path", "query": "$[*]", "equals": 1}),
                false,
            ),
            (
                "",
                json!({"kind": "json_path", "query": "$.items[1].n", "equals": 2, "path": "data.json"}),
                true,
            ),
            (
                "",
                json!({"kind": "json_path", "query": "$[", "equals": 2, "path": "data.json"}),
                false,
            ),
            (
                "",
                json!({"kind": "contains", "text": "first", "step": "first"}),
                true,
            ),
            (
                "",
                json!({"kind": "contains", "text": "first", "step": "second"}),
                false,
            ),
            (
                "",
                json!({"kind": "file_exists", "path": "data.json"}),
                true,
            ),
            ("", json!({"kind": "file_exists", "path": "other"}), false),
        ] {
            assert_eq!(
                passes(stdout, criterion.clone()),
                expected,
                "{criterion} of {stdout:?}"
            );
        }
    }

    #[test]
    fn an_excerpt_is_searched_in_parts_and_never_taken_for_the_whole() {
        let facts = Fixed {
            stdout: Evidence::Excerpt {
                head: b"ab".to_vec(),
                tail: b"cd".to_vec(),
            },
            exit_code: None,
        };
        let check = |criterion| {
            Criterion::deserialize(criterion)
                .unwrap()
                .check(&facts)
                .passed
        };
        assert!(check(json!({"kind": "contains", "text": "cd"})));
        assert!(
            !check(json!({"kind": "contains", "text": "bc"})),
            "matched across the gap"
        );
        assert!(!check(json!({"kind": "equals", "text": "abcd"})));
        assert!(
            !check(json!({"kind": "exit_code", "code": 0})),
            "a signal is no exit code"
        );
    }

    #[test]
    fn the_wire_form_survives_a_round_trip() {
        for criterion in [
            json!({"kind": "contains", "text": "a", "step": "s"}),
            json!({"kind": "equals", "text": "a", "path": "p/q"}),
            json!({"kind": "regex", "pattern": "a"}),
            json!({"kind": "exit_code", "code": 1}),
            json!({"kind": "json_path", "query": "$", "equals": {"a": null}}),
            json!({"kind": "file_exists", "path": "p"}),
        ] {
            let parsed = Criterion::deserialize(&criterion).unwrap();
            assert_eq!(serde_json::to_value(&parsed).unwrap(), criterion);
        }
    }
}
