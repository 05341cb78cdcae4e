//! Rate limits, with Redis and without.

use std::time::{Duration, Instant};

use futures::stream::{self, StreamExt};
use octollm_events::carrier::{ErrorCode, TaskReceived, TaskRejected};
use serde_json::json;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::harness::{Answer, Process, Stand, eventually, request};
use crate::valkey::Valkey;

const FREE: (&str, &str) = ("OCTO_REFLEX__LIMITS__DEFAULT_TIER", "free");

async fn limited(valkey: &Valkey, settings: &[(&str, &str)]) -> Stand {
    let url = valkey.url();
    let mut settings = settings.to_vec();
    settings.push(("OCTO_REDIS__URL", &url));
    let stand = Stand::with(&settings).await;
    until(&stand, "ready").await;
    stand
}

/// Waits until `/ready` gives this status, which is never a reason to send nobody here.
async fn until(stand: &Stand, status: &str) -> Answer {
    eventually(status, async || {
        let answer = stand.get("/ready").await;
        assert_eq!(answer.status, 200, "{answer:?}");
        (answer.json()["status"] == status).then_some(answer)
    })
    .await
}

async fn process(at: &Process) -> Answer {
    let headers = [("content-type", "application/json")];
    request(
        at.address,
        "POST",
        "/process",
        &headers,
        br#"{"text":"hello"}"#,
    )
    .await
}

/// How many of `count` requests are admitted, and within what time; the rest are told to wait. `width` ask at once.
async fn admitted(count: usize, width: usize, instances: &[&Process]) -> (usize, Duration) {
    let began = Instant::now();
    let answers = stream::iter(0..count).map(|index| process(instances[index % instances.len()]));
    let statuses: Vec<u16> = answers
        .buffer_unordered(width)
        .map(|answer| answer.status)
        .collect()
        .await;
    let admitted = statuses.iter().filter(|status| **status == 200).count();
    let refused = statuses.iter().filter(|status| **status == 429).count();
    assert_eq!(admitted + refused, count);
    (admitted, began.elapsed())
}

/// A full bucket of `limit` a minute gives what it holds and what came back meanwhile: to 5 %.
fn assert_accurate(admitted: usize, limit: f64, took: Duration) {
    let (least, most) = (limit, limit * (1.0 + took.as_secs_f64() / 60.0));
    let admitted = admitted as f64;
    assert!(
        admitted >= least * 0.95 && admitted <= most * 1.05,
        "{admitted} of {limit} in {took:?}"
    );
}

fn series(page: &str, name: &str) -> f64 {
    let lines = page.lines().filter(|line| line.starts_with(name));
    lines
        .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
        .sum()
}

#[tokio::test]
async fn instances_share_one_bucket_and_it_is_accurate_under_concurrency() {
    let valkey = Valkey::start().await;
    let basic = [("OCTO_REFLEX__LIMITS__DEFAULT_TIER", "basic")];
    let stand = limited(&valkey, &basic).await;
    let url = valkey.url();
    let second = stand.another(&[basic[0], ("OCTO_REDIS__URL", &url)]).await;
    eventually("the second has Redis", async || {
        let headers = [];
        let answer = request(second.address, "GET", "/ready", &headers, b"").await;
        (answer.json()["status"] == "ready").then_some(())
    })
    .await;
    let (admitted, took) = admitted(900, 32, &[&stand.process, &second]).await;
    assert_accurate(admitted, 600.0, took);
    let page = stand.get("/metrics").await.text;
    let memory = series(
        &page,
        r#"octollm_reflex_limits_total{decision="admitted",scope="",store="memory"}"#,
    );
    assert_eq!(memory, 0.0, "all of it was decided by Redis");
    assert!(series(&page, "octollm_reflex_redis_seconds_count") > 0.0);
}

#[tokio::test]
async fn a_refusal_says_when_to_come_back_and_an_admission_what_is_left() {
    let valkey = Valkey::start().await;
    let stand = limited(&valkey, &[FREE]).await;
    let first = process(&stand.process).await;
    assert_eq!(first.status, 200);
    assert_eq!(
        ["ratelimit-limit", "ratelimit-remaining", "ratelimit-reset"]
            .map(|name| first.header(name)),
        [Some("60"), Some("59"), Some("1")]
    );
    let (admitted, took) = admitted(80, 16, &[&stand.process]).await;
    assert_accurate(admitted + 1, 60.0, took);
    let refused = process(&stand.process).await;
    assert_eq!(
        (refused.status, refused.json()["code"].clone()),
        (429, json!("RATE_LIMITED"))
    );
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(refused.header("ratelimit-remaining"), Some("0"));
    assert_eq!(
        refused.header("content-type"),
        Some("application/problem+json")
    );
    let detail = refused.json()["detail"].to_string();
    assert!(
        detail.contains("this address") && detail.contains("60"),
        "{detail}"
    );
    // Whoever asks of the service's own state is never refused.
    assert_eq!(stand.get("/health").await.status, 200);
    // Nobody reads in Redis who asked.
    let keys = format!("{:?}", valkey.ask(&["KEYS", "*"]).await);
    assert!(
        keys.contains(":ip:") && !keys.contains("127.0.0.1"),
        "{keys}"
    );
    eventually("a token comes back", async || {
        (process(&stand.process).await.status == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn keys_have_tiers_and_their_users_stand_in_events() {
    let valkey = Valkey::start().await;
    let home = tempfile::tempdir().expect("a directory");
    let path = home.path().join("keys.toml");
    let digest = |key: &str| hex::encode(Sha256::digest(key));
    let keys = format!(
        "[[keys]]\nsha256 = \"{}\"\nuser = \"ada\"\ntier = \"free\"\n[[keys]]\nsha256 = \"{}\"\nuser = \"root\"\ntier = \"unlimited\"\n",
        digest("ada's key"),
        digest("the other key"),
    );
    std::fs::write(&path, keys).expect("written");
    let path = path.display().to_string();
    let stand = limited(&valkey, &[("OCTO_REFLEX__LIMITS__KEYS_FILE", &path)]).await;
    let ask = async |key: &str, path: &str, body: &[u8]| {
        let given = format!("Bearer {key}");
        let headers = [
            ("content-type", "application/json"),
            ("authorization", &given),
        ];
        stand.request("POST", path, &headers, body).await
    };
    let unknown = ask("nobody's key", "/process", b"{}").await;
    assert_eq!(
        (unknown.status, unknown.header("www-authenticate")),
        (401, Some("Bearer"))
    );

    let task = ask("ada's key", "/api/v1/tasks", br#"{"goal":"Count"}"#).await;
    assert_eq!(
        (task.status, task.header("ratelimit-limit")),
        (202, Some("60")),
        "{task:?}"
    );
    let received: TaskReceived = stand.events(task.task_id()).await[0]
        .decode()
        .expect("received");
    assert_eq!(received.source.principal, "ada");
    // A batch counts as its texts.
    let texts = json!({ "texts": vec![json!({ "text": "a@example.org" }); 50] }).to_string();
    let batch = ask("ada's key", "/process/batch", texts.as_bytes()).await;
    assert_eq!(batch.status, 200, "{batch:?}");
    let left: u32 = batch
        .header("ratelimit-remaining")
        .expect("told")
        .parse()
        .expect("a number");
    assert!((9..=15).contains(&left), "{left}");
    assert_eq!(
        ask("ada's key", "/process/batch", texts.as_bytes())
            .await
            .status,
        429
    );
    let texts = json!({ "texts": vec![json!({ "text": "x" }); 100] }).to_string();
    let never = ask("ada's key", "/process/batch", texts.as_bytes()).await;
    assert_eq!(never.status, 413, "{never:?}");
    // Others have buckets of their own, or none.
    let other = ask("the other key", "/process", br#"{"text":"x"}"#).await;
    assert_eq!((other.status, other.header("ratelimit-limit")), (200, None));
    assert_eq!(process(&stand.process).await.status, 200);
    let keys = format!("{:?}", valkey.ask(&["KEYS", "*"]).await);
    assert!(keys.contains(":user:") && !keys.contains("ada"), "{keys}");
}

#[tokio::test]
async fn endpoints_and_the_whole_have_limits_of_their_own() {
    let valkey = Valkey::start().await;
    let settings = [
        ("OCTO_REFLEX__LIMITS__PER_ENDPOINT__TASKS", "2"),
        ("OCTO_REFLEX__LIMITS__GLOBAL", "4"),
    ];
    let stand = limited(&valkey, &settings).await;
    let submit = async || stand.submit(&json!({ "goal": "Count" })).await;
    assert_eq!((submit().await.status, submit().await.status), (202, 202));
    let refused = submit().await;
    assert_eq!(refused.status, 429);
    assert!(refused.text.contains("this endpoint"), "{refused:?}");
    // The refused one took nothing from the whole.
    let statuses = [
        process(&stand.process).await.status,
        process(&stand.process).await.status,
    ];
    assert_eq!(statuses, [200, 200]);
    let refused = process(&stand.process).await;
    assert_eq!(refused.status, 429);
    assert!(refused.text.contains("the service"), "{refused:?}");
    let page = stand.get("/metrics").await.text;
    for scope in ["endpoint", "global"] {
        let name = format!(
            r#"octollm_reflex_limits_total{{decision="refused",scope="{scope}",store="redis"}}"#
        );
        assert_eq!(series(&page, &name), 1.0, "{page}");
    }
}

#[tokio::test]
async fn raw_publishes_beyond_their_limit_are_rejected_with_a_time() {
    let valkey = Valkey::start().await;
    let stand = limited(
        &valkey,
        &[("OCTO_REFLEX__LIMITS__PER_ENDPOINT__TASKS", "3")],
    )
    .await;
    let ids: Vec<Uuid> = (0..5).map(|_| Uuid::new_v4()).collect();
    for id in &ids {
        let body = json!({ "task_id": id, "goal": "mail ada@example.org" }).to_string();
        let stored = stand.bus.client().request("task.submit", body.into()).await;
        stored.expect("the broker stores it");
    }
    stand.until_taken().await;
    let mut refused = Vec::new();
    for id in ids {
        let event = &stand.events(id).await[0];
        if event.kind == "task.rejected" {
            assert!(!String::from_utf8_lossy(&event.body).contains("ada@"));
            refused.push(event.decode::<TaskRejected>().expect("it keeps its schema"));
        }
    }
    assert_eq!(refused.len(), 2);
    for rejection in refused {
        assert_eq!(rejection.code, ErrorCode::RateLimited);
        assert!(
            rejection
                .retry_after_ms
                .is_some_and(|wait| (1..=20_000).contains(&wait)),
            "{rejection:?}"
        );
        assert!(
            rejection.message.contains("another task_id"),
            "{}",
            rejection.message
        );
    }
}

#[tokio::test]
async fn without_redis_screening_goes_on_and_limits_are_kept_in_memory() {
    let mut valkey = Valkey::start().await;
    let stand = limited(&valkey, &[FREE]).await;
    assert_eq!(process(&stand.process).await.status, 200);
    valkey.kill();
    let (admitted, took) = admitted(80, 16, &[&stand.process]).await;
    assert_accurate(admitted, 60.0, took);
    let degraded = until(&stand, "degraded").await;
    assert_eq!(degraded.json()["degraded"], json!(["redis"]));
    assert_ne!(degraded.json()["checks"]["redis"], "ok");
    let page = stand.get("/metrics").await.text;
    assert!(page.contains("octollm_reflex_redis_up 0"), "{page}");
    assert!(series(&page, "octollm_reflex_redis_errors_total") > 0.0);
    let name = r#"octollm_reflex_limits_total{decision="refused",scope="ip",store="memory"}"#;
    assert!(series(&page, name) > 0.0, "{page}");
    // A server that has lost the script with everything else gets it again.
    valkey.restart().await;
    until(&stand, "ready").await;
    assert_eq!(
        process(&stand.process).await.header("ratelimit-remaining"),
        Some("59")
    );
    assert!(
        stand
            .get("/metrics")
            .await
            .text
            .contains("octollm_reflex_redis_up 1")
    );
}

#[tokio::test]
async fn a_redis_that_hangs_holds_nobody_up_for_long() {
    let valkey = Valkey::start().await;
    let stand = limited(&valkey, &[FREE]).await;
    valkey.signal("STOP");
    let (admitted, took) = admitted(20, 20, &[&stand.process]).await;
    assert_eq!(admitted, 20, "{took:?}");
    until(&stand, "degraded").await;
    valkey.signal("CONT");
    until(&stand, "ready").await;
}
