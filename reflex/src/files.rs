//! The initial files of a task: data, not log. They are checked as a whole and kept as one object.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use octollm_events::carrier::{FileEntry, FileEntryType, FilesRef};
use sha2::{Digest, Sha256};

use crate::contract::Violations;

/// Limit of all inline contents together, bytes after base64.
const INLINE_BYTES: usize = 64 * 1024;

/// Checks what one entry can't show: contents, links, and entries that contradict each other. Gives the entries in the
/// order of their paths, so that the same files have the same digest.
pub fn check(mut entries: Vec<FileEntry>, violations: &mut Violations) -> Vec<FileEntry> {
    let mut inline = 0;
    let mut kinds: BTreeMap<&str, FileEntryType> = BTreeMap::new();
    for (index, entry) in entries.iter().enumerate() {
        let pointer = format!("/files/{index}");
        if !is_inside(&entry.path) {
            violations.add(
                format!("{pointer}/path"),
                "must be relative and without empty, . and .. components",
            );
        }
        if kinds.insert(&entry.path, entry.r#type).is_some() {
            violations.add(format!("{pointer}/path"), "must not occur twice");
        }
        match content_length(entry) {
            Ok(length) => inline += length,
            Err(message) => violations.add(pointer, message),
        }
    }
    for (index, entry) in entries.iter().enumerate() {
        let above = entry
            .path
            .match_indices('/')
            .map(|(end, _)| &entry.path[..end]);
        if above
            .filter_map(|path| kinds.get(path))
            .any(|kind| *kind != FileEntryType::Dir)
        {
            violations.add(
                format!("/files/{index}/path"),
                "must not lie below an entry that is no directory",
            );
        }
    }
    if inline > INLINE_BYTES {
        violations.add(
            "/files",
            format!("must have at most {INLINE_BYTES} bytes of content, has {inline}"),
        );
    }
    entries.sort_by(|left, right| left.path.cmp(&right.path));
    entries
}

/// Bytes of the entry's content, or what is wrong with the fields that its type has or lacks.
fn content_length(entry: &FileEntry) -> Result<usize, &'static str> {
    match (entry.r#type, &entry.text, &entry.base64, &entry.target) {
        (FileEntryType::File, Some(text), None, None) => Ok(text.len()),
        (FileEntryType::File, None, Some(base64), None) => STANDARD
            .decode(base64)
            .map(|bytes| bytes.len())
            .map_err(|_| "base64 must be standard base64 with padding"),
        (FileEntryType::File, ..) => Err("a file must have either text or base64 and no target"),
        (FileEntryType::Dir, None, None, None) => Ok(0),
        (FileEntryType::Dir, ..) => Err("a dir must have neither content nor target"),
        (FileEntryType::Symlink, None, None, Some(target)) if entry.mode.is_none() => {
            if leads_inside(&entry.path, target) {
                Ok(0)
            } else {
                Err("target must be relative, inside the workspace, with .. only at its start")
            }
        }
        (FileEntryType::Symlink, ..) => {
            Err("a symlink must have a target and neither content nor mode")
        }
    }
}

/// The schema's pattern says so too; here it does not depend on how a regex engine treats line feeds.
fn is_inside(path: &str) -> bool {
    path.split('/')
        .all(|component| !matches!(component, "" | "." | ".."))
}

/// Whether a link can only lead into the workspace. A `..` after a name is refused: the name may be a link itself, and
/// `..` would then start elsewhere.
fn leads_inside(link: &str, target: &str) -> bool {
    let components: Vec<&str> = target
        .split('/')
        .filter(|component| !component.is_empty())
        .collect();
    let ascents = components
        .iter()
        .take_while(|component| **component == "..")
        .count();
    let depth = link.split('/').count();
    let names = &components[ascents..];
    let plain = !names
        .iter()
        .any(|component| matches!(*component, "." | ".."));
    !target.starts_with('/')
        && !target.contains('\0')
        && !components.is_empty()
        && ascents < depth
        && plain
}

/// Files as one object: the canonical JSON array (RFC 8785) of the entries in the order of their paths.
#[derive(Clone, Debug)]
pub struct Bundle {
    /// The object's bytes.
    pub bytes: Vec<u8>,
    /// What the event says of it.
    pub reference: FilesRef,
}

impl Bundle {
    /// Of checked entries; None where there are none.
    pub fn of(entries: &[FileEntry]) -> Option<Self> {
        if entries.is_empty() {
            return None;
        }
        let bytes = serde_json_canonicalizer::to_vec(&entries)
            .expect("entries are strings and safe integers");
        let digest = hex::encode(Sha256::digest(&bytes));
        let reference = FilesRef {
            artifact: format!("sha256-{digest}"),
            digest,
            entries: entries.len() as u64,
            bytes: bytes.len() as u64,
        };
        Some(Self { bytes, reference })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn violations(entries: Value) -> Vec<String> {
        let entries = serde_json::from_value(entries).expect("entries");
        let mut violations = Violations::default();
        let _ = check(entries, &mut violations);
        violations
            .pairs()
            .iter()
            .map(|(pointer, _)| pointer.clone())
            .collect()
    }

    #[test]
    fn entries_are_checked_one_by_one_and_together() {
        let file = |path: &str| json!({ "path": path, "type": "file", "text": "" });
        let link =
            |path: &str, target: &str| json!({ "path": path, "type": "symlink", "target": target });
        let rows: Vec<(Value, &[&str])> = vec![
            (json!([file("a"), file("d/b"), link("d/l", "../a")]), &[]),
            (
                json!([{ "path": "a", "type": "file", "base64": "aGk=" }]),
                &[],
            ),
            (
                json!([{ "path": "d", "type": "dir", "mode": "0755" }, file("d/x")]),
                &[],
            ),
            (json!([file("../a")]), &["/files/0/path"]),
            (json!([file("a/../b")]), &["/files/0/path"]),
            (json!([file("a\n/../b")]), &["/files/0/path"]),
            (json!([file("/etc/passwd")]), &["/files/0/path"]),
            (json!([file("a//b")]), &["/files/0/path"]),
            (json!([file("a"), file("a")]), &["/files/1/path"]),
            (json!([file("a"), file("a/b")]), &["/files/1/path"]),
            (json!([link("l", "d"), file("l/x/y")]), &["/files/1/path"]),
            (json!([{ "path": "a", "type": "file" }]), &["/files/0"]),
            (
                json!([{ "path": "a", "type": "file", "text": "", "base64": "" }]),
                &["/files/0"],
            ),
            (
                json!([{ "path": "a", "type": "file", "base64": "not base64" }]),
                &["/files/0"],
            ),
            (
                json!([{ "path": "a", "type": "dir", "text": "" }]),
                &["/files/0"],
            ),
            (json!([{ "path": "a", "type": "symlink" }]), &["/files/0"]),
            (json!([link("l", "/etc")]), &["/files/0"]),
            (json!([link("l", "..")]), &["/files/0"]),
            (json!([link("d/l", "../../x")]), &["/files/0"]),
            (json!([link("d/l", "a/../../x")]), &["/files/0"]),
            (json!([link("d/l", "..")]), &[]),
        ];
        for (entries, expected) in rows {
            assert_eq!(violations(entries.clone()), expected, "{entries}");
        }
    }

    #[test]
    fn inline_content_counts_after_decoding() {
        let half = "x".repeat(INLINE_BYTES / 2);
        let file = |path: &str, text: &str| json!({ "path": path, "type": "file", "text": text });
        let encoded = json!({ "path": "b", "type": "file", "base64": STANDARD.encode(&half) });
        assert_eq!(violations(json!([file("a", &half), encoded])), [""; 0]);
        assert_eq!(
            violations(json!([file("a", &half), encoded, file("c", "x")])),
            ["/files"]
        );
    }

    #[test]
    fn the_order_of_entries_does_not_matter() {
        let bundle = |entries: Value| {
            let entries = serde_json::from_value(entries).expect("entries");
            Bundle::of(&check(entries, &mut Violations::default())).expect("not empty")
        };
        let (a, b) = (
            json!({ "path": "a", "type": "dir" }),
            json!({ "path": "b", "type": "file", "text": "x" }),
        );
        let first = bundle(json!([a, b]));
        assert_eq!(first.reference, bundle(json!([b, a])).reference);
        assert_eq!(
            first.reference.artifact,
            format!("sha256-{}", hex::encode(Sha256::digest(&first.bytes)))
        );
        assert_eq!(
            (first.reference.entries, first.reference.bytes),
            (2, first.bytes.len() as u64)
        );
        assert!(Bundle::of(&[]).is_none());
    }
}
