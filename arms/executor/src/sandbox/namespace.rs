//! The embedded backend: Linux namespaces, no daemon, no root needed.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::fchown;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use futures::future::BoxFuture;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use nix::unistd::{Gid, Uid, geteuid};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedReadHalf;
use tokio::net::unix::pipe::Receiver;
use tokio::process::{Child, Command};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::capture::{Allowance, Captured, drain};
use super::closure::{Closures, Shown};
use super::group::{Alarm, Evidence, Exhausted, Group, Groups};
use super::launcher::SUBCOMMAND;
use super::memory::sealed_memory;
use super::protocol::{Order, Report, encode};
use super::{
    Digests, Ending, Job, Layer, Peaks, Run, Sandbox, SandboxError, StageExit, Usage, View,
};

/// How long the set-up may take; some milliseconds on a quiet machine.
const SETUP_TIME: Duration = Duration::from_secs(15);
/// How long the launcher may take to kill everything and to confirm it; beyond its own grace.
const KILL_TIME: Duration = Duration::from_secs(10);
/// How long packing a workspace may take, milliseconds for a small one.
const PACK_TIME: Duration = Duration::from_secs(60);
/// How long an output may stay open after everything inside is gone. It never should.
const DRAIN_TIME: Duration = Duration::from_secs(1);

/// The user on the host that programs become, where it is not the executor's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// User id on the host.
    pub uid: Uid,
    /// Group id on the host.
    pub gid: Gid,
}

/// Runs each pipeline in namespaces of its own, set up by a launcher process.
#[derive(Debug)]
pub struct Namespace {
    launcher: PathBuf,
    identity: Option<(u32, u32)>,
    degraded: bool,
    groups: Arc<Groups>,
    closures: Arc<Closures>,
    spawner: Spawner,
}

impl Namespace {
    /// Uses the binary as launcher: `/proc/self/exe` for the executor itself. `owner` is the user that the programs
    /// become where the executor is root; others run programs as themselves.
    ///
    /// # Errors
    /// The executor is root and there is no other user to become, or no thread can be started.
    pub fn new(launcher: PathBuf, owner: Option<Owner>) -> io::Result<Self> {
        if owner.map_or(geteuid(), |owner| owner.uid).is_root() {
            return Err(io::Error::other(
                "programs must not run as root; set sandbox_uid to another user",
            ));
        }
        let identity = owner.map(|owner| (owner.uid.as_raw(), owner.gid.as_raw()));
        Ok(Self {
            launcher,
            identity,
            degraded: false,
            groups: Arc::new(Groups::find()),
            closures: Arc::default(),
            spawner: Spawner::start()?,
        })
    }

    /// Whether steps may run where the kernel has no Landlock of the version needed, or no filter of system calls. Unless
    /// said otherwise they are refused there.
    #[must_use]
    pub fn degraded(mut self, allowed: bool) -> Self {
        self.degraded = allowed;
        self
    }

    async fn run_job(&self, job: Job, cancel: &CancellationToken) -> Result<Run, SandboxError> {
        let (shown, view) = match self.show(&job.view).await {
            Ok(found) => found,
            Err(error) => {
                let ending = Ending::NotStarted(format!("show its programs: {error}"));
                return Ok(unreported(ending, Vec::new()));
            }
        };
        let Launched {
            mut child,
            reports,
            hang_up,
            stdout,
            stderr,
            workspace,
            group,
        } = self.launch(&job, shown).await.map_err(unavailable)?;
        let allowance = Allowance::new(job.limits.output_bytes);
        let stop_draining = CancellationToken::new();
        let _stop_at_the_end = stop_draining.clone().drop_guard();
        let drained = |output| {
            let (allowance, stop) = (allowance.clone(), stop_draining.clone());
            tokio::spawn(drain(output, job.head_bytes, allowance, stop))
        };
        let (stdout, stderr) = (drained(stdout), drained(stderr));

        let most = job.limits.workspace.archive_bytes() + 1;
        let workspace = AbortOnDropHandle::new(tokio::spawn(read_archive(workspace, most)));

        let mut session = Session {
            reports,
            hang_up: Some(hang_up),
            ending: None,
            run: unreported(Ending::Completed, Vec::new()),
            packed: None,
        };
        let outcome = session
            .follow(&job, cancel, allowance.exceeded(), &group.alarm())
            .await;
        if outcome.is_err() {
            // The first process dies with the launcher, and with it everything inside.
            group.kill();
            let _ = child.start_kill();
        }
        let status = timeout(KILL_TIME, child.wait()).await;
        let (evidence, group_layers) = (group.evidence(), group.layers());
        let closed = tokio::task::spawn_blocking(move || group.close()).await;
        let mut run = session.run;
        match outcome {
            Ok(()) if matches!(status, Ok(Ok(status)) if status.success()) => {}
            Ok(()) => {
                let problem = "the launcher did not end as it should".to_owned();
                return Err(SandboxError::Lost(problem));
            }
            // The kernel kills the whole group, or chooses the launcher or the first process: nobody is left to report.
            Err(SandboxError::Lost(_)) if evidence.oom_kills > 0 => {
                run.ending = Ending::OutOfMemory(evidence.oom_kills);
            }
            Err(error) => return Err(error),
        }
        if let Err(error) = closed.map_err(io::Error::other).flatten() {
            let problem = format!("its control group could not be emptied: {error}");
            return Err(SandboxError::Lost(problem));
        }
        let (stdout, stderr) = tokio::join!(
            collect(stdout, stop_draining.clone()),
            collect(stderr, stop_draining.clone())
        );
        let packed = timeout(DRAIN_TIME, workspace).await;
        run.workspace = match packed {
            Ok(Ok(Ok(archive))) if is_whole(&archive, session.packed, most) => Some(archive),
            _ => None,
        };
        run.ending = match run.ending {
            Ending::Completed | Ending::TimedOut | Ending::OutOfMemory(_)
                if evidence.oom_kills > 0 =>
            {
                Ending::OutOfMemory(evidence.oom_kills)
            }
            Ending::ProcessLimit(_) => Ending::ProcessLimit(evidence.refused_processes),
            // The last bytes may have been read after the programs had ended.
            Ending::Completed if allowance.exceeded().is_cancelled() => Ending::OutputLimit,
            ending => ending,
        };
        (run.stdout, run.stderr) = (stdout, stderr);
        run.digests.view = view;
        run.layers.extend(group_layers);
        run.layers.sort_unstable();
        run.take_account(&evidence);
        Ok(run)
    }

    /// What is shown of the host, and the digest of it; none: its system directories.
    async fn show(&self, view: &View) -> io::Result<(Option<Shown>, Option<String>)> {
        let View::Granted(granted) = view else {
            return Ok((None, None));
        };
        let (closures, granted) = (Arc::clone(&self.closures), granted.clone());
        // Files are read on a thread that may block.
        let resolved = tokio::task::spawn_blocking(move || closures.resolve(&granted)).await;
        let (shown, digest) = resolved.map_err(io::Error::other)??;
        Ok((Some(shown), Some(digest)))
    }

    async fn launch(&self, job: &Job, shown: Option<Shown>) -> io::Result<Launched> {
        let (ours, theirs) = StdUnixStream::pair()?;
        let (stdout, stdout_end) = io::pipe()?;
        let (stderr, stderr_end) = io::pipe()?;
        if let Some((uid, gid)) = self.identity {
            // So that programs can open /dev/stdout and /dev/stderr, which are these pipes.
            fchown(&stdout_end, Some(uid), Some(gid))?;
            fchown(&stderr_end, Some(uid), Some(gid))?;
        }
        let mut command = Command::new(&self.launcher);
        command
            // Programs can read it as the command line of their first process: no path of the host.
            .arg0("octollm-executor")
            .arg(SUBCOMMAND)
            .env_clear()
            .current_dir("/")
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::from(stdout_end))
            .stderr(Stdio::from(stderr_end))
            .kill_on_drop(true);
        let child = self.spawner.spawn(command).await?;
        // Until it has its order the launcher does nothing, so nothing of the step happens outside of the group.
        let process = child.id().ok_or_else(|| io::Error::other("it has ended"))?;
        let (groups, limits) = (Arc::clone(&self.groups), job.limits);
        let enclosed = tokio::task::spawn_blocking(move || groups.enclose(process, &limits));
        let group = enclosed.await.map_err(io::Error::other).flatten();
        let group = group.map_err(|error| {
            io::Error::new(
                error.kind(),
                format!("put it into a control group: {error}"),
            )
        })?;
        let archive = job.workspace.clone();
        let archive = tokio::task::spawn_blocking(move || sealed_memory(c"workspace", &archive));
        let archive = archive.await.map_err(io::Error::other).flatten()?;
        let (workspace, packed) = io::pipe()?;
        hand_over(&ours, [archive.as_fd(), packed.as_fd()])?;
        drop(packed);
        ours.set_nonblocking(true)?;
        let (reports, mut hang_up) = UnixStream::from_std(ours)?.into_split();
        let order = Order {
            parent: std::process::id().cast_signed(),
            identity: self.identity,
            shown,
            stages: job.stages.clone(),
            environment: job.environment.clone(),
            cwd: job.cwd.clone(),
            script: job.script.clone(),
            stdin: job.stdin.as_ref().map(|content| BASE64.encode(content)),
            redirect: job.redirect.clone(),
            limits: self.groups.remainder(&job.limits),
            degraded: self.degraded,
        };
        hang_up.write_all(&encode(&order)?).await?;
        Ok(Launched {
            child,
            reports: BufReader::new(reports).lines(),
            hang_up,
            stdout: Receiver::from_owned_fd(stdout.into())?,
            stderr: Receiver::from_owned_fd(stderr.into())?,
            workspace: Receiver::from_owned_fd(workspace.into())?,
            group,
        })
    }
}

impl Sandbox for Namespace {
    fn run<'a>(
        &'a self,
        job: Job,
        cancel: &'a CancellationToken,
    ) -> BoxFuture<'a, Result<Run, SandboxError>> {
        Box::pin(self.run_job(job, cancel))
    }
}

/// Sends descriptors ahead of the order. The byte that carries them always fits into a fresh socket.
fn hand_over(socket: &StdUnixStream, descriptors: [BorrowedFd; 2]) -> io::Result<()> {
    let descriptors = descriptors.map(|descriptor| descriptor.as_raw_fd());
    let rights = [ControlMessage::ScmRights(&descriptors)];
    let byte = [IoSlice::new(&[0])];
    sendmsg::<()>(
        socket.as_raw_fd(),
        &byte,
        &rights,
        MsgFlags::MSG_NOSIGNAL,
        None,
    )?;
    Ok(())
}

/// Reads the archive to its end, or up to `most` bytes.
async fn read_archive(archive: Receiver, most: u64) -> io::Result<Bytes> {
    let mut content = Vec::new();
    archive.take(most).read_to_end(&mut content).await?;
    Ok(content.into())
}

/// Whether all of it came: as much as process 1 has packed, or more than a workspace may hold, which is not read to its
/// end.
fn is_whole(archive: &Bytes, packed: Option<u64>, most: u64) -> bool {
    let read = archive.len() as u64;
    packed == Some(read) || read == most
}

fn unavailable(error: io::Error) -> SandboxError {
    SandboxError::Unavailable(format!("start the launcher: {error}"))
}

struct Launched {
    child: Child,
    reports: Lines<BufReader<OwnedReadHalf>>,
    /// Dropping it is the request to kill everything.
    hang_up: tokio::net::unix::OwnedWriteHalf,
    stdout: Receiver,
    stderr: Receiver,
    workspace: Receiver,
    group: Group,
}

/// A run of which nothing has been reported yet, or will be.
fn unreported(ending: Ending, layers: Vec<Layer>) -> Run {
    Run {
        ending,
        stages: Vec::new(),
        stdout: Captured::empty(),
        stderr: Captured::empty(),
        usage: Usage::default(),
        refused_processes: 0,
        workspace: None,
        peaks: Peaks::default(),
        denials: Vec::new(),
        layers,
        digests: Digests::default(),
    }
}

impl Run {
    /// Adds what the control group has seen.
    fn take_account(&mut self, evidence: &Evidence) {
        if let Some(peak) = evidence.memory_peak_bytes {
            self.usage.memory_peak_bytes = peak;
        }
        if self.usage.cpu.is_zero() {
            self.usage.cpu = evidence.cpu.unwrap_or_default();
        }
        self.refused_processes = evidence.refused_processes;
        self.peaks.memory_bytes = self.usage.memory_peak_bytes;
        self.peaks.processes = evidence.processes_peak;
        self.peaks.cpu = self.usage.cpu;
        self.denials.extend(evidence.denials());
    }
}

/// The conversation with one launcher.
struct Session {
    reports: Lines<BufReader<OwnedReadHalf>>,
    hang_up: Option<tokio::net::unix::OwnedWriteHalf>,
    /// Why we hung up, if we did.
    ending: Option<Ending>,
    /// What has been reported.
    run: Run,
    /// Bytes of the workspace that came out.
    packed: Option<u64>,
}

impl Session {
    /// Follows the launcher until nothing of the job is left.
    async fn follow(
        &mut self,
        job: &Job,
        cancel: &CancellationToken,
        too_much_output: &CancellationToken,
        alarm: &Alarm,
    ) -> Result<(), SandboxError> {
        (self.run.layers, self.run.digests) = self.set_up().await?;
        let started = Instant::now();
        let mut confirmed_by = None;
        loop {
            let deadline = confirmed_by.unwrap_or(started + job.limits.wall);
            tokio::select! {
                biased;
                report = self.report() => match report? {
                    Report::Ended { stages, cpu_us, memory_peak_bytes, denials } => {
                        self.run.denials = denials;
                        self.run.stages = stages.into_iter().map(|exit| exit.unwrap_or(StageExit::Signal(9))).collect();
                        self.run.usage = Usage {
                            duration: started.elapsed(),
                            cpu: Duration::from_micros(cpu_us),
                            memory_peak_bytes,
                        };
                        // The wall clock is the programs'; what is left to do is packing the workspace.
                        confirmed_by.get_or_insert(Instant::now() + PACK_TIME);
                    }
                    Report::Packed(packed) => {
                        let packed = packed.inspect_err(|problem| tracing::warn!(problem, "a workspace was not packed"));
                        self.packed = packed.ok();
                    }
                    Report::NotStarted(problem) => {
                        self.run.usage.duration = started.elapsed();
                        self.ending.get_or_insert(Ending::NotStarted(problem));
                    }
                    Report::Gone { written_bytes } => {
                        self.run.peaks.written_bytes = written_bytes;
                        break;
                    }
                    Report::Unavailable(problem) => return Err(SandboxError::Lost(problem)),
                    Report::Ready { .. } => return Err(SandboxError::Lost("the launcher started twice".to_owned())),
                },
                () = cancel.cancelled(), if self.hang_up.is_some() => self.hang_up(Ending::Cancelled),
                () = too_much_output.cancelled(), if self.hang_up.is_some() => self.hang_up(Ending::OutputLimit),
                exhausted = alarm.rings(), if self.hang_up.is_some() => self.hang_up(match exhausted {
                    Exhausted::Memory => Ending::OutOfMemory(0),
                    Exhausted::Processes => Ending::ProcessLimit(0),
                }),
                () = tokio::time::sleep_until(deadline.into()) => match confirmed_by {
                    None => self.hang_up(Ending::TimedOut),
                    Some(_) => return Err(SandboxError::Lost("its processes could not be killed".to_owned())),
                },
            }
            if self.hang_up.is_none() && confirmed_by.is_none() {
                confirmed_by = Some(Instant::now() + KILL_TIME);
            }
        }
        if self.run.usage.duration.is_zero() {
            self.run.usage.duration = started.elapsed();
        }
        self.run.ending = self.ending.take().unwrap_or(Ending::Completed);
        Ok(())
    }

    async fn set_up(&mut self) -> Result<(Vec<Layer>, Digests), SandboxError> {
        match timeout(SETUP_TIME, self.report()).await {
            Ok(Ok(Report::Ready { layers, digests })) => Ok((layers, digests)),
            Ok(Ok(Report::Unavailable(problem))) => Err(SandboxError::Unavailable(problem)),
            Ok(Ok(other)) => Err(SandboxError::Lost(format!(
                "the launcher said {other:?} before it was ready"
            ))),
            Ok(Err(lost)) => Err(lost),
            // Not unavailable: it may be ready, and its program started, before the kill arrives.
            Err(_) => Err(SandboxError::Lost(format!(
                "the set-up took longer than {SETUP_TIME:?}"
            ))),
        }
    }

    fn hang_up(&mut self, because: Ending) {
        self.hang_up = None;
        self.ending.get_or_insert(because);
    }

    /// The next report. Safe to drop while it waits: a line that was read in part stays in the reader.
    async fn report(&mut self) -> Result<Report, SandboxError> {
        match self.reports.next_line().await {
            Ok(Some(line)) => {
                serde_json::from_str(&line).map_err(|error| SandboxError::Lost(error.to_string()))
            }
            Ok(None) => Err(SandboxError::Lost(
                "the launcher ended without a report".to_owned(),
            )),
            Err(error) => Err(SandboxError::Lost(error.to_string())),
        }
    }
}

/// What was drained. Nobody is left who could hold the output open; if somebody is, they are not waited for.
async fn collect(mut drained: JoinHandle<Captured>, stop: CancellationToken) -> Captured {
    if let Ok(captured) = timeout(DRAIN_TIME, &mut drained).await {
        return captured.unwrap_or_else(|_| Captured::empty());
    }
    stop.cancel();
    drained.await.unwrap_or_else(|_| Captured::empty())
}

/// A thread that starts the launchers. The kernel ends a launcher with the *thread* that started it, and threads of
/// the runtime come and go; this one stays as long as the backend.
#[derive(Debug)]
struct Spawner {
    requests: mpsc::Sender<SpawnRequest>,
}

struct SpawnRequest {
    command: Command,
    runtime: Handle,
    answer: oneshot::Sender<io::Result<Child>>,
}

impl Spawner {
    fn start() -> io::Result<Self> {
        let (requests, queue) = mpsc::channel::<SpawnRequest>();
        std::thread::Builder::new()
            .name("sandbox-spawner".to_owned())
            .spawn(move || {
                for SpawnRequest {
                    mut command,
                    runtime,
                    answer,
                } in queue
                {
                    let _in_runtime = runtime.enter();
                    let spawned = command.spawn();
                    // The command holds our copies of the launcher's ends; the outputs end only when they are closed.
                    drop(command);
                    // Nobody waits any more: the child is dropped, and with it killed.
                    let _ = answer.send(spawned);
                }
            })?;
        Ok(Self { requests })
    }

    async fn spawn(&self, command: Command) -> io::Result<Child> {
        let (answer, spawned) = oneshot::channel();
        let request = SpawnRequest {
            command,
            runtime: Handle::current(),
            answer,
        };
        self.requests
            .send(request)
            .map_err(|_| io::Error::other("the spawner has ended"))?;
        spawned
            .await
            .map_err(|_| io::Error::other("the spawner has ended"))?
    }
}
