//! `acestep verify`: every stage against reference tensors.

use super::Outcome;
use super::device::DeviceArgs;
use engine::{Error, Result};
use std::path::PathBuf;

/// Flags of `verify`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Tree of reference tensors
    #[arg(long, value_name = "DIR")]
    pub goldens: PathBuf,
    /// Only files whose path contains this text
    #[arg(long, value_name = "TEXT")]
    pub filter: Option<String>,
    /// List capabilities that are still to come instead of failing them
    #[arg(long)]
    pub built_only: bool,
    /// Where and how to compute.
    #[command(flatten)]
    pub device: DeviceArgs,
}

/// Compares; [`Outcome::Failed`] when a tensor is outside its limit.
pub fn run(_args: Args) -> Result<Outcome> {
    Err(Error::Bug("verify is being built".into()))
}
