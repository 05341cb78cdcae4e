//! Collecting files of the workspace that a request has left.

use super::answer::Collected;
use crate::workspace::{Globs, Tree};

/// The regular files that match, by path, as many as may be.
pub(super) fn collect(workspace: &Tree, globs: &Globs) -> Collected {
    let mut collected = Collected::new();
    for (path, content) in workspace.matching(globs) {
        match collected.room() {
            Some(room) if content.len() <= room => collected.add(path, content),
            Some(_) => collected.cut(),
            None => {
                collected.cut();
                break;
            }
        }
    }
    collected
}
