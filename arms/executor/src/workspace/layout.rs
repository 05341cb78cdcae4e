//! The initial workspace of a task: entries with their modes and times.

use std::os::fd::OwnedFd;

use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{Mode, UtimensatFlags, fchmod, futimens, utimensat};
use nix::sys::time::{TimeSpec, TimeValLike};
use nix::unistd::{fchown, fchownat, symlinkat};

use super::entry::{Entry, MAX_CONTENT_BYTES, MAX_ENTRIES};
use super::path::{WorkspacePath, make_directories, open_beneath};
use super::tree::Kind as Node;
use super::{Owner, write_all};
use crate::action;

/// Why a workspace could not be laid out.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// The entries contradict the contract or each other. The code is `INVALID_REQUEST`.
    #[error("the initial files are not valid: {0}")]
    Invalid(String),
    /// The file system refused.
    #[error("the workspace entry {path} could not be made: {errno}")]
    Entry {
        /// The entry.
        path: String,
        /// Why.
        errno: nix::Error,
    },
    /// The workspace's own directory could not be made.
    #[error("the workspace could not be made: {0}")]
    Root(#[from] std::io::Error),
}

/// Checks a set of entries as a whole.
///
/// # Errors
/// [`LayoutError::Invalid`] for too many entries, too much content, or a path that occurs twice.
pub fn validate(entries: &[Entry]) -> Result<(), LayoutError> {
    if entries.len() > MAX_ENTRIES {
        let count = entries.len();
        return Err(LayoutError::Invalid(format!(
            "{count} entries, {MAX_ENTRIES} are allowed"
        )));
    }
    let bytes: usize = entries
        .iter()
        .map(|entry| match &entry.kind {
            Node::File { content, .. } => content.len(),
            Node::Directory { .. } | Node::Symlink { .. } => 0,
        })
        .sum();
    if bytes > MAX_CONTENT_BYTES {
        return Err(LayoutError::Invalid(format!(
            "{bytes} bytes, {MAX_CONTENT_BYTES} are allowed"
        )));
    }
    let mut paths: Vec<&WorkspacePath> = entries.iter().map(|entry| &entry.path).collect();
    paths.sort();
    match paths.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(LayoutError::Invalid(format!("{} occurs twice", pair[0]))),
        None => Ok(()),
    }
}

/// Makes the entries beneath an empty directory. Directories get their modes and times last, deepest first, so that
/// neither a read-only directory nor a later entry spoils what was asked for; links come after files, so no entry is
/// ever reached through one.
///
/// # Errors
/// The first entry that could not be made; what was made until then stays and must be thrown away.
pub(super) fn lay_out(
    root: &OwnedFd,
    entries: &[Entry],
    owner: Option<Owner>,
) -> Result<(), LayoutError> {
    let chown = |node: &OwnedFd| match owner {
        Some(owner) => fchown(node, Some(owner.uid), Some(owner.gid)),
        None => Ok(()),
    };
    let at = |entry: &Entry| {
        let path = entry.path.to_string();
        move |errno| LayoutError::Entry { path, errno }
    };
    let private = Mode::S_IRWXU;
    let bits = |mode: &action::Mode| Mode::from_bits_truncate(mode.bits());
    let parent = |entry: &Entry| match entry.path.split().0 {
        None => root.try_clone().map_err(|_| nix::Error::EMFILE),
        Some(directory) => make_directories(root, directory, private, |made| {
            chown(made)?;
            fchmod(
                made,
                Mode::from_bits_truncate(action::Mode::DIRECTORY.bits()),
            )
        }),
    };

    for entry in entries {
        if let Node::Directory { .. } = entry.kind {
            make_directories(root, entry.path.as_str(), private, |made| {
                chown(made)?;
                fchmod(
                    made,
                    Mode::from_bits_truncate(action::Mode::DIRECTORY.bits()),
                )
            })
            .map_err(at(entry))?;
        }
    }
    for entry in entries {
        if let Node::File { content, mode } = &entry.kind {
            let make = || {
                let directory = parent(entry)?;
                let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL;
                let file = open_beneath(
                    &directory,
                    entry.path.split().1,
                    flags,
                    Mode::S_IRUSR | Mode::S_IWUSR,
                )?;
                write_all(&file, content)?;
                chown(&file)?;
                fchmod(&file, bits(mode))?;
                set_time(entry, |time| futimens(&file, time, time))
            };
            make().map_err(at(entry))?;
        }
    }
    for entry in entries {
        if let Node::Symlink { target } = &entry.kind {
            let make = || {
                let directory = parent(entry)?;
                let name = entry.path.split().1;
                symlinkat(target.as_str(), &directory, name)?;
                if let Some(owner) = owner {
                    fchownat(
                        &directory,
                        name,
                        Some(owner.uid),
                        Some(owner.gid),
                        AtFlags::AT_SYMLINK_NOFOLLOW,
                    )?;
                }
                set_time(entry, |time| {
                    utimensat(
                        &directory,
                        name,
                        time,
                        time,
                        UtimensatFlags::NoFollowSymlink,
                    )
                })
            };
            make().map_err(at(entry))?;
        }
    }
    let mut directories: Vec<&Entry> = entries
        .iter()
        .filter(|entry| matches!(entry.kind, Node::Directory { .. }))
        .collect();
    directories.sort_by_key(|entry| std::cmp::Reverse(entry.path.depth()));
    for entry in directories {
        if let Node::Directory { mode } = &entry.kind {
            let finish = || {
                let directory = super::path::open_directory(root, entry.path.as_str())?;
                set_time(entry, |time| futimens(&directory, time, time))?;
                fchmod(&directory, bits(mode))
            };
            finish().map_err(at(entry))?;
        }
    }
    Ok(())
}

fn set_time(entry: &Entry, set: impl FnOnce(&TimeSpec) -> nix::Result<()>) -> nix::Result<()> {
    entry.mtime.map_or(Ok(()), |seconds| {
        set(&TimeSpec::seconds(seconds.cast_signed()))
    })
}
