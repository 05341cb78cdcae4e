//! Every command that the built-in policy offers works behind all layers, as the policy has it started.

use std::collections::BTreeSet;

use octollm_executor::action::Command;
use octollm_executor::policy::Policy;
use octollm_executor::sandbox::StageExit;

use super::*;

/// A call of each command, its exit code, and what it prints; `a` holds the lines 3, 1, 2.
const CALLS: [(&[&str], u8, &str); 59] = [
    (
        &["awk", "-F,", "{ s += $1 } END { print s }", "a"],
        0,
        "6\n",
    ),
    (&["base64", "a"], 0, "MwoxCjIK\n"),
    (&["basename", "/x/y"], 0, "y\n"),
    (&["bc", "sum"], 0, "42\n"),
    (&["cat", "a"], 0, "3\n1\n2\n"),
    (&["chmod", "u+x,go-w", "empty"], 0, ""),
    (&["cmp", "a", "a"], 0, ""),
    (&["comm", "-12", "a", "a"], 0, "3\n1\n2\n"),
    (&["cp", "-a", "a", "copy"], 0, ""),
    (&["cut", "-c", "1", "a"], 0, "3\n1\n2\n"),
    (&["date", "-u", "-d", "@0", "+%F"], 0, "1970-01-01\n"),
    (&["diff", "a", "empty"], 1, "1,3d0\n< 3\n< 1\n< 2\n"),
    (&["dirname", "/x/y"], 0, "/x\n"),
    (&["du", "-b", "word"], 0, "4\tword\n"),
    (&["echo", "x"], 0, "x\n"),
    (&["env", "-i", "LANG=C", "env"], 0, "LANG=C\n"),
    (&["expr", "1", "+", "1"], 0, "2\n"),
    (&["false"], 1, ""),
    (&["file", "-b", "word"], 0, "ASCII text\n"),
    (
        &[
            "find", "a", "-name", "a", "-exec", "env", "wc", "-l", "{}", "+",
        ],
        0,
        "3 a\n",
    ),
    (&["fold", "-w", "2", "word"], 0, "ab\nc\n"),
    (&["git", "init", "-q", "repository"], 0, ""),
    (&["grep", "-r", "2", "a"], 0, "2\n"),
    (&["gzip", "-k", "word"], 0, ""),
    (&["gunzip", "-c", "word.gz"], 0, "abc\n"),
    (&["head", "-1", "a"], 0, "3\n"),
    (&["join", "word", "word"], 0, "abc\n"),
    (&["jq", "-c", ".a", "json"], 0, "[1]\n"),
    (&["ln", "-s", "a", "link"], 0, ""),
    (
        &["ls", "-l", "word"],
        0,
        "-rw-r--r-- 1 1000 1000 4 Jan  1  2000 word\n",
    ),
    (
        &["md5sum", "empty"],
        0,
        "d41d8cd98f00b204e9800998ecf8427e  empty\n",
    ),
    (&["mkdir", "-p", "d/e"], 0, ""),
    (&["mv", "copy", "d/e/moved"], 0, ""),
    (&["nl", "-ba", "-w1", "-s:", "a"], 0, "1:3\n2:1\n3:2\n"),
    (&["paste", "-s", "-d,", "a"], 0, "3,1,2\n"),
    (&["printf", "%03d", "7"], 0, "007"),
    (&["rev", "word"], 0, "cba\n"),
    (&["rm", "-r", "d"], 0, ""),
    (&["sed", "-n", "2s/1/x/p", "a"], 0, "x\n"),
    (&["seq", "2"], 0, "1\n2\n"),
    (
        &["sha256sum", "empty"],
        0,
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855  empty\n",
    ),
    (&["sleep", "0.01"], 0, ""),
    (&["sort", "--parallel=4", "-S", "1M", "a"], 0, "1\n2\n3\n"),
    (&["split", "-l", "2", "a", "part-"], 0, ""),
    (&["stat", "-c", "%s %F", "a"], 0, "6 regular file\n"),
    (&["tac", "a"], 0, "2\n1\n3\n"),
    (&["tail", "-n", "1", "a"], 0, "2\n"),
    (&["tar", "-cf", "t.tar", "a"], 0, ""),
    (&["tee", "/dev/stderr", "new"], 0, "in\n"),
    (&["test", "-s", "new"], 0, ""),
    (&["timeout", "20", "true"], 0, ""),
    (&["touch", "-d", "@0", "a"], 0, ""),
    (&["tr", "i", "o"], 0, "on\n"),
    (&["true"], 0, ""),
    (&["uniq", "-c", "word"], 0, "      1 abc\n"),
    (&["wc", "-l", "a"], 0, "3 a\n"),
    (&["xargs", "-I{}", "echo", "<{}>"], 0, "<in>\n"),
    (&["zip", "-q", "z.zip", "a", "word"], 0, ""),
    (&["unzip", "-p", "z.zip", "word"], 0, "abc\n"),
];

#[tokio::test]
async fn every_command_of_the_policy_works() {
    let policy = Policy::load(None).unwrap();
    // Whatever this host lacks is listed and not offered.
    let missing: BTreeSet<&str> = policy.missing().keys().map(String::as_str).collect();
    let listed: BTreeSet<&str> = policy.commands().chain(missing.iter().copied()).collect();
    let called: BTreeSet<&str> = CALLS.iter().map(|(argv, ..)| argv[0]).collect();
    assert_eq!(called, listed, "the table is not that of the policy");

    let bench = Bench::new();
    bench
        .shell("printf '3\\n1\\n2\\n' > a; touch empty; echo abc > word; touch -d 2000-01-01 word; echo '{\"a\": [1]}' > json; printf '6*7\\nquit\\n' > sum")
        .await;
    let mut others = Vec::new();
    let present = |argv: &[&str]| argv.iter().all(|word| !missing.contains(word));
    for (argv, code, printed) in CALLS.into_iter().filter(|(argv, ..)| present(argv)) {
        let command = Command {
            pipeline: vec![argv.iter().map(|&argument| argument.to_owned()).collect()],
            stdin: None,
            redirect: None,
        };
        let mut job = bench.job(&[argv]);
        let permit = policy.permit(&command).unwrap();
        job.stages = permit.stages;
        job.view = View::Granted(permit.view);
        job.stdin = Some(
            b"in
"
            .to_vec(),
        );
        let run = bench.run_job(job).await.unwrap();
        if (run.stages.as_slice(), stdout(&run).as_str())
            != ([StageExit::Code(code)].as_slice(), printed)
        {
            others.push(format!(
                "{argv:?}: {:?} {:?} {}",
                run.stages,
                stdout(&run),
                stderr(&run)
            ));
        }
    }
    assert!(others.is_empty(), "{}", others.join("\n"));
}
