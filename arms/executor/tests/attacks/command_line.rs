//! The promises of the command line itself, and ten cases through the real program: as the user that runs the tests,
//! and, where that is root, as nobody.

use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use octollm_events::carrier::ReceiptEnvelope;
use octollm_executor::receipt::{self, PublicKeys};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::case;
use super::host::Host;

/// A user without rights.
const NOBODY: u32 = 65534;
/// One of each kind that ends soon.
const CASES: [&str; 10] = [
    "files-of-the-host",
    "kernel-settings",
    "writes-outside",
    "nested-user-namespace",
    "io-uring",
    "numbers-of-x32",
    "loopback",
    "more-processes-than-granted",
    "deaf-to-signals",
    "the-answer-on-stdout",
];

/// The program in a place of its own, with what it keeps.
struct Octo {
    directory: TempDir,
    program: PathBuf,
    user: Option<u32>,
}

struct Answered {
    status: i32,
    document: Value,
    stdout: Vec<u8>,
    stderr: String,
}

impl Octo {
    fn new(user: Option<u32>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut program = PathBuf::from(env!("CARGO_BIN_EXE_octollm-executor"));
        if let Some(user) = user {
            // Where the build lies, nobody else may look.
            let copy = directory.path().join("octollm-executor");
            std::fs::copy(&program, &copy).unwrap();
            program = copy;
            std::os::unix::fs::chown(directory.path(), Some(user), Some(user)).unwrap();
        }
        Self {
            directory,
            program,
            user,
        }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .arg("exec")
            .args(arguments)
            .current_dir(self.directory.path())
            .env("OCTO_SECRET", "ESCAPED by the environment")
            .env("LD_LIBRARY_PATH", "/nonexistent")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if let Some(user) = self.user {
            command.uid(user).gid(user);
        }
        command
    }

    fn ask(&self, arguments: &[&str], request: &str) -> Answered {
        let mut child = self.command(arguments).spawn().unwrap();
        // Who refuses the command line does not read.
        let _ = child.stdin.take().unwrap().write_all(request.as_bytes());
        let output = child.wait_with_output().unwrap();
        let document = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
            let stderr = String::from_utf8_lossy(&output.stderr);
            panic!("no document: {error}\n{stderr}")
        });
        Answered {
            status: output.status.code().unwrap(),
            document,
            stdout: output.stdout,
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    fn run(&self, request: &Value) -> Answered {
        self.ask(&["--request", "-"], &request.to_string())
    }
}

/// Us, and nobody where we can become that.
fn users() -> Vec<Option<u32>> {
    let mut users = vec![None];
    users.extend(geteuid().is_root().then_some(Some(NOBODY)));
    users
}

#[test]
fn cases_through_the_real_program() {
    let host = Host::new();
    for user in users() {
        let octo = Octo::new(user);
        for case in case::all() {
            if !CASES.contains(&case.id.as_str()) {
                continue;
            }
            let marker = host.marker();
            let request = host.fill(&case.request, &marker);
            let free = octo.ask(&["--request", "-", "--bypass-policy"], &request);
            let text = String::from_utf8_lossy(&free.stdout);
            let who = format!("{} as {user:?}: {text}", case.id);
            assert!(!text.contains("ESCAPED"), "{who}");
            assert!(!text.contains(host.secret()), "{who}");
            assert!(text.contains("CONTROL"), "{who}");
            assert_eq!(host.survivors(&marker), Vec::<String>::new(), "{who}");
            assert_eq!(host.strays(&marker), Vec::<String>::new(), "{who}");
            assert!(free.stderr.contains("the policy is bypassed"), "{who}");
            let denied = octo.ask(&["--request", "-"], &request);
            assert_eq!(
                (denied.status, &denied.document["code"]),
                (3, &json!("POLICY_DENIED")),
                "{who}"
            );
        }
    }
    assert_eq!(host.damage(), Vec::<String>::new());
}

#[test]
fn the_document_has_the_members_of_the_contract() {
    let octo = Octo::new(None);
    let request = json!({
        "command": [["tr", "a-z", "A-Z"], ["tee", "out/b"]],
        "stdin": "text\n",
        "files": [{"path": "out", "type": "dir"}, {"path": "out/a", "type": "file", "text": "A", "mode": "0600", "mtime": 1}],
        "env": {"TZ": "UTC"},
        "cwd": ".",
        "timeout_s": 20,
        "collect": ["out/*"],
        "limits": {"memory_bytes": 268435456, "processes": 16, "open_files": 64, "file_bytes": 1048576,
                   "tmp_bytes": 1048576, "cpu_seconds": 10, "output_bytes": 65536,
                   "workspace_bytes": 1048576, "workspace_entries": 100}
    });
    let Answered {
        status,
        document,
        stdout,
        ..
    } = octo.run(&request);
    assert_eq!(status, 0, "{document}");
    for (member, expected) in [
        ("status", json!("ok")),
        ("code", Value::Null),
        ("exit_code", json!(0)),
        ("signal", Value::Null),
        ("stdout", json!("TEXT\n")),
        ("stderr", json!("")),
        ("truncated", json!(false)),
        ("bytes", json!({"stdout": 5, "stderr": 0})),
    ] {
        assert_eq!(document[member], expected, "{member} of {document}");
    }
    assert_eq!(
        document["artifacts"],
        json!({
            "out/a": {"base64": "QQ==", "sha256": "559aead08264d5795d3909718cdd05abd49572e84fe55590eef31a88a08fdffd"},
            "out/b": {"base64": "VEVYVAo=", "sha256": "052ab3bc0b8216dbf60e7a69b7cc85c30d6e26ae33f36ded5031ac285b4c17c3"},
        })
    );
    assert!(document["duration_ms"].is_u64());

    // The receipt is the last member, and vouches for the bytes before it.
    let envelope: ReceiptEnvelope = serde_json::from_value(document["receipt"].clone()).unwrap();
    let public =
        std::fs::read_to_string(octo.directory.path().join(".octo/keys/receipt.pub")).unwrap();
    let opened = receipt::open(&envelope, &PublicKeys::parse(&public).unwrap()).unwrap();
    let mut unsigned = document.clone();
    unsigned.as_object_mut().unwrap().remove("receipt");
    let result = String::from_utf8(stdout).unwrap();
    let (result, _) = result.rsplit_once(",\"receipt\":").unwrap();
    let result = format!("{result}}}");
    assert_eq!(serde_json::from_str::<Value>(&result).unwrap(), unsigned);
    let sha256 = &opened.statement.subject[0].digest.sha256;
    assert_eq!(
        *sha256,
        hex::encode(<sha2::Sha256 as sha2::Digest>::digest(result))
    );
    assert!(!opened.statement.predicate.policy.bypassed);
}

#[test]
fn the_exit_status_tells_what_became_of_it() {
    let octo = Octo::new(None);
    for (request, status, code) in [
        (json!({"command": ["true"]}), 0, Value::Null),
        (json!({"command": ["false"]}), 1, json!("STEP_FAILED")),
        (
            json!({"command": ["sleep", "60"], "timeout_s": 0.2}),
            1,
            json!("TIMEOUT"),
        ),
        (
            json!({"command": ["no-such-program"]}),
            3,
            json!("POLICY_DENIED"),
        ),
        (
            json!({"script": {"lang": "bash", "source": "true"}}),
            3,
            json!("POLICY_DENIED"),
        ),
        (
            json!({"command": ["true"], "timeout_s": 1e6}),
            3,
            json!("POLICY_DENIED"),
        ),
        (
            json!({"command": ["true"], "unknown": 1}),
            2,
            json!("INVALID_REQUEST"),
        ),
    ] {
        let answered = octo.run(&request);
        assert_eq!(
            (answered.status, &answered.document["code"]),
            (status, &code),
            "{request}"
        );
        assert_eq!(
            answered.stderr.contains("octo exec: "),
            status != 0,
            "{}",
            answered.stderr
        );
    }
    for (arguments, status, code) in [
        (
            &["--request", "-", "--backend", "docker"][..],
            75,
            "SANDBOX_UNAVAILABLE",
        ),
        (&["--request", "/nonexistent"], 2, "INVALID_REQUEST"),
        (
            &["--request", "-", "--policy", "/nonexistent"],
            2,
            "INVALID_REQUEST",
        ),
        (&["--request", "-", "--task", "../x"], 2, "INVALID_REQUEST"),
        (&["--request", "-", "--bypass"], 2, "INVALID_REQUEST"),
        (&[], 2, "INVALID_REQUEST"),
    ] {
        let answered = octo.ask(arguments, r#"{"command": ["true"]}"#);
        assert_eq!(
            (answered.status, &answered.document["code"]),
            (status, &json!(code)),
            "{arguments:?}"
        );
    }
}

#[test]
fn calls_of_one_task_share_a_workspace() {
    let octo = Octo::new(None);
    let ask = |task: &str, request: Value| {
        octo.ask(&["--request", "-", "--task", task], &request.to_string())
    };
    ask("one", json!({"command": ["tee", "a"], "stdin": "1"}));
    let file = json!([{"path": "b", "type": "file", "text": "2"}]);
    let seen = ask("one", json!({"command": ["cat", "a", "b"], "files": file}));
    assert_eq!(seen.document["stdout"], "12", "{}", seen.document);
    let other = ask("two", json!({"command": ["cat", "a"]}));
    assert_eq!(other.status, 1);
    let alone = octo.run(&json!({"command": ["cat", "a"]}));
    assert_eq!(alone.status, 1);
}

#[test]
fn two_calls_of_one_task_follow_each_other() {
    let octo = Octo::new(None);
    let append = |text: &str| {
        let mut child = octo
            .command(&["--request", "-", "--task", "one"])
            .spawn()
            .unwrap();
        let request =
            json!({"action": {"kind": "file", "op": "append", "path": "log", "text": text}});
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(request.to_string().as_bytes()).unwrap();
        child
    };
    let children: Vec<_> = (0..6).map(|_| append("x")).collect();
    for child in children {
        assert!(child.wait_with_output().unwrap().status.success());
    }
    let request = json!({"command": ["cat", "log"]}).to_string();
    let seen = octo.ask(&["--request", "-", "--task", "one"], &request);
    assert_eq!(seen.document["stdout"], "xxxxxx");
}

/// Whether the host has a process whose command line holds the text.
fn is_running(text: &str) -> bool {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let mut lines = processes.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    lines.any(|line| String::from_utf8_lossy(&line).contains(text))
}

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_signal_kills_the_step_and_is_answered() {
    let host = Host::new();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGKILL] {
        let octo = Octo::new(None);
        let sleeper = format!("9999.{}", host.marker());
        let mut child = octo
            .command(&["--request", "-", "--bypass-policy"])
            .spawn()
            .unwrap();
        let script = format!("trap '' INT TERM; setsid sleep {sleeper} & sleep {sleeper}");
        let request = json!({"script": {"lang": "bash", "source": script}}).to_string();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(request.as_bytes()).unwrap();
        drop(stdin);
        wait_until("nothing was started", || is_running(&sleeper));
        kill(Pid::from_raw(child.id().cast_signed()), signal).unwrap();
        let status = child.wait().unwrap();
        wait_until("the step outlived it", || !is_running(&sleeper));
        if signal == Signal::SIGKILL {
            continue;
        }
        let mut document = String::new();
        child
            .stdout
            .take()
            .unwrap()
            .read_to_string(&mut document)
            .unwrap();
        let document: Value = serde_json::from_str(&document).unwrap();
        assert_eq!(document["code"], "CANCELLED", "{signal}");
        assert_eq!(status.code(), Some(6));
    }
}

#[test]
fn nothing_is_left_behind_but_the_task_s_own() {
    let octo = Octo::new(None);
    octo.run(&json!({"command": ["tee", "a"], "stdin": "1"}));
    let left: Vec<_> = walk(&octo.directory.path().join(".octo"));
    let kept = ["exec", "keys", "receipt.key", "receipt.pub"];
    assert!(
        left.iter().all(|name| kept.contains(&name.as_str())),
        "{left:?}"
    );
}

fn walk(directory: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return Vec::new();
    };
    let mut names = Vec::new();
    for entry in entries.flatten() {
        names.push(entry.file_name().to_string_lossy().into_owned());
        names.extend(walk(&entry.path()));
    }
    names
}
