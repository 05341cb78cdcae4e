//! Which files a program reaches, once more, by Landlock: a second wall behind the mount view, which holds even where a
//! mount lets more through than it should.
//!
//! ```text
//! /usr, /bin …      read, execute; of what is granted singly only programs and interpreters are executed
//! /work /tmp /dev/shm   read and write, and everything with names; execute nothing, make no device
//! /dev/null …       read, write
//! /proc /script     read
//! /                 list
//! ```
//!
//! No TCP port can be bound or connected to, and no process or abstract socket outside can be reached. The numbers are
//! those of the kernel's `linux/landlock.h`.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use sha2::{Digest, Sha256};

use super::SCRIPT;
use super::closure::Shown;
use super::launcher::{During, SetupError};
use super::syscall;
use super::view::{DEVICES, SYSTEM};
use super::work::WORKSPACE;

/// The least version of the interface that will do: the first that knows of TCP (Linux 6.7).
const FLOOR: i32 = 4;

const EXECUTE: u64 = 1;
const WRITE_FILE: u64 = 1 << 1;
const READ_FILE: u64 = 1 << 2;
const READ_DIR: u64 = 1 << 3;
const MAKE_CHAR: u64 = 1 << 6;
const MAKE_BLOCK: u64 = 1 << 11;
const TRUNCATE: u64 = 1 << 14;
const IOCTL_DEV: u64 = 1 << 15;
/// Everything up to [`TRUNCATE`]: what version 4 knows.
const ALL: u64 = (1 << 15) - 1;
/// Binding and connecting TCP ports.
const TCP: u64 = 0b11;
/// Abstract sockets and signals.
const SCOPES: u64 = 0b11;

/// What may be done with the view's programs and libraries.
const PROGRAMS: u64 = EXECUTE | READ_FILE | READ_DIR;
/// What may be done where a step writes.
const WRITABLE: u64 = ALL & !(EXECUTE | MAKE_CHAR | MAKE_BLOCK);
/// What may be done with a device.
const DEVICE: u64 = READ_FILE | WRITE_FILE | TRUNCATE | IOCTL_DEV;

/// Confines this process and all that it starts to the view. Comes after the view has been entered, because it names its
/// paths, and after `no_new_privs`. Gives the digest of the ruleset in force; `None`: there is no Landlock that would do,
/// and `degraded` goes without.
pub(super) fn confine(
    shown: Option<&Shown>,
    has_script: bool,
    degraded: bool,
) -> Result<Option<String>, SetupError> {
    let version = match syscall::landlock_version() {
        Ok(version) => version,
        Err(Errno::ENOSYS | Errno::EOPNOTSUPP) => 0, // not built, or not switched on
        Err(errno) => return Err(errno).during("ask for Landlock"),
    };
    if version >= FLOOR {
        return restrict(version, &rights(shown, has_script)).map(Some);
    }
    if degraded {
        return Ok(None);
    }
    Err(SetupError(format!(
        "Landlock has version {version} here and version {FLOOR} is needed (Linux 6.7); sandbox_degraded goes without"
    )))
}

/// What is allowed, by path; everything else is not.
fn rights(shown: Option<&Shown>, has_script: bool) -> BTreeMap<PathBuf, u64> {
    let devices = DEVICES.map(|name| (PathBuf::from(format!("/dev/{name}")), DEVICE));
    let fixed = [
        // Where a host allows no new /proc, the directory is empty.
        ("/", READ_DIR),
        ("/proc", READ_FILE | READ_DIR),
        (WORKSPACE, WRITABLE),
        ("/tmp", WRITABLE),
        ("/dev/shm", WRITABLE),
    ];
    let fixed = fixed.map(|(path, access)| (PathBuf::from(path), access));
    let mut rights: BTreeMap<PathBuf, u64> = fixed.into_iter().chain(devices).collect();
    if has_script {
        rights.insert(PathBuf::from(SCRIPT), READ_FILE);
    }
    match shown {
        None => rights.extend(system().map(|path| (path, PROGRAMS))),
        Some(shown) => {
            let directories = shown.directories.iter();
            rights.extend(directories.map(|path| (path.clone(), READ_FILE | READ_DIR)));
            let files = shown.files.iter();
            rights.extend(files.map(|(path, execute)| {
                let execute = if *execute { EXECUTE } else { 0 };
                (path.clone(), READ_FILE | execute)
            }));
        }
    }
    rights
}

/// The system's directories: what is a link leads to one of them, and some hosts lack some.
fn system() -> impl Iterator<Item = PathBuf> {
    let paths = SYSTEM.iter().map(|name| Path::new("/").join(name));
    paths.filter(|path| path.symlink_metadata().is_ok_and(|found| found.is_dir()))
}

fn restrict(version: i32, rights: &BTreeMap<PathBuf, u64>) -> Result<String, SetupError> {
    let files = if version >= 5 { ALL | IOCTL_DEV } else { ALL };
    let scopes = if version >= 6 { SCOPES } else { 0 };
    let ruleset =
        syscall::landlock_ruleset(files, TCP, scopes).during("make a Landlock ruleset")?;
    let mut digest = Sha256::new();
    digest.update(format!("handled {files:#x} {TCP:#x} {scopes:#x}\n"));
    for (path, access) in rights {
        let access = access & files;
        open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())
            .and_then(|place| syscall::landlock_allow(&ruleset, &place, access))
            .during(&format!("allow {} (Landlock)", path.display()))?;
        digest.update(format!("{access:#x} "));
        digest.update(path.as_os_str().as_bytes());
        digest.update("\n");
    }
    syscall::landlock_restrict(&ruleset).during("confine by Landlock")?;
    Ok(hex::encode(digest.finalize()))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::ErrorKind::PermissionDenied;
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::fs::PermissionsExt;
    use std::process::Command;

    use super::*;

    /// Without the mount view in front of it: a ruleset binds the thread that takes it on, and what it starts.
    #[test]
    fn it_holds_by_itself() {
        let writable = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        let (inside, outside) = (writable.path().join("f"), elsewhere.path().join("f"));
        fs::write(&outside, "secret").unwrap();
        let program = writable.path().join("program");
        fs::copy("/usr/bin/true", &program).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut rights = rights_of_the_system();
        rights.insert(writable.path().to_owned(), WRITABLE);

        let confined = std::thread::spawn(move || {
            let refused = |result: std::io::Result<()>| {
                result.is_err_and(|error| error.kind() == PermissionDenied)
            };
            let look = || {
                [
                    refused(fs::write(&inside, "x")),
                    refused(Command::new("/usr/bin/true").status().map(drop)),
                    refused(fs::read(&outside).map(drop)),
                    refused(fs::write(&outside, "x")),
                    refused(fs::rename(&inside, &outside)),
                    refused(Command::new(&program).status().map(drop)),
                    refused(TcpStream::connect(address).map(drop)),
                    refused(TcpListener::bind("127.0.0.1:0").map(drop)),
                ]
            };
            let before = look();
            nix::sys::prctl::set_no_new_privs().unwrap();
            let version = syscall::landlock_version().unwrap();
            restrict(version, &rights)
                .map_err(|SetupError(problem)| problem)
                .unwrap();
            (before, look())
        });
        let (before, after) = confined.join().unwrap();
        assert_eq!(before, [false; 8]);
        assert_eq!(after, [false, false, true, true, true, true, true, true]);
    }

    fn rights_of_the_system() -> BTreeMap<PathBuf, u64> {
        let mut rights = rights(None, false);
        rights.retain(|path, access| path.exists() && *access != WRITABLE);
        rights
    }
}
