//! The denoising loop: schedule in, latents out. Decisions on the host, arithmetic on the device;
//! inside the loop nothing is allocated, uploaded or read back.

use super::noise::{StepNoise, Stream};
use super::repaint::{Repaint, blend_border};
use super::update::{Guide, Move, Update, scalars, slot};
use crate::backend::{Backend, NoWeights, Ready, Region, Weights, prepare};
use crate::error::{Error, Result};
use crate::models::config::DitConfig;
use crate::models::dit::{self, TimeFrom, VelocityShape};
use crate::program::{DType, Math};
use crate::song::{Guidance, Method, Sampling, Solver, Stage, Watch};

/// A network that predicts velocities, on a device.
#[derive(Clone, Copy)]
pub struct Network<'a> {
    /// The device.
    pub backend: &'a dyn Backend,
    /// Sizes.
    pub config: &'a DitConfig,
    /// Weights.
    pub weights: &'a dyn Weights,
    /// How products treat their operands.
    pub math: Math,
}

/// What the song is conditioned on.
#[derive(Debug, Clone, Copy)]
pub struct Condition<'a> {
    /// Packed condition `(B, L, He)`.
    pub packed: &'a [f32],
    /// Rows `L`.
    pub rows: usize,
    /// Valid rows per item.
    pub lengths: &'a [i32],
    /// Source latents and mask, `(B, T, 128)`.
    pub context: &'a [f32],
}

/// One run of the loop over `B` songs of `T` frames.
#[derive(Debug, Clone, Copy)]
pub struct Job<'a> {
    /// Songs `B`.
    pub batch: usize,
    /// Latent frames `T`.
    pub frames: usize,
    /// Time at the start of each step, descending; the last step ends at 0.
    pub schedule: &'a [f32],
    /// Solver, guidance, corrections. Its steps, shift and timesteps are already in `schedule`.
    pub sampling: &'a Sampling,
    /// Latents at the start `(B, T, C)`.
    pub start: &'a [f32],
    /// Initial noise, for known latents at a noise level `(B, T, C)`.
    pub noise: &'a [f32],
    /// Fresh noise per step; needed by [`Method::Sde`].
    pub step_noise: StepNoise<'a>,
    /// The condition, and the one that takes over at `switch_step`.
    pub conditions: &'a [Condition<'a>],
    /// Step from which the second condition is used.
    pub switch_step: usize,
    /// Known latents.
    pub repaint: Option<Repaint<'a>>,
}

/// Sees the latent of every evaluation: number, time, latent `(B, T, C)`.
pub type Observer<'a> = &'a mut dyn FnMut(usize, f32, &Region) -> Result<()>;

/// Regions of the loop.
struct State {
    x: Region,
    x_predicted: Region,
    c: Region,
    u: Region,
    v: Region,
    prev: Region,
    avg: Region,
    noise: Region,
    step_noise: Option<Region>,
    mask: Option<Region>,
    clean: Option<Region>,
}

/// Runs the loop and returns the latents `(B, T, C)`.
///
/// # Errors
/// [`Error::Cancelled`] between steps, [`Error::Device`] when the result is not finite, and what
/// the backend reports.
pub fn denoise(
    net: Network,
    job: &Job,
    watch: &dyn Watch,
    observer: Option<Observer>,
) -> Result<Vec<f32>> {
    let mut run = Loop::new(net, job)?;
    run.steps(watch, observer)?;
    let mut latents = run.state.x.read_f32(net.backend)?;
    if latents.iter().any(|x| !x.is_finite()) {
        return Err(Error::Device(format!(
            "the latents are not finite after {} steps; the checkpoint or the device is faulty",
            job.schedule.len()
        )));
    }
    // Without a crossfade the loop's last latents stand, as upstream has it: no hard cut.
    if let Some(repaint) = job.repaint.as_ref().filter(|r| r.crossfade > 0) {
        blend_border(&mut latents, repaint, job.frames);
    }
    Ok(latents)
}

/// One evaluation of the network and the update after it.
#[derive(Debug, Clone, Copy)]
struct Evaluation {
    step: usize,
    /// Time of the evaluated latent.
    t: f32,
    /// Heun's second evaluation of a step, at the predicted point.
    corrector: bool,
    /// Whether a corrector follows or this is one.
    two: bool,
    guide: Guide,
}

/// An evaluation with the programs that carry it out.
struct Turn {
    evaluation: Evaluation,
    velocity: usize,
    update: usize,
}

struct Loop<'a> {
    net: Network<'a>,
    job: &'a Job<'a>,
    state: State,
    velocities: Vec<(VelocityKey, Box<dyn Ready>)>,
    updates: Vec<(Update, Box<dyn Ready>)>,
    turns: Vec<Turn>,
    scalars: [f32; slot::COUNT],
}

/// What tells one velocity program of a run from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct VelocityKey {
    condition: usize,
    guided: bool,
    predicted: bool,
}

impl<'a> Loop<'a> {
    /// Makes everything ready that the loop will run.
    fn new(net: Network<'a>, job: &'a Job<'a>) -> Result<Self> {
        if job.schedule.is_empty() || job.conditions.is_empty() {
            return Err(Error::Bug("denoising needs a step and a condition".into()));
        }
        let s = job.sampling;
        let mut run = Loop {
            net,
            job,
            state: State::new(net, job)?,
            velocities: Vec::new(),
            updates: Vec::new(),
            turns: Vec::new(),
            scalars: scalars(s.guidance_scale, s.velocity_ema_factor),
        };
        let times = time_table(net, job)?;
        let evaluations = run.evaluations();
        for (i, condition) in job.conditions.iter().enumerate() {
            let uses: Vec<VelocityKey> = evaluations
                .iter()
                .map(|e| run.key(e))
                .filter(|k| k.condition == i)
                .collect();
            let guided = uses.iter().any(|k| k.guided);
            let inputs = ConditionInputs::new(net, job, condition, guided)?;
            for key in uses {
                if !run.velocities.iter().any(|(k, _)| *k == key) {
                    let ready = velocity(net, job, &run.state, &inputs, &times, key)?;
                    run.velocities.push((key, ready));
                }
            }
        }
        for evaluation in evaluations {
            let key = run.key(&evaluation);
            let update = run.update(&evaluation)?;
            let velocity = run
                .velocities
                .iter()
                .position(|(k, _)| *k == key)
                .unwrap_or(0);
            run.turns.push(Turn {
                evaluation,
                velocity,
                update,
            });
        }
        Ok(run)
    }

    fn key(&self, e: &Evaluation) -> VelocityKey {
        VelocityKey {
            condition: self.condition_of(e.step),
            guided: e.guide != Guide::Off,
            predicted: e.corrector,
        }
    }

    fn time_after(&self, step: usize) -> f32 {
        self.job.schedule.get(step + 1).copied().unwrap_or(0.0)
    }

    fn condition_of(&self, step: usize) -> usize {
        usize::from(self.job.conditions.len() > 1 && step >= self.job.switch_step)
    }

    /// Whether a step is a turbo model's last one, which goes straight to the clean sample.
    fn finishes(&self, step: usize) -> bool {
        self.net.config.is_turbo && step + 1 == self.job.schedule.len()
    }

    fn evaluations(&self) -> Vec<Evaluation> {
        let s = self.job.sampling;
        let heun = s.solver == Solver::Heun && s.method == Method::Ode;
        let mut all = Vec::new();
        for (step, &t) in self.job.schedule.iter().enumerate() {
            let two = heun && !self.finishes(step);
            let guide = self.guide(t, false);
            all.push(Evaluation {
                step,
                t,
                corrector: false,
                two,
                guide,
            });
            if two {
                let t = self.time_after(step);
                let guide = self.guide(t, true);
                all.push(Evaluation {
                    step,
                    t,
                    corrector: true,
                    two,
                    guide,
                });
            }
        }
        all
    }

    fn guide(&self, t: f32, corrector: bool) -> Guide {
        let s = self.job.sampling;
        let (from, to) = s.guidance_interval;
        if self.net.config.is_turbo || s.guidance_scale <= 1.0 || t < from || t > to {
            return Guide::Off;
        }
        match s.guidance {
            // Its angles are taken between clean samples, which at t = 0 do not differ.
            Guidance::Adg if t > 0.0 => Guide::Adg,
            Guidance::Apg if !corrector => Guide::Apg,
            _ => Guide::Cfg,
        }
    }

    fn kind(&self, e: &Evaluation) -> Update {
        let s = self.job.sampling;
        let step = if e.corrector {
            Move::Correct
        } else if e.two {
            Move::Predict
        } else if self.finishes(e.step) {
            Move::Finish
        } else if s.method == Method::Sde {
            Move::Renoise {
                noise: self.noise_after(e.step) > 0.0,
            }
        } else {
            Move::Euler
        };
        let corrected = !matches!(step, Move::Predict | Move::Finish);
        let inject = self.job.repaint.is_some_and(|r| {
            let until = (r.injection_ratio * self.job.schedule.len() as f64).round_ties_even();
            corrected && (e.step as f64) < until
        });
        Update {
            guide: e.guide,
            clamp: (s.velocity_norm_threshold > 0.0).then_some(s.velocity_norm_threshold),
            ema: s.velocity_ema_factor > 0.0 && (e.corrector || e.step > 0),
            step,
            // On the clean sample the wavelet correction is the identity.
            dcw: s.dcw.clone().filter(|_| corrected),
            inject,
        }
    }

    /// Noise level after a step. Base models re-noise to the unshifted level, as upstream does.
    fn noise_after(&self, step: usize) -> f32 {
        if self.job.sampling.method == Method::Sde && !self.net.config.is_turbo {
            let n = self.job.schedule.len() as f64;
            (1.0 - (step + 1) as f64 / n) as f32
        } else {
            self.time_after(step)
        }
    }

    /// Position of the evaluation's update among those made ready.
    fn update(&mut self, e: &Evaluation) -> Result<usize> {
        let kind = self.kind(e);
        if let Some(i) = self.updates.iter().position(|(k, _)| *k == kind) {
            return Ok(i);
        }
        let s = &self.state;
        let program = kind.program(latent_shape(self.net, self.job), self.job.schedule.len())?;
        let mut inputs = vec![
            ("x", &s.x),
            ("c", &s.c),
            ("u", &s.u),
            ("avg", &s.avg),
            ("prev", &s.prev),
            ("x_predicted", &s.x_predicted),
            ("v", &s.v),
            ("noise", &s.noise),
        ];
        let optional = [
            ("step_noise", &s.step_noise),
            ("mask", &s.mask),
            ("clean", &s.clean),
        ];
        inputs.extend(
            optional
                .iter()
                .filter_map(|(n, r)| r.as_ref().map(|r| (*n, r))),
        );
        let outputs = [
            ("x", &s.x),
            ("avg", &s.avg),
            ("prev", &s.prev),
            ("x_predicted", &s.x_predicted),
            ("v", &s.v),
        ];
        let ready = prepare(self.net.backend, &program, &NoWeights, &inputs, &outputs)?;
        self.updates.push((kind, ready));
        Ok(self.updates.len() - 1)
    }

    fn steps(&mut self, watch: &dyn Watch, mut observer: Option<Observer>) -> Result<()> {
        let total = self.job.schedule.len();
        watch.progress(Stage::Diffuse, 0, total);
        for number in 0..self.turns.len() {
            if watch.cancelled() {
                return Err(Error::Cancelled);
            }
            let Turn {
                evaluation: e,
                velocity,
                update,
            } = self.turns[number];
            self.set(&e);
            if let Some(see) = observer.as_mut() {
                see(
                    number,
                    e.t,
                    if e.corrector {
                        &self.state.x_predicted
                    } else {
                        &self.state.x
                    },
                )?;
            }
            self.velocities[velocity].1.run(&self.scalars)?;
            self.updates[update].1.run(&self.scalars)?;
            if e.corrector || !e.two {
                watch.progress(Stage::Diffuse, e.step + 1, total);
            }
        }
        Ok(())
    }

    fn set(&mut self, e: &Evaluation) {
        let (t, next) = (self.job.schedule[e.step], self.time_after(e.step));
        let after = self.noise_after(e.step);
        for (slot, value) in [
            (slot::ROW, (e.step + usize::from(e.corrector)) as f32),
            (slot::T, t),
            (slot::EVAL_T, e.t),
            (slot::NEG_DT, -(t - next)),
            (slot::NEG_T, -t),
            (slot::NOISE, after),
            (slot::CLEAN, 1.0 - after),
            (slot::STEP, e.step as f32),
        ] {
            self.scalars[slot.0] = value;
        }
    }
}

fn latent_shape(net: Network, job: &Job) -> [usize; 3] {
    [job.batch, job.frames, net.config.audio_acoustic_hidden_dim]
}

impl State {
    fn new(net: Network, job: &Job) -> Result<Self> {
        let shape = latent_shape(net, job);
        let backend = net.backend;
        let zeros = || Region::zeros(backend, &shape, DType::F32);
        let from = |data: &[f32]| Region::from_f32(backend, &shape, data);
        let step_noise = match job.sampling.method {
            Method::Ode => None,
            Method::Sde => Some(step_noise(
                backend,
                job.step_noise,
                job.schedule.len(),
                shape,
            )?),
        };
        let mask = |r: Repaint| Region::from_f32(backend, &shape[..2], r.mask);
        Ok(State {
            x: from(job.start)?,
            x_predicted: zeros()?,
            c: zeros()?,
            u: zeros()?,
            v: zeros()?,
            prev: zeros()?,
            avg: zeros()?,
            noise: from(job.noise)?,
            step_noise,
            mask: job.repaint.map(mask).transpose()?,
            clean: job.repaint.map(|r| from(r.clean)).transpose()?,
        })
    }
}

/// Noise of all steps `(steps, B, T, C)` on the device, drawn one item at a time: the host never
/// holds it all.
fn step_noise(
    backend: &dyn Backend,
    noise: StepNoise,
    steps: usize,
    [batch, frames, channels]: [usize; 3],
) -> Result<Region> {
    let all = Region::zeros(backend, &[steps, batch, frames, channels], DType::F32)?;
    let seeds = match noise {
        StepNoise::Given(data) => {
            all.write_f32(backend, data)?;
            return Ok(all);
        }
        StepNoise::Seeds(seeds) => seeds,
    };
    if seeds.len() != batch {
        return Err(Error::Bug(format!(
            "{} seeds of step noise were given for {batch} items",
            seeds.len()
        )));
    }
    let mut one = vec![0f32; frames * channels];
    for step in 0..steps {
        for (item, seed) in seeds.iter().enumerate() {
            Stream::sde(step).fill(*seed, &mut one);
            all.slab(step).slab(item).write_f32(backend, &one)?;
        }
    }
    Ok(all)
}

/// Time embeddings of every step and of the end, `temb` and `proj`.
fn time_table(net: Network, job: &Job) -> Result<(Region, Region)> {
    let mut times = job.schedule.to_vec();
    times.push(0.0);
    let (n, h) = (times.len(), net.config.hidden_size);
    let t = Region::from_f32(net.backend, &[n], &times)?;
    let dt = Region::zeros(net.backend, &[n], DType::F32)?;
    let temb = Region::zeros(net.backend, &[n, h], DType::F32)?;
    let proj = Region::zeros(net.backend, &[n, 6 * h], DType::F32)?;
    let program = dit::time_table(net.config, net.math, n)?;
    let outputs = [("temb", &temb), ("proj", &proj)];
    prepare(
        net.backend,
        &program,
        net.weights,
        &[("t", &t), ("dt", &dt)],
        &outputs,
    )?
    .run(&[])?;
    Ok((temb, proj))
}

/// A condition on the device: context, keys and values of every layer, lengths.
struct ConditionInputs {
    rows: usize,
    context: Region,
    kv: Vec<(String, Region)>,
    lengths: Region,
}

impl ConditionInputs {
    /// With `guided`, the unconditional items follow the conditional ones: one valid row each,
    /// because any number of equal keys gives the same attention.
    fn new(net: Network, job: &Job, condition: &Condition, guided: bool) -> Result<Self> {
        let (c, rows) = (net.config, condition.rows);
        let context_shape = [
            job.batch,
            job.frames,
            c.in_channels - c.audio_acoustic_hidden_dim,
        ];
        let mut packed = condition.packed.to_vec();
        let mut lengths = condition.lengths.to_vec();
        if guided {
            let null = null_condition(net)?;
            for _ in 0..job.batch {
                let start = packed.len();
                packed.resize(start + rows * c.encoder_hidden_size, 0.0);
                packed[start..start + null.len()].copy_from_slice(&null);
            }
            lengths.extend(std::iter::repeat_n(1, job.batch));
        }
        let items = lengths.len();
        let shape = [items, rows, c.encoder_hidden_size];
        let packed = Region::from_f32(net.backend, &shape, &packed)?;
        let program = dit::cross_kv(c, net.math, items, rows)?;
        let shape = [items, rows, c.num_key_value_heads, c.head_dim];
        let mut kv = Vec::new();
        for (name, _) in &program.outs {
            kv.push((
                name.clone(),
                Region::zeros(net.backend, &shape, DType::F32)?,
            ));
        }
        let outputs: Vec<(&str, &Region)> = kv.iter().map(|(n, r)| (n.as_str(), r)).collect();
        let inputs = [("condition", &packed)];
        prepare(net.backend, &program, net.weights, &inputs, &outputs)?.run(&[])?;
        Ok(ConditionInputs {
            rows,
            context: Region::from_f32(net.backend, &context_shape, condition.context)?,
            kv,
            lengths: Region::from_i32(net.backend, &[items], &lengths)?,
        })
    }
}

fn null_condition(net: Network) -> Result<Vec<f32>> {
    let program = crate::models::condition::null_condition(net.config, net.math)?;
    let shape = [1, 1, net.config.encoder_hidden_size];
    let null = Region::zeros(net.backend, &shape, DType::F32)?;
    prepare(net.backend, &program, net.weights, &[], &[("null", &null)])?.run(&[])?;
    null.read_f32(net.backend)
}

fn velocity(
    net: Network,
    job: &Job,
    state: &State,
    condition: &ConditionInputs,
    times: &(Region, Region),
    key: VelocityKey,
) -> Result<Box<dyn Ready>> {
    let shape = VelocityShape {
        batch: job.batch,
        frames: job.frames,
        condition_rows: condition.rows,
        guided: key.guided,
        time: TimeFrom::Table(job.schedule.len() + 1),
    };
    let items = shape.items();
    let kv: Vec<(&str, Region)> = condition
        .kv
        .iter()
        .map(|(n, r)| (n.as_str(), r.first(items)))
        .collect();
    let lengths = condition.lengths.first(items);
    let mut inputs = vec![
        (
            "x",
            if key.predicted {
                &state.x_predicted
            } else {
                &state.x
            },
        ),
        ("context", &condition.context),
        ("temb", &times.0),
        ("proj", &times.1),
        ("lengths", &lengths),
    ];
    inputs.extend(kv.iter().map(|(name, region)| (*name, region)));
    let outputs = [("velocity", &state.c), ("velocity_uncond", &state.u)];
    let program = dit::velocity(net.config, net.math, shape)?;
    prepare(net.backend, &program, net.weights, &inputs, &outputs)
}
