//! `octollm-reflex`: the way in. It takes submissions over HTTP and from the bus, checks and screens them, and writes
//! the first event of each task; other services have their texts screened here.

mod admission;
mod artifacts;
mod cache;
mod caller;
mod capabilities;
mod command;
mod commands;
mod contract;
mod digest;
mod files;
mod intake;
mod limits;
mod link;
mod metrics;
mod outcome;
mod problem;
mod process;
mod reception;
mod request;
mod rules;
mod settings;
mod tasks;
mod verdict;

use std::error::Error;
use std::process::ExitCode;
use std::sync::Arc;

use actix_web::middleware::from_fn;
use actix_web::web::{Data, PayloadConfig, ServiceConfig, get, post, to};
use actix_web::{App, HttpServer};
use clap::Parser;
use octollm_events::config::{self, NatsSettings, RedisSettings};
use octollm_events::gate::Gate;
use octollm_events::service::{Probes, start_logging, stop_signal};
use octollm_events::{Bus, Log};
use prometheus::Registry;

use crate::admission::Admission;
use crate::artifacts::Artifacts;
use crate::cache::Cache;
use crate::caller::Callers;
use crate::capabilities::Capabilities;
use crate::command::CommandLine;
use crate::commands::Commands;
use crate::digest::DigestKey;
use crate::intake::Intake;
use crate::limits::Limits;
use crate::link::Link;
use crate::metrics::Metrics;
use crate::reception::Reception;
use crate::settings::Settings;

const SERVICE: &str = "reflex";

/// Seconds that open requests have to end once the service stops.
const SHUTDOWN_SECONDS: u64 = 5;

fn main() -> ExitCode {
    match CommandLine::parse().command {
        Some(command) => command.run(),
        None => service(),
    }
}

#[tokio::main]
async fn service() -> ExitCode {
    start_logging();
    match serve().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "reflex can't run");
            ExitCode::FAILURE
        }
    }
}

async fn serve() -> Result<(), Box<dyn Error>> {
    let settings: Settings = config::load(SERVICE)?;
    let key = DigestKey::read(&settings.digest_key_file)?;
    let ruleset = rules::load(settings.ruleset.as_deref())?;
    let capabilities = Data::new(Capabilities::new(ruleset, &settings));
    let callers = Callers::new(&settings.limits, settings.host)?;
    let nats: NatsSettings = config::load("nats")?;
    let redis: RedisSettings = config::load("redis")?;
    let bus = Bus::connect(&nats, SERVICE).await?;
    let stop = stop_signal()?;
    let registry = Registry::new();
    let metrics = Metrics::new(&registry)?;
    let link = Link::open(&redis, metrics.clone(), stop.clone())?;
    let limits = Arc::new(Limits::new(
        &settings.limits,
        link.clone(),
        &key,
        metrics.clone(),
    ));
    let cache = Data::new(Cache::new(
        &settings.cache,
        link.clone(),
        &key,
        metrics.clone(),
    ));
    let log = Log::new(bus.clone(), SERVICE);
    let reception = Arc::new(Reception::new(
        log,
        Artifacts::new(bus.clone()),
        key,
        ruleset,
        metrics.clone(),
    ));
    let intake = Arc::new(Intake::new(
        bus.clone(),
        Arc::clone(&reception),
        Arc::clone(&limits),
        metrics.clone(),
        &settings,
    ));
    let consumer = intake.consumer(stop.clone());
    let probes = probes(&bus, nats, consumer.gate(), link, registry);

    let admission = Data::new(Admission::new(callers, limits));
    let reception = Data::from(reception);
    let commands = Data::new(Commands::new(bus));
    let metrics = Data::new(metrics);
    let server = HttpServer::new(move || {
        App::new()
            .app_data(admission.clone())
            .app_data(cache.clone())
            .app_data(capabilities.clone())
            .app_data(reception.clone())
            .app_data(commands.clone())
            .app_data(metrics.clone())
            .app_data(PayloadConfig::new(settings.max_body_bytes))
            .wrap(from_fn(admission::admit))
            .wrap(from_fn(request::measure))
            .configure(|app| probes.routes(app))
            .configure(routes)
            .default_service(to(request::unknown_route))
    })
    .disable_signals()
    .shutdown_timeout(SHUTDOWN_SECONDS)
    .bind((settings.host, settings.port))?;
    for address in server.addrs() {
        tracing::info!(%address, "listening");
    }
    let server = server.run();
    let handle = server.handle();
    let taking = tokio::spawn(intake.run(consumer));
    let stopping = stop.clone();
    tokio::spawn(async move {
        stopping.cancelled().await;
        handle.stop(true).await;
    });
    let served = server.await;
    // A server that ended by itself takes the intake with it.
    stop.cancel();
    taking.await?;
    tracing::info!("stopped");
    Ok(served?)
}

fn probes(
    bus: &Bus,
    nats: NatsSettings,
    gate: Gate,
    link: Option<Link>,
    registry: Registry,
) -> Probes {
    let (connection, consumer) = (bus.clone(), bus.clone());
    let probes = Probes::new(SERVICE, registry)
        .check("nats", move || {
            let bus = connection.clone();
            async move { bus.check().await }
        })
        .check("consumer", move || Intake::check_consumer(consumer.clone()))
        .check("intake", move || {
            let gate = gate.clone();
            async move { gate.check() }
        })
        .acks(nats);
    match link {
        Some(link) => probes.optional("redis", move || std::future::ready(link.check())),
        None => probes,
    }
}

fn routes(app: &mut ServiceConfig) {
    app.route("/api/v1/tasks", post().to(tasks::submit))
        .route("/api/v1/tasks/{id}/cancel", post().to(tasks::cancel))
        .route("/api/v1/tasks/{id}/resume", post().to(tasks::resume))
        .route("/api/v1/reflex/process", post().to(process::process))
        .route("/process", post().to(process::process))
        .route("/api/v1/reflex/process/batch", post().to(process::batch))
        .route("/api/v1/reflex/capabilities", get().to(capabilities::tell))
        .route("/capabilities", get().to(capabilities::tell))
        .route("/process/batch", post().to(process::batch));
}
