//! `acestep serve`.

use super::Outcome;
use super::device::DeviceArgs;
use engine::{Error, Result};
use std::path::PathBuf;

/// Flags of `serve`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Make a small demo checkpoint and serve it
    #[arg(long)]
    pub demo: bool,
    /// Directory with the model folders [default: $ACESTEP_CHECKPOINTS_DIR or ./checkpoints]
    #[arg(long, value_name = "DIR")]
    pub checkpoints: Option<PathBuf>,
    /// Where and how to compute.
    #[command(flatten)]
    pub device: DeviceArgs,
}

/// Serves until SIGINT or SIGTERM.
pub fn run(_args: Args) -> Result<Outcome> {
    Err(Error::Bug("serve is being built".into()))
}
