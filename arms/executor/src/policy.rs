//! The policy: which commands a step may name, with which arguments and limits. What it does not list is denied.
//!
//! It is data, one TOML file in version 2 of its form (`policy/default.toml` is built in). Each command has an absolute
//! path and a positive [`grammar`]; commands that run others (`find`, `xargs`, `env`, …) are read down to the last one.
//! The policy is the first of two lines of defence: it keeps plans to what the executor offers and says clearly what is
//! not offered. The sandbox holds even where the policy is wrong, and shows a step nothing but what [`Permit::view`]
//! lists.

mod awk;
pub mod cli;
mod command;
mod denied;
mod grammar;
mod kind;
mod limits;
mod parse;
mod sed;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::action::Command;
use crate::http::Hosts;
use crate::sandbox::{self, Program};

use self::command::{CommandForm, Rule, is_bare_name};
use self::kind::{DefinedKinds, KindForm};
use self::limits::MaximumForm;
use self::parse::Surroundings;

pub use denied::Denied;
pub use limits::{Limits, RequestedLimits};
pub use parse::{Invocation, Part, Value};

/// The policy that comes with the executor.
pub const DEFAULT: &str = include_str!("../policy/default.toml");
/// The only version of the policy's form that is known.
const VERSION: u32 = 2;

/// A policy that can't be used; the executor does not start with it.
#[derive(Debug, thiserror::Error)]
pub enum InvalidPolicy {
    /// The file can't be read.
    #[error("the policy {path} can't be read: {source}; give the path of a readable file")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not a policy.
    #[error("the policy is not valid: {0}")]
    Malformed(String),
}

/// What needs somebody's word before it runs.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
struct ApprovalForm {
    /// Kinds of actions: `command`, `file`, `http`, `script`.
    actions: BTreeSet<String>,
    commands: BTreeSet<String>,
}

/// An interpreter for `script` actions.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct ScriptForm {
    path: PathBuf,
    /// Its arguments before the script's path.
    #[serde(default)]
    arguments: Vec<String>,
    #[serde(default)]
    needs: Vec<PathBuf>,
    /// Commands that a script sees; their arguments are not read, so only the sandbox holds them.
    #[serde(default)]
    commands: Vec<String>,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct PolicyFile {
    version: u32,
    limits: Limits,
    #[serde(default)]
    maximum: MaximumForm,
    #[serde(default)]
    approval: ApprovalForm,
    #[serde(default)]
    scripts: BTreeMap<String, ScriptForm>,
    #[serde(default)]
    http: Hosts,
    #[serde(default)]
    kinds: BTreeMap<String, KindForm>,
    commands: BTreeMap<String, CommandForm>,
}

/// A pipeline that may run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permit {
    /// Its programs. Their arguments are those of the request with what the policy adds.
    pub stages: Vec<Program>,
    /// All that the stages may execute, and what those need: absolute paths of files and directories, sorted.
    pub view: Vec<PathBuf>,
    /// What each stage's arguments were read as.
    pub readings: Vec<Invocation>,
}

/// An interpreter that may run a script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScriptPermit {
    /// The interpreter.
    pub program: PathBuf,
    /// Its arguments before the script's path.
    pub arguments: Vec<String>,
    /// All that it may execute and needs, sorted.
    pub view: Vec<PathBuf>,
}

/// What the executor may run.
#[derive(Debug, Clone)]
pub struct Policy {
    file: PolicyFile,
    rules: BTreeMap<String, Rule>,
    missing: BTreeMap<String, String>,
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

    /// Parses a policy. Commands and interpreters that this host does not have, or has with another digest, are left
    /// out; [`missing`](Self::missing) says so.
    ///
    /// # Errors
    /// [`InvalidPolicy::Malformed`] says where and why.
    pub fn parse(text: &str) -> Result<Self, InvalidPolicy> {
        let file: PolicyFile =
            toml::from_str(text).map_err(|error| InvalidPolicy::Malformed(error.to_string()))?;
        Self::compile(file).map_err(InvalidPolicy::Malformed)
    }

    fn compile(file: PolicyFile) -> Result<Self, String> {
        if file.version != VERSION {
            let version = file.version;
            return Err(format!("version {version} is not known, {VERSION} is"));
        }
        if let Some(name) = file.limits.zeros().next() {
            return Err(format!("limits.{name} is 0"));
        }
        file.limits
            .within(&file.maximum.over(&file.limits))
            .map_err(|denied| format!("a default is above the maximum: {denied}"))?;
        let kinds = DefinedKinds::compile(&file.kinds)?;
        let mut rules = BTreeMap::new();
        for (name, form) in &file.commands {
            if !is_bare_name(name) {
                return Err(format!("{name:?} is not a bare name of a-z 0-9 . _ + -"));
            }
            let rule = Rule::compile(form, &kinds)
                .map_err(|problem| format!("commands.{name}: {problem}"))?;
            rules.insert(name.clone(), rule);
        }
        let listed = rules.values().flat_map(Rule::named_commands);
        let visible = file.scripts.values().flat_map(|script| &script.commands);
        let visible = visible.map(String::as_str).filter(|name| *name != "*");
        let approved = file.approval.commands.iter().map(String::as_str);
        let unknown = listed
            .chain(visible)
            .chain(approved)
            .find(|name| !rules.contains_key(*name));
        if let Some(name) = unknown {
            return Err(format!("{name} is named, and is no command of this policy"));
        }
        if let Some((name, _)) = file
            .scripts
            .iter()
            .find(|(_, script)| !script.path.is_absolute())
        {
            return Err(format!("scripts.{name}: the path is not absolute"));
        }
        Self::on_this_host(file, rules)
    }

    /// Leaves out what the host lacks, and takes the digest of what is in force.
    fn on_this_host(
        mut file: PolicyFile,
        mut rules: BTreeMap<String, Rule>,
    ) -> Result<Self, String> {
        let mut missing = BTreeMap::new();
        let mut programs = BTreeMap::new();
        for (name, form) in &file.commands {
            let path = &rules[name].path;
            match program_digest(path) {
                Err(problem) => {
                    missing.insert(name.clone(), problem);
                }
                Ok(found) if form.sha256.as_ref().is_some_and(|known| *known != found) => {
                    let problem = format!("{} has the digest {found}", path.display());
                    missing.insert(name.clone(), problem);
                }
                Ok(found) => {
                    programs.insert(path.clone(), found);
                }
            }
        }
        rules.retain(|name, _| !missing.contains_key(name));
        file.scripts
            .retain(|name, script| match program_digest(&script.path) {
                Ok(found) => {
                    programs.insert(script.path.clone(), found);
                    true
                }
                Err(problem) => {
                    missing.insert(format!("script {name}"), problem);
                    false
                }
            });
        file.commands.retain(|name, _| rules.contains_key(name));
        let canonical = serde_json_canonicalizer::to_vec(&(&file, &programs))
            .map_err(|error| error.to_string())?;
        Ok(Self {
            file,
            rules,
            missing,
            digest: hex::encode(Sha256::digest(canonical)),
        })
    }

    /// SHA-256 of the policy in force on this host, lower-case hex: the RFC 8785 form of what is not left out, and the
    /// digests of its programs. The same host gives the same digest until the file or a program changes.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Names of the commands that are offered, sorted.
    pub fn commands(&self) -> impl Iterator<Item = &str> {
        self.rules.keys().map(String::as_str)
    }

    /// What was left out, by name, and why.
    #[must_use]
    pub fn missing(&self) -> &BTreeMap<String, String> {
        &self.missing
    }

    /// How a command is called, a line for each subcommand; none where it is not offered.
    #[must_use]
    pub fn synopsis(&self, name: &str) -> Option<Vec<String>> {
        let rule = self.rules.get(name)?;
        let mut lines = rule.synopsis(name);
        if !rule.note.is_empty() {
            lines.push(rule.note.clone());
        }
        Some(lines)
    }

    /// What a step has where it asks for nothing else.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.file.limits
    }

    /// The most that a step may ask for.
    #[must_use]
    pub fn maximum(&self) -> Limits {
        self.file.maximum.over(&self.file.limits)
    }

    /// Hosts that steps may speak to.
    #[must_use]
    pub fn hosts(&self) -> &Hosts {
        &self.file.http
    }

    /// Whether somebody must have approved an action of this kind, or this command.
    #[must_use]
    pub fn needs_approval(&self, name: &str) -> bool {
        let approval = &self.file.approval;
        approval.actions.contains(name) || approval.commands.contains(name)
    }

    /// Whether an action of this kind, or this command, may run without anybody's word.
    ///
    /// # Errors
    /// [`Denied`]: it needs an approval, and a dispatch carries none.
    pub fn permit_unapproved(&self, name: &str) -> Result<(), Denied> {
        if self.needs_approval(name) {
            let rule = "needs an approval by this policy, and the step has none";
            let allowed = "allowed is what [approval] does not list";
            return Err(Denied::new(rule, allowed).about(name));
        }
        Ok(())
    }

    fn rules(&self) -> impl Iterator<Item = (&str, &Rule)> {
        self.rules.iter().map(|(name, rule)| (name.as_str(), rule))
    }

    fn rule(&self, name: &str) -> Result<&Rule, Denied> {
        let offered = || {
            let names: Vec<&str> = self.commands().collect();
            format!("allowed are: {}", names.join(" "))
        };
        if !is_bare_name(name) {
            let rule = "is not a command's bare name (a-z 0-9 . _ + -, no path)";
            return Err(Denied::new(rule, offered()).about(name));
        }
        self.rules
            .get(name)
            .ok_or_else(|| Denied::new("is not a command that is allowed", offered()).about(name))
    }

    /// Maps each stage of a pipeline to the program that may run, and says what the sandbox must show.
    ///
    /// # Errors
    /// [`Denied`] names the stage, the argument, the rule, and what would be allowed.
    pub fn permit(&self, command: &Command) -> Result<Permit, Denied> {
        let mut stages = Vec::with_capacity(command.pipeline.len());
        let mut readings = Vec::with_capacity(command.pipeline.len());
        let mut view = BTreeSet::new();
        for (index, argv) in command.pipeline.iter().enumerate() {
            let reading = self.read(argv).map_err(|denied| denied.at(index + 1))?;
            let mut arguments = vec![reading.name.clone()];
            arguments.extend(reading.arguments.iter().cloned());
            stages.push(Program {
                path: reading.path.clone(),
                argv: arguments,
            });
            self.show(&reading, &mut view);
            readings.push(reading);
        }
        Ok(Permit {
            stages,
            view: view.into_iter().collect(),
            readings,
        })
    }

    /// Reads one argument vector.
    ///
    /// # Errors
    /// As [`permit`](Self::permit), without the stage.
    pub fn read(&self, argv: &[String]) -> Result<Invocation, Denied> {
        let (name, arguments) = argv
            .split_first()
            .ok_or_else(|| Denied::new("has no program", "allowed is a command's name first"))?;
        parse::invocation(self, name, arguments, &Surroundings::default())
    }

    /// Adds what a command may execute and needs.
    fn show(&self, reading: &Invocation, view: &mut BTreeSet<PathBuf>) {
        view.insert(reading.path.clone());
        if let Some(rule) = self.rules.get(&reading.name) {
            view.extend(rule.needs.iter().flat_map(|path| present(path)));
        }
        for part in &reading.parts {
            if let Part::Command(inner) = part {
                self.show(inner, view);
            }
        }
    }

    /// The interpreter of a script action in this language.
    ///
    /// # Errors
    /// [`Denied`] names the languages that are allowed.
    pub fn permit_script(&self, language: &str) -> Result<ScriptPermit, Denied> {
        let Some(script) = self.file.scripts.get(language) else {
            let names: Vec<&str> = self.file.scripts.keys().map(String::as_str).collect();
            let allowed = match names.is_empty() {
                true => "none is: write a command".to_owned(),
                false => format!("allowed are: {}", names.join(" ")),
            };
            return Err(
                Denied::new("is not a script's language that is allowed", allowed).about(language),
            );
        };
        let mut view: BTreeSet<PathBuf> = [script.path.clone()].into();
        view.extend(script.needs.iter().flat_map(|path| present(path)));
        for (name, rule) in &self.rules {
            if script.commands.iter().any(|one| one == "*" || one == name) {
                view.insert(rule.path.clone());
                view.extend(rule.needs.iter().flat_map(|path| present(path)));
            }
        }
        Ok(ScriptPermit {
            program: script.path.clone(),
            arguments: script.arguments.clone(),
            view: view.into_iter().collect(),
        })
    }

    /// Examples of the file (`allow`, `deny`) that do not come out as it says; of commands that are offered.
    #[must_use]
    pub fn failing_examples(&self) -> Vec<String> {
        let forms = self.file.commands.iter().flat_map(|(name, form)| {
            let own = std::iter::once((vec![name.clone()], form));
            let subcommands = form.subcommands.iter();
            own.chain(subcommands.map(|(sub, form)| (vec![name.clone(), sub.clone()], form)))
        });
        let mut failing = Vec::new();
        for (words, form) in forms {
            let read =
                |arguments: &Vec<String>| self.read(&[words.clone(), arguments.clone()].concat());
            for arguments in &form.allow {
                if let Err(denied) = read(arguments) {
                    failing.push(format!(
                        "{words:?} {arguments:?} should be allowed: {denied}"
                    ));
                }
            }
            for arguments in &form.deny {
                if read(arguments).is_ok() {
                    failing.push(format!("{words:?} {arguments:?} should be denied"));
                }
            }
        }
        failing
    }

    /// Checks what a step asks for against the maximum, and fills in what it does not name.
    ///
    /// # Errors
    /// [`Denied`] names the limit and its maximum.
    pub fn permit_limits(&self, asked: &RequestedLimits) -> Result<sandbox::Limits, Denied> {
        let limits = asked.over(&self.file.limits);
        limits.within(&self.maximum())?;
        Ok(limits.into())
    }
}

/// The paths that a path which may end with `*` stands for, as far as they exist.
fn present(path: &Path) -> Vec<PathBuf> {
    let name = path.file_name().and_then(|name| name.to_str());
    let (Some(start), Some(parent)) = (name.and_then(|name| name.strip_suffix('*')), path.parent())
    else {
        return path.exists().then(|| path.to_owned()).into_iter().collect();
    };
    let entries = std::fs::read_dir(parent).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(start))
        .map(|entry| entry.path())
        .collect()
}

/// SHA-256 of a program, or why it can't be run.
fn program_digest(path: &Path) -> Result<String, String> {
    let problem = |error: io::Error| format!("{}: {error}", path.display());
    let mut file = File::open(path).map_err(problem)?;
    let found = file.metadata().map_err(problem)?;
    if !found.is_file() || found.permissions().mode() & 0o111 == 0 {
        return Err(format!("{} is not a program", path.display()));
    }
    let mut digest = Sha256::new();
    let mut block = vec![0; 1 << 16];
    loop {
        match file.read(&mut block).map_err(problem)? {
            0 => return Ok(hex::encode(digest.finalize())),
            count => digest.update(&block[..count]),
        }
    }
}

#[cfg(test)]
mod tests;
