use std::sync::LazyLock;

use super::*;

static BUILT_IN: LazyLock<Policy> = LazyLock::new(|| Policy::load(None).unwrap());

fn command(stages: &[&[&str]]) -> Command {
    let owned = |argv: &&[&str]| argv.iter().map(|&argument| argument.to_owned()).collect();
    Command {
        pipeline: stages.iter().map(owned).collect(),
        stdin: None,
        redirect: None,
    }
}

fn permits(argv: &[&str]) -> Result<Permit, Denied> {
    BUILT_IN.permit(&command(&[argv]))
}

fn denial(argv: &[&str]) -> String {
    permits(argv).unwrap_err().to_string()
}

#[test]
fn every_example_of_the_policy_comes_out_as_it_says() {
    let policy = &*BUILT_IN;
    assert_eq!(policy.failing_examples(), Vec::<String>::new());
}

#[test]
fn an_example_that_comes_out_otherwise_is_named() {
    let text = DEFAULT.replacen("deny = [[\"x\"], []]", "deny = [[\"5\"], []]", 1);
    let failing = Policy::parse(&text).unwrap().failing_examples();
    assert_eq!(failing, ["[\"seq\"] [\"5\"] should be denied"]);
}

#[test]
fn a_listed_command_becomes_its_absolute_path() {
    let permit = permits(&["sort", "-r", "-k2"]).unwrap();
    assert_eq!(permit.stages[0].path, Path::new("/usr/bin/sort"));
    assert_eq!(permit.stages[0].argv, ["sort", "-r", "-k2"]);
    assert_eq!(permit.view, [Path::new("/usr/bin/sort")]);
}

#[test]
fn what_is_not_listed_is_denied_with_what_is() {
    for name in ["bash", "sh", "python3", "perl", "curl", "no-such"] {
        let denial = denial(&[name]);
        assert!(
            denial.contains(name) && denial.contains(" grep "),
            "{denial}"
        );
        assert!(denial.starts_with("stage 1: "), "{denial}");
    }
}

#[test]
fn only_bare_names_are_looked_up() {
    for name in [
        "/usr/bin/cat",
        "./cat",
        "../cat",
        "bin/cat",
        "CAT",
        "cаt",
        "cat ",
        "",
        "-cat",
        ".",
        "..",
        "c\nat",
    ] {
        assert!(permits(&[name]).is_err(), "{name:?} was permitted");
    }
}

#[test]
fn every_stage_is_checked_and_named() {
    let pipeline = command(&[&["cat", "a"], &["wc", "--lin"]]);
    let denied = BUILT_IN.permit(&pipeline).unwrap_err();
    assert_eq!(denied.stage, Some(2));
    assert_eq!(
        denied.to_string(),
        "stage 2, wc: \"--lin\" is an option's name cut short; allowed is the full name, --lines"
    );
}

#[test]
fn what_a_command_runs_is_read_and_shown_too() {
    let permit = permits(&[
        "find", ".", "-exec", "env", "LC_ALL=C", "sort", "{}", ";", "-exec", "wc", "-l", "{}", "+",
    ])
    .unwrap();
    assert_eq!(
        permit.stages[0].argv,
        [
            "find",
            ".",
            "-exec",
            "/usr/bin/env",
            "LC_ALL=C",
            "/usr/bin/sort",
            "--",
            "{}",
            ";",
            "-exec",
            "/usr/bin/wc",
            "-l",
            "--",
            "{}",
            "+",
        ]
    );
    let programs = ["env", "find", "sort", "wc"].map(|name| Path::new("/usr/bin").join(name));
    assert_eq!(permit.view, programs);
    let denial = denial(&["xargs", "timeout", "5", "env", "x=1", "sh", "-c", "id"]);
    assert!(denial.contains("xargs > timeout > env: \"sh\""), "{denial}");
}

#[test]
fn what_others_fill_in_can_be_no_option() {
    for (argv, written) in [
        (vec!["xargs", "sort"], "xargs /usr/bin/sort --"),
        (
            vec!["xargs", "sort", "-r", "a"],
            "xargs /usr/bin/sort -r -- a",
        ),
        (vec!["xargs", "sort", "--", "a"], "xargs /usr/bin/sort -- a"),
        (
            vec!["xargs", "-I{}", "cp", "-v", "{}", "d"],
            "xargs -I{} /usr/bin/cp -v -- {} d",
        ),
        (
            vec!["xargs", "-I{}", "sort", "-o", "{}.out", "a"],
            "xargs -I{} /usr/bin/sort -o {}.out a",
        ),
        (vec!["xargs", "head", "-3"], "xargs /usr/bin/head -n 3 --"),
        (
            vec!["xargs", "sed", "s/a/b/"],
            "xargs /usr/bin/sed --sandbox -- s/a/b/",
        ),
        (vec!["xargs", "echo", "-n"], "xargs /usr/bin/echo -n"),
    ] {
        assert_eq!(permits(&argv).unwrap().stages[0].argv.join(" "), written);
    }
    let late = denial(&["xargs", "sort", "a", "-r"]);
    assert!(late.contains("the options come first"), "{late}");
}

#[test]
fn fixed_arguments_come_before_what_was_asked_for() {
    assert_eq!(
        permits(&["sed", "-n", "p"]).unwrap().stages[0].argv,
        ["sed", "--sandbox", "-n", "p"]
    );
    let git = permits(&["git", "diff", "--stat"])
        .unwrap()
        .stages
        .remove(0)
        .argv;
    assert!(
        git.windows(2)
            .any(|pair| pair == ["-c", "core.hooksPath=/dev/null"]),
        "{git:?}"
    );
    assert_eq!(
        git[git.len() - 4..],
        ["diff", "--no-ext-diff", "--no-textconv", "--stat"]
    );
}

#[test]
fn arguments_are_read_as_what_they_are() {
    let permit = permits(&["sort", "-rk2", "-t", ",", "--", "-a"]).unwrap();
    let value = |value: &str, kind: &str| Value {
        value: value.to_owned(),
        kind: kind.to_owned(),
    };
    let option = |name: &str, values| Part::Option {
        name: name.to_owned(),
        values,
    };
    assert_eq!(
        permit.readings[0].parts,
        [
            option("-r", vec![]),
            option("-k", vec![value("2", "key")]),
            option("-t", vec![value(",", "delimiter")]),
            Part::Operand(value("-a", "path")),
        ]
    );
}

#[test]
fn a_denial_is_bounded() {
    let long = "x".repeat(16_000);
    for argv in [
        vec!["cat", "--", "a", &long, "../a"],
        vec!["ls", "--no-such"],
        vec!["wc", "-l", &long],
    ] {
        if let Err(denied) = permits(&argv) {
            assert!(denied.to_string().chars().count() < 1000, "{denied}");
        }
    }
}

#[test]
fn limits_above_the_maximum_are_denied() {
    let policy = &*BUILT_IN;
    let usual = RequestedLimits::of(30_000, 512 << 20, 1 << 20);
    let limits = policy.permit_limits(&usual).unwrap();
    assert_eq!((limits.output_bytes, limits.processes), (1 << 20, 64));
    let fewer = RequestedLimits {
        wall_ms: 300_000,
        processes: Some(2),
        ..usual
    };
    assert_eq!(policy.permit_limits(&fewer).unwrap().processes, 2);
    for (name, asked) in [
        (
            "output_bytes",
            RequestedLimits {
                output_bytes: 2 << 20,
                ..usual
            },
        ),
        (
            "processes",
            RequestedLimits {
                processes: Some(65),
                ..usual
            },
        ),
        (
            "wall_ms",
            RequestedLimits {
                wall_ms: 300_001,
                ..usual
            },
        ),
    ] {
        let denial = policy.permit_limits(&asked).unwrap_err().to_string();
        assert!(
            denial.contains(name) && denial.contains("allowed are up to"),
            "{denial}"
        );
    }
}

#[test]
fn a_command_that_the_host_lacks_is_not_offered() {
    let usual = &*BUILT_IN;
    let text = DEFAULT.replace("/usr/bin/sort", "/nonexistent/sort");
    let policy = Policy::parse(&text).unwrap();
    assert!(!policy.commands().any(|name| name == "sort"));
    assert!(policy.missing()["sort"].contains("/nonexistent/sort"));
    assert_ne!(policy.digest(), usual.digest());
    assert_eq!(usual.digest(), Policy::load(None).unwrap().digest());
}

#[test]
fn a_program_with_another_digest_is_not_offered() {
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("true");
    let write = |content: &str| {
        std::fs::write(&program, content).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    };
    write("one");
    let digest = hex::encode(Sha256::digest("one"));
    let path = program.to_str().unwrap();
    let pinned = DEFAULT.replace(
        "\"/usr/bin/true\"",
        &format!("\"{path}\"\nsha256 = \"{digest}\""),
    );
    let loose = DEFAULT.replace("/usr/bin/true", path);
    let before = Policy::parse(&loose).unwrap();
    assert!(
        Policy::parse(&pinned)
            .unwrap()
            .commands()
            .any(|name| name == "true")
    );
    write("two");
    let policy = Policy::parse(&pinned).unwrap();
    assert!(!policy.commands().any(|name| name == "true"));
    assert!(policy.missing()["true"].contains("digest"));
    assert_ne!(before.digest(), Policy::parse(&loose).unwrap().digest());
}

#[test]
fn what_needs_an_approval_does_not_run_without() {
    let text = DEFAULT.replacen("commands = []", "commands = [\"rm\"]", 1);
    let policy = Policy::parse(&text).unwrap();
    assert!(policy.needs_approval("rm") && !policy.needs_approval("cat"));
    for argv in [&["rm", "a"][..], &["xargs", "rm"]] {
        let denied = policy.permit(&command(&[argv])).unwrap_err().to_string();
        assert!(denied.contains("\"rm\" needs an approval"), "{denied}");
    }
    assert!(policy.permit(&command(&[&["cat", "a"]])).is_ok());
}

#[test]
fn a_script_runs_only_where_its_language_is_granted() {
    let denied = BUILT_IN.permit_script("bash").unwrap_err().to_string();
    assert!(
        denied.contains("\"bash\"") && denied.contains("none"),
        "{denied}"
    );

    let granted = "[scripts.bash]\npath = \"/usr/bin/bash\"\narguments = [\"--norc\"]\ncommands = [\"sort\"]\n";
    let policy = Policy::parse(&format!("{DEFAULT}\n{granted}")).unwrap();
    let bash = policy.permit_script("bash").unwrap();
    assert_eq!(bash.program, Path::new("/usr/bin/bash"));
    assert_eq!(bash.arguments, ["--norc"]);
    assert_eq!(bash.view, ["/usr/bin/bash", "/usr/bin/sort"].map(Path::new));
    assert_ne!(policy.digest(), BUILT_IN.digest());
    let denied = policy.permit_script("python").unwrap_err().to_string();
    assert!(denied.contains("allowed are: bash"), "{denied}");
}

#[test]
fn a_malformed_policy_is_refused() {
    for (from, to) in [
        ("version = 2", "version = 1"),
        ("[maximum]", "[maxima]"),
        ("\"/usr/bin/cat\"", "\"cat\""),
        ("[commands.cat]", "[commands.\"../cat\"]"),
        ("processes = 64", "processes = -1"),
        ("processes = 64", "processes = 0"),
        ("wall_ms = 300000", "wall_ms = 1"),
        ("operands = [\"path*\"]", "operands = [\"file*\"]"),
        (
            "operands = [\"path*\"]",
            "operands = [\"path*\", \"path*\"]",
        ),
        ("operands = [\"path*\"]", "operand = [\"path*\"]"),
        (
            "numbers = { option = \"-n\" }",
            "numbers = { option = \"-q\" }",
        ),
        ("switches = \"-A -b", "switches = \"-A -A"),
        ("switches = \"-A -b", "switches = \"-A b"),
        ("switches = \"-A -b", "switches = \"-A -boo"),
        ("executes = [\"*\"]", "executes = []"),
        ("executes = [\"*\"]", "executes = [\"bash\"]"),
        ("prefix = [\"-d\"]", "prefix = [\"{}\"]"),
        ("require = [\"-b\",", "require = [\"-q\","),
        ("pattern = '[a-z]", "pattern = '["),
        ("commands = []", "commands = [\"no-such\"]"),
    ] {
        let text = DEFAULT.replacen(from, to, 1);
        assert_ne!(text, DEFAULT, "{from} does not stand in the policy");
        assert!(Policy::parse(&text).is_err(), "{to} was accepted");
    }
}
