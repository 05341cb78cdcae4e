//! Attacks as data, run as `octo exec` runs them: with the policy in force, and with nothing but the sandbox in the way.
//!
//! A case in `table/` is a request and what must not come of it. Most scripts print `CONTROL` after having done, by the
//! same means, what is allowed, so that no case passes because its interpreter is missing. What no case may do, whatever
//! it says of itself, is looked for on the host: [`Host`](host::Host).

mod case;
mod command_line;
mod host;

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::StreamExt;
use futures::stream;
use nix::unistd::{Gid, Uid, geteuid};
use octollm_executor::exec::{Admission, Answer, Engine, Request, Space};
use octollm_executor::policy::Policy;
use octollm_executor::sandbox::namespace::{Namespace, Owner};
use octollm_executor::sandbox::{Layer, Sandbox};
use tokio_util::sync::CancellationToken;

use case::Case;
use host::Host;

/// Cases at once. Each may start some dozen processes.
const AT_ONCE: usize = 2;

/// What isolates the programs.
#[derive(Debug, Clone, Copy)]
enum Backend {
    Namespace,
}

impl Backend {
    fn sandbox(self) -> Arc<dyn Sandbox> {
        match self {
            Self::Namespace => {
                let launcher = env!("CARGO_BIN_EXE_octollm-executor").into();
                Arc::new(Namespace::new(launcher, owner()).unwrap())
            }
        }
    }
}

/// Whom programs run as, where we are root.
fn owner() -> Option<Owner> {
    geteuid().is_root().then(|| Owner {
        uid: Uid::from_raw(65534),
        gid: Gid::from_raw(65534),
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sandbox_holds_by_itself() {
    run_all(Backend::Namespace, Admission::Unlisted).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_policy_denies_them() {
    run_all(Backend::Namespace, Admission::Listed).await;
}

#[test]
fn the_table_is_as_it_should_be() {
    let cases = case::all();
    let mut ids: Vec<&str> = cases.iter().map(|case| case.id.as_str()).collect();
    let count = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), count, "an id occurs twice");
    assert!(count >= 110, "{count} cases");
}

async fn run_all(backend: Backend, admission: Admission) {
    let host = &Host::new();
    let engine = &Engine::new(Policy::load(None).unwrap(), backend.sandbox());
    let layers = &layers(backend).await;
    let only = std::env::var("ATTACK").ok();
    let cases = case::all();
    let chosen = cases
        .iter()
        .filter(|case| only.as_ref().is_none_or(|only| case.id.contains(only)));
    let runs = stream::iter(chosen).map(|case| async move {
        let problems = match case.is_lacking(layers) {
            true => None,
            false => Some(run(case, engine, host, admission).await),
        };
        (case, problems)
    });
    let runs: Vec<_> = runs.buffer_unordered(AT_ONCE).collect().await;
    let mut by_class: BTreeMap<&str, (usize, usize, usize)> = BTreeMap::new();
    let mut failed = Vec::new();
    for (case, problems) in runs {
        let (held, skipped, broken) = by_class.entry(&case.class).or_default();
        match problems {
            None => *skipped += 1,
            Some(problems) if problems.is_empty() => *held += 1,
            Some(problems) => {
                *broken += 1;
                failed.push(format!(
                    "{}/{}:\n  {}",
                    case.class,
                    case.id,
                    problems.join("\n  ")
                ));
            }
        }
    }
    for (class, (held, skipped, broken)) in by_class {
        println!(
            "{backend:?} {admission:?} {class}: {held} held, {broken} failed, {skipped} can't be tried here"
        );
    }
    failed.extend(host.damage());
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

/// The layers that a program is really run in here: some cases need one.
async fn layers(backend: Backend) -> Vec<Layer> {
    let directory = tempfile::tempdir().unwrap();
    let space = Space::open(directory.path(), None).unwrap();
    let sandbox = Recording::new(backend.sandbox());
    let engine = Engine::new(
        Policy::load(None).unwrap(),
        Arc::clone(&sandbox) as Arc<dyn Sandbox>,
    );
    let request = Request::parse(br#"{"command": ["true"]}"#).unwrap();
    let never = CancellationToken::new();
    engine.run(request, &space, Admission::Listed, &never).await;
    let layers = sandbox.layers.lock().unwrap().clone();
    assert!(!layers.is_empty(), "no program can be run");
    layers
}

/// A sandbox that remembers what was in force.
struct Recording {
    inner: Arc<dyn Sandbox>,
    layers: std::sync::Mutex<Vec<Layer>>,
}

impl Recording {
    fn new(inner: Arc<dyn Sandbox>) -> Arc<Self> {
        let layers = std::sync::Mutex::default();
        Arc::new(Self { inner, layers })
    }
}

impl Sandbox for Recording {
    fn run<'a>(
        &'a self,
        job: octollm_executor::sandbox::Job,
        cancel: &'a CancellationToken,
    ) -> futures::future::BoxFuture<
        'a,
        Result<octollm_executor::sandbox::Run, octollm_executor::sandbox::SandboxError>,
    > {
        Box::pin(async move {
            let run = self.inner.run(job, cancel).await?;
            self.layers.lock().unwrap().clone_from(&run.layers);
            Ok(run)
        })
    }
}

/// Runs one case and says what is wrong.
async fn run(case: &Case, engine: &Engine, host: &Host, admission: Admission) -> Vec<String> {
    let never = CancellationToken::new();
    let marker = host.marker();
    let own = Space::open(&host.data(), None).unwrap();
    let ask = |request: String, space| {
        let never = &never;
        async move {
            match Request::parse(request.as_bytes()) {
                Ok(request) => engine.run(request, space, admission, never).await.0,
                Err(refusal) => Answer::from(refusal),
            }
        }
    };
    let mut problems = Vec::new();
    let space = host.task_space(&marker);
    for before in &case.before {
        // What it needs from an earlier step is made even where the policy would not have it.
        let request = Request::parse(host.fill(before, &marker).as_bytes()).unwrap();
        let answer = engine
            .run(request, &space, Admission::Unlisted, &never)
            .await
            .0;
        if answer.code.is_some() {
            problems.push(format!("what comes before failed: {answer:?}"));
        }
    }
    if let Some(control) = &case.control {
        let answer = ask(control.clone(), &own).await;
        if answer.code.is_some() {
            problems.push(format!("the positive control failed: {answer:?}"));
        }
    }
    let answer = ask(host.fill(&case.request, &marker), &space).await;
    problems.extend(case.judge(&answer, admission, host, &marker));
    problems.extend(host.survivors(&marker));
    problems.extend(host.strays(&marker));
    problems
}
