//! The sandbox's first process: builds the view, gives up every privilege, starts the stages, and reaps.
//!
//! It is process 1 of its namespace, so no signal from inside can end it, and when it ends the kernel kills whatever
//! is left. It never executes another program, and like the launcher it can't be traced, not even by its own user.

use std::ffi::CString;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage, setrlimit};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::stat::{Mode, SFlag, fstat};
use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use nix::sys::time::TimeValLike;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, execve, fchdir, ftruncate, pipe2, sethostname, setsid};

use super::environment::environment;
use super::launcher::{During, SetupError};
use super::memory::sealed_memory;
use super::protocol::{Order, Report, send};
use super::view;
use super::witness::Witness;
use super::work::{self, WORKSPACE, Work};
use super::{
    Denial, DenialKind, Digests, Layer, Limits, Program, StageExit, filter, landlock, syscall,
};
use crate::action::Redirect;
use crate::workspace::WorkspacePath;

/// Bytes that a program may lock in memory.
const LOCKED_BYTES: u64 = 64 << 10;
/// The launcher and this process count as processes of the sandbox's user, too.
pub(super) const OUR_PROCESSES: u64 = 2;

/// Runs process 1 and ends it.
pub(super) fn main(
    order: &Order,
    control: &UnixStream,
    leash: &OwnedFd,
    work: Work,
    mut layers: Vec<Layer>,
) -> ! {
    let Work { archive, packed } = work;
    let report = match enclose(order, leash, &archive, &mut layers) {
        Err(SetupError(problem)) => Report::Unavailable(problem),
        Ok((digests, witness)) => {
            layers.sort_unstable();
            // Whatever can't be sent: the executor is gone, and so are we in a moment.
            let _ = send(control, &Report::Ready { layers, digests });
            let started = watch_children().and_then(|children| Ok((start(order)?, children)));
            match started {
                Err(SetupError(problem)) => Report::NotStarted(problem),
                Ok((stages, children)) => {
                    let (ended, is_complete) = supervise(&stages, leash, &children, witness);
                    let _ = send(control, &ended);
                    if is_complete {
                        pack(packed, control);
                    }
                    syscall::exit_now(0)
                }
            }
        }
    };
    let _ = send(control, &report);
    syscall::exit_now(0)
}

/// Everything between a fresh process and the moment when a program may be started.
fn enclose(
    order: &Order,
    leash: &OwnedFd,
    archive: &OwnedFd,
    layers: &mut Vec<Layer>,
) -> Result<(Digests, Witness), SetupError> {
    let mut digests = Digests::default();
    prctl::set_pdeathsig(Signal::SIGKILL).during("tie the first process to the launcher")?;
    if is_cut(leash, PollTimeout::ZERO)? {
        return Err(SetupError("the launcher has ended".to_owned()));
    }
    setsid().during("leave the terminal")?;
    sethostname("sandbox").during("name the sandbox")?;
    let (shown, script) = (order.shown.as_ref(), order.script.as_deref());
    if view::enter(shown, script, &order.limits)?.has_proc {
        layers.push(Layer::PrivateProc);
    }
    work::fill(archive)?;
    syscall::drop_capabilities().during("drop all capabilities")?;
    prctl::set_no_new_privs().during("give up new privileges")?;
    layers.extend([
        Layer::NoCapabilities,
        Layer::NoNewPrivileges,
        Layer::ResourceLimits,
    ]);
    digests.ruleset = landlock::confine(shown, script.is_some(), order.degraded)?;
    layers.extend(digests.ruleset.is_some().then_some(Layer::Landlock));
    // Last: from here on, none of the calls above could be made.
    let mut listener = None;
    let program = filter::program(true);
    let installed = match syscall::install_heard_filter(&program) {
        Ok(descriptor) => {
            listener = Some(descriptor);
            layers.push(Layer::CallWitness);
            Ok(program)
        }
        // Somebody around this host's container listens already, or the kernel knows no listeners.
        Err(Errno::EBUSY | Errno::EINVAL) => {
            let program = filter::program(false);
            syscall::install_filter(&program).map(|()| program)
        }
        Err(errno) => Err(errno),
    };
    match installed {
        Ok(program) => {
            layers.push(Layer::Seccomp);
            digests.filter = Some(filter::digest(&program));
        }
        Err(Errno::ENOSYS | Errno::EINVAL) if order.degraded => {}
        Err(errno) => return Err(errno).during("filter system calls (seccomp)"),
    }
    Ok((digests, Witness::new(listener)))
}

fn is_cut(leash: &OwnedFd, timeout: PollTimeout) -> Result<bool, SetupError> {
    let mut watched = [PollFd::new(leash.as_fd(), PollFlags::empty())];
    poll(&mut watched, timeout)
        .during("look at the launcher")
        .map(|ready| ready > 0)
}

/// A descriptor that is readable when a child has ended.
fn watch_children() -> Result<SignalFd, SetupError> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGCHLD);
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&signals), None).during("block SIGCHLD")?;
    SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .during("make a signalfd")
}

/// Starts all stages, each reading what the one before writes.
fn start(order: &Order) -> Result<Vec<Pid>, SetupError> {
    let mut stdin = standard_input(order.stdin.as_deref())?;
    let redirected = order.redirect.as_ref().map(open_redirect).transpose()?;
    let environment = environment(&order.environment).map_err(SetupError)?;
    if let Some(cwd) = &order.cwd {
        enter_directory(cwd)?;
    }
    let mut started = Vec::with_capacity(order.stages.len());
    for (index, program) in order.stages.iter().enumerate() {
        let is_last = index + 1 == order.stages.len();
        let (next_stdin, stdout) = if is_last {
            (
                None,
                redirected
                    .as_ref()
                    .map(OwnedFd::try_clone)
                    .transpose()
                    .during("redirect")?,
            )
        } else {
            let (read, write) = pipe2(OFlag::O_CLOEXEC).during("make a pipe")?;
            (Some(read), Some(write))
        };
        started.push(spawn(
            program,
            &environment,
            &stdin,
            stdout.as_ref(),
            &order.limits,
        )?);
        if let Some(next) = next_stdin {
            stdin = next;
        }
    }
    Ok(started)
}

/// The working directory of the stages. No link is followed, so it is one of the workspace.
fn enter_directory(cwd: &WorkspacePath) -> Result<(), SetupError> {
    let what = format!("enter {cwd}");
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
    let directory = open_beneath(workspace(&what)?, cwd.as_str(), flags, Mode::empty());
    fchdir(directory.during(&what)?).during(&what)
}

fn workspace(what: &str) -> Result<OwnedFd, SetupError> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    open(WORKSPACE, flags, Mode::empty()).during(what)
}

fn standard_input(encoded: Option<&str>) -> Result<OwnedFd, SetupError> {
    let Some(encoded) = encoded else {
        return open(
            "/dev/null",
            OFlag::O_RDONLY | OFlag::O_CLOEXEC,
            Mode::empty(),
        )
        .during("open /dev/null");
    };
    let content = BASE64
        .decode(encoded)
        .map_err(|error| SetupError(format!("read stdin: {error}")))?;
    // Not a pipe: nobody has to keep writing while the programs run.
    sealed_memory(c"stdin", &content).during("make stdin")
}

/// Opens the file as the step's own user, so it can write nothing that a program of the step could not.
fn open_redirect(redirect: &Redirect) -> Result<OwnedFd, SetupError> {
    let path = &redirect.path;
    let what = format!("redirect to {path}");
    let append = if redirect.append {
        OFlag::O_APPEND
    } else {
        OFlag::empty()
    };
    // O_NONBLOCK: opening a FIFO must not wait for its reader. Nothing is truncated before it is known to be a file.
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_NONBLOCK | append;
    let mode = Mode::from_bits_truncate(0o644);
    let file = open_beneath(workspace(&what)?, path.as_str(), flags, mode).during(&what)?;
    let found = fstat(&file).during(&what)?;
    if SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT != SFlag::S_IFREG
        || found.st_nlink != 1
    {
        return Err(SetupError(format!(
            "{what}: not a regular file with one name"
        )));
    }
    if !redirect.append {
        ftruncate(&file, 0).during(&what)?;
    }
    Ok(file)
}

/// Opens a path beneath the workspace: no symbolic link is followed, neither on the way nor at the end, and no mount is
/// crossed (`openat2(2)`).
fn open_beneath(root: impl AsFd, path: &str, flags: OFlag, mode: Mode) -> nix::Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(flags | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW)
        .mode(mode)
        .resolve(
            ResolveFlag::RESOLVE_BENEATH
                | ResolveFlag::RESOLVE_NO_SYMLINKS
                | ResolveFlag::RESOLVE_NO_MAGICLINKS
                | ResolveFlag::RESOLVE_NO_XDEV,
        );
    openat2(root, path, how)
}

/// Starts one program and returns once it has been executed, or with the reason why it could not be.
fn spawn(
    program: &Program,
    environment: &[CString],
    stdin: &OwnedFd,
    stdout: Option<&OwnedFd>,
    limits: &Limits,
) -> Result<Pid, SetupError> {
    let what = format!("start {}", program.path.display());
    let c_string = |bytes: &[u8]| CString::new(bytes).map_err(|_| Errno::EINVAL);
    let path = c_string(program.path.as_os_str().as_bytes()).during(&what)?;
    let argv = program
        .argv
        .iter()
        .map(|argument| c_string(argument.as_bytes()));
    let argv = argv.collect::<nix::Result<Vec<_>>>().during(&what)?;
    let (failure, report_failure) = pipe2(OFlag::O_CLOEXEC).during("make a pipe")?;

    match syscall::fork().during(&what)? {
        ForkResult::Child => {
            let Err(errno) = become_program(&path, &argv, environment, stdin, stdout, limits);
            let _ = nix::unistd::write(&report_failure, &(errno as i32).to_ne_bytes());
            syscall::exit_now(127)
        }
        ForkResult::Parent { child } => {
            drop(report_failure);
            let mut errno = Vec::new();
            File::from(failure).read_to_end(&mut errno).during(&what)?;
            match errno.try_into() {
                Ok(errno) => Err(Errno::from_raw(i32::from_ne_bytes(errno))).during(&what),
                Err(_) => Ok(child), // nothing was written: `execve` closed the pipe
            }
        }
    }
}

fn become_program(
    path: &CString,
    argv: &[CString],
    environment: &[CString],
    stdin: &OwnedFd,
    stdout: Option<&OwnedFd>,
    limits: &Limits,
) -> nix::Result<std::convert::Infallible> {
    syscall::install(stdin, 0)?;
    if let Some(stdout) = stdout {
        syscall::install(stdout, 1)?;
    }
    syscall::close_on_exec_from(3)?;
    syscall::reset_signals()?;
    for (resource, limit) in [
        (Resource::RLIMIT_CORE, 0),
        (Resource::RLIMIT_MEMLOCK, LOCKED_BYTES),
        (Resource::RLIMIT_CPU, limits.cpu_seconds),
        (Resource::RLIMIT_FSIZE, limits.file_bytes),
        (Resource::RLIMIT_NOFILE, limits.open_files),
        (Resource::RLIMIT_NPROC, limits.processes + OUR_PROCESSES),
        (Resource::RLIMIT_AS, limits.memory_bytes),
    ] {
        let (_, most) = getrlimit(resource)?;
        let limit = limit.min(most);
        // Past the soft limit of CPU time comes SIGXCPU, which says why; a second later comes SIGKILL.
        let hard = if resource == Resource::RLIMIT_CPU {
            (limit + 1).min(most)
        } else {
            limit
        };
        setrlimit(resource, limit, hard)?;
    }
    execve(path, argv, environment)
}

/// Waits for the stages, or for the launcher to let go, then kills and counts whatever is left; and whether all stages
/// have ended by themselves.
fn supervise(
    stages: &[Pid],
    leash: &OwnedFd,
    children: &SignalFd,
    mut witness: Witness,
) -> (Report, bool) {
    let mut exits: Vec<Option<StageExit>> = vec![None; stages.len()];
    let mut record = |status: WaitStatus| {
        let (pid, exit) = match status {
            WaitStatus::Exited(pid, code) => (pid, StageExit::Code(code as u8)),
            WaitStatus::Signaled(pid, signal, _) => (pid, StageExit::Signal(signal as i32 as u8)),
            _ => return,
        };
        if let Some(index) = stages.iter().position(|stage| *stage == pid) {
            exits[index] = Some(exit);
        }
    };
    let mut running = stages.len();
    while running > 0 {
        let mut watched = vec![
            PollFd::new(children.as_fd(), PollFlags::POLLIN),
            PollFd::new(leash.as_fd(), PollFlags::empty()),
        ];
        let listener = witness.listener();
        watched.extend(listener.map(|listener| PollFd::new(listener, PollFlags::POLLIN)));
        let polled = poll(&mut watched, PollTimeout::NONE);
        if !matches!(polled, Ok(_) | Err(Errno::EINTR)) || watched[1].any().unwrap_or(true) {
            break;
        }
        if watched.get(2).and_then(PollFd::any) == Some(true) {
            witness.answer();
        }
        while let Ok(Some(_)) = children.read_signal() {}
        while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            if status == WaitStatus::StillAlive {
                break;
            }
            running -= usize::from(status.pid().is_some_and(|pid| stages.contains(&pid)));
            record(status);
        }
    }
    // As process 1, -1 means every process of the namespace but ourselves: no session, double fork, ignored or
    // stopped process escapes. ESRCH says that there is none.
    let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
    loop {
        match waitpid(None, None) {
            Ok(status) => record(status),
            Err(Errno::EINTR) => {}
            Err(_) => break,
        }
    }
    let (cpu_us, memory_peak_bytes) = used();
    let ended = Report::Ended {
        stages: exits,
        cpu_us,
        memory_peak_bytes,
        denials: [witness.denials(), full_file_systems()].concat(),
    };
    (ended, running == 0)
}

/// Hands the workspace out. No other process is left.
fn pack(packed: OwnedFd, control: &UnixStream) {
    let packed = work::pack(packed).map_err(|error| error.to_string());
    let _ = send(control, &Report::Packed(packed));
}

/// The file systems of the sandbox's own that have no room left.
fn full_file_systems() -> Vec<Denial> {
    let places = [WORKSPACE, "/tmp", "/dev/shm"].into_iter();
    let lacking = places.filter_map(|place| {
        let found = statfs(place).ok()?;
        let lacks = match () {
            () if found.filesystem_type() != TMPFS_MAGIC => return None,
            () if found.blocks() > 0 && found.blocks_available() == 0 => "room",
            () if found.files() > 0 && found.files_free() == 0 => "names",
            () => return None,
        };
        Some(Denial {
            kind: DenialKind::Disk,
            detail: format!("{place} has no {lacks} left"),
            count: 1,
        })
    });
    lacking.collect()
}

/// CPU time of all processes that have ended, microseconds, and the largest resident set of one, bytes.
fn used() -> (u64, u64) {
    getrusage(UsageWho::RUSAGE_CHILDREN).map_or((0, 0), |usage| {
        let cpu = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
        let peak = usage.max_rss() * 1024; // the kernel counts in KiB
        (cpu.max(0).cast_unsigned(), peak.max(0).cast_unsigned())
    })
}
