//! The workspace as it goes in and comes out: everything that a program can leave in a directory.

use octollm_executor::sandbox::DenialKind;
use octollm_executor::workspace::{ArchiveError, Entry, Excess, Kind};
use serde::Deserialize;
use serde_json::json;

use super::*;

fn left(run: &Run) -> Result<(Tree, octollm_executor::workspace::LeftOut), ArchiveError> {
    Tree::from_tar(&**run.workspace.as_ref().unwrap(), &LIMITS.workspace)
}

#[tokio::test]
async fn what_goes_in_comes_out_the_same() {
    let bench = Bench::new();
    let entries = json!([
        {"path": "closed", "type": "dir", "mode": "0500", "mtime": 1_000_000_000},
        {"path": "closed/inner", "type": "dir", "mode": "0000", "mtime": 0},
        {"path": "closed/inner/a", "type": "file", "mode": "0000", "mtime": 1, "text": "a\n"},
        {"path": "closed/link", "type": "symlink", "target": "../implied/b", "mtime": 1_000_000_003},
        {"path": "empty", "type": "dir", "mode": "0777"},
        {"path": "implied/b", "type": "file", "base64": "AP8="},
        {"path": format!("{}/ü", "n".repeat(200)), "type": "file", "mode": "0755", "text": "x"},
    ]);
    let entries = Vec::<Entry>::deserialize(entries).unwrap();
    let tree = Tree::default().with_entries(&entries, 1234).unwrap();
    *bench.workspace.lock().unwrap() = tree.clone();
    let run = bench
        .shell("stat -c '%n %a %Y %U' closed implied/b; readlink closed/link; ls -d n*")
        .await;
    assert!(
        stdout(&run).starts_with("closed 500 1000000000 ") && stdout(&run).contains("../implied/b"),
        "{} {}",
        stdout(&run),
        stderr(&run)
    );
    let (back, left_out) = left(&run).unwrap();
    assert_eq!(back, tree);
    assert_eq!(left_out.count, 0);
}

#[tokio::test]
async fn an_empty_workspace_is_no_byte() {
    let bench = Bench::new();
    let run = bench
        .run_job(Job {
            workspace: bytes::Bytes::new(),
            ..bench.job(&[&["true"]])
        })
        .await;
    assert_eq!(run.unwrap().workspace.unwrap(), bytes::Bytes::new());
    let run = bench.shell("touch a; rm a").await;
    assert_eq!(run.workspace.unwrap(), bytes::Bytes::new());
}

#[tokio::test]
async fn what_is_no_file_is_left_out_and_named() {
    let bench = Bench::new();
    let run = bench
        .python(
            "import os, socket\n\
             socket.socket(socket.AF_UNIX).bind('socket')\n\
             os.symlink('/etc/passwd', 'absolute'); os.symlink('../..', 'up'); os.symlink('kept', 'good')\n\
             open(b'not-utf8-\\xff', 'w').close(); open('bell\\a', 'w').close()\n\
             open('kept', 'w').write('kept'); os.link('kept', 'second')\n\
             os.symlink('a' * 3000, 'far')",
        )
        .await;
    let (tree, left_out) = left(&run).unwrap();
    let names: Vec<&str> = tree.iter().map(|(path, _)| path.as_str()).collect();
    assert_eq!(
        names,
        ["good", "kept", "second"],
        "{left_out:?} {}",
        stderr(&run)
    );
    // A second name is a file of its own now.
    assert!(tree.iter().all(|(path, node)| match &node.kind {
        Kind::File { content, .. } => path.as_str() != "good" && content == "kept",
        _ => path.as_str() == "good",
    }));
    assert_eq!(left_out.count, 6, "{left_out:?}");
}

#[tokio::test]
async fn closed_directories_and_files_are_opened_for_packing() {
    let bench = Bench::new();
    let run = bench
        .shell("mkdir -p a/b; echo x > a/b/f; chmod 0 a/b/f a/b a")
        .await;
    let (tree, _) = left(&run).unwrap();
    let modes: Vec<u32> = tree
        .iter()
        .map(|(_, node)| match &node.kind {
            Kind::File { mode, .. } | Kind::Directory { mode } => mode.bits(),
            Kind::Symlink { .. } => 0o777,
        })
        .collect();
    assert_eq!(modes, [0, 0, 0]);
    assert_eq!(
        stdout(
            &bench
                .shell("chmod 700 a; chmod 700 a/b; chmod 600 a/b/f; cat a/b/f")
                .await
        ),
        "x\n"
    );
}

#[tokio::test]
async fn directories_that_go_down_for_ever_end_somewhere() {
    let bench = Bench::new();
    let run = bench
        .python(
            "import os\n\
             for _ in range(900):\n\
             \x20   os.mkdir('d' * 100); os.chdir('d' * 100)",
        )
        .await;
    let (tree, left_out) = left(&run).unwrap();
    // Paths have at most 1,024 characters.
    assert_eq!(
        (tree.len(), left_out.count > 0),
        (10, true),
        "{}",
        stderr(&run)
    );
}

#[tokio::test]
async fn a_workspace_has_a_size_and_a_number_of_entries() {
    let mut bench = Bench::new();
    bench.limits.file_bytes = 1 << 40;
    let run = bench.shell("head -c 20000000 /dev/zero > a").await;
    assert_eq!(run.stages, [octollm_executor::sandbox::StageExit::Code(1)]);
    let full = |run: &Run| {
        let full = run
            .denials
            .iter()
            .filter(|denial| denial.kind == DenialKind::Disk);
        full.map(|denial| denial.detail.clone()).collect::<Vec<_>>()
    };
    assert_eq!(full(&run), ["/work has no room left"]);
    assert!(left(&run).unwrap().0.space() <= LIMITS.workspace.bytes);

    let bench = Bench::new();
    let run = bench
        .shell("i=0; while mkdir d$i; do i=$((i+1)); done 2>/dev/null; echo $i")
        .await;
    assert_eq!(
        (stdout(&run).as_str(), full(&run)),
        ("1000\n", vec!["/work has no names left".to_owned()])
    );
    assert_eq!(left(&run).unwrap().0.len(), 1000);
    // As many fit in again.
    let run = bench.shell("ls | wc -l; rmdir d0 && mkdir again").await;
    assert_eq!(stdout(&run), "1000\n", "{}", stderr(&run));
}

#[tokio::test]
async fn holes_and_second_names_do_not_make_it_larger() {
    let mut bench = Bench::new();
    bench.limits.file_bytes = 1 << 40;
    let job = bench.job(&[&["truncate", "-s", "200G", "hole"]]);
    let run = bench
        .sandbox
        .run(job, &CancellationToken::new())
        .await
        .unwrap();
    assert!(matches!(
        left(&run),
        Err(ArchiveError::Excess(Excess::Bytes(_)))
    ));
    let bench = Bench::new();
    let script =
        "head -c 8000000 /dev/zero > a; i=0; while [ $i -lt 900 ]; do ln a l$i; i=$((i+1)); done";
    let job = bench.job(&[&["sh", "-c", script]]);
    let run = bench
        .sandbox
        .run(job, &CancellationToken::new())
        .await
        .unwrap();
    assert!(matches!(
        left(&run),
        Err(ArchiveError::Excess(Excess::Bytes(_)))
    ));
}

#[tokio::test]
async fn who_was_killed_hands_nothing_out() {
    let mut bench = Bench::new();
    bench.limits.wall = Duration::from_millis(300);
    let run = bench.shell("echo half > a; sleep 60").await;
    assert_eq!(run.ending, octollm_executor::sandbox::Ending::TimedOut);
    assert_eq!(run.workspace, None);
}

/// Somebody who goes on writing after the last stage has ended is gone before the first byte is packed.
#[tokio::test]
async fn nobody_writes_while_it_is_packed() {
    let bench = Bench::new();
    let writer = "import os, sys\n\
                  if os.fork() == 0:\n\
                  \x20   os.setsid()\n\
                  \x20   while True:\n\
                  \x20       os.rename('a', 'b') if os.path.exists('a') else os.rename('b', 'a')\n";
    let run = bench
        .shell(&format!("touch a; python3 -c \"{writer}\"; sleep 0.2"))
        .await;
    let (tree, _) = left(&run).unwrap();
    assert_eq!(tree.len(), 1, "{}", stderr(&run));
}
