use crate::facts::{PATIENCE, append_somehow, cancel_requested, note, task};
use octollm_events::envelope::Undecodable;
use octollm_events::log::Follow;
use octollm_events::testing::NatsServer;
use octollm_events::{Event, Log};
use tokio::time::timeout;

async fn next(follow: &mut Follow) -> Result<Event, Undecodable> {
    timeout(PATIENCE, follow.next())
        .await
        .expect("an event comes")
}

#[tokio::test]
async fn everything_comes_in_order_and_once_across_broker_restarts() {
    let mut server = NatsServer::start().await;
    let log = Log::new(server.connect("planner").await, "planner");
    let reader = Log::new(server.connect("projections").await, "projections");
    let mut follow = reader.follow(1, &[]);
    let (task_id, mut position) = task(&log, 300).await;
    for seq in 1..=300 {
        assert_eq!(next(&mut follow).await.unwrap().seq, seq);
    }
    for (round, seq) in (301..=303).enumerate() {
        server.restart();
        let event = note(task_id, &format!("round {round}"));
        position = append_somehow(&log, task_id, &event, position).await;
        let seen = next(&mut follow).await.unwrap();
        assert_eq!((seen.seq, seen.id), (seq, event.id(task_id)));
    }
}

#[tokio::test]
async fn a_follower_sees_its_subjects_from_its_start_on() {
    let server = NatsServer::start().await;
    let log = Log::new(server.connect("executor").await, "executor");
    let (early, position) = task(&log, 1).await;
    log.append(early, &cancel_requested(early), &position)
        .await
        .unwrap();
    let start = log.last_seq().await.unwrap() + 1;
    let mut follow = log.follow(start, &["task.cancel_requested.*", "step.failed.*"]);
    let (task_id, position) = task(&log, 3).await;
    log.append(task_id, &cancel_requested(task_id), &position)
        .await
        .unwrap();
    let event = next(&mut follow).await.unwrap();
    assert_eq!(
        (event.task_id, event.kind.as_str()),
        (task_id, "task.cancel_requested")
    );
}

#[tokio::test]
async fn a_message_that_is_no_event_is_reported_and_passed() {
    let server = NatsServer::start().await;
    let bus = server.connect("planner").await;
    let log = Log::new(bus.clone(), "planner");
    bus.client()
        .request("step.executed.x", "{}".into())
        .await
        .unwrap();
    let (task_id, _) = task(&log, 1).await;
    let mut follow = log.follow(1, &[]);
    assert_eq!(next(&mut follow).await.unwrap_err().seq, 1);
    assert_eq!(next(&mut follow).await.unwrap().task_id, task_id);
}
