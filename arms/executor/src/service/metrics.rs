//! What the executor counts.

use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

use crate::step::Outcome;

/// The executor's metrics, all named `octollm_executor_…`.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// Dispatches delivered.
    pub deliveries: IntCounter,
    /// Dispatches delivered again.
    pub redeliveries: IntCounter,
    /// Deliveries not handled, by reason.
    pub handler_failures: IntCounterVec,
    /// Steps that run now.
    pub running: IntGauge,
    /// Results put on record, by `executed` or the failure's code.
    pub results: IntCounterVec,
    /// Results that came after their attempt was settled: not put on record.
    pub late_results: IntCounter,
    /// Receipts of these, by `kept` or `lost`.
    pub late_receipts: IntCounterVec,
    /// Requests to run a step over HTTP, by `executed`, the failure's code, or the problem's.
    pub executions: IntCounterVec,
    /// Appends that found the task moved on.
    pub conflicts: IntCounter,
    /// Steps killed because of a cancel.
    pub cancels: IntCounter,
    /// Snapshots of workspaces stored.
    pub snapshots: IntCounter,
    /// Snapshots of workspaces read from the store.
    pub snapshots_read: IntCounter,
    /// Snapshots of ended tasks removed.
    pub snapshots_removed: IntCounter,
    /// From the start of a step to its end.
    pub step_seconds: Histogram,
    /// From taking a delivery until its result is on record.
    pub delivery_seconds: Histogram,
    /// Bytes that steps wrote to stdout and stderr.
    pub output_bytes: IntCounter,
    /// CPU time of steps, milliseconds.
    pub cpu_ms: IntCounter,
    /// Layers of the sandbox that were in force when it was last used.
    pub sandbox_layers: IntGaugeVec,
}

const SECONDS: [f64; 14] = [
    0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 300.0,
];

impl Metrics {
    /// Registers all of them.
    ///
    /// # Errors
    /// One of that name is registered already.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let name = |name: &str| format!("octollm_executor_{name}");
        let counter = |short: &str, help: &str| {
            let counter = IntCounter::new(name(short), help)?;
            registry.register(Box::new(counter.clone()))?;
            prometheus::Result::Ok(counter)
        };
        let counters = |short: &str, help: &str, label: &str| {
            let counters = IntCounterVec::new(Opts::new(name(short), help), &[label])?;
            registry.register(Box::new(counters.clone()))?;
            prometheus::Result::Ok(counters)
        };
        let histogram = |short: &str, help: &str| {
            let histogram = Histogram::with_opts(
                HistogramOpts::new(name(short), help).buckets(SECONDS.to_vec()),
            )?;
            registry.register(Box::new(histogram.clone()))?;
            prometheus::Result::Ok(histogram)
        };
        let running = IntGauge::new(name("steps_running"), "Steps that run now")?;
        registry.register(Box::new(running.clone()))?;
        let layers = Opts::new(
            name("sandbox_layers"),
            "1 for each layer in force when the sandbox was last used",
        );
        let sandbox_layers = IntGaugeVec::new(layers, &["layer"])?;
        registry.register(Box::new(sandbox_layers.clone()))?;
        Ok(Self {
            deliveries: counter("deliveries_total", "Dispatches delivered")?,
            redeliveries: counter("redeliveries_total", "Dispatches delivered again")?,
            handler_failures: counters(
                "handler_failures_total",
                "Deliveries not handled",
                "reason",
            )?,
            running,
            results: counters("results_total", "Results put on record", "result")?,
            late_results: counter(
                "late_results_total",
                "Results that came after their attempt was settled",
            )?,
            late_receipts: counters(
                "late_receipts_total",
                "Receipts of results that came too late",
                "outcome",
            )?,
            executions: counters(
                "executions_total",
                "Requests to run a step over HTTP",
                "result",
            )?,
            conflicts: counter("conflicts_total", "Appends that found the task moved on")?,
            cancels: counter("cancels_total", "Steps killed because of a cancel")?,
            snapshots: counter("snapshots_total", "Snapshots of workspaces stored")?,
            snapshots_read: counter(
                "snapshots_read_total",
                "Snapshots of workspaces read from the store",
            )?,
            snapshots_removed: counter(
                "snapshots_removed_total",
                "Snapshots of ended tasks removed",
            )?,
            step_seconds: histogram("step_seconds", "From the start of a step to its end")?,
            delivery_seconds: histogram(
                "delivery_seconds",
                "From taking a delivery until its result is on record",
            )?,
            output_bytes: counter("output_bytes_total", "Bytes that steps wrote")?,
            cpu_ms: counter("cpu_milliseconds_total", "CPU time of steps")?,
            sandbox_layers,
        })
    }

    /// Counts what a step has used.
    pub fn count(&self, outcome: &Outcome) {
        self.step_seconds
            .observe(outcome.usage.duration.as_secs_f64());
        self.cpu_ms
            .inc_by(u64::try_from(outcome.usage.cpu.as_millis()).unwrap_or(u64::MAX));
        if let Some((stdout, stderr)) = &outcome.output {
            self.output_bytes.inc_by(stdout.bytes + stderr.bytes);
        }
    }

    /// Counts a step as running until the value is dropped.
    #[must_use]
    pub fn count_running(&self) -> RunningStep {
        self.running.inc();
        RunningStep(self.running.clone())
    }
}

/// A step that runs.
#[derive(Debug)]
pub struct RunningStep(IntGauge);

impl Drop for RunningStep {
    fn drop(&mut self) {
        self.0.dec();
    }
}
