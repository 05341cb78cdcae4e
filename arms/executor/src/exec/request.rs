//! What `octo exec` is asked to do, read strictly: unknown members, members twice, and values out of range are refused.

use std::collections::BTreeMap;
use std::time::Duration;

use octollm_events::carrier::ErrorCode;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::answer::Refusal;
use super::json;
use super::limits::LimitsRequest;
use crate::action::Action;
use crate::workspace::{Entry, Globs, WorkspacePath};

/// Bytes of a request, at most: the initial files as base64, and the text around them.
pub const MAX_REQUEST_BYTES: usize = 8 << 20;

/// One action, where it runs, and what it may use.
#[derive(Debug)]
pub struct Request {
    /// What is to be done.
    pub action: Action,
    /// The same as it was written, for its digest.
    pub action_value: Value,
    /// What lies in the workspace before.
    pub files: Vec<Entry>,
    /// Variables besides the sandbox's own; the engine checks them.
    pub environment: BTreeMap<String, String>,
    /// The working directory; none is the workspace itself.
    pub cwd: Option<WorkspacePath>,
    /// Which files are handed back at the end.
    pub collect: Globs,
    /// What it may use.
    pub limits: LimitsRequest,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Form {
    action: Option<Value>,
    command: Option<CommandForm>,
    script: Option<ScriptForm>,
    lang: Option<String>,
    stdin: Option<String>,
    #[serde(default)]
    files: Vec<Entry>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    cwd: Option<String>,
    timeout_s: Option<f64>,
    #[serde(default)]
    collect: Vec<String>,
    #[serde(default)]
    limits: LimitsRequest,
}

/// One program, or a pipeline of several.
#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "command must be the array of a program's arguments, or an array of such arrays"
)]
enum CommandForm {
    Program(Vec<String>),
    Pipeline(Vec<Vec<String>>),
}

#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "script must be {lang, source}, or the source with lang beside it"
)]
enum ScriptForm {
    Source(String),
    Whole(ScriptObject),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ScriptObject {
    lang: String,
    source: String,
}

impl Request {
    /// Reads a request.
    ///
    /// # Errors
    /// `PAYLOAD_TOO_LARGE` and `INVALID_REQUEST`.
    pub fn parse(text: &[u8]) -> Result<Self, Refusal> {
        if text.len() > MAX_REQUEST_BYTES {
            return Err(Refusal::new(
                ErrorCode::PayloadTooLarge,
                format!("the request has more than {MAX_REQUEST_BYTES} bytes"),
            ));
        }
        let invalid = |problem: &dyn std::fmt::Display| {
            Refusal::new(
                ErrorCode::InvalidRequest,
                format!("the request is not valid: {problem}"),
            )
        };
        let value = json::parse(text).map_err(|error| invalid(&error))?;
        let form = Form::deserialize(value).map_err(|error| invalid(&error))?;
        let action_value = action(
            form.action,
            form.command,
            form.script,
            form.lang,
            form.stdin,
        )
        .map_err(|problem| invalid(&problem))?;
        let action = Action::parse(&action_value)
            .map_err(|error| Refusal::new(ErrorCode::InvalidRequest, error.to_string()))?;
        let collect = collect(&form.collect).map_err(|problem| invalid(&problem))?;
        let limits = limits(form.limits, form.timeout_s).map_err(|problem| invalid(&problem))?;
        Ok(Self {
            action,
            action_value,
            files: form.files,
            environment: form.env,
            cwd: cwd(form.cwd).map_err(|problem| invalid(&format!("cwd: {problem}")))?,
            collect,
            limits,
        })
    }
}

/// The one action that was asked for, under whichever name.
fn action(
    action: Option<Value>,
    command: Option<CommandForm>,
    script: Option<ScriptForm>,
    lang: Option<String>,
    stdin: Option<String>,
) -> Result<Value, String> {
    if lang.is_some() && !matches!(script, Some(ScriptForm::Source(_))) {
        return Err("lang goes with a script that is a text".to_owned());
    }
    let mut action = match (action, command, script) {
        (Some(Value::Object(action)), None, None) => action,
        (None, Some(command), None) => {
            let pipeline = match command {
                CommandForm::Program(argv) => vec![argv],
                CommandForm::Pipeline(pipeline) => pipeline,
            };
            object(json!({"kind": "command", "pipeline": pipeline}))
        }
        (None, None, Some(script)) => {
            let (lang, source) = match script {
                ScriptForm::Source(source) => (lang.unwrap_or_else(|| "bash".to_owned()), source),
                ScriptForm::Whole(ScriptObject { lang, source }) => (lang, source),
            };
            object(json!({"kind": "script", "lang": lang, "source": source}))
        }
        (Some(_), None, None) => return Err("action must be an object".to_owned()),
        _ => return Err("it must have one of action, command and script".to_owned()),
    };
    if let Some(stdin) = stdin
        && action.insert("stdin".to_owned(), stdin.into()).is_some()
    {
        return Err("stdin stands twice, beside the action and in it".to_owned());
    }
    Ok(Value::Object(action))
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(members) => members,
        _ => Map::new(),
    }
}

fn limits(limits: LimitsRequest, timeout_s: Option<f64>) -> Result<LimitsRequest, String> {
    let wall_ms = match (timeout_s, limits.wall_ms) {
        (Some(_), Some(_)) => {
            return Err("timeout_s and limits.wall_ms say the same; give one of them".to_owned());
        }
        (None, wall_ms) => wall_ms,
        (Some(seconds), None) => Some(milliseconds(seconds)?),
    };
    let limits = LimitsRequest { wall_ms, ..limits };
    match limits.too_small() {
        None => Ok(limits),
        Some((name, least)) => Err(format!("limits.{name} must be at least {least}")),
    }
}

fn milliseconds(seconds: f64) -> Result<u64, String> {
    Duration::try_from_secs_f64(seconds)
        .ok()
        .and_then(|time| u64::try_from(time.as_millis()).ok())
        .filter(|milliseconds| *milliseconds > 0)
        .ok_or_else(|| format!("timeout_s {seconds} is not a number of seconds above 0.001"))
}

/// Patterns that lead out match nothing, since no path of a workspace does; whoever writes one should hear of it.
fn collect(patterns: &[String]) -> Result<Globs, String> {
    let leads_out = |pattern: &&String| {
        pattern.starts_with('/')
            || pattern.contains('\0')
            || pattern.split('/').any(|name| name == "..")
    };
    if let Some(pattern) = patterns.iter().find(leads_out) {
        return Err(format!("collect: {pattern:?} leads out of the workspace"));
    }
    Globs::parse(patterns.iter().map(String::as_str)).map_err(|error| format!("collect: {error}"))
}

fn cwd(cwd: Option<String>) -> Result<Option<WorkspacePath>, String> {
    match cwd.as_deref() {
        None | Some(".") => Ok(None),
        Some(path) => WorkspacePath::try_from(path.to_owned()).map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(request: &Value) -> Result<Request, Refusal> {
        Request::parse(request.to_string().as_bytes())
    }

    #[test]
    fn a_command_is_short_for_a_pipeline() {
        let long = json!({"action": {"kind": "command", "pipeline": [["echo", "a"]]}});
        let long = parse(&long).unwrap();
        for short in [json!(["echo", "a"]), json!([["echo", "a"]])] {
            let short = parse(&json!({"command": short})).unwrap();
            assert_eq!(short.action, long.action);
            assert_eq!(short.action_value, long.action_value);
        }
    }

    #[test]
    fn stdin_may_stand_beside_the_action() {
        let beside = parse(&json!({"command": ["cat"], "stdin": "x"})).unwrap();
        let inside = json!({"action": {"kind": "command", "pipeline": [["cat"]], "stdin": "x"}});
        assert_eq!(beside.action, parse(&inside).unwrap().action);
    }

    #[test]
    fn a_script_is_written_in_two_ways() {
        let action =
            json!({"kind": "script", "lang": "python", "source": "print(1)", "stdin": "x"});
        let action = parse(&json!({"action": action})).unwrap();
        for script in [
            json!({"script": {"lang": "python", "source": "print(1)"}, "stdin": "x"}),
            json!({"script": "print(1)", "lang": "python", "stdin": "x"}),
        ] {
            assert_eq!(parse(&script).unwrap().action, action.action, "{script}");
        }
        let bash = parse(&json!({"script": "true"})).unwrap();
        assert_eq!(
            bash.action_value,
            json!({"kind": "script", "lang": "bash", "source": "true"})
        );
    }

    #[test]
    fn the_working_directory_is_a_path_of_the_workspace() {
        let cwd = |path: &str| parse(&json!({"command": ["ls"], "cwd": path})).map(|one| one.cwd);
        assert_eq!(cwd(".").unwrap(), None);
        assert_eq!(cwd("a/b").unwrap().unwrap().as_str(), "a/b");
        for bad in ["", "/", "/work", "..", "a/..", "./a", "a//b", "a\u{0}"] {
            assert!(cwd(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_time_out_in_seconds_is_the_wall_clock() {
        for (seconds, milliseconds) in [(json!(30), 30_000), (json!(0.25), 250), (json!(1e-3), 1)] {
            let request = parse(&json!({"command": ["true"], "timeout_s": seconds})).unwrap();
            assert_eq!(request.limits.wall_ms, Some(milliseconds));
        }
    }

    #[test]
    fn what_breaks_the_contract_is_refused() {
        for more in [
            json!({}),
            json!({"command": []}),
            json!({"command": "echo a"}),
            json!({"command": ["echo", 1]}),
            json!({"command": ["a\u{0}b"]}),
            json!({"command": ["echo"], "action": {"kind": "command", "pipeline": [["echo"]]}}),
            json!({"action": "echo"}),
            json!({"action": {"kind": "command", "pipeline": [["cat"]], "stdin": "x"}, "stdin": "x"}),
            json!({"action": {"kind": "check", "criteria": []}}),
            json!({"command": ["true"], "shell": true}),
            json!({"command": ["true"], "lang": "bash"}),
            json!({"command": ["true"], "collect": ["/etc/*"]}),
            json!({"command": ["true"], "collect": ["a/../../b"]}),
            json!({"command": ["true"], "collect": ["["]}),
            json!({"command": ["true"], "collect": vec!["a"; 33]}),
            json!({"command": ["true"], "limits": {"workspace_bytes": 0}}),
            json!({"script": "true", "lang": "perl"}),
            json!({"script": {"lang": "bash"}}),
            json!({"script": {"lang": "bash", "source": "true"}, "lang": "bash"}),
            json!({"script": {"lang": "bash", "source": "true", "path": "x"}}),
            json!({"command": ["true"], "timeout_s": 0}),
            json!({"command": ["true"], "timeout_s": -1}),
            json!({"command": ["true"], "timeout_s": -0.0}),
            json!({"command": ["true"], "timeout_s": 1e-9}),
            json!({"command": ["true"], "timeout_s": 1e300}),
            json!({"command": ["true"], "timeout_s": "30"}),
            json!({"command": ["true"], "timeout_s": true}),
            json!({"command": ["true"], "timeout_s": 1, "limits": {"wall_ms": 1000}}),
            json!({"command": ["true"], "limits": {"wall_ms": 0}}),
            json!({"command": ["true"], "limits": {"wall_ms": -1}}),
            json!({"command": ["true"], "limits": {"wall_ms": 1.5}}),
            json!({"command": ["true"], "limits": {"memory_bytes": 1}}),
            json!({"command": ["true"], "limits": {"cores": 2}}),
            json!({"command": ["true"], "files": [{"path": "../a", "type": "file"}]}),
            json!({"command": ["true"], "files": [{"path": "/a", "type": "file"}]}),
            json!({"command": ["true"], "files": [{"path": "a", "type": "symlink", "target": "/etc"}]}),
            json!({"command": ["true"], "files": [{"path": "a", "type": "symlink", "target": "../x"}]}),
            json!({"command": ["true"], "files": [{"path": "a", "type": "device"}]}),
        ] {
            let code = parse(&more).map_err(|refusal| refusal.code);
            assert_eq!(code.err(), Some(ErrorCode::InvalidRequest), "{more}");
        }
        for text in [
            "",
            "null",
            "[]",
            r#"{"command": ["true"], "command": ["sh"]}"#,
            r#"{"command": ["true"], "timeout_s": NaN}"#,
            r#"{"command": ["true"], "timeout_s": 1e999}"#,
            r#"{"command": ["true"]} {}"#,
        ] {
            assert!(Request::parse(text.as_bytes()).is_err(), "accepted {text}");
        }
        let large = vec![b' '; MAX_REQUEST_BYTES + 1];
        assert_eq!(
            Request::parse(&large).unwrap_err().code,
            ErrorCode::PayloadTooLarge
        );
    }
}
