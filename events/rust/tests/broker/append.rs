use crate::facts::{PATIENCE, append_somehow, assert_whole, first, note, received, task};
use crate::proxy::Proxy;
use octollm_events::carrier::{Result as TaskResult, TaskCompleted};
use octollm_events::config::NatsSettings;
use octollm_events::log::MAX_MESSAGE_BYTES;
use octollm_events::testing::NatsServer;
use octollm_events::{AppendError, Bus, Log, NewEvent, Position};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tokio::time::timeout;
use uuid::Uuid;

#[tokio::test]
async fn an_append_gives_the_position_that_a_read_finds() {
    let server = NatsServer::start().await;
    let log = Log::new(server.connect("planner").await, "planner");
    let (task_id, position) = task(&log, 3).await;
    let events = log.read(task_id, None).await.unwrap();
    assert_whole(&events, 3);
    assert_eq!(events[2].position(), position);
    assert_eq!(events[0].source, "/octollm/planner");
    assert_eq!(
        events[0]
            .decode::<octollm_events::carrier::TaskReceived>()
            .unwrap(),
        received()
    );
}

#[tokio::test]
async fn a_stale_expectation_is_a_conflict() {
    let server = NatsServer::start().await;
    let log = Log::new(server.connect("planner").await, "planner");
    let (task_id, position) = task(&log, 1).await;
    log.append(task_id, &note(task_id, "a"), &position)
        .await
        .unwrap();
    for stale in [Position::START, position] {
        let error = log
            .append(task_id, &note(task_id, "b"), &stale)
            .await
            .unwrap_err();
        assert!(
            matches!(error, AppendError::Conflict { expected, .. } if expected == stale),
            "{error}"
        );
    }
    assert_whole(&log.read(task_id, None).await.unwrap(), 2);
}

#[tokio::test]
async fn an_id_that_is_stored_already_is_a_conflict() {
    let server = NatsServer::start().await;
    let log = Log::new(server.connect("planner").await, "planner");
    let (task_id, position) = task(&log, 1).await;
    let event = note(task_id, "a");
    let position = log.append(task_id, &event, &position).await.unwrap();
    // The expectation holds, so it is the broker's memory of the id that refuses.
    let error = log.append(task_id, &event, &position).await.unwrap_err();
    assert!(
        matches!(
            error,
            AppendError::Conflict {
                duplicate: true,
                ..
            }
        ),
        "{error}"
    );
    assert_whole(&log.read(task_id, None).await.unwrap(), 2);
}

#[tokio::test]
async fn a_lost_ack_leaves_one_event() {
    let server = NatsServer::start().await;
    let proxy = Proxy::start(server.port()).await;
    let settings = NatsSettings {
        url: proxy.url(),
        ..NatsSettings::default()
    };
    let log = Log::new(Bus::connect(&settings, "planner").await.unwrap(), "planner");
    let (task_id, position) = task(&log, 1).await;
    let event = note(task_id, "a");

    proxy.lose_acks(1);
    let error = timeout(PATIENCE, log.append(task_id, &event, &position))
        .await
        .unwrap()
        .unwrap_err();

    assert_eq!(proxy.left_to_lose(), 0);
    assert!(matches!(error, AppendError::Conflict { .. }), "{error}");
    let later = log.read(task_id, Some(&position)).await.unwrap();
    assert_eq!(later.len(), 1);
    assert_eq!(later[0].id, event.id(task_id));
}

#[tokio::test]
async fn nothing_follows_a_terminal_event() {
    let server = NatsServer::start().await;
    let log = Log::new(server.connect("orchestrator").await, "orchestrator");
    let (task_id, position) = task(&log, 1).await;
    let completed = TaskCompleted {
        result: TaskResult {
            output: String::new(),
            steps_executed: 0,
            total_duration_ms: 1,
            cost_micro_usd: 0,
            tokens: 0,
            criteria: vec![],
        },
    };
    let end = NewEvent::new(&completed, task_id, "").unwrap();
    let position = log.append(task_id, &end, &position).await.unwrap();
    let error = log
        .append(task_id, &note(task_id, "a"), &position)
        .await
        .unwrap_err();
    assert!(matches!(error, AppendError::TaskEnded { .. }), "{error}");
    let events = log.read(task_id, None).await.unwrap();
    assert!(events[1].position().terminal);
    assert_whole(&events, 2);
}

#[tokio::test]
async fn what_does_not_fit_into_a_message_is_refused_before_it_is_sent() {
    let server = NatsServer::start().await;
    let log = Log::new(server.connect("reflex").await, "reflex");
    let task_id = Uuid::new_v4();
    let append = async |filler: usize| {
        let mut payload = received();
        payload
            .context
            .insert("a".into(), "x".repeat(filler).into());
        let event = NewEvent::first(task_id, &payload).unwrap();
        log.append(task_id, &event, &Position::START).await
    };
    let error = append(MAX_MESSAGE_BYTES).await.unwrap_err();
    let AppendError::PayloadTooLarge { size, .. } = error else {
        panic!("{error}");
    };
    // The computed size is the broker's own: what just fits is stored.
    let over = size - MAX_MESSAGE_BYTES;
    assert!(matches!(
        append(MAX_MESSAGE_BYTES - over + 1).await,
        Err(AppendError::PayloadTooLarge { .. })
    ));
    append(MAX_MESSAGE_BYTES - over).await.unwrap();
}

#[tokio::test]
async fn a_full_log_says_so() {
    let server = NatsServer::start().await;
    let bus = server.connect("planner").await;
    let log = Log::new(bus.clone(), "planner");
    let (task_id, mut position) = task(&log, 1).await;
    let stream = bus.jetstream().get_stream("EVENTS").await.unwrap();
    let mut config = stream.cached_info().config.clone();
    config.max_bytes = 8_192;
    bus.jetstream().update_stream(config).await.unwrap();
    for number in 0.. {
        let event = note(task_id, &number.to_string());
        match log.append(task_id, &event, &position).await {
            Ok(next) if number < 100 => position = next,
            Err(AppendError::Full { .. }) => break,
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_refused_subject_is_forbidden_at_once() {
    let server = NatsServer::start_with(
        "no_auth_user: bootstrap
         authorization { users: [
           { user: bootstrap, password: b }
           { user: planner, password: p, permissions: { publish: { deny: [\"task.received.*\"] } } }
         ] }",
    )
    .await;
    let url = server.url().replace("nats://", "nats://planner:p@");
    let bus = Bus::connect(
        &NatsSettings {
            url,
            ..NatsSettings::default()
        },
        "planner",
    )
    .await
    .unwrap();
    let log = Log::new(bus, "planner");
    let started = Instant::now();
    let task_id = Uuid::new_v4();
    let error = log
        .append(task_id, &first(task_id), &Position::START)
        .await
        .unwrap_err();
    assert!(matches!(&error, AppendError::Forbidden { .. }), "{error}");
    assert!(
        started.elapsed() < Duration::from_secs(1),
        "{:?}",
        started.elapsed()
    );
}

#[tokio::test]
async fn without_a_broker_an_append_ends_at_its_deadline() {
    let mut server = NatsServer::start().await;
    let bus = server.connect("planner").await;
    let log = Log::new(bus, "planner").with_deadline(Duration::from_millis(600));
    server.kill();
    let task_id = Uuid::new_v4();
    let error = timeout(
        PATIENCE,
        log.append(task_id, &first(task_id), &Position::START),
    )
    .await
    .unwrap()
    .unwrap_err();
    assert!(matches!(error, AppendError::Unavailable { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sixteen_writers_lose_and_double_nothing() {
    const WRITERS: usize = 16;
    const EACH: usize = 200;
    let server = NatsServer::start().await;
    let bus = server.connect("planner").await;
    let log = Log::new(bus, "planner");
    let (task_id, position) = task(&log, 1).await;
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let log = log.clone();
        writers.spawn(async move {
            let mut position = position;
            for number in 0..EACH {
                let event = note(task_id, &format!("{writer}/{number}"));
                position = append_somehow(&log, task_id, &event, position).await;
            }
        });
    }
    writers.join_all().await;
    // `read` checks every link of the chain.
    assert_whole(&log.read(task_id, None).await.unwrap(), 1 + WRITERS * EACH);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_of_the_broker_loses_and_doubles_nothing() {
    const WRITERS: usize = 4;
    const EACH: usize = 50;
    let mut server = NatsServer::start().await;
    let log = Log::new(server.connect("planner").await, "planner");
    let (task_id, position) = task(&log, 1).await;
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let log = log.clone();
        writers.spawn(async move {
            let mut position = position;
            for number in 0..EACH {
                let event = note(task_id, &format!("{writer}/{number}"));
                position = append_somehow(&log, task_id, &event, position).await;
            }
        });
    }
    for crash_after in [30, 90] {
        let reached = async { while log.last_seq().await.unwrap() < crash_after {} };
        timeout(PATIENCE, reached).await.unwrap();
        server.restart();
    }
    timeout(PATIENCE, writers.join_all()).await.unwrap();
    assert_whole(&log.read(task_id, None).await.unwrap(), 1 + WRITERS * EACH);
}
