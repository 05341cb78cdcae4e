//! What a value may be. A kind checks what matters for safety and for clear errors; it does not try to understand
//! everything that the tool will.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;

use regex::Regex;
use serde::{Deserialize, Serialize};

use super::denied::Denied;
use super::{awk, sed};

/// Bytes of a path, at most (`PATH_MAX`).
const MAX_PATH_BYTES: usize = 4096;
/// Trees that a step may name absolutely; everything else is not there or not its own.
const ROOTS: [&str; 2] = ["/work", "/tmp"];
/// Devices that every sandbox has.
const DEVICES: [&str; 7] = [
    "/dev/null",
    "/dev/stdin",
    "/dev/stdout",
    "/dev/stderr",
    "/dev/zero",
    "/dev/random",
    "/dev/urandom",
];
/// What `xargs -I` may replace: nothing that could be part of a variable's or a command's name.
const PLACEHOLDERS: [&str; 4] = ["{}", "%", "%%", "@"];

/// A kind that the policy's file defines: everything that the expression matches from end to end.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KindForm {
    /// A regular expression.
    pub pattern: String,
    /// What it stands for, for messages: "an octal mode such as 644".
    pub what: String,
}

/// The kinds that a policy's file defines, compiled once.
#[derive(Debug, Default)]
pub(super) struct DefinedKinds(BTreeMap<String, (Regex, String)>);

impl DefinedKinds {
    /// # Errors
    /// An expression can't be compiled.
    pub fn compile(forms: &BTreeMap<String, KindForm>) -> Result<Self, String> {
        let compiled = forms.iter().map(|(name, form)| {
            let pattern = Regex::new(&format!("^(?s:{})$", form.pattern))
                .map_err(|error| format!("kinds.{name}: {error}"))?;
            Ok((name.clone(), (pattern, form.what.clone())))
        });
        Ok(Self(compiled.collect::<Result<_, String>>()?))
    }
}

#[derive(Debug, Clone)]
enum Check {
    /// A path in the workspace or below `/tmp`.
    Path,
    /// The same, to be written.
    Output,
    /// A whole number.
    Integer(RangeInclusive<i64>),
    /// Anything.
    Text,
    /// What the file defines.
    Pattern(Regex),
    /// What `xargs -I` replaces.
    Placeholder,
    /// A program of sed.
    Sed,
    /// A program of awk.
    Awk,
    /// The rest is a command.
    Command,
    /// The rest is a command whose last arguments are not known yet.
    FedCommand,
    /// A command up to `;` or `{} +`.
    ExecCommand,
}

/// A compiled kind.
#[derive(Debug, Clone)]
pub(super) struct Kind {
    name: String,
    check: Check,
    what: String,
}

impl Kind {
    /// The kind of this name: built in (`integer:LOW..HIGH` has bounds) or defined in the file.
    pub fn compile(name: &str, defined: &DefinedKinds) -> Result<Self, String> {
        let (check, what) = match name {
            "path" => (Check::Path, PATH.to_owned()),
            "output" => (Check::Output, format!("{PATH}, to be written")),
            "integer" => (
                Check::Integer(i64::MIN..=i64::MAX),
                "a whole number".to_owned(),
            ),
            "text" | "pattern" => (Check::Text, "any text".to_owned()),
            "placeholder" => (
                Check::Placeholder,
                format!("one of {}", PLACEHOLDERS.join(" ")),
            ),
            "sed" => (
                Check::Sed,
                "a sed program without the commands e r R w W".to_owned(),
            ),
            "awk" => (
                Check::Awk,
                "an awk program without system() and pipes".to_owned(),
            ),
            "command" => (Check::Command, "a command and its arguments".to_owned()),
            "fed_command" => (
                Check::FedCommand,
                "a command and its first arguments".to_owned(),
            ),
            "exec_command" => (
                Check::ExecCommand,
                "a command and its arguments up to ; or {} +".to_owned(),
            ),
            _ => match (name.strip_prefix("integer:"), defined.0.get(name)) {
                (Some(bounds), _) => {
                    let bounds = bounds
                        .split_once("..")
                        .and_then(|(low, high)| Some(low.parse().ok()?..=high.parse().ok()?))
                        .ok_or_else(|| format!("{name:?} is not integer:LOW..HIGH"))?;
                    let what =
                        format!("a whole number from {} to {}", bounds.start(), bounds.end());
                    (Check::Integer(bounds), what)
                }
                (None, Some((pattern, what))) => (Check::Pattern(pattern.clone()), what.clone()),
                (None, None) => return Err(format!("there is no kind {name:?}")),
            },
        };
        Ok(Self {
            name: name.to_owned(),
            check,
            what,
        })
    }

    /// Its name without bounds.
    pub fn name(&self) -> &str {
        self.name.split(':').next().unwrap_or(&self.name)
    }

    /// What it stands for.
    pub fn what(&self) -> &str {
        &self.what
    }

    /// Whether a command begins here.
    pub fn is_command(&self) -> bool {
        matches!(
            self.check,
            Check::Command | Check::FedCommand | Check::ExecCommand
        )
    }

    /// Whether the command that begins here ends at `;` or `{} +`.
    pub fn is_exec(&self) -> bool {
        matches!(self.check, Check::ExecCommand)
    }

    /// Whether the command gets arguments that are not known yet.
    pub fn is_fed(&self) -> bool {
        matches!(self.check, Check::FedCommand)
    }

    pub fn is_placeholder(&self) -> bool {
        matches!(self.check, Check::Placeholder)
    }

    /// Whether a value that nobody has checked may stand here: no program, no command, nothing that a pattern holds.
    pub fn takes_anything(&self) -> bool {
        matches!(self.check, Check::Path | Check::Output | Check::Text)
    }

    /// Checks a value. `after_dashes`: it stands behind `--`, so that it can't be taken for an option.
    pub fn check(&self, value: &str, after_dashes: bool) -> Result<(), Denied> {
        let fails = |rule: &str| Err(Denied::new(rule, format!("allowed is {}", self.what)));
        match &self.check {
            Check::Path | Check::Output => match path_problem(value, after_dashes) {
                Some(problem) => fails(problem),
                None => Ok(()),
            },
            Check::Integer(bounds) => match value.parse::<i64>() {
                Ok(number) if bounds.contains(&number) => Ok(()),
                _ => fails(&format!("is not a {}", self.name())),
            },
            Check::Text => Ok(()),
            Check::Pattern(pattern) if pattern.is_match(value) => Ok(()),
            Check::Placeholder if PLACEHOLDERS.contains(&value) => Ok(()),
            Check::Pattern(_) | Check::Placeholder => fails(&format!("is not a {}", self.name())),
            Check::Sed => sed::check(value),
            Check::Awk => awk::check(value),
            Check::Command | Check::FedCommand | Check::ExecCommand => {
                fails("stands where a command begins")
            }
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.name().to_uppercase())
    }
}

const PATH: &str = "a path in the workspace (relative, or below /work or /tmp) without '..' and not beginning with '-'";

/// Symbolic links are not looked at: where they lead is the sandbox's matter, which shows no file that may not be read.
fn path_problem(value: &str, after_dashes: bool) -> Option<&'static str> {
    if value == "-" || DEVICES.contains(&value) {
        return None;
    }
    if value.is_empty() {
        return Some("is empty");
    }
    if value.len() > MAX_PATH_BYTES {
        return Some("is too long for a path");
    }
    if value.contains('\0') {
        return Some("holds a NUL");
    }
    if value.starts_with('-') && !after_dashes {
        return Some("could be taken for an option");
    }
    if value.split('/').any(|part| part == "..") {
        return Some("leaves its directory by '..'");
    }
    let inside = ROOTS.iter().any(|root| {
        value
            .strip_prefix(root)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    });
    (value.starts_with('/') && !inside).then_some("is outside the workspace")
}
