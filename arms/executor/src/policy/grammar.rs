//! Positive grammars of argument vectors: what a command may be given, as data.
//!
//! A grammar says how the tool reads its arguments (its [`Style`]), which options there are and what each takes, and
//! what the operands are. What it does not say is denied.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::kind::{DefinedKinds, Kind};

/// How a tool reads its arguments.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Style {
    /// As GNU getopt does: options and operands in any order, up to `--`.
    #[default]
    Permuted,
    /// As POSIX says: the first operand ends the options.
    Posix,
    /// There are no options: every argument is an operand (`echo`, `test`, `expr`).
    Literal,
    /// Operands, then an expression of words (`find`).
    Expression,
}

/// What an argument such as `-5` is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Numbers {
    /// An option that is not known.
    #[default]
    None,
    /// A negative number, and an operand (`seq`).
    Operand,
    /// Short for this option with that value (`head -5`).
    Option(String),
}

/// Options that exclude each other.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Conflict {
    /// Not all of these may be given.
    pub options: Vec<String>,
    /// Why, and what to do in its place.
    pub because: String,
}

/// A grammar, as the policy's file has it.
#[derive(Debug, Clone)]
pub(super) struct GrammarForm<'a> {
    pub style: Style,
    pub switches: &'a str,
    pub options: &'a [String],
    pub operands: &'a [String],
    pub first_unless: &'a [String],
    pub numbers: &'a Numbers,
    pub require: &'a [String],
    pub conflicts: &'a [Conflict],
    pub no_dashes: bool,
}

/// What an option takes.
#[derive(Debug, Clone)]
pub(super) enum Takes {
    Nothing,
    /// One value for each kind: attached, or the next arguments.
    Values(Vec<Kind>),
    /// A value that must be attached, or none.
    Attached(Kind),
}

/// An option and its names.
#[derive(Debug, Clone)]
pub(super) struct OptionRule {
    pub names: Vec<String>,
    pub takes: Takes,
}

impl OptionRule {
    /// `-n --lines=count`, `-i --in-place[=text]`, `--arg=name,text`, `-r`.
    fn compile(text: &str, kinds: &DefinedKinds) -> Result<Self, String> {
        let (names, takes) = if let Some((names, kind)) = text.split_once("[=") {
            let kind = kind
                .strip_suffix(']')
                .ok_or_else(|| format!("{text:?} has no closing ]"))?;
            (names, Takes::Attached(Kind::compile(kind, kinds)?))
        } else if let Some((names, values)) = text.split_once('=') {
            let values = values.split(',').map(|kind| Kind::compile(kind, kinds));
            (names, Takes::Values(values.collect::<Result<_, _>>()?))
        } else {
            (text, Takes::Nothing)
        };
        let names: Vec<String> = names.split_whitespace().map(str::to_owned).collect();
        match names.iter().find(|name| !is_option_name(name)) {
            Some(name) => Err(format!("{name:?} in {text:?} is not an option's name")),
            None if names.is_empty() => Err(format!("{text:?} names no option")),
            None => Ok(Self { names, takes }),
        }
    }

    /// The name that stands for all.
    pub fn name(&self) -> &str {
        &self.names[0]
    }
}

impl fmt::Display for OptionRule {
    /// All its names and what it takes: `-n|--lines COUNT`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.names.join("|"))?;
        match &self.takes {
            Takes::Nothing => Ok(()),
            Takes::Values(kinds) => kinds
                .iter()
                .try_for_each(|kind| write!(formatter, " {kind}")),
            Takes::Attached(kind) => write!(formatter, "[={kind}]"),
        }
    }
}

fn is_option_name(name: &str) -> bool {
    name.len() >= 2
        && name.starts_with('-')
        && name != "--"
        && name
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'=')
}

/// A place for operands.
#[derive(Debug, Clone)]
pub(super) struct Slot {
    pub kind: Kind,
    pub min: usize,
    pub max: usize,
}

impl Slot {
    /// A kind, and how often: `path`, `path?`, `path*`, `path+`.
    fn compile(text: &str, kinds: &DefinedKinds) -> Result<Self, String> {
        let (name, min, max) = match text.split_at_checked(text.len().saturating_sub(1)) {
            Some((name, "?")) => (name, 0, 1),
            Some((name, "*")) => (name, 0, usize::MAX),
            Some((name, "+")) => (name, 1, usize::MAX),
            _ => (text, 1, 1),
        };
        let kind = Kind::compile(name, kinds)?;
        Ok(Self { kind, min, max })
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.min, self.max) {
            (0, 1) => write!(formatter, "[{}]", self.kind),
            (0, _) => write!(formatter, "[{}…]", self.kind),
            (_, 1) => write!(formatter, "{}", self.kind),
            _ => write!(formatter, "{}…", self.kind),
        }
    }
}

/// A compiled grammar.
#[derive(Debug, Clone)]
pub(super) struct Grammar {
    pub style: Style,
    pub options: Vec<OptionRule>,
    pub operands: Vec<Slot>,
    pub first_unless: Vec<String>,
    pub numbers: Numbers,
    pub require: Vec<String>,
    pub conflicts: Vec<Conflict>,
    pub no_dashes: bool,
}

impl Grammar {
    pub fn compile(form: &GrammarForm<'_>, kinds: &DefinedKinds) -> Result<Self, String> {
        let switches = form.switches.split_whitespace();
        let options = form.options.iter().map(String::as_str);
        let grammar = Self {
            style: form.style,
            options: switches
                .chain(options)
                .map(|text| OptionRule::compile(text, kinds))
                .collect::<Result<_, _>>()?,
            operands: form
                .operands
                .iter()
                .map(|text| Slot::compile(text, kinds))
                .collect::<Result<_, _>>()?,
            first_unless: form.first_unless.to_vec(),
            numbers: form.numbers.clone(),
            require: form.require.to_vec(),
            conflicts: form.conflicts.to_vec(),
            no_dashes: form.no_dashes,
        };
        grammar.validate()?;
        Ok(grammar)
    }

    fn validate(&self) -> Result<(), String> {
        let mut names = BTreeSet::new();
        for name in self.options.iter().flat_map(|option| &option.names) {
            if !names.insert(name.as_str()) {
                return Err(format!("the option {name} stands there twice"));
            }
            let is_word = !name.starts_with("--") && name.chars().count() > 2;
            if is_word && self.style != Style::Expression {
                return Err(format!("{name} is neither -x nor --name"));
            }
        }
        let conflicting = self.conflicts.iter().flat_map(|conflict| &conflict.options);
        let mut referred = conflicting.chain(&self.require).chain(&self.first_unless);
        if let Some(name) = referred.find(|name| !names.contains(name.as_str())) {
            return Err(format!("{name} is referred to, and is no option"));
        }
        if let Numbers::Option(name) = &self.numbers {
            let takes_one = |option: &OptionRule| matches!(&option.takes, Takes::Values(kinds) if kinds.len() == 1);
            if !self.option(name).is_some_and(takes_one) {
                return Err(format!("a number can't stand for {name}"));
            }
        }
        if self.style == Style::Literal && !self.options.is_empty() {
            return Err("a literal style has no options".to_owned());
        }
        let repeating = self.operands.iter().filter(|slot| slot.max > 1).count();
        let commands = self.operands.iter().position(|slot| slot.kind.is_command());
        match commands {
            None if repeating > 1 => Err("more than one operand repeats".to_owned()),
            Some(place) if place + 1 != self.operands.len() || self.style != Style::Posix => {
                Err("a command is the last operand of a posix style".to_owned())
            }
            _ => Ok(()),
        }
    }

    /// The option of this name.
    pub fn option(&self, name: &str) -> Option<&OptionRule> {
        self.options
            .iter()
            .find(|option| option.names.iter().any(|known| known == name))
    }

    /// All options with what they take.
    pub fn offered_options(&self) -> String {
        if self.options.is_empty() {
            return "no options are allowed".to_owned();
        }
        let options: Vec<String> = self.options.iter().map(OptionRule::to_string).collect();
        format!("allowed are: {}", options.join(", "))
    }

    /// The operands, as in a synopsis.
    pub fn offered_operands(&self) -> String {
        let slots: Vec<String> = self.operands.iter().map(Slot::to_string).collect();
        slots.join(" ")
    }

    /// Whether any place of it begins a command.
    pub fn runs_commands(&self) -> bool {
        let of_options = self.options.iter().any(
            |option| matches!(&option.takes, Takes::Values(kinds) if kinds.iter().any(Kind::is_command)),
        );
        of_options || self.operands.iter().any(|slot| slot.kind.is_command())
    }

    /// One line for planners: single-letter switches in a bundle (long ones only where there are no others), each other
    /// option by its first name, the operands.
    pub fn synopsis(&self) -> String {
        let mut letters = String::new();
        let mut parts = Vec::new();
        for option in &self.options {
            let name = option.name();
            let letter = name
                .strip_prefix('-')
                .filter(|rest| rest.chars().count() == 1);
            match (&option.takes, letter) {
                (Takes::Nothing, Some(letter)) => letters.push_str(letter),
                (Takes::Nothing, None) => parts.push(format!("[{name}]")),
                (Takes::Values(kinds), _) => {
                    let kinds: Vec<String> = kinds.iter().map(Kind::to_string).collect();
                    parts.push(format!("[{name} {}]", kinds.join(" ")));
                }
                (Takes::Attached(kind), Some(_)) => parts.push(format!("[{name}[{kind}]]")),
                (Takes::Attached(kind), None) => parts.push(format!("[{name}[={kind}]]")),
            }
        }
        if !letters.is_empty() {
            parts.retain(|part| !part.starts_with("[--") || part.contains([' ', '=']));
            parts.insert(0, format!("[-{letters}]"));
        }
        parts.extend(self.operands.iter().map(Slot::to_string));
        parts.join(" ")
    }
}
