//! Workspaces: from step to step by digest, merged where steps ran at the same time, removed when their task has ended.

use super::*;

const RETENTION: &str = "OCTO_EXECUTOR__WORKSPACE_RETENTION_SECONDS";
const STORED: &str = "octollm_executor_snapshots_total";
const READ: &str = "octollm_executor_snapshots_read_total";
const REMOVED: &str = "octollm_executor_snapshots_removed_total";

fn write(path: &str, text: &str) -> Value {
    json!({"kind": "file", "op": "write", "path": path, "text": text})
}

/// Sleeps, then copies its input into a file.
fn slowly(seconds: &str, path: &str, text: &str) -> Value {
    json!({"kind": "command", "pipeline": [["sleep", seconds], ["echo", text]], "redirect": {"path": path}})
}

async fn running(executor: &ExecutorProcess, steps: f64) {
    eventually("the steps do not run", async || {
        (executor.metric("octollm_executor_steps_running").await == steps).then_some(())
    })
    .await;
}

#[tokio::test]
async fn each_step_starts_where_the_one_before_ended() {
    let world = World::new().await;
    let executor = world.executor().await;
    let mut task = world.task().await;
    let (_, first) = task.run("first", write("d/a", "1"), json!({})).await;
    let change = &first["workspace"];
    assert_eq!(change["before"], json!(Tree::default().digest()));
    let look = command(json!([["cat", "d/a"]]));
    let (_, second) = task.run("look", look, json!({})).await;
    assert_eq!(second["output"]["stdout"]["head"], "1");
    assert_eq!(second["workspace"], Value::Null, "nothing was changed");
    let program = json!({"kind": "command", "pipeline": [["sort", "-o", "d/b", "d/a"]]});
    let (_, third) = task.run("third", program, json!({})).await;
    assert_eq!(third["workspace"]["before"], change["after"]);
    assert_eq!(task.file("d/b").await.unwrap(), "1\n");
    assert_eq!(executor.metric(STORED).await, 2.0);

    // Another executor, or this one after a restart, has only the log and the store.
    executor.stop().await;
    let next = world.executor().await;
    let (_, fourth) = task
        .run("fourth", command(json!([["cat", "d/a", "d/b"]])), json!({}))
        .await;
    assert_eq!(fourth["output"]["stdout"]["head"], "11\n");
    assert_eq!(next.metric(READ).await, 1.0);
}

#[tokio::test]
async fn a_step_that_fails_leaves_no_change() {
    let world = World::new().await;
    let executor = world.executor().await;
    let mut task = world.task().await;
    task.run("first", write("a", "1"), json!({})).await;
    let half = command(json!([["cp", "a", "half"], ["false"]]));
    let (kind, result) = task.run("half", half, json!({})).await;
    assert_eq!(
        (kind.as_str(), &result["workspace"]),
        ("step.failed", &Value::Null)
    );
    let unmet = json!({"acceptance": [{"kind": "file_exists", "path": "nowhere"}]});
    let (kind, _) = task.run("unmet", write("b", "2"), unmet).await;
    assert_eq!(kind, "step.failed");
    let (_, listed) = task.run("list", command(json!([["ls"]])), json!({})).await;
    assert_eq!(listed["output"]["stdout"]["head"], "a\n");
    assert_eq!(executor.metric(STORED).await, 1.0);
}

#[tokio::test]
async fn what_parallel_steps_write_is_merged() {
    let world = World::new().await;
    let executor = world.executor_with(
        &[env!("CARGO_BIN_EXE_octollm-executor")],
        &[("OCTO_EXECUTOR__CONCURRENCY", "6")],
    );
    let executor = executor.await;
    let mut task = world.task().await;
    task.run("first", write("shared/base", "0"), json!({}))
        .await;
    for number in 0..5 {
        let path = format!("shared/{number}");
        task.dispatch(&format!("p{number}"), slowly("1", &path, "x"), json!({}))
            .await;
    }
    running(&executor, 5.0).await;
    for number in 0..5 {
        let (kind, result) = task.result(&format!("p{number}")).await;
        assert_eq!(kind, "step.executed", "{result}");
    }
    let (_, listed) = task
        .run("list", command(json!([["ls", "shared"]])), json!({}))
        .await;
    assert_eq!(listed["output"]["stdout"]["head"], "0\n1\n2\n3\n4\nbase\n");
    // Each result names the one before it: the log is one line of workspaces.
    let events = task.events().await;
    let executed = events.iter().filter(|event| event.kind == "step.executed");
    let changes: Vec<Value> = executed
        .map(|event| serde_json::from_slice::<Value>(&event.body).unwrap()["workspace"].clone())
        .filter(|change| !change.is_null())
        .collect();
    assert_eq!(changes.len(), 6);
    assert!(
        changes
            .windows(2)
            .all(|pair| pair[0]["after"] == pair[1]["before"]),
        "{changes:?}"
    );
}

#[tokio::test]
async fn two_steps_that_change_one_file_conflict_and_the_second_is_told() {
    let world = World::new().await;
    let executor = world.executor().await;
    let mut task = world.task().await;
    task.dispatch("slow", slowly("2", "out.txt", "slow"), json!({}))
        .await;
    running(&executor, 1.0).await;
    let (kind, _) = task
        .run("quick", write("out.txt", "quick"), json!({}))
        .await;
    assert_eq!(kind, "step.executed");
    let (kind, result) = task.result("slow").await;
    assert_eq!(
        (kind.as_str(), &result["code"]),
        ("step.failed", &json!("STEP_FAILED")),
        "{result}"
    );
    let message = result["message"].as_str().unwrap();
    assert!(
        message.contains("out.txt") && message.contains("quick"),
        "{message}"
    );
    assert_eq!(task.file("out.txt").await.unwrap(), "quick");
}

#[tokio::test]
async fn a_store_that_is_away_costs_no_attempt() {
    let world = World::new().await;
    let executor = world.executor().await;
    let mut task = world.task().await;
    task.run("first", write("a", "1"), json!({})).await;
    executor.stop().await;
    // The objects are kept elsewhere while the stream is gone.
    let digest = newest(&task.events().await).unwrap();
    let name = format!("workspace/{}/{digest}", task.id);
    let snapshot = world.object(&name).await.unwrap();
    let jetstream = world.bus.jetstream();
    jetstream.delete_object_store("ARTIFACTS").await.unwrap();
    let next = world.executor().await;
    task.dispatch("look", command(json!([["cat", "a"]])), json!({}))
        .await;
    eventually("the store is not missed", async || {
        let failures = "octollm_executor_handler_failures_total{reason=\"snapshot\"}";
        (next.metric(failures).await >= 1.0).then_some(())
    })
    .await;
    assert!(task.results("look").await.is_empty());
    let config = async_nats::jetstream::object_store::Config {
        bucket: "ARTIFACTS".to_owned(),
        ..Default::default()
    };
    let store = jetstream.create_object_store(config).await.unwrap();
    store.put(name.as_str(), &mut &*snapshot).await.unwrap();
    let (kind, result) = task.result("look").await;
    assert_eq!(
        (kind.as_str(), &result["output"]["stdout"]["head"]),
        ("step.executed", &json!("1"))
    );
}

#[tokio::test]
async fn a_snapshot_that_is_not_what_the_log_says_fails_the_step() {
    let world = World::new().await;
    let executor = world.executor().await;
    let mut task = world.task().await;
    task.run("first", write("a", "1"), json!({})).await;
    executor.stop().await;
    let digest = newest(&task.events().await).unwrap();
    let store = world
        .bus
        .jetstream()
        .get_object_store("ARTIFACTS")
        .await
        .unwrap();
    let name = format!("workspace/{}/{digest}", task.id);
    let other = Tree::default().to_snapshot();
    store.put(name.as_str(), &mut &*other).await.unwrap();
    let _next = world.executor().await;
    let (kind, result) = task
        .run("look", command(json!([["cat", "a"]])), json!({}))
        .await;
    assert_eq!(
        (kind.as_str(), &result["code"]),
        ("step.failed", &json!("INTERNAL_ERROR")),
        "{result}"
    );
    assert!(
        result["message"].as_str().unwrap().contains(&digest),
        "{result}"
    );
}

#[tokio::test]
async fn what_no_workspace_holds_is_named_and_not_handed_on() {
    let world = World::new().await;
    let _executor = world.executor().await;
    let mut task = world.task().await;
    let link = command(json!([["ln", "-s", "/tmp/x", "out"]]));
    let (_, result) = task.run("link", link, json!({})).await;
    assert_eq!(
        result["left_out"],
        json!(["out leads out of the workspace"]),
        "{result}"
    );
    let (_, listed) = task
        .run("list", command(json!([["ls", "-a"]])), json!({}))
        .await;
    assert_eq!(listed["output"]["stdout"]["head"], ".\n..\n");
}

#[tokio::test]
async fn a_full_workspace_is_told_so() {
    let world = World::new().await;
    let _executor = world.executor().await;
    let mut task = world.task().await;
    let limits = json!({"wall_ms": 60000, "memory_bytes": 536_870_912, "output_bytes": 1024});
    // Two files: none of them is larger than a file may be.
    let first = command(json!([["head", "-c", "40000000", "/dev/zero"]]));
    let mut first = first;
    first["redirect"] = json!({"path": "one"});
    let (kind, result) = task
        .run("one", first.clone(), json!({"limits": limits}))
        .await;
    assert_eq!(kind, "step.executed", "{result}");
    first["redirect"] = json!({"path": "two"});
    let (kind, result) = task.run("two", first, json!({"limits": limits})).await;
    assert_eq!(
        (kind.as_str(), &result["code"]),
        ("step.failed", &json!("DISK_LIMIT")),
        "{result}"
    );
    assert!(
        result["message"]
            .as_str()
            .unwrap()
            .contains("/work has no room left"),
        "{result}"
    );
    let (_, listed) = task.run("list", command(json!([["ls"]])), json!({})).await;
    assert_eq!(listed["output"]["stdout"]["head"], "one\n");
}

#[tokio::test]
async fn the_snapshots_of_an_ended_task_are_removed_after_their_time() {
    let world = World::new().await;
    let argv = [env!("CARGO_BIN_EXE_octollm-executor")];
    let executor = world.executor_with(&argv, &[(RETENTION, "1")]).await;
    let (mut ended, mut open) = (world.task().await, world.task().await);
    for task in [&mut ended, &mut open] {
        assert_eq!(
            task.run("write", write("a", "a"), json!({})).await.0,
            "step.executed"
        );
    }
    let asked = Instant::now();
    ended.end("task.completed").await;
    eventually("the snapshot stays", async || {
        ended.file("a").await.is_none().then_some(())
    })
    .await;
    assert!(
        asked.elapsed() >= Duration::from_secs(1),
        "{:?}",
        asked.elapsed()
    );
    assert_eq!(open.file("a").await.unwrap(), "a");
    eventually("it is not counted", async || {
        (executor.metric(REMOVED).await == 1.0).then_some(())
    })
    .await;
    // Nothing of its content is left in the stream.
    let stream = world
        .bus
        .jetstream()
        .get_stream("OBJ_ARTIFACTS")
        .await
        .unwrap();
    let kept: u64 = stream.cached_info().state.bytes;
    assert!(kept < 4096, "{kept} bytes");
}

#[tokio::test]
async fn what_ended_while_no_executor_listened_is_found_in_the_log() {
    let world = World::new().await;
    let executor = world.executor().await;
    let (mut ended, mut open) = (world.task().await, world.task().await);
    for task in [&mut ended, &mut open] {
        assert_eq!(
            task.run("write", write("a", "a"), json!({})).await.0,
            "step.executed"
        );
    }
    executor.stop().await;
    ended.end("task.failed").await;
    assert_eq!(ended.file("a").await.unwrap(), "a");
    let argv = [env!("CARGO_BIN_EXE_octollm-executor")];
    let _next = world.executor_with(&argv, &[(RETENTION, "0")]).await;
    eventually("the snapshot stays", async || {
        ended.file("a").await.is_none().then_some(())
    })
    .await;
    assert_eq!(open.file("a").await.unwrap(), "a");
}
