//! Lines of texts: read within a bound, screened in parallel, written in their order.

use std::io::{self, BufRead, BufReader, Read, Write};

use octollm_screen::{Decision, Role, Ruleset, Screening, Strategy, screen};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::report::redacted;
use super::{Arguments, ScreenError, Task};

/// A text to screen and what it is called.
#[derive(Deserialize)]
pub struct Document {
    #[serde(default)]
    pub id: Value,
    pub text: String,
    #[serde(default)]
    pub role: Option<Role>,
}

/// What is written of a document.
#[derive(Serialize)]
struct Prediction<'a> {
    id: &'a Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    spans: Option<Vec<Span<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    score: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    flag: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    redacted: Option<String>,
}

#[derive(Serialize)]
struct Span<'a> {
    start: usize,
    end: usize,
    #[serde(rename = "type")]
    kind: &'a str,
    rule: &'a str,
    confidence: f64,
}

pub fn run(
    arguments: &Arguments,
    rules: &Ruleset,
    strategy: Option<Strategy>,
    out: &mut impl Write,
) -> Result<(), ScreenError> {
    let role = arguments.role();
    let predict = |_: usize, line: &[u8]| {
        let document = parsed(line)?;
        let screening = screen(&document.text, document.role.unwrap_or(role), rules);
        Ok(prediction(&document, &screening, arguments.task, strategy))
    };
    each(arguments, &predict, out)
}

/// The document of a JSON line. The message names no value.
pub fn parsed(line: &[u8]) -> Result<Document, String> {
    serde_json::from_slice(line).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => {
            "is no object {\"id\", \"text\": string, \"role\"?}".to_owned()
        }
        _ => format!("is no JSON, from column {}", error.column()),
    })
}

fn prediction(
    document: &Document,
    screening: &Screening,
    task: Task,
    strategy: Option<Strategy>,
) -> Vec<u8> {
    let spans = || {
        let spans = screening.spans.iter().map(|span| Span {
            start: span.place.start,
            end: span.place.end,
            kind: &span.kind,
            rule: &span.rule,
            confidence: f64::from(span.confidence) / 1000.0,
        });
        spans.collect()
    };
    let (pii, injection) = (task != Task::Injection, task != Task::Pii);
    let prediction = Prediction {
        id: &document.id,
        spans: pii.then(spans),
        score: injection.then(|| f64::from(screening.score) / 1000.0),
        flag: injection.then_some(screening.decision != Decision::Allow),
        redacted: strategy.map(|strategy| redacted(&document.text, screening, strategy)),
    };
    serde_json::to_vec(&prediction).expect("a prediction is representable as JSON")
}

/// One line of the input.
enum Line {
    Whole(Vec<u8>),
    /// Its end was not kept.
    TooLong,
}

/// Writes what `answer` says of each line (its number from 1 and its bytes) that is not blank, in the order of the
/// lines; nothing for an empty answer. Lines that are too long or that it can't answer are told on standard error, and how many there were.
///
/// As many lines are worked on together as one read gives, so that a slow writer gets its answers at once.
pub fn each<A>(arguments: &Arguments, answer: &A, out: &mut impl Write) -> Result<(), ScreenError>
where
    A: Fn(usize, &[u8]) -> Result<Vec<u8>, String> + Sync,
{
    let mut input = arguments.input()?;
    let jobs = arguments.jobs();
    let (mut number, mut refused) = (1, 0_usize);
    loop {
        let batch =
            batch(&mut input, arguments.max_bytes).map_err(|error| arguments.input_error(error))?;
        if batch.is_empty() {
            break;
        }
        for (answer, number) in answers(&batch, number, jobs, arguments.max_bytes, answer)
            .into_iter()
            .zip(number..)
        {
            match answer {
                Some(Ok(line)) if line.is_empty() => {}
                Some(Ok(line)) => {
                    out.write_all(&line)?;
                    out.write_all(b"\n")?;
                }
                Some(Err(reason)) => {
                    refused += 1;
                    eprintln!("octo screen: line {number} {reason}");
                }
                None => {}
            }
        }
        out.flush()?;
        number += batch.len();
    }
    if refused > 0 {
        eprintln!(
            "octo screen: {refused} of {} lines were not screened",
            number - 1
        );
    }
    Ok(())
}

type Answer = Option<Result<Vec<u8>, String>>;

fn answers<A>(
    batch: &[Line],
    first: usize,
    jobs: usize,
    max_bytes: usize,
    answer: &A,
) -> Vec<Answer>
where
    A: Fn(usize, &[u8]) -> Result<Vec<u8>, String> + Sync,
{
    let one = |line: &Line, number: usize| match line {
        Line::Whole(bytes) if bytes.iter().all(u8::is_ascii_whitespace) => None,
        Line::Whole(bytes) => Some(answer(number, bytes)),
        Line::TooLong => Some(Err(format!("is longer than {max_bytes} bytes"))),
    };
    let size = batch.len().div_ceil(jobs);
    let parts = batch.chunks(size).zip((first..).step_by(size));
    std::thread::scope(|scope| {
        let workers: Vec<_> = parts
            .map(|(part, first)| {
                scope.spawn(move || -> Vec<Answer> {
                    part.iter()
                        .zip(first..)
                        .map(|(line, number)| one(line, number))
                        .collect()
                })
            })
            .collect();
        let answers = workers.into_iter().flat_map(|worker| match worker.join() {
            Ok(answers) => answers,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        answers.collect()
    })
}

/// The next line, however long it takes to come, and those that were read along with it.
fn batch(input: &mut BufReader<impl Read>, max_bytes: usize) -> io::Result<Vec<Line>> {
    let mut lines = Vec::new();
    while lines.is_empty() || input.buffer().contains(&b'\n') {
        let Some(line) = next(input, max_bytes)? else {
            break;
        };
        lines.push(line);
    }
    Ok(lines)
}

fn next(input: &mut BufReader<impl Read>, max_bytes: usize) -> io::Result<Option<Line>> {
    let mut line = Vec::new();
    let read = input
        .by_ref()
        .take(max_bytes as u64 + 1)
        .read_until(b'\n', &mut line)?;
    if read == 0 {
        return Ok(None);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
    } else if line.len() > max_bytes {
        input.skip_until(b'\n')?;
        return Ok(Some(Line::TooLong));
    }
    Ok(Some(Line::Whole(line)))
}
