//! Deliveries that come to nothing: an outage is waited for, what can't be read is given up.

use super::*;

/// What the broker says was given up.
async fn given_up(world: &World) -> Vec<Value> {
    let stream = world.bus.jetstream().get_stream("ADVISORY").await.unwrap();
    let last = stream.get_info().await.unwrap().state.last_sequence;
    let mut found = Vec::new();
    for seq in 1..=last {
        let message = stream.get_raw_message(seq).await.unwrap();
        found.push(serde_json::from_slice(&message.payload).unwrap());
    }
    found
}

#[tokio::test]
async fn a_dispatch_that_can_not_be_read_is_given_up_and_stops_no_other() {
    let world = World::new().await;
    let subject = format!("step.dispatched.{}", Uuid::new_v4());
    let stored = world.bus.client().request(subject.clone(), "{}".into());
    stored.await.unwrap();
    let _executor = world.executor().await;
    let mut task = world.task().await;
    let (kind, _) = task
        .run("next", command(json!([["true"]])), json!({}))
        .await;
    assert_eq!(kind, "step.executed");
    let advisories = eventually("it was not given up", async || {
        let found = given_up(&world).await;
        (!found.is_empty()).then_some(found)
    })
    .await;
    let advisory = &advisories[0];
    assert_eq!(
        (&advisory["consumer"], &advisory["deliveries"]),
        (&json!("executor"), &json!(1))
    );
    let reason = advisory["reason"].as_str().unwrap();
    assert!(
        reason.starts_with(&format!("{subject} Undecodable: ")),
        "{reason}"
    );
}

#[tokio::test]
async fn while_claims_can_not_be_made_nothing_is_taken_and_no_attempt_is_lost() {
    let world = World::new().await;
    let executor = world.executor().await;
    let jetstream = world.bus.jetstream();
    jetstream.delete_stream("KV_ATTEMPTS").await.unwrap();
    let mut tasks = [world.task().await, world.task().await, world.task().await];
    for task in &mut tasks {
        let fields = json!({ "effect": "side_effecting" });
        task.dispatch("send", command(json!([["true"]])), fields)
            .await;
    }
    let said = eventually("/ready does not name the claims", async || {
        let (status, body) = executor.get("/ready").await;
        let body: Value = serde_json::from_str(&body).unwrap();
        let said = body["checks"]["intake"].as_str().unwrap_or_default();
        (status == 503 && said.starts_with("claims: ")).then(|| said.to_owned())
    })
    .await;
    for task in &tasks {
        assert!(task.results("send").await.is_empty(), "{said}");
    }
    octollm_events::streams::ensure(&world.bus).await.unwrap();
    for task in &tasks {
        assert_eq!(task.result("send").await.0, "step.executed");
        assert_eq!(task.results("send").await.len(), 1);
    }
    assert!(given_up(&world).await.is_empty());
    eventually("/ready does not recover", async || {
        (executor.get("/ready").await.0 == 200).then_some(())
    })
    .await;
}
