//! Whether what the broker acknowledges is on disk: only its own monitoring can say.

use std::time::Duration;

use serde::Deserialize;

use crate::config::NatsSettings;

const PATIENCE: Duration = Duration::from_secs(1);

/// The part of `/jsz?config=1` that is read.
#[derive(Deserialize)]
struct Report {
    config: JetStream,
}

/// The server leaves out what is off.
#[derive(Deserialize)]
struct JetStream {
    #[serde(default)]
    sync_always: bool,
}

/// For people and for `/ready`: `fsynced`, `not fsynced: …`, or `unknown: …` with the reason.
pub async fn acks(settings: &NatsSettings) -> String {
    let Some(url) = &settings.monitor_url else {
        return "unknown: OCTO_NATS__MONITOR_URL is not set".to_owned();
    };
    match ask(url).await {
        Ok(report) if report.config.sync_always => "fsynced".to_owned(),
        Ok(_) => "not fsynced: a power cut loses what was acknowledged (sync_interval: always prevents it)".to_owned(),
        Err(error) => format!("unknown: the broker's monitoring does not say ({})", error.without_url()),
    }
}

async fn ask(url: &str) -> reqwest::Result<Report> {
    let client = reqwest::Client::builder()
        .no_proxy()
        .timeout(PATIENCE)
        .build()?;
    let answer = client.get(format!("{}/jsz?config=1", url.trim_end_matches('/')));
    answer.send().await?.error_for_status()?.json().await
}
