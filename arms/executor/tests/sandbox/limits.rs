//! What a step may use.

use nix::unistd::{AccessFlags, access};
use octollm_executor::sandbox::{Ending, Layer, StageExit};

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
    if has_groups() {
        assert_eq!(run.ending, Ending::OutOfMemory(1));
    } else {
        assert!(stderr(&run).contains("MemoryError"), "{}", stderr(&run));
    }
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
    if has_groups() {
        assert_eq!(run.refused_processes, 1);
    }
}

/// Whether this host lets us make control groups: then their layers must be there.
fn has_groups() -> bool {
    [
        "/sys/fs/cgroup/memory",
        "/sys/fs/cgroup/cgroup.subtree_control",
    ]
    .iter()
    .any(|path| access(*path, AccessFlags::W_OK).is_ok())
}

#[tokio::test]
async fn groups_are_in_force_where_the_host_has_them() {
    let run = Bench::new().run(&["true"]).await;
    for layer in [
        Layer::StepMemory,
        Layer::StepProcesses,
        Layer::StepCpu,
        Layer::CgroupKill,
    ] {
        assert_eq!(
            run.layers.contains(&layer),
            has_groups(),
            "{layer:?}: {:?}",
            run.layers
        );
    }
}

#[tokio::test]
async fn memory_of_the_step_as_a_whole_is_limited() {
    if !has_groups() {
        return;
    }
    // Four processes of 64 MiB each; no single one of them has more than the lower limit.
    let script = "import os, signal\n\
         children = []\n\
         ready, tell = os.pipe()\n\
         for _ in range(4):\n\
         \x20   pid = os.fork()\n\
         \x20   if pid == 0: x = b'x' * (64 << 20); os.write(tell, b'x'); signal.pause()\n\
         \x20   children.append(pid)\n\
         os.close(tell)\n\
         got = 0\n\
         while got < 4:\n\
         \x20   part = os.read(ready, 4)\n\
         \x20   if not part: break\n\
         \x20   got += len(part)\n\
         print(got)";
    let mut bench = Bench::new();
    let run = bench.python(script).await;
    assert_eq!(
        (run.ending.clone(), stdout(&run).as_str()),
        (Ending::Completed, "4\n"),
        "{}",
        stderr(&run)
    );
    assert!(run.usage.memory_peak_bytes > 256 << 20, "{:?}", run.usage);
    // The others may wait for the one that was killed.
    (bench.limits.memory_bytes, bench.limits.wall) = (128 << 20, Duration::from_secs(5));
    let run = bench.python(script).await;
    assert!(
        matches!(run.ending, Ending::OutOfMemory(1..)),
        "{:?} {}",
        run.ending,
        stdout(&run)
    );
}

#[tokio::test]
async fn what_lies_in_tmp_is_memory_of_the_step() {
    if !has_groups() {
        return;
    }
    let mut bench = Bench::new();
    (bench.limits.tmp_bytes, bench.limits.file_bytes) = (256 << 20, 256 << 20);
    let fill = ["dd", "if=/dev/zero", "of=/tmp/big", "bs=1M", "count=128"];
    assert_eq!(bench.run(&fill).await.stages, [StageExit::Code(0)]);
    bench.limits.memory_bytes = 64 << 20;
    let run = bench.run(&fill).await;
    assert!(
        matches!(run.ending, Ending::OutOfMemory(1..)),
        "{:?}",
        run.ending
    );
}

#[tokio::test]
async fn a_fork_bomb_stays_within_its_step() {
    let mut bench = Bench::new();
    (bench.limits.processes, bench.limits.wall) = (16, Duration::from_secs(3));
    let bomb = "import os, time\n\
         end = time.monotonic() + 1\n\
         while time.monotonic() < end:\n\
         \x20   try: os.fork()\n\
         \x20   except OSError: pass\n\
         os._exit(1)";
    // Another step works meanwhile.
    let other = Bench::new();
    let (run, beside) = tokio::join!(
        bench.python(bomb),
        other.shell("true & true & wait; echo ok")
    );
    assert_eq!(stdout(&beside), "ok\n");
    if has_groups() {
        assert!(run.refused_processes > 0, "{run:?}");
    }
}

#[tokio::test]
async fn a_step_has_one_processor() {
    if !has_groups() {
        return;
    }
    // What the programs use says little on a busy machine; what the kernel holds them to is the point.
    let mine = format!("-{}-", std::process::id());
    let quotas = || {
        let files = ["cpu/cpu.cfs_quota_us", "unified/cpu.max", "cpu.max"];
        let places = files.map(|file| file.rsplit_once('/').unwrap_or(("", file)));
        places
            .into_iter()
            .flat_map(|(place, file)| {
                let groups = std::fs::read_dir(format!("/sys/fs/cgroup/{place}"));
                groups
                    .into_iter()
                    .flatten()
                    .flatten()
                    .map(move |group| (group, file))
            })
            .filter(|(group, _)| {
                let name = group.file_name().into_string().unwrap();
                name.starts_with("octollm-step-") && name.contains(&mine)
            })
            .filter_map(|(group, file)| {
                let read = |file| std::fs::read_to_string(group.path().join(file)).ok();
                // A group without a process is being made, or removed.
                read("cgroup.procs").filter(|processes| !processes.is_empty())?;
                read(file)
            })
            .collect::<Vec<_>>()
    };
    let bench = Bench::new();
    let job = bench.job(&[&["sleep", "600"]]);
    let cancel = CancellationToken::new();
    let seen = async {
        loop {
            let quotas = quotas();
            if !quotas.is_empty() {
                return quotas;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let quotas = tokio::select! {
        quotas = seen => quotas,
        _ = bench.sandbox.run(job, &cancel) => panic!("it ended"),
    };
    for quota in quotas {
        let processor = quota.trim();
        assert!(
            ["100000", "100000 100000"].contains(&processor),
            "{processor}"
        );
    }
}

#[tokio::test]
async fn no_group_is_left() {
    let own = || {
        let mine = format!("-{}-", std::process::id());
        let places =
            ["memory", "pids", "cpu", "unified", ""].map(|place| format!("/sys/fs/cgroup/{place}"));
        places
            .iter()
            .flat_map(std::fs::read_dir)
            .flatten()
            .flatten()
            .map(|entry| entry.file_name().into_string().unwrap())
            .filter(|name| name.starts_with("octollm-step-") && name.contains(&mine))
            .collect::<std::collections::BTreeSet<_>>()
    };
    let bench = Bench::new();
    // Groups of tests beside this one come and go; one of before that stays would be left over.
    let job = bench.job(&[&["sleep", "600"]]);
    {
        let cancel = CancellationToken::new();
        let running = bench.sandbox.run(job, &cancel);
        let seen = tokio::time::timeout(Duration::from_secs(2), running).await;
        assert!(seen.is_err());
    }
    bench.shell("setsid sleep 600 & exit 0").await;
    let before = own();
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    while before.iter().any(|name| own().contains(name)) {
        assert!(std::time::Instant::now() < deadline, "left: {:?}", own());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
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
