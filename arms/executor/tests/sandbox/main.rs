//! The namespace sandbox against what programs do to get out of it, to outlive it, or to flood it.
//!
//! The trait sits below the policy, so these tests run shells and Python: the sandbox must hold even then.

mod calls;
mod escape;
mod limits;
mod outputs;
mod survivors;
mod tools;
mod unprivileged;
mod view;
mod work;

use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use nix::unistd::{Gid, Uid, geteuid};
use octollm_executor::action::Redirect;
use octollm_executor::sandbox::namespace::{Namespace, Owner};
use octollm_executor::sandbox::{
    HEAD_BYTES, Job, Limits, Program, Run, Sandbox, SandboxError, View,
};
use octollm_executor::workspace::{Caps, Tree};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Names another launcher than the one that was built with the tests.
const LAUNCHER: &str = "OCTO_TEST_LAUNCHER";

const LIMITS: Limits = Limits {
    wall: Duration::from_secs(30),
    cpu_seconds: 60,
    memory_bytes: 512 << 20,
    processes: 32,
    open_files: 256,
    file_bytes: 8 << 20,
    tmp_bytes: 4 << 20,
    workspace: Caps {
        bytes: 16 << 20,
        entries: 1000,
    },
    output_bytes: 1 << 20,
};

/// A sandbox, and the workspace that its last run has left.
struct Bench {
    sandbox: Namespace,
    workspace: Mutex<Tree>,
    limits: Limits,
}

impl Bench {
    fn new() -> Self {
        // Root gives programs another user; others run them as themselves.
        let owner = geteuid().is_root().then(|| Owner {
            uid: Uid::from_raw(65534),
            gid: Gid::from_raw(65534),
        });
        let launcher = std::env::var_os(LAUNCHER);
        let launcher = launcher.map_or(env!("CARGO_BIN_EXE_octollm-executor").into(), Into::into);
        let sandbox = Namespace::new(launcher, owner).unwrap();
        Self {
            sandbox,
            workspace: Mutex::default(),
            limits: LIMITS,
        }
    }

    fn job(&self, stages: &[&[&str]]) -> Job {
        Job {
            workspace: self.workspace.lock().unwrap().to_tar(),
            view: View::System,
            stages: stages.iter().map(|argv| program(argv)).collect(),
            environment: Vec::new(),
            cwd: None,
            script: None,
            stdin: None,
            redirect: None,
            limits: self.limits,
            head_bytes: HEAD_BYTES,
        }
    }

    async fn run_job(&self, job: Job) -> Result<Run, SandboxError> {
        let caps = job.limits.workspace;
        let run = self.sandbox.run(job, &CancellationToken::new()).await?;
        if let Some(archive) = &run.workspace {
            *self.workspace.lock().unwrap() = Tree::from_tar(&**archive, &caps).unwrap().0;
        }
        Ok(run)
    }

    /// Content of a file in the workspace.
    fn file(&self, path: &str) -> String {
        let path = path.to_owned().try_into().unwrap();
        let read = self.workspace.lock().unwrap().read(&path, 1 << 20);
        text(&read.unwrap())
    }

    async fn run(&self, argv: &[&str]) -> Run {
        self.run_job(self.job(&[argv])).await.unwrap()
    }

    async fn shell(&self, script: &str) -> Run {
        self.run(&["sh", "-c", script]).await
    }

    async fn python(&self, script: &str) -> Run {
        self.run(&["python3", "-c", script]).await
    }
}

fn program(argv: &[&str]) -> Program {
    let path = Path::new("/usr/bin").join(argv[0]);
    Program {
        path,
        argv: argv.iter().map(|&argument| argument.to_owned()).collect(),
    }
}

fn redirect(path: &str, append: bool) -> Redirect {
    Redirect {
        path: path.to_owned().try_into().unwrap(),
        append,
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn stdout(run: &Run) -> String {
    text(&run.stdout.head)
}

fn stderr(run: &Run) -> String {
    text(&run.stderr.head)
}
