//! File actions, and reading for checks. Carried out by the executor itself, never following a symbolic link.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, renameat};
use nix::sys::stat::{Mode, SFlag, fchmod, fstat, fstatat};
use nix::unistd::{UnlinkatFlags, fchown, unlinkat};
use uuid::Uuid;

use super::path::{make_directories, open_beneath, open_directory};
use super::{Workspace, WorkspacePath, write_all};
use crate::action::{self, FileChange, FileOp};

/// A file action or a read that could not be carried out.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum FileError {
    /// The path is, or leads through, a symbolic link or another kind of file than the action needs.
    #[error("{path} {problem}")]
    Unsuitable {
        /// The path.
        path: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The file system refused.
    #[error("{path}: {errno}")]
    Refused {
        /// The path.
        path: String,
        /// Why.
        errno: Errno,
    },
}

impl FileError {
    /// Whether the disk or a quota is full: the code is then `DISK_LIMIT`, else `STEP_FAILED`.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(
            self,
            Self::Refused {
                errno: Errno::ENOSPC | Errno::EDQUOT | Errno::EFBIG,
                ..
            }
        )
    }
}

impl Workspace {
    /// Carries out a file action. A write replaces the file in one step: nobody sees half of it.
    ///
    /// Deleting what is not there succeeds, and so does making a directory that is there, so that an action that was
    /// carried out but not recorded can be run again.
    ///
    /// # Errors
    /// [`FileError`] names the path and the reason.
    pub fn change(&self, change: &FileChange) -> Result<(), FileError> {
        let path = &change.path;
        match &change.op {
            FileOp::Write { content, mode } => self.write(path, content, bits(*mode)),
            FileOp::Append { content, mode } => self.append(path, content, mode.map(bits)),
            FileOp::MakeDirectory { mode } => {
                let made = make_directories(&*self.root, path.as_str(), bits(*mode), |made| {
                    self.hand_over(made, bits(*mode))
                });
                made.map(drop).map_err(|errno| refused(path, errno))
            }
            FileOp::Delete => self.delete(path),
        }
    }

    /// Content of a regular file of at most `limit` bytes.
    ///
    /// # Errors
    /// [`FileError`]: no such file, not a regular file, larger than the limit.
    pub fn read(&self, path: &WorkspacePath, limit: usize) -> Result<Vec<u8>, FileError> {
        // O_NONBLOCK: a FIFO must not hold the executor up.
        let file = open_beneath(
            &*self.root,
            path.as_str(),
            OFlag::O_RDONLY | OFlag::O_NONBLOCK,
            Mode::empty(),
        )
        .map_err(|errno| refused(path, errno))?;
        require_regular(path, &file)?;
        let mut content = Vec::new();
        File::from(file)
            .take(limit as u64 + 1)
            .read_to_end(&mut content)
            .map_err(|error| {
                refused(
                    path,
                    Errno::from_raw(error.raw_os_error().unwrap_or_default()),
                )
            })?;
        if content.len() > limit {
            return Err(unsuitable(path, "is too large to be checked"));
        }
        Ok(content)
    }

    /// Whether the path exists, be it a dangling symbolic link.
    #[must_use]
    pub fn exists(&self, path: &WorkspacePath) -> bool {
        open_beneath(&*self.root, path.as_str(), OFlag::O_PATH, Mode::empty()).is_ok()
    }

    fn write(&self, path: &WorkspacePath, content: &[u8], mode: Mode) -> Result<(), FileError> {
        let directory = self.parent(path)?;
        let name = path.split().1;
        match fstatat(&directory, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(found) if kind(found.st_mode) != SFlag::S_IFREG => {
                return Err(unsuitable(path, "is not a regular file"));
            }
            Ok(_) | Err(Errno::ENOENT) => {}
            Err(errno) => return Err(refused(path, errno)),
        }
        let staged = format!(".octo-{}", Uuid::new_v4());
        let replace = || {
            let file = create_new(&directory, &staged)?;
            write_all(&file, content)?;
            self.hand_over(&file, mode)?;
            renameat(&directory, staged.as_str(), &directory, name)
        };
        replace().map_err(|errno| {
            // It may not even have been made; the reason at hand is the one to report.
            let _ = unlinkat(&directory, staged.as_str(), UnlinkatFlags::NoRemoveDir);
            refused(path, errno)
        })
    }

    fn append(
        &self,
        path: &WorkspacePath,
        content: &[u8],
        mode: Option<Mode>,
    ) -> Result<(), FileError> {
        let directory = self.parent(path)?;
        let name = path.split().1;
        let flags = OFlag::O_WRONLY | OFlag::O_APPEND | OFlag::O_NONBLOCK;
        let file = match open_beneath(&directory, name, flags, Mode::empty()) {
            Ok(file) => {
                require_regular(path, &file)?;
                require_single_name(path, &file)?;
                if let Some(mode) = mode {
                    fchmod(&file, mode).map_err(|errno| refused(path, errno))?;
                }
                file
            }
            Err(Errno::ENOENT) => {
                let make = || {
                    let file = create_new(&directory, name)?;
                    self.hand_over(&file, mode.unwrap_or(bits(action::Mode::FILE)))?;
                    Ok(file)
                };
                make().map_err(|errno| refused(path, errno))?
            }
            Err(errno) => return Err(refused(path, errno)),
        };
        write_all(&file, content).map_err(|errno| refused(path, errno))
    }

    fn delete(&self, path: &WorkspacePath) -> Result<(), FileError> {
        let (parent, name) = path.split();
        let remove = || {
            let directory = match parent {
                Some(parent) => open_directory(&*self.root, parent)?,
                None => open_directory(&*self.root, ".")?,
            };
            match unlinkat(&directory, name, UnlinkatFlags::NoRemoveDir) {
                Err(Errno::EISDIR) => unlinkat(&directory, name, UnlinkatFlags::RemoveDir),
                other => other,
            }
        };
        match remove() {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(errno) => Err(refused(path, errno)),
        }
    }

    fn parent(&self, path: &WorkspacePath) -> Result<OwnedFd, FileError> {
        let opened = match path.split().0 {
            None => open_directory(&*self.root, "."),
            Some(parent) => {
                let mode = bits(action::Mode::DIRECTORY);
                make_directories(&*self.root, parent, mode, |made| self.hand_over(made, mode))
            }
        };
        opened.map_err(|errno| refused(path, errno))
    }

    /// Gives a new node to the user that the sandbox runs as, with exactly these bits (no umask).
    fn hand_over(&self, node: &OwnedFd, mode: Mode) -> nix::Result<()> {
        if let Some(owner) = self.owner {
            fchown(node, Some(owner.uid), Some(owner.gid))?;
        }
        fchmod(node, mode)
    }
}

fn create_new(directory: impl AsFd, name: &str) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL;
    open_beneath(directory, name, flags, Mode::S_IRUSR | Mode::S_IWUSR)
}

fn require_regular(path: &WorkspacePath, file: &OwnedFd) -> Result<(), FileError> {
    let found = fstat(file).map_err(|errno| refused(path, errno))?;
    if kind(found.st_mode) == SFlag::S_IFREG {
        Ok(())
    } else {
        Err(unsuitable(path, "is not a regular file"))
    }
}

/// A second name (hard link) may belong to a file that this action must not change.
fn require_single_name(path: &WorkspacePath, file: &OwnedFd) -> Result<(), FileError> {
    let found = fstat(file).map_err(|errno| refused(path, errno))?;
    if found.st_nlink == 1 {
        Ok(())
    } else {
        Err(unsuitable(path, "has several names (hard links)"))
    }
}

fn kind(st_mode: nix::libc::mode_t) -> SFlag {
    SFlag::from_bits_truncate(st_mode) & SFlag::S_IFMT
}

fn bits(mode: action::Mode) -> Mode {
    Mode::from_bits_truncate(mode.bits())
}

fn unsuitable(path: &WorkspacePath, problem: &'static str) -> FileError {
    FileError::Unsuitable {
        path: path.to_string(),
        problem,
    }
}

fn refused(path: &WorkspacePath, errno: Errno) -> FileError {
    match errno {
        Errno::ELOOP => unsuitable(path, "is or leads through a symbolic link"),
        Errno::EXDEV => unsuitable(path, "leads out of the workspace"),
        errno => FileError::Refused {
            path: path.to_string(),
            errno,
        },
    }
}
