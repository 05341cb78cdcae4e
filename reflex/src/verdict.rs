//! Screening a whole submission: every free text, one set of placeholders, one verdict.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use octollm_events::carrier::{
    self, Criterion, FindingSeverity, PlanDraft, Redaction, Verdict, VerdictDecision,
};
use octollm_screen::{
    Decision, Placeholders, Role, Ruleset, Screening, Severity, Strategy, redact, screen,
    screen_member,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::contract::{Submission, Violations};

/// Most findings and redactions that a verdict lists (schema `record`).
const MAX_FINDINGS: usize = 64;
const MAX_REDACTIONS: usize = 256;

/// Longest JSON pointer on record, characters.
const MAX_POINTER: usize = 2000;

/// Fields of steps and criteria that name something of ours; their form leaves no room for a placeholder.
const NAMES: [&str; 8] = [
    "id",
    "arm",
    "effect",
    "kind",
    "op",
    "mode",
    "step",
    "depends_on",
];

/// A submission without personal data, and what the screen said of it.
#[derive(Clone, Debug)]
pub struct Screened {
    /// Placeholders stand in the place of values. Files are data and stay as they are.
    pub submission: Submission,
    /// Types and places, never values. The places of a key's values and of its own text share one pointer.
    pub verdict: Verdict,
}

/// Screens every free text of `submission` and redacts it.
///
/// # Errors
///
/// Personal data where no placeholder can stand: in the id of a step, or in two keys that become one.
pub fn screen_submission(
    submission: Submission,
    ruleset: &Ruleset,
) -> Result<Screened, Violations> {
    let mut screener = Screener::new(ruleset);
    screener
        .placeholders
        .reserve(&serde_json::to_string(&submission).expect("a submission is JSON"));
    let mut submission = submission;
    submission.goal = screener.at("goal", |it| it.text(Role::Goal, &submission.goal));
    submission.constraints = screener.at("constraints", |it| {
        let texts = submission.constraints.iter().enumerate();
        texts
            .map(|(index, text)| it.at(&index.to_string(), |it| it.text(Role::Constraint, text)))
            .collect()
    });
    submission.context = screener.at("context", |it| {
        it.members(Role::Context, submission.context)
    });
    submission.metadata = screener.at("metadata", |it| {
        it.members(Role::Metadata, submission.metadata)
    });
    submission.acceptance_criteria = screener.at("acceptance_criteria", |it| {
        let criteria = submission.acceptance_criteria.into_iter().enumerate();
        criteria
            .map(|(index, criterion)| it.at(&index.to_string(), |it| it.criterion(criterion)))
            .collect()
    });
    submission.plan = submission
        .plan
        .map(|plan: PlanDraft| screener.at("plan", |it| it.carried(plan)));
    let verdict = screener.finish()?;
    Ok(Screened {
        submission,
        verdict,
    })
}

/// A single text without its personal data, for notes; None where it must be refused.
pub fn screen_note(text: &str, ruleset: &Ruleset) -> Option<String> {
    let screening = screen(text, Role::Note, ruleset);
    let allowed = screening.decision != Decision::Block;
    allowed.then(|| {
        redact(
            text,
            &screening,
            Strategy::Token,
            &mut Placeholders::default(),
        )
    })
}

struct Screener<'r> {
    ruleset: &'r Ruleset,
    placeholders: Placeholders,
    /// JSON pointer of the field at hand, its keys redacted.
    pointer: String,
    decision: Decision,
    score: u16,
    findings: Vec<carrier::Finding>,
    redactions: Vec<Redaction>,
    truncated: bool,
    violations: Violations,
}

impl<'r> Screener<'r> {
    fn new(ruleset: &'r Ruleset) -> Self {
        Self {
            ruleset,
            placeholders: Placeholders::default(),
            pointer: String::new(),
            decision: Decision::Allow,
            score: 0,
            findings: Vec::new(),
            redactions: Vec::new(),
            truncated: false,
            violations: Violations::default(),
        }
    }

    /// Does `work` one level deeper in the document.
    fn at<T>(&mut self, name: &str, work: impl FnOnce(&mut Self) -> T) -> T {
        let length = self.pointer.len();
        self.pointer.push('/');
        self.pointer
            .push_str(&name.replace('~', "~0").replace('/', "~1"));
        let result = work(self);
        self.pointer.truncate(length);
        result
    }

    fn text(&mut self, role: Role, text: &str) -> String {
        let screening = screen(text, role, self.ruleset);
        self.take(text, &screening)
    }

    fn member_text(&mut self, role: Role, key: &str, text: &str) -> String {
        let screening = screen_member(key, text, role, self.ruleset);
        self.take(text, &screening)
    }

    /// Puts a screening on record and gives the redacted text.
    fn take(&mut self, text: &str, screening: &Screening) -> String {
        self.decision = self.decision.max(screening.decision);
        self.score = self.score.max(screening.score);
        self.truncated |= screening.truncated;
        for found in &screening.findings {
            if self.findings.len() == MAX_FINDINGS {
                self.truncated = true;
                break;
            }
            self.findings.push(carrier::Finding {
                field: self.field(),
                family: found.family.as_str().to_owned(),
                rule: found.rule.clone(),
                severity: severity(found.severity),
                start: found.place.start as u64,
                end: found.place.end as u64,
            });
        }
        let placeholders = self.placeholders.for_spans(text, screening);
        for (span, placeholder) in screening.spans.iter().zip(placeholders) {
            if self.redactions.len() == MAX_REDACTIONS {
                self.truncated = true;
                break;
            }
            self.redactions.push(Redaction {
                field: self.field(),
                r#type: span.kind.clone(),
                placeholder,
                start: span.place.start as u64,
                end: span.place.end as u64,
            });
        }
        redact(text, screening, Strategy::Token, &mut self.placeholders)
    }

    fn field(&self) -> String {
        self.pointer.chars().take(MAX_POINTER).collect()
    }

    /// Free JSON: keys and values are texts, and a number may be a card's.
    fn members(&mut self, role: Role, members: Map<String, Value>) -> Map<String, Value> {
        let mut clean = Map::new();
        for (key, value) in members {
            let screening = screen(&key, role, self.ruleset);
            let name = redact(&key, &screening, Strategy::Token, &mut self.placeholders);
            let value = self.at(&name, |it| {
                it.take(&key, &screening);
                it.value(role, &key, value)
            });
            if clean.insert(name, value).is_some() {
                let field = self.field();
                self.violations.add(
                    field,
                    "must not have keys that differ only in how they write personal data",
                );
            }
        }
        clean
    }

    fn value(&mut self, role: Role, key: &str, value: Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.member_text(role, key, &text)),
            Value::Number(number) => {
                let text = number.to_string();
                let clean = self.member_text(role, key, &text);
                if clean == text {
                    Value::Number(number)
                } else {
                    Value::String(clean)
                }
            }
            Value::Array(items) => {
                let items = items.into_iter().enumerate();
                items
                    .map(|(index, item)| {
                        self.at(&index.to_string(), |it| it.value(role, key, item))
                    })
                    .collect()
            }
            Value::Object(members) => Value::Object(self.members(role, members)),
            other @ (Value::Null | Value::Bool(_)) => other,
        }
    }

    fn criterion(&mut self, criterion: Criterion) -> Criterion {
        match criterion {
            Criterion::Text(text) => Criterion::Text(self.text(Role::Criterion, &text)),
            Criterion::Machine(machine) => Criterion::Machine(self.carried(machine)),
        }
    }

    /// A typed part of the contract, by way of its JSON: redaction changes texts and leaves the form.
    fn carried<T: Serialize + DeserializeOwned>(&mut self, part: T) -> T {
        let document = serde_json::to_value(part).expect("a carried part is JSON");
        let clean = self.form(document);
        serde_json::from_value(clean).expect("redaction keeps the form")
    }

    /// JSON whose keys are ours.
    fn form(&mut self, value: Value) -> Value {
        match value {
            Value::Object(members) => {
                let fields = members.into_iter().map(|(key, value)| {
                    let value = self.at(&key, |it| it.field_value(&key, value));
                    (key, value)
                });
                Value::Object(fields.collect())
            }
            Value::Array(items) => {
                let items = items.into_iter().enumerate();
                items
                    .map(|(index, item)| self.at(&index.to_string(), |it| it.form(item)))
                    .collect()
            }
            // Arguments of a program; what they do is the executor's policy to judge.
            Value::String(text) => Value::String(self.text(Role::Context, &text)),
            other => other,
        }
    }

    fn field_value(&mut self, key: &str, value: Value) -> Value {
        match (key, value) {
            ("equals", value) => self.value(Role::Context, key, value),
            ("title", Value::String(text)) => Value::String(self.text(Role::Plan, &text)),
            ("base64", Value::String(text)) => Value::String(self.encoded(text)),
            (name, value) if NAMES.contains(&name) => {
                self.name(&value);
                value
            }
            (_, value) => self.form(value),
        }
    }

    /// Text in base64 is text; other bytes are data that no rule reads.
    fn encoded(&mut self, base64: String) -> String {
        let Some(text) = STANDARD
            .decode(&base64)
            .ok()
            .and_then(|bytes| String::from_utf8(bytes).ok())
        else {
            return base64;
        };
        let clean = self.text(Role::Context, &text);
        if clean == text {
            base64
        } else {
            STANDARD.encode(clean)
        }
    }

    fn name(&mut self, value: &Value) {
        let texts: &[Value] = value
            .as_array()
            .map_or(std::slice::from_ref(value), Vec::as_slice);
        for text in texts.iter().filter_map(Value::as_str) {
            if !screen(text, Role::Context, self.ruleset).spans.is_empty() {
                let field = self.field();
                self.violations.add(field, "must not hold personal data");
            }
        }
    }

    fn finish(self) -> Result<Verdict, Violations> {
        self.violations.into_result()?;
        Ok(Verdict {
            ruleset: carrier::Ruleset {
                version: self.ruleset.version().to_owned(),
                digest: self.ruleset.digest().to_owned(),
            },
            decision: match self.decision {
                Decision::Allow => VerdictDecision::Allow,
                Decision::Flag => VerdictDecision::Flag,
                Decision::Block => VerdictDecision::Block,
            },
            score: u64::from(self.score),
            findings: self.findings,
            redactions: self.redactions,
            truncated: self.truncated,
        })
    }
}

const fn severity(severity: Severity) -> FindingSeverity {
    match severity {
        Severity::Low => FindingSeverity::Low,
        Severity::Medium => FindingSeverity::Medium,
        Severity::High => FindingSeverity::High,
        Severity::Critical => FindingSeverity::Critical,
    }
}

#[cfg(test)]
mod tests;
