//! Repainting: known latents put back at a noise level, the blend at the border, the recording
//! spliced back in.

use super::bench::Bench;
use super::golden::Golden;
use super::report::{Kind, Reporter};
use engine::Result;
use engine::audio::CHANNELS;
use engine::audio::splice::Splice;
use engine::backend::{HostData, NoWeights};
use engine::program::{Builder, Math, Op};
use engine::sample::repaint::{Repaint, blend_border};
use std::sync::Arc;

/// Parts in samples and fade of the recorded splices: 10 to 40 ms and 0 to 30 ms, 10 ms.
const PARTS: [std::ops::Range<usize>; 2] = [480..1920, 0..1440];
const FADE: usize = 480;

/// Compares every recorded operation.
pub fn operations(b: &Bench, g: &Golden, r: &mut Reporter) -> Result<()> {
    let [x, clean, noise, mask] = ["x", "clean", "noise", "mask"].map(|name| g.array(name));
    let (x, clean, noise, mask) = (x?, clean?, noise?, mask?);
    let [items, frames, channels]: [usize; 3] = x.dims("x")?;
    for name in g.names() {
        if let Some(level) = name.strip_prefix("inject_t") {
            let level: f32 = level.replace('_', ".").parse().unwrap_or(f32::NAN);
            let mut program = Builder::new("inject", Math::F32);
            let shape = [items, frames, channels];
            let moved = program.input("x", &shape);
            let known = program.input("known", &shape);
            let marks = program.input("mask", &[items, frames]);
            let out = program.op(Op::SelectByMask, &[marks, moved, known]);
            program.output("out", out);
            let mixed = noise.data.iter().zip(&clean.data);
            let known: Vec<f32> = mixed.map(|(n, c)| level * n + (1.0 - level) * c).collect();
            let inputs = [
                ("x", HostData::F32(&x.data)),
                ("known", HostData::F32(&known)),
                ("mask", HostData::F32(&mask.data)),
            ];
            let ours = b
                .run(program.finish()?, &NoWeights, &inputs, &[])?
                .take_f32("out")?;
            r.compare(name, &ours, &g.array(name)?, Kind::BlockF32);
        } else if let Some(width) = name.strip_prefix("blend_cf") {
            let mut ours = x.data.clone();
            let repaint = Repaint {
                mask: &mask.data,
                clean: &clean.data,
                injection_ratio: 0.0,
                crossfade: width.parse().unwrap_or(0),
            };
            blend_border(&mut ours, &repaint, frames);
            r.compare(name, &ours, &g.array(name)?, Kind::BlockF32);
        }
    }
    splices(g, r)
}

fn splices(g: &Golden, r: &mut Reporter) -> Result<()> {
    let (made, source) = (g.array("wav_pred")?, g.array("wav_src")?);
    let [_, channels, samples]: [usize; 3] = made.dims("wav_pred")?;
    let [_, _, kept]: [usize; 3] = source.dims("wav_src")?;
    let interleaved = |planar: &[f32], samples: usize| -> Vec<f32> {
        let frame = |i: usize| (0..channels).map(move |c| c * samples + i);
        (0..samples).flat_map(frame).map(|at| planar[at]).collect()
    };
    let mut ours = Vec::new();
    let items = made.data.chunks_exact(channels * samples);
    let sources = source.data.chunks_exact(channels * kept);
    for ((made, source), part) in items.zip(sources).zip(PARTS) {
        let mut pcm = interleaved(made, samples);
        let splice = Splice {
            pcm: Arc::new(interleaved(source, kept)),
            part,
            fade: FADE,
            gain: 1.0,
        };
        splice.apply(&mut pcm);
        for c in 0..CHANNELS {
            ours.extend(pcm.iter().skip(c).step_by(CHANNELS));
        }
    }
    r.compare(
        "wav_spliced",
        &ours,
        &g.array("wav_spliced")?,
        Kind::BlockF32,
    );
    Ok(())
}
