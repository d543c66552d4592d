//! `acestep generate`.

use super::Outcome;
use super::device::DeviceArgs;
use engine::{Error, Result};
use std::path::PathBuf;

/// Flags of `generate`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Description of the music
    #[arg(long, value_name = "TEXT")]
    pub prompt: Option<String>,
    /// File to write
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Where and how to compute.
    #[command(flatten)]
    pub device: DeviceArgs,
}

/// Makes one song.
pub fn run(_args: Args) -> Result<Outcome> {
    Err(Error::Bug("generate is being built".into()))
}
