//! Where a step's programs run.
//!
//! [`Sandbox`] is what the rest of the executor knows; [`namespace`] is the backend that needs no daemon: a launcher
//! process (this same binary) builds Linux namespaces around the programs and reports what became of them.

mod calls;
mod capture;
mod closure;
mod environment;
mod filter;
mod group;
mod init;
mod landlock;
pub mod launcher;
mod memory;
pub mod namespace;
mod protocol;
mod syscall;
mod view;
mod witness;
mod work;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::action::Redirect;
use crate::workspace::{Caps, WorkspacePath};

pub use capture::{Captured, HEAD_BYTES, TAIL_BYTES};
pub use environment::environment_names;

/// Where the text of a script lies inside, for its interpreter to read.
pub const SCRIPT: &str = "/script";
/// Where programs are looked up inside; the host's `/usr` is shown there.
const PATH: [&str; 2] = ["/usr/bin", "/bin"];

/// Runs pipelines isolated from the host.
pub trait Sandbox: Send + Sync {
    /// Runs one pipeline until it ends, exceeds a limit, or is cancelled. When this returns, no process of the
    /// pipeline is left, whatever it did to escape its parent. Dropping the future kills the pipeline, too.
    fn run<'a>(
        &'a self,
        job: Job,
        cancel: &'a CancellationToken,
    ) -> BoxFuture<'a, Result<Run, SandboxError>>;
}

/// A pipeline and what it may use.
#[derive(Debug, Clone)]
pub struct Job {
    /// The workspace, as [`Tree::to_tar`](crate::workspace::Tree::to_tar) gives it; nothing is the empty one. Inside it is
    /// `/work`.
    pub workspace: Bytes,
    /// What of the host's files it sees.
    pub view: View,
    /// Programs, wired by pipes; at least one.
    pub stages: Vec<Program>,
    /// Variables besides `PATH`, `HOME`, `LANG` and `TMPDIR`; a name that makes programs load other code is refused.
    pub environment: Vec<(String, String)>,
    /// Working directory; none: the workspace.
    pub cwd: Option<WorkspacePath>,
    /// The text of a script, which is the file [`SCRIPT`]: readable, and nothing else.
    pub script: Option<String>,
    /// Standard input of the first stage.
    pub stdin: Option<Vec<u8>>,
    /// Where the last stage's stdout goes instead of the output.
    pub redirect: Option<Redirect>,
    /// What it may use.
    pub limits: Limits,
    /// Bytes kept of the start of each output; [`TAIL_BYTES`] of its end are kept besides.
    pub head_bytes: usize,
}

/// What of the host's files a pipeline sees, read-only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum View {
    /// These programs with all that they need to start (interpreter, libraries), and these directories whole; absolute
    /// paths. Nothing else is there, and nothing but the programs and their interpreters can be executed. What the host
    /// does not have is left out.
    Granted(Vec<PathBuf>),
    /// All of `/usr`, `/bin`, `/sbin` and `/lib*`.
    System,
}

/// A program and its arguments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// Absolute path inside the sandbox, as on the host.
    pub path: PathBuf,
    /// Name and arguments; no NUL bytes.
    pub argv: Vec<String>,
}

impl Program {
    /// The program that a shell inside would start: a name is looked up in the sandbox's `PATH`, anything with a slash is
    /// a path. What is nowhere fails when it is started, as it would in a shell.
    #[must_use]
    pub fn look_up(argv: &[String]) -> Self {
        let name = argv.first().map_or("", String::as_str);
        let path = if name.contains('/') {
            PathBuf::from(name)
        } else {
            let places = PATH.map(|directory| Path::new(directory).join(name));
            let found = places.iter().find(|place| place.is_file());
            found.unwrap_or(&places[0]).clone()
        };
        Self {
            path,
            argv: argv.to_vec(),
        }
    }
}

/// What a pipeline may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Wall clock, from the start of the programs.
    pub wall: Duration,
    /// CPU seconds of one process.
    pub cpu_seconds: u64,
    /// Memory of the whole pipeline with its `/tmp` and `/dev/shm`, bytes; where the host gives us no control group,
    /// address space of one process.
    pub memory_bytes: u64,
    /// Processes of the whole pipeline.
    pub processes: u64,
    /// Open files of one process.
    pub open_files: u64,
    /// Bytes of one file.
    pub file_bytes: u64,
    /// Bytes of `/tmp` and of `/dev/shm`, each.
    pub tmp_bytes: u64,
    /// What the workspace may hold.
    pub workspace: Caps,
    /// stdout and stderr together, bytes.
    pub output_bytes: u64,
}

/// What became of a pipeline.
#[derive(Debug, Clone)]
pub struct Run {
    /// Why it ended.
    pub ending: Ending,
    /// How each stage ended, in order; empty if they were not started.
    pub stages: Vec<StageExit>,
    /// What the last stage wrote to stdout.
    pub stdout: Captured,
    /// What all stages wrote to stderr.
    pub stderr: Captured,
    /// What it used.
    pub usage: Usage,
    /// Processes and threads that were refused because there were as many as granted; counted by the control group.
    pub refused_processes: u64,
    /// The workspace as the programs left it: an archive for [`Tree::from_tar`](crate::workspace::Tree::from_tar), to be
    /// trusted in nothing. None where they were killed, or nothing was started.
    pub workspace: Option<Bytes>,
    /// The most that it had at once, and in all.
    pub peaks: Peaks,
    /// What it tried and was denied, as far as the kernel tells.
    pub denials: Vec<Denial>,
    /// The layers of isolation that were in force.
    pub layers: Vec<Layer>,
    /// What exactly these layers enforced.
    pub digests: Digests,
}

/// The most that a pipeline had; none where this host does not count it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Peaks {
    /// Memory of all processes together, as in [`Usage::memory_peak_bytes`].
    pub memory_bytes: u64,
    /// Processes and threads at once, the sandbox's own two among them.
    pub processes: Option<u64>,
    /// User and system time of all processes.
    pub cpu: Duration,
    /// Bytes that all processes passed to writing calls: into files and pipes, and what the sandbox itself wrote to set
    /// them up.
    pub written_bytes: Option<u64>,
}

/// Digests of what was enforced: SHA-256, lower-case hex; none where the layer was not in force.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Digests {
    /// The filter of system calls, as the kernel got it: the instructions one after the other, native byte order.
    pub filter: Option<String>,
    /// The Landlock ruleset: a line for what it handles, and one for each rule, in the order of their paths.
    pub ruleset: Option<String>,
    /// The files shown: root of a Merkle tree over the path and digest of each. None for [`View::System`].
    pub view: Option<String>,
}

/// Something that a pipeline tried and was denied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Denial {
    /// What denied it.
    pub kind: DenialKind,
    /// What it was: the name of a system call, a limit; never anything that the program wrote.
    pub detail: String,
    /// How often.
    pub count: u64,
}

/// What denied something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DenialKind {
    /// The filter of system calls.
    Seccomp,
    /// The Landlock ruleset.
    Landlock,
    /// The limit on memory: the kernel killed processes.
    Oom,
    /// The limit on processes.
    Pids,
    /// A file system was full.
    Disk,
}

impl DenialKind {
    /// The name in data.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Seccomp => "seccomp",
            Self::Landlock => "landlock",
            Self::Oom => "oom",
            Self::Pids => "pids",
            Self::Disk => "disk",
        }
    }
}

impl fmt::Display for Denial {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{}: {} ({}x)",
            self.kind.as_str(),
            self.detail,
            self.count
        )
    }
}

/// Why a pipeline ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// All stages ended by themselves.
    Completed,
    /// The wall clock ran out; everything was killed.
    TimedOut,
    /// More output than granted; everything was killed.
    OutputLimit,
    /// The memory granted was used up: the kernel killed so many processes, and everything else was killed.
    OutOfMemory(u64),
    /// So many processes were refused that it can't come to an end by itself; everything was killed.
    ProcessLimit(u64),
    /// Cancelled; everything was killed.
    Cancelled,
    /// It could not be started as asked: a redirect's directory is missing, a program can't be executed.
    NotStarted(String),
}

/// How one stage ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StageExit {
    /// It exited with this code.
    Code(u8),
    /// This signal ended it.
    Signal(u8),
}

impl StageExit {
    /// Whether it exited with code 0.
    #[must_use]
    pub fn is_success(self) -> bool {
        self == Self::Code(0)
    }
}

/// What a pipeline used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Usage {
    /// Wall clock from the start of the programs until none was left.
    pub duration: Duration,
    /// User and system time of all processes.
    pub cpu: Duration,
    /// The most memory that all processes had together, with the files they had in the page cache, bytes; where the host
    /// gives us no control group, the largest resident set of one. Never below the launcher's own, a few MiB.
    pub memory_peak_bytes: u64,
}

/// A layer of isolation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layer {
    /// User namespace, entered as a user that is not root on the host.
    UserNamespace,
    /// Mount namespace with a root of its own: a read-only view of the system's programs and the workspace.
    MountNamespace,
    /// Process ids of its own; its first process is ours, and everything dies with it.
    PidNamespace,
    /// No network, not even loopback.
    NetworkNamespace,
    /// System V and POSIX message queues of its own.
    IpcNamespace,
    /// Host name of its own.
    UtsNamespace,
    /// Its own view of the control groups.
    CgroupNamespace,
    /// `/proc` shows its own processes only, and nothing of the kernel's settings.
    PrivateProc,
    /// No further user namespaces can be made inside.
    NoNestedNamespaces,
    /// A session keyring of its own.
    SessionKeyring,
    /// All capabilities dropped, the bounding set too, and locked.
    NoCapabilities,
    /// `no_new_privs`: set-id bits mean nothing.
    NoNewPrivileges,
    /// Resource limits of each process, and the number of processes.
    ResourceLimits,
    /// Files by path, TCP, signals and abstract sockets: Landlock, behind the mount view.
    Landlock,
    /// Memory of the step as a whole.
    StepMemory,
    /// Processes of the step as a whole, counted.
    StepProcesses,
    /// One processor's time for the step as a whole.
    StepCpu,
    /// A control group that the kernel kills in one go.
    CgroupKill,
    /// Only the system calls that generic tools need, and these without arguments that lead out.
    Seccomp,
    /// Refused calls that tell of an attempt to get out are counted.
    CallWitness,
}

impl Layer {
    /// The name in data and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UserNamespace => "user_namespace",
            Self::MountNamespace => "mount_namespace",
            Self::PidNamespace => "pid_namespace",
            Self::NetworkNamespace => "network_namespace",
            Self::IpcNamespace => "ipc_namespace",
            Self::UtsNamespace => "uts_namespace",
            Self::CgroupNamespace => "cgroup_namespace",
            Self::PrivateProc => "private_proc",
            Self::NoNestedNamespaces => "no_nested_namespaces",
            Self::SessionKeyring => "session_keyring",
            Self::NoCapabilities => "no_capabilities",
            Self::NoNewPrivileges => "no_new_privileges",
            Self::ResourceLimits => "resource_limits",
            Self::Landlock => "landlock",
            Self::StepMemory => "step_memory",
            Self::StepProcesses => "step_processes",
            Self::StepCpu => "step_cpu",
            Self::CgroupKill => "cgroup_kill",
            Self::Seccomp => "seccomp",
            Self::CallWitness => "call_witness",
        }
    }
}

/// What a step lacks in these layers, with the reason.
#[must_use]
pub fn gaps(layers: &[Layer]) -> BTreeMap<&'static str, &'static str> {
    let lacking = |layer| !layers.contains(&layer);
    let gaps = [
        (
            lacking(Layer::Landlock),
            "landlock",
            "not in force: which files a program reaches is up to the mount namespace alone",
        ),
        (
            lacking(Layer::Seccomp),
            "seccomp",
            "not in force: a program may make every call that the kernel grants an ordinary user",
        ),
        (
            lacking(Layer::CallWitness),
            "denials",
            "refused system calls are not counted (no listener for the filter, or somebody else has it)",
        ),
        (
            lacking(Layer::StepMemory),
            "memory",
            "limited for each process (rlimits), not for the step as a whole (no control group)",
        ),
        (
            lacking(Layer::StepCpu),
            "cpu",
            "limited in all, not in its share of the processors (no control group)",
        ),
    ];
    gaps.into_iter()
        .filter_map(|(is_open, name, reason)| is_open.then_some((name, reason)))
        .collect()
}

/// The sandbox could not do its work; the step is not to blame.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// A layer can't be had on this host, and nothing has run. The code is `SANDBOX_UNAVAILABLE`.
    #[error("the sandbox can't be set up: {0}; `octo doctor` says what this host lacks")]
    Unavailable(String),
    /// The launcher ended without a report, was not ready in time, or did not confirm that everything is gone; something
    /// may have run. The code is `INTERNAL_ERROR`.
    #[error("the sandbox was lost: {0}; run the step again")]
    Lost(String),
}
