//! Collecting files of a workspace after the end. Nobody works in it any more, and still every path is opened beneath it and
//! no link is followed: what a program has left is not to be trusted.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;

use nix::dir::Dir;
use nix::fcntl::{AtFlags, OFlag, open};
use nix::sys::stat::{Mode, SFlag, fstatat};

use super::answer::Collected;
use crate::workspace::{Globs, Workspace, WorkspacePath, open_beneath};

/// Directories within directories that are looked into.
const MAX_DEPTH: usize = 64;

/// The regular files with one name that match, by path, as many as may be.
pub(super) fn collect(workspace: &Workspace, globs: &Globs) -> io::Result<Collected> {
    let root = open(
        workspace.path(),
        OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC,
        Mode::empty(),
    )?;
    let mut collected = Collected::new();
    let mut waiting = vec![None];
    while let Some(directory) = waiting.pop() {
        let (files, directories) = list(&root, directory.as_ref())?;
        for path in files.into_iter().filter(|path| globs.matches(path)) {
            let Some(room) = collected.room() else {
                collected.cut();
                return Ok(collected);
            };
            match read(&root, &path, room)? {
                Some(content) => collected.add(&path, &content),
                None => collected.cut(),
            }
        }
        // Last in, first out: by path.
        waiting.extend(directories.into_iter().rev().map(Some));
    }
    Ok(collected)
}

/// Files and directories that lie in a directory, by name. What has no name of the contract can't be asked for.
fn list(
    root: &OwnedFd,
    directory: Option<&WorkspacePath>,
) -> io::Result<(Vec<WorkspacePath>, Vec<WorkspacePath>)> {
    let (mut files, mut directories) = (Vec::new(), Vec::new());
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
    let within = directory.map_or(".", WorkspacePath::as_str);
    let Ok(opened) = open_beneath(root, within, flags, Mode::empty()) else {
        return Ok((files, directories)); // closed to us, or gone
    };
    let mut entries = Dir::from_fd(opened)?;
    let mut names = Vec::new();
    for entry in entries.iter() {
        if let Ok(name) = entry?.file_name().to_str() {
            names.push(name.to_owned());
        }
    }
    for name in names {
        let path = directory.map_or_else(|| name.clone(), |parent| format!("{parent}/{name}"));
        let Ok(path) = WorkspacePath::try_from(path) else {
            continue;
        };
        let found = fstatat(&entries, name.as_str(), AtFlags::AT_SYMLINK_NOFOLLOW)?;
        match SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT {
            SFlag::S_IFREG if found.st_nlink == 1 => files.push(path),
            SFlag::S_IFDIR if path.depth() < MAX_DEPTH => directories.push(path),
            _ => {}
        }
    }
    files.sort();
    directories.sort();
    Ok((files, directories))
}

/// A file's content; none where it has more bytes than there is room for.
fn read(root: &OwnedFd, path: &WorkspacePath, room: usize) -> io::Result<Option<Vec<u8>>> {
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK;
    let file = File::from(open_beneath(root, path.as_str(), flags, Mode::empty())?);
    if file.metadata()?.len() > room as u64 {
        return Ok(None);
    }
    let mut content = Vec::new();
    file.take(room as u64 + 1).read_to_end(&mut content)?;
    Ok((content.len() <= room).then_some(content))
}
