//! One step: from its action to what became of it. Knows nothing of the bus.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use octollm_events::carrier::{Effect, ErrorCode, Step};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::action::{Action, Command, FileChange, FileOp, Mode, Script};
use crate::criterion::{Criterion, Evidence, Facts, Target, Verdict};
use crate::http::{Caps, FetchError, Fetcher, Request};
use crate::policy::{Denied, Policy, RequestedLimits};
use crate::sandbox::{
    Captured, Denial, DenialKind, Digests, Ending, HEAD_BYTES, Job, Layer, Limits, Peaks, Program,
    Run, SCRIPT, Sandbox, SandboxError, StageExit, Usage, View, environment_names,
};
use crate::workspace::{ArchiveError, ChangeError, LeftOut, Tree, WorkspacePath};

/// Bytes of a workspace file that a criterion reads, at most.
const CHECKED_FILE_BYTES: usize = 1 << 20;
/// "CPU time limit exceeded" and "file size limit exceeded" (signal(7); the same numbers on x86-64 and AArch64).
const SIGXCPU: u8 = 24;
const SIGXFSZ: u8 = 25;

/// The exit code of a request whose answer is an error.
const REFUSED: u8 = 22;

/// What became of a step.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// None: it ran and met its criteria.
    pub failure: Option<Failure>,
    /// How the last stage ended; none where nothing was started.
    pub exit: Option<StageExit>,
    /// stdout and stderr, unscreened.
    pub output: Option<(Captured, Captured)>,
    /// Verdicts of the acceptance criteria and of a check action, unscreened.
    pub verdicts: Vec<Verdict>,
    /// What it tried and was denied by the sandbox.
    pub denials: Vec<String>,
    /// What it used.
    pub usage: Usage,
    /// Whether anything was started; so, too, where nobody can say.
    pub is_started: bool,
    /// What the sandbox was asked to run, and under which conditions; none where it was not asked.
    pub pipeline: Option<Box<Pipeline>>,
    /// The workspace as it left it, where that is known.
    pub workspace: Option<Arc<Tree>>,
    /// What it left that no workspace holds, unscreened.
    pub left_out: LeftOut,
}

/// What the sandbox was asked to run, and under which conditions.
#[derive(Debug, Clone)]
pub struct Pipeline {
    /// Stage by stage.
    pub programs: Vec<Program>,
    /// Names of the environment's variables.
    pub environment: Vec<String>,
    /// Standard input of the first stage.
    pub stdin: Option<Vec<u8>>,
    /// The limits in force.
    pub limits: Limits,
    /// The layers of isolation that were in force.
    pub layers: Vec<Layer>,
    /// What exactly these enforced.
    pub digests: Digests,
    /// The most that it had; none where nothing was reported.
    pub peaks: Option<Peaks>,
    /// What the kernel denied it.
    pub denials: Vec<Denial>,
}

impl Pipeline {
    fn of(job: &Job) -> Self {
        Self {
            programs: job.stages.clone(),
            environment: environment_names(&job.environment),
            stdin: job.stdin.clone(),
            limits: job.limits,
            layers: Vec::new(),
            digests: Digests::default(),
            peaks: None,
            denials: Vec::new(),
        }
    }
}

/// Why a step did not succeed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// One of the contract's codes.
    pub code: ErrorCode,
    /// What happened and what to do next, unscreened.
    pub message: String,
    /// Rules that were broken, unscreened.
    pub violations: Vec<String>,
}

impl Failure {
    /// A failure without violations.
    #[must_use]
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            violations: Vec::new(),
        }
    }

    fn denied(reason: String) -> Self {
        Self {
            code: ErrorCode::PolicyDenied,
            violations: vec![reason.clone()],
            message: reason,
        }
    }
}

impl Outcome {
    /// Nothing was done.
    #[must_use]
    pub fn refused(failure: Failure) -> Self {
        Self {
            failure: Some(failure),
            exit: None,
            output: None,
            verdicts: Vec::new(),
            denials: Vec::new(),
            usage: Usage::default(),
            is_started: false,
            pipeline: None,
            workspace: None,
            left_out: LeftOut::default(),
        }
    }

    /// The executor's own work (a file action, a check) was done, and has left this workspace.
    fn done(workspace: Arc<Tree>, started: Instant) -> Self {
        let usage = Usage {
            duration: started.elapsed(),
            ..Usage::default()
        };
        let output = Some((Captured::empty(), Captured::empty()));
        Self {
            failure: None,
            exit: Some(StageExit::Code(0)),
            output,
            verdicts: Vec::new(),
            denials: Vec::new(),
            usage,
            is_started: true,
            pipeline: None,
            workspace: Some(workspace),
            left_out: LeftOut::default(),
        }
    }

    /// The workspace that the step has made of this one, if it ended well and has changed it.
    #[must_use]
    pub fn changed(&self, before: &Tree) -> Option<&Arc<Tree>> {
        let left = self.workspace.as_ref();
        left.filter(|left| self.failure.is_none() && left.as_ref() != before)
    }
}

/// A step that may be run.
#[derive(Debug)]
pub struct Assignment {
    action: Action,
    acceptance: Vec<Criterion>,
    limits: RequestedLimits,
    effect: Effect,
    circumstances: Circumstances,
}

/// How a step may differ from one of a task. Only the command line says any of this.
#[derive(Debug, Clone)]
pub struct Circumstances {
    /// Variables besides the sandbox's own.
    pub environment: Vec<(String, String)>,
    /// The working directory; none is the workspace itself.
    pub cwd: Option<WorkspacePath>,
    /// Whether programs are started whatever the policy says of them. The limits hold nevertheless.
    pub is_unlisted: bool,
    /// Bytes kept of the start of each output.
    pub head_bytes: usize,
}

impl Default for Circumstances {
    fn default() -> Self {
        Self {
            environment: Vec::new(),
            cwd: None,
            is_unlisted: false,
            head_bytes: HEAD_BYTES,
        }
    }
}

impl Assignment {
    /// An action that is already parsed.
    #[must_use]
    pub fn new(action: Action, limits: RequestedLimits, circumstances: Circumstances) -> Self {
        Self {
            action,
            acceptance: Vec::new(),
            limits,
            // Nobody tries it again, so nothing may be taken for repeatable.
            effect: Effect::SideEffecting,
            circumstances,
        }
    }

    /// Parses what is to be done.
    ///
    /// # Errors
    /// `INVALID_REQUEST`: the action or a criterion breaks the contract.
    pub fn parse(step: &Step) -> Result<Self, Failure> {
        let invalid = |problem: String| Failure::new(ErrorCode::InvalidRequest, problem);
        let action = json(&step.action)?;
        let acceptance = json(&step.acceptance)?;
        Ok(Self {
            action: Action::parse(&action).map_err(|error| invalid(error.to_string()))?,
            acceptance: serde_json::from_value(acceptance).map_err(|error| {
                invalid(format!("an acceptance criterion is not valid: {error}"))
            })?,
            limits: RequestedLimits::of(
                step.limits.wall_ms,
                step.limits.memory_bytes,
                step.limits.output_bytes,
            ),
            effect: step.effect,
            circumstances: Circumstances::default(),
        })
    }

    /// The earlier steps whose recorded stdout its criteria read.
    pub fn recalled_steps(&self) -> impl Iterator<Item = &str> {
        self.criteria().filter_map(Criterion::step)
    }

    /// Whether it changes anything: a check only looks.
    #[must_use]
    pub fn has_effects(&self) -> bool {
        !matches!(self.action, Action::Check(_))
    }

    fn criteria(&self) -> impl Iterator<Item = &Criterion> {
        let own: &[Criterion] = match &self.action {
            Action::Check(check) => &check.criteria,
            Action::Command(_) | Action::Script(_) | Action::File(_) | Action::Http(_) => &[],
        };
        own.iter().chain(&self.acceptance)
    }
}

/// The step's parts as plain JSON.
fn json(part: &impl serde::Serialize) -> Result<Value, Failure> {
    serde_json::to_value(part)
        .map_err(|error| Failure::new(ErrorCode::InvalidRequest, error.to_string()))
}

/// Recorded stdout of earlier steps, by step id.
pub type Recorded = HashMap<String, Evidence>;

/// Runs steps.
pub struct Executor {
    policy: Policy,
    sandbox: Arc<dyn Sandbox>,
    fetcher: Fetcher,
}

impl Executor {
    /// An executor of this policy over this sandbox.
    #[must_use]
    pub fn new(policy: Policy, sandbox: Arc<dyn Sandbox>) -> Self {
        Self {
            policy,
            sandbox,
            fetcher: Fetcher::default(),
        }
    }

    /// Makes requests by `fetcher` instead.
    #[must_use]
    pub fn with_fetcher(mut self, fetcher: Fetcher) -> Self {
        self.fetcher = fetcher;
        self
    }

    /// Runs a step to its end; never fails, the outcome says what did. When this returns, no process of it is left.
    pub async fn execute(
        &self,
        assignment: Assignment,
        workspace: Arc<Tree>,
        recorded: Recorded,
        cancel: &CancellationToken,
    ) -> Outcome {
        let started = Instant::now();
        let limits = match self.policy.permit_limits(&assignment.limits) {
            Ok(limits) => limits,
            Err(denial) => return Outcome::refused(Failure::denied(denial.to_string())),
        };
        let kind = match &assignment.action {
            Action::Command(_) => "command",
            Action::Script(_) => "script",
            Action::File(_) => "file",
            Action::Http(_) => "http",
            Action::Check(_) => "check",
        };
        let unapproved = self.policy.permit_unapproved(kind);
        if let Err(denial) = unapproved
            && !assignment.circumstances.is_unlisted
        {
            return Outcome::refused(Failure::denied(denial.to_string()));
        }
        let outcome = match &assignment.action {
            Action::Command(command) => match self.admit(command, &assignment.circumstances) {
                Ok(admitted) => {
                    self.pipeline(command, admitted, &assignment, limits, &workspace, cancel)
                        .await
                }
                Err(denial) => Outcome::refused(Failure::denied(denial.to_string())),
            },
            Action::Script(script) => match self.admit_script(script, &assignment.circumstances) {
                Ok((command, admitted)) => {
                    self.pipeline(&command, admitted, &assignment, limits, &workspace, cancel)
                        .await
                }
                Err(denial) => Outcome::refused(Failure::denied(denial.to_string())),
            },
            Action::File(change) => file(change, &workspace, &limits, started),
            Action::Http(request) => {
                self.request(request, &assignment, limits, &workspace, cancel)
                    .await
            }
            Action::Check(_) => Outcome::done(workspace, started),
        };
        match outcome.failure {
            Some(_) => outcome,
            None => check(outcome, assignment, recorded).await,
        }
    }

    async fn request(
        &self,
        request: &Request,
        assignment: &Assignment,
        limits: Limits,
        workspace: &Arc<Tree>,
        cancel: &CancellationToken,
    ) -> Outcome {
        let started = Instant::now();
        let caps = Caps {
            wall: limits.wall,
            bytes: match request.save {
                Some(_) => limits.file_bytes,
                None => limits.output_bytes,
            },
        };
        let hosts = self.policy.hosts();
        let fetched = match self.fetcher.fetch(request, hosts, caps, cancel).await {
            Ok(fetched) => fetched,
            Err(error) => {
                return Outcome {
                    // What is denied or unreachable has been told nothing.
                    is_started: !matches!(
                        error,
                        FetchError::Denied(_) | FetchError::Unreachable(_)
                    ),
                    ..Outcome::refused(unanswered(&error, request, assignment.effect))
                };
            }
        };
        let shown = match request.save {
            Some(_) => &[],
            None => fetched.body.as_slice(),
        };
        let head_bytes = assignment.circumstances.head_bytes;
        let output = (
            Captured::of(shown, head_bytes),
            Captured::of(fetched.head.as_bytes(), head_bytes),
        );
        let mut after = Arc::clone(workspace);
        if let Some(path) = &request.save {
            let op = FileOp::Write {
                content: fetched.body,
                mode: Mode::FILE,
            };
            let path = path.clone();
            match file(&FileChange { path, op }, workspace, &limits, started) {
                Outcome {
                    failure: None,
                    workspace: Some(saved),
                    ..
                } => after = saved,
                failed => return failed,
            }
        }
        // As curl says it with --fail: 22 is an answer that is an error.
        let exit = StageExit::Code(if fetched.status < 400 { 0 } else { REFUSED });
        let is_judged = assignment.acceptance.iter().any(Criterion::is_exit_code);
        let failure = (!exit.is_success() && !is_judged).then(|| {
            let status = fetched.status;
            let message = format!("the answer's status is {status}; read the output");
            Failure::new(ErrorCode::StepFailed, message)
        });
        Outcome {
            failure,
            exit: Some(exit),
            output: Some(output),
            ..Outcome::done(after, started)
        }
    }

    /// What may be started and seen for a command.
    fn admit(&self, command: &Command, circumstances: &Circumstances) -> Result<Admitted, Denied> {
        if circumstances.is_unlisted {
            return Ok(Admitted::unlisted(command));
        }
        let permit = self.policy.permit(command)?;
        Ok(Admitted {
            stages: permit.stages,
            view: View::Granted(permit.view),
            script: None,
        })
    }

    /// The same for a script, and the command that runs it.
    fn admit_script(
        &self,
        script: &Script,
        circumstances: &Circumstances,
    ) -> Result<(Command, Admitted), Denied> {
        let run = |words: &mut dyn Iterator<Item = String>| Command {
            pipeline: vec![words.chain([SCRIPT.to_owned()]).collect()],
            stdin: script.stdin.clone(),
            redirect: None,
        };
        let (command, admitted) = if circumstances.is_unlisted {
            let interpreter = script.lang.interpreter();
            let command = run(&mut interpreter.iter().map(|&word| word.to_owned()));
            let admitted = Admitted::unlisted(&command);
            (command, admitted)
        } else {
            let lang = script.lang.as_str();
            let permit = self.policy.permit_script(lang)?;
            let name = lang.to_owned();
            let command = run(&mut std::iter::once(name).chain(permit.arguments));
            let admitted = Admitted {
                stages: vec![Program {
                    path: permit.program,
                    argv: command.pipeline[0].clone(),
                }],
                view: View::Granted(permit.view),
                script: None,
            };
            (command, admitted)
        };
        let script = Some(script.source.clone());
        Ok((command, Admitted { script, ..admitted }))
    }

    async fn pipeline(
        &self,
        command: &Command,
        admitted: Admitted,
        assignment: &Assignment,
        limits: Limits,
        workspace: &Arc<Tree>,
        cancel: &CancellationToken,
    ) -> Outcome {
        let Admitted {
            stages,
            view,
            script,
        } = admitted;
        let Circumstances {
            environment,
            cwd,
            head_bytes,
            ..
        } = assignment.circumstances.clone();
        let job = Job {
            workspace: if workspace.is_empty() {
                Bytes::new()
            } else {
                workspace.to_tar()
            },
            view,
            stages,
            environment,
            cwd,
            script,
            stdin: command.stdin.clone().map(String::into_bytes),
            redirect: command.redirect.clone(),
            limits,
            head_bytes,
        };
        let pipeline = Pipeline::of(&job);
        match self.sandbox.run(job, cancel).await {
            Ok(mut run) => {
                let left = run.workspace.take();
                let outcome = ran(run, command, pipeline, &assignment.acceptance);
                left_behind(outcome, left, workspace, &limits).await
            }
            Err(error) => {
                let (code, is_started) = match error {
                    SandboxError::Unavailable(_) => (ErrorCode::SandboxUnavailable, false),
                    SandboxError::Lost(_) => (ErrorCode::InternalError, true),
                };
                Outcome {
                    is_started,
                    pipeline: Some(Box::new(pipeline)),
                    ..Outcome::refused(Failure::new(code, error.to_string()))
                }
            }
        }
    }
}

/// What a request without an answer comes to. One that may have had its effect is left to a person.
fn unanswered(error: &FetchError, request: &Request, effect: Effect) -> Failure {
    let is_unknown = effect == Effect::SideEffecting && !request.method.is_safe();
    let code = match error {
        FetchError::Denied(reason) => return Failure::denied(reason.clone()),
        FetchError::Unreachable(_) => ErrorCode::StepFailed,
        FetchError::TooLarge(_) => ErrorCode::OutputLimit,
        FetchError::Cancelled => ErrorCode::Cancelled,
        FetchError::Lost(_) | FetchError::TimedOut(_) if is_unknown => ErrorCode::UnknownOutcome,
        FetchError::Lost(_) => ErrorCode::StepFailed,
        FetchError::TimedOut(_) => ErrorCode::Timeout,
    };
    Failure::new(code, format!("{} {error}", request.method))
}

/// What may be started, and what it sees.
struct Admitted {
    stages: Vec<Program>,
    view: View,
    script: Option<String>,
}

impl Admitted {
    /// Whoever goes round the list goes round what it lets be seen.
    fn unlisted(command: &Command) -> Self {
        let stages = command.pipeline.iter();
        Self {
            stages: stages.map(|argv| Program::look_up(argv)).collect(),
            view: View::System,
            script: None,
        }
    }
}

/// Reads the end of a pipeline. The last stage decides, as in a shell; earlier ones that failed are named.
fn ran(run: Run, command: &Command, mut pipeline: Pipeline, acceptance: &[Criterion]) -> Outcome {
    let limits = &pipeline.limits;
    let exit = run.stages.last().copied();
    let wall = limits.wall.as_millis();
    let failure = match &run.ending {
        Ending::NotStarted(reason) => Some(Failure::new(
            ErrorCode::StepFailed,
            format!("the pipeline could not be started: {reason}"),
        )),
        Ending::TimedOut => Some(Failure::new(
            ErrorCode::Timeout,
            format!(
                "the step ran longer than {wall} ms and was killed; raise limits.wall_ms, or do less"
            ),
        )),
        Ending::OutputLimit => Some(Failure::new(
            ErrorCode::OutputLimit,
            format!(
                "the step wrote more than {} bytes and was killed; redirect the output into a file",
                limits.output_bytes
            ),
        )),
        Ending::OutOfMemory(kills) => Some(Failure::new(
            ErrorCode::OomKilled,
            format!(
                "the step used up its {} bytes of memory (all processes, /work, /tmp and /dev/shm together) and the kernel killed \
                 {kills} of its processes (oom_kill {kills}); raise limits.memory_bytes, or do less",
                limits.memory_bytes
            ),
        )),
        Ending::ProcessLimit(refused) => Some(Failure::new(
            ErrorCode::PidsLimit,
            format!(
                "the step may have {} processes at once, {refused} more were refused and it was killed; start fewer",
                limits.processes
            ),
        )),
        Ending::Cancelled => Some(Failure::new(
            ErrorCode::Cancelled,
            "the task was cancelled and the step was killed",
        )),
        Ending::Completed => {
            let failure =
                exit.and_then(|exit| judge_exit(exit, &run.stages, command, limits, acceptance));
            failure
                .map(|failure| blame_processes(failure, run.refused_processes, limits))
                .map(|failure| blame_disk(failure, &run.denials))
        }
    };
    let is_ours = matches!(
        run.ending,
        Ending::TimedOut
            | Ending::OutputLimit
            | Ending::OutOfMemory(_)
            | Ending::ProcessLimit(_)
            | Ending::Cancelled
    );
    let denials: Vec<String> = run.denials.iter().map(Denial::to_string).collect();
    let failure = failure.map(|failure| Failure {
        violations: denials.clone(),
        ..failure
    });
    pipeline.layers = run.layers;
    pipeline.digests = run.digests;
    pipeline.peaks = Some(run.peaks);
    pipeline.denials = run.denials;
    Outcome {
        failure,
        denials,
        // A kill by us says nothing about the program.
        exit: exit.filter(|_| !is_ours),
        output: Some((run.stdout, run.stderr)),
        verdicts: Vec::new(),
        usage: run.usage,
        is_started: !matches!(run.ending, Ending::NotStarted(_)),
        pipeline: Some(Box::new(pipeline)),
        workspace: None,
        left_out: LeftOut::default(),
    }
}

/// Reads the workspace that the programs left. A pipeline that ended by itself and left none that can be had has failed.
async fn left_behind(
    mut outcome: Outcome,
    archive: Option<Bytes>,
    before: &Arc<Tree>,
    limits: &Limits,
) -> Outcome {
    let caps = limits.workspace;
    let read = match archive {
        // Nothing before and nothing now: most steps that only print.
        Some(archive) if archive.is_empty() && before.is_empty() => {
            outcome.workspace = Some(Arc::clone(before));
            return outcome;
        }
        Some(archive) => {
            tokio::task::spawn_blocking(move || Tree::from_tar(&*archive, &caps)).await
        }
        None if outcome.failure.is_some() => return outcome,
        None => {
            let message =
                "the workspace that the step left could not be packed; run the step again";
            outcome.failure = Some(Failure::new(ErrorCode::InternalError, message));
            return outcome;
        }
    };
    let failure = match read {
        Ok(Ok((tree, left_out))) => {
            outcome.workspace = Some(Arc::new(tree));
            outcome.left_out = left_out;
            return outcome;
        }
        Ok(Err(ArchiveError::Excess(excess))) => {
            let message = format!("{excess}; write less, or fewer hard links");
            Failure::new(ErrorCode::DiskLimit, message)
        }
        Ok(Err(error)) => {
            let message = format!("the workspace that came out of the sandbox is refused: {error}");
            Failure::new(ErrorCode::SandboxViolation, message)
        }
        Err(error) => {
            let message = format!("the workspace that the step left was lost: {error}");
            Failure::new(ErrorCode::InternalError, message)
        }
    };
    outcome.failure.get_or_insert(failure);
    outcome
}

/// A step that failed and has left a file system full most likely failed of it.
fn blame_disk(failure: Failure, denials: &[Denial]) -> Failure {
    let full = denials
        .iter()
        .find(|denial| denial.kind == DenialKind::Disk);
    let Some(full) = full.filter(|_| failure.code == ErrorCode::StepFailed) else {
        return failure;
    };
    Failure::new(
        ErrorCode::DiskLimit,
        format!("{}: {}", full.detail, failure.message),
    )
}

/// A step that failed after it was refused processes most likely failed of it.
fn blame_processes(failure: Failure, refused: u64, limits: &Limits) -> Failure {
    if refused == 0 || failure.code != ErrorCode::StepFailed {
        return failure;
    }
    Failure::new(
        ErrorCode::PidsLimit,
        format!(
            "the step may have {} processes at once, and more were refused {refused} times (pids.events max {refused}): {}",
            limits.processes, failure.message
        ),
    )
}

fn judge_exit(
    exit: StageExit,
    stages: &[StageExit],
    command: &Command,
    limits: &Limits,
    acceptance: &[Criterion],
) -> Option<Failure> {
    match exit {
        StageExit::Signal(SIGXFSZ) => Some(Failure::new(
            ErrorCode::DiskLimit,
            format!("a file grew past {} bytes; write less", limits.file_bytes),
        )),
        StageExit::Signal(SIGXCPU) => Some(Failure::new(
            ErrorCode::Timeout,
            format!(
                "a process used more than {} s of CPU time; do less",
                limits.cpu_seconds
            ),
        )),
        StageExit::Code(0) => None,
        // The acceptance criteria decide about other exit codes where they speak of them.
        StageExit::Code(_) if acceptance.iter().any(Criterion::is_exit_code) => None,
        StageExit::Code(_) | StageExit::Signal(_) => {
            let failed = stages
                .iter()
                .enumerate()
                .filter(|(_, exit)| !exit.is_success());
            let named = failed.map(|(index, exit)| {
                let program = command
                    .pipeline
                    .get(index)
                    .and_then(|argv| argv.first())
                    .map_or("", String::as_str);
                match exit {
                    StageExit::Code(code) => format!(
                        "{program} (stage {}) ended with exit code {code}",
                        index + 1
                    ),
                    StageExit::Signal(signal) => {
                        format!(
                            "{program} (stage {}) was ended by signal {signal}",
                            index + 1
                        )
                    }
                }
            });
            let named = named.collect::<Vec<_>>().join(", ");
            Some(Failure::new(
                ErrorCode::StepFailed,
                format!("{named}; read its stderr"),
            ))
        }
    }
}

fn file(change: &FileChange, before: &Tree, limits: &Limits, started: Instant) -> Outcome {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = now.unwrap_or_default().as_secs();
    match before.apply(change, now, &limits.workspace) {
        Ok(after) => Outcome::done(Arc::new(after), started),
        Err(error) => {
            let code = match error {
                ChangeError::Excess(_) => ErrorCode::DiskLimit,
                ChangeError::Unsuitable { .. } => ErrorCode::StepFailed,
            };
            let message = format!("the file action failed: {error}");
            Outcome {
                is_started: true,
                ..Outcome::refused(Failure::new(code, message))
            }
        }
    }
}

/// Checks the criteria of a step that ended well so far. All must hold.
async fn check(mut outcome: Outcome, assignment: Assignment, recorded: Recorded) -> Outcome {
    if assignment.criteria().next().is_none() {
        return outcome;
    }
    let started = Instant::now();
    let facts = StepFacts {
        stdout: outcome
            .output
            .as_ref()
            .map_or(Evidence::Whole(Vec::new()), |(stdout, _)| {
                stdout.clone().into()
            }),
        exit: outcome.exit,
        workspace: outcome.workspace.clone().unwrap_or_default(),
        recorded,
    };
    // Files are read and expressions matched on a thread that may block.
    let checked = tokio::task::spawn_blocking(move || {
        assignment
            .criteria()
            .map(|criterion| criterion.check(&facts))
            .collect::<Vec<_>>()
    });
    match checked.await {
        Ok(verdicts) => {
            let failed: Vec<&Verdict> = verdicts.iter().filter(|verdict| !verdict.passed).collect();
            outcome.failure = failed.first().map(|first| {
                let others = match failed.len() {
                    1 => String::new(),
                    count => format!(" ({} more failed)", count - 1),
                };
                let what = first.criterion.describe();
                Failure::new(
                    ErrorCode::StepFailed,
                    format!("not met: {what}: {}{others}", first.detail),
                )
            });
            outcome.verdicts = verdicts;
        }
        Err(error) => {
            outcome.failure = Some(Failure::new(
                ErrorCode::InternalError,
                format!("the checks were lost: {error}"),
            ));
        }
    }
    outcome.usage.duration += started.elapsed();
    outcome
}

impl From<Captured> for Evidence {
    fn from(captured: Captured) -> Self {
        if captured.is_truncated() {
            Self::Excerpt {
                head: captured.head,
                tail: captured.tail,
            }
        } else {
            Self::Whole([captured.head, captured.tail].concat())
        }
    }
}

struct StepFacts {
    stdout: Evidence,
    exit: Option<StageExit>,
    workspace: Arc<Tree>,
    recorded: Recorded,
}

impl Facts for StepFacts {
    fn evidence(&self, target: &Target) -> Result<Evidence, String> {
        match target {
            Target::OwnStdout => Ok(self.stdout.clone()),
            Target::File(path) => {
                let read = self.workspace.read(path, CHECKED_FILE_BYTES);
                read.map(|content| Evidence::Whole(content.into()))
                    .map_err(|error| error.to_string())
            }
            Target::Step(id) => self
                .recorded
                .get(id)
                .cloned()
                .ok_or_else(|| format!("step {id} has no output on record")),
        }
    }

    fn exit_code(&self) -> Option<u8> {
        match self.exit {
            Some(StageExit::Code(code)) => Some(code),
            Some(StageExit::Signal(_)) | None => None,
        }
    }

    fn exists(&self, path: &WorkspacePath) -> bool {
        self.workspace.exists(path)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn refused_processes_explain_a_failure_and_nothing_else() {
        let limits = Limits {
            wall: Duration::from_secs(1),
            cpu_seconds: 1,
            memory_bytes: 1,
            processes: 7,
            open_files: 1,
            file_bytes: 1,
            tmp_bytes: 1,
            workspace: crate::workspace::Caps::default(),
            output_bytes: 1,
        };
        let failed = |code| Failure::new(code, "sort (stage 1) ended with exit code 2");
        let blamed = |code, refused| blame_processes(failed(code), refused, &limits);
        let told = blamed(ErrorCode::StepFailed, 3);
        assert_eq!(told.code, ErrorCode::PidsLimit);
        for said in ["7 processes", "max 3", "sort (stage 1)"] {
            assert!(told.message.contains(said), "{}", told.message);
        }
        assert_eq!(blamed(ErrorCode::StepFailed, 0).code, ErrorCode::StepFailed);
        assert_eq!(blamed(ErrorCode::DiskLimit, 3).code, ErrorCode::DiskLimit);
    }
}
