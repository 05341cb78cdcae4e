//! What a screening says.

use serde::{Deserialize, Serialize};

/// Most spans in one screening. From the one too many on, the rest of the text is a single [`UNSCREENED`] span.
pub const MAX_SPANS: usize = 1024;

/// Most findings in one screening; the gravest are kept.
pub const MAX_FINDINGS: usize = 64;

/// Type of a span over text that could not be screened within the limits: it is redacted like any other, so
/// that a limit never leaves a value in place.
pub const UNSCREENED: &str = "UNSCREENED";

/// What a text is to the system, which says how far its words can reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The goal of a task: instructions, obeyed.
    Goal,
    /// A constraint of a task: obeyed.
    Constraint,
    /// An acceptance criterion: obeyed.
    Criterion,
    /// The caller's own plan: obeyed.
    Plan,
    /// A note of a person on a task: obeyed.
    Note,
    /// A key or value of a task's context: data that models read.
    Context,
    /// A key or value of a task's metadata: data for the caller's own use.
    Metadata,
    /// What a program or a model wrote: data on something that has happened, so it is never refused.
    Output,
}

/// The families of prompt injection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    /// Cancels or replaces the instructions that were given.
    InstructionOverride,
    /// Declares the model something that has no limits.
    RoleChange,
    /// Asks for the instructions themselves.
    PromptExtraction,
    /// Well-known personas and games that lift the limits.
    PersonaJailbreak,
    /// Imitates the markup that separates instructions from data.
    DelimiterForgery,
    /// Sends secrets or the conversation elsewhere.
    Exfiltration,
    /// What the trained model takes for an attack; it says where, not which.
    Learned,
}

impl Family {
    /// The name in data and events.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InstructionOverride => "instruction_override",
            Self::RoleChange => "role_change",
            Self::PromptExtraction => "prompt_extraction",
            Self::PersonaJailbreak => "persona_jailbreak",
            Self::DelimiterForgery => "delimiter_forgery",
            Self::Exfiltration => "exfiltration",
            Self::Learned => "learned",
        }
    }
}

/// How grave a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Common in honest text too.
    Low,
    /// Suspicious.
    Medium,
    /// Hardly ever honest.
    High,
    /// Never honest.
    Critical,
}

impl Severity {
    /// The name in data and events.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}

/// What to do with the text, from mild to strict.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// Take it.
    #[default]
    Allow,
    /// Take it and say so on record.
    Flag,
    /// Refuse it.
    Block,
}

impl Decision {
    /// The name in data and events.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Flag => "flag",
            Self::Block => "block",
        }
    }
}

/// Where something stands in the original text. Both pairs are half-open and name the same stretch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Place {
    /// First byte of the UTF-8 text, from 0.
    pub byte_start: usize,
    /// One past the last byte.
    pub byte_end: usize,
    /// First code point, from 0.
    pub start: usize,
    /// One past the last code point.
    pub end: usize,
}

impl Place {
    /// The part of this place that lies after a prefix, counted from the end of the prefix.
    pub(crate) fn after(self, bytes: usize, points: usize) -> Option<Self> {
        (self.byte_end > bytes).then(|| Self {
            byte_start: self.byte_start.saturating_sub(bytes),
            byte_end: self.byte_end - bytes,
            start: self.start.saturating_sub(points),
            end: self.end - points,
        })
    }
}

/// Personal data in the text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// Kind of value, e.g. `EMAIL`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Where it stands.
    #[serde(flatten)]
    pub place: Place,
    /// Rule that found it.
    pub rule: String,
    /// How sure the rule is, in thousandths.
    pub confidence: u16,
}

/// A sign of prompt injection in the text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Family of the attack.
    pub family: Family,
    /// Rule that matched.
    pub rule: String,
    /// How grave it is.
    pub severity: Severity,
    /// Where it stands.
    #[serde(flatten)]
    pub place: Place,
}

/// All that the screen says of one text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Screening {
    /// Personal data: ordered, never overlapping, at most [`MAX_SPANS`].
    pub spans: Vec<Span>,
    /// Signs of injection, ordered by place and rule, at most [`MAX_FINDINGS`]; they may overlap.
    pub findings: Vec<Finding>,
    /// How likely an injection is by rules and model, in thousandths: higher is likelier; `decision` says what it means.
    pub score: u16,
    /// What to do with the text.
    pub decision: Decision,
    /// A limit was met: there is more than is listed.
    pub truncated: bool,
}
