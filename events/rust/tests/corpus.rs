//! The golden corpus (`events/corpus/README.md`): what was ever valid stays readable, and what is refused is refused
//! at the same place as by the Python side.

use async_nats::HeaderMap;
use octollm_events::carrier::*;
use octollm_events::schema::{self, Fact};
use octollm_events::{Event, Payload};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fmt::Debug;
use std::fs;
use std::path::{Path, PathBuf};
use time::OffsetDateTime;

const TASK: &str = "3f2b8c1e-5d5b-4c0a-9a58-0d6e3a1f7b21";

fn events(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

fn files(folder: &str) -> Vec<PathBuf> {
    let folder = events(&format!("corpus/{folder}"));
    let entries = fs::read_dir(&folder).unwrap_or_else(|_| panic!("{} is there", folder.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "{} is empty", folder.display());
    paths
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// Valid payloads come back as they were, invalid ones are refused at their place.
fn message<T: Payload + Debug + PartialEq>() {
    for path in files(&format!("{}/v{}", T::KIND, T::VERSION)) {
        let decoded: T = schema::decode(&fs::read(&path).unwrap())
            .unwrap_or_else(|violation| panic!("{}: {violation}", path.display()));
        let encoded = schema::encode(&decoded).unwrap();
        let again: Value = serde_json::from_slice(&encoded).unwrap();
        assert_eq!(again, read(&path), "{}", path.display());
        assert_eq!(schema::decode::<T>(&encoded).unwrap(), decoded);
    }
    for path in files(&format!("invalid/{}", T::KIND)) {
        let case = read(&path);
        if case["type"] == format!("octollm.{}.v{}", T::KIND, T::VERSION) {
            let violation = schema::decode::<T>(&body(&case)).expect_err(&path.to_string_lossy());
            let places: BTreeSet<_> = violation.errors.into_iter().map(|(at, _)| at).collect();
            let wanted: BTreeSet<String> =
                serde_json::from_value(case["pointers"].clone()).unwrap();
            assert_eq!(places, wanted, "{}", path.display());
        }
    }
}

/// The same of what the log holds: valid events decode, invalid ones and those of an unknown version do not.
fn fact<T: Fact + Debug + PartialEq>() {
    message::<T>();
    let known = format!("octollm.{}.v{}", T::KIND, T::VERSION);
    for path in files(&format!("{}/v{}", T::KIND, T::VERSION)) {
        let body = fs::read(&path).unwrap();
        let event = stored(T::KIND, &known, &body);
        assert_eq!(event.decode::<T>().unwrap(), schema::decode(&body).unwrap());
    }
    for path in files(&format!("invalid/{}", T::KIND)) {
        let case = read(&path);
        let event = stored(T::KIND, case["type"].as_str().unwrap(), &body(&case));
        let undecodable = event.decode::<T>().expect_err(&path.to_string_lossy());
        assert!(undecodable.to_string().contains(TASK), "{undecodable}");
    }
}

fn body(case: &Value) -> Vec<u8> {
    match case["body"].as_str() {
        Some(text) => text.as_bytes().to_vec(),
        None => case["payload"].to_string().into_bytes(),
    }
}

/// The payload as the log would hold it.
fn stored(kind: &str, event_type: &str, body: &[u8]) -> Event {
    let none = "0".repeat(64);
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("ce-specversion", "1.0"),
        ("ce-id", "7aa7db2c-4038-5a50-a63e-ab4717720f56"),
        ("ce-type", event_type),
        ("ce-source", "/octollm/test"),
        ("ce-time", "2026-11-22T12:00:00.000Z"),
        ("ce-subject", TASK),
        ("ce-causationid", TASK),
        ("ce-taskversion", "1"),
        ("ce-prevhash", none.as_str()),
    ] {
        headers.insert(name, value);
    }
    let subject = format!("{kind}.{TASK}");
    let body = body.to_vec().into();
    Event::parse(&subject, &headers, body, 1, OffsetDateTime::UNIX_EPOCH).unwrap()
}

/// A test for each kind, and the list of them.
macro_rules! kinds {
    ($($check:ident $name:ident $carrier:ty;)*) => {
        $(
            #[test]
            fn $name() {
                $check::<$carrier>();
            }
        )*

        fn tested() -> BTreeSet<(String, u32)> {
            [$((<$carrier>::KIND.to_owned(), <$carrier>::VERSION)),*].into()
        }
    };
}

kinds! {
    fact plan_failed PlanFailed;
    fact plan_requested PlanRequested;
    fact step_dispatched StepDispatched;
    fact step_executed StepExecuted;
    fact step_failed StepFailed;
    message task_approve TaskApprove;
    message task_cancel TaskCancel;
    fact task_cancel_requested TaskCancelRequested;
    fact task_cancelled TaskCancelled;
    fact task_completed TaskCompleted;
    fact task_failed TaskFailed;
    fact task_planned TaskPlanned;
    fact task_received TaskReceived;
    fact task_rejected TaskRejected;
    message task_resume TaskResume;
    message task_submit TaskSubmit;
}

/// A number in a payload's free part is read and written as the nearest double, as every other language does.
#[test]
fn numbers_keep_their_value() {
    let path = events("corpus/task.submit/v1/full.json");
    let submitted: TaskSubmit = schema::decode(&fs::read(path).unwrap()).unwrap();
    let encoded: Value = serde_json::from_slice(&schema::encode(&submitted).unwrap()).unwrap();
    let values = encoded["context"]["values"].as_array().unwrap();
    for number in [0.30000000000000004, f64::MAX, 5e-324, 1.5e300, 1e-7] {
        assert!(
            values.iter().any(|it| it.as_f64() == Some(number)),
            "{number}"
        );
    }
    assert!(values.contains(&Value::from(u64::MAX)));
    assert!(values.contains(&Value::from(i64::MIN)));
}

/// `(kind, version)` of every `<root>/<kind>/v<version>`.
fn versions(root: &str) -> BTreeSet<(String, u32)> {
    let mut found = BTreeSet::new();
    for folder in fs::read_dir(events(root)).unwrap() {
        let folder = folder.unwrap();
        let kind = folder.file_name().into_string().unwrap();
        if !kind.contains('.') || !folder.path().is_dir() {
            continue;
        }
        for version in fs::read_dir(folder.path()).unwrap() {
            let name = version.unwrap().file_name().into_string().unwrap();
            let number = name.trim_start_matches('v').trim_end_matches(".json");
            found.insert((kind.clone(), number.parse().unwrap()));
        }
    }
    found
}

#[test]
fn every_version_of_every_schema_is_in_the_corpus_and_tested() {
    assert_eq!(versions("corpus"), versions("schemas"));
    assert_eq!(tested(), versions("schemas"));
}
