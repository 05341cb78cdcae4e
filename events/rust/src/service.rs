//! What every service needs: logging, a stop signal, and (feature `http`) its probe routes.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// JSON lines on stdout; `OCTO_LOG` holds the filter (`info` without it). Call once, at the start.
pub fn start_logging() {
    let filter = EnvFilter::try_from_env("OCTO_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_env_filter(filter)
        .init();
}

/// A token that SIGTERM or SIGINT cancels. Call inside the runtime; fails where signals can't be watched.
pub fn stop_signal() -> std::io::Result<CancellationToken> {
    let (mut terminate, mut interrupt) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    let stop = CancellationToken::new();
    let cancelled = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("asked to stop");
        cancelled.cancel();
    });
    Ok(stop)
}

#[cfg(feature = "http")]
pub use probes::Probes;

#[cfg(feature = "http")]
mod probes {
    use actix_web::http::header::ContentType;
    use actix_web::web::{Data, ServiceConfig, get};
    use actix_web::{HttpResponse, Responder};
    use futures::future::{BoxFuture, join_all};
    use prometheus::{Encoder, Registry, TextEncoder};
    use serde_json::{Value, json};
    use std::collections::BTreeMap;
    use std::future::Future;
    use std::sync::Arc;
    use std::time::Duration;

    use crate::config::NatsSettings;
    use crate::durability;

    const CHECK_TIMEOUT: Duration = Duration::from_secs(2);

    type Check = Arc<dyn Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync>;
    type Detail = Arc<dyn Fn() -> BoxFuture<'static, Value> + Send + Sync>;

    /// The routes `/health`, `/ready` and `/metrics` of a service.
    #[derive(Clone)]
    pub struct Probes {
        service: &'static str,
        checks: Vec<(&'static str, Check)>,
        optional: Vec<(&'static str, Check)>,
        details: Vec<(&'static str, Detail)>,
        registry: Registry,
    }

    impl Probes {
        /// `registry` holds the service's metrics.
        pub fn new(service: &'static str, registry: Registry) -> Self {
            Self {
                service,
                checks: Vec::new(),
                optional: Vec::new(),
                details: Vec::new(),
                registry,
            }
        }

        /// Adds a dependency; its check runs with every `/ready`, two seconds at most.
        pub fn check<F, R, E>(mut self, name: &'static str, check: F) -> Self
        where
            F: Fn() -> R + Send + Sync + 'static,
            R: Future<Output = Result<(), E>> + Send + 'static,
            E: std::fmt::Display,
        {
            self.checks.push((name, boxed(check)));
            self
        }

        /// Adds a dependency that the service can do without: where its check fails, `/ready` answers 200 and says
        /// `degraded`.
        pub fn optional<F, R, E>(mut self, name: &'static str, check: F) -> Self
        where
            F: Fn() -> R + Send + Sync + 'static,
            R: Future<Output = Result<(), E>> + Send + 'static,
            E: std::fmt::Display,
        {
            self.optional.push((name, boxed(check)));
            self
        }

        /// Adds what `/ready` tells besides, whatever it is: it never makes a service unready. It has two seconds, too.
        pub fn detail<F, R>(mut self, name: &'static str, detail: F) -> Self
        where
            F: Fn() -> R + Send + Sync + 'static,
            R: Future<Output = Value> + Send + 'static,
        {
            self.details
                .push((name, Arc::new(move || Box::pin(detail()))));
            self
        }

        /// Tells under `acks` whether what this broker acknowledges is on disk.
        pub fn acks(self, nats: NatsSettings) -> Self {
            self.detail("acks", move || {
                let nats = nats.clone();
                async move { durability::acks(&nats).await.into() }
            })
        }

        /// Adds the routes: `App::new().configure(|app| probes.routes(app))`.
        pub fn routes(&self, app: &mut ServiceConfig) {
            app.app_data(Data::new(self.clone()))
                .route("/health", get().to(health))
                .route("/ready", get().to(ready))
                .route("/metrics", get().to(metrics));
        }
    }

    fn boxed<F, R, E>(check: F) -> Check
    where
        F: Fn() -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), E>> + Send + 'static,
        E: std::fmt::Display,
    {
        Arc::new(move || {
            let outcome = check();
            Box::pin(async move { outcome.await.map_err(|error| error.to_string()) })
        })
    }

    /// Runs checks, each with its time limit: `ok` or the reason by name.
    async fn outcomes(checks: &[(&'static str, Check)]) -> BTreeMap<&'static str, String> {
        let outcomes = checks.iter().map(|(name, check)| async move {
            let outcome = match tokio::time::timeout(CHECK_TIMEOUT, check()).await {
                Ok(Ok(())) => "ok".to_owned(),
                Ok(Err(reason)) => reason,
                Err(_) => "no answer in time".to_owned(),
            };
            (*name, outcome)
        });
        join_all(outcomes).await.into_iter().collect()
    }

    fn failing(outcomes: &BTreeMap<&'static str, String>) -> Vec<&'static str> {
        let failing = outcomes.iter().filter(|(_, outcome)| *outcome != "ok");
        failing.map(|(name, _)| *name).collect()
    }

    /// Liveness: the process answers.
    async fn health(probes: Data<Probes>) -> impl Responder {
        HttpResponse::Ok().json(json!({ "status": "ok", "service": probes.service }))
    }

    /// Readiness: 503 names what fails, `degraded` what is missing without harm.
    async fn ready(probes: Data<Probes>) -> impl Responder {
        let told = join_all(probes.details.iter().map(|(name, detail)| async move {
            let told = tokio::time::timeout(CHECK_TIMEOUT, detail()).await;
            (*name, told.unwrap_or_else(|_| json!("no answer in time")))
        }));
        let (mut checks, optional, told) =
            futures::join!(outcomes(&probes.checks), outcomes(&probes.optional), told);
        let details: BTreeMap<_, _> = told.into_iter().collect();
        let (failing, degraded) = (failing(&checks), failing(&optional));
        checks.extend(optional);
        let (mut response, status) = match (failing.is_empty(), degraded.is_empty()) {
            (false, _) => (HttpResponse::ServiceUnavailable(), "unavailable"),
            (true, false) => (HttpResponse::Ok(), "degraded"),
            (true, true) => (HttpResponse::Ok(), "ready"),
        };
        response.json(json!({
            "status": status,
            "service": probes.service,
            "failing": failing,
            "degraded": degraded,
            "checks": checks,
            "details": details,
        }))
    }

    async fn metrics(probes: Data<Probes>) -> impl Responder {
        let encoder = TextEncoder::new();
        let mut text = Vec::new();
        match encoder.encode(&probes.registry.gather(), &mut text) {
            Ok(()) => HttpResponse::Ok()
                .content_type(encoder.format_type())
                .body(text),
            Err(error) => HttpResponse::InternalServerError()
                .content_type(ContentType::plaintext())
                .body(error.to_string()),
        }
    }
}
