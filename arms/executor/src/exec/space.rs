//! Where a request works: in a workspace of its own, or in that of a `--task`, which stays for the next call.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use octollm_events::carrier::ErrorCode;
use uuid::Uuid;

use super::answer::Refusal;
use crate::action::{FileChange, FileOp};
use crate::workspace::{Entry, Kind, LayoutError, Owner, Removal, Workspace, Workspaces, layout};

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
    workspaces: Workspaces,
    id: Uuid,
    stays: bool,
    _alone: Option<Flock<File>>,
}

impl Space {
    /// The task's workspace beneath the directory, or a new one that goes when the value is dropped. Waits until another
    /// call of the same task has ended.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn open(
        directory: &Path,
        task: Option<&TaskName>,
        owner: Option<Owner>,
    ) -> io::Result<Self> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)?;
        let workspaces = Workspaces::new(directory, owner)?;
        let Some(TaskName(name)) = task else {
            return Ok(Self {
                workspaces,
                id: Uuid::new_v4(),
                stays: false,
                _alone: None,
            });
        };
        Ok(Self {
            workspaces,
            id: Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes()),
            stays: true,
            _alone: Some(lock(&directory.join(format!("{name}.lock")))?),
        })
    }

    /// The workspace with these files in it.
    pub(super) fn with_files(&self, files: &[Entry]) -> Result<Arc<Workspace>, Refusal> {
        let found = self
            .workspaces
            .find(self.id)
            .map_err(|error| unusable(&error))?;
        let workspace = match found {
            Some(workspace) => {
                layout::validate(files).map_err(refused)?;
                for entry in files {
                    workspace.change(&change(entry)?).map_err(|error| {
                        Refusal::new(ErrorCode::InvalidRequest, format!("files: {error}"))
                    })?;
                }
                workspace
            }
            None => self.workspaces.lay_out(self.id, files).map_err(refused)?,
        };
        Ok(Arc::new(workspace))
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        if !self.stays {
            match self.workspaces.remove(self.id) {
                Ok(Removal::Removed | Removal::Absent) => {}
                Ok(Removal::Held) => eprintln!("octo exec: the workspace is still held, and stays"),
                Err(error) => eprintln!("octo exec: the workspace was not removed: {error}"),
            }
        }
    }
}

fn refused(error: LayoutError) -> Refusal {
    match error {
        LayoutError::Invalid(_) | LayoutError::Entry { .. } => {
            Refusal::new(ErrorCode::InvalidRequest, error.to_string())
        }
        LayoutError::Root(_) => unusable(&error),
    }
}

/// The entry as a change of a workspace that is there. Times are those of the change.
fn change(entry: &Entry) -> Result<FileChange, Refusal> {
    let op = match &entry.kind {
        Kind::File { mode, content } => FileOp::Write {
            content: content.to_vec(),
            mode: *mode,
        },
        Kind::Directory { mode } => FileOp::MakeDirectory { mode: *mode },
        Kind::Symlink { .. } => {
            let problem = "files: links come with the first call of a task";
            return Err(Refusal::new(ErrorCode::InvalidRequest, problem));
        }
    };
    Ok(FileChange {
        path: entry.path.clone(),
        op,
    })
}

fn unusable(error: &dyn std::fmt::Display) -> Refusal {
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
