//! What is put on record.

use sha2::{Digest, Sha256};

use super::*;

#[tokio::test]
async fn a_step_that_succeeds_is_recorded_with_its_output() {
    let world = World::new().await;
    let executor = world.executor().await;
    let mut task = world.task().await;
    let acceptance = json!([{"kind": "contains", "text": "hello"}]);
    let (kind, result) = task
        .run(
            "echo",
            command(json!([["echo", "hello world"], ["cat"]])),
            json!({"acceptance": acceptance}),
        )
        .await;
    assert_eq!(kind, "step.executed");
    assert_eq!(
        (
            &result["exit_code"],
            &result["attempt"],
            &result["plan_version"]
        ),
        (&json!(0), &json!(1), &json!(1))
    );
    let stdout = &result["output"]["stdout"];
    assert_eq!(
        (&stdout["head"], &stdout["bytes"]),
        (&json!("hello world\n"), &json!(12))
    );
    assert_eq!(
        stdout["digest"],
        hex::encode(Sha256::digest("hello world\n"))
    );
    assert_eq!(
        result["checks"],
        json!([{"criterion": acceptance[0], "passed": true, "detail": "found"}])
    );
    assert!(result["usage"]["memory_peak_bytes"].as_u64().unwrap() > 0);

    let events = task.events().await; // reading checks the chain
    let recorded = events.last().unwrap();
    assert_eq!(recorded.causation_id, events[1].id.to_string());
    assert_eq!(recorded.source, "/octollm/executor");
    // The event is stored a moment before it is counted.
    eventually("the result was not counted", async || {
        let counted = executor
            .metric("octollm_executor_results_total{result=\"executed\"}")
            .await;
        (counted == 1.0).then_some(())
    })
    .await;
    assert_eq!(executor.stop().await, Some(0));
}

#[tokio::test]
async fn each_way_to_fail_has_its_code() {
    let world = World::new().await;
    let _executor = world.executor().await;
    let mut task = world.task().await;
    let quick = json!({"wall_ms": 300, "memory_bytes": 268_435_456, "output_bytes": 1_048_576});
    let small = json!({"wall_ms": 30000, "memory_bytes": 268_435_456, "output_bytes": 1024});
    for (number, (action, fields, code, said)) in [
        (command(json!([["false"]])), json!({}), "STEP_FAILED", "false (stage 1) ended with exit code 1"),
        (command(json!([["cat", "missing"], ["false"]])), json!({}), "STEP_FAILED", "cat (stage 1) ended with exit code 1, false (stage 2)"),
        (
            command(json!([["echo", "a"]])),
            json!({"acceptance": [{"kind": "contains", "text": "a"}, {"kind": "contains", "text": "b"}]}),
            "STEP_FAILED",
            "stdout contains \"b\"",
        ),
        (
            command(json!([["false"]])),
            json!({"acceptance": [{"kind": "exit_code", "code": 2}]}),
            "STEP_FAILED",
            "exit code is 2",
        ),
        (command(json!([["bash", "-c", "true"]])), json!({}), "POLICY_DENIED", "allowed are"),
        (command(json!([["sort", "--compress-program=sh"]])), json!({}), "POLICY_DENIED", "sort: \"--compress-program\" is not an option that is allowed"),
        (command(json!([["sleep", "60"]])), json!({"limits": quick}), "TIMEOUT", "300 ms"),
        (command(json!([["seq", "100000"]])), json!({"limits": small}), "OUTPUT_LIMIT", "1024 bytes"),
        (
            json!({"kind": "command", "pipeline": [["echo"]], "redirect": {"path": "no/such/dir"}}),
            json!({}),
            "STEP_FAILED",
            "no/such/dir",
        ),
        (json!({"kind": "file", "op": "mkdir", "path": "d", "text": "x"}), json!({}), "INVALID_REQUEST", "text"),
        (json!({"kind": "check", "criteria": [{"kind": "file_exists", "path": "gone"}]}), json!({}), "STEP_FAILED", "gone exists"),
    ]
    .into_iter()
    .enumerate()
    {
        let (kind, result) = task.run(&format!("s{number}"), action.clone(), fields).await;
        assert_eq!((kind.as_str(), result["code"].as_str().unwrap()), ("step.failed", code), "{action}: {result}");
        let message = result["message"].as_str().unwrap();
        assert!(message.contains(said), "{message:?} does not say {said:?}");
    }
    let (_, denied) = task.result("s4").await;
    assert_eq!(denied["violations"].as_array().unwrap().len(), 1);
    let (_, failed) = task.result("s2").await;
    assert_eq!(
        (
            &failed["exit_code"],
            &failed["checks"][0]["passed"],
            &failed["checks"][1]["passed"]
        ),
        (&json!(0), &json!(true), &json!(false))
    );
    let (_, timed_out) = task.result("s6").await;
    assert!(
        timed_out["usage"]["duration_ms"].as_u64().unwrap() >= 300
            && timed_out["exit_code"] == Value::Null
    );
}

#[tokio::test]
async fn an_exit_code_that_is_accepted_is_a_success() {
    let world = World::new().await;
    let _executor = world.executor().await;
    let mut task = world.task().await;
    let accepted = json!({"acceptance": [{"kind": "exit_code", "code": 1}]});
    let (kind, result) = task
        .run("grep", command(json!([["grep", "x"]])), accepted)
        .await;
    assert_eq!(
        (kind.as_str(), &result["exit_code"]),
        ("step.executed", &json!(1))
    );
}

#[tokio::test]
async fn steps_share_the_workspace_and_are_checked_across() {
    let world = World::new().await;
    let _executor = world.executor().await;
    let mut task = world.task().await;
    let write =
        json!({"kind": "file", "op": "write", "path": "in/data.json", "text": "{\"n\": 3}"});
    assert_eq!(task.run("write", write, json!({})).await.0, "step.executed");
    let copy = json!({"kind": "command", "pipeline": [["cat", "in/data.json"], ["tee", "in/copy.json"]],
                      "redirect": {"path": "out.txt"}});
    assert_eq!(task.run("copy", copy, json!({})).await.0, "step.executed");
    let print = command(json!([["cat", "out.txt"]]));
    assert_eq!(task.run("print", print, json!({})).await.0, "step.executed");
    let check = json!({"kind": "check", "criteria": [
        {"kind": "json_path", "query": "$.n", "equals": 3, "path": "in/copy.json"},
        {"kind": "equals", "text": "{\"n\": 3}", "step": "print"},
        {"kind": "file_exists", "path": "out.txt"},
    ]});
    let (kind, result) = task.run("check", check, json!({})).await;
    assert_eq!(kind, "step.executed", "{result}");
    assert_eq!(result["checks"].as_array().unwrap().len(), 3);

    let mut other = world.task().await;
    let (kind, _) = other
        .run("peek", command(json!([["cat", "out.txt"]])), json!({}))
        .await;
    assert_eq!(kind, "step.failed", "a task sees another's workspace");
}

#[tokio::test]
async fn outputs_are_screened_and_stay_within_the_log_s_limits() {
    let world = World::new().await;
    let _executor = world.executor().await;
    let mut task = world.task().await;
    let pii = "write to ada.lovelace@example.org";
    let (_, result) = task
        .run(
            "pii",
            command(json!([["echo", pii], ["tee", "/dev/stderr"]])),
            json!({"acceptance": [{"kind": "equals", "text": pii}]}),
        )
        .await;
    let recorded = result["output"].to_string();
    assert!(
        recorded.contains("[EMAIL]") && !recorded.contains("lovelace"),
        "{recorded}"
    );

    let (_, result) = task
        .run(
            "fails",
            command(json!([["echo", pii]])),
            json!({"acceptance": [{"kind": "equals", "text": "x"}]}),
        )
        .await;
    assert!(
        !result["message"].as_str().unwrap().contains("lovelace"),
        "{}",
        result["message"]
    );
    assert!(
        !result["checks"][0]["detail"]
            .as_str()
            .unwrap()
            .contains("lovelace"),
        "{}",
        result["checks"]
    );

    let (_, result) = task
        .run(
            "bytes",
            command(json!([["printf", "a\\377\\000b"]])),
            json!({}),
        )
        .await;
    assert_eq!(result["output"]["stdout"]["head"], "a\u{FFFD}\u{FFFD}b");
    assert_eq!(result["output"]["stdout"]["lossy"], true);

    // Every control character takes six bytes of JSON: head and tail as they are would pass the message's limit.
    let flood = command(json!([
        ["head", "-c", "500000", "/dev/zero"],
        ["tr", "\\000", "\\001"],
        ["tee", "/dev/stderr"]
    ]));
    let (kind, result) = task.run("flood", flood, json!({})).await;
    assert_eq!(kind, "step.executed", "{}", result["message"]);
    let stdout = &result["output"]["stdout"];
    assert_eq!(
        (&stdout["bytes"], &stdout["truncated"]),
        (&json!(500_000), &json!(true))
    );
    assert!(stdout["head"].as_str().unwrap().len() > 1000);
}

#[tokio::test]
async fn the_initial_files_are_where_a_task_starts() {
    let world = World::new().await;
    let executor = world.executor().await;
    let artifact = json!([
        {"path": "in/a.txt", "type": "file", "text": "from the start\n", "mode": "0640", "mtime": 1_000_000_000},
        {"path": "link", "type": "symlink", "target": "in/a.txt"},
    ])
    .to_string();
    let digest = hex::encode(Sha256::digest(&artifact));
    let name = format!("sha256-{digest}");
    let store = world
        .bus
        .jetstream()
        .get_object_store("ARTIFACTS")
        .await
        .unwrap();
    store
        .put(name.as_str(), &mut artifact.as_bytes())
        .await
        .unwrap();
    let files = json!({"artifact": name, "digest": digest, "entries": 2, "bytes": artifact.len()});
    let mut task = world.task_with(json!({"files": files})).await;
    let (_, result) = task
        .run(
            "look",
            command(json!([["stat", "-c", "%n %a %Y", "in/a.txt"]])),
            json!({}),
        )
        .await;
    assert_eq!(
        result["output"]["stdout"]["head"], "in/a.txt 640 1000000000\n",
        "{result}"
    );
    let (_, result) = task
        .run("read", command(json!([["cat", "link"]])), json!({}))
        .await;
    assert_eq!(result["output"]["stdout"]["head"], "from the start\n");
    let stored = "octollm_executor_snapshots_total";
    assert_eq!(executor.metric(stored).await, 0.0, "nothing was changed");

    let size = artifact.len();
    for forged in [
        json!({"artifact": name, "digest": "0".repeat(64), "entries": 2, "bytes": size}),
        json!({"artifact": name, "digest": digest, "entries": 3, "bytes": size}),
        json!({"artifact": "sha256-missing", "digest": digest, "entries": 2, "bytes": size}),
    ] {
        let mut task = world.task_with(json!({"files": forged})).await;
        let (_, result) = task.run("look", command(json!([["ls"]])), json!({})).await;
        assert_eq!(result["code"], "INTERNAL_ERROR", "{result}");
    }
}

#[tokio::test]
async fn parallel_steps_of_one_task_all_get_their_result() {
    let world = World::new().await;
    let _executor = world.executor().await;
    let mut task = world.task().await;
    for number in 0..12 {
        task.dispatch(
            &format!("p{number}"),
            command(json!([["echo", number.to_string()]])),
            json!({}),
        )
        .await;
    }
    for number in 0..12 {
        let (kind, result) = task.result(&format!("p{number}")).await;
        assert_eq!(
            (kind.as_str(), &result["output"]["stdout"]["head"]),
            ("step.executed", &json!(format!("{number}\n")))
        );
    }
}

#[tokio::test]
async fn a_step_of_another_arm_is_left_alone() {
    let world = World::new().await;
    let executor = world.executor().await;
    let mut task = world.task().await;
    task.dispatch("theirs", command(json!([["true"]])), json!({"arm": "echo"}))
        .await;
    assert_eq!(
        task.run("ours", command(json!([["true"]])), json!({}))
            .await
            .0,
        "step.executed"
    );
    eventually("the other arm's dispatch was not delivered", async || {
        (executor.metric("octollm_executor_deliveries_total").await >= 2.0).then_some(())
    })
    .await;
    assert!(task.results("theirs").await.is_empty());
}

#[tokio::test]
async fn a_step_that_uses_up_its_memory_is_told_so() {
    let world = World::new().await;
    let _executor = world.executor().await;
    let mut task = world.task().await;
    let small = json!({"wall_ms": 30000, "memory_bytes": 67_108_864, "output_bytes": 1024});
    // A line that never ends.
    let endless = command(json!([["tail", "-n", "1", "/dev/zero"]]));
    let (kind, result) = task.run("endless", endless, json!({"limits": small})).await;
    assert_eq!(kind, "step.failed", "{result}");
    // Where there are no control groups, `tail` itself sees the limit of its address space.
    let has_groups = [
        "/sys/fs/cgroup/memory",
        "/sys/fs/cgroup/cgroup.subtree_control",
    ]
    .iter()
    .any(|path| nix::unistd::access(*path, nix::unistd::AccessFlags::W_OK).is_ok());
    if has_groups {
        assert_eq!(result["code"], "OOM_KILLED", "{result}");
        assert!(
            result["message"].as_str().unwrap().contains("oom_kill 1"),
            "{result}"
        );
    } else {
        assert_eq!(result["code"], "STEP_FAILED", "{result}");
    }
}
