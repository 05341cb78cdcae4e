//! Precedence, and clear refusals that never show a value.

use octollm_events::config::{NatsSettings, load_from};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::io::Write;
use tempfile::NamedTempFile;

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Settings {
    port: u16,
    strict: bool,
    key: String,
    hosts: Vec<String>,
    cache: Cache,
    optional: Option<u64>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            port: 8001,
            strict: false,
            key: String::new(),
            hosts: vec![],
            cache: Cache::default(),
            optional: None,
        }
    }
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Cache {
    ttl_seconds: u64,
}

struct Given {
    file: NamedTempFile,
    environment: BTreeMap<String, String>,
}

fn given(toml: &str, variables: &[(&str, &str)]) -> Given {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(toml.as_bytes()).unwrap();
    let mut environment: BTreeMap<_, _> = variables
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    let path = file.path().to_str().unwrap().to_owned();
    environment.insert("OCTO_CONFIG".into(), path);
    Given { file, environment }
}

impl Given {
    fn load(&self) -> Result<Settings, String> {
        assert!(self.file.path().exists());
        load_from("reflex", &self.environment).map_err(|error| error.to_string())
    }
}

#[test]
fn the_environment_goes_before_the_file_and_the_file_before_the_defaults() {
    let given = given(
        "[reflex]\nport = 9000\nstrict = true\nhosts = [\"a\"]\n[reflex.cache]\nttl_seconds = 5\n[nats]\nurl = \"x\"\n",
        &[
            ("OCTO_REFLEX__PORT", "9001"),
            ("OCTO_REFLEX__KEY", "123456"),
            ("OCTO_REFLEX__CACHE__TTL_SECONDS", "7"),
            ("OCTO_REFLEX__OPTIONAL", "3"),
            ("OCTO_PLANNER__MODEL", "m"),
            ("OCTO_LOG", "debug"),
            ("PATH", "/bin"),
        ],
    );
    let settings = given.load().unwrap();
    assert_eq!(
        settings,
        Settings {
            port: 9001,
            strict: true,
            key: "123456".into(),
            hosts: vec!["a".into()],
            cache: Cache { ttl_seconds: 7 },
            optional: Some(3),
        }
    );
}

#[test]
fn lists_in_the_environment_are_written_as_in_the_file() {
    let given = given(
        "",
        &[
            ("OCTO_REFLEX__HOSTS", "[\"a\", \"b\"]"),
            ("OCTO_REFLEX__STRICT", "true"),
        ],
    );
    let settings = given.load().unwrap();
    assert_eq!(settings.hosts, ["a", "b"]);
    assert!(settings.strict);
}

#[test]
fn what_is_wrong_is_named_and_values_are_not_shown() {
    for (toml, variables, wanted) in [
        ("[reflexx]\n", &[][..], "reflexx"),
        ("[reflex]\nprot = 1\n", &[], "has no key prot"),
        ("[reflex.cache]\nttl = 1\n", &[], "OCTO_REFLEX__CACHE__TTL"),
        ("[reflex]\nport = \"canary\"\n", &[], "OCTO_REFLEX__PORT"),
        ("[reflex]\nkey = canary\n", &[], "line 2"),
        ("reflex = 7\n", &[], "[reflex]"),
        ("", &[("OCTO_REFLEX__PROT", "canary")], "has no key prot"),
        ("", &[("OCTO_REFLEX__PORT", "canary")], "OCTO_REFLEX__PORT"),
        ("", &[("OCTO_REFLEX__PORT", "70000")], "OCTO_REFLEX__PORT"),
        (
            "",
            &[("OCTO_REFLEXX__PORT", "canary")],
            "OCTO_REFLEXX__PORT",
        ),
    ] {
        let error = given(toml, variables).load().unwrap_err();
        assert!(error.contains(wanted), "{toml:?} {variables:?}: {error}");
        assert!(!error.contains("canary"), "{error}");
    }
}

#[test]
fn a_named_file_must_exist_and_an_unnamed_one_need_not() {
    let named = BTreeMap::from([("OCTO_CONFIG".to_owned(), "no/such/file.toml".to_owned())]);
    let error = load_from::<NatsSettings>("nats", &named).unwrap_err();
    assert!(error.to_string().contains("no/such/file.toml"));
    let settings: NatsSettings = load_from("nats", &BTreeMap::new()).unwrap();
    assert_eq!(settings.url, "nats://127.0.0.1:4222");
}
