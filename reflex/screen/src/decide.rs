//! From findings to a decision.

use crate::screening::{Decision, Family, Finding, Role, Severity};

/// Score of the findings and what to do with a text of this role.
///
/// The score is `1 - (1 - chance) Π(1 - weight)`, `chance` being the model's and the product over the rules that found
/// something, each counted once, in thousandths and integer arithmetic: more signs raise it, none lowers it.
/// What the model finds grave enough is a finding like any other.
///
/// | gravest finding | obeyed text (goal, constraint, criterion, plan, note) | data (context, metadata) | output |
/// |---|---|---|---|
/// | critical | block | block | flag |
/// | high | block | flag | flag |
/// | medium | flag | flag | flag |
/// | low | allow | allow | allow |
///
/// Data is not obeyed by design, and honest data quotes attacks (a log, a mail to classify); output is about what
/// has happened, so refusing it would lose the record.
pub(crate) fn decide(findings: &[Finding], chance: u16, role: Role) -> (u16, Decision) {
    let mut rules: Vec<(&str, Severity)> = findings
        .iter()
        .filter(|found| found.family != Family::Learned)
        .map(|found| (found.rule.as_str(), found.severity))
        .collect();
    rules.sort_unstable();
    rules.dedup();
    let innocence = rules
        .iter()
        .fold(1000 - u32::from(chance), |rest, (_, severity)| {
            rest * (1000 - weight(*severity)) / 1000
        });
    let score = u16::try_from(1000 - innocence).unwrap_or(1000);
    let gravest = findings.iter().map(|found| found.severity).max();
    (
        score,
        gravest.map_or(Decision::Allow, |severity| verdict(severity, role)),
    )
}

const fn weight(severity: Severity) -> u32 {
    match severity {
        Severity::Low => 150,
        Severity::Medium => 500,
        Severity::High => 800,
        Severity::Critical => 950,
    }
}

const fn verdict(gravest: Severity, role: Role) -> Decision {
    match (gravest, role) {
        (Severity::Low, _) => Decision::Allow,
        (Severity::Medium, _) | (_, Role::Output) => Decision::Flag,
        (Severity::High, Role::Context | Role::Metadata) => Decision::Flag,
        (Severity::High | Severity::Critical, _) => Decision::Block,
    }
}
