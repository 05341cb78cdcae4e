//! Paths of the workspace, and the one way to open them.

use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{Mode, mkdirat};
use serde::{Deserialize, Serialize};

/// Characters of a path, at most.
const MAX_CHARACTERS: usize = 1024;

/// A path relative to the workspace: not empty, no leading slash, no empty, `.` or `..` component, no control
/// characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct WorkspacePath(String);

impl WorkspacePath {
    /// The path as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The directory that holds it (none: the workspace itself) and its own name.
    #[must_use]
    pub fn split(&self) -> (Option<&str>, &str) {
        match self.0.rsplit_once('/') {
            Some((parent, name)) => (Some(parent), name),
            None => (None, &self.0),
        }
    }

    /// The directory that holds it; none is the workspace itself.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        self.split().0.map(|parent| Self(parent.to_owned()))
    }

    /// The directories on the way to it, the outermost first.
    pub fn ancestors(&self) -> impl Iterator<Item = Self> + '_ {
        let ends = self.0.match_indices('/').map(|(at, _)| at);
        ends.map(|end| Self(self.0[..end].to_owned()))
    }

    /// Components, 1 for a path directly in the workspace.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.0.split('/').count()
    }

    /// Whether a link here with this target can only lead to the workspace: some `..`, not more than the link is deep,
    /// then names. A `..` after a name is refused, because the name may be a link itself and `..` would then start
    /// elsewhere.
    #[must_use]
    pub fn may_link_to(&self, target: &str) -> bool {
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
            && ascents < self.depth()
            && components[ascents..]
                .iter()
                .all(|component| !matches!(*component, ".." | "."))
    }
}

impl std::fmt::Display for WorkspacePath {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl TryFrom<String> for WorkspacePath {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let problem = if text.is_empty() {
            "is empty"
        } else if text.chars().count() > MAX_CHARACTERS {
            "is longer than 1024 characters"
        } else if text.bytes().any(|byte| byte.is_ascii_control()) {
            "has a control character"
        } else if text.starts_with('/') {
            "is absolute; it must be relative to the workspace"
        } else if text
            .split('/')
            .any(|component| matches!(component, "" | "." | ".."))
        {
            "has an empty, '.' or '..' component"
        } else {
            return Ok(Self(text));
        };
        Err(format!("the path {text:?} {problem}"))
    }
}

impl From<WorkspacePath> for String {
    fn from(path: WorkspacePath) -> Self {
        path.0
    }
}

/// Opens a path strictly beneath a directory: no symbolic link is followed, neither on the way nor at the end, and
/// no mount is crossed, whatever a step running at the same time does to the directory (`openat2(2)`).
///
/// # Errors
/// `ELOOP` for a symbolic link, `EXDEV` for an escape, and all of `open(2)`.
pub(crate) fn open_beneath(
    root: impl AsFd,
    path: &str,
    flags: OFlag,
    mode: Mode,
) -> nix::Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(flags | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW)
        .mode(mode)
        .resolve(
            ResolveFlag::RESOLVE_BENEATH
                | ResolveFlag::RESOLVE_NO_SYMLINKS
                | ResolveFlag::RESOLVE_NO_MAGICLINKS
                | ResolveFlag::RESOLVE_NO_XDEV,
        );
    openat2(root, path, how)
}

/// Opens a directory beneath another.
pub(crate) fn open_directory(root: impl AsFd, path: &str) -> nix::Result<OwnedFd> {
    open_beneath(
        root,
        path,
        OFlag::O_RDONLY | OFlag::O_DIRECTORY,
        Mode::empty(),
    )
}

/// Opens a directory beneath another and makes what is missing on the way; `made` is told of each new directory.
pub(crate) fn make_directories(
    root: impl AsFd,
    path: &str,
    mode: Mode,
    mut made: impl FnMut(&OwnedFd) -> nix::Result<()>,
) -> nix::Result<OwnedFd> {
    let mut current = root
        .as_fd()
        .try_clone_to_owned()
        .map_err(|_| Errno::EMFILE)?;
    for name in path.split('/') {
        let is_new = match mkdirat(&current, name, mode) {
            Ok(()) => true,
            Err(Errno::EEXIST) => false,
            Err(errno) => return Err(errno),
        };
        current = open_directory(&current, name)?;
        if is_new {
            made(&current)?;
        }
    }
    Ok(current)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_relative_paths_are_paths() {
        for good in ["a", "a/b.c", ".hidden", "...", "a b/ü"] {
            assert!(WorkspacePath::try_from(good.to_owned()).is_ok(), "{good:?}");
        }
        for bad in [
            "", "/", "/a", "a/", "a//b", ".", "..", "./a", "a/..", "a/./b", "../a", "a\0b", "a\nb",
            "\x7f",
        ] {
            assert!(WorkspacePath::try_from(bad.to_owned()).is_err(), "{bad:?}");
        }
        assert!(WorkspacePath::try_from("ü".repeat(1024)).is_ok());
        assert!(WorkspacePath::try_from("a".repeat(1025)).is_err());
    }
}
