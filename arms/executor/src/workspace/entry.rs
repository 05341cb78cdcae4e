//! The initial files of a task, as they are submitted.

use serde::Deserialize;

use super::path::WorkspacePath;
use super::tree::{Kind, LATEST};
use crate::action::{Mode, content};

/// Entries, at most.
pub const MAX_ENTRIES: usize = 1000;
/// Bytes of all contents together, at most.
pub const MAX_CONTENT_BYTES: usize = 1 << 20;

/// One entry of the initial workspace.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "EntryForm")]
pub struct Entry {
    /// Where.
    pub path: WorkspacePath,
    /// Seconds since 1970.
    pub mtime: Option<u64>,
    /// What.
    pub kind: Kind,
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
    mode: Option<Mode>,
    mtime: Option<u64>,
    text: Option<String>,
    base64: Option<String>,
    target: Option<String>,
}

impl TryFrom<EntryForm> for Entry {
    type Error = String;

    fn try_from(form: EntryForm) -> Result<Self, Self::Error> {
        let path = &form.path;
        if form.mtime.is_some_and(|seconds| seconds > LATEST) {
            return Err(format!("{path}: mtime is not between 1970 and 9999"));
        }
        let has_content = form.text.is_some() || form.base64.is_some();
        let kind = match (form.r#type, form.target) {
            (EntryType::File, None) => Kind::File {
                content: content(form.text, form.base64.as_deref())
                    .map_err(|problem| format!("{path}: {problem}"))?
                    .into(),
                mode: form.mode.unwrap_or(Mode::FILE),
            },
            (EntryType::Dir, None) if !has_content => Kind::Directory {
                mode: form.mode.unwrap_or(Mode::DIRECTORY),
            },
            (EntryType::Symlink, Some(target)) if !has_content && form.mode.is_none() => {
                let target = path.link_target(&target).ok_or_else(|| {
                    format!(
                        "{path}: the target {target:?} is not of the form ../…/name inside the workspace"
                    )
                })?;
                Kind::Symlink { target }
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
            kind,
        })
    }
}
