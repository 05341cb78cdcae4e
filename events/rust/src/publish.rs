//! Publishing into a stream until the broker has answered.

use crate::bus::Bus;
use async_nats::client::RequestError;
use async_nats::{HeaderMap, Request};
use bytes::Bytes;
use serde::Deserialize;
use std::time::Duration;
use tokio::time::Instant;

/// One try of a request to the broker, and the pauses between tries, which double.
pub(crate) const ATTEMPT: Duration = Duration::from_secs(2);
pub(crate) const FIRST_PAUSE: Duration = Duration::from_millis(20);
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// Wrong last sequence; the second where a replicated stream is just storing another message of the subject.
const CONFLICTS: [u64; 2] = [10071, 10164];
/// A replicated stream is just storing this very id, or a cluster is without a leader.
const UNSETTLED: [u64; 2] = [10158, 10008];
const UNAVAILABLE: u16 = 503;

/// The broker's answer to a publish.
#[derive(Debug, Deserialize)]
pub struct Ack {
    /// Stream sequence of the message.
    #[serde(default)]
    pub seq: u64,
    /// It was stored before: `seq` is that of the earlier one.
    #[serde(default)]
    pub duplicate: bool,
    /// The stream refused it.
    pub error: Option<Refusal>,
}

/// Why a stream refused a message.
#[derive(Debug, Deserialize)]
pub struct Refusal {
    #[serde(rename = "code")]
    status: u16,
    /// JetStream's error code.
    #[serde(default, rename = "err_code")]
    pub code: u64,
    /// The broker's words.
    #[serde(default, rename = "description")]
    pub reason: String,
}

impl Refusal {
    /// The subject has another last sequence than the publish expected.
    pub fn is_conflict(&self) -> bool {
        CONFLICTS.contains(&self.code)
    }

    /// Whether the same publish would be answered the same again.
    fn is_settled(&self) -> bool {
        // What a cluster's leader can't pass on to the others has a status, and no code.
        let is_not_passed_on = self.status == UNAVAILABLE && self.code == 0;
        !is_not_passed_on && !UNSETTLED.contains(&self.code)
    }
}

/// Why there is no answer of the stream.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The broker does not let this service write the subject.
    #[error("this service may not write {subject}; check the broker's permissions")]
    Forbidden {
        /// The refused subject.
        subject: String,
    },
    /// Something answered that is no stream.
    #[error("the answer to {subject} is no ack")]
    NoAck {
        /// The subject.
        subject: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// No answer within the deadline. The outcome is unknown; the same publish may be repeated.
    #[error("no answer to {subject} within {} s", deadline.as_secs_f32())]
    Unavailable {
        /// The subject.
        subject: String,
        /// How long it was tried.
        deadline: Duration,
        /// The last failure; none where there was no connection at all, or where the broker only said: not yet.
        #[source]
        source: Option<RequestError>,
    },
}

impl Bus {
    /// Publishes until the outcome is settled, `deadline` at most: what times out or finds no responder is repeated
    /// unchanged, so its headers must make a repeat harmless.
    ///
    /// # Errors
    /// [`PublishError`]; that the stream refuses is an answer.
    pub async fn publish(
        &self,
        subject: &str,
        headers: HeaderMap,
        body: &Bytes,
        deadline: Duration,
    ) -> Result<Ack, PublishError> {
        let until = Instant::now() + deadline;
        let unavailable = |source| PublishError::Unavailable {
            subject: subject.to_owned(),
            deadline,
            source,
        };
        let mut refusals = self.refusals();
        let mut pause = FIRST_PAUSE;
        loop {
            let connected = tokio::time::timeout_at(until, self.connected());
            if connected.await.is_err() {
                return Err(unavailable(None));
            }
            let left = until.saturating_duration_since(Instant::now());
            let request = Request::new()
                .headers(headers.clone())
                .payload(body.clone())
                .timeout(Some(ATTEMPT.min(left)));
            let answer = tokio::select! {
                answer = self.client().send_request(subject.to_owned(), request) => answer,
                () = refusals.of(subject) => {
                    return Err(PublishError::Forbidden { subject: subject.to_owned() });
                }
            };
            let failure = match answer {
                Ok(message) => match serde_json::from_slice::<Ack>(&message.payload) {
                    Ok(ack) if ack.error.as_ref().is_none_or(Refusal::is_settled) => {
                        return Ok(ack);
                    }
                    Ok(_) => None,
                    Err(source) => {
                        return Err(PublishError::NoAck {
                            subject: subject.to_owned(),
                            source,
                        });
                    }
                },
                Err(failure) => Some(failure),
            };
            if Instant::now() + pause >= until {
                return Err(unavailable(failure));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}
