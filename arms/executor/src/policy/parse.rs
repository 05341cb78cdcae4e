//! Reads an argument vector by a grammar, and writes the one that runs.
//!
//! The two differ where the policy adds something: fixed arguments in front, absolute paths for the names of commands
//! that a command runs, and `--` before operands that somebody else fills in (`xargs`, `find -exec`). Nothing is ever
//! put into another order.

use std::path::PathBuf;

use serde::Serialize;

use super::Policy;
use super::command::Rule;
use super::denied::Denied;
use super::grammar::{Grammar, Numbers, OptionRule, Slot, Style, Takes};
use super::kind::Kind;

/// Commands within commands, at most.
const MAX_DEPTH: usize = 4;
/// What `find -exec` replaces.
const FOUND: &str = "{}";

/// A value and the kind that it was read as.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Value {
    /// The value.
    pub value: String,
    /// The kind's name.
    pub kind: String,
}

/// What an argument became.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// Arguments that the policy puts in front.
    Fixed(Vec<String>),
    /// A subcommand.
    Subcommand(String),
    /// An option with its values.
    Option {
        /// The name that stands for all its names.
        name: String,
        /// Its values.
        values: Vec<Value>,
    },
    /// An operand.
    Operand(Value),
    /// An operator of an expression.
    Operator(String),
    /// A command that is run.
    Command(Invocation),
}

/// A command and its arguments, read by its grammar.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Invocation {
    /// The command's name.
    pub name: String,
    /// Its program.
    pub path: PathBuf,
    /// The arguments that the program is started with, its name not among them.
    pub arguments: Vec<String>,
    /// What the given arguments were read as.
    pub parts: Vec<Part>,
}

/// What is not known yet about the arguments of a command that another one runs.
#[derive(Debug, Clone, Default)]
pub(super) struct Surroundings<'a> {
    /// Texts that will be replaced in any argument, by anything.
    placeholders: Vec<&'a str>,
    /// Further arguments will follow, and may be anything.
    open: bool,
    depth: usize,
}

impl<'a> Surroundings<'a> {
    fn are_known(&self) -> bool {
        self.placeholders.is_empty() && !self.open
    }

    fn placeholder_in(&self, argument: &str) -> Option<&'a str> {
        let mut placeholders = self.placeholders.iter();
        placeholders.find(|one| argument.contains(**one)).copied()
    }
}

/// Reads one command.
///
/// # Errors
/// [`Denied`] says what is wrong, and what would be right.
pub(super) fn invocation(
    policy: &Policy,
    name: &str,
    arguments: &[String],
    surroundings: &Surroundings<'_>,
) -> Result<Invocation, Denied> {
    let rule = policy.rule(name)?;
    policy.permit_unapproved(name)?;
    let read = || {
        if surroundings.depth > MAX_DEPTH {
            let rule = format!("runs a command within {MAX_DEPTH} others");
            return Err(Denied::new(rule, "allowed are fewer"));
        }
        if surroundings.depth > 0 && !rule.nested {
            return Err(Denied::new(
                "can't be run by another command",
                "allowed is to make it a stage of its own",
            ));
        }
        let mut parts = Vec::new();
        let mut written = rule.prefix.clone();
        if !rule.prefix.is_empty() {
            parts.push(Part::Fixed(rule.prefix.clone()));
        }
        let (grammar, rest) = if rule.subcommands.is_empty() {
            (&rule.grammar, arguments)
        } else {
            let (name, grammar, prefix) = subcommand(rule, arguments)?;
            written.push(name.to_owned());
            written.extend(prefix.iter().cloned());
            parts.push(Part::Subcommand(name.to_owned()));
            if !prefix.is_empty() {
                parts.push(Part::Fixed(prefix.to_vec()));
            }
            (grammar, &arguments[1..])
        };
        let reader = Reader {
            policy,
            rule,
            grammar,
            surroundings,
            arguments: rest,
            next: 0,
            written,
            parts,
            given: Vec::new(),
            operands: Vec::new(),
            first_operand: None,
            has_dashes: false,
            has_late_option: false,
            placeholder: None,
        };
        reader.read()
    };
    let (written, parts) = read().map_err(|denied| denied.of(name))?;
    Ok(Invocation {
        name: name.to_owned(),
        path: rule.path.clone(),
        arguments: written,
        parts,
    })
}

fn subcommand<'r>(
    rule: &'r Rule,
    arguments: &[String],
) -> Result<(&'r str, &'r Grammar, &'r [String]), Denied> {
    let allowed = || {
        let names: Vec<&str> = rule.subcommands.keys().map(String::as_str).collect();
        format!(
            "the first argument must be one of: {} (its options come behind it)",
            names.join(" ")
        )
    };
    let Some(first) = arguments.first() else {
        return Err(Denied::new("names no subcommand", allowed()));
    };
    match rule.subcommands.get_key_value(first) {
        Some((name, sub)) => Ok((name, &sub.grammar, &sub.prefix)),
        None => Err(Denied::new("is not a subcommand that is allowed", allowed()).about(first)),
    }
}

/// An operand as it stands.
struct Operand<'a> {
    text: &'a str,
    after_dashes: bool,
}

struct Reader<'a> {
    policy: &'a Policy,
    rule: &'a Rule,
    grammar: &'a Grammar,
    surroundings: &'a Surroundings<'a>,
    arguments: &'a [String],
    next: usize,
    /// The arguments that run.
    written: Vec<String>,
    parts: Vec<Part>,
    /// First names of the options that were given.
    given: Vec<&'a str>,
    operands: Vec<Operand<'a>>,
    /// Where the first operand stands in `written`.
    first_operand: Option<usize>,
    has_dashes: bool,
    /// An option stands behind an operand.
    has_late_option: bool,
    /// What this command replaces in the arguments of the command that it runs.
    placeholder: Option<&'a str>,
}

impl<'a> Reader<'a> {
    fn read(mut self) -> Result<(Vec<String>, Vec<Part>), Denied> {
        match self.grammar.style {
            Style::Literal => {
                while let Some(argument) = self.take() {
                    self.operand(argument);
                }
            }
            Style::Permuted | Style::Posix => self.options_and_operands()?,
            Style::Expression => self.expression()?,
        }
        self.check_given()?;
        self.place_operands()?;
        if !self.surroundings.are_known() {
            self.close_options()?;
        }
        Ok((self.written, self.parts))
    }

    fn take(&mut self) -> Option<&'a str> {
        let argument = self.arguments.get(self.next)?;
        self.next += 1;
        Some(argument)
    }

    fn operand(&mut self, text: &'a str) {
        self.first_operand.get_or_insert(self.written.len());
        self.written.push(text.to_owned());
        self.operands.push(Operand {
            text,
            after_dashes: self.has_dashes,
        });
    }

    fn options_and_operands(&mut self) -> Result<(), Denied> {
        let is_posix = self.grammar.style == Style::Posix;
        while let Some(argument) = self.take() {
            let ended = self.has_dashes || (is_posix && !self.operands.is_empty());
            if ended || !self.is_option(argument) {
                if self.begins_command(argument) {
                    self.next -= 1;
                    return Ok(());
                }
                self.operand(argument);
            } else if argument == "--" {
                if self.grammar.no_dashes {
                    return Err(
                        Denied::new("is not known", self.grammar.offered_options()).about(argument)
                    );
                }
                self.has_dashes = true;
                self.written.push(argument.to_owned());
            } else {
                self.has_late_option |= !self.operands.is_empty();
                self.option(argument)?;
            }
        }
        Ok(())
    }

    /// Whether the command that this one runs begins with this operand.
    fn begins_command(&self, argument: &str) -> bool {
        let mut slots = self.grammar.operands.iter().rev();
        if !slots.next().is_some_and(|slot| slot.kind.is_command()) {
            return false;
        }
        match slots.next() {
            // As env does: what has an = is a variable.
            Some(before) if before.max > 1 => !argument.contains('='),
            _ => self.operands.len() + 1 == self.grammar.operands.len(),
        }
    }

    fn is_option(&self, argument: &str) -> bool {
        let Some(rest) = argument.strip_prefix('-').filter(|rest| !rest.is_empty()) else {
            return false;
        };
        let is_number = rest.starts_with(|first: char| first.is_ascii_digit() || first == '.');
        !(self.grammar.numbers == Numbers::Operand && is_number)
    }

    fn option(&mut self, argument: &'a str) -> Result<(), Denied> {
        if argument.starts_with("--") {
            return self.long(argument);
        }
        let digits = &argument[1..];
        match &self.grammar.numbers {
            Numbers::Option(name) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                self.number(name, digits)
            }
            _ => self.bundle(argument),
        }
    }

    /// `-5`: written as the option that it stands for, which is good for more than one operand.
    fn number(&mut self, name: &'a str, digits: &'a str) -> Result<(), Denied> {
        let Some(option) = self.grammar.option(name) else {
            return Err(self.unknown(name));
        };
        let Takes::Values(kinds) = &option.takes else {
            return Err(self.unknown(name));
        };
        let value = self.value(&kinds[0], digits)?;
        self.written.extend([name.to_owned(), digits.to_owned()]);
        self.note(option, vec![value]);
        Ok(())
    }

    fn long(&mut self, argument: &'a str) -> Result<(), Denied> {
        let (name, attached) = match argument.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (argument, None),
        };
        let Some(option) = self.grammar.option(name) else {
            return Err(self.unknown_long(name).about(argument));
        };
        self.written.push(argument.to_owned());
        let values = match (&option.takes, attached) {
            (Takes::Nothing, None) | (Takes::Attached(_), None) => Vec::new(),
            (Takes::Nothing, Some(_)) => {
                let allowed = format!("allowed is {name} alone");
                return Err(Denied::new("takes no value", allowed).about(argument));
            }
            (Takes::Attached(kind), Some(value)) => vec![self.value(kind, value)?],
            (Takes::Values(kinds), Some(value)) if kinds.len() == 1 => {
                vec![self.value(&kinds[0], value)?]
            }
            (Takes::Values(_), Some(_)) => {
                let allowed = format!("allowed is {option}");
                return Err(
                    Denied::new("takes its values as further arguments", allowed).about(argument),
                );
            }
            (Takes::Values(kinds), None) => self.following(option, kinds)?,
        };
        self.note(option, values);
        Ok(())
    }

    fn unknown_long(&self, name: &str) -> Denied {
        let mut full = self.grammar.options.iter().flat_map(|option| &option.names);
        match full.find(|full| full.starts_with(name) && name.len() > 2) {
            Some(full) => Denied::new(
                "is an option's name cut short",
                format!("allowed is the full name, {full}"),
            ),
            None => self.unknown(name),
        }
    }

    fn unknown(&self, name: &str) -> Denied {
        Denied::new(
            "is not an option that is allowed",
            self.grammar.offered_options(),
        )
        .about(name)
    }

    /// Short options behind one dash, as getopt reads them.
    fn bundle(&mut self, argument: &'a str) -> Result<(), Denied> {
        self.written.push(argument.to_owned());
        for (start, letter) in argument.char_indices().skip(1) {
            let name = format!("-{letter}");
            let Some(option) = self.grammar.option(&name) else {
                return Err(self.unknown(&name).about(argument));
            };
            let rest = &argument[start + letter.len_utf8()..];
            let values = match &option.takes {
                Takes::Nothing => {
                    self.note(option, Vec::new());
                    continue;
                }
                Takes::Attached(_) if rest.is_empty() => Vec::new(),
                Takes::Attached(kind) => vec![self.value(kind, rest)?],
                Takes::Values(kinds) if rest.is_empty() => self.following(option, kinds)?,
                Takes::Values(kinds) => vec![self.value(&kinds[0], rest)?],
            };
            self.note(option, values);
            return Ok(());
        }
        Ok(())
    }

    /// The values that follow as arguments of their own.
    fn following(&mut self, option: &OptionRule, kinds: &'a [Kind]) -> Result<Vec<Value>, Denied> {
        let mut values = Vec::with_capacity(kinds.len());
        for kind in kinds {
            let Some(argument) = self.take() else {
                let allowed = format!("allowed is {option}");
                return Err(
                    Denied::new(format!("takes {}", kind.what()), allowed).about(option.name())
                );
            };
            values.push(self.value(kind, argument)?);
            self.written.push(argument.to_owned());
        }
        Ok(values)
    }

    fn value(&mut self, kind: &'a Kind, text: &'a str) -> Result<Value, Denied> {
        self.check(kind, text, false)?;
        if kind.is_placeholder() {
            self.placeholder = Some(text);
        }
        Ok(Value {
            value: text.to_owned(),
            kind: kind.name().to_owned(),
        })
    }

    fn check(&self, kind: &Kind, text: &str, after_dashes: bool) -> Result<(), Denied> {
        if let Some(placeholder) = self.surroundings.placeholder_in(text)
            && !kind.takes_anything()
        {
            let rule = format!("has {placeholder} in a {}", kind.name());
            let allowed = format!("{placeholder} may stand for a path or text only");
            return Err(Denied::new(rule, allowed).about(text));
        }
        kind.check(text, after_dashes)
            .map_err(|denied| denied.about(text))
    }

    fn note(&mut self, option: &'a OptionRule, values: Vec<Value>) {
        self.given.push(option.name());
        self.parts.push(Part::Option {
            name: option.name().to_owned(),
            values,
        });
    }

    /// Required options, and those that exclude each other.
    fn check_given(&self) -> Result<(), Denied> {
        let is_given = |name: &String| {
            let option = self.grammar.option(name);
            option.is_some_and(|option| self.given.contains(&option.name()))
        };
        let require = &self.grammar.require;
        if !require.is_empty() && !require.iter().any(is_given) {
            let allowed = format!("one of these must be given: {}", require.join(" "));
            return Err(Denied::new("lacks an option", allowed));
        }
        let mut conflicts = self.grammar.conflicts.iter();
        match conflicts.find(|conflict| conflict.options.iter().all(is_given)) {
            Some(conflict) => {
                let options = conflict.options.join(" and ");
                Err(Denied::new(
                    format!("has {options} together"),
                    conflict.because.as_str(),
                ))
            }
            None => Ok(()),
        }
    }

    /// Gives each operand its place, and reads the command that follows them.
    fn place_operands(&mut self) -> Result<(), Denied> {
        let grammar = self.grammar;
        let dropped = grammar.first_unless.iter().any(|name| {
            let option = grammar.option(name);
            option.is_some_and(|option| self.given.contains(&option.name()))
        });
        let slots = &grammar.operands[usize::from(dropped)..];
        let (slots, command) = match slots.split_last() {
            Some((last, before)) if last.kind.is_command() => (before, Some(last)),
            _ => (slots, None),
        };
        // Operands that are still to come fill the slots of required ones.
        let open = self.surroundings.open && command.is_none();
        let filled = fill(slots, self.operands.len(), open).ok_or_else(|| {
            let count = self.operands.len();
            let rule = format!("has {count} operands");
            let offered = match grammar.offered_operands() {
                none if none.is_empty() => "none are allowed".to_owned(),
                slots => format!("allowed are: {slots}"),
            };
            Denied::new(rule, offered)
        })?;
        for (operand, slot) in self.operands.iter().zip(filled.iter()) {
            self.check(&slot.kind, operand.text, operand.after_dashes)?;
            self.parts.push(Part::Operand(Value {
                value: operand.text.to_owned(),
                kind: slot.kind.name().to_owned(),
            }));
        }
        if open {
            let used = filled.len();
            let closed = slots.iter().skip(slots_used(slots, used));
            if let Some(slot) = closed.into_iter().find(|slot| !slot.kind.takes_anything()) {
                return Err(Denied::new(
                    format!("would get its {} from outside", slot.kind.name()),
                    format!("write it down: {}", grammar.offered_operands()),
                ));
            }
        }
        match command {
            None => Ok(()),
            Some(slot) if self.next < self.arguments.len() => {
                let argv = &self.arguments[self.next..];
                let surroundings = Surroundings {
                    placeholders: self.placeholders(),
                    open: self.surroundings.open
                        || (slot.kind.is_fed() && self.placeholder.is_none()),
                    depth: self.surroundings.depth + 1,
                };
                self.command(argv, &surroundings)
            }
            Some(slot) if slot.min > 0 || self.surroundings.open => Err(Denied::new(
                "names no command to run",
                format!("allowed are: {}", self.grammar.offered_operands()),
            )),
            Some(_) => Ok(()),
        }
    }

    fn placeholders(&self) -> Vec<&'a str> {
        let inherited = self.surroundings.placeholders.iter().copied();
        inherited.chain(self.placeholder).collect()
    }

    fn command(&mut self, argv: &[String], surroundings: &Surroundings<'_>) -> Result<(), Denied> {
        let Some((name, arguments)) = argv.split_first() else {
            return Err(Denied::new(
                "names no command to run",
                format!("allowed are: {}", self.rule.offered_commands(self.policy)),
            ));
        };
        if !self.rule.may_run(name) {
            let allowed = format!("allowed are: {}", self.rule.offered_commands(self.policy));
            return Err(Denied::new("may not be run by this command", allowed).about(name));
        }
        let inner = invocation(self.policy, name, arguments, surroundings)?;
        self.written.push(inner.path.to_string_lossy().into_owned());
        self.written.extend(inner.arguments.iter().cloned());
        self.parts.push(Part::Command(inner));
        Ok(())
    }

    /// Where others fill in operands, `--` keeps them from being options.
    fn close_options(&mut self) -> Result<(), Denied> {
        let runs_command = matches!(self.parts.last(), Some(Part::Command(_)));
        if self.has_dashes || runs_command || self.grammar.style == Style::Literal {
            return Ok(());
        }
        let has_placeholder = self
            .operands
            .iter()
            .any(|operand| self.surroundings.placeholder_in(operand.text).is_some());
        if !self.surroundings.open && !has_placeholder {
            return Ok(());
        }
        if self.grammar.no_dashes || self.grammar.style == Style::Expression {
            return Err(Denied::new(
                "can't be given operands by another command",
                "allowed is to make it a stage of its own",
            ));
        }
        if self.has_late_option {
            return Err(Denied::new(
                "has an option behind an operand",
                "where another command fills in operands, the options come first",
            ));
        }
        let place = self.first_operand.unwrap_or(self.written.len());
        self.written.insert(place, "--".to_owned());
        Ok(())
    }

    /// Starting points, then tests, actions and operators, as find reads them.
    fn expression(&mut self) -> Result<(), Denied> {
        let mut depth = 0_usize;
        let mut begun = false;
        while let Some(argument) = self.take() {
            let is_word = argument.len() > 1 && argument.starts_with('-');
            match argument {
                "(" | ")" | "!" | "," => {
                    begun = true;
                    match argument {
                        "(" => depth += 1,
                        ")" => {
                            depth = depth.checked_sub(1).ok_or_else(|| {
                                Denied::new("closes nothing", "allowed is one ) for each (")
                                    .about(argument)
                            })?;
                        }
                        _ => {}
                    }
                    self.written.push(argument.to_owned());
                    self.parts.push(Part::Operator(argument.to_owned()));
                }
                _ if is_word => {
                    let Some(option) = self.grammar.option(argument) else {
                        return Err(self.unknown(argument));
                    };
                    // find -H and its like stand before the starting points and are no part of the expression.
                    begun |= argument.len() > 2
                        || argument.chars().nth(1).is_some_and(char::is_lowercase);
                    self.word(argument, option)?;
                }
                _ if begun => {
                    return Err(Denied::new(
                        "stands where a test or an action must",
                        "starting points come first, then the expression",
                    )
                    .about(argument));
                }
                _ => self.operand(argument),
            }
        }
        if depth > 0 {
            return Err(Denied::new(
                "leaves a ( open",
                "allowed is one ) for each (",
            ));
        }
        Ok(())
    }

    fn word(&mut self, argument: &'a str, option: &'a OptionRule) -> Result<(), Denied> {
        self.written.push(argument.to_owned());
        match &option.takes {
            Takes::Values(kinds) if kinds.iter().any(Kind::is_exec) => {
                self.given.push(option.name());
                self.parts.push(Part::Operator(argument.to_owned()));
                self.exec()
            }
            Takes::Values(kinds) => {
                let values = self.following(option, kinds)?;
                self.note(option, values);
                Ok(())
            }
            Takes::Nothing | Takes::Attached(_) => {
                self.note(option, Vec::new());
                Ok(())
            }
        }
    }

    /// The command of `-exec`, up to `;` or to a `+` behind `{}`.
    fn exec(&mut self) -> Result<(), Denied> {
        let rest = &self.arguments[self.next..];
        let mut end = None;
        for (index, argument) in rest.iter().enumerate() {
            let before = index.checked_sub(1).map(|before| rest[before].as_str());
            match (argument.as_str(), before) {
                (";", _) | ("+", Some(FOUND)) => {
                    end = Some(index);
                    break;
                }
                // Whether find ends here depends on its version.
                ("+", Some(before)) if before.contains(FOUND) => {
                    return Err(Denied::new(
                        "stands before a + and is more than {}",
                        "allowed are {} + and ;",
                    )
                    .about(before));
                }
                _ => {}
            }
        }
        let Some(end) = end else {
            return Err(Denied::new(
                "has no end of its -exec",
                "allowed is a command and its arguments, then ; or {} + as arguments of their own",
            ));
        };
        let mut placeholders = self.surroundings.placeholders.clone();
        placeholders.push(FOUND);
        let surroundings = Surroundings {
            placeholders,
            open: false,
            depth: self.surroundings.depth + 1,
        };
        self.command(&rest[..end], &surroundings)?;
        let last = &rest[end];
        self.written.push(last.clone());
        self.parts.push(Part::Operator(last.clone()));
        self.next += end + 1;
        Ok(())
    }
}

/// The slot of each of so many operands; none where they are too few or too many.
fn fill(slots: &[Slot], count: usize, open: bool) -> Option<Vec<&Slot>> {
    let least: usize = slots.iter().map(|slot| slot.min).sum();
    let mut spare = match count.checked_sub(least) {
        Some(spare) => spare,
        None if open => 0,
        None => return None,
    };
    let mut filled = Vec::with_capacity(count);
    for slot in slots {
        let more = spare.min(slot.max - slot.min);
        spare -= more;
        filled.extend(std::iter::repeat_n(slot, slot.min + more));
    }
    filled.truncate(count);
    (spare == 0).then_some(filled)
}

/// How many slots can take no further operand once so many operands are placed.
fn slots_used(slots: &[Slot], mut operands: usize) -> usize {
    for (index, slot) in slots.iter().enumerate() {
        if slot.max > operands {
            return index;
        }
        operands -= slot.max;
    }
    slots.len()
}
