//! No argument vector yields an execution that the policy does not list. The oracle does not know the grammars: it looks
//! at what would be started, and knows of each tool that starts others where the name of a program stands.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use octollm_executor::action::Command;
use octollm_executor::policy::Policy;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

static POLICY: LazyLock<Policy> = LazyLock::new(|| Policy::load(None).unwrap());

/// Tools that can start others, some that can't, and what attackers and honest planners write.
const FRAGMENTS: [&str; 96] = [
    "find",
    "xargs",
    "env",
    "timeout",
    "sed",
    "awk",
    "tar",
    "git",
    "sort",
    "split",
    "zip",
    "jq",
    "wc",
    "cat",
    "echo",
    "sh",
    "bash",
    "/bin/sh",
    "python3",
    "./x",
    "-exec",
    "-execdir",
    "-ok",
    ";",
    "+",
    "{}",
    "{} +",
    "a{}",
    "(",
    ")",
    "!",
    "-name",
    "-delete",
    "-print",
    ".",
    "a",
    "d/b",
    "/work/a",
    "/etc/passwd",
    "../a",
    "-",
    "--",
    "-I{}",
    "-I",
    "%",
    "-i",
    "-n1",
    "-n",
    "1",
    "5",
    "-0",
    "-a",
    "-S",
    "-Ssh",
    "--split-string=sh",
    "-u",
    "PATH",
    "LC_ALL=C",
    "PATH=/work",
    "x=1",
    "LD_PRELOAD=a",
    "-s",
    "KILL",
    "-k",
    "1e id",
    "s/a/b/",
    "s/a/b/e",
    "w a",
    "p",
    "-e",
    "-f",
    "--expression=e",
    "{ print $1 }",
    "BEGIN { system(\"id\") }",
    "{ print | \"sh\" }",
    "-F,",
    "-v",
    "-W",
    "-cf",
    "-xf",
    "-czf",
    "--to-command=sh",
    "--checkpoint-action=exec=sh",
    "-Ish",
    "--rsh-command=sh",
    "a:b",
    "log",
    "diff",
    "-c",
    "core.pager=sh",
    "--ext-diff",
    "--exec-path=/work",
    "--compress-program=sh",
    "--filter=sh",
    "-TT",
    "-rTT",
];

/// Arguments that make a tool start what they name, by any spelling of their begin.
const STARTERS: [(&str, &[&str]); 6] = [
    ("sort", &["--co"]),
    ("split", &["--fi"]),
    (
        "tar",
        &[
            "-I",
            "-F",
            "--us",
            "--to-c",
            "--checkpoint-a",
            "--rs",
            "--rm",
            "--in",
            "--ne",
        ],
    ),
    ("zip", &["-T", "-rT", "--u", "-r-T"]),
    (
        "git",
        &["--ext", "--exec", "--upload", "--textconv", "--edit"],
    ),
    ("diff", &["-l", "--pag"]),
];

/// What is wrong with a program's arguments; none if nothing unlisted can be started by them.
fn fault(name: &str, arguments: &[String], listed: &BTreeSet<PathBuf>) -> Option<String> {
    let starts = STARTERS.iter().find(|(tool, _)| *tool == name);
    let starts = starts.map_or(&[][..], |(_, prefixes)| *prefixes);
    let options = arguments.iter().take_while(|argument| *argument != "--");
    for argument in options {
        if starts.iter().any(|prefix| argument.starts_with(prefix)) {
            return Some(format!("{name} {argument}"));
        }
    }
    match name {
        "find" => {
            let mut rest = arguments.iter().enumerate();
            rest.find_map(|(index, argument)| {
                let runs = argument.starts_with("-exec") || argument.starts_with("-ok");
                let is_value = index > 0 && arguments[index - 1] == "-name";
                (runs && !is_value)
                    .then(|| started(&arguments[index + 1..], listed))
                    .flatten()
            })
        }
        // Whatever stands as a path of a program must be one; and one must be there.
        "xargs" | "timeout" => started_somewhere(name, arguments, listed),
        "env" => {
            // Only the policy writes absolute paths of programs, so the first one is what env starts.
            let program = arguments.iter().position(|one| one.starts_with("/usr/"));
            let before = &arguments[..program.unwrap_or(arguments.len())];
            let fatal = ["LD_", "PATH=", "-S", "--sp"];
            let loads = |one: &&String| fatal.iter().any(|start| one.starts_with(start));
            let is_name = |index: usize| index > 0 && before[index - 1] == "-u";
            let mut others = before.iter().enumerate();
            let stray = others.find(|(index, one)| {
                !one.starts_with('-') && !one.contains('=') && !is_name(*index)
            });
            let stray = stray.map(|(_, stray)| format!("{stray} is started by its name"));
            let unlisted = || program.and_then(|program| started(&arguments[program..], listed));
            before
                .iter()
                .find(loads)
                .cloned()
                .or(stray)
                .or_else(unlisted)
        }
        "sed" => (arguments.first().map(String::as_str) != Some("--sandbox"))
            .then(|| "no sandbox".to_owned()),
        "awk" | "mawk" => {
            let is_value =
                |index: usize| index > 0 && ["-F", "-v"].contains(&arguments[index - 1].as_str());
            let mut others = arguments.iter().enumerate();
            // mawk reads options up to its program and no further.
            let (place, program) =
                others.find(|(index, one)| !one.starts_with('-') && !is_value(*index))?;
            let mut options = arguments[..place].iter();
            let reads = options.any(|one| one.starts_with("-W") || one.starts_with("-f"));
            (reads || program.contains("system") || program.contains("| \""))
                .then(|| program.to_owned())
        }
        _ => None,
    }
}

fn started_somewhere(
    name: &str,
    arguments: &[String],
    listed: &BTreeSet<PathBuf>,
) -> Option<String> {
    match arguments.iter().position(|one| one.starts_with("/usr/")) {
        Some(place) => started(&arguments[place..], listed),
        None => Some(format!("{name} names no program of the policy")),
    }
}

fn started(argv: &[String], listed: &BTreeSet<PathBuf>) -> Option<String> {
    let Some((program, arguments)) = argv.split_first() else {
        return Some("nothing to start".to_owned());
    };
    let path = PathBuf::from(program);
    if !listed.contains(&path) {
        return Some(format!("{program} is not of the policy"));
    }
    let name = path.file_name().unwrap().to_string_lossy().into_owned();
    let end = arguments.iter().position(|one| one == ";");
    fault(&name, &arguments[..end.unwrap_or(arguments.len())], listed)
}

fn permit(argv: &[String]) -> Option<octollm_executor::policy::Permit> {
    let command = Command {
        pipeline: vec![argv.to_vec()],
        stdin: None,
        redirect: None,
    };
    POLICY.permit(&command).ok()
}

#[test]
fn no_argument_vector_starts_what_is_not_listed() {
    // Where the host keeps what the policy names; awk is mawk there.
    let listed: BTreeSet<PathBuf> = POLICY
        .commands()
        .map(|name| Path::new("/usr/bin").join(if name == "awk" { "mawk" } else { name }))
        .collect();
    let config = Config {
        cases: 40_000,
        failure_persistence: None,
        ..Config::default()
    };
    let random = TestRng::from_seed(RngAlgorithm::ChaCha, &[13; 32]);
    let mut runner = TestRunner::new_with_rng(config, random);
    let vectors = prop::collection::vec(prop::sample::select(&FRAGMENTS[..]), 1..9);
    let permitted = std::cell::Cell::new(0);
    runner
        .run(&vectors, |fragments| {
            let argv: Vec<String> = fragments.iter().map(|&one| one.to_owned()).collect();
            if let Some(permit) = permit(&argv) {
                permitted.set(permitted.get() + 1);
                let stage = &permit.stages[0];
                prop_assert!(stage.path.is_absolute());
                let found = fault(&stage.argv[0], &stage.argv[1..], &listed);
                prop_assert!(
                    found.is_none(),
                    "{argv:?} became {:?}: {found:?}",
                    stage.argv
                );
            }
            Ok(())
        })
        .unwrap();
    assert!(
        permitted.get() > 400,
        "only {} vectors were permitted",
        permitted.get()
    );
}
