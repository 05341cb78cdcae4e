//! Workspaces: one directory per task, shared by its steps.
//!
//! A workspace is laid out under a staging name and renamed when it is complete, so a name that is a task's id is a
//! whole workspace, whatever crashed before. Steps may run inside it at any moment; therefore every path is opened
//! by [`open_beneath`](path::open_beneath) and nothing is looked up twice.

mod archive;
mod change;
mod entry;
pub mod file;
mod glob;
pub mod layout;
mod merge;
mod path;
mod tree;

use std::fs::DirBuilder;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, chown};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, Flock, FlockArg, OFlag, RenameFlags, open, renameat2};
use nix::sys::stat::{Mode, fstat, stat};
use nix::unistd::{Gid, Uid, syncfs};
use uuid::Uuid;

pub use archive::{ArchiveError, LeftOut};
pub use change::ChangeError;
pub use entry::{Entry, MAX_CONTENT_BYTES, MAX_ENTRIES};
pub use glob::{Globs, InvalidGlob};
pub use layout::LayoutError;
pub use merge::Conflict;
pub use path::WorkspacePath;
pub(crate) use path::open_beneath;
pub use tree::{Caps, Excess, InvalidEntries, Kind, Node, Tree};

/// Staging directories start with this; no task id does.
const STAGING_PREFIX: &str = ".laying-";
/// A staging directory older than this was left by a crash.
const STAGING_ABANDONED: Duration = Duration::from_secs(3600);

/// Whom the workspaces belong to, where it is not the executor's own user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// User id on the host.
    pub uid: Uid,
    /// Group id on the host.
    pub gid: Gid,
}

/// All workspaces of this executor.
#[derive(Debug)]
pub struct Workspaces {
    root: PathBuf,
    owner: Option<Owner>,
}

impl Workspaces {
    /// Uses the directory and makes it where it is missing, closed to other users. What an earlier crash left half
    /// made is removed.
    ///
    /// # Errors
    /// The directory can't be made or read.
    pub fn new(root: &Path, owner: Option<Owner>) -> std::io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(root)?;
        let root = root.canonicalize()?;
        for entry in std::fs::read_dir(&root)? {
            let entry = entry?;
            let is_staging = entry
                .file_name()
                .to_string_lossy()
                .starts_with(STAGING_PREFIX);
            let age = SystemTime::now()
                .duration_since(entry.metadata()?.modified()?)
                .unwrap_or_default();
            if is_staging && age > STAGING_ABANDONED {
                std::fs::remove_dir_all(entry.path())?;
            }
        }
        Ok(Self { root, owner })
    }

    /// The task's workspace, if it has been laid out.
    ///
    /// # Errors
    /// It is there and can't be opened.
    pub fn find(&self, task: Uuid) -> std::io::Result<Option<Workspace>> {
        match self.open(task) {
            Ok(workspace) => Ok(Some(workspace)),
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Lays out the task's workspace. When somebody else was faster, theirs is the task's workspace.
    ///
    /// # Errors
    /// The entries are not valid, or the file system refuses.
    pub fn lay_out(&self, task: Uuid, entries: &[Entry]) -> Result<Workspace, LayoutError> {
        layout::validate(entries)?;
        let staging = self
            .root
            .join(format!("{STAGING_PREFIX}{}", Uuid::new_v4()));
        let made = self.lay_out_in(&staging, task, entries);
        if made.is_err() {
            // The error at hand matters more than one of the clean-up; the next start removes what stays.
            let _ = std::fs::remove_dir_all(&staging);
        }
        made?;
        self.open(task)
            .map_err(|errno| LayoutError::Root(errno.into()))
    }

    /// The tasks that have a workspace here.
    ///
    /// # Errors
    /// The directory can't be read.
    pub fn tasks(&self) -> std::io::Result<Vec<Uuid>> {
        let entries = std::fs::read_dir(&self.root)?;
        let names = entries.map(|entry| Ok(entry?.file_name()));
        let names: std::io::Result<Vec<_>> = names.collect();
        let ids = names?;
        let ids = ids.iter().filter_map(|name| name.to_str()?.parse().ok());
        Ok(ids.collect())
    }

    /// Whether the task has a workspace here.
    #[must_use]
    pub fn has(&self, task: Uuid) -> bool {
        self.path(task).exists()
    }

    /// Removes the task's workspace, unless a step holds it, in this process or another.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn remove(&self, task: Uuid) -> std::io::Result<Removal> {
        let path = self.path(task);
        let root = match open_root(&path) {
            Ok(root) => root,
            Err(Errno::ENOENT) => return Ok(Removal::Absent),
            Err(errno) => return Err(errno.into()),
        };
        let _alone = match Flock::lock(root, FlockArg::LockExclusiveNonblock) {
            Ok(alone) => alone,
            Err((_, Errno::EWOULDBLOCK)) => return Ok(Removal::Held),
            Err((_, errno)) => return Err(errno.into()),
        };
        // Under a staging name it is no workspace any more, and what a crash leaves is removed at a later start.
        let doomed = self
            .root
            .join(format!("{STAGING_PREFIX}{}", Uuid::new_v4()));
        std::fs::rename(&path, &doomed)?;
        std::fs::remove_dir_all(&doomed)?;
        Ok(Removal::Removed)
    }

    /// An empty workspace of no task, for a trial; it is removed when the value is dropped.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn scratch(&self) -> std::io::Result<Scratch> {
        let scratch = Scratch {
            path: self
                .root
                .join(format!("{STAGING_PREFIX}{}", Uuid::new_v4())),
            owner: self.owner,
        };
        DirBuilder::new().mode(0o700).create(&scratch.path)?;
        if let Some(owner) = self.owner {
            chown(
                &scratch.path,
                Some(owner.uid.as_raw()),
                Some(owner.gid.as_raw()),
            )?;
        }
        Ok(scratch)
    }

    fn lay_out_in(&self, staging: &Path, task: Uuid, entries: &[Entry]) -> Result<(), LayoutError> {
        DirBuilder::new().mode(0o700).create(staging)?;
        let root = open_root(staging).map_err(std::io::Error::from)?;
        layout::lay_out(&root, entries, self.owner)?;
        if let Some(owner) = self.owner {
            chown(staging, Some(owner.uid.as_raw()), Some(owner.gid.as_raw()))?;
        }
        if !entries.is_empty() {
            // The rename must not reach the disk before the content it vouches for.
            syncfs(&root).map_err(std::io::Error::from)?;
        }
        match renameat2(
            AT_FDCWD,
            staging,
            AT_FDCWD,
            &self.path(task),
            RenameFlags::RENAME_NOREPLACE,
        ) {
            Ok(()) => Ok(()),
            Err(Errno::EEXIST) => Ok(std::fs::remove_dir_all(staging)?),
            Err(errno) => Err(LayoutError::Root(errno.into())),
        }
    }

    fn open(&self, task: Uuid) -> nix::Result<Workspace> {
        let path = self.path(task);
        let root = hold(open_root(&path)?)?;
        // It may have been taken away before we held it.
        if fstat(&*root)?.st_ino != stat(&path)?.st_ino {
            return Err(Errno::ENOENT);
        }
        Ok(Workspace {
            root,
            path,
            owner: self.owner,
        })
    }

    fn path(&self, task: Uuid) -> PathBuf {
        self.root.join(task.hyphenated().to_string())
    }
}

/// A workspace of no task.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    owner: Option<Owner>,
}

impl Scratch {
    /// It as a workspace, for a step.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn open(&self) -> std::io::Result<Workspace> {
        Ok(Workspace {
            root: hold(open_root(&self.path)?)?,
            path: self.path.clone(),
            owner: self.owner,
        })
    }

    /// Where it is on the host.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What stays is swept like any staging directory.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

/// What removing a workspace came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// It is gone now.
    Removed,
    /// There was none.
    Absent,
    /// A step works in it.
    Held,
}

/// One task's workspace, held: it is not removed as long as this value lives.
#[derive(Debug)]
pub struct Workspace {
    root: Flock<OwnedFd>,
    path: PathBuf,
    owner: Option<Owner>,
}

impl Workspace {
    /// Where it is on the host, for the sandbox to bind.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Any number of steps hold a workspace, in any process; who removes it must be alone.
fn hold(root: OwnedFd) -> nix::Result<Flock<OwnedFd>> {
    Flock::lock(root, FlockArg::LockSharedNonblock).map_err(|(_, errno)| errno)
}

fn open_root(path: &Path) -> nix::Result<OwnedFd> {
    open(
        path,
        OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC,
        Mode::empty(),
    )
}

fn write_all(file: &OwnedFd, mut content: &[u8]) -> nix::Result<()> {
    while !content.is_empty() {
        match nix::unistd::write(file, content) {
            Ok(written) => content = &content[written..],
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}
