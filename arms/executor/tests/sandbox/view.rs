//! What a granted view shows, and what can be started in it.

use std::path::PathBuf;

use octollm_executor::sandbox::{Ending, StageExit};

use super::*;

fn granted(paths: &[&str]) -> View {
    View::Granted(paths.iter().map(PathBuf::from).collect())
}

impl Bench {
    async fn run_in(&self, view: View, argv: &[&str]) -> Run {
        let mut job = self.job(&[argv]);
        job.view = view;
        self.run_job(job).await.unwrap()
    }
}

#[tokio::test]
async fn only_what_is_granted_is_there() {
    let bench = Bench::new();
    let run = bench
        .run_in(granted(&["/usr/bin/find"]), &["find", "/usr/bin"])
        .await;
    assert_eq!(stdout(&run), "/usr/bin\n/usr/bin/find\n");
    let run = bench
        .run_in(View::System, &["find", "/usr/bin", "-name", "sh"])
        .await;
    assert_eq!(stdout(&run), "/usr/bin/sh\n");
    let argv = ["find", "/", "-path", "/usr/*", "-type", "f"];
    let run = bench.run_in(granted(&["/usr/bin/find"]), &argv).await;
    let files = stdout(&run);
    assert!((2..10).contains(&files.lines().count()), "{files}");
}

#[tokio::test]
async fn a_granted_program_finds_no_shell() {
    let bench = Bench::new();
    let loader = ["/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1"]
        .into_iter()
        .find(|path| Path::new(path).exists())
        .unwrap();
    let shell = ["/bin/sh", "-c", "echo RAN"];
    let attempts: [&[&str]; 4] = [
        &["/bin/sh"],
        &["/usr/bin/sh"],
        &[loader, "/bin/sh"],
        &[loader, "/usr/bin/sh"],
    ];
    for program in attempts {
        let mut argv = vec!["find", "/work", "-maxdepth", "0", "-exec"];
        argv.extend(program);
        argv.extend(&shell[1..]);
        argv.push(";");
        let run = bench.run_in(granted(&["/usr/bin/find"]), &argv).await;
        assert!(!stdout(&run).contains("RAN"), "{argv:?}");
        assert!(
            stderr(&run).contains("No such file") || stderr(&run).contains("cannot open"),
            "{argv:?}: {}",
            stderr(&run)
        );
        // Where all is shown the same line works.
        let run = bench.run_in(View::System, &argv).await;
        assert_eq!(stdout(&run), "RAN\n", "{argv:?}: {}", stderr(&run));
    }
}

#[tokio::test]
async fn what_is_shown_but_not_a_program_can_not_be_started() {
    let bench = Bench::new();
    let python = Path::new("/usr/bin/python3").canonicalize().unwrap();
    let modules = Path::new("/usr/lib").join(python.file_name().unwrap());
    let modules = modules.to_str().unwrap();
    let view = granted(&["/usr/bin/python3", modules, "/usr/bin/true"]);
    let script = "import ctypes, glob, os, subprocess, sys\n\
         print(subprocess.run(['/usr/bin/true']).returncode)\n\
         for path in ['/usr/bin/env', '/bin/sh'] + glob.glob('/lib/*/libc.so.6') + [os.__file__]:\n\
         \x20   try: subprocess.run([path]); print('RAN', path)\n\
         \x20   except OSError as error: print(error.strerror)";
    let run = bench.run_in(view, &["python3", "-c", script]).await;
    let seen = stdout(&run);
    assert_eq!(
        seen.lines().collect::<Vec<_>>(),
        [
            "0",
            "No such file or directory",
            "No such file or directory",
            "Permission denied",
            "Permission denied"
        ],
        "{}",
        stderr(&run)
    );
}

#[tokio::test]
async fn a_granted_view_is_read_only_and_says_what_it_is() {
    let bench = Bench::new();
    let cat = || granted(&["/usr/bin/cat"]);
    let run = bench.run_in(cat(), &["cat", "/proc/self/mountinfo"]).await;
    for line in stdout(&run).lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        let options: Vec<&str> = fields[5].split(',').collect();
        if !["/work", "/tmp", "/dev/shm"].contains(&fields[4]) {
            assert!(options.contains(&"ro"), "{line}");
        }
        assert!(options.contains(&"nosuid"), "{line}");
    }
    let digest = run.digests.view.clone().unwrap();
    assert_eq!(digest.len(), 64);
    for digest in [&run.digests.filter, &run.digests.ruleset] {
        assert_eq!(digest.as_ref().unwrap().len(), 64);
    }
    let again = bench.run_in(cat(), &["cat"]).await;
    assert_eq!(again.digests, run.digests);
    let other = bench.run_in(granted(&["/usr/bin/tac"]), &["tac"]).await;
    assert_eq!(other.digests.filter, run.digests.filter);
    assert_ne!(other.digests.ruleset, run.digests.ruleset);
    assert_ne!(other.digests.view, run.digests.view);
    let system = bench.run_in(View::System, &["true"]).await;
    assert_eq!(system.digests.view, None);
}

#[tokio::test]
async fn the_sandbox_s_own_places_can_not_be_granted() {
    let bench = Bench::new();
    for path in ["/proc", "/dev", "/tmp", "/work/x", "usr/bin/true"] {
        let run = bench.run_in(granted(&[path]), &["true"]).await;
        assert!(
            matches!(&run.ending, Ending::NotStarted(why) if why.contains(path)),
            "{:?}",
            run.ending
        );
    }
}

#[tokio::test]
async fn a_pipeline_works_where_it_is_told_to() {
    let bench = Bench::new();
    bench.shell("mkdir -p a/b; ln -s a link; ln -s / out").await;
    let run_in = |cwd: &str| {
        let mut job = bench.job(&[&["pwd"]]);
        job.cwd = Some(cwd.to_owned().try_into().unwrap());
        bench.run_job(job)
    };
    let run = run_in("a/b").await.unwrap();
    assert_eq!(stdout(&run), "/work/a/b\n");
    for cwd in ["missing", "link", "link/b", "out", "out/usr"] {
        let run = run_in(cwd).await.unwrap();
        assert!(
            matches!(&run.ending, Ending::NotStarted(why) if why.contains(cwd)),
            "{:?}",
            run.ending
        );
    }
}

#[tokio::test]
async fn granted_variables_are_added_and_dangerous_ones_refused() {
    let bench = Bench::new();
    let with = |name: &str| {
        let mut job = bench.job(&[&["env"]]);
        job.environment = vec![(name.to_owned(), "value".to_owned())];
        bench.run_job(job)
    };
    let run = with("GREETING").await.unwrap();
    assert!(stdout(&run).contains("GREETING=value\n"));
    assert_eq!(stdout(&run).lines().count(), 5);
    assert_eq!(run.stages, [StageExit::Code(0)]);
    for name in [
        "LD_PRELOAD",
        "BASH_ENV",
        "GLIBC_TUNABLES",
        "PATH",
        "a b",
        "",
    ] {
        let run = with(name).await.unwrap();
        assert!(
            matches!(&run.ending, Ending::NotStarted(why) if why.contains(&format!("{name:?}"))),
            "{:?}",
            run.ending
        );
    }
}

#[tokio::test]
async fn what_it_wrote_and_its_processes_are_counted() {
    let run = Bench::new()
        .run(&["dd", "if=/dev/zero", "of=/tmp/x", "bs=1M", "count=3"])
        .await;
    let written = run.peaks.written_bytes.unwrap();
    assert!((3 << 20..4 << 20).contains(&written), "{written}");
    assert!(run.peaks.memory_bytes >= 1 << 20, "{:?}", run.peaks);
    if let Some(processes) = run.peaks.processes {
        assert!((3..10).contains(&processes), "{processes}");
    }
}
