//! Ways out, one test each. Every test has a positive side: the same attempt works where it is allowed.

use octollm_executor::sandbox::{Ending, Layer, StageExit};

use super::*;

#[tokio::test]
async fn all_layers_are_in_force() {
    let run = Bench::new().run(&["true"]).await;
    assert_eq!(run.stages, [StageExit::Code(0)]);
    for layer in [
        Layer::UserNamespace,
        Layer::MountNamespace,
        Layer::PidNamespace,
        Layer::NetworkNamespace,
        Layer::IpcNamespace,
        Layer::UtsNamespace,
        Layer::CgroupNamespace,
        Layer::PrivateProc,
        Layer::NoNestedNamespaces,
        Layer::SessionKeyring,
        Layer::NoCapabilities,
        Layer::NoNewPrivileges,
        Layer::ResourceLimits,
        Layer::Landlock,
        Layer::Seccomp,
        Layer::CallWitness,
    ] {
        assert!(
            run.layers.contains(&layer),
            "{layer:?} is missing from {:?}",
            run.layers
        );
    }
}

#[tokio::test]
async fn every_namespace_is_its_own() {
    let names = ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"];
    let links = names.map(|name| format!("/proc/self/ns/{name}"));
    let mut argv = vec!["readlink"];
    argv.extend(links.iter().map(String::as_str));
    let seen = stdout(&Bench::new().run(&argv).await);
    assert_eq!(seen.lines().count(), names.len());
    for (link, inside) in links.iter().zip(seen.lines()) {
        assert_ne!(
            Path::new(inside),
            std::fs::read_link(link).unwrap(),
            "it shares {link} with the host"
        );
    }
}

#[tokio::test]
async fn the_network_is_out_of_reach() {
    // A listener of the host; nothing may connect to it, and not even loopback may be up.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    let run = Bench::new()
        .python(&format!(
            "import socket\n\
             for host in ('127.0.0.1', '10.0.0.1', '169.254.169.254'):\n\
             \x20   try:\n\
             \x20       socket.create_connection((host, {port}), timeout=2); print('REACHED', host)\n\
             \x20   except OSError as error: print('refused', error.errno)\n\
             try:\n\
             \x20   s = socket.socket(socket.AF_UNIX); s.connect('\\0anything'); print('REACHED abstract')\n\
             except OSError as error: print('refused', error.errno)"
        ))
        .await;
    let seen = stdout(&run);
    assert_eq!(
        seen.matches("refused").count(),
        4,
        "{seen} {}",
        stderr(&run)
    );
    // What would be there, were sockets allowed: one interface, and no route.
    let bench = Bench::new();
    let interfaces = stdout(&bench.run(&["tail", "-n", "+3", "/proc/self/net/dev"]).await);
    assert!(interfaces.trim_start().starts_with("lo:"), "{interfaces}");
    assert_eq!(interfaces.lines().count(), 1, "{interfaces}");
    let routes = stdout(
        &bench
            .run(&["tail", "-n", "+2", "/proc/self/net/route"])
            .await,
    );
    assert_eq!(routes, "");
}

#[tokio::test]
async fn host_files_are_not_there() {
    let canary_directory = tempfile::tempdir().unwrap();
    let canary = canary_directory.path().join("canary");
    std::fs::write(&canary, "the host's secret").unwrap();
    let canary = canary.to_str().unwrap();
    let bench = Bench::new();
    let run = bench
        .shell(&format!(
            "cat {canary} /proc/1/root{canary} /work/../..{canary}; echo; ls -a /"
        ))
        .await;
    assert!(!stdout(&run).contains("secret"), "{}", stdout(&run));
    assert_eq!(stderr(&run).matches("cat: ").count(), 3, "{}", stderr(&run));

    let run = bench.run(&["ls", "/"]).await;
    let mut seen: Vec<String> = stdout(&run).lines().map(str::to_owned).collect();
    seen.retain(|name| !name.starts_with("lib"));
    assert_eq!(seen, ["bin", "dev", "proc", "sbin", "tmp", "usr", "work"]);
    for gone in ["/etc/passwd", "/root", "/home", "/var", "/sys", "/run"] {
        assert_eq!(
            bench.run(&["test", "-e", gone]).await.stages,
            [StageExit::Code(1)],
            "{gone} is there"
        );
    }
}

#[tokio::test]
async fn a_link_out_of_the_workspace_leads_nowhere() {
    let canary_directory = tempfile::tempdir().unwrap();
    std::fs::write(canary_directory.path().join("canary"), "the host's secret").unwrap();
    let path = canary_directory.path().to_str().unwrap();
    let run = Bench::new()
        .shell(&format!(
            "ln -s {path} out; cat out/canary; ln -s / root; cat root{path}/canary"
        ))
        .await;
    assert_eq!(stdout(&run), "");
}

#[tokio::test]
async fn nothing_outside_work_and_tmp_can_be_written() {
    let bench = Bench::new();
    let run = bench
        .shell(
            "for f in /x /usr/x /bin/x /lib/x /dev/x /proc/x /proc/self/oom_score_adj /proc/1/oom_score_adj; do \
             (echo x > $f) 2>/dev/null && echo WROTE $f; done; \
             for f in /work/x /tmp/x /dev/shm/x; do echo x > $f && echo ok $f; done; \
             mount -o remount,rw /usr 2>/dev/null && echo REMOUNTED; umount /usr 2>/dev/null && echo UNMOUNTED; true",
        )
        .await;
    assert_eq!(
        stdout(&run),
        "ok /work/x\nok /tmp/x\nok /dev/shm/x\n",
        "{}",
        stderr(&run)
    );
}

/// The owner of `/usr` is nobody inside, so a write would fail even on a mount that allows it: the mounts are looked at.
#[tokio::test]
async fn every_mount_has_its_restrictions() {
    let run = Bench::new().run(&["cat", "/proc/self/mountinfo"]).await;
    let mut seen = 0;
    for line in stdout(&run).lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        let (place, options): (&str, Vec<&str>) = (fields[4], fields[5].split(',').collect());
        let required: &[&str] = match place {
            "/" | "/proc" | "/dev" => &["ro", "nosuid", "nodev", "noexec"],
            "/work" | "/tmp" | "/dev/shm" => &["nosuid", "nodev", "noexec"],
            device if device.starts_with("/dev/") => &["ro", "nosuid", "noexec"],
            _ => &["ro", "nosuid", "nodev"],
        };
        for option in required {
            assert!(options.contains(option), "{place} lacks {option}: {line}");
        }
        seen += 1;
    }
    assert!(seen >= 11, "{}", stdout(&run));
}

#[tokio::test]
async fn what_is_written_can_not_be_executed() {
    let run = Bench::new()
        .shell("for d in /work /tmp /dev/shm; do cp /usr/bin/true $d/t; $d/t && echo RAN $d; done; echo done")
        .await;
    assert_eq!(stdout(&run), "done\n");
    assert_eq!(
        stderr(&run).matches("Permission denied").count(),
        3,
        "{}",
        stderr(&run)
    );
}

#[tokio::test]
async fn kernel_settings_are_not_there() {
    let run = Bench::new()
        .shell(
            "ls /proc | grep -v '^[0-9]*$'; \
             for f in sys/kernel/core_pattern sysrq-trigger kcore kallsyms; do test -e /proc/$f && echo SEES $f; done; \
             test -e /sys && echo SEES sys; true",
        )
        .await;
    assert_eq!(stdout(&run), "self\nthread-self\n");
}

#[tokio::test]
async fn only_its_own_processes_are_seen() {
    let bench = Bench::new();
    let run = bench
        .shell("ls /proc | grep '^[0-9]*$' | tr '\\n' ' '; kill -0 1; kill -9 1; echo $$; hostname")
        .await;
    let seen = stdout(&run);
    let pids: Vec<u32> = seen
        .lines()
        .next()
        .unwrap()
        .split_whitespace()
        .map(|pid| pid.parse().unwrap())
        .collect();
    assert!(
        pids.contains(&1) && pids.iter().all(|pid| *pid < 20),
        "{seen}"
    );
    assert!(
        seen.ends_with("sandbox\n"),
        "killed by its own kill of process 1? {seen}"
    );
    assert_eq!(run.ending, Ending::Completed);
}

#[tokio::test]
async fn the_first_process_is_closed_to_the_programs() {
    let run = Bench::new()
        .shell(
            "cat /proc/1/environ /proc/1/maps /proc/1/mem 2>/dev/null && echo READ; \
             ls /proc/1/fd /proc/1/exe /proc/1/root/ 2>/dev/null && echo LISTED; \
             readlink /proc/1/exe && echo RESOLVED; true",
        )
        .await;
    assert_eq!(stdout(&run), "");
}

#[tokio::test]
async fn it_is_nobody_special_inside_and_outside() {
    let bench = Bench::new();
    let run = bench
        .shell("id -u; id -G; cat /proc/self/uid_map; grep -E 'Cap|NoNewPrivs' /proc/self/status")
        .await;
    let seen = stdout(&run);
    let mut lines = seen.lines();
    assert_eq!((lines.next(), lines.next()), (Some("1000"), Some("1000")));
    let map: Vec<u32> = lines
        .next()
        .unwrap()
        .split_whitespace()
        .map(|number| number.parse().unwrap())
        .collect();
    assert!(map[0] == 1000 && map[1] != 0 && map[2] == 1, "{map:?}");
    for name in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert!(
            seen.contains(&format!("{name}:\t0000000000000000")),
            "{seen}"
        );
    }
    assert!(seen.contains("NoNewPrivs:\t1"), "{seen}");
}

#[tokio::test]
async fn no_namespace_can_be_made_inside() {
    let run = Bench::new()
        .shell("for n in U Ur m n p i u C; do unshare -$n true 2>/dev/null && echo MADE $n; done; true")
        .await;
    assert_eq!(stdout(&run), "");
}

#[tokio::test]
async fn the_environment_is_the_four_names() {
    let run = Bench::new().run(&["env"]).await;
    let mut seen: Vec<String> = stdout(&run).lines().map(str::to_owned).collect();
    seen.sort();
    assert_eq!(
        seen,
        [
            "HOME=/work",
            "LANG=C.UTF-8",
            "PATH=/usr/bin:/bin",
            "TMPDIR=/tmp"
        ]
    );
}

#[tokio::test]
async fn no_descriptor_is_inherited() {
    // A descriptor of the executor that survives execve, as a careless library would leave it.
    let canary = tempfile::tempfile().unwrap();
    let leaked = nix::unistd::dup(&canary).unwrap();
    let run = Bench::new().run(&["ls", "/proc/self/fd"]).await;
    drop(leaked);
    // The fourth is the directory that `ls` itself reads.
    assert_eq!(stdout(&run), "0\n1\n2\n3\n");
}

#[tokio::test]
async fn there_is_no_terminal() {
    let bench = Bench::new();
    // Session and controlling terminal (proc_pid_stat(5)): that of process 1, and none.
    let run = bench
        .run(&["cut", "-d", " ", "-f", "6,7", "/proc/self/stat"])
        .await;
    assert_eq!(stdout(&run), "1 0\n");
    let run = bench.run(&["test", "-e", "/dev/tty"]).await;
    assert_eq!(run.stages, [StageExit::Code(1)]);
}

#[tokio::test]
async fn devices_are_the_harmless_ones() {
    let run = Bench::new()
        .shell("ls /dev | tr '\\n' ' '; head -c 4 /dev/zero | wc -c; echo x > /dev/null; mknod /tmp/d c 1 3 2>/dev/null && echo MADE; true")
        .await;
    assert_eq!(
        stdout(&run),
        "fd full null random shm stderr stdin stdout urandom zero 4\n"
    );
}

#[tokio::test]
async fn two_steps_of_a_task_share_the_workspace_and_nothing_else() {
    let bench = Bench::new();
    bench
        .shell("echo kept > /work/a; echo lost > /tmp/b; echo lost > /dev/shm/c")
        .await;
    let run = bench.shell("cat /work/a; ls -A /tmp /dev/shm").await;
    assert_eq!(stdout(&run), "kept\n/dev/shm:\n\n/tmp:\n");
}

/// The walls before it hide what Landlock would refuse, so this counts: the kernel stacks sixteen rulesets and no more.
/// What each one does is tested where it is made.
#[tokio::test]
async fn a_program_starts_inside_a_landlock_ruleset() {
    let script = format!(
        "import ctypes\n\
         libc = ctypes.CDLL(None, use_errno=True)\n\
         libc.prctl(38, 1, 0, 0, 0)\n\
         rights = ctypes.c_uint64(1 << 6)\n\
         ruleset = libc.syscall({}, ctypes.byref(rights), 8, 0)\n\
         stacked = 0\n\
         while libc.syscall({}, ruleset, 0) == 0: stacked += 1\n\
         print(stacked)",
        nix::libc::SYS_landlock_create_ruleset,
        nix::libc::SYS_landlock_restrict_self
    );
    let host = std::process::Command::new("python3")
        .args(["-c", &script])
        .output()
        .unwrap();
    let host: u32 = text(&host.stdout).trim().parse().unwrap();
    let run = Bench::new().python(&script).await;
    assert_eq!(
        stdout(&run).trim(),
        (host - 1).to_string(),
        "{}",
        stderr(&run)
    );
}
