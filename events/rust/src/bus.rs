//! The connection to the broker.

use crate::config::NatsSettings;
use async_nats::connection::State;
use async_nats::{Client, ConnectOptions, Event as ConnectionEvent, ServerAddr, ServerError};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::sync::{broadcast, watch};

const RECONNECT_DELAY: Duration = Duration::from_millis(250);
const PING_INTERVAL: Duration = Duration::from_secs(10);
/// A user's seed in base 32: `S`, `U`, 32 bytes, checksum.
const SEED_LENGTH: usize = 58;
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// The broker's URL or options can't be used; an unreachable broker is no error but waited for.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Not `nats://host:port`. The URL is not repeated: it may hold a password.
    #[error("OCTO_NATS__URL is no URL of a NATS server")]
    Url(#[source] std::io::Error),
    /// The key file can't be read.
    #[error("{} can't be read; check OCTO_NATS__NKEY_FILE", path.display())]
    KeyFile {
        /// The file.
        path: PathBuf,
        /// The failure underneath.
        source: std::io::Error,
    },
    /// The key file holds something else. What it holds is not repeated: it may be a secret.
    #[error("{} holds no seed of an nkey; check OCTO_NATS__NKEY_FILE", path.display())]
    Key {
        /// The file.
        path: PathBuf,
    },
    /// The client refused to start.
    #[error("can't connect to NATS; check OCTO_NATS__URL")]
    Client(#[from] async_nats::ConnectError),
}

/// The broker does not answer.
#[derive(Debug, thiserror::Error)]
#[error("NATS is {0}")]
pub struct Disconnected(String);

/// What has become of the connection so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Connections {
    /// How often it was made: what the broker held for an earlier one (pull requests) is gone.
    pub(crate) made: u64,
    pub(crate) up: bool,
    /// When it was made last.
    pub(crate) since: Option<Instant>,
}

/// A connection that never gives up; cheap to clone.
#[derive(Clone, Debug)]
pub struct Bus {
    client: Client,
    connections: watch::Receiver<Connections>,
    /// What the broker said of refused publishes: the publish itself would only time out.
    refusals: broadcast::Sender<String>,
}

impl Bus {
    /// Connects as `service`, whose inboxes are `_INBOX_<service>.>`. Returns before the broker is
    /// reached; what is sent meanwhile waits.
    pub async fn connect(settings: &NatsSettings, service: &str) -> Result<Self, ConnectError> {
        let (connected, connections) = watch::channel(Connections::default());
        let (refusals, _) = broadcast::channel(64);
        let refused = refusals.clone();
        let mut options = ConnectOptions::new();
        // The client itself does not look at the URL's credentials.
        let server: ServerAddr = settings.url.parse().map_err(ConnectError::Url)?;
        if let (Some(user), Some(password)) = (server.username(), server.password()) {
            options = options.user_and_password(user.to_owned(), password.to_owned());
        }
        if let Some(path) = &settings.nkey_file {
            options = options.nkey(read_seed(path)?);
        }
        let client = options
            .name(service)
            .custom_inbox_prefix(format!("_INBOX_{service}"))
            .retry_on_initial_connect()
            .max_reconnects(None)
            .reconnect_delay_callback(|_| RECONNECT_DELAY)
            .ping_interval(PING_INTERVAL)
            .event_callback(move |event| {
                match &event {
                    ConnectionEvent::Connected => {
                        connected.send_modify(|so_far| {
                            so_far.made += 1;
                            so_far.up = true;
                            so_far.since = Some(Instant::now());
                        });
                        tracing::info!("connected to NATS");
                    }
                    ConnectionEvent::Disconnected => {
                        connected.send_modify(|so_far| so_far.up = false);
                        tracing::warn!("disconnected from NATS; reconnecting");
                    }
                    ConnectionEvent::ServerError(ServerError::Other(text)) => {
                        tracing::warn!(error = %text, "NATS reported an error");
                        // Nobody listening is fine: no publish of ours is waiting.
                        let _ = refused.send(text.clone());
                    }
                    other => tracing::warn!(event = %other, "NATS connection"),
                }
                std::future::ready(())
            })
            .connect(server)
            .await?;
        Ok(Self {
            client,
            connections,
            refusals,
        })
    }

    /// The client underneath, for what this crate does not cover (object store, commands).
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// A JetStream context on this connection.
    pub fn jetstream(&self) -> async_nats::jetstream::Context {
        async_nats::jetstream::new(self.client.clone())
    }

    /// Whether the broker answers, within a second; for `/ready`.
    pub async fn check(&self) -> Result<(), Disconnected> {
        match self.client.connection_state() {
            State::Connected => {}
            state => return Err(Disconnected(state.to_string())),
        }
        match tokio::time::timeout(PROBE_TIMEOUT, self.client.flush()).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Disconnected(error.to_string())),
            Err(_) => Err(Disconnected("silent".to_owned())),
        }
    }

    /// How long the connection has lasted; zero while there is none. A broker that was killed forgets its latest acks:
    /// what comes over a young connection may have been handled, though it says that it was never delivered before.
    pub fn lasted(&self) -> Duration {
        let connections = self.connections.borrow();
        match connections.since {
            Some(since) if connections.up => since.elapsed(),
            _ => Duration::ZERO,
        }
    }

    /// Waits for the connection: what is sent without one would go out later, after its sender has given up.
    pub(crate) async fn connected(&self) {
        let mut connections = self.connections();
        connections.mark_unchanged();
        while self.client.connection_state() != State::Connected {
            if connections.changed().await.is_err() {
                return; // The client is closed; the request will say so.
            }
        }
    }

    /// Changes with every connection and every loss of one.
    pub(crate) fn connections(&self) -> watch::Receiver<Connections> {
        self.connections.clone()
    }

    /// What the broker refuses from now on.
    pub(crate) fn refusals(&self) -> Refusals {
        Refusals(self.refusals.subscribe())
    }
}

/// The seed in a key file.
fn read_seed(path: &Path) -> Result<String, ConnectError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConnectError::KeyFile {
        path: path.to_owned(),
        source,
    })?;
    let seed = text.trim();
    // The client would find a wrong seed at every attempt to connect, and go on trying.
    if seed.len() == SEED_LENGTH && seed.starts_with("SU") {
        Ok(seed.to_owned())
    } else {
        Err(ConnectError::Key {
            path: path.to_owned(),
        })
    }
}

/// A watch for the broker's permission errors.
pub(crate) struct Refusals(broadcast::Receiver<String>);

impl Refusals {
    /// Returns when the broker has refused a publish to `subject`, else never.
    pub(crate) async fn of(&mut self, subject: &str) {
        let refused = format!("permissions violation for publish to \"{subject}\"").to_lowercase();
        loop {
            match self.0.recv().await {
                Ok(text) if text.to_lowercase().contains(&refused) => return,
                Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
            }
        }
    }
}
