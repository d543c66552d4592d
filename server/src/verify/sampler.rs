//! The denoising loop against recorded trajectories.

use super::bench::Bench;
use super::golden::{Array, Golden};
use super::report::{Kind, Reporter};
use engine::backend::Region;
use engine::program::{Dcw, DcwMode};
use engine::sample::denoise::{Condition, Job, Network, denoise};
use engine::sample::noise::StepNoise;
use engine::sample::repaint::Repaint;
use engine::sample::{schedule, wavelet};
use engine::song::loaded::LoadedDit;
use engine::song::{Guidance, Method, NoWatch, Sampling, Solver};
use engine::{Error, Result};
use serde_json::{Map, Value};

/// Parameters of a sampling run as recorded; both spellings of the keys occur.
pub struct Params<'a>(pub &'a Map<String, Value>);

impl Params<'_> {
    fn number(&self, keys: &[&str]) -> Option<f64> {
        keys.iter().find_map(|k| self.0.get(*k)?.as_f64())
    }

    fn flag(&self, key: &str) -> Option<bool> {
        self.0.get(key)?.as_bool()
    }

    fn text(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.as_str()
    }

    /// Number of steps, when given.
    pub fn steps(&self) -> Option<usize> {
        self.number(&["infer_steps", "inference_steps"])
            .map(|n| n as usize)
    }

    /// Sampling with upstream's defaults for absent keys.
    pub fn sampling(&self) -> Result<Sampling> {
        let timesteps = self.0.get("timesteps").and_then(Value::as_array);
        Ok(Sampling {
            steps: self.steps().unwrap_or(schedule::TURBO_STEPS),
            shift: self.number(&["shift"]).unwrap_or(3.0),
            timesteps: timesteps.map(|t| t.iter().filter_map(Value::as_f64).collect()),
            method: match self.text("infer_method") {
                None | Some("ode") => Method::Ode,
                Some("sde") => Method::Sde,
                Some(other) => return Err(unknown("infer_method", other)),
            },
            solver: match self.text("sampler_mode") {
                None | Some("euler") => Solver::Euler,
                Some("heun") => Solver::Heun,
                Some(other) => return Err(unknown("sampler_mode", other)),
            },
            guidance_scale: self
                .number(&["diffusion_guidance_scale", "guidance_scale"])
                .unwrap_or(7.0) as f32,
            guidance: match self.flag("use_adg") {
                Some(true) => Guidance::Adg,
                _ => Guidance::Apg,
            },
            guidance_interval: (
                self.number(&["cfg_interval_start"]).unwrap_or(0.0) as f32,
                self.number(&["cfg_interval_end"]).unwrap_or(1.0) as f32,
            ),
            dcw: self.dcw()?,
            velocity_norm_threshold: self.number(&["velocity_norm_threshold"]).unwrap_or(0.0)
                as f32,
            velocity_ema_factor: self.number(&["velocity_ema_factor"]).unwrap_or(0.0) as f32,
        })
    }

    fn dcw(&self) -> Result<Option<Dcw>> {
        if self.flag("dcw_enabled") == Some(false) {
            return Ok(None);
        }
        let mode = self.text("dcw_mode").unwrap_or("double");
        let name = self.text("dcw_wavelet").unwrap_or("haar");
        Ok(Some(Dcw {
            mode: dcw_mode(mode).ok_or_else(|| unknown("dcw_mode", mode))?,
            low: self.number(&["dcw_scaler"]).unwrap_or(0.05) as f32,
            high: self.number(&["dcw_high_scaler"]).unwrap_or(0.02) as f32,
            filter: wavelet::filter(name).ok_or_else(|| unknown("dcw_wavelet", name))?,
        }))
    }
}

fn unknown(key: &str, value: &str) -> Error {
    Error::Corrupt(format!(
        "parameter {key} is {value:?}, which no sampler has"
    ))
}

/// A band of the wavelet correction by its recorded name.
pub fn dcw_mode(name: &str) -> Option<DcwMode> {
    Some(match name {
        "low" => DcwMode::Low,
        "high" => DcwMode::High,
        "double" => DcwMode::Double,
        "pix" | "pixel" => DcwMode::Pixel,
        _ => return None,
    })
}

/// The schedule of a model, as [`schedule`] makes it.
fn schedule_of(dit: &LoadedDit, sampling: &Sampling, steps: Option<usize>) -> Result<Vec<f32>> {
    let given = sampling.timesteps.as_deref();
    if dit.config.is_turbo {
        schedule::turbo(steps, sampling.shift, given)
    } else {
        schedule::base(sampling.steps, sampling.shift, given)
    }
}

/// Limits for a run of this model.
fn kind_of(dit: &LoadedDit, sampling: &Sampling) -> Kind {
    if dit.config.is_turbo || sampling.guidance_scale <= 1.0 {
        Kind::Trajectory
    } else if sampling.method == Method::Sde {
        Kind::GuidedSde
    } else {
        Kind::Guided
    }
}

/// What a trajectory starts from.
struct Start {
    noise: Array,
    latents: Vec<f32>,
}

/// Initial noise and latents, and the schedule that is left.
fn start_of(g: &Golden, inputs: &Golden, times: &mut Vec<f32>) -> Result<Start> {
    let mut noise = inputs.array("noise")?;
    let variance = g.number("retake_variance").unwrap_or(0.0);
    if variance > 0.0 {
        let retake = inputs.array("retake_noise")?;
        let angle = variance * std::f64::consts::FRAC_PI_2;
        let (sin, cos) = (angle.sin() as f32, angle.cos() as f32);
        for (x, other) in noise.data.iter_mut().zip(&retake.data) {
            *x = cos * *x + sin * other;
        }
    }
    let mut latents = noise.data.clone();
    let strength = g.number("cover_noise_strength").unwrap_or(0.0) as f32;
    if strength > 0.0 {
        let source = inputs.array("src_latents_cover")?;
        *times = schedule::after_cover_noise(times, strength).to_vec();
        for (x, source) in latents.iter_mut().zip(&source.data) {
            *x = times[0] * *x + (1.0 - times[0]) * source;
        }
    }
    Ok(Start { noise, latents })
}

/// A recorded trajectory, from its prepared conditions.
pub fn trajectory(
    b: &Bench,
    g: &Golden,
    r: &mut Reporter,
    dit: &LoadedDit,
    inputs: &Golden,
    conditions: &Golden,
) -> Result<()> {
    let params = Params(&g.params);
    let sampling = params.sampling()?;
    let kind = kind_of(dit, &sampling);
    let mut times = schedule_of(dit, &sampling, params.steps())?;
    let start = start_of(g, inputs, &mut times)?;
    let [batch, frames, channels] = start.noise.dims("noise")?;
    if channels != dit.config.audio_acoustic_hidden_dim {
        return Err(Error::Corrupt(format!(
            "noise has {channels} channels, the model others"
        )));
    }
    let steps = times.len() - 1;
    let per_step = batch * frames * channels;
    let step_noise = match sampling.method {
        Method::Ode => Vec::new(),
        Method::Sde => inputs.array("sde_noise")?.data,
    };
    if sampling.method == Method::Sde && step_noise.len() < steps * per_step {
        return Err(Error::Corrupt("sde_noise has too few steps".into()));
    }
    let recorded = Recorded::read(g, inputs, conditions, dit, [batch, frames])?;
    let conditions = recorded.conditions(batch);
    let strength = g.number("audio_cover_strength").unwrap_or(1.0);
    let job = Job {
        batch,
        frames,
        schedule: &times[..steps],
        sampling: &sampling,
        start: &start.latents,
        noise: &start.noise.data,
        step_noise: StepNoise::Given(&step_noise[..step_noise.len().min(steps * per_step)]),
        conditions: &conditions,
        switch_step: schedule::cover_steps(steps, strength),
        repaint: recorded.repaint(g),
    };
    let net = Network {
        backend: &*b.backend,
        config: &dit.config,
        weights: &dit.weights,
        math: b.math,
    };
    let (mut seen_times, mut seen) = (Vec::new(), Vec::new());
    let mut observe = |_: usize, t: f32, x: &Region| {
        seen_times.push(t);
        seen.extend(x.read_f32(&*b.backend)?);
        Ok(())
    };
    let latents = denoise(net, &job, &NoWatch, Some(&mut observe))?;
    r.exact_f32("t", &seen_times, &g.array("t")?.data);
    if g.has("x_in") {
        r.compare("x_in", &seen, &g.array("x_in")?, kind);
    }
    r.compare(
        "target_latents",
        &latents,
        &g.array("target_latents")?,
        kind,
    );
    Ok(())
}

/// Conditions and known latents of a trajectory.
struct Recorded {
    /// Packed condition and context, once or twice.
    pairs: Vec<(Array, Array)>,
    lengths: Vec<Vec<i32>>,
    /// Mask `(B, T)` and known latents.
    known: Option<(Vec<f32>, Array)>,
}

impl Recorded {
    fn read(
        g: &Golden,
        inputs: &Golden,
        conditions: &Golden,
        dit: &LoadedDit,
        [batch, frames]: [usize; 2],
    ) -> Result<Self> {
        let channels = dit.config.audio_acoustic_hidden_dim;
        let names: Vec<&str> = g
            .params
            .get("conditions")
            .and_then(Value::as_array)
            .map_or_else(
                || {
                    vec![
                        "encoder_hidden_states.text2music",
                        "context_latents.text2music",
                    ]
                },
                |list| list.iter().filter_map(Value::as_str).collect(),
            );
        if names.is_empty() || !names.len().is_multiple_of(2) {
            return Err(Error::Corrupt("conditions must be pairs of names".into()));
        }
        let mut pairs = Vec::new();
        let mut lengths = Vec::new();
        for pair in names.chunks_exact(2) {
            let (packed, context) = (conditions.array(pair[0])?, conditions.array(pair[1])?);
            let [items, rows, width] = packed.dims(pair[0])?;
            let shape: [usize; 3] = context.dims(pair[1])?;
            let fits = items == batch
                && width == dit.config.encoder_hidden_size
                && shape == [batch, frames, dit.config.in_channels - channels];
            if !fits {
                return Err(Error::Corrupt(format!(
                    "{pair:?} do not fit noise and model"
                )));
            }
            lengths.push(vec![rows as i32; batch]);
            pairs.push((packed, context));
        }
        let repaints = g.params.contains_key("repaint_injection_ratio");
        let known = if repaints {
            let mask = inputs.array("repaint_mask")?;
            let clean = inputs.array("src_latents_cover")?;
            if mask.data.len() != batch * frames || clean.data.len() != batch * frames * channels {
                return Err(Error::Corrupt("repaint_mask does not fit the noise".into()));
            }
            Some((mask.data, clean))
        } else {
            None
        };
        Ok(Recorded {
            pairs,
            lengths,
            known,
        })
    }

    fn conditions(&self, batch: usize) -> Vec<Condition<'_>> {
        let each = self.pairs.iter().zip(&self.lengths);
        each.map(|((packed, context), lengths)| Condition {
            packed: &packed.data,
            rows: packed.data.len() / batch / packed.shape[2],
            lengths,
            context: &context.data,
        })
        .collect()
    }

    fn repaint(&self, g: &Golden) -> Option<Repaint<'_>> {
        self.known.as_ref().map(|(mask, clean)| Repaint {
            mask,
            clean: &clean.data,
            injection_ratio: g.number("repaint_injection_ratio").unwrap_or(0.0),
            crossfade: g.number("repaint_crossfade_frames").unwrap_or(0.0) as usize,
        })
    }
}
