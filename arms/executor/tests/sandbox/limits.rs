//! What a step may use.

use std::time::Instant;

use nix::unistd::{AccessFlags, access};
use octollm_executor::sandbox::{DenialKind, Ending, Layer, StageExit};

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
        assert!(tells(&run, DenialKind::Oom), "{:?}", run.denials);
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
    bench.limits.memory_bytes = 128 << 20;
    let run = bench.python(script).await;
    assert!(
        matches!(run.ending, Ending::OutOfMemory(1..)),
        "{:?} {}",
        run.ending,
        stdout(&run)
    );
}

/// Who waits for a process that the kernel has killed would wait until the step's time is over.
#[tokio::test]
async fn a_step_that_used_up_its_memory_ends_at_once_as_a_whole() {
    if !has_groups() {
        return;
    }
    let mut bench = Bench::new();
    (bench.limits.memory_bytes, bench.limits.wall) = (64 << 20, Duration::from_secs(600));
    let script = "import os, time\n\
         print('started', flush=True)\n\
         if os.fork() == 0: x = b'x' * (256 << 20)\n\
         time.sleep(600)";
    let started = Instant::now();
    let run = bench.python(script).await;
    assert!(
        started.elapsed() < Duration::from_secs(60),
        "{:?}",
        started.elapsed()
    );
    assert!(
        matches!(run.ending, Ending::OutOfMemory(1..)),
        "{:?}",
        run.ending
    );
    assert_eq!(stdout(&run), "started\n");
    assert!(run.usage.cpu > Duration::ZERO, "{:?}", run.usage);
}

fn tells(run: &Run, kind: DenialKind) -> bool {
    run.denials
        .iter()
        .any(|denial| denial.kind == kind && denial.count > 0)
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
async fn a_fork_bomb_ends_long_before_its_time() {
    let mut bench = Bench::new();
    (bench.limits.processes, bench.limits.wall) = (16, Duration::from_secs(600));
    if !has_groups() {
        bench.limits.wall = Duration::from_secs(2);
    }
    let bomb = "import os\n\
         while True:\n\
         \x20   try: os.fork()\n\
         \x20   except OSError: pass";
    // Another step works meanwhile.
    let other = Bench::new();
    let started = Instant::now();
    let (run, beside) = tokio::join!(
        bench.python(bomb),
        other.shell("true & true & wait; echo ok")
    );
    assert_eq!(stdout(&beside), "ok\n");
    assert!(
        started.elapsed() < Duration::from_secs(60),
        "{:?}",
        started.elapsed()
    );
    if has_groups() {
        assert!(
            matches!(run.ending, Ending::ProcessLimit(100..)),
            "{:?}",
            run.ending
        );
        assert!(tells(&run, DenialKind::Pids), "{:?}", run.denials);
    } else {
        assert_eq!(run.ending, Ending::TimedOut);
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
        assert!(tells(&run, DenialKind::Disk), "{:?}", run.denials);
    }
}

#[tokio::test]
async fn names_in_tmp_are_limited() {
    let script = "import os\n\
         made = 0\n\
         try:\n\
         \x20   while True: os.close(os.open(f'/tmp/{made}', os.O_CREAT)); made += 1\n\
         except OSError as error: print(made < 20000, error.strerror)";
    let mut bench = Bench::new();
    bench.limits.tmp_bytes = 64 << 20;
    let run = bench.python(script).await;
    assert_eq!(
        stdout(&run),
        "True No space left on device\n",
        "{}",
        stderr(&run)
    );
    assert_eq!(run.denials[0].detail, "/tmp has no names left");
}

#[tokio::test]
async fn a_file_with_holes_can_not_be_longer_than_the_limit() {
    for place in ["/work", "/tmp"] {
        let path = format!("{place}/holes");
        let run = Bench::new().run(&["truncate", "-s", "200G", &path]).await;
        assert_eq!(run.stages, [StageExit::Signal(nix::libc::SIGXFSZ as u8)]);
    }
}

#[tokio::test]
async fn a_step_without_a_descriptor_left_goes_on() {
    let script = "import os\n\
         kept = []\n\
         try:\n\
         \x20   while True: kept.append(os.open('/dev/null', os.O_RDONLY))\n\
         except OSError as error: print(len(kept) > 200, error.strerror)";
    let run = Bench::new().python(script).await;
    assert_eq!(
        stdout(&run),
        "True Too many open files\n",
        "{}",
        stderr(&run)
    );
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
    assert!(bench.workspace.lock().unwrap().is_empty());
}
