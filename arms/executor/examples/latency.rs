//! Start to finish of `/usr/bin/true`: plain, in bubblewrap with all namespaces, in the sandbox; and a soak.
//!
//! `latency LAUNCHER measure N` runs the three in turn, N times each, and prints one JSON object: milliseconds of each run
//! by system; without bubblewrap on the path that row is missing. `latency LAUNCHER soak N` runs N steps and prints what
//! this process holds before and after: descriptors, children, mounts, control groups.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::unistd::{Gid, Uid, geteuid};
use octollm_executor::sandbox::namespace::{Namespace, Owner};
use octollm_executor::sandbox::{Job, Limits, Program, Sandbox, View};
use octollm_executor::workspace::Caps;
use serde_json::json;
use tokio_util::sync::CancellationToken;

const TRUE: &str = "/usr/bin/true";
const BUBBLEWRAP: [&str; 16] = [
    "--unshare-all",
    "--ro-bind",
    "/usr",
    "/usr",
    "--symlink",
    "usr/lib",
    "/lib",
    "--symlink",
    "usr/lib64",
    "/lib64",
    "--proc",
    "/proc",
    "--dev",
    "/dev",
    "--die-with-parent",
    TRUE,
];

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [launcher, what, count] = arguments.as_slice() else {
        return Err("usage: latency LAUNCHER measure|soak N".into());
    };
    let count: usize = count.parse()?;
    let bench = Bench::new(PathBuf::from(launcher))?;
    let printed = match what.as_str() {
        "measure" => bench.measure(count).await?,
        "soak" => bench.soak(count).await?,
        other => return Err(format!("neither measure nor soak: {other}").into()),
    };
    println!("{printed}");
    Ok(())
}

struct Bench {
    sandbox: Namespace,
    job: Job,
}

impl Bench {
    fn new(launcher: PathBuf) -> Result<Self, Box<dyn Error>> {
        let owner = geteuid().is_root().then(|| Owner {
            uid: Uid::from_raw(65534),
            gid: Gid::from_raw(65534),
        });
        let job = Job {
            workspace: bytes::Bytes::new(),
            view: View::Granted(vec![TRUE.into()]),
            stages: vec![Program {
                path: TRUE.into(),
                argv: vec!["true".to_owned()],
            }],
            environment: Vec::new(),
            cwd: None,
            script: None,
            stdin: None,
            redirect: None,
            limits: Limits {
                wall: Duration::from_secs(60),
                cpu_seconds: 60,
                memory_bytes: 512 << 20,
                processes: 64,
                open_files: 1024,
                file_bytes: 64 << 20,
                tmp_bytes: 64 << 20,
                workspace: Caps::default(),
                output_bytes: 1 << 20,
            },
            head_bytes: 1024,
        };
        Ok(Self {
            sandbox: Namespace::new(launcher, owner)?,
            job,
        })
    }

    async fn step(&self) -> Result<(), Box<dyn Error>> {
        let run = self
            .sandbox
            .run(self.job.clone(), &CancellationToken::new())
            .await?;
        if run.stages.iter().all(|exit| exit.is_success()) && run.stages.len() == 1 {
            return Ok(());
        }
        Err(format!("{run:?}").into())
    }

    async fn measure(&self, count: usize) -> Result<serde_json::Value, Box<dyn Error>> {
        let plain = || started("/usr/bin/true", &[]);
        let wrapped = || started("bwrap", &BUBBLEWRAP);
        let has_bubblewrap = wrapped().is_ok();
        let mut times: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
        let mut took = |name, since: Instant| {
            times
                .entry(name)
                .or_default()
                .push(since.elapsed().as_secs_f64() * 1e3);
        };
        self.step().await?;
        for _ in 0..count {
            let since = Instant::now();
            plain()?;
            took("fork and exec", since);
            if has_bubblewrap {
                let since = Instant::now();
                wrapped()?;
                took("bubblewrap", since);
            }
            let since = Instant::now();
            self.step().await?;
            took("sandbox", since);
        }
        Ok(json!(times))
    }

    async fn soak(&self, count: usize) -> Result<serde_json::Value, Box<dyn Error>> {
        self.step().await?;
        let before = holdings()?;
        for _ in 0..count {
            self.step().await?;
        }
        let after = holdings()?;
        Ok(json!({ "before": before, "after": after }))
    }
}

fn started(program: &str, arguments: &[&str]) -> Result<(), Box<dyn Error>> {
    let mut command = Command::new(program);
    let status = command.args(arguments).stdin(Stdio::null()).status()?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("{program}: {status}").into())
    }
}

/// What this process holds of the host.
fn holdings() -> Result<BTreeMap<&'static str, usize>, Box<dyn Error>> {
    let mine = format!("-{}-", std::process::id());
    let places =
        ["memory", "pids", "cpu", "unified", ""].map(|place| format!("/sys/fs/cgroup/{place}"));
    let groups = places.iter().flat_map(fs::read_dir).flatten().flatten();
    let groups = groups.filter(|group| {
        let name = group.file_name().to_string_lossy().into_owned();
        name.starts_with("octollm-step-") && name.contains(&mine)
    });
    let children = fs::read_dir("/proc/self/task")?.flatten().map(|task| {
        let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        children.split_whitespace().count()
    });
    Ok(BTreeMap::from([
        ("descriptors", fs::read_dir("/proc/self/fd")?.count()),
        ("children", children.sum()),
        (
            "mounts",
            fs::read_to_string("/proc/self/mountinfo")?.lines().count(),
        ),
        ("control groups", groups.count()),
    ]))
}
