//! `POST /api/v1/execute`: whom it lets in, what it runs, and what it never does twice.

use std::os::unix::fs::PermissionsExt;
use std::time::SystemTime;

use biscuit_auth::KeyPair;
use tokio::net::TcpStream;

use super::*;

const KEY: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0";

impl World {
    /// An executor that knows the operator's key.
    async fn endpoint(&self, more: &[(&str, &str)]) -> ExecutorProcess {
        let path = self.home.path().join("operator.key");
        std::fs::write(&path, KEY).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        let key = ("OCTO_EXECUTOR__OPERATOR_KEY_FILE", path.to_str().unwrap());
        let argv = [env!("CARGO_BIN_EXE_octollm-executor")];
        self.executor_with(&argv, &[&[key], more].concat()).await
    }
}

/// A step of a task of its own, and the grant for it.
fn granted(step: &Value) -> Grant {
    let grant = Grant::new("executor/execute", Uuid::new_v4(), step);
    let expiry = SystemTime::now() + Duration::from_secs(60);
    Grant { expiry, ..grant }
}

fn request(grant: &Grant) -> Value {
    json!({"task_id": grant.task, "step": grant.step, "capability": grant.sign()})
}

fn shell(pipeline: Value) -> Value {
    let fields = json!({"effect": "side_effecting"});
    step("execute", command(pipeline), fields)
}

impl ExecutorProcess {
    /// Sends a request and leaves the answer to be read.
    async fn send(&self, headers: &str, body: &str) -> TcpStream {
        let mut connection = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        let head = format!(
            "POST /api/v1/execute HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n",
            body.len()
        );
        connection.write_all(head.as_bytes()).await.unwrap();
        // A server that has refused by now need not read it.
        let _ = connection.write_all(body.as_bytes()).await;
        connection
    }

    async fn post_as(&self, headers: &str, body: &str) -> (u16, Value) {
        answer(self.send(headers, body).await).await
    }

    async fn post(&self, request: &Value) -> (u16, Value) {
        self.post_as(&operator(), &request.to_string()).await
    }
}

fn operator() -> String {
    format!("Authorization: Bearer {KEY}\r\nContent-Type: application/json\r\n")
}

async fn answer(mut connection: TcpStream) -> (u16, Value) {
    let mut text = String::new();
    connection.read_to_string(&mut text).await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let body: Value = serde_json::from_str(body).unwrap();
    if status != 200 {
        assert!(head.contains("application/problem+json"), "{head}");
        assert_eq!(body["status"], status, "{body}");
    }
    (status, body)
}

fn code((status, body): &(u16, Value)) -> (u16, &str) {
    (*status, body["code"].as_str().unwrap_or_default())
}

#[tokio::test]
async fn a_granted_step_is_run_and_told_and_leaves_nothing() {
    let world = World::new().await;
    let executor = world.endpoint(&[]).await;
    let grant = granted(&shell(json!([
        ["echo", "mail ada@example.org"],
        ["tee", "copy"]
    ])));
    let (status, body) = executor.post(&request(&grant)).await;
    assert_eq!(status, 200, "{body}");
    let result = &body["result"];
    assert_eq!(
        result["output"]["stdout"]["head"], "mail [EMAIL]\n",
        "{body}"
    );
    assert_eq!(
        (
            &result["step_id"],
            &result["plan_version"],
            &result["attempt"],
            &result["exit_code"]
        ),
        (&json!("execute"), &json!(1), &json!(1), &json!(0))
    );
    assert!(world.log.read(grant.task, None).await.unwrap().is_empty());

    let (status, body) = executor
        .post(&request(&granted(&shell(json!([["false"]])))))
        .await;
    assert_eq!(
        (status, &body["result"]["code"]),
        (200, &json!("STEP_FAILED")),
        "{body}"
    );
    // Not on the list of programs: the policy holds here, too.
    let (status, body) = executor
        .post(&request(&granted(&shell(json!([["bash", "-c", "id"]])))))
        .await;
    assert_eq!(
        (status, &body["result"]["code"]),
        (200, &json!("POLICY_DENIED")),
        "{body}"
    );
    // Each step had a workspace of its own.
    let (_, body) = executor
        .post(&request(&granted(&shell(json!([["cat", "copy"]])))))
        .await;
    assert_eq!(body["result"]["code"], "STEP_FAILED", "{body}");
}

#[tokio::test]
async fn only_the_operator_is_let_in() {
    let world = World::new().await;
    let executor = world.endpoint(&[]).await;
    let request = request(&granted(&shell(json!([["true"]])))).to_string();
    let json = "Content-Type: application/json\r\n";
    for headers in [
        json.to_owned(),
        format!("{json}Authorization: Bearer {}\r\n", KEY.replace('0', "1")),
        format!("{json}Authorization: Bearer \r\n"),
        format!("{json}Authorization: Basic {KEY}\r\n"),
        format!("{json}Authorization: {KEY}\r\n"),
    ] {
        let answer = executor.post_as(&headers, &request).await;
        assert_eq!(code(&answer), (401, "UNAUTHORIZED"), "{headers}");
    }
    let keyless = world.executor().await;
    let answer = keyless.post_as(&operator(), &request).await;
    assert_eq!(code(&answer), (401, "UNAUTHORIZED"));
    // None of them has used the token up.
    assert_eq!(executor.post_as(&operator(), &request).await.0, 200);
}

#[tokio::test]
async fn nothing_is_run_without_a_grant_for_it() {
    let world = World::new().await;
    let executor = world.endpoint(&[]).await;
    let good = granted(&shell(json!([["true"]])));
    let (now, day) = (SystemTime::now(), Duration::from_secs(24 * 3600));
    let forged = good.sign_with(&KeyPair::new());
    let tokens = [
        ("signature", forged),
        (
            "audience",
            Grant {
                audience: "executor".to_owned(),
                ..good.clone()
            }
            .sign(),
        ),
        (
            "task",
            Grant {
                task: Uuid::new_v4(),
                ..good.clone()
            }
            .sign(),
        ),
        (
            "plan",
            Grant {
                plan: 2,
                ..good.clone()
            }
            .sign(),
        ),
        (
            "action",
            Grant {
                step: shell(json!([["false"]])),
                ..good.clone()
            }
            .sign(),
        ),
        (
            "expiry",
            Grant {
                expiry: now - Duration::from_secs(1),
                ..good.clone()
            }
            .sign(),
        ),
        (
            "lifetime",
            Grant {
                expiry: now + 2 * day,
                ..good.clone()
            }
            .sign(),
        ),
        ("form", "A".repeat(400)),
    ];
    for (property, token) in tokens {
        let mut request = request(&good);
        request["capability"] = json!(token);
        let answer = executor.post(&request).await;
        assert_eq!(code(&answer), (403, "CAPABILITY_VIOLATION"), "{property}");
        let detail = answer.1["detail"].as_str().unwrap();
        assert!(
            detail.contains(&format!(": {property} does not fit")),
            "{property}: {detail}"
        );
        assert!(
            !answer.1.to_string().contains(&token),
            "it quotes the token"
        );
    }
    assert_eq!(executor.post(&request(&good)).await.0, 200);
}

#[tokio::test]
async fn what_breaks_the_contract_is_refused_with_its_place() {
    let world = World::new().await;
    let executor = world.endpoint(&[]).await;
    let good = request(&granted(&shell(json!([["true"]]))));
    let with = |pointer: &str, value: Value| {
        let mut request = good.clone();
        *request.pointer_mut(pointer).unwrap() = value;
        request
    };
    for (pointer, request) in [
        (
            "/step/limits/wall_ms",
            with("/step/limits/wall_ms", json!(0)),
        ),
        (
            "/step/action",
            with("/step/action", json!({"kind": "prayer"})),
        ),
        ("/step/arm", with("/step/arm", json!("planner"))),
        ("/capability", with("/capability", json!("short"))),
        ("", with("/task_id", json!("none"))),
        ("", json!([])),
    ] {
        let answer = executor.post(&request).await;
        assert_eq!(code(&answer), (422, "INVALID_REQUEST"), "{request}");
        let errors = answer.1["errors"].as_array().cloned().unwrap_or_default();
        let is_named = |error: &Value| error["pointer"].as_str().unwrap().starts_with(pointer);
        assert!(
            pointer.is_empty() || errors.iter().any(is_named),
            "{pointer}: {errors:?}"
        );
    }
    let text = good.to_string();
    let plain = operator().replace("application/json", "text/plain");
    for (status, headers, body) in [
        (422, plain, text.clone()),
        (422, operator(), text[..100].to_owned()),
        (413, operator(), "x".repeat(300_000)),
    ] {
        let answer = executor.post_as(&headers, &body).await;
        assert_eq!(answer.0, status, "{}", answer.1);
    }
    assert_eq!(executor.post(&good).await.0, 200);
}

#[tokio::test]
async fn a_token_is_good_for_one_use() {
    let world = World::new().await;
    let executor = world.endpoint(&[]).await;
    let request = request(&granted(&shell(json!([["true"]]))));
    let answers = futures::future::join_all((0..4).map(|_| executor.post(&request))).await;
    let mut codes: Vec<_> = answers.iter().map(code).collect();
    codes.sort_unstable();
    assert_eq!(codes[0], (200, ""), "{codes:?}");
    // Each of them found a place, or did not; none has run it once more.
    assert!(
        codes[1..]
            .iter()
            .all(|code| [(409, "REPLAYED"), (503, "ARM_UNAVAILABLE")].contains(code))
    );
    assert_eq!(code(&executor.post(&request).await), (409, "REPLAYED"));
    assert_eq!(executor.stop().await, Some(0));
    let next = world.endpoint(&[]).await;
    assert_eq!(code(&next.post(&request).await), (409, "REPLAYED"));
    assert_eq!(
        next.metric("octollm_executor_executions_total{result=\"REPLAYED\"}")
            .await,
        1.0
    );
}

#[tokio::test]
async fn no_more_steps_run_than_may() {
    let world = World::new().await;
    let executor = world.endpoint(&[("OCTO_EXECUTOR__CONCURRENCY", "1")]).await;
    let mut task = world.task().await;
    let (marker, waiting) = (marker(), request(&granted(&shell(json!([["true"]])))));
    let nap = request(&granted(&shell(json!([["sleep", marker]]))));
    let running = executor.send(&operator(), &nap.to_string()).await;
    eventually("the step does not run", async || {
        (alive(&marker) > 0).then_some(())
    })
    .await;
    assert_eq!(
        code(&executor.post(&waiting).await),
        (503, "ARM_UNAVAILABLE")
    );
    task.dispatch("next", command(json!([["true"]])), json!({}))
        .await;

    // Who hangs up has the step killed, and its place and workspace are free again.
    drop(running);
    eventually("the step goes on", async || {
        (alive(&marker) == 0).then_some(())
    })
    .await;
    assert_eq!(task.result("next").await.0, "step.executed");
    let answer = eventually("the place is not free", async || {
        let answer = executor.post(&waiting).await;
        (answer.0 != 503).then_some(answer)
    })
    .await;
    assert_eq!(
        answer.0, 200,
        "a refusal has used the token up: {}",
        answer.1
    );
    assert_eq!(code(&executor.post(&nap).await), (409, "REPLAYED"));
}

#[tokio::test]
async fn a_stop_kills_the_operator_s_step() {
    let world = World::new().await;
    let executor = world.endpoint(&[]).await;
    let marker = marker();
    let nap = request(&granted(&shell(json!([["sleep", marker]]))));
    let running = executor.send(&operator(), &nap.to_string()).await;
    eventually("the step does not run", async || {
        (alive(&marker) > 0).then_some(())
    })
    .await;
    assert_eq!(executor.stop().await, Some(0));
    assert_eq!(alive(&marker), 0);
    assert_eq!(code(&answer(running).await), (503, "ARM_UNAVAILABLE"));
}
