//! What a step may use.

use octollm_executor::sandbox::StageExit;

use super::*;

#[tokio::test]
async fn memory_of_a_process_is_limited() {
    let mut bench = Bench::new();
    bench.limits.memory_bytes = 128 << 20;
    let run = bench.python("x = bytearray(64 << 20); print('ok')").await;
    assert_eq!(stdout(&run), "ok\n", "{}", stderr(&run));
    assert!(run.usage.memory_peak_bytes > 64 << 20, "{:?}", run.usage);
    let run = bench
        .python("x = bytearray(256 << 20); print('GOT IT')")
        .await;
    assert_eq!(stdout(&run), "");
    assert!(stderr(&run).contains("MemoryError"), "{}", stderr(&run));
}

#[tokio::test]
async fn processes_of_a_step_are_limited() {
    let mut bench = Bench::new();
    bench.limits.processes = 12;
    let run = bench
        .python(
            "import os, time\n\
             made = 0\n\
             try:\n\
             \x20   while made < 100:\n\
             \x20       if os.fork() == 0: time.sleep(60); os._exit(0)\n\
             \x20       made += 1\n\
             except BlockingIOError: pass\n\
             print(made, flush=True)",
        )
        .await;
    assert_eq!(stdout(&run), "11\n", "{}", stderr(&run));
}

#[tokio::test]
async fn the_limit_on_processes_is_each_step_s_own() {
    let mut bench = Bench::new();
    bench.limits.processes = 4;
    let script = "sleep 0.5 & sleep 0.5 & sleep 0.5 & wait; echo ok";
    let (one, other) = tokio::join!(bench.shell(script), bench.shell(script));
    assert_eq!(
        (stdout(&one), stdout(&other)),
        ("ok\n".to_owned(), "ok\n".to_owned())
    );
}

#[tokio::test]
async fn a_file_can_not_grow_past_the_limit() {
    let run = Bench::new()
        .run(&["dd", "if=/dev/zero", "of=/work/big", "bs=1M", "count=9"])
        .await;
    assert_eq!(run.stages, [StageExit::Signal(nix::libc::SIGXFSZ as u8)]);
}

#[tokio::test]
async fn tmp_is_limited() {
    for place in ["/tmp", "/dev/shm"] {
        let run = Bench::new()
            .run(&[
                "dd",
                "if=/dev/zero",
                &format!("of={place}/big"),
                "bs=1M",
                "count=6",
            ])
            .await;
        assert_eq!(run.stages, [StageExit::Code(1)]);
        assert!(stderr(&run).contains("No space left"), "{}", stderr(&run));
    }
}

#[tokio::test]
async fn cpu_time_is_limited_and_reported() {
    let mut bench = Bench::new();
    bench.limits.cpu_seconds = 1;
    let run = bench.python("while True: pass").await;
    assert!(
        matches!(run.stages[..], [StageExit::Signal(9 | 24)]),
        "{:?}",
        run.stages
    );
    // The kernel compares the limit with a coarser clock than the one that it reports.
    assert!(
        (500..3000).contains(&run.usage.cpu.as_millis()),
        "{:?}",
        run.usage
    );
}

#[tokio::test]
async fn open_files_are_limited_and_no_core_is_written() {
    let bench = Bench::new();
    let run = bench.shell("ulimit -n; ulimit -c; kill -SEGV $$").await;
    assert_eq!(stdout(&run), "256\n0\n");
    assert_eq!(run.stages, [StageExit::Signal(11)]);
    assert_eq!(
        std::fs::read_dir(bench.workspace.path()).unwrap().count(),
        0
    );
}
