//! The connection to Redis, which the service can do without: it is made in the background, and while there is none
//! whoever asks is told so at once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use octollm_events::config::RedisSettings;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, RedisResult};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;

/// A server that takes longer is of no use: the limits are kept in memory then, and a text is screened again.
const DEADLINE: Duration = Duration::from_millis(500);

/// Between two attempts to connect: doubles from the first to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LAST_PAUSE: Duration = Duration::from_secs(2);

/// Between two looks at a connection that nobody complains of.
const PING_INTERVAL: Duration = Duration::from_secs(1);

/// The URL can't be used. It is not repeated: it may hold a password.
#[derive(Debug, thiserror::Error)]
#[error("OCTO_REDIS__URL is no URL of a Redis server, as in redis://:password@127.0.0.1:6379/0")]
pub struct UrlError;

/// Redis does not answer, or not as it should.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct Down(String);

type State = Result<MultiplexedConnection, Down>;

/// A connection that is mended by itself. Cheap to clone.
#[derive(Clone)]
pub struct Link {
    state: Arc<watch::Sender<State>>,
    metrics: Metrics,
}

impl Link {
    /// Connects in the background until `stop`. None where no server is configured.
    pub fn open(
        settings: &RedisSettings,
        metrics: Metrics,
        stop: CancellationToken,
    ) -> Result<Option<Self>, UrlError> {
        let Some(url) = &settings.url else {
            return Ok(None);
        };
        let client = Client::open(url.as_str()).map_err(|_| UrlError)?;
        let (state, _) = watch::channel(Err(Down("not connected yet".to_owned())));
        let link = Self {
            state: Arc::new(state),
            metrics,
        };
        let keeper = link.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = keeper.keep(client) => {}
                () = stop.cancelled() => {}
            }
        });
        Ok(Some(link))
    }

    /// Whether the server answers; for `/ready`.
    pub fn check(&self) -> Result<(), Down> {
        self.state
            .borrow()
            .as_ref()
            .map(|_| ())
            .map_err(Down::clone)
    }

    /// Has `work` done on the connection; `operation` names it in the metrics. A failure ends the connection, and what
    /// is asked until there is another fails at once.
    pub async fn ask<T>(
        &self,
        operation: &str,
        work: impl AsyncFnOnce(&mut MultiplexedConnection) -> RedisResult<T>,
    ) -> Result<T, Down> {
        let mut connection = self.state.borrow().clone()?;
        let began = Instant::now();
        let outcome = work(&mut connection).await;
        let seconds = self.metrics.redis_seconds.with_label_values(&[operation]);
        seconds.observe(began.elapsed().as_secs_f64());
        outcome.map_err(|error| {
            let down = Down(reason(&error));
            self.metrics
                .redis_errors
                .with_label_values(&[operation])
                .inc();
            self.lose(&down);
            down
        })
    }

    /// Keeps a connection, for ever.
    async fn keep(&self, client: Client) {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(DEADLINE))
            .set_response_timeout(Some(DEADLINE));
        let mut pause = FIRST_PAUSE;
        loop {
            match client
                .get_multiplexed_async_connection_with_config(&config)
                .await
            {
                Ok(connection) => {
                    tracing::info!("connected to Redis");
                    self.metrics.redis_up.set(1);
                    let _ = self.state.send_replace(Ok(connection));
                    pause = FIRST_PAUSE;
                    self.lost().await;
                }
                Err(error) => {
                    self.lose(&Down(reason(&error)));
                    pause = LAST_PAUSE.min(pause * 2);
                }
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// Returns when the connection that is there has failed.
    async fn lost(&self) {
        let mut changes = self.state.subscribe();
        loop {
            let failed = changes.wait_for(Result::is_err);
            if tokio::time::timeout(PING_INTERVAL, failed).await.is_ok() {
                return;
            }
            let ping = async |connection: &mut MultiplexedConnection| {
                redis::cmd("PING").query_async::<()>(connection).await
            };
            // A failure changes the state.
            let _ = self.ask("ping", ping).await;
        }
    }

    fn lose(&self, down: &Down) {
        self.metrics.redis_up.set(0);
        self.state.send_if_modified(|state| {
            let was_up = state.is_ok();
            if state.as_ref().err().is_none_or(|known| known.0 != down.0) {
                tracing::warn!(reason = %down, "Redis can't be used; limits are kept in memory, texts are screened again");
            }
            *state = Err(down.clone());
            was_up
        });
    }
}

/// What went wrong, without what the server was asked.
fn reason(error: &redis::RedisError) -> String {
    if error.is_timeout() {
        return format!("no answer within {} ms", DEADLINE.as_millis());
    }
    match error.code() {
        Some(code) => format!("it answers {code}"),
        None => error.category().to_owned(),
    }
}
