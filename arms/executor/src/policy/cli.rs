//! `octo policy`: checks, explains and compares policies.
//!
//! Exit codes: 0 it is so; 1 a denial, a difference or a failing example; 2 a policy or arguments that can't be used.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::ExitCode;

use clap::Subcommand;
use serde_json::json;

use super::{InvalidPolicy, Invocation, Part, Policy, Value};
use crate::action::Command;

/// Stands for the policy that comes with the executor.
const BUILT_IN: &str = "default";

/// Check, explain or compare policies of the executor.
#[derive(Debug, Subcommand)]
pub enum Arguments {
    /// Problems of a policy, failing examples, what this host lacks, and the digest in force
    Check {
        /// A file, or `default`
        policy: String,
    },
    /// How commands may be called; or, behind `--`, whether a command may run and how it is read
    Explain {
        /// A file, or `default`
        #[arg(default_value = BUILT_IN)]
        policy: String,
        /// One command instead of all
        command: Option<String>,
        /// JSON
        #[arg(long)]
        json: bool,
        /// A command and its arguments
        #[arg(last = true)]
        argv: Vec<String>,
    },
    /// What a new policy allows and denies otherwise than an old one
    Diff {
        /// A file, or `default`
        old: String,
        /// A file, or `default`
        new: String,
    },
}

/// Runs `octo policy`.
#[must_use]
pub fn main(arguments: &Arguments) -> ExitCode {
    let answered = match arguments {
        Arguments::Check { policy } => load(policy).map(|policy| check(&policy)),
        Arguments::Explain {
            policy,
            command,
            json,
            argv,
        } => load(policy).map(|policy| match (argv.is_empty(), command) {
            (false, _) => judge(&policy, argv, *json),
            (true, command) => explain(&policy, command.as_deref(), *json),
        }),
        Arguments::Diff { old, new } => load(old).and_then(|old| Ok(diff(&old, &load(new)?))),
    };
    match answered {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(problem) => {
            eprintln!("{problem}");
            ExitCode::from(2)
        }
    }
}

fn load(name: &str) -> Result<Policy, InvalidPolicy> {
    Policy::load((name != BUILT_IN).then(|| Path::new(name)))
}

fn check(policy: &Policy) -> bool {
    let failing = policy.failing_examples();
    for problem in &failing {
        println!("example: {problem}");
    }
    for (name, problem) in policy.missing() {
        println!("left out on this host: {name}: {problem}");
    }
    println!("{} commands are offered", policy.commands().count());
    println!("digest {}", policy.digest());
    failing.is_empty()
}

fn explain(policy: &Policy, command: Option<&str>, as_json: bool) -> bool {
    let names: Vec<&str> = match command {
        Some(name) => vec![name],
        None => policy.commands().collect(),
    };
    let mut synopses = serde_json::Map::new();
    for name in names {
        let Some(lines) = policy.synopsis(name) else {
            eprintln!(
                "{name} is not a command of this policy; it offers: {}",
                policy.commands().collect::<Vec<_>>().join(" ")
            );
            return false;
        };
        synopses.insert(name.to_owned(), json!(lines));
        if !as_json {
            println!("{}", lines.join("\n"));
        }
    }
    if as_json {
        let document = json!({
            "digest": policy.digest(),
            "commands": synopses,
            "limits": policy.limits(),
            "maximum": policy.maximum(),
        });
        println!("{document}");
    } else if command.is_some() {
        let rule = policy.rules().find(|(name, _)| Some(*name) == command);
        if let Some((_, rule)) = rule {
            for option in &rule.grammar.options {
                println!("  {option}");
            }
        }
    }
    true
}

fn judge(policy: &Policy, argv: &[String], as_json: bool) -> bool {
    let command = Command {
        pipeline: vec![argv.to_vec()],
        stdin: None,
        redirect: None,
    };
    match policy.permit(&command) {
        Ok(permit) if as_json => {
            let document = json!({
                "allowed": true, "reading": permit.readings[0], "argv": permit.stages[0].argv, "view": permit.view,
            });
            println!("{document}");
            true
        }
        Ok(permit) => {
            println!("allowed; this runs: {:?}", permit.stages[0].argv);
            println!("it sees: {:?}", permit.view);
            describe(&permit.readings[0], 1);
            true
        }
        Err(denied) => {
            if as_json {
                println!(
                    "{}",
                    json!({"allowed": false, "reason": denied.to_string()})
                );
            } else {
                println!("denied: {denied}");
            }
            false
        }
    }
}

/// Prints what each argument was read as, what a command runs further in.
fn describe(reading: &Invocation, depth: usize) {
    let margin = "  ".repeat(depth);
    let as_kind = |value: &Value| format!("{:?} ({})", value.value, value.kind);
    for part in &reading.parts {
        let line = match part {
            Part::Fixed(arguments) => format!("put in front: {}", arguments.join(" ")),
            Part::Subcommand(name) => format!("subcommand {name}"),
            Part::Option { name, values } => {
                let values: Vec<String> = values.iter().map(as_kind).collect();
                format!("option {name} {}", values.join(" "))
            }
            Part::Operand(value) => format!("operand {}", as_kind(value)),
            Part::Operator(operator) => format!("operator {operator}"),
            Part::Command(inner) => format!("runs {}", inner.path.display()),
        };
        println!("{margin}{}", line.trim_end());
        if let Part::Command(inner) = part {
            describe(inner, depth + 1);
        }
    }
}

/// Prints what is only in the new policy (`+`) and only in the old one (`-`).
fn diff(old: &Policy, new: &Policy) -> bool {
    let (old, new) = (statements(old), statements(new));
    for gone in old.difference(&new) {
        println!("- {gone}");
    }
    for added in new.difference(&old) {
        println!("+ {added}");
    }
    old == new
}

/// Everything that the policy allows, a line for each.
fn statements(policy: &Policy) -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    for (name, rule) in policy.rules() {
        lines.insert(format!("{name} runs {}", rule.path.display()));
        let own = std::iter::once((name.to_owned(), &rule.grammar, &rule.prefix));
        let subcommands = rule.subcommands.iter();
        let subcommands =
            subcommands.map(|(sub, form)| (format!("{name} {sub}"), &form.grammar, &form.prefix));
        for (name, grammar, prefix) in own.chain(subcommands) {
            for option in &grammar.options {
                lines.insert(format!("{name} {option}"));
            }
            lines.insert(format!(
                "{name} has operands: {}",
                grammar.offered_operands()
            ));
            lines.insert(format!("{name} has in front: {}", prefix.join(" ")));
        }
        if rule.grammar.runs_commands() {
            lines.insert(format!("{name} may run: {}", rule.offered_commands(policy)));
        }
        if policy.needs_approval(name) {
            lines.insert(format!("{name} needs an approval"));
        }
    }
    for (name, script) in &policy.file.scripts {
        lines.insert(format!("script {name} runs {}", script.path.display()));
    }
    for action in &policy.file.approval.actions {
        lines.insert(format!("action {action} needs an approval"));
    }
    lines.insert(format!("limits: {:?}", policy.limits()));
    lines.insert(format!("maximum: {:?}", policy.maximum()));
    lines.insert(format!("hosts: {:?}", policy.hosts()));
    lines
}
