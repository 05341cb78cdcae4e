//! Claims: what must not be started twice is claimed before it is started, for every executor and every restart.
//!
//! A claim is a key of the bucket `ATTEMPTS` (NATS ADR-8), made by a publish that expects none: the broker lets one
//! through, and the ack says that it is on disk. Nobody can change or remove a key; the broker does, once it is older
//! than any task may live. A claim that is there already and is not ours says that an executor died in between, or that
//! a dispatch was copied: either way, nothing is started.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_nats::HeaderMap;
use octollm_events::Bus;
use octollm_events::publish::PublishError;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::standing::Attempt;

/// The bucket's stream.
const STREAM: &str = "KV_ATTEMPTS";
/// Before the keys: `<task>.<plan version>.<step>.<attempt>` and `token.<id of the capability>`.
const PREFIX: &str = "$KV.ATTEMPTS";
/// How long making a claim may take, repeats included.
const DEADLINE: Duration = Duration::from_secs(10);
/// Claims of this process under which nothing was started; beyond it, they count as used.
const UNUSED: usize = 1024;
/// Nothing was there before.
const NEW: &str = "0";

/// For how long a claim is kept: `max_age` of the bucket.
///
/// # Panics
/// The contract names none.
#[must_use]
pub fn memory() -> Duration {
    let age = octollm_events::streams::setting(STREAM, "max_age");
    Duration::from_nanos(age.expect("claims have a max_age"))
}

/// Why nobody can say whether a claim was made. Nothing may be started; trying again is harmless.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// The broker does not answer, or does not let this service write there.
    #[error("the claim could not be made: {0}")]
    Publish(#[from] PublishError),
    /// The stream refused it.
    #[error("the claim was refused: {reason} ({code})")]
    Refused {
        /// JetStream's error code.
        code: u64,
        /// The broker's words.
        reason: String,
    },
    /// It is claimed, and it can't be read by whom.
    #[error("the claim that is there can't be read: {0}")]
    Read(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Who holds a claim: a key's value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Holder {
    /// The process.
    executor: Uuid,
    /// Made anew for each claim: a process takes a repeat of its own publish for its own, and nothing else.
    claim: Uuid,
    /// Stream sequence of the dispatch, 0 where there is none.
    dispatch: u64,
}

/// A claim in hand.
#[derive(Debug)]
pub struct Claim {
    key: String,
    holder: Holder,
}

/// What taking a claim came to.
#[derive(Debug)]
pub enum Claimed {
    /// It may be started, once.
    Now(Claim),
    /// It has been claimed before, for the dispatch with this stream sequence (0 where there was none).
    Before {
        /// The stream sequence.
        dispatch: u64,
    },
}

/// The claims as one process makes them.
pub struct Claims {
    bus: Bus,
    executor: Uuid,
    /// Claims that were made, or may have been, and under which nothing was started.
    unused: Mutex<HashMap<String, Holder>>,
}

impl Claims {
    /// Asks nothing of the broker yet.
    #[must_use]
    pub fn new(bus: Bus) -> Self {
        Self {
            bus,
            executor: Uuid::new_v4(),
            unused: Mutex::default(),
        }
    }

    /// Claims an attempt for a dispatch, durably.
    ///
    /// # Errors
    /// [`ClaimError`]: the attempt must not start. A later call in this process may still get it.
    pub async fn take(&self, attempt: &Attempt, dispatch: u64) -> Result<Claimed, ClaimError> {
        self.create(attempt.to_string(), dispatch).await
    }

    /// Claims the one use of a capability, by the token's id.
    ///
    /// # Errors
    /// As [`take`](Self::take).
    pub async fn spend(&self, token: &str) -> Result<Claimed, ClaimError> {
        self.create(format!("token.{token}"), 0).await
    }

    /// Nothing was started under this claim: the next call in this process gets it. If the process ends before, it
    /// counts as used.
    pub fn give_back(&self, claim: Claim) {
        let mut unused = self.unused.lock().unwrap_or_else(PoisonError::into_inner);
        if unused.len() < UNUSED {
            unused.insert(claim.key, claim.holder);
        }
    }

    async fn create(&self, key: String, dispatch: u64) -> Result<Claimed, ClaimError> {
        let claim = self.reclaimed(&key, dispatch).unwrap_or_else(|| Claim {
            key,
            holder: Holder {
                executor: self.executor,
                claim: Uuid::new_v4(),
                dispatch,
            },
        });
        match self.publish(&claim).await {
            Ok(None) => Ok(Claimed::Now(claim)),
            Ok(Some(holder)) if holder == claim.holder => Ok(Claimed::Now(claim)),
            Ok(Some(holder)) => Ok(Claimed::Before {
                dispatch: holder.dispatch,
            }),
            Err(error) => {
                // It may be stored all the same, and nothing will be started under it.
                self.give_back(claim);
                Err(error)
            }
        }
    }

    fn reclaimed(&self, key: &str, dispatch: u64) -> Option<Claim> {
        let mut unused = self.unused.lock().unwrap_or_else(PoisonError::into_inner);
        let (key, holder) = unused.remove_entry(key)?;
        (holder.dispatch == dispatch).then_some(Claim { key, holder })
    }

    /// Stores the claim; gives the holder of the one that was there first, which may be this very claim: an ack that is
    /// lost makes the publish be repeated.
    async fn publish(&self, claim: &Claim) -> Result<Option<Holder>, ClaimError> {
        let subject = format!("{PREFIX}.{}", claim.key);
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Expected-Last-Subject-Sequence", NEW);
        let body =
            serde_json::to_vec(&claim.holder).map_err(|error| ClaimError::Read(error.into()))?;
        let ack = self
            .bus
            .publish(&subject, headers, &body.into(), DEADLINE)
            .await?;
        match ack.error {
            None => Ok(None),
            Some(refusal) if refusal.is_conflict() => self.holder(&subject).await.map(Some),
            Some(refusal) => Err(ClaimError::Refused {
                code: refusal.code,
                reason: refusal.reason,
            }),
        }
    }

    async fn holder(&self, subject: &str) -> Result<Holder, ClaimError> {
        let unreadable = |error| ClaimError::Read(error);
        let stream = self.bus.jetstream().get_stream_no_info(STREAM).await;
        let stream = stream.map_err(|error| unreadable(error.into()))?;
        let message = stream.direct_get_last_for_subject(subject).await;
        let message = message.map_err(|error| unreadable(error.into()))?;
        serde_json::from_slice(&message.payload).map_err(|error| unreadable(error.into()))
    }
}
