//! The form of the table, and the judgement of an answer.

use octollm_executor::exec::{Admission, Answer};
use octollm_executor::sandbox::Layer;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::host::Host;

/// What a script prints that has got what it must not get.
const ESCAPED: &str = "ESCAPED";
/// What a script prints once it has done what is allowed.
const CONTROL: &str = "CONTROL";
/// What every Python script begins with: `call` makes a system call, `attempt` says what came of something.
const PRELUDE: &str = include_str!("prelude.py");
const TABLE: [(&str, &str); 10] = [
    ("files", include_str!("table/files.toml")),
    ("processes", include_str!("table/processes.toml")),
    ("kernel", include_str!("table/kernel.toml")),
    ("network", include_str!("table/network.toml")),
    ("leaks", include_str!("table/leaks.toml")),
    ("bombs", include_str!("table/bombs.toml")),
    ("survivors", include_str!("table/survivors.toml")),
    ("forgery", include_str!("table/forgery.toml")),
    ("injection", include_str!("table/injection.toml")),
    ("requests", include_str!("table/requests.toml")),
];

/// A request, and what must not come of it.
#[derive(Debug)]
pub struct Case {
    pub class: String,
    pub id: String,
    /// Requests that prepare the same workspace.
    pub before: Vec<String>,
    /// A request that must succeed under the same rules.
    pub control: Option<String>,
    /// The attack. `{canary}` and the like stand for what the host has: [`Host::fill`].
    pub request: String,
    form: Form,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    attack: Vec<Form>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Form {
    id: String,
    #[serde(default)]
    before: Vec<Work>,
    control: Option<Vec<String>>,
    bash: Option<String>,
    python: Option<String>,
    command: Option<Value>,
    /// The request itself.
    raw: Option<String>,
    /// Further members of the request.
    #[serde(default)]
    with: Map<String, Value>,
    /// Codes that are right where the policy is bypassed; OK is none.
    codes: Option<Vec<String>>,
    /// The same where it is in force.
    listed: Option<Vec<String>>,
    exit_code: Option<u8>,
    truncated: Option<bool>,
    /// What stdout must hold; of scripts, CONTROL unless said otherwise.
    shows: Option<Vec<String>>,
    /// What no output and no artifact may hold, besides the host's secret.
    #[serde(default)]
    hides: Vec<String>,
    /// The artifacts, where the step ends well.
    artifacts: Option<Vec<String>>,
    /// A layer that not every host has.
    needs: Option<String>,
}

/// One action of what comes before.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Work {
    bash: Option<String>,
    python: Option<String>,
}

/// Every case of the table.
pub fn all() -> Vec<Case> {
    let mut cases = Vec::new();
    for (class, text) in TABLE {
        let table: Table = toml::from_str(text).unwrap_or_else(|error| panic!("{class}: {error}"));
        cases.extend(table.attack.into_iter().map(|form| Case::new(class, form)));
    }
    cases
}

impl Case {
    fn new(class: &str, form: Form) -> Self {
        let mut members = form.with.clone();
        if let Some(script) = script(form.bash.as_deref(), form.python.as_deref()) {
            members.insert("script".to_owned(), script);
        } else if let Some(command) = &form.command
            && !members.contains_key("action")
        {
            members.insert("command".to_owned(), command.clone());
        }
        let before = form.before.iter().map(|work| {
            let script = script(work.bash.as_deref(), work.python.as_deref());
            json!({"script": script}).to_string()
        });
        Self {
            class: class.to_owned(),
            id: form.id.clone(),
            before: before.collect(),
            control: form.control.as_ref().map(|argv| {
                let files = form.with.get("files").cloned().unwrap_or_else(|| json!([]));
                json!({"command": argv, "files": files}).to_string()
            }),
            request: form
                .raw
                .clone()
                .unwrap_or_else(|| Value::Object(members).to_string()),
            form,
        }
    }

    /// Whether it can't be tried where these layers are in force.
    pub fn is_lacking(&self, layers: &[Layer]) -> bool {
        let has = |name: &str| layers.iter().any(|layer| layer.as_str() == name);
        self.form.needs.as_ref().is_some_and(|layer| !has(layer))
    }

    fn is_script(&self) -> bool {
        self.form.bash.is_some()
            || self.form.python.is_some()
            || self.form.with.contains_key("script")
    }

    /// What is wrong with the answer.
    pub fn judge(
        &self,
        answer: &Answer,
        admission: Admission,
        host: &Host,
        marker: &str,
    ) -> Vec<String> {
        let form = &self.form;
        let strings = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect();
        let codes: Vec<String> = match (admission, &form.codes, &form.listed) {
            (Admission::Listed, _, Some(codes)) => codes.clone(),
            (_, Some(codes), _) if form.raw.is_some() => codes.clone(),
            (_, None, _) if form.raw.is_some() => strings(&["INVALID_REQUEST"]),
            (Admission::Listed, Some(codes), None) if *codes == ["INVALID_REQUEST"] => {
                codes.clone()
            }
            (Admission::Listed, Some(codes), None)
                if codes.iter().any(|code| code == "INVALID_REQUEST") =>
            {
                strings(&["POLICY_DENIED", "INVALID_REQUEST"])
            }
            (Admission::Listed, _, None) => strings(&["POLICY_DENIED"]),
            (Admission::Unlisted, Some(codes), _) => codes.clone(),
            (Admission::Unlisted, None, _) => strings(&["OK"]),
        };
        let code = answer.code.map_or("OK", |code| code.as_str());
        let mut problems = Vec::new();
        let mut expect = |holds: bool, what: String| {
            if !holds {
                problems.push(what);
            }
        };
        expect(
            codes.iter().any(|one| one == code),
            format!("{code}, not {codes:?}"),
        );
        let secret = host.secret();
        let hides = form.hides.iter().map(|text| host.fill(text, marker));
        let echoes = form.raw.is_some() || code == "POLICY_DENIED";
        for hidden in hides.chain([ESCAPED.to_owned(), secret.to_owned()]) {
            let in_output = answer.stdout.contains(&hidden) || answer.stderr.contains(&hidden);
            expect(!in_output, format!("shows {hidden:?}"));
            let in_message = answer
                .message
                .as_ref()
                .is_some_and(|message| message.contains(&hidden));
            expect(echoes || !in_message, format!("tells {hidden:?}"));
        }
        for (path, artifact) in &answer.artifacts {
            let content = artifact.content();
            let holds_secret = content
                .windows(secret.len())
                .any(|part| part == secret.as_bytes());
            expect(!holds_secret, format!("{path} holds the secret"));
        }
        if admission == Admission::Unlisted || code == "OK" {
            let control = if self.is_script() {
                strings(&[CONTROL])
            } else {
                Vec::new()
            };
            for shown in form.shows.as_ref().unwrap_or(&control) {
                expect(
                    answer.stdout.contains(shown),
                    format!("does not show {shown:?}"),
                );
            }
            if let Some(exit_code) = form.exit_code {
                let seen = answer.exit_code;
                expect(seen == Some(exit_code), format!("exit code {seen:?}"));
            }
            if let Some(truncated) = form.truncated {
                expect(answer.truncated == truncated, "truncated or not".to_owned());
            }
        }
        if let (Some(expected), "OK") = (&form.artifacts, code) {
            let seen: Vec<&String> = answer.artifacts.keys().collect();
            expect(
                seen.iter().copied().eq(expected),
                format!("artifacts {seen:?}"),
            );
        }
        if !problems.is_empty() {
            problems.push(shortened(answer));
        }
        problems
    }
}

fn script(bash: Option<&str>, python: Option<&str>) -> Option<Value> {
    let (lang, source) = match (bash, python) {
        (Some(source), _) => ("bash", source.to_owned()),
        (None, Some(source)) => ("python", format!("{PRELUDE}{source}")),
        (None, None) => return None,
    };
    Some(json!({"lang": lang, "source": source}))
}

fn shortened(answer: &Answer) -> String {
    let short = |text: &str| text.chars().take(3000).collect::<String>();
    format!(
        "{:?} {:?} {:?}\n  stdout: {}\n  stderr: {}",
        answer.code,
        answer.exit_code,
        answer.message,
        short(&answer.stdout),
        short(&answer.stderr)
    )
}
