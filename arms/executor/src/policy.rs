//! The allow-list: which programs a step may name, with which limits. Unknown is denied.
//!
//! The policy is the first of two lines of defence. It keeps plans to what the executor offers and says clearly what
//! is not offered; the sandbox holds even where the policy is wrong.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::action::Command;
use crate::http::Hosts;
use crate::sandbox::{Limits, Program};

/// The policy that comes with the executor.
const DEFAULT: &str = include_str!("../policy/default.toml");
/// The only version of the policy's form so far.
const VERSION: u32 = 1;
/// Bytes of a command's name, at most.
const MAX_NAME_BYTES: usize = 64;

/// A policy that can't be used; the executor does not start with it.
#[derive(Debug, thiserror::Error)]
pub enum InvalidPolicy {
    /// The file can't be read.
    #[error("the policy {path} can't be read: {source}; give the path of a readable file")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not a policy.
    #[error("the policy is not valid: {0}")]
    Malformed(String),
}

/// A request that the policy does not allow. The code is `POLICY_DENIED`.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{reason}")]
pub struct Denied {
    /// What was denied, and what would be allowed.
    pub reason: String,
}

fn denied(reason: impl Into<String>) -> Denied {
    Denied {
        reason: reason.into(),
    }
}

/// What a step may use where it names no limit of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Backstops {
    /// CPU seconds of one process.
    pub cpu_seconds: u64,
    /// Processes of the whole step.
    pub processes: u64,
    /// Open files of one process.
    pub open_files: u64,
    /// Bytes of one file.
    pub file_bytes: u64,
    /// Bytes of `/tmp` and of `/dev/shm`, each.
    pub tmp_bytes: u64,
}

/// What a step may ask for, at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Maximum {
    /// Wall clock, milliseconds.
    pub wall_ms: u64,
    /// Memory of one process, bytes.
    pub memory_bytes: u64,
    /// stdout and stderr together, bytes.
    pub output_bytes: u64,
    /// CPU seconds of one process; absent, here and below: what a step has that names no limit of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_seconds: Option<u64>,
    /// Processes of the whole step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub processes: Option<u64>,
    /// Open files of one process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub open_files: Option<u64>,
    /// Bytes of one file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_bytes: Option<u64>,
    /// Bytes of `/tmp` and of `/dev/shm`, each.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tmp_bytes: Option<u64>,
}

/// The limits that a step asks for. A task's step names the first three; of the others the policy's apply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestedLimits {
    /// Wall clock, milliseconds.
    pub wall_ms: u64,
    /// Memory of the whole step, bytes.
    pub memory_bytes: u64,
    /// stdout and stderr together, bytes.
    pub output_bytes: u64,
    /// CPU seconds of one process.
    pub cpu_seconds: Option<u64>,
    /// Processes of the whole step.
    pub processes: Option<u64>,
    /// Open files of one process.
    pub open_files: Option<u64>,
    /// Bytes of one file.
    pub file_bytes: Option<u64>,
    /// Bytes of `/tmp` and of `/dev/shm`, each.
    pub tmp_bytes: Option<u64>,
}

impl RequestedLimits {
    /// The three limits that every step names.
    #[must_use]
    pub fn of(wall_ms: u64, memory_bytes: u64, output_bytes: u64) -> Self {
        Self {
            wall_ms,
            memory_bytes,
            output_bytes,
            cpu_seconds: None,
            processes: None,
            open_files: None,
            file_bytes: None,
            tmp_bytes: None,
        }
    }
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    path: PathBuf,
    #[serde(default)]
    refuse: Vec<FlagPattern>,
}

/// An option that is refused: `--long` or `-s`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
enum FlagPattern {
    Long(String),
    Short(char),
}

impl FlagPattern {
    /// Whether the argument may be this option. Errs on the side of refusal: an abbreviation counts even where the
    /// tool would find it ambiguous, and a letter counts in a cluster even where it would be another option's value.
    fn matches(&self, argument: &str) -> bool {
        match self {
            Self::Long(name) => argument.strip_prefix("--").is_some_and(|option| {
                let given = option.split_once('=').map_or(option, |(given, _)| given);
                !given.is_empty() && name.starts_with(given)
            }),
            Self::Short(letter) => argument
                .strip_prefix('-')
                .is_some_and(|cluster| !cluster.starts_with('-') && cluster.contains(*letter)),
        }
    }
}

impl TryFrom<String> for FlagPattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        if let Some(name) = text.strip_prefix("--").filter(|name| !name.is_empty()) {
            return Ok(Self::Long(name.to_owned()));
        }
        let mut letters = text.strip_prefix('-').unwrap_or_default().chars();
        match (letters.next(), letters.next()) {
            (Some(letter), None) if letter != '-' => Ok(Self::Short(letter)),
            _ => Err(format!(
                "{text:?} is neither a long option (--name) nor a short one (-n)"
            )),
        }
    }
}

impl From<FlagPattern> for String {
    fn from(pattern: FlagPattern) -> Self {
        match pattern {
            FlagPattern::Long(name) => format!("--{name}"),
            FlagPattern::Short(letter) => format!("-{letter}"),
        }
    }
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct PolicyFile {
    version: u32,
    limits: Backstops,
    maximum: Maximum,
    commands: BTreeMap<String, Rule>,
    #[serde(default)]
    http: Hosts,
}

/// What the executor may run.
#[derive(Debug, Clone)]
pub struct Policy {
    file: PolicyFile,
    digest: String,
}

impl Policy {
    /// The policy in the file, or the one that comes with the executor.
    ///
    /// # Errors
    /// The file can't be read or is not a policy.
    pub fn load(path: Option<&Path>) -> Result<Self, InvalidPolicy> {
        match path {
            None => Self::parse(DEFAULT),
            Some(path) => {
                let text =
                    std::fs::read_to_string(path).map_err(|source| InvalidPolicy::Unreadable {
                        path: path.to_owned(),
                        source,
                    })?;
                Self::parse(&text)
            }
        }
    }

    /// Parses a policy. Commands that this host does not have are left out.
    ///
    /// # Errors
    /// [`InvalidPolicy::Malformed`] says where and why.
    pub fn parse(text: &str) -> Result<Self, InvalidPolicy> {
        let mut file: PolicyFile =
            toml::from_str(text).map_err(|error| InvalidPolicy::Malformed(error.to_string()))?;
        if file.version != VERSION {
            let version = file.version;
            return Err(InvalidPolicy::Malformed(format!(
                "version {version} is not known, {VERSION} is"
            )));
        }
        for (name, rule) in &file.commands {
            if !is_bare_name(name) {
                return Err(InvalidPolicy::Malformed(format!(
                    "{name:?} is not a bare name of a-z 0-9 . _ + -"
                )));
            }
            if !rule.path.is_absolute() {
                return Err(InvalidPolicy::Malformed(format!(
                    "the path of {name} is not absolute"
                )));
            }
        }
        file.commands.retain(|_, rule| is_executable(&rule.path));
        let canonical = serde_json_canonicalizer::to_vec(&file)
            .map_err(|error| InvalidPolicy::Malformed(error.to_string()))?;
        Ok(Self {
            file,
            digest: hex::encode(Sha256::digest(canonical)),
        })
    }

    /// SHA-256 of the policy in force on this host (RFC 8785 form), lower-case hex.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Names of the commands that are offered, sorted.
    pub fn commands(&self) -> impl Iterator<Item = &str> {
        self.file.commands.keys().map(String::as_str)
    }

    /// Hosts that steps may speak to.
    #[must_use]
    pub fn hosts(&self) -> &Hosts {
        &self.file.http
    }

    /// Maps each stage of a pipeline to the program that may run.
    ///
    /// # Errors
    /// [`Denied`] names the stage, the rule, and what would be allowed.
    pub fn permit(&self, command: &Command) -> Result<Vec<Program>, Denied> {
        command
            .pipeline
            .iter()
            .map(|argv| self.permit_stage(argv))
            .collect()
    }

    fn permit_stage(&self, argv: &[String]) -> Result<Program, Denied> {
        let Some((name, arguments)) = argv.split_first() else {
            return Err(denied("a stage without a program"));
        };
        if !is_bare_name(name) {
            return Err(denied(format!(
                "{name:?} is not a command's bare name (a-z 0-9 . _ + -, no path); {}",
                self.offer()
            )));
        }
        let Some(rule) = self.file.commands.get(name) else {
            return Err(denied(format!(
                "the command {name:?} is not allowed; {}",
                self.offer()
            )));
        };
        for argument in arguments {
            if let Some(pattern) = rule.refuse.iter().find(|pattern| pattern.matches(argument)) {
                let option = String::from(pattern.clone());
                return Err(denied(format!(
                    "{name} {argument:?} is not allowed: it may be {option}, which starts another program; leave it out"
                )));
            }
        }
        Ok(Program {
            path: rule.path.clone(),
            argv: argv.to_vec(),
        })
    }

    /// What a step may use: what it asks for, where that is no more than the maximum, and the policy's for the rest.
    ///
    /// # Errors
    /// [`Denied`] names the limit and its maximum.
    pub fn permit_limits(&self, asked: &RequestedLimits) -> Result<Limits, Denied> {
        let (own, most) = (&self.file.limits, &self.file.maximum);
        let within = |name, asked: Option<u64>, own, most: Option<u64>| {
            let (value, most) = (asked.unwrap_or(own), most.unwrap_or(own));
            if asked.is_some() && value > most {
                return Err(denied(format!(
                    "limits.{name} {value} is more than the {most} that are allowed"
                )));
            }
            Ok(value)
        };
        let named = |name, asked, most| within(name, Some(asked), most, Some(most));
        Ok(Limits {
            wall: Duration::from_millis(named("wall_ms", asked.wall_ms, most.wall_ms)?),
            memory_bytes: named("memory_bytes", asked.memory_bytes, most.memory_bytes)?,
            output_bytes: named("output_bytes", asked.output_bytes, most.output_bytes)?,
            cpu_seconds: within(
                "cpu_seconds",
                asked.cpu_seconds,
                own.cpu_seconds,
                most.cpu_seconds,
            )?,
            processes: within("processes", asked.processes, own.processes, most.processes)?,
            open_files: within(
                "open_files",
                asked.open_files,
                own.open_files,
                most.open_files,
            )?,
            file_bytes: within(
                "file_bytes",
                asked.file_bytes,
                own.file_bytes,
                most.file_bytes,
            )?,
            tmp_bytes: within("tmp_bytes", asked.tmp_bytes, own.tmp_bytes, most.tmp_bytes)?,
        })
    }

    fn offer(&self) -> String {
        format!(
            "allowed are: {}",
            self.commands().collect::<Vec<_>>().join(" ")
        )
    }
}

fn is_bare_name(name: &str) -> bool {
    (1..=MAX_NAME_BYTES).contains(&name.len())
        && name
            .bytes()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'+' | b'-'))
        && !name.starts_with(['.', '-'])
}

fn is_executable(path: &Path) -> bool {
    path.metadata()
        .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(argv: &[&str]) -> Command {
        Command {
            pipeline: vec![argv.iter().map(|&argument| argument.to_owned()).collect()],
            stdin: None,
            redirect: None,
        }
    }

    fn permits(argv: &[&str]) -> Result<Vec<Program>, Denied> {
        Policy::load(None).unwrap().permit(&command(argv))
    }

    #[test]
    fn a_listed_command_becomes_its_absolute_path() {
        let programs = permits(&["sort", "-r", "-k2"]).unwrap();
        assert_eq!(programs[0].path, Path::new("/usr/bin/sort"));
        assert_eq!(programs[0].argv, ["sort", "-r", "-k2"]);
    }

    #[test]
    fn what_is_not_listed_is_denied_with_what_is() {
        for name in [
            "bash", "sh", "find", "xargs", "awk", "sed", "tar", "git", "env", "python3", "perl",
            "no-such",
        ] {
            let denial = permits(&[name]).unwrap_err();
            assert!(
                denial.reason.contains(name) && denial.reason.contains(" grep "),
                "{denial}"
            );
        }
    }

    #[test]
    fn only_bare_names_are_looked_up() {
        for name in [
            "/usr/bin/cat",
            "./cat",
            "../cat",
            "bin/cat",
            "CAT",
            "cаt",
            "cat ",
            "",
            "-cat",
            ".",
            "..",
            "c\nat",
        ] {
            assert!(permits(&[name]).is_err(), "{name:?} was permitted");
        }
    }

    #[test]
    fn options_that_start_programs_are_refused_in_every_spelling() {
        for argv in [
            ["sort", "--compress-program=sh"],
            ["sort", "--compress-program"],
            ["sort", "--compress-prog=sh"],
            ["sort", "--co=sh"],
            ["sort", "--c"],
            ["diff", "--paginate"],
            ["diff", "--pag"],
            ["diff", "-l"],
            ["diff", "-url"],
        ] {
            assert!(permits(&argv).is_err(), "{argv:?} was permitted");
        }
        for argv in [
            ["sort", "--check"],
            ["sort", "-c"],
            ["sort", "--"],
            ["diff", "-u"],
            ["diff", "--label=l"],
        ] {
            assert!(permits(&argv).is_ok(), "{argv:?} was denied");
        }
    }

    #[test]
    fn every_stage_is_checked() {
        let pipeline = Command {
            pipeline: vec![vec!["cat".to_owned()], vec!["sh".to_owned()]],
            stdin: None,
            redirect: None,
        };
        assert!(Policy::load(None).unwrap().permit(&pipeline).is_err());
    }

    #[test]
    fn limits_above_the_maximum_are_denied() {
        let policy = Policy::load(None).unwrap();
        let usual = RequestedLimits::of(30_000, 512 << 20, 1 << 20);
        let limits = policy.permit_limits(&usual).unwrap();
        assert_eq!((limits.output_bytes, limits.processes), (1 << 20, 64));
        let fewer = RequestedLimits {
            processes: Some(2),
            ..usual
        };
        assert_eq!(policy.permit_limits(&fewer).unwrap().processes, 2);
        let more = RequestedLimits {
            processes: Some(65),
            ..usual
        };
        assert!(policy.permit_limits(&more).is_err());
        let denial = policy
            .permit_limits(&RequestedLimits {
                output_bytes: 2 << 20,
                ..usual
            })
            .unwrap_err();
        assert!(
            denial.reason.contains("output_bytes") && denial.reason.contains("1048576"),
            "{denial}"
        );
    }

    #[test]
    fn a_command_that_the_host_lacks_is_not_offered() {
        let text = DEFAULT.replace("/usr/bin/bc", "/nonexistent/bc");
        let policy = Policy::parse(&text).unwrap();
        assert!(!policy.commands().any(|name| name == "bc"));
        assert_ne!(policy.digest(), Policy::load(None).unwrap().digest());
    }

    #[test]
    fn a_malformed_policy_is_refused() {
        for (from, to) in [
            ("version = 1", "version = 2"),
            ("[maximum]", "[maxima]"),
            ("\"/usr/bin/cat\"", "\"cat\""),
            ("cat = {", "\"../cat\" = {"),
            ("\"--paginate\"", "\"paginate\""),
            ("processes = 64", "processes = -1"),
        ] {
            let text = DEFAULT.replacen(from, to, 1);
            assert!(Policy::parse(&text).is_err(), "{to} was accepted");
        }
    }
}
