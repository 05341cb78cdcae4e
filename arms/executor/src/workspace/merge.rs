//! Putting together what steps that ran at the same time have made of one workspace.

use std::collections::BTreeSet;

use super::path::WorkspacePath;
use super::tree::{Kind, Node, Tree};

/// Two steps have changed the same path in different ways.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path} was changed by another step at the same time")]
pub struct Conflict {
    /// The first such path.
    pub path: WorkspacePath,
}

impl Tree {
    /// Three-way merge by path: what `mine` has changed of `base`, put on top of `current`.
    ///
    /// A file is one thing: two changes inside it are a conflict, unless they come to the same. Times alone never are one:
    /// of two nodes that differ in nothing else the later time is kept.
    ///
    /// # Errors
    /// [`Conflict`]: both have changed a path, to different things; or one has put something into a directory that the
    /// other has taken away or replaced.
    pub fn merge(base: &Self, current: &Self, mine: &Self) -> Result<Self, Conflict> {
        if base == current {
            return Ok(mine.clone());
        }
        let paths: BTreeSet<&WorkspacePath> = [base, current, mine]
            .iter()
            .flat_map(|tree| tree.iter().map(|(path, _)| path))
            .collect();
        let mut merged = Self::default();
        // A directory comes before what it holds, so a node whose directory did not stay is found here.
        for path in paths {
            let conflict = || Conflict { path: path.clone() };
            let node = pick(base.get(path), current.get(path), mine.get(path));
            let Some(node) = node.ok_or_else(conflict)? else {
                continue;
            };
            if !merged.parent_is_directory(path) {
                return Err(conflict());
            }
            merged.put(path.clone(), node);
        }
        Ok(merged)
    }
}

/// The node that comes of it, if any; none at the outside is a conflict.
fn pick(base: Option<&Node>, current: Option<&Node>, mine: Option<&Node>) -> Option<Option<Node>> {
    let kind = |node: Option<&Node>| -> Option<Kind> { node.map(|node| node.kind.clone()) };
    if kind(current) == kind(mine) {
        let mtime = current
            .map(|node| node.mtime)
            .max(mine.map(|node| node.mtime));
        return Some(
            kind(mine)
                .zip(mtime)
                .map(|(kind, mtime)| Node { kind, mtime }),
        );
    }
    if kind(mine) == kind(base) {
        return Some(current.cloned());
    }
    (kind(current) == kind(base)).then(|| mine.cloned())
}
