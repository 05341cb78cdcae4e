//! Claims: a side-effecting attempt is started at most once.
//!
//! A claim is a file that is made, durably, before the attempt starts and removed after its result is on record. One
//! that is there already says that an executor died in between: whether the effect took place is then unknown, and
//! is put on record as such. Claims live beside the workspaces, so they hold for all executors that share these.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::standing::Attempt;

/// The claims of the executors that share a directory of workspaces.
#[derive(Debug)]
pub struct Claims {
    directory: PathBuf,
}

impl Claims {
    /// Uses `.claims` in the directory of the workspaces.
    ///
    /// # Errors
    /// It can't be made.
    pub fn new(workspaces: &Path) -> std::io::Result<Self> {
        let directory = workspaces.join(".claims");
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&directory)?;
        Ok(Self { directory })
    }

    /// Claims the attempt; false if it has been claimed before.
    ///
    /// # Errors
    /// The claim can't be made durable; the attempt must not start.
    pub fn take(&self, attempt: &Attempt) -> std::io::Result<bool> {
        match OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(self.path(attempt))
        {
            Ok(file) => {
                file.sync_all()?;
                File::open(&self.directory)?.sync_all()?;
                Ok(true)
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Forgets the attempt once its result is on record. One that is not there is forgotten already.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn release(&self, attempt: &Attempt) -> std::io::Result<()> {
        match std::fs::remove_file(self.path(attempt)) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn path(&self, attempt: &Attempt) -> PathBuf {
        self.directory.join(attempt.to_string())
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn an_attempt_is_claimed_once_until_it_is_released() {
        let directory = tempfile::tempdir().unwrap();
        let attempt = Attempt {
            task_id: Uuid::nil(),
            plan_version: 1,
            step_id: "a".to_owned(),
            number: 1,
        };
        let next = Attempt {
            number: 2,
            ..attempt.clone()
        };
        let claims = Claims::new(directory.path()).unwrap();
        assert!(claims.take(&attempt).unwrap());
        assert!(
            !Claims::new(directory.path())
                .unwrap()
                .take(&attempt)
                .unwrap(),
            "a restart forgot the claim"
        );
        assert!(claims.take(&next).unwrap());
        claims.release(&attempt).unwrap();
        claims.release(&attempt).unwrap();
        assert!(claims.take(&attempt).unwrap());
    }
}
