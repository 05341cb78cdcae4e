//! The limits that a request names; what it leaves out is the policy's.

use serde::Deserialize;

use crate::policy::RequestedLimits;

/// `limits` of a request. Whole numbers above zero.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitsRequest {
    /// Wall clock, milliseconds; `timeout_s` says the same in seconds.
    pub wall_ms: Option<u64>,
    /// Memory of the whole step, bytes.
    pub memory_bytes: Option<u64>,
    /// stdout and stderr together, bytes.
    pub output_bytes: Option<u64>,
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

/// What a request has that names no limit: as a task's step.
const WALL_MS: u64 = 30_000;
const MEMORY_BYTES: u64 = 512 << 20;
const OUTPUT_BYTES: u64 = 1 << 20;

impl From<LimitsRequest> for RequestedLimits {
    fn from(asked: LimitsRequest) -> Self {
        Self {
            wall_ms: asked.wall_ms.unwrap_or(WALL_MS),
            memory_bytes: asked.memory_bytes.unwrap_or(MEMORY_BYTES),
            output_bytes: asked.output_bytes.unwrap_or(OUTPUT_BYTES),
            cpu_seconds: asked.cpu_seconds,
            processes: asked.processes,
            open_files: asked.open_files,
            file_bytes: asked.file_bytes,
            tmp_bytes: asked.tmp_bytes,
            workspace_bytes: asked.workspace_bytes,
            workspace_entries: asked.workspace_entries,
        }
    }
}

impl LimitsRequest {
    /// The first limit that is smaller than a step can run with.
    pub(super) fn too_small(&self) -> Option<(&'static str, u64)> {
        [
            ("wall_ms", self.wall_ms, 1),
            ("memory_bytes", self.memory_bytes, 16 << 20),
            ("output_bytes", self.output_bytes, 1),
            ("cpu_seconds", self.cpu_seconds, 1),
            ("processes", self.processes, 1),
            ("open_files", self.open_files, 8),
            ("file_bytes", self.file_bytes, 1),
            ("tmp_bytes", self.tmp_bytes, 4096),
            ("workspace_bytes", self.workspace_bytes, 4096),
            ("workspace_entries", self.workspace_entries, 1),
        ]
        .into_iter()
        .find_map(|(name, asked, least)| {
            asked.filter(|asked| *asked < least).map(|_| (name, least))
        })
    }
}
