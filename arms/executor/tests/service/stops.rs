//! Cancels, late results, probes, and the end of the executor itself.

use super::*;

use futures::StreamExt;

async fn running(executor: &ExecutorProcess, marker: &str) {
    eventually("the step does not run", async || {
        (alive(marker) > 0).then_some(())
    })
    .await;
    assert_eq!(executor.metric("octollm_executor_steps_running").await, 1.0);
}

#[tokio::test]
async fn a_cancel_reaches_a_running_step_within_two_seconds() {
    let world = World::new().await;
    let executor = world.executor().await;
    let mut task = world.task().await;
    let marker = marker();
    task.dispatch("nap", command(json!([["sleep", marker]])), json!({}))
        .await;
    running(&executor, &marker).await;
    let asked = Instant::now();
    task.append(
        "task.cancel_requested",
        &json!({"requested_by": "local"}),
        "",
    )
    .await;
    let (kind, result) = task.result("nap").await;
    assert!(
        asked.elapsed() < Duration::from_secs(2),
        "took {:?}",
        asked.elapsed()
    );
    assert_eq!(
        (kind.as_str(), &result["code"]),
        ("step.failed", &json!("CANCELLED"))
    );
    assert_eq!(alive(&marker), 0);
    assert_eq!(executor.metric("octollm_executor_cancels_total").await, 1.0);
}

#[tokio::test]
async fn what_was_cancelled_before_the_executor_came_is_not_run() {
    let world = World::new().await;
    let (mut cancelled, mut settled) = (world.task().await, world.task().await);
    let write = json!({"kind": "file", "op": "write", "path": "effect", "text": "x"});
    cancelled.dispatch("write", write.clone(), json!({})).await;
    cancelled
        .append(
            "task.cancel_requested",
            &json!({"requested_by": "local"}),
            "",
        )
        .await;
    settled.dispatch("write", write, json!({})).await;
    let given_up = json!({"plan_version": 1, "step_id": "write", "attempt": 1, "code": "ARM_UNAVAILABLE",
                          "message": "no answer", "violations": []});
    settled.append("step.failed", &given_up, "1/write/1").await;
    let last = settled.events().await.pop().unwrap();
    eventually("time stands still", async || {
        (time::OffsetDateTime::now_utc() - last.stored_at > Duration::from_secs(1)).then_some(())
    })
    .await;

    let executor = world.executor().await;
    let (_, result) = cancelled.result("write").await;
    assert_eq!(result["code"], "CANCELLED");
    eventually("the settled dispatch was not delivered", async || {
        (executor
            .metric("octollm_executor_delivery_seconds_count")
            .await
            == 2.0)
            .then_some(())
    })
    .await;
    assert_eq!(settled.results("write").await.len(), 1);
    for task in [&cancelled, &settled] {
        assert_eq!(task.file("a").await, None, "the step was run");
    }
}

#[tokio::test]
async fn a_step_that_was_given_up_is_killed_and_its_result_is_late() {
    let world = World::new().await;
    let executor = world.executor().await;
    let mut task = world.task().await;
    let marker = marker();
    task.dispatch("nap", command(json!([["sleep", marker]])), json!({}))
        .await;
    running(&executor, &marker).await;
    let given_up = json!({"plan_version": 1, "step_id": "nap", "attempt": 1, "code": "ARM_UNAVAILABLE",
                          "message": "no answer", "violations": []});
    task.append("step.failed", &given_up, "1/nap/1").await;
    eventually("the late result was not noticed", async || {
        (executor.metric("octollm_executor_late_results_total").await == 1.0).then_some(())
    })
    .await;
    assert_eq!(alive(&marker), 0);
    assert_eq!(
        task.results("nap").await.len(),
        1,
        "a late result was put on record"
    );
    let receipt = receipt(&world, &task).await;
    let dispatch = task.events().await.remove(1);
    assert_eq!(receipt["kind"], "step.failed");
    assert_eq!(receipt["payload"]["code"], "CANCELLED");
    assert_eq!(receipt["dispatch"]["seq"], dispatch.seq);
    assert!(receipt["came_at"].as_str() > receipt["dispatched_at"].as_str());
}

/// The one receipt of a task's late results.
async fn receipt(world: &World, task: &Task<'_>) -> Value {
    let store = world.bus.jetstream().get_object_store("ARTIFACTS").await;
    let store = store.unwrap();
    let prefix = format!("late/{}/1/nap/1/", task.id);
    let names = store.list().await.unwrap();
    let names: Vec<String> = names.map(|info| info.unwrap().name).collect().await;
    let [name] = names.as_slice() else {
        panic!("{names:?}");
    };
    assert!(name.starts_with(&prefix), "{name}");
    let mut content = Vec::new();
    let mut object = store.get(name).await.unwrap();
    object.read_to_end(&mut content).await.unwrap();
    serde_json::from_slice(&content).unwrap()
}

#[tokio::test]
async fn a_late_result_without_a_store_is_counted_and_in_nobody_s_way() {
    let world = World::new().await;
    let executor = world.executor().await;
    let mut task = world.task().await;
    let marker = marker();
    task.dispatch("nap", command(json!([["sleep", marker]])), json!({}))
        .await;
    running(&executor, &marker).await;
    let jetstream = world.bus.jetstream();
    jetstream.delete_object_store("ARTIFACTS").await.unwrap();
    task.end("task.cancelled").await;
    let lost = "octollm_executor_late_receipts_total{outcome=\"lost\"}";
    eventually("the lost receipt was not counted", async || {
        (executor.metric(lost).await == 1.0).then_some(())
    })
    .await;
    let mut next = world.task().await;
    let (kind, _) = next
        .run("next", command(json!([["true"]])), json!({}))
        .await;
    assert_eq!(kind, "step.executed");
}

#[tokio::test]
async fn an_event_in_between_delays_no_result() {
    let world = World::new().await;
    let executor = world.executor().await;
    let mut task = world.task().await;
    let nap = command(json!([["sleep", "1"], ["echo", "done"]]));
    task.dispatch("nap", nap, json!({})).await;
    eventually("the step does not run", async || {
        (executor.metric("octollm_executor_steps_running").await == 1.0).then_some(())
    })
    .await;
    task.dispatch("theirs", command(json!([["true"]])), json!({"arm": "echo"}))
        .await;
    assert_eq!(task.result("nap").await.0, "step.executed");
    assert_eq!(
        executor.metric("octollm_executor_conflicts_total").await,
        1.0
    );
}

#[tokio::test]
async fn the_probes_tell_what_fails() {
    let mut world = World::new().await;
    let executor = world.executor().await;
    assert_eq!(executor.get("/health").await.0, 200);
    eventually("it does not get ready", async || {
        (executor.get("/ready").await.0 == 200).then_some(())
    })
    .await;
    let (_, metrics) = executor.get("/metrics").await;
    let live = metrics
        .lines()
        .filter(|line| line.starts_with("octollm_executor_"))
        .count();
    assert!(live >= 10, "{metrics}");
    assert_eq!(
        executor
            .metric("octollm_executor_sandbox_layers{layer=\"pid_namespace\"}")
            .await,
        1.0
    );

    // What a step runs in, and what it lacks.
    let (_, body) = executor.get("/ready").await;
    let body: Value = serde_json::from_str(&body).unwrap();
    let sandbox = &body["details"]["sandbox"];
    let layers = sandbox["layers"].as_array().unwrap();
    assert!(
        layers.contains(&json!("network_namespace")) && layers.contains(&json!("no_capabilities"))
    );
    for layer in ["landlock", "seccomp"] {
        assert!(layers.contains(&json!(layer)), "{body}");
        assert!(sandbox["degraded"].get(layer).is_none(), "{body}");
    }
    let has_groups = layers.contains(&json!("step_memory"));
    let limits = if has_groups { "cgroups" } else { "rlimits" };
    assert_eq!(sandbox["limits"], limits);
    assert_eq!(sandbox["degraded"]["memory"].is_string(), !has_groups);

    world.server.kill();
    let (status, body) = eventually("/ready stays well", async || {
        let answer = executor.get("/ready").await;
        (answer.0 == 503).then_some(answer)
    })
    .await;
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        (status, &body["checks"]["sandbox"]),
        (503, &json!("ok")),
        "{body}"
    );
    assert_ne!(body["checks"]["nats"], "ok");
    assert_eq!(executor.get("/health").await.0, 200);
}

#[tokio::test]
async fn a_host_without_namespaces_refuses_commands() {
    let world = World::new().await;
    let mut task = world.task().await;
    // A user namespace in which no further one may be made.
    let script = "echo 0 > /proc/sys/user/max_user_namespaces && exec \"$0\"";
    let executable = env!("CARGO_BIN_EXE_octollm-executor");
    let argv = [
        "unshare",
        "-U",
        "--map-user=1000",
        "--keep-caps",
        "sh",
        "-c",
        script,
        executable,
    ];
    let executor = world.executor_by(&argv).await;
    let (kind, result) = task
        .run("refused", command(json!([["true"]])), json!({}))
        .await;
    assert_eq!(
        (kind.as_str(), &result["code"]),
        ("step.failed", &json!("SANDBOX_UNAVAILABLE"))
    );
    assert!(
        result["message"].as_str().unwrap().contains("unshare"),
        "{result}"
    );
    let (status, body) = executor.get("/ready").await;
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        (status, &body["checks"]["nats"]),
        (503, &json!("ok")),
        "{body}"
    );
    assert!(
        body["checks"]["sandbox"]
            .as_str()
            .unwrap()
            .contains("unshare"),
        "{body}"
    );
    assert_eq!(body["details"]["sandbox"]["layers"], json!([]));
    // What needs no sandbox still works.
    let write = json!({"kind": "file", "op": "write", "path": "a", "text": "a"});
    assert_eq!(task.run("write", write, json!({})).await.0, "step.executed");
}

#[tokio::test]
async fn a_stop_waits_for_short_steps_and_hands_long_ones_back() {
    let world = World::new().await;
    let executor = world.executor().await;
    let (mut short, mut long) = (world.task().await, world.task().await);
    let marker = marker();
    long.dispatch("long", command(json!([["sleep", marker]])), json!({}))
        .await;
    short
        .dispatch("short", command(json!([["sleep", "1"]])), json!({}))
        .await;
    eventually("the steps do not run", async || {
        (executor.metric("octollm_executor_steps_running").await == 2.0).then_some(())
    })
    .await;
    let asked = Instant::now();
    assert_eq!(executor.stop().await, Some(0));
    assert!(
        asked.elapsed() < Duration::from_secs(10),
        "took {:?}",
        asked.elapsed()
    );
    assert_eq!(alive(&marker), 0);
    assert_eq!(short.results("short").await[0].0, "step.executed");
    assert!(
        long.results("long").await.is_empty(),
        "a step that the stop killed was put on record"
    );

    let _next = world.executor().await;
    eventually("the step was not handed back", async || {
        (alive(&marker) > 0).then_some(())
    })
    .await;
}
