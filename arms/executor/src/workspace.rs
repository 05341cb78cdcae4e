//! Workspaces: what the steps of a task hand on to each other.
//!
//! A workspace is a [`Tree`], a value like any other: the sandbox gets it as an archive and gives one back, a file action
//! makes another of it, criteria read it, and what parallel steps have made is merged. This process never opens a path of
//! a workspace on the host, so no name and no link in one can lead anywhere.

mod archive;
mod change;
mod entry;
mod glob;
mod merge;
mod path;
mod tree;

pub use archive::{ArchiveError, LeftOut};
pub use change::ChangeError;
pub use entry::{Entry, MAX_CONTENT_BYTES, MAX_ENTRIES};
pub use glob::{Globs, InvalidGlob};
pub use merge::Conflict;
pub use path::WorkspacePath;
pub use tree::{Caps, Excess, InvalidEntries, Kind, Node, Tree};
