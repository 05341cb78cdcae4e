//! Settings: section `reflex` of the one configuration scheme.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use serde::Deserialize;

use crate::cache::CacheSettings;
use crate::limits::LimitSettings;

/// `OCTO_REFLEX__<KEY>`, or `[reflex]` in `octo.toml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Address to listen on.
    #[serde(default = "loopback")]
    pub host: IpAddr,
    /// Port to listen on; 0 takes a free one.
    #[serde(default = "port")]
    pub port: u16,
    /// File of 64 hexadecimal digits: the key of the submissions' digests. All instances need the same one, and
    /// another one makes conflicts of repeats.
    pub digest_key_file: PathBuf,
    /// Submissions from the bus that are worked on at the same time.
    #[serde(default = "in_flight")]
    pub in_flight: usize,
    /// Largest request body and largest message, bytes.
    #[serde(default = "max_body_bytes")]
    pub max_body_bytes: usize,
    /// Directory of rule files that take the place of the built-in ones.
    #[serde(default)]
    pub ruleset: Option<PathBuf>,
    /// The cache of screenings.
    #[serde(default)]
    pub cache: CacheSettings,
    /// Rate limits.
    #[serde(default)]
    pub limits: LimitSettings,
}

const fn loopback() -> IpAddr {
    IpAddr::V4(Ipv4Addr::LOCALHOST)
}

const fn port() -> u16 {
    8001
}

const fn in_flight() -> usize {
    32
}

/// `max_msg_size` of `COMMANDS`: both ways in take the same.
const fn max_body_bytes() -> usize {
    1024 * 1024
}
