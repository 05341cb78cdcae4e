//! The initial workspace of a task, from the artifact that its first event names.

use async_nats::jetstream::object_store::GetErrorKind;
use octollm_events::Bus;
use octollm_events::carrier::{FilesRef, TaskReceived};
use octollm_events::log::{Log, ReadError};
use sha2::{Digest, Sha256};
use tokio::io::AsyncReadExt;
use uuid::Uuid;

use crate::workspace::Entry;

/// The object store of `streams.json` that holds files by digest.
const BUCKET: &str = "ARTIFACTS";
/// Bytes of the artifact, at most: 64 KiB of content as base64, and 1,000 entries of long paths.
const MAX_BYTES: u64 = 8 << 20;

/// Why the initial files are not there.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// It may be there later: the broker does not answer.
    #[error("the initial files can't be fetched: {0}")]
    Unavailable(String),
    /// What is stored is not what the task's first event says. The code is `INTERNAL_ERROR`.
    #[error("the initial files are not what was submitted: {0}")]
    Corrupt(String),
}

/// The entries that the task was submitted with; none is an empty workspace.
///
/// # Errors
/// [`FilesError`] says whether trying again helps.
pub async fn fetch(bus: &Bus, log: &Log, task_id: Uuid) -> Result<Vec<Entry>, FilesError> {
    let events = log.read(task_id, None).await.map_err(|error| match error {
        ReadError::Unavailable { .. } => FilesError::Unavailable(error.to_string()),
        ReadError::ChainBroken { .. } | ReadError::Undecodable(_) => {
            FilesError::Corrupt(error.to_string())
        }
    })?;
    let first = events
        .first()
        .ok_or_else(|| FilesError::Corrupt("the task has no first event".to_owned()))?;
    let received: TaskReceived = first
        .decode()
        .map_err(|error| FilesError::Corrupt(error.to_string()))?;
    match received.files {
        None => Ok(Vec::new()),
        Some(files) => {
            let artifact = read_artifact(bus, &files).await?;
            entries(&files, &artifact)
        }
    }
}

async fn read_artifact(bus: &Bus, files: &FilesRef) -> Result<Vec<u8>, FilesError> {
    let unavailable = |error: &dyn std::fmt::Display| {
        FilesError::Unavailable(format!("{}: {error}", files.artifact))
    };
    if files.bytes > MAX_BYTES {
        return Err(FilesError::Corrupt(format!(
            "{} bytes, {MAX_BYTES} are allowed",
            files.bytes
        )));
    }
    let store = bus
        .jetstream()
        .get_object_store(BUCKET)
        .await
        .map_err(|error| unavailable(&error))?;
    let object = store
        .get(&files.artifact)
        .await
        .map_err(|error| match error.kind() {
            // It is stored before the task's first event, so it will not turn up later.
            GetErrorKind::NotFound | GetErrorKind::InvalidName => {
                FilesError::Corrupt(format!("{} is not in the artifact store", files.artifact))
            }
            _ => unavailable(&error),
        })?;
    let mut content = Vec::new();
    object
        .take(files.bytes + 1)
        .read_to_end(&mut content)
        .await
        .map_err(|error| unavailable(&error))?;
    Ok(content)
}

fn entries(files: &FilesRef, artifact: &[u8]) -> Result<Vec<Entry>, FilesError> {
    if artifact.len() as u64 != files.bytes || hex::encode(Sha256::digest(artifact)) != files.digest
    {
        return Err(FilesError::Corrupt(format!(
            "{} has another size or digest",
            files.artifact
        )));
    }
    let entries: Vec<Entry> =
        serde_json::from_slice(artifact).map_err(|error| FilesError::Corrupt(error.to_string()))?;
    if entries.len() as u64 == files.entries {
        Ok(entries)
    } else {
        Err(FilesError::Corrupt(format!(
            "{} entries, {} were submitted",
            entries.len(),
            files.entries
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_very_artifact_is_taken() {
        let artifact = br#"[{"path":"a","type":"file","text":"x"}]"#;
        let files = FilesRef {
            artifact: "sha256-0".to_owned(),
            digest: hex::encode(Sha256::digest(artifact)),
            entries: 1,
            bytes: artifact.len() as u64,
        };
        assert_eq!(entries(&files, artifact).unwrap().len(), 1);
        let altered = br#"[{"path":"b","type":"file","text":"x"}]"#;
        assert!(matches!(
            entries(&files, altered),
            Err(FilesError::Corrupt(_))
        ));
        assert!(matches!(
            entries(&files, &artifact[1..]),
            Err(FilesError::Corrupt(_))
        ));
        let two = FilesRef {
            entries: 2,
            ..files
        };
        assert!(matches!(
            entries(&two, artifact),
            Err(FilesError::Corrupt(_))
        ));
    }
}
