//! The command line of `octollm-reflex`: the service without arguments, and commands that need no service.

mod screen;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Reflex, the way into OctoLLM. Without a command it runs the service, configured by OCTO_REFLEX__… and octo.toml.
#[derive(Debug, Parser)]
#[command(name = "octollm-reflex", version, disable_help_subcommand = true)]
pub struct CommandLine {
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What can be done without the service.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Screen texts for personal data, secrets and prompt injection. Nothing is sent or kept.
    Screen(Box<screen::Arguments>),
}

impl Command {
    /// Does it. The exit code is 0 whatever was found, 2 for arguments that make no sense, 1 if it can't be done.
    pub fn run(self) -> ExitCode {
        let Self::Screen(arguments) = self;
        match screen::run(&arguments) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) if error.is_closed_pipe() => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("octo screen: {error}");
                error.exit_code()
            }
        }
    }
}
