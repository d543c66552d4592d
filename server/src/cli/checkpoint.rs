//! `acestep checkpoint`: demo, random and inspect.

use super::Outcome;
use engine::{Error, Result};
use std::path::PathBuf;

/// Flags of `checkpoint`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// The verbs.
#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    /// Write a small deterministic tree in the published layout
    Demo {
        /// Directory to make
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
    /// Write full-size trees with random weights
    Random {
        /// Which model
        #[arg(long, value_name = "MODEL")]
        like: Like,
        /// Directory to make
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// Seed of the weights
        #[arg(long, default_value_t = 0)]
        seed: u64,
    },
    /// List components, parameters, dtypes, sizes and what is missing
    Inspect {
        /// Directory with the model folders
        dir: PathBuf,
    },
}

/// Models that `random` knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
#[allow(missing_docs)]
pub enum Like {
    Turbo,
    Base,
    XlTurbo,
    #[value(name = "lm-0.6b")]
    Lm06b,
    #[value(name = "lm-1.7b")]
    Lm17b,
    #[value(name = "lm-4b")]
    Lm4b,
    All,
}

/// Runs the verb.
pub fn run(_args: Args) -> Result<Outcome> {
    Err(Error::Bug("checkpoint is being built".into()))
}
