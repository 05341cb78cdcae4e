//! System calls that lead out. The positive side is the same program on the host, where the call is answered otherwise.

use std::os::unix::process::ExitStatusExt;

use nix::libc;
use octollm_executor::sandbox::{Ending, StageExit};

use super::*;

/// Python that makes calls and prints what came back: the result, or the name of the error.
fn attempts(calls: &[(&str, libc::c_long, &str)]) -> String {
    let calls: String = calls
        .iter()
        .map(|(name, number, arguments)| format!("attempt('{name}', {number}, {arguments})\n"))
        .collect();
    format!(
        "import ctypes, errno, os\n\
         libc = ctypes.CDLL(None, use_errno=True)\n\
         word = ctypes.c_ulong\n\
         page = ctypes.create_string_buffer(4096)\n\
         def attempt(name, *call):\n\
         \x20   ctypes.set_errno(0)\n\
         \x20   result = libc.syscall(*(word(v) if isinstance(v, int) else v for v in call))\n\
         \x20   print(name, 'made' if result >= 0 else errno.errorcode[ctypes.get_errno()], flush=True)\n\
         {calls}"
    )
}

/// The answers on the host.
fn on_the_host(script: &str) -> std::process::Output {
    std::process::Command::new("python3")
        .args(["-c", script])
        .output()
        .unwrap()
}

#[tokio::test]
async fn dangerous_calls_are_refused() {
    let calls = [
        ("getpid", libc::SYS_getpid, "0"),
        ("ptrace", libc::SYS_ptrace, "0, 0, 0, 0"),
        (
            "process_vm_readv",
            libc::SYS_process_vm_readv,
            "os.getpid(), 0, 0, 0, 0, 0",
        ),
        ("kcmp", libc::SYS_kcmp, "os.getpid(), os.getpid(), 0, 0, 0"),
        ("keyctl", libc::SYS_keyctl, "0, -3 % 2**64, 0"),
        (
            "add_key",
            libc::SYS_add_key,
            "b'user', b'octollm-test', b'x', 1, -2 % 2**64",
        ),
        ("bpf", libc::SYS_bpf, "0, page, 0"),
        (
            "perf_event_open",
            libc::SYS_perf_event_open,
            "page, 0, 0, 0, 0",
        ),
        ("userfaultfd", libc::SYS_userfaultfd, "1"),
        ("unshare", libc::SYS_unshare, "0"),
        ("setns", libc::SYS_setns, "0, 0"),
        (
            "mknodat",
            libc::SYS_mknodat,
            "-100 % 2**64, b'/tmp/octollm-fifo', 0o10600, 0",
        ),
        ("vmsplice", libc::SYS_vmsplice, "1, 0, 0, 0"),
        ("clock_settime", libc::SYS_clock_settime, "99, page"),
        ("personality", libc::SYS_personality, "0x40000"),
        (
            "clone",
            libc::SYS_clone,
            "0x10000000 | 0x80000000000, 0, 0, 0, 0",
        ),
        ("ioctl", libc::SYS_ioctl, "0, 0x5412 | 1 << 32, b'x'"),
    ];
    let unknown = [
        ("io_uring_setup", libc::SYS_io_uring_setup, "1, page"),
        ("clone3", libc::SYS_clone3, "page, 0"),
        ("memfd_create", libc::SYS_memfd_create, "b'x', 0"),
        (
            "execveat",
            libc::SYS_execveat,
            "-1 % 2**64, b'', 0, 0, 0x1000",
        ),
    ];
    let all: Vec<_> = calls.into_iter().chain(unknown).collect();
    // Left out on the host: what would do something there.
    let harmless: Vec<_> = all
        .iter()
        .copied()
        .filter(|(name, ..)| {
            ![
                "clone",
                "userfaultfd",
                "bpf",
                "perf_event_open",
                "mknodat",
                "add_key",
            ]
            .contains(name)
        })
        .collect();
    let host = on_the_host(&attempts(&harmless));
    let host = text(&host.stdout);
    for name in [
        "getpid",
        "ptrace",
        "kcmp",
        "unshare",
        "personality",
        "memfd_create",
    ] {
        assert!(
            host.contains(&format!("{name} made\n")),
            "{name} on the host: {host}"
        );
    }

    let run = Bench::new().python(&attempts(&all)).await;
    let seen = stdout(&run);
    assert_eq!(seen.lines().count(), all.len(), "{seen} {}", stderr(&run));
    for (line, (name, ..)) in seen.lines().zip(&all) {
        let expected = match *name {
            "getpid" => "made",
            name if unknown.iter().any(|(unknown, ..)| *unknown == name) => "ENOSYS",
            _ => "EPERM",
        };
        assert_eq!(line, format!("{name} {expected}"));
    }
    // What tells of an attempt to get out is on record, the rest is not.
    let told: Vec<_> = run
        .denials
        .iter()
        .map(|denial| (denial.detail.as_str(), denial.count))
        .collect();
    assert_eq!(
        told,
        [
            ("add_key", 1),
            ("bpf", 1),
            ("clock_settime", 1),
            ("clone of a namespace", 1),
            ("io_uring_setup", 1),
            ("ioctl 0x5412", 1),
            ("kcmp", 1),
            ("keyctl", 1),
            ("perf_event_open", 1),
            ("process_vm_readv", 1),
            ("ptrace", 1),
            ("setns", 1),
            ("unshare", 1),
            ("userfaultfd", 1),
        ]
    );
}

#[tokio::test]
async fn after_some_calls_nobody_listens_and_nothing_is_allowed() {
    let script = format!(
        "import ctypes, errno\n\
         libc = ctypes.CDLL(None, use_errno=True)\n\
         seen = []\n\
         for _ in range(200):\n\
         \x20   assert libc.syscall({}, 0) < 0\n\
         \x20   seen.append(errno.errorcode[ctypes.get_errno()])\n\
         print(seen[:64].count('EPERM'), seen[64:].count('ENOSYS'), len(seen))",
        libc::SYS_unshare
    );
    let run = Bench::new().python(&script).await;
    assert_eq!(stdout(&run), "64 136 200\n", "{}", stderr(&run));
    assert_eq!(run.denials.len(), 1, "{:?}", run.denials);
    assert_eq!(run.denials[0].to_string(), "seccomp: unshare (64x)");
}

#[tokio::test]
async fn calls_of_many_processes_at_once_are_all_answered() {
    let script = format!(
        "import ctypes, os\n\
         libc = ctypes.CDLL(None, use_errno=True)\n\
         for _ in range(8):\n\
         \x20   if os.fork() == 0:\n\
         \x20       for _ in range(4): libc.syscall({}, 0, 0, 0, 0)\n\
         \x20       os._exit(ctypes.get_errno())\n\
         print([os.waitstatus_to_exitcode(os.wait()[1]) for _ in range(8)])",
        libc::SYS_ptrace
    );
    let run = Bench::new().python(&script).await;
    assert_eq!(
        stdout(&run),
        "[1, 1, 1, 1, 1, 1, 1, 1]\n",
        "{}",
        stderr(&run)
    );
    assert_eq!(run.denials[0].to_string(), "seccomp: ptrace (32x)");
}

#[tokio::test]
async fn sockets_of_other_families_are_not_there() {
    // Netlink, raw packets, the kernel's ciphers, the hypervisor's: all but the last are made on any host.
    let families = [2, 10, 16, 17, 38, 40];
    let script = "import socket, sys\n\
         for family in [1] + [int(a) for a in sys.argv[1:]]:\n\
         \x20   try: socket.socket(family, socket.SOCK_STREAM if family != 16 else socket.SOCK_RAW); print(family, 'made')\n\
         \x20   except OSError as error: print(family, error.errno)";
    let host = on_the_host(&script.replace("sys.argv[1:]", "[2, 16]"));
    assert_eq!(text(&host.stdout), "1 made\n2 made\n16 made\n");
    let mut argv = vec!["python3".to_owned(), "-c".to_owned(), script.to_owned()];
    argv.extend(families.map(|family: i32| family.to_string()));
    let argv: Vec<&str> = argv.iter().map(String::as_str).collect();
    let run = Bench::new().run(&argv).await;
    let refused: String = families
        .map(|family| format!("{family} {}\n", libc::EAFNOSUPPORT))
        .concat();
    assert_eq!(
        stdout(&run),
        format!("1 made\n{refused}"),
        "{}",
        stderr(&run)
    );
    let mut told: Vec<String> = run
        .denials
        .iter()
        .map(|denial| denial.detail.clone())
        .collect();
    told.sort();
    let mut expected = families.map(|family| format!("socket of family {family}"));
    expected.sort();
    assert_eq!(told, expected);
}

#[cfg(target_arch = "x86_64")]
#[tokio::test]
async fn the_numbers_of_another_architecture_kill() {
    // getpid of x32, and by the gate of i386 (mov eax, 20; int 0x80; ret).
    let x32 = "import ctypes; print(ctypes.CDLL(None).syscall(ctypes.c_ulong(0x40000000 | 39)))";
    let i386 = "import ctypes, mmap\n\
         code = mmap.mmap(-1, 4096, prot=7); code.write(bytes.fromhex('b814000000cd80c3'))\n\
         print(ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))())";
    let bench = Bench::new();
    for script in [x32, i386] {
        let run = bench.python(script).await;
        assert_eq!(
            run.stages,
            [StageExit::Signal(libc::SIGSYS as u8)],
            "{}",
            stderr(&run)
        );
        assert_eq!(run.ending, Ending::Completed);
        // Where the kernel has these gates at all, the call is answered; where not, x32 is an unknown number.
        let host = on_the_host(script);
        assert_ne!(host.status.signal(), Some(libc::SIGSYS), "{host:?}");
    }
}

#[tokio::test]
async fn a_file_in_memory_can_not_be_executed() {
    // Neither one that a program makes, nor the one that is its stdin.
    let own = "import os\n\
         f = os.memfd_create('x', {flags})\n\
         os.write(f, open('/usr/bin/true', 'rb').read())\n\
         os.execv(f'/proc/self/fd/{f}', ['true'])";
    assert!(on_the_host(&own.replace("{flags}", "0")).status.success());
    let bench = Bench::new();
    for flags in ["0", "8", "0x10"] {
        let run = bench.python(&own.replace("{flags}", flags)).await;
        assert_eq!(run.stages, [StageExit::Code(1)], "{}", stderr(&run));
        assert!(stderr(&run).contains("Error: [Errno"), "{}", stderr(&run));
    }
    let mut job = bench.job(&[&[
        "sh",
        "-c",
        "chmod 700 /proc/self/fd/0; exec /proc/self/fd/0",
    ]]);
    job.stdin = Some(b"#!/usr/bin/echo RAN".to_vec());
    let run = bench.run_job(job).await.unwrap();
    assert_eq!(
        (stdout(&run).as_str(), run.stages),
        ("", vec![StageExit::Code(126)])
    );
}
