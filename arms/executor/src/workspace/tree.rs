//! A workspace as a value: what is where. Every node's parent is a directory of the tree; there is no other state.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::entry::{Entry, MAX_CONTENT_BYTES, MAX_ENTRIES};
use super::path::WorkspacePath;
use crate::action::Mode;

/// The last second of the year 9999, the latest time that a node may have.
pub const LATEST: u64 = 253_402_300_799;
/// What a tmpfs gives out at once, bytes.
const PAGE: u64 = 4096;
/// Targets up to this many bytes lie in the inode of a link on a tmpfs.
const SHORT_TARGET: usize = 127;

/// A file, a directory or a symbolic link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// What it is.
    pub kind: Kind,
    /// When it was last modified, seconds since 1970.
    pub mtime: u64,
}

/// What a node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory {
        /// Permission bits.
        mode: Mode,
    },
    /// A regular file.
    File {
        /// Permission bits.
        mode: Mode,
        /// All of it.
        content: Bytes,
    },
    /// A symbolic link that can only lead to the workspace ([`WorkspacePath::link_target`]).
    Symlink {
        /// Where it leads to, relative.
        target: String,
    },
}

impl Node {
    /// The bytes that it takes of a workspace: whole pages, as on the tmpfs where steps see it.
    #[must_use]
    pub fn space(&self) -> u64 {
        match &self.kind {
            Kind::File { content, .. } => (content.len() as u64).next_multiple_of(PAGE),
            Kind::Symlink { target } if target.len() > SHORT_TARGET => PAGE,
            Kind::Symlink { .. } | Kind::Directory { .. } => 0,
        }
    }

    pub(super) fn is_directory(&self) -> bool {
        matches!(self.kind, Kind::Directory { .. })
    }
}

/// What a workspace may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
pub struct Caps {
    /// Bytes, in whole pages.
    pub bytes: u64,
    /// Files, directories and links.
    pub entries: usize,
}

impl Default for Caps {
    fn default() -> Self {
        Self {
            bytes: 64 << 20,
            entries: 16 << 10,
        }
    }
}

/// A workspace would hold more than it may. The code is `DISK_LIMIT`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Excess {
    /// Too many bytes.
    #[error("the workspace may hold {0} bytes (files count in pages of 4096), and this is more")]
    Bytes(u64),
    /// Too many nodes.
    #[error("the workspace may hold {0} files, directories and links, and these are more")]
    Entries(usize),
}

/// Entries that contradict the contract or each other. The code is `INVALID_REQUEST`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the files are not valid: {0}")]
pub struct InvalidEntries(String);

/// A workspace.
///
/// Cloning it copies names, not contents.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tree {
    nodes: BTreeMap<WorkspacePath, Node>,
}

impl Tree {
    /// The tree with these entries put in. Directories on the way that are not given are made with mode 0755; what has no
    /// time of its own gets `time` (seconds since 1970). An entry replaces a node of its kind that is there.
    ///
    /// # Errors
    /// [`InvalidEntries`]: too many entries or too much content, a path that occurs twice, that leads through something
    /// else than a directory, or that is there as another kind.
    pub fn with_entries(&self, entries: &[Entry], time: u64) -> Result<Self, InvalidEntries> {
        let invalid = |problem: String| Err(InvalidEntries(problem));
        if entries.len() > MAX_ENTRIES {
            let count = entries.len();
            return invalid(format!("{count} entries, {MAX_ENTRIES} are allowed"));
        }
        let contents = entries.iter().map(|entry| match &entry.kind {
            Kind::File { content, .. } => content.len(),
            Kind::Directory { .. } | Kind::Symlink { .. } => 0,
        });
        let bytes: usize = contents.sum();
        if bytes > MAX_CONTENT_BYTES {
            return invalid(format!("{bytes} bytes, {MAX_CONTENT_BYTES} are allowed"));
        }
        let mut ordered: Vec<&Entry> = entries.iter().collect();
        ordered.sort_by(|one, other| one.path.cmp(&other.path));
        let twice = ordered.windows(2).find(|pair| pair[0].path == pair[1].path);
        if let Some(pair) = twice {
            return invalid(format!("{} occurs twice", pair[0].path));
        }
        let mut tree = self.clone();
        for Entry { path, mtime, kind } in ordered {
            let present = tree.get(path).map(|node| &node.kind);
            if present.is_some_and(|present| {
                std::mem::discriminant(present) != std::mem::discriminant(kind)
            }) {
                return invalid(format!("{path} is there, and is something else"));
            }
            if let Err(ancestor) = tree.make_parents(path, time) {
                return invalid(format!(
                    "{path} is beneath {ancestor}, which is no directory"
                ));
            }
            let node = Node {
                kind: kind.clone(),
                mtime: mtime.unwrap_or(time),
            };
            tree.put(path.clone(), node);
        }
        Ok(tree)
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Files, directories and links.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// The bytes that it takes, in whole pages.
    #[must_use]
    pub fn space(&self) -> u64 {
        self.nodes.values().map(Node::space).sum()
    }

    /// What is there under exactly this path; no link is followed.
    #[must_use]
    pub fn get(&self, path: &WorkspacePath) -> Option<&Node> {
        self.nodes.get(path)
    }

    /// All nodes, by path; a directory comes before what it holds.
    pub fn iter(&self) -> impl Iterator<Item = (&WorkspacePath, &Node)> {
        self.nodes.iter()
    }

    /// Whether it is within these caps.
    ///
    /// # Errors
    /// The cap that it exceeds.
    pub fn check(&self, caps: &Caps) -> Result<(), Excess> {
        if self.len() > caps.entries {
            return Err(Excess::Entries(caps.entries));
        }
        if self.space() > caps.bytes {
            return Err(Excess::Bytes(caps.bytes));
        }
        Ok(())
    }

    /// Whether something lies beneath the path.
    pub(super) fn has_children(&self, path: &WorkspacePath) -> bool {
        let inside = format!("{path}/");
        // Between "a" and "a/…" other names may stand, such as "a-b".
        let after = (std::ops::Bound::Excluded(path), std::ops::Bound::Unbounded);
        let mut after = self.nodes.range(after).map(|(path, _)| path.as_str());
        after
            .find(|name| *name >= inside.as_str())
            .is_some_and(|name| name.starts_with(&inside))
    }

    /// Whether all directories on the way to the path are there; the first that is none otherwise.
    pub(super) fn parent_is_directory(&self, path: &WorkspacePath) -> bool {
        match path.parent() {
            None => true,
            Some(parent) => self.nodes.get(&parent).is_some_and(Node::is_directory),
        }
    }

    /// Makes the directories on the way to the path that are missing. The error is the first that is something else.
    pub(super) fn make_parents(
        &mut self,
        path: &WorkspacePath,
        time: u64,
    ) -> Result<(), WorkspacePath> {
        for ancestor in path.ancestors() {
            match self.nodes.get(&ancestor) {
                Some(node) if node.is_directory() => {}
                Some(_) => return Err(ancestor),
                None => {
                    let kind = Kind::Directory {
                        mode: Mode::DIRECTORY,
                    };
                    self.put(ancestor, Node { kind, mtime: time });
                }
            }
        }
        Ok(())
    }

    /// Puts a node in its place; its parent must be a directory, and what it replaces must hold nothing.
    pub(super) fn put(&mut self, path: WorkspacePath, node: Node) {
        debug_assert!(self.parent_is_directory(&path), "{path} has no parent");
        self.nodes.insert(path, node);
    }

    /// Takes a node away, which must hold nothing.
    pub(super) fn remove(&mut self, path: &WorkspacePath) {
        debug_assert!(!self.has_children(path), "{path} holds something");
        self.nodes.remove(path);
    }
}
