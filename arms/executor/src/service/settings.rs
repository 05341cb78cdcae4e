//! Section `[executor]` of the configuration.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use serde::Deserialize;

/// Environment `OCTO_EXECUTOR__<KEY>`, then `octo.toml`, then these defaults.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Where `/health`, `/ready`, `/metrics` and `/api/v1/execute` listen.
    pub host: IpAddr,
    /// Port of the same; 0 takes a free one, which is logged.
    pub port: u16,
    /// A policy in the place of the built-in one.
    pub policy: Option<PathBuf>,
    /// The public key of the orchestrator, which verifies capabilities; without it the executor does not start.
    pub capability_public_key_file: Option<PathBuf>,
    /// The private key that signs receipts; without it the executor does not start.
    pub receipt_key_file: Option<PathBuf>,
    /// The key that `/api/v1/execute` asks for; without it nobody is let in there.
    pub operator_key_file: Option<PathBuf>,
    /// How long the snapshots of an ended task's workspace are kept, seconds.
    pub workspace_retention_seconds: u64,
    /// Steps that run at the same time; 0 is two for each core.
    pub concurrency: usize,
    /// User that programs run as on the host, where the executor is root.
    pub sandbox_uid: u32,
    /// Group that programs run as on the host, where the executor is root.
    pub sandbox_gid: u32,
    /// Whether steps run, too, where the kernel lacks Landlock or the filter of system calls.
    pub sandbox_degraded: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            host: IpAddr::V4(Ipv4Addr::LOCALHOST),
            port: 8003,
            policy: None,
            capability_public_key_file: None,
            receipt_key_file: None,
            operator_key_file: None,
            workspace_retention_seconds: 3600,
            concurrency: 0,
            sandbox_uid: 65534,
            sandbox_gid: 65534,
            sandbox_degraded: false,
        }
    }
}
