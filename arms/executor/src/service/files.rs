//! The initial workspace of a task, from the artifact that its first event names.

use async_nats::jetstream::object_store::ObjectInfo;
use async_nats::jetstream::stream::DirectGetErrorKind;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE;
use octollm_events::carrier::{FilesRef, TaskReceived};
use octollm_events::{Bus, Event};
use sha2::{Digest, Sha256};

use crate::workspace::Entry;

/// The stream of the object store that holds files by digest (NATS ADR-20). It is read by direct gets: the client's
/// own reader makes a consumer, and whoever may do that may write (events/README.md, Who may do what).
const STREAM: &str = "OBJ_ARTIFACTS";
/// Its subjects: `.M.<name>` for what is known about an object, `.C.<nuid>` for its chunks.
const PREFIX: &str = "$O.ARTIFACTS";
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

/// The entries that the task was submitted with, as the first event of its log says; none is an empty workspace.
///
/// # Errors
/// [`FilesError`] says whether trying again helps.
pub async fn fetch(bus: &Bus, log: &[Event]) -> Result<Vec<Entry>, FilesError> {
    let first = log
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
    let stream = bus
        .jetstream()
        .get_stream_no_info(STREAM)
        .await
        .map_err(|error| unavailable(&error))?;
    let meta = format!("{PREFIX}.M.{}", URL_SAFE.encode(&files.artifact));
    let info = stream.direct_get_last_for_subject(meta).await;
    let info = info.map_err(|error| match error.kind() {
        // It is stored before the task's first event, so it will not turn up later.
        DirectGetErrorKind::NotFound | DirectGetErrorKind::InvalidSubject => missing(files),
        _ => unavailable(&error),
    })?;
    let info: ObjectInfo = serde_json::from_slice(&info.payload)
        .map_err(|error| FilesError::Corrupt(error.to_string()))?;
    if info.deleted {
        return Err(missing(files));
    }
    let chunks = format!("{PREFIX}.C.{}", info.nuid);
    let mut content = Vec::new();
    let mut sequence = 0;
    for _ in 0..info.chunks {
        let chunk = stream
            .direct_get_next_for_subject(chunks.as_str(), Some(sequence + 1))
            .await
            .map_err(|error| match error.kind() {
                DirectGetErrorKind::NotFound => missing(files),
                _ => unavailable(&error),
            })?;
        sequence = chunk.sequence;
        content.extend_from_slice(&chunk.payload);
        if content.len() as u64 > files.bytes {
            break;
        }
    }
    Ok(content)
}

fn missing(files: &FilesRef) -> FilesError {
    FilesError::Corrupt(format!("{} is not in the artifact store", files.artifact))
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
