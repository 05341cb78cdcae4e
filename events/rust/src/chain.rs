//! Does what is stored hold together? Checks the hash chain of each task over exported messages (`events/README.md`).
//!
//! Pure and incremental: a log of any size passes through in bounded memory per task. `octollm.events.chain` gives
//! the same report on the same messages. The chain carries no signature: a cut tail, a changed last event, and a chain
//! that somebody wrote anew from some event on can't be seen.

mod diagnosis;

use crate::envelope::{EventHash, TERMINAL};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use diagnosis::Diagnosis;
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroU64;

/// Events of one task that are compared with one another. The intact beginning of a longer chain is forgotten but for
/// its end; of a broken chain, what comes beyond is counted and not examined.
pub const EXAMINED: usize = 1024;

/// An ended or long chain keeps its last event and the one before: whoever forks it follows one of them.
const KEPT: usize = 2;
const FIRST: [&str; 2] = ["task.received", "task.rejected"];
const REQUIRED: [&str; 9] = [
    "ce-specversion",
    "ce-id",
    "ce-type",
    "ce-source",
    "ce-time",
    "ce-subject",
    "ce-causationid",
    "ce-taskversion",
    "ce-prevhash",
];

/// One stored message, a line of an export.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Message {
    /// Stream sequence, from 1.
    #[serde(deserialize_with = "from_one")]
    pub seq: u64,
    /// Its subject.
    pub subject: String,
    /// Its headers.
    pub headers: BTreeMap<String, String>,
    /// Its body; base64 in an export.
    #[serde(deserialize_with = "from_base64")]
    pub body: Vec<u8>,
    /// The broker's time, RFC 3339.
    pub stored_at: String,
}

fn from_one<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    NonZeroU64::deserialize(deserializer).map(NonZeroU64::get)
}

fn from_base64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text = String::deserialize(deserializer)?;
    STANDARD.decode(text).map_err(serde::de::Error::custom)
}

/// What is wrong with an event. The witness of a finding is the event named in brackets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Code {
    /// It is not what was written [the event that follows it and names another hash].
    Changed,
    /// Its envelope is none: a header is missing or has the wrong form.
    Unreadable,
    /// Events before it were removed [the last event before the gap].
    Missing,
    /// It does not belong here, though it names an event of the chain [the event that takes its place].
    Inserted,
    /// It is stored before the event that it follows [that event], or its sequence does not rise [the one before].
    Reordered,
    /// It belongs to another chain: it names another task or an event that is not in this one.
    Foreign,
    /// It follows the event before it, but its version does not [that event].
    WrongVersion,
    /// It is the first, but no beginning.
    BrokenStart,
    /// It comes after a terminal event [that event].
    AfterEnd,
}

/// What is wrong with one event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Its stream sequence.
    pub seq: u64,
    /// The version that it says; `None` where that is no number.
    pub version: Option<u64>,
    /// What is wrong.
    pub code: Code,
    /// Stream sequence of the event that shows it.
    pub witness: Option<u64>,
    /// More about it.
    pub detail: String,
}

/// A task's last message: compare it with a record kept elsewhere, for nothing in the chain vouches for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Last {
    /// Its stream sequence.
    pub seq: u64,
    /// The version that it says.
    pub version: Option<u64>,
    /// Its hash, hex.
    pub hash: String,
}

/// One task's chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TaskReport {
    /// The last token of the messages' subjects.
    pub task_id: String,
    /// How many messages there are.
    pub events: u64,
    /// Nothing is wrong.
    pub intact: bool,
    /// The last event is terminal.
    pub ended: bool,
    /// The last message.
    pub last: Last,
    /// What is wrong, in stored order.
    pub findings: Vec<Finding>,
    /// Events of a broken chain beyond [`EXAMINED`].
    pub unexamined: u64,
}

/// Every task in the order of its first message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Nothing is wrong with any task.
    pub intact: bool,
    /// How many messages there are.
    pub events: u64,
    /// The tasks.
    pub tasks: Vec<TaskReport>,
}

/// Checks every task among the messages, which are in the order in which they are stored.
pub fn verify(messages: impl IntoIterator<Item = Message>) -> Report {
    let mut chains: Vec<Chain> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    for message in messages {
        let task_id = message.subject.rsplit('.').next().unwrap_or_default();
        let place = places.get(task_id).copied().unwrap_or_else(|| {
            places.insert(task_id.to_owned(), chains.len());
            chains.push(Chain::new(task_id));
            chains.len() - 1
        });
        chains[place].take(&message);
    }
    let tasks: Vec<_> = chains.iter().map(Chain::report).collect();
    Report {
        intact: tasks.iter().all(|task| task.intact),
        events: tasks.iter().map(|task| task.events).sum(),
        tasks,
    }
}

/// One task's chain, taken message by message.
#[derive(Clone, Debug)]
pub struct Chain {
    task_id: String,
    links: Vec<Link>,
    last: Link,
    intact: bool,
    events: u64,
    unexamined: u64,
}

impl Chain {
    /// Of a task that has no message yet.
    pub fn new(task_id: &str) -> Self {
        Self {
            task_id: task_id.to_owned(),
            links: vec![Link::start()],
            last: Link::start(),
            intact: true,
            events: 0,
            unexamined: 0,
        }
    }

    /// The next message whose subject ends in the task's id.
    pub fn take(&mut self, message: &Message) {
        let link = Link::of(&self.task_id, message);
        self.intact = self.intact && link.follows(&self.last);
        self.last = link.clone();
        self.events += 1;
        if self.links.len() > EXAMINED && !self.intact {
            self.unexamined += 1;
            return;
        }
        let terminal = link.terminal;
        self.links.push(link);
        if self.intact && (terminal || self.links.len() > EXAMINED) {
            self.links.drain(..self.links.len() - KEPT);
        }
    }

    /// What holds so far.
    pub fn report(&self) -> TaskReport {
        let findings = if self.intact {
            Vec::new()
        } else {
            Diagnosis::of(&self.links)
        };
        TaskReport {
            task_id: self.task_id.clone(),
            events: self.events,
            intact: self.intact,
            ended: self.last.terminal,
            last: Last {
                seq: self.last.seq,
                version: self.last.version,
                hash: self.last.hash.to_string(),
            },
            findings,
            unexamined: self.unexamined,
        }
    }
}

/// What the chain needs of a message. `prev` and `version` are `None` where the envelope doesn't say.
#[derive(Clone, Debug)]
struct Link {
    seq: u64,
    version: Option<u64>,
    prev: Option<EventHash>,
    hash: EventHash,
    begins: bool,
    terminal: bool,
    stranger: bool,
    unreadable: Option<String>,
}

impl Link {
    /// What stands before a task's first event.
    fn start() -> Self {
        Self {
            seq: 0,
            version: Some(0),
            prev: None,
            hash: EventHash::NONE,
            begins: false,
            terminal: false,
            stranger: false,
            unreadable: None,
        }
    }

    fn of(task_id: &str, message: &Message) -> Self {
        let header = |name: &str| message.headers.get(name).map(String::as_str);
        let kind = message
            .subject
            .rsplit_once('.')
            .map_or("", |(kind, _)| kind);
        Self {
            seq: message.seq,
            version: header("ce-taskversion").and_then(number),
            prev: header("ce-prevhash").and_then(hash),
            hash: EventHash::of(&message.subject, &message.headers, &message.body),
            begins: FIRST.contains(&kind),
            terminal: TERMINAL.contains(&kind),
            stranger: header("ce-subject").is_some_and(|id| id != task_id),
            unreadable: unreadable(&message.subject, &message.headers),
        }
    }

    fn is_start(&self) -> bool {
        self.seq == 0
    }

    /// The version that follows this one.
    fn next_version(&self) -> u64 {
        self.version.unwrap_or(0) + 1
    }

    /// All is as it should be from `before`, which is, to this one.
    fn follows(&self, before: &Self) -> bool {
        self.prev == Some(before.hash)
            && self.version == Some(before.next_version())
            && self.seq > before.seq
            && self.unreadable.is_none()
            && !(self.stranger || before.terminal)
            && (!before.is_start() || self.begins)
    }
}

/// Why the envelope can't be read.
fn unreadable(subject: &str, headers: &BTreeMap<String, String>) -> Option<String> {
    if let Some(name) = REQUIRED.iter().find(|name| !headers.contains_key(**name)) {
        return Some(format!("header {name} is missing"));
    }
    let tokens: Vec<_> = subject.split('.').collect();
    let [entity, fact, task] = tokens[..] else {
        return Some("the subject is not <entity>.<fact>.<task id>".to_owned());
    };
    if entity.is_empty() || fact.is_empty() || task.is_empty() {
        return Some("the subject is not <entity>.<fact>.<task id>".to_owned());
    }
    let schema_version = headers["ce-type"].strip_prefix(&format!("octollm.{entity}.{fact}.v"));
    let wrong = if headers["ce-specversion"] != "1.0" {
        "ce-specversion is not 1.0"
    } else if schema_version.and_then(number).is_none() {
        "ce-type does not fit the subject"
    } else if number(&headers["ce-taskversion"]).is_none() {
        "ce-taskversion is no version"
    } else if hash(&headers["ce-prevhash"]).is_none() {
        "ce-prevhash is no hash"
    } else {
        return None;
    };
    Some(wrong.to_owned())
}

/// A positive number of at most 18 digits in its one decimal form.
fn number(text: &str) -> Option<u64> {
    let canonical = (1..=18).contains(&text.len())
        && !text.starts_with('0')
        && text.bytes().all(|byte| byte.is_ascii_digit());
    canonical.then(|| text.parse().ok()).flatten()
}

/// 64 hex digits in lower case.
fn hash(text: &str) -> Option<EventHash> {
    let lower = text.bytes().all(|byte| !byte.is_ascii_uppercase());
    lower.then(|| text.parse().ok()).flatten()
}
