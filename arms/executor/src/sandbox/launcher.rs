//! The launcher: a short-lived process of one thread that stands between the executor and the sandbox.
//!
//! The executor re-executes itself as the launcher, so nothing of its threads, memory, environment or descriptors
//! reaches the sandbox. The launcher becomes an ordinary user, makes the namespaces, starts the sandbox's first
//! process ([`init`](super::init)) and watches both sides: when the executor hangs up or dies, everything inside is
//! killed; when the first process has ended, the kernel has emptied the process id namespace, and the launcher says so.

use std::fs;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::sys::wait::waitpid;
use nix::unistd::{
    ForkResult, Gid, Pid, Uid, getegid, geteuid, getppid, pipe2, setgroups, setresgid, setresuid,
};

use super::protocol::{Order, Report, receive, send};
use super::work::Work;
use super::{Layer, init, syscall};

/// The argument that makes the executor's binary the launcher.
pub const SUBCOMMAND: &str = "sandbox-launcher";
/// User and group inside the sandbox. Not 0, which tools treat as special, and not 65534, which stands for every
/// user that has no number inside.
const INSIDE_ID: u32 = 1000;
/// Halfway to the first choice of the kernel when memory runs out (proc_pid_oom_score_adj(5)).
const OOM_SCORE: &str = "500";
/// How long the first process may take to kill and count everything before it is killed itself, milliseconds.
const GRACE_MS: u16 = 2000;

/// A step of the set-up that failed.
pub(super) struct SetupError(pub(super) String);

pub(super) trait During<T> {
    /// Says what was being done when it failed.
    fn during(self, what: &str) -> Result<T, SetupError>;
}

impl<T> During<T> for nix::Result<T> {
    fn during(self, what: &str) -> Result<T, SetupError> {
        self.map_err(|errno| SetupError(format!("{what}: {errno}")))
    }
}

impl<T> During<T> for std::io::Result<T> {
    fn during(self, what: &str) -> Result<T, SetupError> {
        self.map_err(|error| SetupError(format!("{what}: {error}")))
    }
}

/// Runs the launcher. Must be the first thing that the process does: it relies on being alone in it.
#[must_use]
pub fn main() -> ExitCode {
    let Ok(control) = syscall::close_from(3).and_then(|()| syscall::control_socket()) else {
        return ExitCode::FAILURE;
    };
    // An executor that is gone can't be told anything; what it started is cleaned up by then.
    let told = match syscall::receive_descriptors(&control)
        .during("take the workspace")
        .and_then(|[archive, packed]| {
            let order = receive::<Order>(&control).during("read the order")?;
            launch(&order, &control, Work { archive, packed })
        }) {
        Ok(written_bytes) => send(&control, &Report::Gone { written_bytes }),
        Err(SetupError(problem)) => send(&control, &Report::Unavailable(problem)),
    };
    if told.is_ok() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// The order is the security argument: nothing that comes later may rely on a privilege given up earlier, and the
/// sandbox's first process is born with all namespaces around it.
fn launch(order: &Order, control: &UnixStream, work: Work) -> Result<Option<u64>, SetupError> {
    let mut layers = vec![
        Layer::UserNamespace,
        Layer::MountNamespace,
        Layer::PidNamespace,
        Layer::NetworkNamespace,
        Layer::IpcNamespace,
        Layer::UtsNamespace,
        Layer::CgroupNamespace,
    ];
    match syscall::join_new_keyring() {
        Ok(()) => layers.push(Layer::SessionKeyring),
        // A host that has no keyrings, or forbids them to us, forbids them to the step as well.
        Err(Errno::ENOSYS | Errno::EPERM | Errno::EOPNOTSUPP) => {}
        Err(errno) => return Err(errno).during("make a session keyring"),
    }
    // When the host itself runs out of memory, steps go before services. A wish: limits don't depend on it.
    let _ = fs::write("/proc/self/oom_score_adj", OOM_SCORE);
    become_ordinary_user(order.identity)?;
    let (uid, gid) = (geteuid(), getegid());
    unshare(
        CloneFlags::CLONE_NEWUSER
            | CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWPID
            | CloneFlags::CLONE_NEWNET
            | CloneFlags::CLONE_NEWIPC
            | CloneFlags::CLONE_NEWUTS
            | CloneFlags::CLONE_NEWCGROUP,
    )
    .during("make the namespaces (unshare)")?;
    map_ids(uid, gid)?;
    // Opened while it is ours: what is closed to other processes can't open its own any more.
    let account = fs::File::open("/proc/self/io").ok();
    // Other processes of the same user on the host may not trace this one, nor what it becomes.
    prctl::set_dumpable(false).during("close the launcher")?;
    die_with(order.parent)?;
    if forbid_nested_namespaces() {
        layers.push(Layer::NoNestedNamespaces);
    }

    let null = open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())
        .during("open /dev/null")?;
    syscall::install(&null, 0).during("leave stdin")?;
    let (leash_end, leash) = pipe2(OFlag::O_CLOEXEC).during("make a pipe")?;

    match syscall::fork().during("start the sandbox's first process")? {
        ForkResult::Child => {
            drop(leash);
            init::main(order, control, &leash_end, work, layers)
        }
        ForkResult::Parent { child } => {
            drop(leash_end);
            // The workspace is the sandbox's affair from here on: it is complete when nobody there can write any more.
            drop(work);
            syscall::install(&null, 1)
                .and_then(|()| syscall::install(&null, 2))
                .during("leave the outputs")?;
            watch(child, control, leash)?;
            Ok(account.and_then(|account| written(&account)))
        }
    }
}

/// Gives up root for good. In a user namespace made by root, the files of `/proc/sys` would still belong to us by
/// user id 0, whatever the capabilities.
fn become_ordinary_user(identity: Option<(u32, u32)>) -> Result<(), SetupError> {
    if let Some((uid, gid)) = identity {
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        setgroups(&[]).during("leave all groups")?;
        setresgid(gid, gid, gid).during("change the group")?;
        setresuid(uid, uid, uid).during("change the user")?;
        // The change of user made /proc/self ours no longer; the id maps below are written there.
        prctl::set_dumpable(true).during("own /proc/self")?;
    }
    if geteuid().is_root() {
        return Err(SetupError("the sandbox's user must not be root".to_owned()));
    }
    Ok(())
}

/// Bytes that this process, and all that ended below it, have passed to writing calls (proc_pid_io(5)); some kernels
/// don't count.
fn written(mut account: &fs::File) -> Option<u64> {
    let mut text = String::new();
    account.read_to_string(&mut text).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("wchar: "));
    line?.trim().parse().ok()
}

fn map_ids(uid: Uid, gid: Gid) -> Result<(), SetupError> {
    fs::write("/proc/self/setgroups", "deny").during("deny setgroups")?;
    fs::write("/proc/self/uid_map", format!("{INSIDE_ID} {uid} 1")).during("map the user")?;
    fs::write("/proc/self/gid_map", format!("{INSIDE_ID} {gid} 1")).during("map the group")
}

/// Ends with the executor, however it ends. (Changing the user clears the signal, so this comes after it.)
fn die_with(parent: i32) -> Result<(), SetupError> {
    prctl::set_pdeathsig(Signal::SIGKILL).during("tie the launcher to the executor")?;
    if getppid().as_raw() == parent {
        Ok(())
    } else {
        Err(SetupError("the executor has ended".to_owned()))
    }
}

/// The limit belongs to our user namespace; hosts that mount `/proc/sys` read-only leave it as it is.
fn forbid_nested_namespaces() -> bool {
    fs::write("/proc/sys/user/max_user_namespaces", "0").is_ok()
}

/// Waits until the sandbox's first process has ended; ends it when the executor hangs up.
fn watch(first: Pid, control: &UnixStream, leash: OwnedFd) -> Result<(), SetupError> {
    let ended = syscall::pidfd_open(first).during("watch the sandbox's first process")?;
    // The executor sends nothing after the order: whatever comes is the end of the stream.
    let is_ended = |timeout, others: &[PollFd]| -> Result<bool, SetupError> {
        let mut watched = vec![PollFd::new(ended.as_fd(), PollFlags::POLLIN)];
        watched.extend_from_slice(others);
        while let Err(errno) = poll(&mut watched, timeout) {
            if errno != Errno::EINTR {
                return Err(errno).during("watch the sandbox");
            }
        }
        Ok(watched[0].any().unwrap_or(true))
    };
    if !is_ended(
        PollTimeout::NONE,
        &[PollFd::new(control.as_fd(), PollFlags::POLLIN)],
    )? {
        // The first process sees its end of the pipe close, kills everything and reports what it used.
        drop(leash);
        if !is_ended(PollTimeout::from(GRACE_MS), &[])? {
            kill(first, Signal::SIGKILL).during("kill the sandbox's first process")?;
        }
    }
    loop {
        match waitpid(first, None) {
            Ok(_) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno).during("wait for the sandbox's first process"),
        }
    }
}
