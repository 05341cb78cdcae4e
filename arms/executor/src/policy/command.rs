//! Commands: their form in the policy's file, and what it compiles to.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Policy;
use super::grammar::{Conflict, Grammar, GrammarForm, Numbers, Style};
use super::kind::DefinedKinds;

/// Bytes of a command's name, at most.
const MAX_NAME_BYTES: usize = 64;
/// Stands for every command that may be run by others.
const EVERY: &str = "*";

/// A command or a subcommand, as the file has it.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CommandForm {
    /// The program. Only a command has one, as it has the next four.
    #[serde(default)]
    pub path: Option<PathBuf>,
    /// Its digest; where it is another one, the command is left out.
    #[serde(default)]
    pub sha256: Option<String>,
    /// Further programs and directories that the program needs; the last part of a path may end with `*`.
    #[serde(default)]
    pub needs: Vec<PathBuf>,
    /// Commands that it may run; `*` stands for every one that may be run by others.
    #[serde(default)]
    pub executes: Vec<String>,
    /// Whether other commands may run it.
    #[serde(default = "yes")]
    pub nested: bool,
    #[serde(default)]
    pub subcommands: BTreeMap<String, CommandForm>,

    /// What the program is given before anything that was asked for.
    #[serde(default)]
    pub prefix: Vec<String>,
    /// What a planner should know beside the synopsis.
    #[serde(default)]
    pub note: String,
    #[serde(default)]
    pub style: Style,
    /// Options that take nothing.
    #[serde(default)]
    pub switches: String,
    /// Options with synonyms or values: `-n --lines=count`, `-i --in-place[=text]`.
    #[serde(default)]
    pub options: Vec<String>,
    /// `pattern`, `path?`, `path*`, `path+`.
    #[serde(default)]
    pub operands: Vec<String>,
    /// Where one of these options is given, there is no first operand.
    #[serde(default)]
    pub first_unless: Vec<String>,
    /// What `-5` is.
    #[serde(default)]
    pub numbers: Numbers,
    /// One of these options must be given.
    #[serde(default)]
    pub require: Vec<String>,
    #[serde(default)]
    pub conflicts: Vec<Conflict>,
    /// The tool does not know `--`.
    #[serde(default)]
    pub no_dashes: bool,
    /// Arguments that must be allowed, and that must be denied.
    #[serde(default)]
    pub allow: Vec<Vec<String>>,
    #[serde(default)]
    pub deny: Vec<Vec<String>>,
}

fn yes() -> bool {
    true
}

impl CommandForm {
    fn grammar(&self, kinds: &DefinedKinds) -> Result<Grammar, String> {
        let form = GrammarForm {
            style: self.style,
            switches: &self.switches,
            options: &self.options,
            operands: &self.operands,
            first_unless: &self.first_unless,
            numbers: &self.numbers,
            require: &self.require,
            conflicts: &self.conflicts,
            no_dashes: self.no_dashes,
        };
        Grammar::compile(&form, kinds)
    }

    fn is_plain(&self) -> bool {
        self.path.is_none()
            && self.sha256.is_none()
            && self.needs.is_empty()
            && self.executes.is_empty()
            && self.nested
            && self.subcommands.is_empty()
    }
}

/// A compiled subcommand.
#[derive(Debug, Clone)]
pub(super) struct Subcommand {
    pub grammar: Grammar,
    pub prefix: Vec<String>,
}

/// A compiled command.
#[derive(Debug, Clone)]
pub(super) struct Rule {
    pub path: PathBuf,
    pub needs: Vec<PathBuf>,
    pub nested: bool,
    pub prefix: Vec<String>,
    pub note: String,
    pub grammar: Grammar,
    pub subcommands: BTreeMap<String, Subcommand>,
    executes: Vec<String>,
}

impl Rule {
    /// Compiles the form. Does not look whether the host has the program.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn compile(form: &CommandForm, kinds: &DefinedKinds) -> Result<Self, String> {
        let path = form.path.clone().ok_or("has no path")?;
        if let Some(relative) = form
            .needs
            .iter()
            .chain([&path])
            .find(|path| !path.is_absolute())
        {
            return Err(format!("{} is not an absolute path", relative.display()));
        }
        let mut subcommands = BTreeMap::new();
        for (name, form) in &form.subcommands {
            if !is_bare_name(name) {
                return Err(format!("{name:?} is not a subcommand's name"));
            }
            if !form.is_plain() {
                return Err(format!(
                    "{name}: only a command has a path and what goes with it"
                ));
            }
            let grammar = form
                .grammar(kinds)
                .map_err(|problem| format!("{name}: {problem}"))?;
            let prefix = form.prefix.clone();
            subcommands.insert(name.clone(), Subcommand { grammar, prefix });
        }
        let grammar = form.grammar(kinds)?;
        if grammar.runs_commands() == form.executes.is_empty() {
            return Err("executes goes with an argument that is a command".to_owned());
        }
        let prefixes = subcommands.values().map(|sub| &sub.prefix);
        let replaceable = prefixes
            .chain([&form.prefix])
            .flatten()
            .find(|argument| argument.contains(['{', '%', '@', '\0']));
        if let Some(argument) = replaceable {
            return Err(format!("{argument:?} could be replaced by another command"));
        }
        Ok(Self {
            path,
            needs: form.needs.clone(),
            nested: form.nested,
            prefix: form.prefix.clone(),
            note: form.note.clone(),
            grammar,
            subcommands,
            executes: form.executes.clone(),
        })
    }

    /// Commands that it names in `executes`.
    pub fn named_commands(&self) -> impl Iterator<Item = &str> {
        let named = self.executes.iter().map(String::as_str);
        named.filter(|name| *name != EVERY)
    }

    /// Whether it may run this command, where that is allowed at all.
    pub fn may_run(&self, name: &str) -> bool {
        self.executes.iter().any(|one| one == EVERY || one == name)
    }

    /// What it may run.
    pub fn offered_commands(&self, policy: &Policy) -> String {
        let names: Vec<&str> = policy
            .rules()
            .filter(|(name, rule)| rule.nested && self.may_run(name))
            .map(|(name, _)| name)
            .collect();
        names.join(" ")
    }

    /// How it is called: a line for each subcommand, or one.
    pub fn synopsis(&self, name: &str) -> Vec<String> {
        let line = |words: String, grammar: &Grammar| {
            format!("{words} {}", grammar.synopsis())
                .trim_end()
                .to_owned()
        };
        if self.subcommands.is_empty() {
            return vec![line(name.to_owned(), &self.grammar)];
        }
        let subcommands = self.subcommands.iter();
        subcommands
            .map(|(sub, form)| line(format!("{name} {sub}"), &form.grammar))
            .collect()
    }
}

/// A name that can be looked up: a-z 0-9 . _ + -, no path.
pub(super) fn is_bare_name(name: &str) -> bool {
    (1..=MAX_NAME_BYTES).contains(&name.len())
        && name
            .bytes()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'+' | b'-'))
        && !name.starts_with(['.', '-'])
}
