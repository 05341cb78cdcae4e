//! The executor's binary: the service, its commands, and the sandbox's launcher under another name.

use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::Server;
use actix_web::web::ServiceConfig;
use actix_web::{App, HttpServer};
use clap::{Parser, Subcommand};
use nix::unistd::{Gid, Uid, geteuid};
use octollm_events::config::{self, NatsSettings};
use octollm_events::service::{Probes, start_logging, stop_signal};
use octollm_events::{Bus, Consumer, Log, log};
use octollm_executor::capability::Verifier;
use octollm_executor::exec;
use octollm_executor::policy::{self, Policy};
use octollm_executor::receipt::{Key, Terms};
use octollm_executor::sandbox::namespace::{Namespace, Owner};
use octollm_executor::sandbox::{Sandbox, launcher};
use octollm_executor::service::claim::Claims;
use octollm_executor::service::execute::{self, Endpoint};
use octollm_executor::service::metrics::Metrics;
use octollm_executor::service::notary::Notary;
use octollm_executor::service::operator::OperatorKey;
use octollm_executor::service::settings::Settings;
use octollm_executor::service::snapshots::Snapshots;
use octollm_executor::service::watch::SandboxWatch;
use octollm_executor::service::{Engine, Retention, Worker, listen, serve};
use octollm_executor::step::Executor;
use octollm_screen::Ruleset;
use prometheus::Registry;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The service's name on the bus, and that of its durable consumer.
const NAME: &str = "executor";
/// How long running steps may take to end by themselves once the executor is asked to stop.
const DRAIN: Duration = Duration::from_secs(5);
/// How long killing what is left may take.
const ABANDON: Duration = Duration::from_secs(3);

/// Runs the steps of tasks, as a service. It is configured by OCTO_EXECUTOR__… and octo.toml.
#[derive(Parser)]
#[command(name = "octollm-executor", version)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

/// What the binary does instead of being the service.
#[derive(Subcommand)]
enum Command {
    Exec(exec::Arguments),
    #[command(subcommand)]
    Policy(policy::cli::Arguments),
}

fn main() -> ExitCode {
    // First of all, before any thread exists: the launcher relies on being alone in its process.
    if std::env::args().nth(1).as_deref() == Some(launcher::SUBCOMMAND) {
        return launcher::main();
    }
    match Arguments::try_parse() {
        Ok(Arguments { command: None }) => service(),
        Ok(Arguments {
            command: Some(Command::Exec(arguments)),
        }) => exec::main(arguments),
        Ok(Arguments {
            command: Some(Command::Policy(arguments)),
        }) => policy::cli::main(&arguments),
        Err(misused)
            if misused.use_stderr() && std::env::args().nth(1).as_deref() == Some("exec") =>
        {
            exec::misused(&misused)
        }
        Err(misused) => misused.exit(),
    }
}

fn service() -> ExitCode {
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
    let receipt_key = Key::load(settings.receipt_key_file.as_deref())?;
    tracing::info!(
        key = receipt_key.id(),
        public = receipt_key.public(),
        "receipts are signed"
    );
    let key = settings.operator_key_file.as_deref();
    let key = key.map(OperatorKey::load).transpose()?;
    if key.is_none() {
        tracing::info!(
            "no operator's key is set (OCTO_EXECUTOR__OPERATOR_KEY_FILE): {} refuses everybody",
            execute::PATH
        );
    }
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
    let sandbox = Namespace::new(PathBuf::from("/proc/self/exe"), owner)?;
    let sandbox: Arc<dyn Sandbox> = Arc::new(sandbox.degraded(settings.sandbox_degraded));

    let registry = Registry::new();
    let metrics = Metrics::new(&registry)?;
    let bus = Bus::connect(&nats, NAME).await?;
    let watch = Arc::new(SandboxWatch::new(Arc::clone(&sandbox), metrics.clone()));
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
    let terms = Terms {
        policy: policy.digest().to_owned(),
        is_policy_bypassed: false,
        is_degraded_allowed: settings.sandbox_degraded,
    };
    let engine = Arc::new(Engine {
        notary: Arc::new(Notary::new(receipt_key, terms)),
        verifier,
        claims: Claims::new(bus.clone()),
        executor: Executor::new(policy, sandbox),
        snapshots: Arc::new(Snapshots::new(bus.clone(), metrics.clone())),
        watch: Arc::clone(&watch),
        metrics,
        places: Arc::new(Semaphore::new(concurrency)),
        abandon: abandon.clone(),
    });
    let retention = Arc::new(Retention::new(
        Log::new(bus.clone(), NAME),
        Arc::clone(&engine.snapshots),
        engine.metrics.clone(),
        Duration::from_secs(settings.workspace_retention_seconds),
    ));
    let working = TaskTracker::new();
    let endpoint = Endpoint {
        engine: Arc::clone(&engine),
        key,
        working: working.clone(),
        runtime: Handle::current(),
        stop: stop.clone(),
    };
    let worker = Arc::new(Worker::new(bus.clone(), engine));
    // One message in advance at most: what waits here would outlast its ack_wait behind long steps.
    let consumer = Consumer::new(bus.clone(), log::STREAM, NAME, stop.clone()).with_batch(1);
    let gate = consumer.gate();
    let intake = Probes::new(NAME, registry)
        .acks(nats)
        .check("intake", move || {
            let gate = gate.clone();
            async move { gate.check() }
        });
    let http = server(&settings, probes(intake, bus.clone(), watch), endpoint)?;
    let http_handle = http.handle();
    let http = tokio::spawn(http);

    let removal = tokio::spawn({
        let (retention, stop) = (Arc::clone(&retention), stop.clone());
        async move { retention.run(stop).await }
    });
    let observer = Arc::clone(&worker);
    // Until the last step has ended: a cancel may come while the others are drained.
    let cancels = tokio::spawn(listen(
        bus,
        move |event| {
            observer.observe(event);
            retention.observe(event);
        },
        abandon.clone(),
    ));
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
    removal.await?;
    http_handle.stop(true).await;
    http.await??;
    tracing::info!("stopped");
    Ok(())
}

fn probes(probes: Probes, bus: Bus, watch: Arc<SandboxWatch>) -> Probes {
    probes
        .check("nats", move || {
            let bus = bus.clone();
            async move { bus.check().await }
        })
        .check("sandbox", {
            let watch = Arc::clone(&watch);
            move || {
                let watch = Arc::clone(&watch);
                async move { watch.check().await }
            }
        })
        .detail("sandbox", move || {
            let watch = Arc::clone(&watch);
            async move { watch.registry().await }
        })
}

fn server(settings: &Settings, probes: Probes, endpoint: Endpoint) -> io::Result<Server> {
    let routes = move |app: &mut ServiceConfig| {
        probes.routes(app);
        endpoint.routes(app);
    };
    let server = HttpServer::new(move || App::new().configure(routes.clone()))
        .workers(1)
        .disable_signals()
        .shutdown_timeout(1)
        // Who hangs up while a step runs has it killed.
        .h1_allow_half_closed(false)
        .bind((settings.host, settings.port))?;
    for address in server.addrs() {
        tracing::info!(%address, "listening");
    }
    Ok(server.run())
}
