//! `acestep bench`: seconds per stage.

use super::Outcome;
use super::device::DeviceArgs;
use engine::{Error, Result};
use std::path::PathBuf;

/// Flags of `bench`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Directory with the model folders
    #[arg(long, value_name = "DIR")]
    pub checkpoints: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
    /// Where and how to compute.
    #[command(flatten)]
    pub device: DeviceArgs,
}

/// Measures.
pub fn run(_args: Args) -> Result<Outcome> {
    Err(Error::Bug("bench is being built".into()))
}
