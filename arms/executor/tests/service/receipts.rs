//! Receipts: every attempt has one, whatever became of it, and a change of any of it is found.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use octollm_events::chain::Message;
use octollm_executor::receipt::{Code, PublicKeys, TaskReport, verify};

use super::*;

impl World {
    fn keys(&self) -> PublicKeys {
        let keys = std::fs::read_to_string(self.home.path().join("receipt.pub")).unwrap();
        PublicKeys::parse(&keys).unwrap()
    }
}

impl Task<'_> {
    /// The task's events as an export has them.
    async fn messages(&self) -> Vec<Message> {
        let events = self.events().await.into_iter();
        let line = |event: Event| {
            json!({
                "seq": event.seq, "subject": event.subject, "headers": event.headers,
                "body": STANDARD.encode(&event.body), "stored_at": "",
            })
        };
        events
            .map(|event| serde_json::from_value(line(event)).unwrap())
            .collect()
    }

    async fn verified(&self) -> TaskReport {
        let mut reports = verify(self.messages().await, &self.world.keys());
        assert_eq!(reports.len(), 1);
        reports.remove(0)
    }
}

/// What the receipt of a result says, and the result's kind and code.
fn predicate(result: &(String, Value)) -> Value {
    let payload = result.1["receipt"]["payload"].as_str().unwrap();
    let statement: Value = serde_json::from_slice(&STANDARD.decode(payload).unwrap()).unwrap();
    assert_eq!(statement["_type"], "https://in-toto.io/Statement/v1");
    statement["predicate"].clone()
}

#[tokio::test]
async fn every_outcome_has_its_receipt() {
    let world = World::new().await;
    let _executor = world.executor().await;
    let mut task = world.task().await;
    let ran = task
        .run(
            "ran",
            json!({"kind": "command", "pipeline": [["cat"], ["sort", "-r"]], "stdin": "a\nb\n"}),
            json!({}),
        )
        .await;
    let receipt = predicate(&ran);
    assert_eq!(receipt["result"]["started"], true);
    assert_eq!(receipt["result"]["exit_code"], 0);
    assert_eq!(receipt["command"]["argv"], json!([["cat"], ["sort", "-r"]]));
    assert_eq!(
        receipt["command"]["environment"],
        json!(["PATH", "HOME", "LANG", "TMPDIR"])
    );
    assert_eq!(receipt["inputs"]["stdin"]["bytes"], 4);
    assert_eq!(
        receipt["outputs"]["stdout"]["digest"],
        ran.1["output"]["stdout"]["digest"]
    );
    assert_eq!(receipt["sandbox"]["degraded_allowed"], false);
    let layers = receipt["sandbox"]["layers"].as_array().unwrap();
    assert!(layers.contains(&json!("network_namespace")), "{layers:?}");
    assert_eq!(receipt["limits"]["wall_ms"], 30000);
    assert!(receipt["limits"]["processes"].as_u64().unwrap() > 0);
    assert_eq!(receipt["policy"]["bypassed"], false);
    assert_eq!(receipt["previous"], Value::Null);

    let late =
        json!({"limits": {"wall_ms": 300, "memory_bytes": 268_435_456, "output_bytes": 1024}});
    let file = json!({"kind": "file", "op": "write", "path": "a", "text": "x"});
    let check = json!({"kind": "check", "criteria": [{"kind": "file_exists", "path": "a"}]});
    for (id, action, fields, code, started) in [
        ("file", file, json!({}), Value::Null, true),
        ("check", check, json!({}), Value::Null, true),
        (
            "denied",
            command(json!([["curl", "x"]])),
            json!({}),
            json!("POLICY_DENIED"),
            false,
        ),
        (
            "failed",
            command(json!([["false"]])),
            json!({}),
            json!("STEP_FAILED"),
            true,
        ),
        (
            "slow",
            command(json!([["sleep", "60"]])),
            late.clone(),
            json!("TIMEOUT"),
            true,
        ),
        (
            "flood",
            command(json!([["seq", "100000"]])),
            late,
            json!("OUTPUT_LIMIT"),
            true,
        ),
    ] {
        let result = task.run(id, action, fields).await;
        let receipt = predicate(&result);
        assert_eq!(result.1["code"], code, "{id}");
        assert_eq!(receipt["result"]["code"], code, "{id}");
        assert_eq!(receipt["result"]["started"], started, "{id}");
        assert_eq!(
            receipt["violations"].is_array(),
            !result.1["violations"].as_array().is_none_or(Vec::is_empty),
            "{id}"
        );
        assert!(receipt["previous"].is_string(), "{id}");
    }
    let step = step("forged", command(json!([["true"]])), json!({}));
    task.dispatch_with(&step, &"A".repeat(400)).await;
    let refused = task.result("forged").await;
    assert_eq!(refused.1["code"], "CAPABILITY_VIOLATION");
    assert_eq!(predicate(&refused)["result"]["started"], false);
    assert_eq!(
        predicate(&refused)["command"],
        Value::Null,
        "nothing was even prepared"
    );

    let report = task.verified().await;
    assert_eq!((report.results, report.verified), (8, 8), "{report:?}");
}

#[tokio::test]
async fn receipts_of_parallel_steps_and_of_several_executors_form_one_chain() {
    let world = World::new().await;
    let (one, two) = tokio::join!(world.executor(), world.executor());
    let mut task = world.task().await;
    for round in 0..3 {
        for place in 0..4 {
            let id = format!("s{round}{place}");
            task.dispatch(&id, command(json!([["true"]])), json!({}))
                .await;
        }
        for place in 0..4 {
            task.result(&format!("s{round}{place}")).await;
        }
    }
    let report = task.verified().await;
    assert_eq!((report.results, report.verified), (12, 12), "{report:?}");
    drop((one, two));
    // One that remembers nothing goes on with the chain.
    let _three = world.executor().await;
    task.run("after", command(json!([["true"]])), json!({}))
        .await;
    let report = task.verified().await;
    assert_eq!((report.results, report.verified), (13, 13), "{report:?}");
}

#[tokio::test]
async fn whatever_is_changed_removed_or_exchanged_is_found() {
    let world = World::new().await;
    let _executor = world.executor().await;
    let mut task = world.task().await;
    for id in ["one", "two", "three"] {
        task.run(id, command(json!([["echo", id]])), json!({}))
            .await;
    }
    let messages = task.messages().await;
    let keys = world.keys();
    let results: Vec<usize> = (0..messages.len())
        .filter(|&at| messages[at].subject.starts_with("step.executed"))
        .collect();
    let codes = |messages: Vec<Message>| -> Vec<Code> {
        let reports = verify(messages, &keys);
        let findings = reports.into_iter().flat_map(|report| report.findings);
        findings.map(|finding| finding.code).collect()
    };
    assert_eq!(codes(messages.clone()), []);

    let at = results[1];
    for place in (0..messages[at].body.len()).step_by(23) {
        let mut changed = messages.clone();
        changed[at].body[place] ^= 1;
        assert!(!codes(changed).is_empty(), "byte {place}");
    }
    let mut spaced = messages.clone();
    spaced[at].body.insert(1, b' ');
    assert_eq!(codes(spaced), [Code::Altered]);

    let mut removed = messages.clone();
    removed.remove(at);
    assert_eq!(codes(removed), [Code::BrokenChain]);

    let mut swapped = messages.clone();
    let body = swapped[results[0]].body.clone();
    swapped[results[0]].body = std::mem::replace(&mut swapped[at].body, body);
    let found = codes(swapped);
    assert!(
        found
            .iter()
            .filter(|&&code| code == Code::BrokenChain)
            .count()
            >= 1
            || found.contains(&Code::OtherDispatch),
        "{found:?}"
    );

    let strangers = PublicKeys::parse(&Key::from_seed(&[7; 32]).public()).unwrap();
    let reports = verify(messages, &strangers);
    assert!(
        reports[0]
            .findings
            .iter()
            .all(|finding| finding.code == Code::UnknownKey)
    );
    assert_eq!(reports[0].verified, 0);
}

#[tokio::test]
async fn what_a_degraded_executor_ran_says_so() {
    let world = World::new().await;
    let binary = env!("CARGO_BIN_EXE_octollm-executor");
    let _executor = world
        .executor_with(&[binary], &[("OCTO_EXECUTOR__SANDBOX_DEGRADED", "true")])
        .await;
    let mut task = world.task().await;
    let result = task
        .run("step", command(json!([["true"]])), json!({}))
        .await;
    let sandbox = &predicate(&result)["sandbox"];
    assert_eq!(sandbox["degraded_allowed"], true);
    assert_eq!(
        sandbox["gaps"]
            .as_array()
            .unwrap()
            .contains(&json!("seccomp")),
        !sandbox["layers"]
            .as_array()
            .unwrap()
            .contains(&json!("seccomp"))
    );
}

#[tokio::test]
async fn an_executor_without_a_key_to_sign_with_does_not_start() {
    let world = World::new().await;
    let home = world.home.path();
    for (file, complaint) in [
        (None, "OCTO_EXECUTOR__RECEIPT_KEY_FILE"),
        (Some("nowhere"), "can't be read"),
        (Some("receipt.pub"), "may be read by others"),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_octollm-executor"));
        command.env_clear().current_dir(home).env(
            "OCTO_EXECUTOR__CAPABILITY_PUBLIC_KEY_FILE",
            "capability.pub",
        );
        if let Some(file) = file {
            command.env("OCTO_EXECUTOR__RECEIPT_KEY_FILE", file);
        }
        let output = command.output().unwrap();
        let log = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(1), "{log}");
        assert!(log.contains(complaint), "{log}");
    }
}
