//! The executor's binary: the service, and the sandbox's launcher under another name.

use std::process::ExitCode;

use octollm_executor::sandbox::launcher;

fn main() -> ExitCode {
    // First of all, before any thread exists: the launcher relies on being alone in its process.
    if std::env::args().nth(1).as_deref() == Some(launcher::SUBCOMMAND) {
        return launcher::main();
    }
    ExitCode::SUCCESS
}
