//! A workspace as bytes: a tar archive, and that compressed as a snapshot.
//!
//! The archive of a tree is canonical: nodes in the order of their paths, owner 0, times in whole seconds, GNU extensions
//! for long names only. So equal trees have equal archives, and the SHA-256 of the archive names the tree. What is read is
//! hostile: it comes out of the sandbox, or from a store.

use std::io::{self, Read, Write};

use bytes::Bytes;
use sha2::{Digest, Sha256};
use tar::{Archive, Builder, EntryType, Header};

use super::path::WorkspacePath;
use super::tree::{Caps, Excess, Kind, LATEST, Node, Tree};
use crate::action::Mode;

/// Bytes that an archive takes for one node beside its content, at most: the header, two more for a long name and a long
/// target of 4 KiB and 1 KiB, and the padding.
const OVERHEAD: u64 = 8 << 10;
/// What was left out is named this often; the rest is counted.
const NAMED: usize = 10;
/// Level of zstd: the fastest of the usual ones.
const LEVEL: i32 = 1;
/// The largest window of zstd that is read, as a power of two: 8 MiB, what level 1 needs at most and more.
const WINDOW_LOG: u32 = 23;

/// An archive that is not a workspace.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// It can't be read, or breaks off.
    #[error("the archive is malformed: {0}")]
    Malformed(#[from] io::Error),
    /// An entry would lie outside, is there twice, or has no directory to lie in.
    #[error("the archive is refused: the entry {name:?} {problem}")]
    Refused {
        /// Its name, as text.
        name: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// It holds more than a workspace may.
    #[error(transparent)]
    Excess(#[from] Excess),
    /// The content is not what its name says.
    #[error("the snapshot has the digest {found}, and {expected} was asked for")]
    Digest {
        /// The digest that it should have.
        expected: String,
        /// The digest that it has.
        found: String,
    },
}

/// What of an archive is not in the tree, because a workspace holds no such thing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LeftOut {
    /// The first of them, each with the reason.
    pub named: Vec<String>,
    /// How many there are.
    pub count: usize,
}

impl LeftOut {
    fn note(&mut self, name: &[u8], reason: &str) {
        self.count += 1;
        if self.named.len() < NAMED {
            self.named.push(format!("{} {reason}", shown(name)));
        }
    }
}

impl Tree {
    /// Reads an archive, trusting nothing in it: no name leads out, sizes are counted as bytes are read, and a tree comes
    /// out that holds every rule of one. Sockets, devices, FIFOs, hard links, names that are no [`WorkspacePath`] and links
    /// that lead out of the workspace are left out and named. No input at all is the empty tree.
    ///
    /// # Errors
    /// [`ArchiveError`].
    pub fn from_tar(archive: impl Read, caps: &Caps) -> Result<(Self, LeftOut), ArchiveError> {
        // One byte more, so that an archive which is cut here is seen to be too large, not malformed.
        let limit = caps.archive_bytes();
        let mut counted = Counted {
            archive: archive.take(limit + 1),
            count: 0,
        };
        let read = read(&mut Archive::new(&mut counted), caps);
        if counted.count > limit {
            return Err(Excess::Bytes(caps.bytes).into());
        }
        read
    }

    /// The canonical archive.
    #[must_use]
    pub fn to_tar(&self) -> Bytes {
        let mut archive = Vec::new();
        self.write_tar(&mut archive)
            .expect("memory takes all that is written");
        archive.into()
    }

    /// The SHA-256 of the canonical archive, lower-case hex: the name of the tree.
    #[must_use]
    pub fn digest(&self) -> String {
        let mut hash = Hashing(Sha256::new());
        self.write_tar(&mut hash)
            .expect("a hash takes all that is written");
        hex::encode(hash.0.finalize())
    }

    /// The archive, compressed (zstd).
    #[must_use]
    pub fn to_snapshot(&self) -> Vec<u8> {
        let archive = self.to_tar();
        zstd::encode_all(&*archive, LEVEL).expect("memory takes all that is written")
    }

    /// Reads a snapshot; where a digest is `expected`, only that.
    ///
    /// # Errors
    /// [`ArchiveError`]. Something that a workspace can't hold is refused here: no snapshot of ours has it.
    pub fn from_snapshot(
        snapshot: impl Read,
        expected: Option<&str>,
        caps: &Caps,
    ) -> Result<Self, ArchiveError> {
        let mut decoder = zstd::Decoder::new(snapshot)?;
        decoder.window_log_max(WINDOW_LOG)?;
        let mut archive = Vec::new();
        let limit = caps.archive_bytes();
        decoder.take(limit + 1).read_to_end(&mut archive)?;
        if archive.len() as u64 > limit {
            return Err(Excess::Bytes(caps.bytes).into());
        }
        let found = hex::encode(Sha256::digest(&archive));
        match expected {
            Some(expected) if expected != found => {
                let expected = expected.to_owned();
                return Err(ArchiveError::Digest { expected, found });
            }
            _ => {}
        }
        let (tree, left_out) = Self::from_tar(&*archive, caps)?;
        match left_out.named.first() {
            None => Ok(tree),
            Some(named) => Err(refused(named.as_bytes(), "and belongs in no snapshot")),
        }
    }

    fn write_tar(&self, archive: impl Write) -> io::Result<()> {
        let mut builder = Builder::new(archive);
        for (path, node) in self.iter() {
            let mut header = header(&node.kind, node.mtime);
            match &node.kind {
                Kind::Directory { .. } => {
                    builder.append_data(&mut header, path.as_str(), io::empty())?
                }
                Kind::File { content, .. } => {
                    builder.append_data(&mut header, path.as_str(), &**content)?
                }
                Kind::Symlink { target } => {
                    builder.append_link(&mut header, path.as_str(), target)?
                }
            }
        }
        builder.finish()
    }
}

impl Caps {
    /// Bytes of an archive that is within these caps, at most.
    #[must_use]
    pub fn archive_bytes(&self) -> u64 {
        self.bytes + (self.entries as u64 + 1) * OVERHEAD
    }
}

fn read(archive: &mut Archive<impl Read>, caps: &Caps) -> Result<(Tree, LeftOut), ArchiveError> {
    let mut tree = Tree::default();
    let mut left_out = LeftOut::default();
    let (mut entries, mut space) = (0, 0);
    for entry in archive.entries()? {
        let mut entry = entry?;
        entries += 1;
        if entries > caps.entries {
            return Err(Excess::Entries(caps.entries).into());
        }
        let name = entry.path_bytes().into_owned();
        let Some(path) = place(&name, &mut left_out)? else {
            continue;
        };
        if tree.exists(&path) {
            return Err(refused(&name, "is there twice"));
        }
        if !tree.parent_is_directory(&path) {
            return Err(refused(&name, "lies in no directory of the archive"));
        }
        let header = entry.header();
        let mode = Mode::masked(header.mode()?);
        let mtime = header.mtime()?.min(LATEST);
        let kind = match header.entry_type() {
            EntryType::Directory => Kind::Directory { mode },
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                let room = caps.bytes.saturating_sub(space);
                let mut content = Vec::new();
                entry.by_ref().take(room + 1).read_to_end(&mut content)?;
                let content = Bytes::from(content);
                Kind::File { mode, content }
            }
            EntryType::Symlink => {
                let target = entry.link_name_bytes().unwrap_or_default();
                let target = std::str::from_utf8(&target).ok();
                let Some(target) = target.and_then(|target| path.link_target(target)) else {
                    left_out.note(&name, "leads out of the workspace");
                    continue;
                };
                Kind::Symlink { target }
            }
            EntryType::Link => {
                left_out.note(&name, "is a hard link");
                continue;
            }
            _ => {
                left_out.note(&name, "is no file, directory or symbolic link");
                continue;
            }
        };
        let node = Node { kind, mtime };
        space += node.space();
        if space > caps.bytes {
            return Err(Excess::Bytes(caps.bytes).into());
        }
        tree.put(path, node);
    }
    Ok((tree, left_out))
}

fn header(kind: &Kind, mtime: u64) -> Header {
    let mut header = Header::new_gnu();
    let (entry_type, mode, size) = match kind {
        Kind::Directory { mode } => (EntryType::Directory, mode.bits(), 0),
        Kind::File { mode, content } => (EntryType::Regular, mode.bits(), content.len()),
        Kind::Symlink { .. } => (EntryType::Symlink, 0o777, 0),
    };
    header.set_entry_type(entry_type);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(mtime);
    header.set_size(size as u64);
    header
}

/// The path that an entry's name stands for; none is a name that a workspace does not have.
fn place(name: &[u8], left_out: &mut LeftOut) -> Result<Option<WorkspacePath>, ArchiveError> {
    let plain = name.strip_suffix(b"/").unwrap_or(name);
    if plain.starts_with(b"/") {
        return Err(refused(name, "is absolute"));
    }
    let components = || plain.split(|byte| *byte == b'/');
    if components().any(|component| matches!(component, b"" | b"." | b"..")) {
        return Err(refused(name, "has an empty, '.' or '..' component"));
    }
    let path = std::str::from_utf8(plain)
        .ok()
        .and_then(|text| WorkspacePath::try_from(text.to_owned()).ok());
    if path.is_none() {
        left_out.note(name, "is too long, has a control character or is not UTF-8");
    }
    Ok(path)
}

fn refused(name: &[u8], problem: &'static str) -> ArchiveError {
    ArchiveError::Refused {
        name: shown(name),
        problem,
    }
}

/// A name for people to read: text of at most 200 characters, without control characters.
fn shown(name: &[u8]) -> String {
    let text = String::from_utf8_lossy(name);
    let shown = text.chars().take(200);
    shown
        .map(|one| if one.is_control() { '\u{FFFD}' } else { one })
        .collect()
}

/// Counts what is read.
struct Counted<R> {
    archive: R,
    count: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.archive.read(buffer)?;
        self.count += read as u64;
        Ok(read)
    }
}

/// A hash that can be written to.
struct Hashing(Sha256);

impl Write for Hashing {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.0.update(buffer);
        Ok(buffer.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
