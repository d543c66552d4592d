//! What subcommands share: where checkpoints are, the kind of noise, output.

use super::device::DeviceArgs;
use crate::env::Env;
use engine::sample::noise::{NOISE_VARIABLE, NoiseKind};
use engine::{Error, Result};
use std::io::Write;
use std::path::PathBuf;

/// Where the demonstration tree goes when no directory is named.
const DEMO_DIR: &str = ".cache/acestep/demo-checkpoints";

/// Flags that say where the models are and on what they run.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct ModelArgs {
    /// Directory with the model folders [default: $ACESTEP_CHECKPOINTS_DIR or ./checkpoints]
    #[arg(long, value_name = "DIR")]
    pub checkpoints: Option<PathBuf>,
    /// Make a small demonstration checkpoint first and use it
    #[arg(long)]
    pub demo: bool,
    /// Where and how to compute.
    #[command(flatten)]
    pub device: DeviceArgs,
}

impl ModelArgs {
    /// The directory with the model folders, which is made for a demonstration.
    pub fn dir(&self, env: &Env) -> Result<PathBuf> {
        match self.demo {
            true => demo_dir(self.checkpoints.clone()),
            false => Ok(checkpoints_dir(self.checkpoints.clone(), env)),
        }
    }
}

/// Makes the demonstration tree, unless it is there, and returns its directory.
pub fn demo_dir(named: Option<PathBuf>) -> Result<PathBuf> {
    let dir = named.unwrap_or_else(|| DEMO_DIR.into());
    engine::weights::demo::demo(&dir)?;
    Ok(dir)
}

/// Directory with the model folders: the flag, else the variable, else `checkpoints`.
pub fn checkpoints_dir(named: Option<PathBuf>, env: &Env) -> PathBuf {
    let variable = || env.text("ACESTEP_CHECKPOINTS_DIR").map(PathBuf::from);
    named
        .or_else(variable)
        .unwrap_or_else(|| "checkpoints".into())
}

/// How a seed becomes noise.
pub fn noise(env: &Env) -> Result<NoiseKind> {
    env.text(NOISE_VARIABLE)
        .map_or_else(|| Ok(NoiseKind::default()), str::parse)
}

/// Prints a line to stdout. A reader that has gone away is no fault of ours; a full disk is.
pub fn print_line(line: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{line}").and_then(|()| out.flush()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Error::Output(format!("stdout cannot be written: {e}")))
        }
        _ => Ok(()),
    }
}
