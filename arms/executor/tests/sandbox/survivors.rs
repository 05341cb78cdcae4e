//! Processes that try to outlive their step.

use std::time::Instant;

use octollm_executor::sandbox::{Ending, StageExit};

use super::*;

/// Ways to dodge a kill; each keeps a process alive whose command line holds the marker.
const DODGES: [(&str, &str); 7] = [
    ("new session", "setsid sleep {marker} & sleep {marker}"),
    (
        "double fork",
        "(setsid sh -c 'sleep {marker} & exit' &) ; sleep {marker}",
    ),
    (
        "ignored signals",
        "trap '' TERM INT HUP QUIT; sleep {marker} & wait; sleep {marker}",
    ),
    (
        "stopped",
        "sleep {marker} & kill -STOP $!; kill -STOP $$; sleep {marker}",
    ),
    (
        "holds the output",
        "setsid sleep {marker} >&1 2>&2 & exec sleep {marker}",
    ),
    (
        "forks for ever",
        "while :; do setsid sleep {marker} & sleep 0.05; done",
    ),
    (
        "hydra",
        "python3 -c \"import os, time, signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nos.spawnlp(os.P_NOWAIT, 'sleep', 'sleep', '{marker}')\nfor _ in range(8):\n if os.fork() == 0: break\nwhile True:\n try:\n  if os.fork(): os._exit(0)\n  os.setsid()\n except OSError: pass\n time.sleep(0.001)\" & sleep {marker}",
    ),
];

/// Host processes whose command line holds the marker.
pub fn pids(marker: &str) -> Vec<i32> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let is_marked = |pid: &i32| {
        std::fs::read(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|command_line| text(&command_line).contains(marker))
    };
    pids.filter(is_marked).collect()
}

/// A duration that no other test sleeps: tells this test's processes from others'.
fn marker() -> String {
    let id = Uuid::new_v4().as_u128() % 1_000_000_000;
    format!("9999.{id:09}")
}

async fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_time_out_leaves_nobody() {
    let mut bench = Bench::new();
    bench.limits.wall = Duration::from_millis(400);
    for (name, script) in DODGES {
        let marker = marker();
        let started = Instant::now();
        let run = bench.shell(&script.replace("{marker}", &marker)).await;
        assert_eq!(run.ending, Ending::TimedOut, "{name}: {}", stderr(&run));
        assert!(
            started.elapsed() < Duration::from_secs(5),
            "{name} took {:?}",
            started.elapsed()
        );
        assert_eq!(pids(&marker), Vec::<i32>::new(), "{name}");
        assert!(
            run.usage.duration >= bench.limits.wall && run.usage.cpu > Duration::ZERO,
            "{:?}",
            run.usage
        );
    }
}

#[tokio::test]
async fn a_cancel_leaves_nobody() {
    let bench = Bench::new();
    for (name, script) in DODGES {
        let marker = marker();
        let cancel = CancellationToken::new();
        let job = bench.job(&[&["sh", "-c", &script.replace("{marker}", &marker)]]);
        let running = bench.sandbox.run(job, &cancel);
        let cancelling = async {
            wait_until("nothing was started", || !pids(&marker).is_empty()).await;
            cancel.cancel();
        };
        let (run, ()) = tokio::join!(running, cancelling);
        assert_eq!(run.unwrap().ending, Ending::Cancelled, "{name}");
        assert_eq!(pids(&marker), Vec::<i32>::new(), "{name}");
    }
}

#[tokio::test]
async fn the_end_of_the_pipeline_is_the_end_of_its_children() {
    let bench = Bench::new();
    let marker = marker();
    let started = Instant::now();
    // The survivor holds stdout open; the step must neither wait for it nor leave it behind.
    let run = bench
        .shell(&format!("setsid sleep {marker} & echo started; exit 3"))
        .await;
    assert_eq!(
        (run.ending, &run.stages[..]),
        (Ending::Completed, &[StageExit::Code(3)][..])
    );
    assert!(started.elapsed() < Duration::from_secs(5));
    assert_eq!(pids(&marker), Vec::<i32>::new());
}

#[tokio::test]
async fn a_dropped_run_leaves_nobody() {
    let bench = Bench::new();
    let marker = marker();
    let cancel = CancellationToken::new();
    let job = bench.job(&[&[
        "sh",
        "-c",
        &format!("setsid sleep {marker} & sleep {marker}"),
    ]]);
    let running = bench.sandbox.run(job, &cancel);
    let seen = wait_until("nothing was started", || pids(&marker).len() >= 2);
    tokio::select! {
        run = running => panic!("ended by itself: {run:?}"),
        () = seen => {}
    }
    wait_until("processes outlived the dropped run", || {
        pids(&marker).is_empty()
    })
    .await;
}

#[tokio::test]
async fn a_killed_launcher_takes_everything_with_it() {
    let bench = Bench::new();
    let marker = marker();
    let cancel = CancellationToken::new();
    let job = bench.job(&[&[
        "sh",
        "-c",
        &format!("setsid sleep {marker} & sleep {marker}"),
    ]]);
    let running = bench.sandbox.run(job, &cancel);
    let killing = async {
        wait_until("nothing was started", || pids(&marker).len() >= 2).await;
        let launcher = nix::unistd::Pid::from_raw(launcher(&marker));
        nix::sys::signal::kill(launcher, nix::sys::signal::Signal::SIGKILL).unwrap();
    };
    let (run, ()) = tokio::join!(running, killing);
    assert!(matches!(run, Err(SandboxError::Lost(_))), "{run:?}");
    wait_until("processes outlived their launcher", || {
        pids(&marker).is_empty()
    })
    .await;
}

/// The launcher of the marked processes: their ancestor that is a child of this process.
fn launcher(marker: &str) -> i32 {
    let mut pid = pids(marker)[0];
    loop {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let parent = status
            .lines()
            .find_map(|line| line.strip_prefix("PPid:\t"))
            .unwrap();
        if parent == std::process::id().to_string() {
            return pid;
        }
        pid = parent.parse().unwrap();
    }
}

#[tokio::test]
async fn fifty_at_once_all_end_well() {
    let bench = Bench::new();
    let runs = futures::future::join_all((0..50).map(|number| {
        let bench = &bench;
        async move { (number, bench.run(&["echo", &number.to_string()]).await) }
    }))
    .await;
    for (number, run) in runs {
        assert_eq!(
            (stdout(&run), run.stages),
            (format!("{number}\n"), vec![StageExit::Code(0)])
        );
    }
}
