//! From an outcome to the event that puts it on record: screened, and small enough for the log.

use std::time::Duration;

use octollm_events::carrier::{
    CheckResult, ErrorCode, MachineCriterion, Output, OutputStream, ResourceUsage, StepDispatched,
    StepExecuted, StepFailed, WorkspaceChange,
};
use octollm_events::log::MAX_MESSAGE_BYTES;
use octollm_events::{NewEvent, SchemaViolation};
use octollm_screen::{Placeholders, Role, Ruleset, Strategy, redact, screen};
use uuid::Uuid;

use crate::criterion::Verdict;
use crate::receipt;
use crate::sandbox::{Captured, HEAD_BYTES, StageExit, Usage};
use crate::step::{Failure, Outcome};

/// What the headers of an event may take of its message, bytes.
const HEADER_BYTES: usize = 4096;
/// Characters of a message, of a verdict's detail, of a violation, of an excerpt: as the schemas say.
const MESSAGE_CHARACTERS: usize = 2000;
const DETAIL_CHARACTERS: usize = 500;
const EXCERPT_CHARACTERS: usize = 40_000;
/// Violations in one event.
const VIOLATIONS: usize = 20;
/// Where an excerpt was cut out of a longer output, a value may have been cut in two; up to the nearest blank within
/// this many bytes, the edge is left out, so that no half of a value gets past the screen.
const EDGE_BYTES: usize = 128;

/// The key of a step event: what its decision is about.
#[must_use]
pub fn key(dispatched: &StepDispatched) -> String {
    format!(
        "{}/{}/{}",
        dispatched.plan_version, dispatched.step.id, dispatched.attempt
    )
}

/// The event that tells what became of a step, `step.executed` or `step.failed`, with room for its receipt; `cause` is the
/// dispatch that it answers, `change` what the step has made of the task's workspace.
/// A result that can't be recorded as it is becomes a failure that says so: a step must not run again only because its
/// result does not fit.
///
/// # Errors
/// Even that breaks the schema: a defect of this executor.
pub fn event(
    cause: Uuid,
    dispatched: &StepDispatched,
    outcome: &Outcome,
    change: Option<&WorkspaceChange>,
) -> Result<NewEvent, SchemaViolation> {
    let failure = match fitted(cause, dispatched, outcome, change) {
        Ok(event) if fits(&event) => return Ok(event),
        Ok(_) => Failure::new(
            ErrorCode::OutputLimit,
            "the verdicts are too large for the log; use fewer or shorter criteria",
        ),
        Err(violation) => Failure::new(
            ErrorCode::InternalError,
            format!("the result could not be put on record: {violation}"),
        ),
    };
    with_output(cause, dispatched, &Outcome::refused(failure), None, None)
}

fn fits(event: &NewEvent) -> bool {
    event.body().len() + HEADER_BYTES + receipt::MAX_BYTES <= MAX_MESSAGE_BYTES
}

/// JSON may need six bytes for one; what is too much for a message is taken off the excerpts, which then say so.
fn fitted(
    cause: Uuid,
    dispatched: &StepDispatched,
    outcome: &Outcome,
    change: Option<&WorkspaceChange>,
) -> Result<NewEvent, SchemaViolation> {
    let mut output = outcome.output.as_ref().map(|(stdout, stderr)| Output {
        stdout: excerpt(stdout),
        stderr: excerpt(stderr),
    });
    loop {
        let event = with_output(cause, dispatched, outcome, output.clone(), change)?;
        let is_shorter = output
            .as_mut()
            .is_some_and(|output| shorten(&mut output.stdout) | shorten(&mut output.stderr));
        if fits(&event) || !is_shorter {
            return Ok(event);
        }
    }
}

fn with_output(
    cause: Uuid,
    dispatched: &StepDispatched,
    outcome: &Outcome,
    output: Option<Output>,
    change: Option<&WorkspaceChange>,
) -> Result<NewEvent, SchemaViolation> {
    let checks: Vec<CheckResult> = outcome.verdicts.iter().filter_map(check_result).collect();
    let usage = resource_usage(&outcome.usage);
    let (exit_code, signal) = match outcome.exit {
        Some(StageExit::Code(code)) => (Some(u64::from(code)), None),
        Some(StageExit::Signal(signal)) => (None, Some(u64::from(signal))),
        None => (None, None),
    };
    let key = key(dispatched);
    match &outcome.failure {
        None => {
            let executed = StepExecuted {
                plan_version: dispatched.plan_version,
                step_id: dispatched.step.id.clone(),
                attempt: dispatched.attempt,
                exit_code: exit_code.unwrap_or(0),
                output: output.unwrap_or_else(|| Output {
                    stdout: excerpt(&Captured::empty()),
                    stderr: excerpt(&Captured::empty()),
                }),
                checks,
                denials: (!outcome.denials.is_empty()).then(|| told(&outcome.denials)),
                usage,
                receipt: None,
                workspace: change.cloned(),
                left_out: left_out(outcome),
            };
            NewEvent::new(&executed, cause, key)
        }
        Some(failure) => {
            let failed = StepFailed {
                plan_version: dispatched.plan_version,
                step_id: dispatched.step.id.clone(),
                attempt: dispatched.attempt,
                code: failure.code,
                message: clip(&screened(&failure.message), MESSAGE_CHARACTERS),
                violations: told(&failure.violations),
                checks: (!checks.is_empty()).then_some(checks),
                exit_code,
                output,
                signal,
                usage: Some(usage),
                receipt: None,
            };
            NewEvent::new(&failed, cause, key)
        }
    }
}

/// Violations and denials, as far as there is room.
fn told(texts: &[String]) -> Vec<String> {
    texts
        .iter()
        .take(VIOLATIONS)
        .map(|text| clip(&screened(text), DETAIL_CHARACTERS))
        .collect()
}

fn left_out(outcome: &Outcome) -> Option<Vec<String>> {
    let named = outcome.left_out.named.iter();
    let named: Vec<String> = named
        .map(|text| clip(&screened(text), DETAIL_CHARACTERS))
        .collect();
    (!named.is_empty()).then_some(named)
}

fn check_result(verdict: &Verdict) -> Option<CheckResult> {
    let criterion = serde_json::to_value(&verdict.criterion).ok()?;
    Some(CheckResult {
        criterion: serde_json::from_value::<MachineCriterion>(criterion).ok()?,
        passed: verdict.passed,
        detail: clip(&screened(&verdict.detail), DETAIL_CHARACTERS),
    })
}

fn resource_usage(usage: &Usage) -> ResourceUsage {
    let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    ResourceUsage {
        duration_ms: milliseconds(usage.duration),
        cpu_ms: milliseconds(usage.cpu),
        memory_peak_bytes: usage.memory_peak_bytes,
    }
}

/// Screens what a program wrote. An output that was kept whole is screened in one piece, so that nothing slips
/// through between head and tail.
fn excerpt(captured: &Captured) -> OutputStream {
    let (head, tail, lossy);
    if captured.is_truncated() {
        let (first, first_lossy) = decode(before_gap(&captured.head));
        let (last, last_lossy) = decode(after_gap(&captured.tail));
        (head, tail, lossy) = (screened(&first), screened(&last), first_lossy || last_lossy);
    } else {
        let (text, is_lossy) = decode(&[captured.head.as_slice(), &captured.tail].concat());
        let mut text = screened(&text);
        let rest = text.split_off(text.floor_char_boundary(HEAD_BYTES));
        (head, tail, lossy) = (text, rest, is_lossy);
    }
    let fits = |text: &str| text.chars().count() <= EXCERPT_CHARACTERS;
    let truncated = captured.is_truncated() || !fits(&head) || !fits(&tail);
    let surplus = tail.chars().count().saturating_sub(EXCERPT_CHARACTERS);
    OutputStream {
        head: head.chars().take(EXCERPT_CHARACTERS).collect(),
        tail: tail.chars().skip(surplus).collect(),
        bytes: captured.bytes,
        digest: captured.digest.clone(),
        truncated,
        lossy,
    }
}

/// Halves head and tail, from the middle of the output; false when nothing is left to take.
fn shorten(stream: &mut OutputStream) -> bool {
    if stream.head.is_empty() && stream.tail.is_empty() {
        return false;
    }
    stream
        .head
        .truncate(stream.head.floor_char_boundary(stream.head.len() / 2));
    let keep_from = stream
        .tail
        .ceil_char_boundary(stream.tail.len().div_ceil(2));
    stream.tail.drain(..keep_from);
    stream.truncated = true;
    true
}

/// Text with U+FFFD for what is not UTF-8, and for NUL, which is UTF-8 but which databases refuse as text.
fn decode(bytes: &[u8]) -> (String, bool) {
    let text = String::from_utf8_lossy(bytes).replace('\0', "\u{FFFD}");
    let lossy = text.as_bytes() != bytes;
    (text, lossy)
}

/// The head without its last, perhaps halved, word or character.
fn before_gap(head: &[u8]) -> &[u8] {
    let edge = &head[head.len().saturating_sub(EDGE_BYTES)..];
    match edge.iter().rposition(u8::is_ascii_whitespace) {
        Some(blank) => &head[..head.len() - edge.len() + blank + 1],
        None => match std::str::from_utf8(head) {
            Err(error) if error.error_len().is_none() => &head[..error.valid_up_to()],
            _ => head,
        },
    }
}

/// The tail without its first, perhaps halved, word or character.
fn after_gap(tail: &[u8]) -> &[u8] {
    let edge = &tail[..tail.len().min(EDGE_BYTES)];
    let is_continuation = |byte: &&u8| (**byte & 0b1100_0000) == 0b1000_0000;
    match edge.iter().position(u8::is_ascii_whitespace) {
        Some(blank) => &tail[blank..],
        None => &tail[tail.iter().take(3).take_while(is_continuation).count()..],
    }
}

fn screened(text: &str) -> String {
    let screening = screen(text, Role::Output, Ruleset::builtin());
    redact(
        text,
        &screening,
        Strategy::Mask,
        &mut Placeholders::default(),
    )
}

fn clip(text: &str, characters: usize) -> String {
    match text.char_indices().nth(characters - 1) {
        Some((last, _)) if text[last..].chars().nth(1).is_some() => format!("{}…", &text[..last]),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::{Value, json};

    use super::*;
    use crate::criterion::{Criterion, Evidence, Facts, Target};
    use crate::workspace::WorkspacePath;

    fn captured(output: &[u8]) -> Captured {
        let head = output[..output.len().min(HEAD_BYTES)].to_vec();
        let rest = &output[head.len()..];
        let tail = rest[rest.len().saturating_sub(crate::sandbox::TAIL_BYTES)..].to_vec();
        Captured {
            head,
            tail,
            bytes: output.len() as u64,
            digest: "0".repeat(64),
        }
    }

    #[test]
    fn personal_data_is_masked_wherever_it_stands() {
        let across = format!(
            "{}ada@example.org{}",
            "x ".repeat(HEAD_BYTES / 2 - 4),
            " y".repeat(100)
        );
        for output in ["mail ada@example.org now", &across] {
            let stream = excerpt(&captured(output.as_bytes()));
            let text = format!("{}{}", stream.head, stream.tail);
            assert!(
                text.contains("[EMAIL]") && !text.contains("ada@") && !text.contains("example.org")
            );
            assert!(!stream.truncated && !stream.lossy);
        }
    }

    #[test]
    fn no_half_value_stands_at_a_cut() {
        let mut output = "a ".repeat(HEAD_BYTES / 2 - 4).into_bytes();
        output.extend(b"ada@example.org ");
        output.extend(b"b ".repeat(40_000));
        let stream = excerpt(&captured(&output));
        assert!(
            stream.truncated && stream.head.ends_with(' ') && !stream.head.contains("ada"),
            "{}",
            stream.head
        );
    }

    #[test]
    fn what_is_not_text_is_marked() {
        for (output, text, lossy) in [
            ("grün\n".as_bytes(), "grün\n", false),
            (b"a\xFFb", "a\u{FFFD}b", true),
            (b"a\0b", "a\u{FFFD}b", true),
            ("a\u{FFFD}".as_bytes(), "a\u{FFFD}", false),
        ] {
            let stream = excerpt(&captured(output));
            assert_eq!(
                (stream.head.as_str(), stream.lossy),
                (text, lossy),
                "{output:?}"
            );
        }
    }

    #[test]
    fn a_character_that_the_cut_halves_is_not_called_lossy() {
        let output = "ü".repeat(40_000);
        let stream = excerpt(&captured(&[b"x", output.as_bytes()].concat()));
        assert!(stream.truncated && !stream.lossy);
        assert!(stream.head.ends_with('ü') && stream.tail.starts_with('ü'));
    }

    #[test]
    fn an_excerpt_shrinks_from_the_middle() {
        let mut stream = excerpt(&captured(
            &[b"H".repeat(HEAD_BYTES), b"T".repeat(100)].concat(),
        ));
        stream.tail.push('!');
        assert!(shorten(&mut stream));
        assert!(
            stream.head.len() == HEAD_BYTES / 2 && stream.tail.ends_with('!') && stream.truncated
        );
        while shorten(&mut stream) {}
        assert!(stream.head.is_empty() && stream.tail.is_empty());
    }

    #[test]
    fn a_result_that_is_too_large_becomes_a_failure() {
        let criterion = json!({"kind": "equals", "text": "\u{1}".repeat(4000)});
        let verdict = Criterion::deserialize(&criterion).unwrap().check(&Nothing);
        let mut outcome = Outcome::refused(Failure::new(ErrorCode::StepFailed, "not met"));
        outcome.verdicts = vec![verdict; 12];
        let body = recorded(&outcome);
        assert_eq!(
            (&body["code"], &body["checks"]),
            (&json!("OUTPUT_LIMIT"), &Value::Null),
            "{body}"
        );
        outcome.verdicts.truncate(2);
        assert_eq!(recorded(&outcome)["checks"].as_array().unwrap().len(), 2);
    }

    #[test]
    fn excerpts_give_way_before_the_verdicts_do() {
        let mut outcome = Outcome::refused(Failure::new(ErrorCode::StepFailed, "not met"));
        let flood = captured(&b"\x01".repeat(100_000));
        outcome.output = Some((flood.clone(), flood));
        let body = recorded(&outcome);
        let head = body["output"]["stdout"]["head"].as_str().unwrap();
        assert!(
            !head.is_empty() && head.len() < HEAD_BYTES,
            "{} characters",
            head.len()
        );
        assert_eq!(body["output"]["stdout"]["bytes"], 100_000);
    }

    struct Nothing;

    impl Facts for Nothing {
        fn evidence(&self, _: &Target) -> Result<Evidence, String> {
            Ok(Evidence::Whole(Vec::new()))
        }

        fn exit_code(&self) -> Option<u8> {
            None
        }

        fn exists(&self, _: &WorkspacePath) -> bool {
            false
        }
    }

    /// The payload that the outcome becomes in answer to the schema's own example of a dispatch.
    fn recorded(outcome: &Outcome) -> Value {
        let schema = include_str!("../../../events/schemas/step.dispatched/v1.json");
        let schema: Value = serde_json::from_str(schema).unwrap();
        let dispatched = serde_json::from_value(schema["examples"][0].clone()).unwrap();
        let answer = event(Uuid::nil(), &dispatched, outcome, None).unwrap();
        assert!(answer.body().len() < MAX_MESSAGE_BYTES);
        serde_json::from_slice(answer.body()).unwrap()
    }

    #[test]
    fn long_texts_are_clipped_to_the_schema() {
        assert_eq!(clip("abc", 3), "abc");
        assert_eq!(clip("abcd", 3), "ab…");
        assert_eq!(clip("", 3), "");
    }
}
