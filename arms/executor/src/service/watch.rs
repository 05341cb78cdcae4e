//! Whether the sandbox works on this host: tried at the start, and again for as long as it does not.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use super::metrics::Metrics;
use crate::sandbox::{Ending, Job, Layer, Limits, Program, Sandbox, SandboxError, View, gaps};
use crate::workspace::Caps;

/// What the trial may use.
const LIMITS: Limits = Limits {
    wall: Duration::from_secs(10),
    cpu_seconds: 10,
    memory_bytes: 256 << 20,
    processes: 8,
    open_files: 64,
    file_bytes: 1 << 20,
    tmp_bytes: 1 << 20,
    workspace: Caps {
        bytes: 1 << 20,
        entries: 64,
    },
    output_bytes: 1 << 16,
};

/// The sandbox's state, for `/ready`.
pub struct SandboxWatch {
    sandbox: Arc<dyn Sandbox>,
    metrics: Metrics,
    /// The layers in force when it last worked; none while it is not known to work.
    layers: Mutex<Option<Vec<Layer>>>,
}

impl SandboxWatch {
    /// Watches this sandbox.
    #[must_use]
    pub fn new(sandbox: Arc<dyn Sandbox>, metrics: Metrics) -> Self {
        Self {
            sandbox,
            metrics,
            layers: Mutex::default(),
        }
    }

    /// Whether steps can be run; one program is run unless one has been.
    ///
    /// # Errors
    /// What this host lacks.
    pub async fn check(&self) -> Result<(), String> {
        let mut layers = self.layers.lock().await;
        if layers.is_none() {
            let found = self.try_out().await;
            let found = found
                .inspect_err(|problem| tracing::error!(problem, "the sandbox does not work"))?;
            *layers = Some(found);
        }
        Ok(())
    }

    /// A step could not be run: the next [`check`](Self::check) tries again.
    pub async fn doubt(&self) {
        *self.layers.lock().await = None;
    }

    /// What steps run in, for `/ready`: the `layers` that a program was really run in, what sets the `limits`, and under
    /// `degraded` what a step lacks, with the reason. Without a sandbox that works there are no layers.
    pub async fn registry(&self) -> Value {
        let layers = self.layers.lock().await.clone().unwrap_or_default();
        let names: Vec<&str> = layers.iter().map(|layer| layer.as_str()).collect();
        let limits = if layers.contains(&Layer::StepMemory) {
            Some("cgroups")
        } else {
            layers.contains(&Layer::ResourceLimits).then_some("rlimits")
        };
        json!({ "backend": "namespaces", "layers": names, "limits": limits, "degraded": gaps(&layers) })
    }

    async fn try_out(&self) -> Result<Vec<Layer>, String> {
        let job = Job {
            workspace: Bytes::new(),
            view: View::Granted(vec!["/usr/bin/true".into()]),
            stages: vec![Program {
                path: "/usr/bin/true".into(),
                argv: vec!["true".to_owned()],
            }],
            environment: Vec::new(),
            cwd: None,
            script: None,
            stdin: None,
            redirect: None,
            limits: LIMITS,
            head_bytes: 0,
        };
        let run = self
            .sandbox
            .run(job, &CancellationToken::new())
            .await
            .map_err(|error: SandboxError| error.to_string())?;
        if run.ending != Ending::Completed || !run.stages.iter().all(|exit| exit.is_success()) {
            return Err(format!(
                "`true` does not run in the sandbox: {:?} {:?}",
                run.ending, run.stages
            ));
        }
        self.metrics.sandbox_layers.reset();
        for layer in &run.layers {
            self.metrics
                .sandbox_layers
                .with_label_values(&[layer.as_str()])
                .set(1);
        }
        tracing::info!(layers = ?run.layers, "the sandbox works");
        Ok(run.layers)
    }
}
