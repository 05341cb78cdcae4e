//! Claims on a real broker: one holder, whatever is lost on the way.

#[allow(dead_code, reason = "the broker's own tests use more of it")]
#[path = "../../../../events/rust/tests/broker/proxy.rs"]
mod proxy;

use octollm_events::config::NatsSettings;
use octollm_executor::service::Attempt;
use octollm_executor::service::claim::{Claimed, Claims};
use proxy::Proxy;

use super::*;

fn attempt(step: &str) -> Attempt {
    Attempt {
        task_id: Uuid::new_v4(),
        plan_version: 1,
        step_id: step.to_owned(),
        number: 1,
    }
}

fn is_ours(claimed: &Claimed) -> bool {
    matches!(claimed, Claimed::Now(_))
}

#[tokio::test]
async fn an_attempt_has_one_holder() {
    let server = NatsServer::start().await;
    let (first, second) = (
        Claims::new(server.connect("executor").await),
        Claims::new(server.connect("executor").await),
    );
    let attempt = attempt("a");
    let (one, other) = tokio::join!(first.take(&attempt, 7), second.take(&attempt, 7));
    let (one, other) = (one.unwrap(), other.unwrap());
    assert!(is_ours(&one) != is_ours(&other), "{one:?} {other:?}");
    // Not even the holder gets it twice, and everybody learns what it was claimed for.
    for claims in [&first, &second] {
        let again = claims.take(&attempt, 8).await.unwrap();
        assert!(
            matches!(again, Claimed::Before { dispatch: 7 }),
            "{again:?}"
        );
    }
    let next = Attempt {
        number: 2,
        ..attempt
    };
    assert!(is_ours(&second.take(&next, 9).await.unwrap()));
}

#[tokio::test]
async fn a_claim_whose_ack_is_lost_is_still_ours() {
    let server = NatsServer::start().await;
    let proxy = Proxy::start(server.port()).await;
    let settings = NatsSettings {
        url: proxy.url(),
        ..NatsSettings::default()
    };
    let claims = Claims::new(Bus::connect(&settings, "executor").await.unwrap());
    let attempt = attempt("a");
    proxy.lose_acks(1);
    assert!(is_ours(&claims.take(&attempt, 7).await.unwrap()));
    assert_eq!(proxy.left_to_lose(), 0);
    assert!(!is_ours(&claims.take(&attempt, 7).await.unwrap()));
}

#[tokio::test]
async fn a_claim_that_was_not_used_is_given_back_to_this_process_only() {
    let server = NatsServer::start().await;
    let (ours, theirs) = (
        Claims::new(server.connect("executor").await),
        Claims::new(server.connect("executor").await),
    );
    let attempt = attempt("a");
    let Claimed::Now(claim) = ours.take(&attempt, 7).await.unwrap() else {
        panic!("it was free");
    };
    ours.give_back(claim);
    assert!(!is_ours(&theirs.take(&attempt, 7).await.unwrap()));
    assert!(is_ours(&ours.take(&attempt, 7).await.unwrap()));
    assert!(!is_ours(&ours.take(&attempt, 7).await.unwrap()));
}

#[tokio::test]
async fn a_claim_that_a_broker_could_not_answer_is_got_by_a_later_call() {
    let mut server = NatsServer::start().await;
    let claims = Claims::new(server.connect("executor").await);
    let attempt = attempt("a");
    server.kill();
    assert!(claims.take(&attempt, 7).await.is_err());
    server.restart();
    assert!(is_ours(&claims.take(&attempt, 7).await.unwrap()));
}

#[tokio::test]
async fn nobody_can_change_or_remove_a_claim() {
    let server = NatsServer::start().await;
    let bus = server.connect("executor").await;
    let claims = Claims::new(bus.clone());
    let attempt = attempt("a");
    assert!(is_ours(&claims.take(&attempt, 7).await.unwrap()));
    let subject = format!("$KV.ATTEMPTS.{attempt}");
    // Without an expectation, and as the key-value store's delete and purge do it.
    for (name, value) in [("x", "y"), ("KV-Operation", "DEL"), ("Nats-Rollup", "sub")] {
        let headers: async_nats::HeaderMap = [(name.parse().unwrap(), value.parse().unwrap())]
            .into_iter()
            .collect();
        let answer = bus
            .client()
            .request_with_headers(subject.clone(), headers, "{}".into())
            .await
            .unwrap();
        let answer: Value = serde_json::from_slice(&answer.payload).unwrap();
        assert_ne!(answer["error"], Value::Null, "{name}: {answer}");
    }
    let delete = bus.client().request(
        "$JS.API.STREAM.MSG.DELETE.KV_ATTEMPTS",
        r#"{"seq": 1}"#.into(),
    );
    let answer: Value = serde_json::from_slice(&delete.await.unwrap().payload).unwrap();
    assert_ne!(answer["error"], Value::Null);
    assert!(!is_ours(&claims.take(&attempt, 7).await.unwrap()));
}
