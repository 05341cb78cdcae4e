//! The same walls where the executor is not root, and what is left when it is killed.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Instant;

use octollm_executor::sandbox::{Layer, gaps};

use super::*;

/// Names the marker to a copy of this program that is to run a step until it is killed.
const HOLDER: &str = "OCTO_TEST_HOLDER";

#[test]
fn the_walls_stand_where_the_executor_is_not_root() {
    if !geteuid().is_root() {
        return;
    }
    // Copies: the user may not reach where they were built.
    let place = tempfile::tempdir().unwrap();
    let copy = |from: &Path, name: &str| {
        let to = place.path().join(name);
        std::fs::copy(from, &to).unwrap();
        std::fs::set_permissions(&to, PermissionsExt::from_mode(0o755)).unwrap();
        to
    };
    std::fs::set_permissions(place.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let tests = copy(&std::env::current_exe().unwrap(), "tests");
    let launcher = copy(
        Path::new(env!("CARGO_BIN_EXE_octollm-executor")),
        "launcher",
    );
    let output = Command::new(tests)
        .args([
            "escape::",
            "calls::",
            "view::",
            "unprivileged::",
            "--test-threads=2",
        ])
        .env(LAUNCHER, launcher)
        .current_dir("/")
        .uid(65534)
        .gid(65534)
        .output()
        .unwrap();
    let seen = text(&output.stdout);
    assert!(output.status.success(), "{seen}");
    let passed = seen.matches(" ... ok").count();
    assert!(passed >= 30, "{passed} tests: {seen}");
}

#[tokio::test]
async fn what_is_not_enforced_is_named() {
    let run = Bench::new().run(&["true"]).await;
    let gaps = gaps(&run.layers);
    for (layer, name) in [
        (Layer::StepMemory, "memory"),
        (Layer::StepCpu, "cpu"),
        (Layer::Landlock, "landlock"),
        (Layer::Seccomp, "seccomp"),
        (Layer::CallWitness, "denials"),
    ] {
        assert_eq!(
            gaps.contains_key(name),
            !run.layers.contains(&layer),
            "{gaps:?}"
        );
    }
}

/// Not a test of its own: what the test below kills.
#[tokio::test]
async fn holder() {
    if let Ok(marker) = std::env::var(HOLDER) {
        Bench::new()
            .shell(&format!("setsid sleep {marker} & sleep {marker}"))
            .await;
    }
}

#[tokio::test]
async fn an_executor_that_is_killed_leaves_nothing() {
    let marker = format!("9998.{:09}", Uuid::new_v4().as_u128() % 1_000_000_000);
    let mut executor = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "unprivileged::holder"])
        .env(HOLDER, &marker)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while survivors::pids(&marker).len() < 2 {
        assert!(Instant::now() < deadline, "nothing was started");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let name = format!("-{}-", executor.id());
    let groups = || -> BTreeSet<String> {
        let places = ["memory", "pids", "cpu", "unified", ""];
        let places = places.map(|place| format!("/sys/fs/cgroup/{place}"));
        let entries = places
            .iter()
            .flat_map(std::fs::read_dir)
            .flatten()
            .flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        names
            .filter(|group| group.starts_with("octollm-step-") && group.contains(&name))
            .collect()
    };
    let before = groups();
    executor.kill().unwrap();
    executor.wait().unwrap();
    // The kernel takes the processes with the executor; the groups go with the next start.
    let run = Bench::new().run(&["true"]).await;
    assert_eq!(
        before.is_empty(),
        !run.layers.contains(&Layer::StepProcesses)
    );
    let deadline = Instant::now() + Duration::from_secs(20);
    while !survivors::pids(&marker).is_empty() || !groups().is_empty() {
        assert!(
            Instant::now() < deadline,
            "left: {:?} {:?}",
            survivors::pids(&marker),
            groups()
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
