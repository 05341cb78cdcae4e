//! What goes in and what comes out.

use octollm_executor::sandbox::{Ending, HEAD_BYTES, StageExit, TAIL_BYTES};
use sha2::{Digest, Sha256};

use super::*;

#[tokio::test]
async fn a_pipeline_is_wired_without_a_shell() {
    let bench = Bench::new();
    let mut job = bench.job(&[&["sort", "-r"], &["head", "-n", "2"], &["tr", "a-z", "A-Z"]]);
    job.stdin = Some(b"b\nd\na\nc\n".to_vec());
    let run = bench.run_job(job).await.unwrap();
    assert_eq!(stdout(&run), "D\nC\n");
    assert_eq!(run.stages, [StageExit::Code(0); 3]);
    let run = bench.run(&["echo", "$HOME; `id` | * > x"]).await;
    assert_eq!(stdout(&run), "$HOME; `id` | * > x\n");
}

#[tokio::test]
async fn sixteen_stages_run_at_once() {
    let bench = Bench::new();
    let mut stages: Vec<&[&str]> = vec![&["seq", "10000"]];
    stages.extend(vec![&["cat"] as &[&str]; 14]);
    stages.push(&["tail", "-n", "1"]);
    assert_eq!(
        stdout(&bench.run_job(bench.job(&stages)).await.unwrap()),
        "10000\n"
    );
}

#[tokio::test]
async fn each_stage_s_end_is_recorded() {
    let bench = Bench::new();
    let run = bench
        .run_job(bench.job(&[&["false"], &["sh", "-c", "kill -TERM $$"], &["true"]]))
        .await
        .unwrap();
    assert_eq!(
        run.stages,
        [
            StageExit::Code(1),
            StageExit::Signal(15),
            StageExit::Code(0)
        ]
    );
    // The reader leaves early: the writer gets SIGPIPE and does not hang.
    let run = bench
        .run_job(bench.job(&[&["yes"], &["head", "-n", "1"]]))
        .await
        .unwrap();
    assert_eq!(run.stages, [StageExit::Signal(13), StageExit::Code(0)]);
    assert_eq!(stdout(&run), "y\n");
}

#[tokio::test]
async fn stdin_is_given_whole_or_empty() {
    let bench = Bench::new();
    assert_eq!(stdout(&bench.run(&["wc", "-c"]).await), "0\n");
    let mut job = bench.job(&[&["sha256sum"]]);
    let input = "ü\u{1}\n".repeat(16_384);
    job.stdin = Some(input.clone().into_bytes());
    let run = bench.run_job(job).await.unwrap();
    assert!(stdout(&run).starts_with(&hex::encode(Sha256::digest(input))));
}

#[tokio::test]
async fn a_redirect_replaces_or_appends() {
    let bench = Bench::new();
    for (content, append, expected) in [
        ("one\n", false, "one\n"),
        ("2\n", false, "2\n"),
        ("3\n", true, "2\n3\n"),
    ] {
        let mut job = bench.job(&[&["cat"]]);
        job.stdin = Some(content.into());
        job.redirect = Some(redirect("out.txt", append));
        let run = bench.run_job(job).await.unwrap();
        assert_eq!((run.ending, run.stdout.bytes), (Ending::Completed, 0));
        assert_eq!(bench.file("out.txt"), expected);
    }
}

#[tokio::test]
async fn a_redirect_follows_no_link() {
    let bench = Bench::new();
    bench
        .shell("mkdir d; echo kept > target; ln -s target link; ln -s d dlink")
        .await;
    for path in ["link", "dlink/f", "missing/f", "d"] {
        let mut job = bench.job(&[&["echo", "overwritten"]]);
        job.redirect = Some(redirect(path, false));
        let run = bench.run_job(job).await.unwrap();
        assert!(
            matches!(&run.ending, Ending::NotStarted(why) if why.contains(path)),
            "{path}: {:?}",
            run.ending
        );
    }
    assert_eq!(bench.file("target"), "kept\n");
}

#[tokio::test]
async fn a_program_that_is_missing_is_named() {
    let bench = Bench::new();
    let run = bench.run(&["no-such-program"]).await;
    assert!(
        matches!(&run.ending, Ending::NotStarted(why) if why.contains("no-such-program")),
        "{:?}",
        run.ending
    );
}

#[tokio::test]
async fn too_much_output_ends_the_step() {
    let bench = Bench::new();
    for script in ["yes", "yes >&2", "yes & yes >&2 & wait"] {
        let run = bench.shell(script).await;
        assert_eq!(run.ending, Ending::OutputLimit, "{script}");
        let kept = if script == "yes >&2" {
            &run.stderr
        } else {
            &run.stdout
        };
        assert!(
            kept.head.len() == HEAD_BYTES && kept.tail.len() == TAIL_BYTES && kept.is_truncated()
        );
        let total = run.stdout.bytes + run.stderr.bytes;
        assert!(
            total > 1 << 20 && total < 2 << 20,
            "{total} bytes were taken"
        );
    }
}

#[tokio::test]
async fn output_up_to_the_limit_is_fine_and_hashed() {
    let bench = Bench::new();
    let run = bench.run(&["head", "-c", "1048576", "/dev/zero"]).await;
    assert_eq!((run.ending, run.stdout.bytes), (Ending::Completed, 1 << 20));
    assert_eq!(
        run.stdout.digest,
        hex::encode(Sha256::digest(vec![0; 1 << 20]))
    );
    assert!(run.stdout.is_truncated());
    let run = bench.run(&["head", "-c", "1048577", "/dev/zero"]).await;
    assert_eq!(run.ending, Ending::OutputLimit);
}

#[tokio::test]
async fn both_outputs_are_drained_at_once() {
    // Fills each pipe in turn: a reader that takes one output to its end first would wait for ever.
    let run = Bench::new()
        .python(
            "import os\n\
             for _ in range(8):\n\
             \x20   os.write(1, b'o' * 60000); os.write(2, b'e' * 60000)",
        )
        .await;
    assert_eq!(
        (run.ending, run.stdout.bytes, run.stderr.bytes),
        (Ending::Completed, 480_000, 480_000)
    );
}

#[tokio::test]
async fn the_outputs_can_be_opened_by_name() {
    let run = Bench::new()
        .shell("echo out > /dev/stdout; echo err | tee /dev/stderr")
        .await;
    assert_eq!(
        (stdout(&run), stderr(&run)),
        ("out\nerr\n".to_owned(), "err\n".to_owned())
    );
}
