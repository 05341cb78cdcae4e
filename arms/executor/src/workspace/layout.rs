//! The initial workspace of a task: entries with their modes and times.

use std::os::fd::OwnedFd;

use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{Mode, UtimensatFlags, fchmod, futimens, utimensat};
use nix::sys::time::{TimeSpec, TimeValLike};
use nix::unistd::{fchown, fchownat, symlinkat};
use serde::Deserialize;

use super::path::{WorkspacePath, make_directories, open_beneath};
use super::{Owner, write_all};
use crate::action::{self, content};

/// Entries, at most.
pub const MAX_ENTRIES: usize = 1000;
/// Bytes of all contents together, at most.
pub const MAX_CONTENT_BYTES: usize = 1 << 20;

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

/// One entry of the initial workspace.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "EntryForm")]
pub struct Entry {
    path: WorkspacePath,
    mtime: Option<i64>,
    node: Node,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Node {
    File { content: Vec<u8>, mode: Mode },
    Directory { mode: Mode },
    Symlink { target: String },
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum EntryType {
    File,
    Dir,
    Symlink,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EntryForm {
    path: WorkspacePath,
    r#type: EntryType,
    mode: Option<action::Mode>,
    mtime: Option<i64>,
    text: Option<String>,
    base64: Option<String>,
    target: Option<String>,
}

impl TryFrom<EntryForm> for Entry {
    type Error = String;

    fn try_from(form: EntryForm) -> Result<Self, Self::Error> {
        let path = &form.path;
        if form
            .mtime
            .is_some_and(|seconds| !(0..=253_402_300_799).contains(&seconds))
        {
            return Err(format!("{path}: mtime is not between 1970 and 9999"));
        }
        let has_content = form.text.is_some() || form.base64.is_some();
        let bits = |mode: Option<action::Mode>, default: action::Mode| {
            Mode::from_bits_truncate(mode.unwrap_or(default).bits())
        };
        let node = match (form.r#type, form.target) {
            (EntryType::File, None) => Node::File {
                content: content(form.text, form.base64.as_deref())
                    .map_err(|problem| format!("{path}: {problem}"))?,
                mode: bits(form.mode, action::Mode::FILE),
            },
            (EntryType::Dir, None) if !has_content => Node::Directory {
                mode: bits(form.mode, action::Mode::DIRECTORY),
            },
            (EntryType::Symlink, Some(target)) if !has_content && form.mode.is_none() => {
                if !stays_inside(path, &target) {
                    return Err(format!(
                        "{path}: the target {target:?} is not of the form ../…/name inside the workspace"
                    ));
                }
                Node::Symlink { target }
            }
            _ => {
                return Err(format!(
                    "{path}: a file has text or base64, a dir nothing, a symlink a target only"
                ));
            }
        };
        Ok(Self {
            path: form.path,
            mtime: form.mtime,
            node,
        })
    }
}

/// Whether a link's target can only lead to the workspace: some `..`, not more than the link is deep, then names.
/// A `..` after a name is refused, because the name may be a link itself and `..` would then start elsewhere.
fn stays_inside(link: &WorkspacePath, target: &str) -> bool {
    if target.len() > 1024 || target.contains('\0') || target.starts_with('/') {
        return false;
    }
    let components: Vec<&str> = target
        .split('/')
        .filter(|component| !component.is_empty())
        .collect();
    let ascents = components
        .iter()
        .take_while(|&&component| component == "..")
        .count();
    !components.is_empty()
        && ascents < link.depth()
        && components[ascents..]
            .iter()
            .all(|component| !matches!(*component, ".." | "."))
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
        .map(|entry| match &entry.node {
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
        if let Node::Directory { .. } = entry.node {
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
        if let Node::File { content, mode } = &entry.node {
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
                fchmod(&file, *mode)?;
                set_time(entry, |time| futimens(&file, time, time))
            };
            make().map_err(at(entry))?;
        }
    }
    for entry in entries {
        if let Node::Symlink { target } = &entry.node {
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
        .filter(|entry| matches!(entry.node, Node::Directory { .. }))
        .collect();
    directories.sort_by_key(|entry| std::cmp::Reverse(entry.path.depth()));
    for entry in directories {
        if let Node::Directory { mode } = entry.node {
            let finish = || {
                let directory = super::path::open_directory(root, entry.path.as_str())?;
                set_time(entry, |time| futimens(&directory, time, time))?;
                fchmod(&directory, mode)
            };
            finish().map_err(at(entry))?;
        }
    }
    Ok(())
}

fn set_time(entry: &Entry, set: impl FnOnce(&TimeSpec) -> nix::Result<()>) -> nix::Result<()> {
    entry
        .mtime
        .map_or(Ok(()), |seconds| set(&TimeSpec::seconds(seconds)))
}
