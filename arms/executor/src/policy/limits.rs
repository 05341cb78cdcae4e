//! What a step may use.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::denied::Denied;
use crate::sandbox;
use crate::workspace::Caps;

/// Limits of one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Wall clock, milliseconds.
    pub wall_ms: u64,
    /// Memory of the whole step, bytes.
    pub memory_bytes: u64,
    /// stdout and stderr together, bytes.
    pub output_bytes: u64,
    /// CPU seconds of one process.
    pub cpu_seconds: u64,
    /// Processes of the whole step.
    pub processes: u64,
    /// Open files of one process.
    pub open_files: u64,
    /// Bytes of one file.
    pub file_bytes: u64,
    /// Bytes of `/tmp` and of `/dev/shm`, each.
    pub tmp_bytes: u64,
    /// Bytes of the workspace.
    pub workspace_bytes: u64,
    /// Files and directories of the workspace.
    pub workspace_entries: u64,
}

impl Limits {
    fn named(&self) -> [(&'static str, u64); 10] {
        [
            ("wall_ms", self.wall_ms),
            ("memory_bytes", self.memory_bytes),
            ("output_bytes", self.output_bytes),
            ("cpu_seconds", self.cpu_seconds),
            ("processes", self.processes),
            ("open_files", self.open_files),
            ("file_bytes", self.file_bytes),
            ("tmp_bytes", self.tmp_bytes),
            ("workspace_bytes", self.workspace_bytes),
            ("workspace_entries", self.workspace_entries),
        ]
    }

    /// The names of those that are above their maximum, with both.
    fn above(&self, maximum: &Self) -> impl Iterator<Item = (&'static str, u64, u64)> {
        let pairs = self.named().into_iter().zip(maximum.named());
        let pairs = pairs.map(|((name, asked), (_, most))| (name, asked, most));
        pairs.filter(|(_, asked, most)| asked > most)
    }

    /// Whether none of them is above its maximum.
    ///
    /// # Errors
    /// [`Denied`] names the first that is, and its maximum.
    pub(super) fn within(&self, maximum: &Self) -> Result<(), Denied> {
        match self.above(maximum).next() {
            None => Ok(()),
            Some((name, asked, most)) => Err(Denied::new(
                format!("limits.{name} {asked} is too much"),
                format!("allowed are up to {most}"),
            )),
        }
    }

    /// Those that are 0, which nothing could run with.
    pub(super) fn zeros(&self) -> impl Iterator<Item = &'static str> {
        let named = self.named().into_iter();
        named.filter(|(_, limit)| *limit == 0).map(|(name, _)| name)
    }
}

impl From<Limits> for sandbox::Limits {
    fn from(limits: Limits) -> Self {
        Self {
            wall: Duration::from_millis(limits.wall_ms),
            cpu_seconds: limits.cpu_seconds,
            memory_bytes: limits.memory_bytes,
            processes: limits.processes,
            open_files: limits.open_files,
            file_bytes: limits.file_bytes,
            tmp_bytes: limits.tmp_bytes,
            workspace: Caps {
                bytes: limits.workspace_bytes,
                entries: usize::try_from(limits.workspace_entries).unwrap_or(usize::MAX),
            },
            output_bytes: limits.output_bytes,
        }
    }
}

/// The limits that a step asks for. A task's step names the first three; of the others the policy's apply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestedLimits {
    /// Wall clock, milliseconds.
    pub wall_ms: u64,
    /// Memory of the whole step, bytes.
    pub memory_bytes: u64,
    /// stdout and stderr together, bytes.
    pub output_bytes: u64,
    /// CPU seconds of one process.
    pub cpu_seconds: Option<u64>,
    /// Processes of the whole step.
    pub processes: Option<u64>,
    /// Open files of one process.
    pub open_files: Option<u64>,
    /// Bytes of one file.
    pub file_bytes: Option<u64>,
    /// Bytes of `/tmp` and of `/dev/shm`, each.
    pub tmp_bytes: Option<u64>,
    /// Bytes of the workspace.
    pub workspace_bytes: Option<u64>,
    /// Files, directories and links of the workspace.
    pub workspace_entries: Option<u64>,
}

impl RequestedLimits {
    /// The three limits that every step names.
    #[must_use]
    pub fn of(wall_ms: u64, memory_bytes: u64, output_bytes: u64) -> Self {
        Self {
            wall_ms,
            memory_bytes,
            output_bytes,
            cpu_seconds: None,
            processes: None,
            open_files: None,
            file_bytes: None,
            tmp_bytes: None,
            workspace_bytes: None,
            workspace_entries: None,
        }
    }

    /// These, and of what is not asked for the defaults.
    pub(super) fn over(&self, defaults: &Limits) -> Limits {
        Limits {
            wall_ms: self.wall_ms,
            memory_bytes: self.memory_bytes,
            output_bytes: self.output_bytes,
            cpu_seconds: self.cpu_seconds.unwrap_or(defaults.cpu_seconds),
            processes: self.processes.unwrap_or(defaults.processes),
            open_files: self.open_files.unwrap_or(defaults.open_files),
            file_bytes: self.file_bytes.unwrap_or(defaults.file_bytes),
            tmp_bytes: self.tmp_bytes.unwrap_or(defaults.tmp_bytes),
            workspace_bytes: self.workspace_bytes.unwrap_or(defaults.workspace_bytes),
            workspace_entries: self.workspace_entries.unwrap_or(defaults.workspace_entries),
        }
    }
}

macro_rules! maximum {
    ($($name:ident),*) => {
        /// The most that a step may ask for; what is absent may not be raised.
        #[derive(Debug, Clone, Copy, Default, Deserialize, Serialize)]
        #[serde(deny_unknown_fields, default)]
        pub(super) struct MaximumForm {
            $($name: Option<u64>,)*
        }

        impl MaximumForm {
            pub fn over(&self, limits: &Limits) -> Limits {
                Limits { $($name: self.$name.unwrap_or(limits.$name),)* }
            }
        }
    };
}

maximum!(
    wall_ms,
    memory_bytes,
    output_bytes,
    cpu_seconds,
    processes,
    open_files,
    file_bytes,
    tmp_bytes,
    workspace_bytes,
    workspace_entries
);
