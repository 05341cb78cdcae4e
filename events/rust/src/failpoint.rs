//! Named points between an intent and its acknowledgement, at which a test has a service die as by `kill -9`.
//!
//! `OCTO_FAIL_POINT=<name>[:n]` arms one: the n-th time (default 1) that it is reached, the process sends itself
//! SIGKILL, so nothing is flushed, drained or handed back. Release builds have no points. A point is named
//! `<service>.<what has just happened>`.
//!
//! The crate `fail` is not used: its actions end in a panic, which unwinds, or in a callback that each service would have
//! to register, and its points are macros with early returns that nothing here needs.

/// Ends the process where the point is armed and has been reached often enough; else does nothing.
#[inline]
pub fn reach(name: &str) {
    #[cfg(debug_assertions)]
    armed::reach(name);
    #[cfg(not(debug_assertions))]
    let _ = name;
}

#[cfg(debug_assertions)]
mod armed {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    use nix::sys::signal::{Signal, raise};

    struct Armed {
        name: String,
        left: AtomicU64,
    }

    static ARMED: LazyLock<Option<Armed>> = LazyLock::new(|| {
        let value = std::env::var("OCTO_FAIL_POINT").ok()?;
        let (name, count) = value.split_once(':').unwrap_or((&value, "1"));
        let count = count.parse().expect("OCTO_FAIL_POINT is <name>[:n]");
        Some(Armed {
            name: name.to_owned(),
            left: AtomicU64::new(count),
        })
    });

    pub(super) fn reach(name: &str) {
        if let Some(armed) = &*ARMED
            && armed.name == name
            && armed.left.fetch_sub(1, Ordering::Relaxed) == 1
        {
            eprintln!("fail point {name}: this process kills itself");
            let _ = raise(Signal::SIGKILL);
        }
    }
}

#[cfg(all(test, debug_assertions))]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, Output};

    use super::reach;

    const CHILD: &str = "OCTO_TEST_REACHES";
    const THIS: &str = "failpoint::tests::an_armed_point_kills_the_nth_time";

    /// This test again, in a process of its own.
    fn reaching(armed: &str) -> Output {
        let test = std::env::current_exe().expect("a test is a program");
        let mut command = Command::new(test);
        command.args(["--exact", THIS, "--nocapture"]);
        command.env(CHILD, "1").env("OCTO_FAIL_POINT", armed);
        command.output().expect("it runs")
    }

    #[test]
    fn an_armed_point_kills_the_nth_time() {
        if std::env::var_os(CHILD).is_some() {
            for _ in 0..3 {
                reach("test.a");
                reach("test.b");
            }
            return;
        }
        for armed in ["test.a", "test.b:1", "test.a:3"] {
            let ended = reaching(armed);
            assert_eq!(ended.status.signal(), Some(9), "{armed}: {ended:?}");
            let said = String::from_utf8_lossy(&ended.stderr);
            let (name, _) = armed.split_once(':').unwrap_or((armed, ""));
            assert!(said.contains(&format!("fail point {name}")), "{said}");
        }
        for armed in ["test.c", "test.a:4", ""] {
            assert!(reaching(armed).status.success(), "{armed}");
        }
    }
}
