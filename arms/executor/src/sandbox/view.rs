//! What the file system looks like from inside.
//!
//! ```text
//! /            tmpfs, read-only
//! /usr /bin /lib* /sbin   what is granted of the host's: single files and directories, or all of them; read-only, no set-id,
//!              no devices (links where the host has links)
//! /work        the task's workspace: a tmpfs of limited size, nothing in it can be executed
//! /tmp /dev/shm   tmpfs of limited size, nothing in them can be executed
//! /dev         null zero full random urandom, and links to the standard streams
//! /script      the text of a script, where there is one
//! /proc        the processes of the sandbox and nothing else, read-only
//! ```
//!
//! There is no `/etc`, `/home`, `/root`, `/var`, `/run`, `/sys`.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use nix::libc;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{chdir, pivot_root};

use super::closure::Shown;
use super::launcher::{During, SetupError};
use super::syscall::restrict_mount;
use super::work::WORKSPACE;
use super::{Limits, SCRIPT};

/// Where the new root is put together; any directory that every host has.
const BASE: &str = "/tmp";
/// What programs need to run.
pub(super) const SYSTEM: [&str; 7] = ["usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32"];
/// Device nodes that are harmless.
pub(super) const DEVICES: [&str; 5] = ["null", "zero", "full", "random", "urandom"];

const READ_ONLY: u64 = libc::MOUNT_ATTR_RDONLY;
const NO_SETID: u64 = libc::MOUNT_ATTR_NOSUID;
const NO_DEVICES: u64 = libc::MOUNT_ATTR_NODEV;
const NO_EXEC: u64 = libc::MOUNT_ATTR_NOEXEC;

/// What could be had of the view.
pub(super) struct Entered {
    /// `/proc` is there. Hosts that hide parts of their own `/proc` (containers) allow no new one.
    pub has_proc: bool,
}

/// Replaces the process's whole file system by the view. The workspace is the working directory then.
pub(super) fn enter(
    shown: Option<&Shown>,
    script: Option<&str>,
    limits: &Limits,
) -> Result<Entered, SetupError> {
    umask(Mode::from_bits_truncate(0o022));
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .during("detach from the host's mounts")?;
    tmpfs(BASE, "size=4m,nr_inodes=4096,mode=755")?;
    match shown {
        Some(shown) => show(shown)?,
        None => SYSTEM.into_iter().try_for_each(show_system_directory)?,
    }
    if let Some(source) = script {
        fs::write(inside(SCRIPT), source).during("write the script")?;
    }
    make_directory(WORKSPACE)?;
    // The root of the mount is an entry, too.
    let (bytes, entries) = (limits.workspace.bytes, limits.workspace.entries + 1);
    let limited = format!("size={bytes},nr_inodes={entries},mode=700");
    tmpfs(&inside(WORKSPACE), &limited)?;
    make_directory("/tmp")?;
    let limited = format!("size={},nr_inodes=16384,mode=1777", limits.tmp_bytes);
    tmpfs(&inside("/tmp"), &limited)?;
    show_devices(&limited)?;
    let has_proc = show_processes()?;

    chdir(BASE).during("enter the new root")?;
    // Both arguments may be the same directory: the old root comes to lie on top of the new one, and is taken off.
    pivot_root(".", ".").during("change the root")?;
    umount2(".", MntFlags::MNT_DETACH).during("take off the old root")?;
    restrict_mount("/", READ_ONLY | NO_SETID | NO_DEVICES | NO_EXEC, false).during("restrict /")?;
    chdir(WORKSPACE).during("enter the workspace")?;
    Ok(Entered { has_proc })
}

fn inside(path: &str) -> String {
    format!("{BASE}{path}")
}

fn make_directory(path: &str) -> Result<(), SetupError> {
    fs::create_dir(inside(path)).during(path)
}

fn tmpfs(target: &str, options: &str) -> Result<(), SetupError> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("tmpfs"), target, Some("tmpfs"), flags, Some(options))
        .during(&format!("mount a tmpfs on {target}"))
}

fn bind(source: &str, target: &str) -> Result<(), SetupError> {
    if !Path::new(target).exists() {
        fs::create_dir(target).during(target)?;
    }
    let none: Option<&str> = None;
    // Recursively, because a mount that hides something on the host must hide it here, too.
    mount(
        Some(source),
        target,
        none,
        MsFlags::MS_BIND | MsFlags::MS_REC,
        none,
    )
    .during(&format!("bind {source}"))
}

fn show_system_directory(name: &str) -> Result<(), SetupError> {
    let source = format!("/{name}");
    let target = inside(&source);
    match fs::symlink_metadata(&source) {
        Ok(found) if found.is_symlink() => fs::read_link(&source)
            .and_then(|destination| symlink(destination, &target))
            .during(&source),
        Ok(_) => {
            bind(&source, &target)?;
            restrict_mount(&target, READ_ONLY | NO_SETID | NO_DEVICES, true)
                .during(&format!("restrict {source}"))
        }
        Err(_) => Ok(()), // not every host has all of them
    }
}

/// Shows single files, and directories whole. What lies in such a directory is there already.
fn show(shown: &Shown) -> Result<(), SetupError> {
    let parent = |path: &Path| {
        let parent = inside_path(path.parent().unwrap_or(path));
        fs::create_dir_all(&parent).during(&path.display().to_string())
    };
    let restrict = |path: &Path| {
        let target = inside_path(path);
        restrict_mount(&target, READ_ONLY | NO_SETID | NO_DEVICES, true)
            .during(&format!("restrict {}", path.display()))
    };
    for path in &shown.directories {
        parent(path)?;
        bind(&path.to_string_lossy(), &inside_path(path))?;
        restrict(path)?;
    }
    let outside = |path: &&PathBuf| !shown.covers(path);
    for path in shown.files.keys().filter(outside) {
        parent(path)?;
        let target = inside_path(path);
        fs::write(&target, "").during(&target)?;
        bind(&path.to_string_lossy(), &target)?;
        restrict(path)?;
    }
    for path in shown.links.keys().filter(outside) {
        parent(path)?;
        symlink(&shown.links[path], inside_path(path)).during(&path.display().to_string())?;
    }
    Ok(())
}

fn inside_path(path: &Path) -> String {
    inside(&path.to_string_lossy())
}

fn show_devices(shm_options: &str) -> Result<(), SetupError> {
    make_directory("/dev")?;
    tmpfs(&inside("/dev"), "size=64k,nr_inodes=64,mode=755")?;
    for name in DEVICES {
        let source = format!("/dev/{name}");
        let target = inside(&source);
        fs::write(&target, "").during(&source)?;
        bind(&source, &target)?;
        restrict_mount(&target, READ_ONLY | NO_SETID | NO_EXEC, false)
            .during(&format!("restrict {source}"))?;
    }
    for (name, target) in [
        ("fd", "self/fd"),
        ("stdin", "self/fd/0"),
        ("stdout", "self/fd/1"),
        ("stderr", "self/fd/2"),
    ] {
        symlink(format!("/proc/{target}"), inside(&format!("/dev/{name}"))).during(name)?;
    }
    make_directory("/dev/shm")?;
    tmpfs(&inside("/dev/shm"), shm_options)?;
    restrict_mount(&inside("/dev"), READ_ONLY, false).during("restrict /dev")
}

fn show_processes() -> Result<bool, SetupError> {
    make_directory("/proc")?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC | MsFlags::MS_RDONLY;
    match mount(
        Some("proc"),
        inside("/proc").as_str(),
        Some("proc"),
        flags,
        Some("subset=pid"),
    ) {
        Ok(()) => Ok(true),
        Err(nix::errno::Errno::EPERM) => Ok(false),
        Err(errno) => Err(errno).during("mount /proc"),
    }
}
