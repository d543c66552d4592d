//! `cargo run --release -p tools -- VERB`: what only developers need.

use clap::{Parser, Subcommand};
use engine::models::config::{DitConfig, VaeConfig};
use engine::models::dit::{TimeFrom, VelocityShape, velocity};
use engine::models::vae::vae_decoder;
use engine::program::{Math, Program, plan};
use engine::song::{prepare::frames_of, render::TILE};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "tools", about = "Developer verbs")]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Check the house rules: sizes, imports between rooms, stray paths
    Tidy,
    /// Print the memory that the programs of a model need; reads only config.json
    Plan {
        /// Directory of a diffusion model
        model: PathBuf,
        /// Directory of the VAE
        #[arg(long)]
        vae: Option<PathBuf>,
        /// Seconds of music
        #[arg(long, default_value_t = 60.0)]
        duration: f64,
        /// Songs at once
        #[arg(long, default_value_t = 1)]
        batch: usize,
        /// Rows of the condition
        #[arg(long, default_value_t = 512)]
        condition: usize,
    },
    /// Print the steps of a model's velocity program
    Trace {
        /// Directory of a diffusion model
        model: PathBuf,
        /// Latent frames
        #[arg(long, default_value_t = 250)]
        frames: usize,
    },
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().verb {
        Verb::Tidy => tidy(),
        Verb::Plan {
            model,
            vae,
            duration,
            batch,
            condition,
        } => memory(&model, vae.as_deref(), duration, batch, condition),
        Verb::Trace { model, frames } => trace(&model, frames),
    };
    match outcome {
        Ok(code) => code,
        Err(e) => {
            eprintln!("tools: {e}");
            ExitCode::from(2)
        }
    }
}

fn tidy() -> engine::Result<ExitCode> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let faults = tools::tidy::check(&root)
        .map_err(|e| engine::Error::Missing(format!("the sources cannot be read: {e}")))?;
    for fault in &faults {
        println!("{fault}");
    }
    println!("{} faults", faults.len());
    Ok(if faults.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(1)
    })
}

fn shape(frames: usize, batch: usize, condition_rows: usize, guided: bool) -> VelocityShape {
    VelocityShape {
        batch,
        frames,
        condition_rows,
        guided,
        time: TimeFrom::Table(51),
    }
}

fn memory(
    model: &Path,
    vae: Option<&Path>,
    duration: f64,
    batch: usize,
    condition: usize,
) -> engine::Result<ExitCode> {
    let config = DitConfig::load(model)?;
    let frames = frames_of(Some(duration));
    println!("{duration} s, batch {batch}, {frames} frames, {condition} condition rows");
    println!(
        "{:28} {:>7} {:>12} {:>12}",
        "program", "steps", "arena", "unplanned"
    );
    for guided in [false, true] {
        let program = velocity(&config, Math::F32, shape(frames, batch, condition, guided))?;
        row(
            if guided {
                "velocity, guided"
            } else {
                "velocity"
            },
            &program,
        );
    }
    if let Some(dir) = vae {
        let config = VaeConfig::load(dir)?;
        let tile = frames.min(TILE);
        row(
            &format!("vae tile of {tile}"),
            &vae_decoder(&config, Math::F32, tile)?,
        );
    }
    Ok(ExitCode::SUCCESS)
}

fn row(name: &str, program: &Program) {
    const ALIGN: usize = 64;
    let planned = plan(program, ALIGN, usize::MAX, &|_| false, &|_| 0);
    let unplanned: usize = program
        .steps
        .iter()
        .map(|s| program.vals[s.out.index()].bytes())
        .sum();
    println!(
        "{name:28} {:7} {:>12} {:>12}",
        program.steps.len(),
        engine::error::human_bytes(planned.arena_bytes as u64),
        engine::error::human_bytes(unplanned as u64)
    );
}

fn trace(model: &Path, frames: usize) -> engine::Result<ExitCode> {
    let config = DitConfig::load(model)?;
    print!(
        "{}",
        velocity(&config, Math::F32, shape(frames, 1, 256, false))?
    );
    Ok(ExitCode::SUCCESS)
}
