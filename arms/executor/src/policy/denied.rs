//! A request that the policy does not allow, in words that help to write one that it does.

use std::fmt;

/// Characters of an argument that a message repeats, at most.
const QUOTED: usize = 80;
/// Characters of what would be allowed, at most.
const ALLOWED: usize = 600;

/// What was denied, and what would be allowed. The code is `POLICY_DENIED`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denied {
    /// Stage of the pipeline, from 1; none where it is not about one.
    pub stage: Option<usize>,
    /// The command, outermost first: `xargs`, then what it was to run.
    pub command: Vec<String>,
    /// The argument that it is about.
    pub argument: Option<String>,
    /// The rule that was broken.
    pub rule: String,
    /// What would be allowed.
    pub allowed: String,
}

impl Denied {
    pub(super) fn new(rule: impl Into<String>, allowed: impl Into<String>) -> Self {
        Self {
            stage: None,
            command: Vec::new(),
            argument: None,
            rule: rule.into(),
            allowed: allowed.into(),
        }
    }

    /// Says which argument it is about, unless that is known better.
    pub(super) fn about(mut self, argument: &str) -> Self {
        self.argument.get_or_insert_with(|| argument.to_owned());
        self
    }

    /// Says which command's arguments these are.
    pub(super) fn of(mut self, command: &str) -> Self {
        self.command.insert(0, command.to_owned());
        self
    }

    pub(super) fn at(mut self, stage: usize) -> Self {
        self.stage = Some(stage);
        self
    }
}

impl fmt::Display for Denied {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(stage) = self.stage {
            write!(formatter, "stage {stage}")?;
            formatter.write_str(if self.command.is_empty() { ": " } else { ", " })?;
        }
        if !self.command.is_empty() {
            write!(formatter, "{}: ", self.command.join(" > "))?;
        }
        if let Some(argument) = &self.argument {
            write!(formatter, "{:?} ", shortened(argument, QUOTED))?;
        }
        write!(formatter, "{}; ", self.rule)?;
        formatter.write_str(&shortened(&self.allowed, ALLOWED))
    }
}

impl std::error::Error for Denied {}

/// The text, or as much of it as fits and an ellipsis.
pub(super) fn shortened(text: &str, characters: usize) -> String {
    match text.char_indices().nth(characters) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}
