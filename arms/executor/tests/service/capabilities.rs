//! What no capability covers is not run: each attack of a writer of dispatches that is not the orchestrator, or of one
//! that changes what it dispatched.

use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE;
use biscuit_auth::macros::block;
use biscuit_auth::{Biscuit, KeyPair, PublicKey};

use super::*;

fn write(path: &str) -> Value {
    json!({"kind": "file", "op": "write", "path": path, "text": "x"})
}

/// A block that somebody without the key has put behind a good token.
fn appended(token: &str) -> String {
    let key: PublicKey = grant::public_key().parse().unwrap();
    let token = Biscuit::from_base64(token, key).unwrap();
    let wider = block!(r#"step("other"); limit("wall_ms", 300000);"#);
    token.append(wider).unwrap().to_base64().unwrap()
}

fn third_party(token: &str) -> String {
    let key: PublicKey = grant::public_key().parse().unwrap();
    let token = Biscuit::from_base64(token, key).unwrap();
    let stranger = KeyPair::new();
    let request = token.third_party_request().unwrap();
    let block = request.create_block(&stranger.private(), block!(r#"step("other");"#));
    let token = token.append_third_party(stranger.public(), block.unwrap());
    token.unwrap().to_base64().unwrap()
}

fn flipped(token: &str) -> String {
    let mut bytes = URL_SAFE.decode(token).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    URL_SAFE.encode(bytes)
}

#[tokio::test]
async fn nothing_is_started_without_a_grant_for_it() {
    let world = World::new().await;
    let executor = world.executor().await;
    let mut task = world.task().await;
    let (id, another) = (task.id, Uuid::new_v4());
    let asked = |name: &str| step(name, write(name), json!({"effect": "idempotent"}));
    let good = |step: &Value| Grant::new("executor", id, step);
    let long = json!({"wall_ms": 300_000, "memory_bytes": 268_435_456, "output_bytes": 1_048_576});
    let other_step = step("granted", write("granted"), json!({"effect": "idempotent"}));
    let past = SystemTime::now() - Duration::from_secs(1);
    // (name, property at fault, the step that is granted if not the one asked for, token from the grant)
    type Forge = Box<dyn Fn(Grant) -> String>;
    let attacks: Vec<(&str, &str, Forge)> = vec![
        (
            "forged",
            "signature",
            Box::new(|grant| grant.sign_with(&KeyPair::new())),
        ),
        (
            "tampered",
            "signature",
            Box::new(|grant| flipped(&grant.sign())),
        ),
        ("garbage", "form", Box::new(|_| "A".repeat(400))),
        (
            "cut",
            "form",
            Box::new(|grant| grant.sign()[..400].to_owned()),
        ),
        (
            "appended",
            "attenuation",
            Box::new(|grant| appended(&grant.sign())),
        ),
        (
            "third-party",
            "attenuation",
            Box::new(|grant| third_party(&grant.sign())),
        ),
        (
            "expired",
            "expiry",
            Box::new(move |grant| {
                Grant {
                    expiry: past,
                    ..grant
                }
                .sign()
            }),
        ),
        (
            "from-http",
            "audience",
            Box::new(|grant| {
                Grant {
                    audience: "executor/execute".to_owned(),
                    ..grant
                }
                .sign()
            }),
        ),
        (
            "other-task",
            "task",
            Box::new(move |grant| {
                Grant {
                    task: another,
                    ..grant
                }
                .sign()
            }),
        ),
        (
            "other-plan",
            "plan",
            Box::new(|grant| Grant { plan: 2, ..grant }.sign()),
        ),
        (
            "other-attempt",
            "attempt",
            Box::new(|grant| {
                Grant {
                    attempt: 2,
                    ..grant
                }
                .sign()
            }),
        ),
        (
            "other-step",
            "step, action",
            Box::new(move |grant| {
                Grant {
                    step: other_step.clone(),
                    ..grant
                }
                .sign()
            }),
        ),
        (
            "changed-action",
            "action",
            Box::new(|mut grant| {
                grant.step["action"]["text"] = json!("y");
                grant.sign()
            }),
        ),
        (
            "other-effect",
            "effect",
            Box::new(|mut grant| {
                grant.step["effect"] = json!("pure");
                grant.sign()
            }),
        ),
    ];
    for (name, property, forge) in attacks {
        let step = asked(name);
        task.dispatch_with(&step, &forge(good(&step))).await;
        refused(&task, name, property).await;
    }
    let raised = step("raised", write("raised"), json!({"limits": long}));
    let token = good(&step("raised", write("raised"), json!({}))).sign();
    task.dispatch_with(&raised, &token).await;
    refused(&task, "raised", "limit wall_ms").await;

    assert_eq!(
        executor.metric("octollm_executor_snapshots_total").await,
        0.0,
        "something was run"
    );
    assert!(
        executor
            .metric("octollm_executor_results_total{result=\"CAPABILITY_VIOLATION\"}")
            .await
            >= 15.0
    );
    // And the executor still serves who asks rightly.
    assert_eq!(
        task.run("right", write("right"), json!({})).await.0,
        "step.executed"
    );
}

async fn refused(task: &Task<'_>, name: &str, property: &str) {
    let (kind, result) = task.result(name).await;
    assert_eq!(
        (kind.as_str(), &result["code"]),
        ("step.failed", &json!("CAPABILITY_VIOLATION")),
        "{name}"
    );
    let message = result["message"].as_str().unwrap();
    assert!(
        message.contains(&format!("grant this: {property} does not fit")),
        "{name}: {message}"
    );
    let violations: Vec<Value> = property
        .split(", ")
        .map(|property| json!(format!("capability: {property}")))
        .collect();
    assert_eq!(result["violations"], json!(violations), "{name}");
    assert_eq!(result["output"], Value::Null, "{name}");
}

/// The same dispatch once more, as another event: its id follows from another cause.
async fn copy(task: &mut Task<'_>, id: &str) {
    let events = task.events().await;
    let original = events
        .iter()
        .find(|event| {
            event.kind == "step.dispatched"
                && event.body.windows(id.len()).any(|w| w == id.as_bytes())
        })
        .unwrap();
    let payload: Value = serde_json::from_slice(&original.body).unwrap();
    let event = NewEvent::from_json("step.dispatched", &payload, Uuid::new_v4(), "copy").unwrap();
    let end = events.last().unwrap().position();
    task.end = task.world.log.append(task.id, &event, &end).await.unwrap();
}

#[tokio::test]
async fn a_dispatch_that_was_copied_is_not_run_again() {
    let world = World::new().await;
    let executor = world.executor().await;
    let mut task = world.task().await;
    let append = json!({"kind": "command", "pipeline": [["echo", "ran"]],
                        "redirect": {"path": "runs", "append": true}});
    assert_eq!(
        task.run("once", append.clone(), json!({})).await.0,
        "step.executed"
    );
    copy(&mut task, "once").await;
    let results = eventually("the copy has no result", async || {
        let results = task.results("once").await;
        (results.len() == 2).then_some(results)
    })
    .await;
    assert_eq!(results[1].1["code"], "REPLAYED", "{:?}", results[1]);

    // The next process knows it from the log.
    executor.stop().await;
    let _next = world.executor().await;
    copy(&mut task, "once").await;
    let results = eventually("the copy has no result", async || {
        let results = task.results("once").await;
        (results.len() == 3).then_some(results)
    })
    .await;
    assert_eq!(results[2].1["code"], "REPLAYED");
    assert_eq!(task.file("runs").await.unwrap(), "ran\n");
}

#[tokio::test]
async fn an_executor_without_a_key_does_not_start() {
    let world = World::new().await;
    for (file, complaint) in [
        (None, "OCTO_EXECUTOR__CAPABILITY_PUBLIC_KEY_FILE"),
        (Some("nowhere"), "can't be read"),
        (Some("capability.pub"), "no Ed25519 public key"),
    ] {
        std::fs::write(world.home.path().join("capability.pub"), "ed25519/00").unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_octollm-executor"));
        command.env_clear().current_dir(world.home.path());
        if let Some(file) = file {
            command.env("OCTO_EXECUTOR__CAPABILITY_PUBLIC_KEY_FILE", file);
        }
        let output = command.output().unwrap();
        let log = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(1), "{log}");
        assert!(log.contains(complaint), "{log}");
    }
}
