//! Where a task's log stands: sequence, version, hash.

use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// SHA-256 of a stored event: what the task's next event names as `ce-prevhash`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct EventHash([u8; 32]);

impl EventHash {
    /// What a task's first event names: 64 zeros.
    pub const NONE: Self = Self([0; 32]);

    /// Over the subject, every `ce-*` header in byte order of its name, and the body.
    pub fn of(subject: &str, headers: &BTreeMap<String, String>, body: &[u8]) -> Self {
        let mut digest = Sha256::new();
        digest.update(subject);
        digest.update("\n");
        for (name, value) in headers.iter().filter(|(name, _)| name.starts_with("ce-")) {
            digest.update(name);
            digest.update(":");
            digest.update(value);
            digest.update("\n");
        }
        digest.update("\n");
        digest.update(body);
        Self(digest.finalize().into())
    }
}

impl fmt::Display for EventHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for EventHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for EventHash {
    type Err = hex::FromHexError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes)?;
        Ok(Self(bytes))
    }
}

/// Where a task's log stands: what an append expects to find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Stream sequence of the task's last event, 0 for none.
    pub seq: u64,
    /// Its `ce-taskversion`, 0 for none.
    pub version: u64,
    /// Its hash.
    pub hash: EventHash,
    /// It is terminal: nothing may follow.
    pub terminal: bool,
}

impl Position {
    /// Of a task that has no event yet.
    pub const START: Self = Self {
        seq: 0,
        version: 0,
        hash: EventHash::NONE,
        terminal: false,
    };
}
