//! File actions, and reading for checks. No symbolic link is ever followed.

use bytes::{Bytes, BytesMut};

use super::path::WorkspacePath;
use super::tree::{Caps, Excess, Kind, Node, Tree};
use crate::action::{FileChange, FileOp, Mode};

/// A file action or a read that can't be carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// What is there, or is not there, does not suit the action. The code is `STEP_FAILED`.
    #[error("{path} {problem}")]
    Unsuitable {
        /// The path.
        path: WorkspacePath,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The workspace would hold more than it may. The code is `DISK_LIMIT`.
    #[error(transparent)]
    Excess(#[from] Excess),
}

fn unsuitable(path: &WorkspacePath, problem: &'static str) -> ChangeError {
    ChangeError::Unsuitable {
        path: path.clone(),
        problem,
    }
}

impl Tree {
    /// The tree after a file action; `now` becomes the time of what it makes or changes, seconds since 1970.
    ///
    /// Deleting what is not there succeeds, and so does making a directory that is there, so that an action that was
    /// carried out but not recorded can be run again.
    ///
    /// # Errors
    /// [`ChangeError`] names the path and the reason.
    pub fn apply(&self, change: &FileChange, now: u64, caps: &Caps) -> Result<Self, ChangeError> {
        let path = &change.path;
        let mut tree = self.clone();
        match &change.op {
            FileOp::Write { content, mode } => {
                if let Some(node) = tree.get(path) {
                    file(path, node)?;
                }
                let content = Bytes::copy_from_slice(content);
                tree.put_file(path, content, *mode, now)?;
            }
            FileOp::Append { content, mode } => {
                let (present, present_mode) = match tree.get(path) {
                    Some(node) => file(path, node)?,
                    None => (&Bytes::new(), Mode::FILE),
                };
                let mut appended = BytesMut::with_capacity(present.len() + content.len());
                appended.extend_from_slice(present);
                appended.extend_from_slice(content);
                tree.put_file(path, appended.freeze(), mode.unwrap_or(present_mode), now)?;
            }
            FileOp::MakeDirectory { mode } => match tree.get(path) {
                Some(node) if node.is_directory() => {}
                Some(_) => return Err(unsuitable(path, "is there, and is no directory")),
                None => {
                    let kind = Kind::Directory { mode: *mode };
                    tree.place(path, Node { kind, mtime: now })?;
                }
            },
            FileOp::Delete => {
                if tree.has_children(path) {
                    return Err(unsuitable(path, "is a directory that is not empty"));
                }
                tree.way(path)?;
                tree.remove(path);
            }
        }
        tree.check(caps)?;
        Ok(tree)
    }

    /// Content of a regular file of at most `limit` bytes.
    ///
    /// # Errors
    /// No such file, not a regular file, larger than the limit, or the way there is no directory.
    pub fn read(&self, path: &WorkspacePath, limit: usize) -> Result<Bytes, ChangeError> {
        self.way(path)?;
        let node = self
            .get(path)
            .ok_or_else(|| unsuitable(path, "does not exist"))?;
        let (content, _) = file(path, node)?;
        if content.len() > limit {
            return Err(unsuitable(path, "is too large to be checked"));
        }
        Ok(content.clone())
    }

    /// Whether the path exists, be it a dangling symbolic link.
    #[must_use]
    pub fn exists(&self, path: &WorkspacePath) -> bool {
        self.get(path).is_some()
    }

    /// No file and no link is on the way to the path. A part of it may be missing.
    fn way(&self, path: &WorkspacePath) -> Result<(), ChangeError> {
        let through = path.ancestors().find_map(|ancestor| {
            let node = self.get(&ancestor)?;
            (!node.is_directory()).then_some(&node.kind)
        });
        match through {
            None => Ok(()),
            Some(Kind::Symlink { .. }) => Err(unsuitable(path, "leads through a symbolic link")),
            Some(_) => Err(unsuitable(path, "leads through a file")),
        }
    }

    fn put_file(
        &mut self,
        path: &WorkspacePath,
        content: Bytes,
        mode: Mode,
        now: u64,
    ) -> Result<(), ChangeError> {
        let kind = Kind::File { mode, content };
        self.place(path, Node { kind, mtime: now })
    }

    fn place(&mut self, path: &WorkspacePath, node: Node) -> Result<(), ChangeError> {
        self.way(path)?;
        let made = self.make_parents(path, node.mtime);
        made.map_err(|_| unsuitable(path, "leads through a file"))?;
        self.put(path.clone(), node);
        Ok(())
    }
}

fn file<'a>(path: &WorkspacePath, node: &'a Node) -> Result<(&'a Bytes, Mode), ChangeError> {
    match &node.kind {
        Kind::File { content, mode } => Ok((content, *mode)),
        Kind::Symlink { .. } => Err(unsuitable(path, "is a symbolic link")),
        Kind::Directory { .. } => Err(unsuitable(path, "is a directory")),
    }
}
