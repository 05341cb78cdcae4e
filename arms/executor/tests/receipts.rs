//! The verifier of receipts says of the shared vectors what they ask for (`events/corpus/README.md`).

use std::collections::BTreeMap;
use std::fs;

use octollm_events::chain::Message;
use octollm_executor::receipt::{Key, PublicKeys, verify};
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
struct Vectors {
    private_key: String,
    public_key: String,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    keys: Vec<String>,
    messages: Vec<Part>,
    reports: Value,
}

/// A message of the base, or one that is made from it.
#[derive(Deserialize)]
#[serde(untagged)]
enum Part {
    Whole(usize),
    Changed(Change),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    index: usize,
    splice: Option<(usize, usize, String)>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
}

fn read(name: &str) -> String {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../events/corpus/receipt");
    fs::read_to_string(format!("{folder}/{name}")).unwrap()
}

impl Part {
    fn message(&self, base: &[Message]) -> Message {
        match self {
            Self::Whole(index) => base[*index].clone(),
            Self::Changed(change) => {
                let mut message = base[change.index].clone();
                if let Some((from, to, text)) = &change.splice {
                    message.body.splice(*from..*to, text.bytes());
                }
                message.headers.extend(change.headers.clone());
                message
            }
        }
    }
}

#[test]
fn vectors_have_the_reports_that_they_name() {
    let base: Vec<Message> = read("messages.jsonl")
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let vectors: Vectors = serde_json::from_str(&read("cases.json")).unwrap();
    assert!(vectors.cases.len() > 100, "the vectors are there");
    for case in &vectors.cases {
        let keys = PublicKeys::parse(&case.keys.join("\n")).unwrap();
        let messages = case.messages.iter().map(|part| part.message(&base));
        let found = serde_json::to_value(verify(messages, &keys)).unwrap();
        assert_eq!(found, case.reports, "{}", case.name);
    }
}

#[test]
fn the_key_of_the_vectors_is_theirs() {
    let vectors: Vectors = serde_json::from_str(&read("cases.json")).unwrap();
    let mut seed = [0; 32];
    let digits = vectors
        .private_key
        .strip_prefix("ed25519-private/")
        .unwrap();
    hex::decode_to_slice(digits, &mut seed).unwrap();
    assert_eq!(Key::from_seed(&seed).public(), vectors.public_key);
}
