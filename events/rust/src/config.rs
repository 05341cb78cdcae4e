//! The one configuration scheme: environment `OCTO_<SECTION>__<KEY>` over `octo.toml`.
//!
//! `OCTO_CONFIG` names the file; without it `./octo.toml` is read where it exists. An unknown section, an
//! unknown key and an invalid value stop the start with a message that names them. Variables without a double
//! underscore are none of ours.

use figment::Figment;
use figment::providers::{Format, Serialized, Toml};
use figment::value::{Dict, Value};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The sections that `octo.toml` and the environment may name.
pub const SECTIONS: [&str; 9] = [
    "nats",
    "postgres",
    "redis",
    "stack",
    "reflex",
    "orchestrator",
    "planner",
    "executor",
    "projections",
];

const PREFIX: &str = "OCTO_";

/// The configuration can't be used. Messages name keys, never values: a value may be a secret.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// `OCTO_CONFIG` names no readable file, or `octo.toml` can't be read.
    #[error("{} can't be read; correct OCTO_CONFIG or the file's permissions", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The failure underneath.
        source: std::io::Error,
    },
    /// The file is no TOML.
    #[error("{} is not valid TOML near line {line}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
    },
    /// Nothing of ours is called so.
    #[error("{place}: unknown section; known are {}", SECTIONS.join(", "))]
    UnknownSection {
        /// The variable, or the section in the file.
        place: String,
    },
    /// A section's name stands for a plain value.
    #[error("{place} must be a section with keys")]
    NoSection {
        /// The section in the file.
        place: String,
    },
    /// The section knows no such key.
    #[error("[{section}] has no key {key} (environment OCTO_{}__{}); known are {known}", section.to_uppercase(), key.to_uppercase())]
    UnknownKey {
        /// The section.
        section: String,
        /// The key as given.
        key: String,
        /// The keys that exist.
        known: String,
    },
    /// A value is missing or has the wrong type.
    #[error("[{section}] {key} (environment OCTO_{}__{}) {reason}", section.to_uppercase(), key.to_uppercase())]
    InvalidValue {
        /// The section.
        section: String,
        /// The key.
        key: String,
        /// What would be right.
        reason: String,
    },
}

/// Where the broker is.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NatsSettings {
    /// `nats://host:port`.
    pub url: String,
    /// The file with the seed of this program's nkey, where the broker asks for one.
    pub nkey_file: Option<PathBuf>,
    /// The broker's HTTP monitoring, `http://host:port`, for whoever wants to know whether its acks are fsynced.
    pub monitor_url: Option<String>,
    /// How many servers of a cluster keep each stream; for whoever makes them.
    pub replicas: u8,
}

impl Default for NatsSettings {
    fn default() -> Self {
        Self {
            url: "nats://127.0.0.1:4222".to_owned(),
            nkey_file: None,
            monitor_url: None,
            replicas: 1,
        }
    }
}

/// Where the cache and the rate limits are kept, for services that can do without: none unless it is set.
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RedisSettings {
    /// `redis://:password@host:port/database`: a secret, so this can't be printed.
    pub url: Option<String>,
}

/// The settings of one section. `T` must deny unknown fields.
pub fn load<T: DeserializeOwned>(section: &str) -> Result<T, ConfigError> {
    load_from(section, &std::env::vars().collect())
}

/// As [`load`], with the environment given.
pub fn load_from<T: DeserializeOwned>(
    section: &str,
    environment: &BTreeMap<String, String>,
) -> Result<T, ConfigError> {
    debug_assert!(SECTIONS.contains(&section), "{section} is no section");
    let file = read_file(environment.get("OCTO_CONFIG").map(Path::new))?;
    for (name, value) in &file {
        let place = || format!("[{name}] in octo.toml");
        if !SECTIONS.contains(&name.as_str()) {
            return Err(ConfigError::UnknownSection { place: place() });
        }
        if value.as_dict().is_none() {
            return Err(ConfigError::NoSection { place: place() });
        }
    }
    let from_file = file
        .get(section)
        .and_then(Value::as_dict)
        .cloned()
        .unwrap_or_default();
    let from_environment = read_environment(section, environment)?;
    Figment::new()
        .merge(Serialized::defaults(from_file))
        .merge(Serialized::defaults(from_environment))
        // Lossy: a number from the environment is text, and is taken as what the field asks for.
        .extract_lossy()
        .map_err(|error| explain(section, error))
}

fn read_file(named: Option<&Path>) -> Result<Dict, ConfigError> {
    let path = named.unwrap_or(Path::new("octo.toml"));
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if named.is_none() && error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(Dict::new());
        }
        Err(source) => {
            return Err(ConfigError::Unreadable {
                path: path.to_owned(),
                source,
            });
        }
    };
    Toml::from_str(&text).map_err(|error| {
        let end = error.span().map_or(0, |span| span.start.min(text.len()));
        ConfigError::Syntax {
            path: path.to_owned(),
            line: text[..end].lines().count().max(1),
        }
    })
}

/// The section's keys as text, nested where a name holds further double underscores.
fn read_environment(
    section: &str,
    environment: &BTreeMap<String, String>,
) -> Result<Dict, ConfigError> {
    let mut values = Dict::new();
    for (variable, value) in environment {
        let Some((owner, key)) = variable
            .strip_prefix(PREFIX)
            .and_then(|name| name.split_once("__"))
        else {
            continue;
        };
        let owner = owner.to_lowercase();
        if !SECTIONS.contains(&owner.as_str()) {
            return Err(ConfigError::UnknownSection {
                place: format!("environment variable {variable}"),
            });
        }
        if owner == section {
            let key = key.to_lowercase();
            let path: Vec<_> = key.split("__").collect();
            insert(&mut values, &path, value);
        }
    }
    Ok(values)
}

fn insert(values: &mut Dict, path: &[&str], text: &str) {
    match path {
        [] => {}
        [key] => {
            // Lists and tables are written as TOML; everything else stays text, so that a password of digits is one.
            let value = if text.starts_with(['[', '{']) {
                text.parse().unwrap_or_else(|never| match never {})
            } else {
                Value::from(text)
            };
            values.insert((*key).to_owned(), value);
        }
        [table, rest @ ..] => {
            let mut inner = values
                .get(*table)
                .and_then(Value::as_dict)
                .cloned()
                .unwrap_or_default();
            insert(&mut inner, rest, text);
            values.insert((*table).to_owned(), Value::from(inner));
        }
    }
}

fn explain(section: &str, error: figment::Error) -> ConfigError {
    use figment::error::Kind;
    let section = section.to_owned();
    let key = error.path.join("__");
    let wrong = |reason: String| ConfigError::InvalidValue {
        section: section.clone(),
        key: key.clone(),
        reason,
    };
    match &error.kind {
        Kind::UnknownField(name, known) => ConfigError::UnknownKey {
            key: [key.as_str(), name.as_str()]
                .into_iter()
                .filter(|part| !part.is_empty())
                .collect::<Vec<_>>()
                .join("__"),
            section,
            known: known.join(", "),
        },
        Kind::MissingField(name) => ConfigError::InvalidValue {
            key: name.to_string(),
            section,
            reason: "is required".to_owned(),
        },
        Kind::InvalidType(_, expected) | Kind::InvalidValue(_, expected) => {
            wrong(format!("must be {expected}"))
        }
        Kind::UnknownVariant(_, known) => wrong(format!("must be one of {}", known.join(", "))),
        _ => wrong("has an invalid value".to_owned()),
    }
}
