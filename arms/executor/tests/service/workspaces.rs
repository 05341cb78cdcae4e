//! Workspaces of ended tasks.

use super::*;

impl Task<'_> {
    fn workspace(&self) -> PathBuf {
        self.world.workspaces().join(self.id.to_string())
    }
}

const RETENTION: &str = "OCTO_EXECUTOR__WORKSPACE_RETENTION_SECONDS";

async fn is_gone(workspace: &Path) {
    eventually("the workspace stays", async || {
        (!workspace.exists()).then_some(())
    })
    .await;
}

fn write() -> Value {
    json!({"kind": "file", "op": "write", "path": "a", "text": "a"})
}

#[tokio::test]
async fn the_workspace_of_an_ended_task_is_removed_after_its_time() {
    let world = World::new().await;
    let argv = [env!("CARGO_BIN_EXE_octollm-executor")];
    let executor = world.executor_with(&argv, &[(RETENTION, "1")]).await;
    let (mut ended, mut open) = (world.task().await, world.task().await);
    for task in [&mut ended, &mut open] {
        assert_eq!(
            task.run("write", write(), json!({})).await.0,
            "step.executed"
        );
        assert!(task.workspace().join("a").exists());
    }
    let asked = Instant::now();
    ended.end("task.completed").await;
    is_gone(&ended.workspace()).await;
    assert!(
        asked.elapsed() >= Duration::from_secs(1),
        "{:?}",
        asked.elapsed()
    );
    assert!(open.workspace().join("a").exists());
    let removed = "octollm_executor_workspaces_removed_total";
    eventually("it is not counted", async || {
        (executor.metric(removed).await == 1.0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_ended_while_no_executor_listened_is_found_in_the_log() {
    let world = World::new().await;
    let executor = world.executor().await;
    let (mut ended, mut open) = (world.task().await, world.task().await);
    for task in [&mut ended, &mut open] {
        assert_eq!(
            task.run("write", write(), json!({})).await.0,
            "step.executed"
        );
    }
    executor.stop().await;
    ended.end("task.failed").await;
    assert!(ended.workspace().exists());
    let argv = [env!("CARGO_BIN_EXE_octollm-executor")];
    let _next = world.executor_with(&argv, &[(RETENTION, "0")]).await;
    is_gone(&ended.workspace()).await;
    assert!(open.workspace().exists());
}

#[tokio::test]
async fn a_step_that_still_runs_keeps_its_workspace() {
    let world = World::new().await;
    let argv = [env!("CARGO_BIN_EXE_octollm-executor")];
    let executor = world.executor_with(&argv, &[(RETENTION, "0")]).await;
    let mut task = world.task().await;
    task.dispatch("nap", command(json!([["sleep", "9"]])), json!({}))
        .await;
    eventually("the step does not run", async || {
        (executor.metric("octollm_executor_steps_running").await == 1.0).then_some(())
    })
    .await;
    // The end of the task kills the step; only then is its workspace free.
    task.end("task.cancelled").await;
    is_gone(&task.workspace()).await;
    assert_eq!(executor.metric("octollm_executor_steps_running").await, 0.0);
    let log = std::fs::read_to_string(&executor.log).unwrap();
    assert!(!log.contains("was not removed"), "{log}");
}
