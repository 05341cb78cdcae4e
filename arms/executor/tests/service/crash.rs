//! Crashes of the executor and of the broker.

use super::*;

#[tokio::test]
async fn a_pure_step_is_run_again_after_a_crash() {
    let world = World::new().await;
    world.ack_wait(Duration::from_secs(1)).await;
    let mut executor = world.executor().await;
    let mut task = world.task().await;
    let marker = marker();
    let action = json!({"kind": "command", "pipeline": [["sleep", "3"], ["echo", marker]]});
    task.dispatch("nap", action, json!({})).await;
    eventually("the step does not run", async || {
        (executor.metric("octollm_executor_steps_running").await == 1.0).then_some(())
    })
    .await;
    executor.kill();
    eventually("programs outlive the executor", async || {
        (alive(&marker) == 0).then_some(())
    })
    .await;
    assert!(task.results("nap").await.is_empty());

    let next = world.executor().await;
    assert_eq!(task.result("nap").await.0, "step.executed");
    assert!(next.metric("octollm_executor_redeliveries_total").await >= 1.0);
    assert_eq!(task.results("nap").await.len(), 1);
}

#[tokio::test]
async fn a_side_effecting_step_is_never_started_twice() {
    let world = World::new().await;
    world.ack_wait(Duration::from_secs(1)).await;
    let mut executor = world.executor().await;
    let mut task = world.task().await;
    let marker = marker();
    let effect = json!({"effect": "side_effecting"});
    task.dispatch(
        "nap",
        command(json!([["sleep", marker], ["tee", "effect"]])),
        effect.clone(),
    )
    .await;
    eventually("the step does not run", async || {
        (alive(&marker) > 0).then_some(())
    })
    .await;
    executor.kill();

    let _next = world.executor().await;
    let (kind, result) = task.result("nap").await;
    assert_eq!(
        (kind.as_str(), &result["code"]),
        ("step.failed", &json!("UNKNOWN_OUTCOME"))
    );
    assert_eq!(alive(&marker), 0);
    // A claim that was settled stays, and the next one is not in its way.
    assert_eq!(
        task.run("next", command(json!([["true"]])), effect).await.0,
        "step.executed"
    );
    let stream = world.bus.jetstream().get_stream("KV_ATTEMPTS").await;
    assert_eq!(stream.unwrap().cached_info().state.messages, 2);
}

#[tokio::test]
async fn a_step_that_outlasts_its_ack_wait_runs_once() {
    let world = World::new().await;
    world.ack_wait(Duration::from_secs(1)).await;
    let executor = world.executor().await;
    let mut task = world.task().await;
    let append = json!({"kind": "command", "pipeline": [["sleep", "3"], ["echo", "ran"]],
                        "redirect": {"path": "runs", "append": true}});
    assert_eq!(task.run("once", append, json!({})).await.0, "step.executed");
    assert!(
        executor.metric("octollm_executor_redeliveries_total").await >= 1.0,
        "nothing was delivered twice"
    );
    assert_eq!(task.file("runs").await.unwrap(), "ran\n");
}

#[tokio::test]
async fn a_result_outlives_a_restart_of_the_broker() {
    let mut world = World::new().await;
    let executor = world.executor().await;
    let marker = marker();
    let (id, end) = {
        let mut task = world.task().await;
        let nap = command(json!([["sleep", "2"], ["echo", marker]]));
        task.dispatch("nap", nap, json!({})).await;
        eventually("the step does not run", async || {
            (executor.metric("octollm_executor_steps_running").await == 1.0).then_some(())
        })
        .await;
        (task.id, task.end)
    };
    world.server.kill();
    eventually("the step does not end", async || {
        (executor.metric("octollm_executor_steps_running").await == 0.0).then_some(())
    })
    .await;
    world.server.restart();
    let task = Task {
        world: &world,
        id,
        end,
    };
    assert_eq!(task.result("nap").await.0, "step.executed");
    assert_eq!(task.results("nap").await.len(), 1);
}

/// What a broker that is killed makes of its latest acks: they are gone, and all comes as a first delivery.
#[tokio::test]
async fn a_step_on_record_is_not_run_again_by_a_delivery_that_calls_itself_the_first() {
    let world = World::new().await;
    let executor = world.executor().await;
    let mut task = world.task().await;
    task.run("first", command(json!([["true"]])), json!({}))
        .await;
    let append = json!({"kind": "command", "pipeline": [["echo", "ran"]],
                        "redirect": {"path": "runs", "append": true}});
    let deliveries = "octollm_executor_deliveries_total";
    assert_eq!(executor.metric(deliveries).await, 1.0);
    assert_eq!(task.run("once", append, json!({})).await.0, "step.executed");
    world.forget_acks().await;
    eventually("nothing was delivered anew", async || {
        (executor.metric(deliveries).await >= 4.0).then_some(())
    })
    .await;
    task.run("next", command(json!([["true"]])), json!({}))
        .await;
    assert_eq!(
        executor.metric("octollm_executor_redeliveries_total").await,
        0.0
    );
    assert_eq!(task.file("runs").await.unwrap(), "ran\n");
}
