//! `acestep verify`: every stage against reference tensors.

use super::Outcome;
use super::device::{DeviceArgs, DtypeFlag};
use crate::verify::{Line, Options, verify};
use engine::Result;
use std::io::Write;
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

/// Compares, one line per tensor: file, name, largest difference, relative error, limit, verdict.
/// [`Outcome::Failed`] when a tensor is outside its limit.
pub fn run(mut args: Args) -> Result<Outcome> {
    // Limits are tightest, and faults most visible, in f32.
    args.device.dtype.get_or_insert(DtypeFlag::F32);
    let device = args.device.open()?;
    let options = Options {
        goldens: args.goldens,
        backend: device.backend,
        math: device.math,
        filter: args.filter,
        built_only: args.built_only,
    };
    let mut stdout = std::io::stdout().lock();
    let mut pipe_open = true;
    let mut print = |line: &Line| {
        // A reader that closed the pipe (`| head`) has seen enough; the exit status still counts.
        pipe_open = pipe_open && writeln!(stdout, "{line}").is_ok();
    };
    let totals = verify(&options, &mut print)?;
    let names: Vec<_> = totals.by_definition.into_iter().collect();
    let names = match names.is_empty() {
        true => "none".into(),
        false => names.join(", "),
    };
    let _ = writeln!(stdout, "operations that ran by definition: {names}");
    let _ = writeln!(stdout, "{} passed, {} failed", totals.passed, totals.failed);
    Ok(if totals.failed == 0 {
        Outcome::Done
    } else {
        Outcome::Failed
    })
}
