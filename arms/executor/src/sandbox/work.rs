//! The workspace from inside: a tmpfs of its own, filled before the programs start and packed when none is left.
//!
//! Both ways it is an archive in a descriptor: a sealed file in memory on the way in, a pipe on the way out. The archive
//! that leaves tells what lies there, all kinds of files under any name; what of it belongs into a workspace is for
//! [`Tree::from_tar`](crate::workspace::Tree::from_tar) to say, outside. A path is looked up here while no other process
//! exists, so nothing changes under our hands.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{
    DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink,
};
use std::path::{Path, PathBuf};

use nix::fcntl::AT_FDCWD;
use nix::libc;
use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::{TimeSpec, TimeValLike};
use tar::{Archive, Builder, EntryType, Header};

use super::launcher::{During, SetupError};

/// The workspace inside the sandbox, and the working directory.
pub(super) const WORKSPACE: &str = "/work";
/// Bytes of a directory's path up to which its content is looked at; a name more must fit into `PATH_MAX`. No path of a
/// workspace is that long.
const DEEPEST: usize = 3800;
/// What a pipe holds, bytes.
const BUFFER_BYTES: usize = 64 << 10;

/// The two ends that process 1 has of the workspace.
pub(super) struct Work {
    /// The archive to start from.
    pub archive: OwnedFd,
    /// Where the archive of what came of it goes.
    pub packed: OwnedFd,
}

/// Puts the archive's content into the working directory, which is empty. The archive is the executor's own and canonical:
/// a directory comes before what it holds, and no name leads through a link.
pub(super) fn fill(archive: &OwnedFd) -> Result<(), SetupError> {
    let archive = archive.try_clone().during("read the workspace")?;
    let mut archive = Archive::new(BufReader::new(File::from(archive)));
    let mut directories = Vec::new();
    for entry in archive.entries().during("read the workspace")? {
        let mut entry = entry.during("read the workspace")?;
        let path = entry.path().during("read the workspace")?.into_owned();
        let what = format!("lay out {}", path.display());
        let header = entry.header();
        let mtime = TimeSpec::seconds(header.mtime().during(&what)?.cast_signed());
        let mode = Permissions::from_mode(header.mode().during(&what)?);
        match header.entry_type() {
            EntryType::Directory => {
                DirBuilder::new().mode(0o700).create(&path).during(&what)?;
                directories.push((path, mode, mtime));
            }
            EntryType::Symlink => {
                let target = entry.link_name_bytes().unwrap_or_default();
                symlink(OsStr::from_bytes(&target), &path).during(&what)?;
                set_time(&path, &mtime).during(&what)?;
            }
            _ => {
                let mut file = OpenOptions::new()
                    .write(true)
                    .create_new(true)
                    .mode(0o600)
                    .open(&path)
                    .during(&what)?;
                io::copy(&mut entry, &mut file).during(&what)?;
                file.set_permissions(mode).during(&what)?;
                set_time(&path, &mtime).during(&what)?;
            }
        }
    }
    // Last and the deepest first: neither a read-only directory nor what is put into one spoils what was asked for.
    for (path, mode, mtime) in directories.into_iter().rev() {
        let what = format!("lay out {}", path.display());
        set_time(&path, &mtime).during(&what)?;
        fs::set_permissions(&path, mode).during(&what)?;
    }
    Ok(())
}

fn set_time(path: &Path, time: &TimeSpec) -> nix::Result<()> {
    utimensat(AT_FDCWD, path, time, time, UtimensatFlags::NoFollowSymlink)
}

/// Writes an archive of the working directory; an empty one is no byte at all. Gives the number of bytes.
pub(super) fn pack(packed: OwnedFd) -> io::Result<u64> {
    if fs::read_dir(".")?.next().is_none() {
        return Ok(0);
    }
    let mut counted = Counted {
        packed: File::from(packed),
        count: 0,
    };
    let mut archive = Builder::new(BufWriter::with_capacity(BUFFER_BYTES, &mut counted));
    let mut pending = vec![PathBuf::new()];
    while let Some(directory) = pending.pop() {
        let listed = if directory == Path::new("") {
            Path::new(".")
        } else {
            &directory
        };
        for entry in fs::read_dir(listed)? {
            let path = directory.join(entry?.file_name());
            if put(&mut archive, &path)? && path.as_os_str().len() <= DEEPEST {
                pending.push(path);
            }
        }
    }
    archive.into_inner()?.flush()?;
    Ok(counted.count)
}

/// Adds what is under the path; true: it is a directory. A program may have closed it to its own user, who opens it again
/// then.
fn put(archive: &mut Builder<impl Write>, path: &Path) -> io::Result<bool> {
    let found = fs::symlink_metadata(path)?;
    let kind = found.file_type();
    let mut header = Header::new_gnu();
    header.set_mode(found.mode() & 0o7777);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(found.mtime().max(0).cast_unsigned());
    header.set_size(0);
    if kind.is_file() {
        if found.mode() & 0o400 == 0 {
            fs::set_permissions(path, Permissions::from_mode(0o600))?;
        }
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(flags)
            .open(path)?;
        header.set_entry_type(EntryType::Regular);
        header.set_size(found.size());
        archive.append_data(&mut header, path, file.take(found.size()))?;
    } else if kind.is_symlink() {
        header.set_entry_type(EntryType::Symlink);
        archive.append_link(&mut header, path, fs::read_link(path)?)?;
    } else {
        header.set_entry_type(match kind {
            _ if kind.is_dir() => EntryType::Directory,
            _ if kind.is_fifo() => EntryType::Fifo,
            _ => EntryType::new(b's'), // a socket: devices can't be made
        });
        archive.append_data(&mut header, path, io::empty())?;
    }
    if kind.is_dir() && found.mode() & 0o500 != 0o500 {
        fs::set_permissions(path, Permissions::from_mode(0o700))?;
    }
    Ok(kind.is_dir())
}

struct Counted {
    packed: File,
    count: u64,
}

impl Write for Counted {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let written = self.packed.write(buffer)?;
        self.count += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.packed.flush()
    }
}
