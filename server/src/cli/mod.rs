//! The command line: one file per subcommand, one place that turns outcomes into exit statuses.
//!
//! | status | meaning |
//! | --- | --- |
//! | 0 | done |
//! | 1 | a check failed (`verify`), or a fault of the device or of this program |
//! | 2 | refused: wrong arguments, missing or damaged files, an output that cannot be written |

mod bar;
pub mod bench;
pub mod checkpoint;
mod codes;
pub mod describe;
pub mod device;
pub mod devices;
pub mod format;
pub mod generate;
pub mod lm;
mod made;
pub mod model;
mod outputs;
mod requests;
pub mod sample;
pub mod serve;
mod task;
mod texts;
pub mod understand;
pub mod verify;

use crate::env::Env;
use clap::{Parser, Subcommand};
use engine::Error;
use std::process::ExitCode;

/// ACE-Step 1.5: music from a caption and lyrics.
#[derive(Debug, Parser)]
#[command(name = "acestep", version, about, propagate_version = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve the HTTP API
    Serve(Box<serve::Args>),
    /// Make a song and write it to a file
    Generate(Box<generate::Args>),
    /// Rewrite a caption and lyrics in the language model's own form
    Format(Box<format::Args>),
    /// Invent caption, lyrics and metadata from a wish
    Sample(Box<sample::Args>),
    /// Describe a recording, or music that is given as audio codes
    Understand(Box<understand::Args>),
    /// Compare every stage with reference tensors
    Verify(verify::Args),
    /// Make or inspect checkpoint directories
    Checkpoint(checkpoint::Args),
    /// Measure seconds per stage
    Bench(bench::Args),
    /// List what there is to compute on
    Devices(devices::Args),
}

/// How a subcommand that did its work ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Everything is as it should be: exit status 0.
    Done,
    /// The work was done and what was checked is wrong: exit status 1.
    Failed,
}

/// Runs the program with the arguments of the process.
pub fn main() -> ExitCode {
    // clap prints help and refusals itself, and ends with 2 for wrong arguments.
    let cli = Cli::parse();
    start_logging();
    let result = match cli.command {
        Command::Serve(args) => serve::run(*args),
        Command::Generate(args) => generate::run(*args),
        Command::Format(args) => format::run(*args),
        Command::Sample(args) => sample::run(*args),
        Command::Understand(args) => understand::run(*args),
        Command::Verify(args) => verify::run(args),
        Command::Checkpoint(args) => checkpoint::run(args),
        Command::Bench(args) => bench::run(args),
        Command::Devices(args) => devices::run(args),
    };
    match result {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Failed) => ExitCode::from(1),
        Err(error) => {
            eprintln!("acestep: {error}");
            ExitCode::from(exit_status(&error))
        }
    }
}

/// Exit status of an error: 2 when the caller can fix it, 1 when not.
pub fn exit_status(error: &Error) -> u8 {
    match error {
        Error::Request(_)
        | Error::Missing(_)
        | Error::Corrupt(_)
        | Error::TooBig { .. }
        | Error::Output(_) => 2,
        Error::Device(_) | Error::DeviceLost(_) | Error::Cancelled | Error::Bug(_) => 1,
    }
}

/// Log lines go to stderr, so that stdout stays a program's output. `RUST_LOG` sets the level,
/// else `ACESTEP_API_LOG_LEVEL`, else `info`.
fn start_logging() {
    use tracing_subscriber::EnvFilter;
    let env = Env::of_process();
    let text = env
        .text("RUST_LOG")
        .or(env.text("ACESTEP_API_LOG_LEVEL"))
        .unwrap_or("info");
    let filter = EnvFilter::try_new(text).unwrap_or_else(|_| EnvFilter::new("info"));
    // A second call in one process (tests) keeps the first subscriber.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_writer(std::io::stderr)
        .try_init();
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_the_caller_can_fix_ends_with_2() {
        assert_eq!(exit_status(&Error::Missing("x".into())), 2);
        assert_eq!(exit_status(&Error::Output("x".into())), 2);
        assert_eq!(exit_status(&Error::Bug("x".into())), 1);
    }
}
