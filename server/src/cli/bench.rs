//! `acestep bench`: seconds per stage of generation, on the programs that `generate` runs.
//!
//! Every stage is warmed up, then timed a few times; the median counts. Sizes default to those
//! of ten seconds of music, so that a peer can be measured beside it.

mod lm;

use super::Outcome;
use super::device::DeviceArgs;
use super::model::{checkpoints_dir, print_line};
use crate::env::Env;
use engine::backend::{Backend, Region, prepare};
use engine::models::dit::{self, TimeFrom, VelocityShape};
use engine::program::{DType, Math};
use engine::song::loaded::{LoadedDit, LoadedText, LoadedVae};
use engine::song::plan::Planner;
use engine::song::{NoWatch, prepare::frames_of};
use engine::text::grammar::MAX_DURATION_S;
use engine::weights::Checkpoints;
use engine::{Error, Result};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use std::path::PathBuf;
use std::time::Instant;

/// Flags of `bench`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Directory with the model folders; `acestep checkpoint random` makes full-size ones
    /// [default: $ACESTEP_CHECKPOINTS_DIR or ./checkpoints]
    #[arg(long, value_name = "DIR")]
    pub checkpoints: Option<PathBuf>,
    /// Model to measure [default: the turbo model, else the first there is]
    #[arg(long, value_name = "NAME")]
    pub model: Option<String>,
    /// Seconds of music
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0, value_parser = duration)]
    pub duration: f64,
    /// Caption tokens
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = tokens)]
    pub text_len: usize,
    /// Lyric tokens
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = tokens)]
    pub lyric_len: usize,
    /// Rows the transformer cross-attends to
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = tokens)]
    pub cond_len: usize,
    /// Measure a guided step: conditional and unconditional rows
    #[arg(long)]
    pub guided: bool,
    /// Language model to measure [default: the first there is]
    #[arg(long, value_name = "NAME")]
    pub lm: Option<String>,
    /// Songs the language model plans at once, each in two rows
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = songs)]
    pub lm_songs: usize,
    /// Tokens before the one that is measured
    #[arg(long, value_name = "N", default_value_t = 600, value_parser = tokens)]
    pub lm_len: usize,
    /// Timed calls per stage
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = repeats)]
    pub repeat: usize,
    /// Stages to measure
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_values = ["text", "cond", "dit", "vae"])]
    pub stages: Vec<StageFlag>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
    /// Where and how to compute.
    #[command(flatten)]
    pub device: DeviceArgs,
}

/// A stage that can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum StageFlag {
    /// The text encoder over one caption
    Text,
    /// Lyric and timbre encoders and packing
    Cond,
    /// One step of the diffusion transformer
    Dit,
    /// The VAE decoder over the whole song
    Vae,
    /// The VAE encoder over as much audio
    Encode,
    /// The language model: its prompt, and one audio code with guidance
    Lm,
}

fn duration(text: &str) -> std::result::Result<f64, String> {
    match text.parse::<f64>() {
        Ok(s) if (0.1..=600.0).contains(&s) => Ok(s),
        _ => Err("a number of seconds from 0.1 to 600 is needed".into()),
    }
}

fn count(text: &str, most: usize) -> std::result::Result<usize, String> {
    match text.parse::<usize>() {
        Ok(n) if (1..=most).contains(&n) => Ok(n),
        _ => Err(format!("a whole number from 1 to {most} is needed")),
    }
}

fn tokens(text: &str) -> std::result::Result<usize, String> {
    count(text, 8192)
}

fn songs(text: &str) -> std::result::Result<usize, String> {
    count(text, 8)
}

fn repeats(text: &str) -> std::result::Result<usize, String> {
    count(text, 10_000)
}

/// One measured stage.
#[derive(Debug, Serialize)]
struct Row {
    component: &'static str,
    /// Median of one call.
    seconds: f64,
    /// The same in milliseconds.
    ms: f64,
    min_ms: f64,
    max_ms: f64,
    n: usize,
    /// Mean processor time of one call over all threads: what counts on a busy machine.
    cpu_ms: f64,
    /// Largest resident size of the process so far.
    peak_mb: f64,
    /// Bytes that a call reads at least.
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
    /// Time to read them at `read_gbs`, as a share of the median.
    #[serde(skip_serializing_if = "Option::is_none")]
    read_share: Option<f64>,
    /// Median as a share of that of the step it belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    step_share: Option<f64>,
    note: String,
}

#[derive(Debug, Serialize)]
struct Report {
    device: String,
    dtype: &'static str,
    model: String,
    duration_s: f64,
    frames: usize,
    /// Gigabytes per second that the device's threads read, where a stage is bound by that.
    #[serde(skip_serializing_if = "Option::is_none")]
    read_gbs: Option<f64>,
    rows: Vec<Row>,
}

/// Measures the stages and prints a table, or JSON.
pub fn run(args: Args) -> Result<Outcome> {
    let env = Env::of_process();
    let device = args.device.open_with(&env)?;
    let (backend, math) = (&*device.backend, device.math);
    let tree = Checkpoints::open(&checkpoints_dir(args.checkpoints.clone(), &env))?;
    let frames = frames_of(Some(args.duration));
    let (mut rows, mut models, mut rate) = (Vec::new(), Vec::new(), None);
    let dit = || {
        let model = tree.dit(args.model.as_deref())?;
        LoadedDit::open(&model.name, &model.path, math)
    };
    for stage in &args.stages {
        match stage {
            StageFlag::Text => rows.push(text(&tree, backend, math, &args)?),
            StageFlag::Cond => rows.push(condition(&dit()?, backend, math, &args)?),
            StageFlag::Dit => {
                let dit = dit()?;
                rows.push(step(&dit, backend, math, frames, &args)?);
                models.push(dit.name);
            }
            StageFlag::Encode => rows.push(encode(&tree, backend, math, frames, &args)?),
            StageFlag::Vae => rows.push(vae(&tree, backend, math, frames, &args)?),
            StageFlag::Lm => {
                let (name, device) = (args.lm.as_deref(), device.clone());
                let planner = Planner::open(&tree, name, device, MAX_DURATION_S)?;
                rate = backend.read_rate()?;
                rows.extend(lm::measure(&planner, &args, rate)?);
                models.push(planner.language_model().name.clone());
            }
        }
    }
    let report = Report {
        device: backend.caps().name.clone(),
        dtype: if math == Math::F32 { "f32" } else { "bf16" },
        model: models.join(", "),
        duration_s: args.duration,
        frames,
        read_gbs: rate.map(|rate| rate / 1e9),
        rows,
    };
    print(&report, args.json)?;
    Ok(Outcome::Done)
}

fn print(report: &Report, json: bool) -> Result<()> {
    if json {
        let text = serde_json::to_string(report).map_err(|e| Error::Bug(e.to_string()))?;
        return print_line(&text);
    }
    print_line(&format!(
        "{} on {}, {} products, {} s ({} frames)",
        report.model, report.device, report.dtype, report.duration_s, report.frames
    ))?;
    if let Some(rate) = report.read_gbs {
        print_line(&format!("memory is read at {rate:.1} GB/s"))?;
    }
    print_line(&format!(
        "{:14} {:>10} {:>10} {:>10} {:>10} {:>9}  note",
        "stage", "seconds", "min", "max", "cpu s", "peak MB"
    ))?;
    for r in &report.rows {
        print_line(&format!(
            "{:14} {:10.5} {:10.5} {:10.5} {:10.4} {:9.0}  {}",
            r.component,
            r.seconds,
            r.min_ms / 1e3,
            r.max_ms / 1e3,
            r.cpu_ms / 1e3,
            r.peak_mb,
            r.note
        ))?;
    }
    Ok(())
}

/// A bar over the timed calls, hidden where nobody watches.
fn bar(component: &'static str, repeat: usize) -> ProgressBar {
    let bar = ProgressBar::new(repeat as u64 + 1);
    if let Ok(style) = ProgressStyle::with_template("{msg:14} {wide_bar} {pos}/{len}") {
        bar.set_style(style);
    }
    bar.set_message(component);
    bar
}

fn clock(
    component: &'static str,
    repeat: usize,
    note: String,
    mut call: impl FnMut() -> Result<()>,
) -> Result<Row> {
    let bar = bar(component, repeat);
    call()?;
    bar.inc(1);
    let mut ms = Vec::with_capacity(repeat);
    let before = cpu_ms();
    for _ in 0..repeat {
        let start = Instant::now();
        call()?;
        ms.push(start.elapsed().as_secs_f64() * 1e3);
        bar.inc(1);
    }
    let cpu_ms = (cpu_ms() - before) / repeat as f64;
    bar.finish_and_clear();
    ms.sort_by(f64::total_cmp);
    Ok(Row {
        component,
        seconds: ms[ms.len() / 2] / 1e3,
        ms: ms[ms.len() / 2],
        min_ms: ms[0],
        max_ms: ms[ms.len() - 1],
        n: repeat,
        cpu_ms,
        peak_mb: peak_mb(),
        bytes: None,
        read_share: None,
        step_share: None,
        note,
    })
}

/// Processor time of this process's threads so far; 0 where the system does not tell.
fn cpu_ms() -> f64 {
    let threads = std::fs::read_dir("/proc/self/task").into_iter().flatten();
    // The first number of each is nanoseconds on a processor.
    let nanoseconds = threads.flatten().filter_map(|thread| {
        let text = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<f64>().ok()
    });
    nanoseconds.sum::<f64>() / 1e6
}

/// Largest resident size of this process, 0 where the system does not tell.
fn peak_mb() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    let kib = line.and_then(|l| l.trim().trim_end_matches(" kB").trim().parse::<f64>().ok());
    kib.unwrap_or(0.0) / 1024.0
}

/// Values that look like activations: bounded, not periodic in any axis.
fn ramp(n: usize) -> Vec<f32> {
    (0..n)
        .map(|i| ((i as u32).wrapping_mul(2_654_435_761) >> 8) as f32 / (1 << 23) as f32 - 1.0)
        .collect()
}

fn text(tree: &Checkpoints, backend: &dyn Backend, math: Math, args: &Args) -> Result<Row> {
    let text = LoadedText::open(tree, math)?;
    let encoder = text.on(backend, math);
    let top = text.config.vocab_size.min(1000) as u32;
    let ids: Vec<u32> = (0..args.text_len as u32)
        .map(|i| i.wrapping_mul(7919) % top)
        .collect();
    let note = format!("{} tokens", args.text_len);
    clock("text", args.repeat, note, || {
        encoder.hidden_states(&ids).map(drop)
    })
}

fn condition(dit: &LoadedDit, backend: &dyn Backend, math: Math, args: &Args) -> Result<Row> {
    let (c, encoder) = (&dit.config, dit.encoder(backend, math));
    let frames = c.timbre_fix_frame;
    let lyric = ramp(args.lyric_len * c.text_hidden_dim);
    let timbre = ramp(frames * c.timbre_hidden_dim);
    let text = ramp(args.text_len * c.text_hidden_dim);
    let note = format!("{} lyric tokens, {frames} timbre frames", args.lyric_len);
    clock("cond", args.repeat, note, || {
        let lyric = encoder.lyric(&lyric)?;
        let timbre = encoder.timbre(&timbre, frames)?;
        encoder.pack(&lyric, &timbre, &text).map(drop)
    })
}

fn step(
    dit: &LoadedDit,
    backend: &dyn Backend,
    math: Math,
    frames: usize,
    args: &Args,
) -> Result<Row> {
    let c = &dit.config;
    let shape = VelocityShape {
        batch: 1,
        frames,
        condition_rows: args.cond_len,
        guided: args.guided,
        time: TimeFrom::Table(1),
    };
    let program = dit::velocity(c, math, shape)?;
    let mut inputs = Vec::new();
    for info in &program.vals {
        if let engine::program::ValKind::Input(name) = &info.kind {
            let region = match info.dtype {
                DType::I32 => Region::from_i32(
                    backend,
                    &info.shape,
                    &vec![args.cond_len as i32; info.len()],
                )?,
                _ => Region::from_f32(backend, &info.shape, &ramp(info.len()))?,
            };
            inputs.push((name.clone(), region));
        }
    }
    let mut outputs = Vec::new();
    for (name, v) in &program.outs {
        let shape = &program.vals[v.index()].shape;
        outputs.push((name.clone(), Region::zeros(backend, shape, DType::F32)?));
    }
    let ins: Vec<(&str, &Region)> = inputs.iter().map(|(n, r)| (n.as_str(), r)).collect();
    let outs: Vec<(&str, &Region)> = outputs.iter().map(|(n, r)| (n.as_str(), r)).collect();
    let mut ready = prepare(backend, &program, &dit.weights, &ins, &outs)?;
    let scalars = vec![0.0; program.scalars()];
    let note = format!(
        "{frames} frames, {} rows, {} condition rows",
        shape.items(),
        args.cond_len
    );
    clock("dit", args.repeat, note, || ready.run(&scalars))
}

fn encode(
    tree: &Checkpoints,
    backend: &dyn Backend,
    math: Math,
    frames: usize,
    args: &Args,
) -> Result<Row> {
    let vae = LoadedVae::open(&tree.vae()?, math)?;
    let audio = ramp(frames * vae.config.hop() * vae.config.audio_channels);
    let encoder = vae.encoder(backend, math)?;
    clock("encode", args.repeat, format!("{frames} frames"), || {
        encoder.latents(&audio, &NoWatch).map(drop)
    })
}

fn vae(
    tree: &Checkpoints,
    backend: &dyn Backend,
    math: Math,
    frames: usize,
    args: &Args,
) -> Result<Row> {
    let vae = LoadedVae::open(&tree.vae()?, math)?;
    let latents = ramp(frames * vae.config.decoder_input_channels);
    let decoder = vae.on(backend, math);
    clock("vae", args.repeat, format!("{frames} frames"), || {
        decoder.decode_song(&latents, &NoWatch).map(drop)
    })
}
