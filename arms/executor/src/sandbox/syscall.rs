//! The system calls that have no safe wrapper. All `unsafe` of the executor stands here.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::fs::File;
use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use nix::unistd::{ForkResult, Pid};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Version 3 of `capset(2)`'s header: two words of 32 capabilities each.
const CAPABILITY_VERSION_3: u32 = 0x2008_0522;
/// Every securebit but KEEP_CAPS, each with its lock: nothing brings a capability back, not even a change of user id.
const SECUREBITS: libc::c_ulong = 0b1110_1111;

#[repr(C)]
struct CapabilityHeader {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct CapabilityWord {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

fn check(result: libc::c_long) -> nix::Result<libc::c_long> {
    Errno::result(result)
}

/// The control socket, which the executor made the launcher's stdin, under a descriptor of its own.
pub(super) fn control_socket() -> nix::Result<UnixStream> {
    // SAFETY: descriptor 0 is open: the executor spawns the launcher with a socket there, and this runs before the
    // launcher opens or closes anything else. It is borrowed for this call only.
    let stdin = unsafe { BorrowedFd::borrow_raw(libc::STDIN_FILENO) };
    stdin
        .try_clone_to_owned()
        .map(UnixStream::from)
        .map_err(|_| Errno::last())
}

/// Two descriptors that the executor sends before anything else, with one byte that says nothing.
pub(super) fn receive_descriptors(control: &UnixStream) -> nix::Result<[OwnedFd; 2]> {
    let mut byte = [0];
    let mut parts = [IoSliceMut::new(&mut byte)];
    let mut room = nix::cmsg_space!([RawFd; 2]);
    let message = recvmsg::<()>(
        control.as_raw_fd(),
        &mut parts,
        Some(&mut room),
        MsgFlags::MSG_CMSG_CLOEXEC,
    )?;
    let mut received = Vec::new();
    for part in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(descriptors) = part {
            // SAFETY: the kernel has just made these descriptors for us; nobody else owns them.
            let owned = |descriptor| unsafe { OwnedFd::from_raw_fd(descriptor) };
            received.extend(descriptors.into_iter().map(owned));
        }
    }
    received.try_into().map_err(|_| Errno::EBADMSG)
}

/// Forks.
///
/// The child may do whatever it likes, allocation included: the launcher is a fresh process image with one thread,
/// so no lock can be held by a thread that the child does not have.
pub(super) fn fork() -> nix::Result<ForkResult> {
    // SAFETY: the calling process has one thread (see above), which is the condition of fork(2).
    unsafe { nix::unistd::fork() }
}

/// A descriptor that is readable once the child has ended.
pub(super) fn pidfd_open(child: Pid) -> nix::Result<OwnedFd> {
    // SAFETY: takes integers only.
    let descriptor = check(unsafe { libc::syscall(libc::SYS_pidfd_open, child.as_raw(), 0) })?;
    let descriptor = libc::c_int::try_from(descriptor).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just made this descriptor for us; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Closes every descriptor from `first` on. For a process that has just started and owns none of them yet.
pub(super) fn close_from(first: u32) -> nix::Result<()> {
    // SAFETY: takes integers only; the caller owns no value that would close one of these descriptors again.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) }).map(drop)
}

/// Lets `execve` close every descriptor from `first` on.
pub(super) fn close_on_exec_from(first: u32) -> nix::Result<()> {
    // SAFETY: takes integers only, and closes nothing by itself.
    check(unsafe {
        libc::syscall(
            libc::SYS_close_range,
            first,
            u32::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    })
    .map(drop)
}

/// Adds attributes to a mount and, if asked, to all below it. Only adds: what the host forbids stays forbidden.
pub(super) fn restrict_mount(target: &str, attributes: u64, recursive: bool) -> nix::Result<()> {
    let target = CString::new(target).map_err(|_| Errno::EINVAL)?;
    let change = libc::mount_attr {
        attr_set: attributes,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    let flags = if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: `target` is a NUL-terminated string and `change` a mount_attr of the size that is passed; both outlive
    // the call, which only reads them.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            target.as_ptr(),
            flags,
            &raw const change,
            size_of::<libc::mount_attr>(),
        )
    })
    .map(drop)
}

/// Replaces the session keyring by a new, empty one: keyrings are not namespaced.
pub(super) fn join_new_keyring() -> nix::Result<()> {
    const JOIN_SESSION_KEYRING: libc::c_int = 1;
    // SAFETY: a null name asks for an anonymous keyring; no memory is read or written.
    check(unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            JOIN_SESSION_KEYRING,
            std::ptr::null::<libc::c_char>(),
        )
    })
    .map(drop)
}

/// prctl(2) for the options that take integers only.
fn prctl(option: libc::c_int, argument: libc::c_ulong) -> nix::Result<()> {
    let zero: libc::c_ulong = 0;
    // SAFETY: the callers' options read no memory; all arguments are passed in the kernel's own width.
    check(unsafe { libc::prctl(option, argument, zero, zero, zero) }.into()).map(drop)
}

/// Drops every capability from every set and locks the way back.
pub(super) fn drop_capabilities() -> nix::Result<()> {
    for capability in 0..64 {
        match prctl(libc::PR_CAPBSET_DROP, capability) {
            Ok(()) => {}
            Err(Errno::EINVAL) => break, // past the last capability that this kernel knows
            Err(errno) => return Err(errno),
        }
    }
    prctl(
        libc::PR_CAP_AMBIENT,
        libc::PR_CAP_AMBIENT_CLEAR_ALL as libc::c_ulong,
    )?;
    prctl(libc::PR_SET_SECUREBITS, SECUREBITS)?;
    let header = CapabilityHeader {
        version: CAPABILITY_VERSION_3,
        pid: 0,
    };
    let none = [CapabilityWord {
        effective: 0,
        permitted: 0,
        inheritable: 0,
    }; 2];
    // SAFETY: version 3 reads a header and two words; both have C layout, outlive the call and are only read.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw const header, none.as_ptr()) }).map(drop)
}

/// Installs a filter of system calls for this process and all that it starts. Needs `no_new_privs`.
pub(super) fn install_filter(program: &[libc::sock_filter]) -> nix::Result<()> {
    set_filter(program, 0).map(drop)
}

/// The same with a descriptor that hears of the calls that the filter has told. `EBUSY`: somebody hears already.
pub(super) fn install_heard_filter(program: &[libc::sock_filter]) -> nix::Result<OwnedFd> {
    let descriptor = set_filter(program, libc::SECCOMP_FILTER_FLAG_NEW_LISTENER)?;
    let descriptor = libc::c_int::try_from(descriptor).map_err(|_| Errno::EBADF)?;
    // SAFETY: with this flag the kernel answers with a descriptor that it has just made for us, closed by `execve`.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

fn set_filter(program: &[libc::sock_filter], flags: libc::c_ulong) -> nix::Result<libc::c_long> {
    let program = libc::sock_fprog {
        len: program.len().try_into().map_err(|_| Errno::EINVAL)?,
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: the kernel reads a sock_fprog and as many instructions as it says; both outlive the call. It copies them,
    // and writes nothing, whatever the pointer's type says.
    check(unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            &raw const program,
        )
    })
}

/// The next call that a filter tells of. `ENOENT`: its caller is gone.
pub(super) fn receive_notification(listener: impl AsFd) -> nix::Result<libc::seccomp_notif> {
    // SAFETY: a struct of integers, for which zero is a value; the kernel wants it zeroed.
    let mut notification: libc::seccomp_notif = unsafe { std::mem::zeroed() };
    let listener = listener.as_fd().as_raw_fd();
    // SAFETY: the kernel writes one seccomp_notif, which outlives the call; the request's number holds its size.
    Errno::result(unsafe {
        libc::ioctl(
            listener,
            libc::SECCOMP_IOCTL_NOTIF_RECV,
            &raw mut notification,
        )
    })?;
    Ok(notification)
}

/// Answers a call with an error.
pub(super) fn refuse_notification(
    listener: impl AsFd,
    id: u64,
    errno: libc::c_int,
) -> nix::Result<()> {
    let mut response = libc::seccomp_notif_resp {
        id,
        val: 0,
        error: -errno,
        flags: 0,
    };
    let listener = listener.as_fd().as_raw_fd();
    // SAFETY: the kernel reads one seccomp_notif_resp, which outlives the call; the request's number holds its size.
    Errno::result(unsafe {
        libc::ioctl(listener, libc::SECCOMP_IOCTL_NOTIF_SEND, &raw mut response)
    })
    .map(drop)
}

/// A file that the runtime waits for.
pub(super) fn watched(file: File, interest: Interest) -> io::Result<AsyncFd<File>> {
    // SAFETY: a File owns its descriptor, answers with the same one for as long as it lives, and the AsyncFd takes it.
    Ok(unsafe { AsyncFd::register_with_interest(file, interest) }?)
}

/// `struct landlock_ruleset_attr` as of version 6; older kernels take it as long as what they don't know is zero.
#[repr(C)]
struct RulesetAttributes {
    handled_access_fs: u64,
    handled_access_net: u64,
    scoped: u64,
}

/// `struct landlock_path_beneath_attr`.
#[repr(C, packed)]
struct PathBeneath {
    allowed_access: u64,
    parent_fd: i32,
}

/// The version of Landlock's interface.
pub(super) fn landlock_version() -> nix::Result<i32> {
    const CREATE_RULESET_VERSION: libc::c_ulong = 1;
    let (none, size): (*const RulesetAttributes, libc::size_t) = (std::ptr::null(), 0);
    // SAFETY: with this flag the kernel wants no attributes, reads nothing, and answers with the version.
    let version = check(unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            none,
            size,
            CREATE_RULESET_VERSION,
        )
    })?;
    i32::try_from(version).map_err(|_| Errno::ERANGE)
}

/// A Landlock ruleset that forbids all of these rights, until some are allowed.
pub(super) fn landlock_ruleset(files: u64, ports: u64, scopes: u64) -> nix::Result<OwnedFd> {
    let attributes = RulesetAttributes {
        handled_access_fs: files,
        handled_access_net: ports,
        scoped: scopes,
    };
    let flags: libc::c_ulong = 0;
    // SAFETY: the attributes have C layout and the size that is passed, outlive the call and are only read.
    let descriptor = check(unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            &raw const attributes,
            size_of::<RulesetAttributes>(),
            flags,
        )
    })?;
    let descriptor = libc::c_int::try_from(descriptor).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just made this descriptor for us; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Allows rights on a file, or on a directory and everything below it.
pub(super) fn landlock_allow(ruleset: impl AsFd, place: impl AsFd, access: u64) -> nix::Result<()> {
    const PATH_BENEATH: libc::c_int = 1;
    let rule = PathBeneath {
        allowed_access: access,
        parent_fd: place.as_fd().as_raw_fd(),
    };
    let flags: libc::c_ulong = 0;
    // SAFETY: both descriptors are open for the borrows' duration; the rule has the kernel's layout, which is packed,
    // outlives the call and is only read.
    check(unsafe {
        libc::syscall(
            libc::SYS_landlock_add_rule,
            ruleset.as_fd().as_raw_fd(),
            PATH_BENEATH,
            &raw const rule,
            flags,
        )
    })
    .map(drop)
}

/// Confines this process and all that it starts to what the ruleset allows. Needs `no_new_privs`.
pub(super) fn landlock_restrict(ruleset: impl AsFd) -> nix::Result<()> {
    let flags: libc::c_ulong = 0;
    // SAFETY: takes integers only; the descriptor is open for the borrow's duration.
    check(unsafe {
        libc::syscall(
            libc::SYS_landlock_restrict_self,
            ruleset.as_fd().as_raw_fd(),
            flags,
        )
    })
    .map(drop)
}

/// Makes a descriptor the process's stdin, stdout or stderr.
pub(super) fn install(source: impl AsFd, target: libc::c_int) -> nix::Result<()> {
    // SAFETY: the source is open for the borrow's duration. The target is 0, 1 or 2, which no Rust value of the
    // launcher owns: it never touches std's streams, and it knows the control socket by another descriptor.
    check(unsafe { libc::dup2(source.as_fd().as_raw_fd(), target) }.into()).map(drop)
}

/// Default dispositions and an empty mask: the Rust runtime ignores SIGPIPE, and the reaper blocks SIGCHLD.
pub(super) fn reset_signals() -> nix::Result<()> {
    use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, sigprocmask};
    // SAFETY: sets the default disposition; no handler is installed or replaced by Rust code.
    unsafe { nix::sys::signal::signal(Signal::SIGPIPE, SigHandler::SigDfl) }?;
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)
}

/// Ends the process at once: no destructors, no buffers of the parent flushed twice.
pub(super) fn exit_now(code: i32) -> ! {
    // SAFETY: _exit(2) does not return and touches no memory.
    unsafe { libc::_exit(code) }
}
