//! Commands that reflex passes on to `COMMANDS`.

use std::time::Duration;

use async_nats::HeaderMap;
use octollm_events::schema::{self, Command};
use octollm_events::{Bus, SchemaViolation, failpoint};
use tokio::time::timeout;

const DEADLINE: Duration = Duration::from_secs(5);

/// A command was not sent, or nobody knows whether it was.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// It breaks its schema.
    #[error(transparent)]
    Invalid(#[from] SchemaViolation),
    /// The broker did not store it; sending it again is harmless.
    #[error("the command was not stored: {0}; send it again")]
    Unavailable(String),
}

/// The stream `COMMANDS`, as a writer sees it.
pub struct Commands {
    bus: Bus,
}

impl Commands {
    /// On this connection.
    pub const fn new(bus: Bus) -> Self {
        Self { bus }
    }

    /// Stores a command under the subject of its kind. Returns once the broker has it.
    pub async fn send<T: Command>(
        &self,
        command: &T,
        traceparent: Option<&str>,
    ) -> Result<(), SendError> {
        let body = schema::encode(command)?;
        let mut headers = HeaderMap::new();
        headers.insert("content-type", "application/json");
        if let Some(traceparent) = traceparent {
            headers.insert("traceparent", traceparent);
        }
        let stored = async {
            let sent = self
                .bus
                .jetstream()
                .publish_with_headers(T::KIND, headers, body.into())
                .await;
            sent.map_err(|error| error.to_string())?
                .await
                .map_err(|error| error.to_string())
        };
        let stored = timeout(DEADLINE, stored).await;
        failpoint::reach("reflex.command_stored");
        match stored {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(reason)) => Err(SendError::Unavailable(reason)),
            Err(_) => Err(SendError::Unavailable(format!(
                "no answer within {} s",
                DEADLINE.as_secs()
            ))),
        }
    }
}
