//! The command line of `octo exec`.

use std::error::Error;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, ValueEnum};
use nix::unistd::{Gid, Uid, geteuid};
use octollm_events::carrier::ErrorCode;
use octollm_events::config;
use octollm_events::service::stop_signal;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use super::answer::{Answer, Refusal};
use super::engine::{Admission, Engine};
use super::notary::{Asked, Notary};
use super::request::{MAX_REQUEST_BYTES, Request};
use super::space::{Space, TaskName};
use crate::policy::Policy;
use crate::receipt::Terms;
use crate::sandbox::namespace::{Namespace, Owner};
use crate::service::settings::Settings;
use crate::step::Outcome;

/// Run one action in the sandbox, without broker or planner.
///
/// Reads a request (JSON) and prints one JSON document; messages go to stderr. Exits with 0 if the action did what it
/// should, 1 if it did not, 2 if the request is broken, 3 if the policy denies it, 75 if there is no sandbox.
#[derive(Debug, Args)]
pub struct Arguments {
    /// What isolates the programs.
    #[arg(long, value_enum, default_value = "namespace")]
    backend: Backend,
    /// The request; - is stdin.
    #[arg(long, value_name = "FILE")]
    request: PathBuf,
    /// A policy in the place of the one that is configured.
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Work in the workspace of this name, which stays; calls of one name follow each other.
    #[arg(long, value_name = "ID")]
    task: Option<TaskName>,
    /// Start programs that the policy does not list: the sandbox alone has to hold them.
    #[arg(long)]
    bypass_policy: bool,
    /// Where the workspaces of tasks (exec) and the key that signs receipts (keys) are kept. Without it that of the local stack.
    #[arg(long, value_name = "DIRECTORY")]
    data_dir: Option<PathBuf>,
}

/// What isolates the programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Backend {
    /// Linux namespaces, without a daemon.
    Namespace,
    /// A container of the Docker Engine.
    Docker,
}

/// The one key of section `[stack]` that matters here. The stack itself looks after the others.
#[derive(Deserialize)]
struct StackSettings {
    #[serde(default = "data_dir")]
    data_dir: PathBuf,
}

fn data_dir() -> PathBuf {
    PathBuf::from(".octo")
}

/// Runs the command.
#[must_use]
pub fn main(arguments: Arguments) -> ExitCode {
    // Before the signals are watched: Ctrl-C ends who still waits for the request.
    let answer = read(&arguments.request)
        .and_then(|text| Request::parse(&text))
        .and_then(|request| run(arguments, request));
    print(&answer.unwrap_or_else(Answer::from))
}

fn run(arguments: Arguments, request: Request) -> Result<Answer, Refusal> {
    let internal = |error: io::Error| broken(ErrorCode::InternalError, &error);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(internal)?;
    let answer = runtime.block_on(async {
        let stop = stop_signal().map_err(internal)?;
        vouched(arguments, request, &stop).await
    });
    // Whoever waits for another call's lock is not waited for.
    runtime.shutdown_background();
    answer
}

/// Answers a command line that can't be understood.
#[must_use]
pub fn misused(misused: &clap::Error) -> ExitCode {
    print(&broken(ErrorCode::InvalidRequest, misused).into())
}

/// The answer with its receipt, a refusal's too. Where policy or key can't be had there is none, and nothing is run.
async fn vouched(
    arguments: Arguments,
    request: Request,
    stop: &CancellationToken,
) -> Result<Answer, Refusal> {
    let invalid = |error: &dyn Error| broken(ErrorCode::InvalidRequest, error);
    let settings: Settings = config::load("executor").map_err(|error| invalid(&error))?;
    let policy = arguments.policy.as_ref().or(settings.policy.as_ref());
    let policy = Policy::load(policy.map(PathBuf::as_path)).map_err(|error| invalid(&error))?;
    let directory = match &arguments.data_dir {
        Some(directory) => directory.clone(),
        None => {
            config::load::<StackSettings>("stack")
                .map_err(|error| invalid(&error))?
                .data_dir
        }
    };
    let terms = Terms {
        policy: policy.digest().to_owned(),
        is_policy_bypassed: arguments.bypass_policy,
        is_degraded_allowed: settings.sandbox_degraded,
    };
    let key = settings.receipt_key_file.clone();
    let notary = Notary::open(
        &key.unwrap_or_else(|| directory.join("keys").join("receipt.key")),
        terms,
    )?;
    let asked = Asked::of(&request);
    let answered = answer(arguments, &settings, policy, &directory, request, stop).await;
    let (answer, outcome) = answered.unwrap_or_else(Refusal::told);
    notary.sign(answer, &outcome, &asked)
}

async fn answer(
    arguments: Arguments,
    settings: &Settings,
    policy: Policy,
    directory: &Path,
    request: Request,
    stop: &CancellationToken,
) -> Result<(Answer, Outcome), Refusal> {
    if arguments.backend == Backend::Docker {
        let problem = "this build has no backend docker; use --backend namespace";
        return Err(Refusal::new(ErrorCode::SandboxUnavailable, problem));
    }
    let owner = geteuid().is_root().then(|| Owner {
        uid: Uid::from_raw(settings.sandbox_uid),
        gid: Gid::from_raw(settings.sandbox_gid),
    });
    let sandbox = Namespace::new(PathBuf::from("/proc/self/exe"), owner)
        .map_err(|error| broken(ErrorCode::SandboxUnavailable, &error))?;
    let engine = Engine::new(
        policy,
        Arc::new(sandbox.degraded(settings.sandbox_degraded)),
    );
    let admission = if arguments.bypass_policy {
        eprintln!("octo exec: the policy is bypassed; only the sandbox holds the programs");
        Admission::Unlisted
    } else {
        Admission::Listed
    };
    let task = arguments.task;
    let directory = directory.join("exec");
    let opening = tokio::task::spawn_blocking(move || Space::open(&directory, task.as_ref()));
    let space = tokio::select! {
        opened = opening => opened
            .map_err(io::Error::other)
            .flatten()
            .map_err(|error| broken(ErrorCode::InternalError, &error))?,
        () = stop.cancelled() => {
            let waited = "it waited for another call of the same task, and was told to stop";
            return Err(Refusal::new(ErrorCode::Cancelled, waited));
        }
    };
    Ok(engine.run(request, &space, admission, stop).await)
}

/// The request's text, and one byte more than it may have, if it has as much.
fn read(path: &Path) -> Result<Vec<u8>, Refusal> {
    let source: io::Result<Box<dyn Read>> = if path.as_os_str() == "-" {
        Ok(Box::new(io::stdin()))
    } else {
        File::open(path).map(|file| Box::new(file) as Box<dyn Read>)
    };
    let mut text = Vec::new();
    source
        .and_then(|source| {
            source
                .take(MAX_REQUEST_BYTES as u64 + 1)
                .read_to_end(&mut text)
        })
        .map_err(|error| {
            let path = path.display();
            Refusal::new(
                ErrorCode::InvalidRequest,
                format!("the request {path} can't be read: {error}"),
            )
        })?;
    Ok(text)
}

fn broken(code: ErrorCode, error: &dyn Error) -> Refusal {
    Refusal::new(code, error.to_string().trim_end())
}

/// One document on stdout, whatever happened.
fn print(answer: &Answer) -> ExitCode {
    if let (Some(code), Some(message)) = (answer.code, &answer.message) {
        eprintln!("octo exec: {code}: {message}");
    }
    let written = answer.document().map_err(io::Error::other);
    let written = written.and_then(|mut document| {
        document.push(b'\n');
        io::stdout().write_all(&document)
    });
    match written {
        Ok(()) => ExitCode::from(answer.exit_status()),
        Err(error) => {
            eprintln!("octo exec: the answer can't be written: {error}");
            ExitCode::from(ErrorCode::InternalError.info().exit_code)
        }
    }
}
