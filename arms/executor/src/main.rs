//! The executor's binary: the service, and the sandbox's launcher under another name.

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use actix_web::{App, HttpServer};
use nix::unistd::{Gid, Uid, geteuid};
use octollm_events::config::{self, NatsSettings};
use octollm_events::service::{Probes, start_logging, stop_signal};
use octollm_events::{Bus, Consumer, log};
use octollm_executor::capability::Verifier;
use octollm_executor::policy::Policy;
use octollm_executor::sandbox::namespace::Namespace;
use octollm_executor::sandbox::{Sandbox, launcher};
use octollm_executor::service::claim::Claims;
use octollm_executor::service::metrics::Metrics;
use octollm_executor::service::settings::Settings;
use octollm_executor::service::watch::SandboxWatch;
use octollm_executor::service::{Engine, Worker, listen, serve};
use octollm_executor::step::Executor;
use octollm_executor::workspace::{Owner, Workspaces};
use octollm_screen::Ruleset;
use prometheus::Registry;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The service's name on the bus, and that of its durable consumer.
const NAME: &str = "executor";
/// How long running steps may take to end by themselves once the executor is asked to stop.
const DRAIN: Duration = Duration::from_secs(5);
/// How long killing what is left may take.
const ABANDON: Duration = Duration::from_secs(3);

fn main() -> ExitCode {
    // First of all, before any thread exists: the launcher relies on being alone in its process.
    match std::env::args().nth(1).as_deref() {
        Some(launcher::SUBCOMMAND) => return launcher::main(),
        Some(other) => {
            eprintln!(
                "octollm-executor takes no argument such as {other:?}; it is configured by OCTO_EXECUTOR__… and octo.toml"
            );
            return ExitCode::from(2);
        }
        None => {}
    }
    start_logging();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let outcome = runtime
        .map_err(Into::into)
        .and_then(|runtime| runtime.block_on(run()));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error, "the executor can't run");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Box<dyn Error>> {
    let settings: Settings = config::load(NAME)?;
    let nats: NatsSettings = config::load("nats")?;
    let stop = stop_signal()?;

    let verifier = Verifier::load(settings.capability_public_key_file.as_deref())?;
    let policy = Policy::load(settings.policy.as_deref())?;
    tracing::info!(
        digest = policy.digest(),
        commands = policy.commands().count(),
        "the policy is loaded"
    );
    let owner = geteuid().is_root().then(|| Owner {
        uid: Uid::from_raw(settings.sandbox_uid),
        gid: Gid::from_raw(settings.sandbox_gid),
    });
    let workspaces = Arc::new(Workspaces::new(&settings.workspaces, owner)?);
    let sandbox: Arc<dyn Sandbox> =
        Arc::new(Namespace::new(PathBuf::from("/proc/self/exe"), owner)?);

    let registry = Registry::new();
    let metrics = Metrics::new(&registry)?;
    let bus = Bus::connect(&nats, NAME).await?;
    let watch = Arc::new(SandboxWatch::new(
        Arc::clone(&sandbox),
        Arc::clone(&workspaces),
        metrics.clone(),
    ));
    // Compiles the rules before the first step needs them.
    tracing::info!(
        ruleset = Ruleset::builtin().version(),
        "the screen is loaded"
    );
    // What is missing is logged now, and asked for again by every /ready.
    let _ = watch.check().await;

    let abandon = CancellationToken::new();
    let concurrency = match settings.concurrency {
        0 => 2 * std::thread::available_parallelism()?.get(),
        given => given,
    };
    let engine = Arc::new(Engine {
        verifier,
        claims: Claims::new(bus.clone()),
        executor: Executor::new(policy, sandbox),
        workspaces,
        watch: Arc::clone(&watch),
        metrics,
        places: Arc::new(Semaphore::new(concurrency)),
        abandon: abandon.clone(),
    });
    let worker = Arc::new(Worker::new(bus.clone(), engine));
    // One message in advance at most: what waits here would outlast its ack_wait behind long steps.
    let consumer = Consumer::new(bus.clone(), log::STREAM, NAME, stop.clone()).with_batch(1);
    let gate = consumer.gate();
    let intake = Probes::new(NAME, registry).check("intake", move || {
        let gate = gate.clone();
        async move { gate.check() }
    });
    let http = probes(&settings, intake, bus.clone(), watch)?;
    let http_handle = http.handle();
    let http = tokio::spawn(http);

    let observer = Arc::clone(&worker);
    // Until the last step has ended: a cancel may come while the others are drained.
    let cancels = tokio::spawn(listen(
        bus,
        move |event| observer.observe(event),
        abandon.clone(),
    ));
    let working = TaskTracker::new();
    tracing::info!(concurrency, "taking steps");
    serve(worker, consumer, &working, stop).await;

    working.close();
    if tokio::time::timeout(DRAIN, working.wait()).await.is_err() {
        tracing::warn!(
            steps = working.len(),
            "steps that still run are killed and handed back"
        );
        abandon.cancel();
        if tokio::time::timeout(ABANDON, working.wait()).await.is_err() {
            tracing::error!(
                steps = working.len(),
                "steps were not handed back; they will be delivered again"
            );
        }
    }
    abandon.cancel();
    cancels.await??;
    http_handle.stop(true).await;
    http.await??;
    tracing::info!("stopped");
    Ok(())
}

fn probes(
    settings: &Settings,
    probes: Probes,
    bus: Bus,
    watch: Arc<SandboxWatch>,
) -> std::io::Result<actix_web::dev::Server> {
    let probes = probes
        .check("nats", move || {
            let bus = bus.clone();
            async move { bus.check().await }
        })
        .check("sandbox", move || {
            let watch = Arc::clone(&watch);
            async move { watch.check().await }
        });
    let server = HttpServer::new(move || App::new().configure(|app| probes.routes(app)))
        .workers(1)
        .disable_signals()
        .shutdown_timeout(1)
        .bind((settings.host, settings.port))?;
    for address in server.addrs() {
        tracing::info!(%address, "listening");
    }
    Ok(server.run())
}
