//! Which files a program reaches, once more, by Landlock: a second wall behind the mount view, which holds even where a
//! mount lets more through than it should.
//!
//! ```text
//! /usr, /bin …      read, execute
//! /work /tmp /dev/shm   read and write, and everything with names; execute nothing, make no device
//! /dev/null …       read, write
//! /proc             read
//! /                 list
//! ```
//!
//! No TCP port can be bound or connected to, and no process or abstract socket outside can be reached. The numbers are
//! those of the kernel's `linux/landlock.h`.

use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

use super::launcher::{During, SetupError};
use super::view::{DEVICES, SYSTEM, WORKSPACE};
use super::{Layer, syscall};

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
/// paths, and after `no_new_privs`. `None`: there is no Landlock that would do, and `degraded` goes without.
pub(super) fn confine(degraded: bool) -> Result<Option<Layer>, SetupError> {
    let version = match syscall::landlock_version() {
        Ok(version) => version,
        Err(Errno::ENOSYS | Errno::EOPNOTSUPP) => 0, // not built, or not switched on
        Err(errno) => return Err(errno).during("ask for Landlock"),
    };
    if version >= FLOOR {
        return restrict(version, &rights()).map(|()| Some(Layer::Landlock));
    }
    if degraded {
        return Ok(None);
    }
    Err(SetupError(format!(
        "Landlock has version {version} here and version {FLOOR} is needed (Linux 6.7); sandbox_degraded goes without"
    )))
}

/// What is allowed, and where; everything else is not.
fn rights() -> Vec<(String, u64)> {
    // What is a link leads to a directory that is none; some hosts lack some.
    let is_directory = |path: &String| {
        Path::new(path)
            .symlink_metadata()
            .is_ok_and(|found| found.is_dir())
    };
    let system = SYSTEM.map(|name| format!("/{name}"));
    let programs = system.into_iter().filter(is_directory);
    let devices = DEVICES.map(|name| format!("/dev/{name}"));
    // Where a host allows no new /proc, the directory is empty.
    let readable = [("/", READ_DIR), ("/proc", READ_FILE | READ_DIR)];
    programs
        .map(|path| (path, PROGRAMS))
        .chain(devices.map(|path| (path, DEVICE)))
        .chain([WORKSPACE, "/tmp", "/dev/shm"].map(|path| (path.to_owned(), WRITABLE)))
        .chain(readable.map(|(path, access)| (path.to_owned(), access)))
        .collect()
}

fn restrict(version: i32, rights: &[(String, u64)]) -> Result<(), SetupError> {
    let files = if version >= 5 { ALL | IOCTL_DEV } else { ALL };
    let scopes = if version >= 6 { SCOPES } else { 0 };
    let ruleset =
        syscall::landlock_ruleset(files, TCP, scopes).during("make a Landlock ruleset")?;
    for (path, access) in rights {
        open(
            path.as_str(),
            OFlag::O_PATH | OFlag::O_CLOEXEC,
            Mode::empty(),
        )
        .and_then(|place| syscall::landlock_allow(&ruleset, &place, access & files))
        .during(&format!("allow {path} (Landlock)"))?;
    }
    syscall::landlock_restrict(&ruleset).during("confine by Landlock")
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
        rights.push((writable.path().to_str().unwrap().to_owned(), WRITABLE));

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

    fn rights_of_the_system() -> Vec<(String, u64)> {
        let exist = |(path, _): &(String, u64)| Path::new(path).exists();
        let writable = |(_, access): &(String, u64)| *access == WRITABLE;
        rights()
            .into_iter()
            .filter(|right| exist(right) && !writable(right))
            .collect()
    }
}
