//! What the executor and its launcher say to each other over the control socket: one JSON document per line.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::closure::Shown;
use super::{Denial, Digests, Layer, Limits, Program, StageExit};
use crate::action::Redirect;
use crate::workspace::WorkspacePath;

/// Bytes of one message, at most: an action is at most 256 KiB, and JSON may need six bytes for one.
const MAX_MESSAGE_BYTES: u64 = 4 << 20;

/// What the launcher is to do. The two ends of the workspace come before it ([`Work`](super::work::Work)).
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Order {
    /// Process id of the executor.
    pub parent: i32,
    /// User and group on the host to become first; none: stay who we are, which is not root.
    pub identity: Option<(u32, u32)>,
    /// What to show of the host; none: its system directories.
    pub shown: Option<Shown>,
    pub stages: Vec<Program>,
    pub environment: Vec<(String, String)>,
    pub cwd: Option<WorkspacePath>,
    pub script: Option<String>,
    /// In base64.
    pub stdin: Option<String>,
    pub redirect: Option<Redirect>,
    pub limits: Limits,
    /// Whether it may run where the kernel has no Landlock or no filter of system calls.
    pub degraded: bool,
}

/// What the launcher and the sandbox's first process report.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Report {
    /// A step of the set-up failed; nothing was started.
    Unavailable(String),
    /// The set-up is complete; the programs start now.
    Ready {
        layers: Vec<Layer>,
        digests: Digests,
    },
    /// The programs could not be started as asked.
    NotStarted(String),
    /// No program is left.
    Ended {
        stages: Vec<Option<StageExit>>,
        cpu_us: u64,
        memory_peak_bytes: u64,
        denials: Vec<Denial>,
    },
    /// The workspace has been written, so many bytes; or why not.
    Packed(Result<u64, String>),
    /// The process id namespace is empty: nothing of the step is left. Bytes that its processes had written.
    Gone { written_bytes: Option<u64> },
}

pub(super) fn encode(message: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    Ok(line)
}

pub(super) fn send(mut socket: &UnixStream, message: &impl Serialize) -> io::Result<()> {
    socket.write_all(&encode(message)?)
}

/// Reads one message. Nothing behind it is lost only because each side sends one before it hears an answer.
pub(super) fn receive<T: DeserializeOwned>(socket: &UnixStream) -> io::Result<T> {
    let mut line = String::new();
    BufReader::new(socket)
        .take(MAX_MESSAGE_BYTES)
        .read_line(&mut line)?;
    Ok(serde_json::from_str(&line)?)
}
