//! Where a request works: in a workspace of its own, or in that of a `--task`, which stays for the next call.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use octollm_events::carrier::ErrorCode;

use super::answer::Refusal;
use crate::workspace::{Caps, Entry, Tree};

/// Bytes of a task's name, at most.
const MAX_NAME_BYTES: usize = 64;

/// What calls that share a workspace call it: a name that is one plain file name, too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskName(String);

impl std::str::FromStr for TaskName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_plain = (1..=MAX_NAME_BYTES).contains(&text.len())
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
            && text.starts_with(|first: char| first.is_ascii_alphanumeric());
        if is_plain {
            Ok(Self(text.to_owned()))
        } else {
            Err(format!(
                "it must have 1 to {MAX_NAME_BYTES} letters, digits, dots, underscores and hyphens, and begin with a letter or digit"
            ))
        }
    }
}

/// A workspace that nobody else uses as long as this value lives.
#[derive(Debug)]
pub struct Space {
    /// Where it is kept, and who is alone with it; none: it is forgotten.
    kept: Option<(PathBuf, Flock<File>)>,
}

impl Space {
    /// The task's workspace beneath the directory, or an empty one that is forgotten. Waits until another call of the same
    /// task has ended.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn open(directory: &Path, task: Option<&TaskName>) -> io::Result<Self> {
        let Some(TaskName(name)) = task else {
            return Ok(Self { kept: None });
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)?;
        let alone = lock(&directory.join(format!("{name}.lock")))?;
        let snapshot = directory.join(format!("{name}.tar.zst"));
        Ok(Self {
            kept: Some((snapshot, alone)),
        })
    }

    /// The workspace with these files in it.
    pub(super) fn with_files(&self, files: &[Entry]) -> Result<Arc<Tree>, Refusal> {
        let present = self.load()?;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let tree = present
            .with_entries(files, now.unwrap_or_default().as_secs())
            .map_err(|error| Refusal::new(ErrorCode::InvalidRequest, error.to_string()))?;
        tree.check(&Caps::default())
            .map_err(|error| Refusal::new(ErrorCode::DiskLimit, error.to_string()))?;
        Ok(Arc::new(tree))
    }

    fn load(&self) -> Result<Tree, Refusal> {
        let Some((snapshot, _)) = &self.kept else {
            return Ok(Tree::default());
        };
        match File::open(snapshot) {
            Ok(file) => {
                Tree::from_snapshot(file, None, &Caps::default()).map_err(|error| unusable(&error))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Tree::default()),
            Err(error) => Err(unusable(&error)),
        }
    }

    /// Keeps the workspace for the next call: all of it or, after a crash, what was there.
    pub(super) fn keep(&self, tree: &Tree) -> Result<(), Refusal> {
        let Some((snapshot, _)) = &self.kept else {
            return Ok(());
        };
        let staged = snapshot.with_extension("new");
        let write = || {
            let mut file = OpenOptions::new()
                .create(true)
                .truncate(true)
                .write(true)
                .mode(0o600)
                .custom_flags(nix::libc::O_NOFOLLOW)
                .open(&staged)?;
            file.write_all(&tree.to_snapshot())?;
            file.sync_all()?;
            std::fs::rename(&staged, snapshot)
        };
        write().map_err(|error| unusable(&error))
    }
}

fn unusable(error: &impl std::fmt::Display) -> Refusal {
    Refusal::new(
        ErrorCode::InternalError,
        format!("the workspace can't be used: {error}; look at the data directory"),
    )
}

fn lock(path: &PathBuf) -> io::Result<Flock<File>> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .custom_flags(nix::libc::O_NOFOLLOW)
        .open(path)?;
    let mut file = file;
    loop {
        match Flock::lock(file, FlockArg::LockExclusive) {
            Ok(alone) => return Ok(alone),
            Err((again, Errno::EINTR)) => file = again,
            Err((_, errno)) => return Err(errno.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_s_name_is_one_plain_file_name() {
        for good in ["a", "task-1", "0199.x_y", &"a".repeat(64)] {
            assert!(good.parse::<TaskName>().is_ok(), "{good}");
        }
        for bad in [
            "",
            ".",
            "..",
            "../x",
            "a/b",
            "-a",
            ".a",
            "a b",
            "ä",
            "a\0",
            &"a".repeat(65),
        ] {
            assert!(bad.parse::<TaskName>().is_err(), "{bad:?}");
        }
    }
}
