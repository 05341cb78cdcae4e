//! The initial workspace of a task, from the artifact that its first event names.

use octollm_events::Event;
use octollm_events::carrier::{FilesRef, TaskReceived};
use sha2::{Digest, Sha256};

use super::artifacts::Artifacts;
use super::snapshots::SnapshotError;
use crate::workspace::Entry;

/// Bytes of the artifact, at most: 64 KiB of content as base64, and 1,000 entries of long paths.
const MAX_BYTES: u64 = 8 << 20;

/// The entries that the task was submitted with, as the first event of its log says, and the second of that event since
/// 1970; no entries are an empty workspace.
///
/// # Errors
/// [`SnapshotError`] says whether trying again helps.
pub async fn fetch(
    artifacts: &Artifacts,
    log: &[Event],
) -> Result<(Vec<Entry>, u64), SnapshotError> {
    let first = log
        .first()
        .ok_or_else(|| corrupt("the task has no first event"))?;
    let received: TaskReceived = first.decode().map_err(|error| corrupt(&error))?;
    let time = first.stored_at.unix_timestamp().max(0).cast_unsigned();
    let Some(files) = received.files else {
        return Ok((Vec::new(), time));
    };
    if files.bytes > MAX_BYTES {
        let bytes = files.bytes;
        return Err(corrupt(&format!("{bytes} bytes, {MAX_BYTES} are allowed")));
    }
    let artifact = artifacts.get(&files.artifact, files.bytes).await?;
    // It is stored before the task's first event, so it will not turn up later.
    let missing = || corrupt(&format!("{} is not in the artifact store", files.artifact));
    Ok((entries(&files, &artifact.ok_or_else(missing)?)?, time))
}

fn corrupt(problem: &(impl std::fmt::Display + ?Sized)) -> SnapshotError {
    SnapshotError::Corrupt(format!(
        "the initial files are not what was submitted: {problem}"
    ))
}

fn entries(files: &FilesRef, artifact: &[u8]) -> Result<Vec<Entry>, SnapshotError> {
    if artifact.len() as u64 != files.bytes || hex::encode(Sha256::digest(artifact)) != files.digest
    {
        let artifact = &files.artifact;
        return Err(corrupt(&format!("{artifact} has another size or digest")));
    }
    let entries: Vec<Entry> = serde_json::from_slice(artifact).map_err(|error| corrupt(&error))?;
    if entries.len() as u64 == files.entries {
        return Ok(entries);
    }
    let (found, submitted) = (entries.len(), files.entries);
    Err(corrupt(&format!(
        "{found} entries, {submitted} were submitted"
    )))
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
            Err(SnapshotError::Corrupt(_))
        ));
        assert!(matches!(
            entries(&files, &artifact[1..]),
            Err(SnapshotError::Corrupt(_))
        ));
        let two = FilesRef {
            entries: 2,
            ..files
        };
        assert!(matches!(
            entries(&two, artifact),
            Err(SnapshotError::Corrupt(_))
        ));
    }
}
