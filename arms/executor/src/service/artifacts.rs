//! The object store `ARTIFACTS`: files by name, data and not log (NATS ADR-20).

use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::header::NATS_ROLLUP;
use async_nats::jetstream::object_store::{ObjectInfo, ObjectStore};
use async_nats::jetstream::stream::{DirectGetErrorKind, Stream};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE;
use futures::TryStreamExt;
use octollm_events::Bus;
use tokio::sync::OnceCell;
use tokio::time::timeout;

const BUCKET: &str = "ARTIFACTS";
/// The bucket's stream. It is read by direct gets: the client's own reader makes a consumer, and whoever may do that may
/// write (events/README.md, Who may do what).
const STREAM: &str = "OBJ_ARTIFACTS";
/// Its subjects: `.M.<name>` for what is known about an object, `.C.<nuid>` for its chunks.
const PREFIX: &str = "$O.ARTIFACTS";
/// How long one object may take to be stored, read or removed.
const DEADLINE: Duration = Duration::from_secs(30);

/// The store does not answer as it should; trying again may help.
#[derive(Debug, thiserror::Error)]
#[error("the artifact store can't be used: {0}")]
pub struct StoreError(String);

impl StoreError {
    fn of(error: impl std::fmt::Display) -> Self {
        Self(error.to_string())
    }
}

/// The object store.
pub struct Artifacts {
    bus: Bus,
    store: OnceCell<ObjectStore>,
}

impl Artifacts {
    /// Asks nothing of the broker yet.
    #[must_use]
    pub fn new(bus: Bus) -> Self {
        Self {
            bus,
            store: OnceCell::new(),
        }
    }

    /// Stores an object; returns when the broker has it.
    ///
    /// # Errors
    /// The store does not take it in time.
    pub async fn put(&self, name: &str, content: &[u8]) -> Result<(), StoreError> {
        within(async {
            let store = self
                .store
                .get_or_try_init(|| async { self.bus.jetstream().get_object_store(BUCKET).await });
            let store = store.await.map_err(StoreError::of)?;
            let mut content = content;
            let stored = store.put(name, &mut content).await;
            stored.map(drop).map_err(StoreError::of)
        })
        .await
    }

    /// Whether the object is there.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn has(&self, name: &str) -> Result<bool, StoreError> {
        within(async {
            let found = info(&self.stream().await?, name).await?;
            Ok(found.is_some_and(|info| !info.deleted))
        })
        .await
    }

    /// Reads an object, up to one byte more than `most`; none is not there.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn get(&self, name: &str, most: u64) -> Result<Option<Vec<u8>>, StoreError> {
        within(async {
            let stream = self.stream().await?;
            let Some(info) = info(&stream, name).await?.filter(|info| !info.deleted) else {
                return Ok(None);
            };
            let chunks = format!("{PREFIX}.C.{}", info.nuid);
            let mut content = Vec::new();
            let mut sequence = 0;
            for _ in 0..info.chunks {
                let chunk = stream
                    .direct_get_next_for_subject(chunks.as_str(), Some(sequence + 1))
                    .await;
                let chunk = match chunk {
                    Ok(chunk) => chunk,
                    Err(error) if error.kind() == DirectGetErrorKind::NotFound => return Ok(None),
                    Err(error) => return Err(StoreError::of(error)),
                };
                sequence = chunk.sequence;
                content.extend_from_slice(&chunk.payload);
                if content.len() as u64 > most {
                    content.truncate(usize::try_from(most).map_or(content.len(), |most| most + 1));
                    break;
                }
            }
            Ok(Some(content))
        })
        .await
    }

    /// The names of all objects that ever were, those of removed ones among them.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn names(&self) -> Result<Vec<String>, StoreError> {
        within(async {
            let stream = self.stream().await?;
            let listed = stream.info_with_subjects(format!("{PREFIX}.M.>")).await;
            let subjects = listed
                .map_err(StoreError::of)?
                .map_ok(|(subject, _)| subject);
            let subjects: Vec<String> = subjects.try_collect().await.map_err(StoreError::of)?;
            let encoded = subjects
                .iter()
                .filter_map(|subject| subject.rsplit('.').next());
            let names =
                encoded.filter_map(|name| String::from_utf8(URL_SAFE.decode(name).ok()?).ok());
            Ok(names.collect())
        })
        .await
    }

    /// Removes an object's content for good; that there was one stays known. False: it is not there.
    ///
    /// The client's own `delete` purges the stream, which would be a right over everybody's objects. A message that rolls
    /// up its subject takes the place of those before it, and needs no other right than to publish.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn remove(&self, name: &str) -> Result<bool, StoreError> {
        within(async {
            let Some(mut info) = info(&self.stream().await?, name)
                .await?
                .filter(|info| !info.deleted)
            else {
                return Ok(false);
            };
            let chunks = format!("{PREFIX}.C.{}", info.nuid);
            (info.deleted, info.size, info.chunks, info.digest) = (true, 0, 0, None);
            let meta = serde_json::to_vec(&info).map_err(StoreError::of)?;
            // What is known about it first: nobody then looks for chunks that are gone.
            for (subject, payload) in [(meta_subject(name), meta), (chunks, Vec::new())] {
                let mut headers = HeaderMap::new();
                headers.insert(NATS_ROLLUP, "sub");
                let jetstream = self.bus.jetstream();
                let sent = jetstream.publish_with_headers(subject, headers, payload.into());
                sent.await
                    .map_err(StoreError::of)?
                    .await
                    .map_err(StoreError::of)?;
            }
            Ok(true)
        })
        .await
    }

    async fn stream(&self) -> Result<Stream<()>, StoreError> {
        let stream = self.bus.jetstream().get_stream_no_info(STREAM).await;
        stream.map_err(StoreError::of)
    }
}

fn meta_subject(name: &str) -> String {
    format!("{PREFIX}.M.{}", URL_SAFE.encode(name))
}

async fn info(stream: &Stream<()>, name: &str) -> Result<Option<ObjectInfo>, StoreError> {
    match stream.direct_get_last_for_subject(meta_subject(name)).await {
        Ok(info) => serde_json::from_slice(&info.payload)
            .map(Some)
            .map_err(StoreError::of),
        Err(error) => match error.kind() {
            DirectGetErrorKind::NotFound | DirectGetErrorKind::InvalidSubject => Ok(None),
            _ => Err(StoreError::of(error)),
        },
    }
}

async fn within<T>(work: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    let late = || StoreError(format!("no answer within {} s", DEADLINE.as_secs()));
    timeout(DEADLINE, work).await.map_err(|_| late())?
}
