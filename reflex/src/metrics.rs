//! What the service counts.

use prometheus::{Histogram, exponential_buckets};
use prometheus::{
    HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
    core::Collector,
};

/// The series of this service, all registered; cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    /// HTTP requests by route template, method and status.
    pub requests: IntCounterVec,
    /// Seconds per HTTP request by route template.
    pub request_seconds: HistogramVec,
    /// Submissions by channel and outcome.
    pub submissions: IntCounterVec,
    /// Signs of injection by family and severity.
    pub findings: IntCounterVec,
    /// Values replaced by type.
    pub redactions: IntCounterVec,
    /// Seconds of screening one submission or text.
    pub screen_seconds: Histogram,
    /// Bytes of what was screened.
    pub screened_bytes: IntCounter,
    /// Texts that other services had screened, by decision.
    pub processed: IntCounterVec,
    /// Seconds of appending an event, by its kind.
    pub append_seconds: HistogramVec,
    /// Bundles of initial files by result: stored, present.
    pub artifacts: IntCounterVec,
    /// Commands passed on by command and outcome.
    pub commands: IntCounterVec,
    /// Deliveries from `COMMANDS` by what became of them.
    pub deliveries: IntCounterVec,
    /// Deliveries that were not the first of their message.
    pub redeliveries: IntCounter,
    /// Requests that a limit concerned, by decision, the scope that refused, and where the buckets were.
    pub limits: IntCounterVec,
    /// Screenings looked up, by layer (memory, redis) and result.
    pub cache: IntCounterVec,
    /// Bytes of the screenings in memory, about.
    pub cache_bytes: IntGauge,
    /// 1 while Redis answers.
    pub redis_up: IntGauge,
    /// Seconds of one call to Redis, by operation.
    pub redis_seconds: HistogramVec,
    /// Calls to Redis that failed, by operation.
    pub redis_errors: IntCounterVec,
    /// Submissions from the bus at work.
    pub in_flight: IntGauge,
    /// 1 while a dependency is down and nothing is fetched.
    pub paused: IntGauge,
}

impl Metrics {
    /// Registers every series.
    ///
    /// # Errors
    ///
    /// Where `registry` has a series of one of the names.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let series = Series(registry);
        Ok(Self {
            requests: series.counters(
                "http_requests_total",
                "HTTP requests",
                &["route", "method", "status"],
            )?,
            request_seconds: series.histograms(
                "http_request_seconds",
                "Seconds per HTTP request",
                "route",
            )?,
            submissions: series.counters(
                "submissions_total",
                "Submissions",
                &["channel", "outcome"],
            )?,
            findings: series.counters(
                "findings_total",
                "Signs of injection",
                &["family", "severity"],
            )?,
            redactions: series.counters("redactions_total", "Values replaced", &["type"])?,
            screen_seconds: series.register(Histogram::with_opts(timing(
                "screen_seconds",
                "Seconds of screening",
            )?)?)?,
            screened_bytes: series.register(IntCounter::new(
                name("screened_bytes_total"),
                "Bytes screened",
            )?)?,
            processed: series.counters(
                "processed_total",
                "Texts screened for other services",
                &["decision"],
            )?,
            append_seconds: series.histograms(
                "append_seconds",
                "Seconds of appending an event",
                "kind",
            )?,
            artifacts: series.counters(
                "artifacts_total",
                "Bundles of initial files",
                &["result"],
            )?,
            commands: series.counters(
                "commands_total",
                "Commands passed on",
                &["command", "outcome"],
            )?,
            deliveries: series.counters(
                "deliveries_total",
                "Deliveries from COMMANDS",
                &["answer"],
            )?,
            redeliveries: series.register(IntCounter::new(
                name("redeliveries_total"),
                "Repeated deliveries",
            )?)?,
            limits: series.counters(
                "limits_total",
                "Requests that a rate limit concerned",
                &["decision", "scope", "store"],
            )?,
            cache: series.counters("cache_total", "Screenings looked up", &["layer", "result"])?,
            cache_bytes: series.register(IntGauge::new(
                name("cache_bytes"),
                "Bytes of the screenings in memory, about",
            )?)?,
            redis_up: series.register(IntGauge::new(name("redis_up"), "1 while Redis answers")?)?,
            redis_seconds: series.histograms(
                "redis_seconds",
                "Seconds of one call to Redis",
                "operation",
            )?,
            redis_errors: series.counters(
                "redis_errors_total",
                "Calls to Redis that failed",
                &["operation"],
            )?,
            in_flight: series.register(IntGauge::new(
                name("in_flight"),
                "Submissions from the bus at work",
            )?)?,
            paused: series.register(IntGauge::new(
                name("paused"),
                "1 while a dependency is down",
            )?)?,
        })
    }
}

struct Series<'r>(&'r Registry);

impl Series<'_> {
    fn register<C: Collector + Clone + 'static>(
        &self,
        collector: C,
    ) -> Result<C, prometheus::Error> {
        self.0.register(Box::new(collector.clone()))?;
        Ok(collector)
    }

    fn counters(
        &self,
        title: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<IntCounterVec, prometheus::Error> {
        self.register(IntCounterVec::new(Opts::new(name(title), help), labels)?)
    }

    fn histograms(
        &self,
        title: &str,
        help: &str,
        label: &str,
    ) -> Result<HistogramVec, prometheus::Error> {
        self.register(HistogramVec::new(timing(title, help)?, &[label])?)
    }
}

fn name(title: &str) -> String {
    format!("octollm_reflex_{title}")
}

/// Buckets from 10 µs to about 5 s.
fn timing(title: &str, help: &str) -> Result<HistogramOpts, prometheus::Error> {
    Ok(HistogramOpts::new(name(title), help).buckets(exponential_buckets(0.000_01, 2.0, 20)?))
}
