//! What happens to the latents between two evaluations of the network, as programs: guidance,
//! limits, the solver's step, wavelet correction, injection of known latents.
//!
//! The host loop in [`super::denoise`] decides *which* update runs; the arithmetic is here.

use crate::error::Result;
use crate::program::{Builder, Dcw, Math, Op, Program, Scalar, Val};

/// Slots of the scalars that change from step to step. Every program of the loop is given the
/// whole vector; [`super::denoise`] fills it.
pub mod slot {
    use crate::program::Scalar;

    /// Row of the time table ([`crate::models::dit::TIME_ROW`]).
    pub const ROW: Scalar = crate::models::dit::TIME_ROW;
    /// Time `t` before the step.
    pub const T: Scalar = Scalar(1);
    /// Time of the evaluated latent: `t`, or the next time in a corrector.
    pub const EVAL_T: Scalar = Scalar(2);
    /// Guidance scale `g`.
    pub const GUIDE: Scalar = Scalar(3);
    /// `1 - g`.
    pub const UNGUIDE: Scalar = Scalar(4);
    /// `-(t - t_next)`.
    pub const NEG_DT: Scalar = Scalar(5);
    /// `-t`.
    pub const NEG_T: Scalar = Scalar(6);
    /// Noise level after the step.
    pub const NOISE: Scalar = Scalar(7);
    /// `1 -` noise level after the step.
    pub const CLEAN: Scalar = Scalar(8);
    /// Number of the step, for the table of fresh noise.
    pub const STEP: Scalar = Scalar(9);
    /// 1.
    pub const ONE: Scalar = Scalar(10);
    /// 1/2.
    pub const HALF: Scalar = Scalar(11);
    /// Weight of the previous velocity.
    pub const EMA: Scalar = Scalar(12);
    /// `1 -` weight of the previous velocity.
    pub const KEEP: Scalar = Scalar(13);
    /// Number of slots.
    pub const COUNT: usize = 14;
}

/// How the two predictions become one velocity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Guide {
    /// The conditional prediction alone.
    Off,
    /// Adaptive projected guidance with its running average.
    Apg,
    /// `u + g (c - u)`.
    Cfg,
    /// Angle-based.
    Adg,
}

/// The solver's move.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Move {
    /// `x - v (t - t_next)`.
    Euler,
    /// `x - v t`: the clean sample; last step of turbo models.
    Finish,
    /// Clean sample, then fresh noise of the next level. Without noise on a last step.
    Renoise {
        /// Whether the next level is above zero.
        noise: bool,
    },
    /// Heun's first half: the Euler point, kept beside x.
    Predict,
    /// Heun's second half: the mean of both slopes.
    Correct,
}

/// One kind of update; every kind is a program of its own.
#[derive(Debug, Clone, PartialEq)]
pub struct Update {
    /// Guidance.
    pub guide: Guide,
    /// Limit of the velocity's norm relative to the latent's.
    pub clamp: Option<f32>,
    /// Whether the velocity is averaged with the previous one.
    pub ema: bool,
    /// The move.
    pub step: Move,
    /// Wavelet correction.
    pub dcw: Option<Dcw>,
    /// Whether known latents are put back outside the repainted region.
    pub inject: bool,
}

/// Momentum, limit and kept parallel share of [`Guide::Apg`]
/// (`acestep/models/common/apg_guidance.py`).
const APG: (f32, f32, f32) = (-0.75, 2.5, 0.0);

/// Shape of the latents, `(B, T, C)`.
pub type LatentShape = [usize; 3];

/// Appends the guidance of `kind`: c, u, x `(B, T, C)` to the velocity. The running average is
/// read from input `avg` and written to output `avg`.
pub fn guided(b: &mut Builder, kind: Guide, x: Val, c: Val, u: Option<Val>) -> Val {
    let Some(u) = u else { return c };
    match kind {
        Guide::Off => c,
        Guide::Cfg => b.combine(slot::UNGUIDE, u, slot::GUIDE, c),
        Guide::Adg => {
            let op = Op::Adg {
                scale: slot::GUIDE,
                t: slot::EVAL_T,
                clip: true,
                renorm: false,
            };
            b.op(op, &[x, c, u])
        }
        Guide::Apg => {
            let shape = b.shape(c).to_vec();
            let avg = b.input("avg", &shape);
            let (momentum, limit, eta) = APG;
            let both = b.op(
                Op::Apg {
                    scale: slot::GUIDE,
                    momentum,
                    limit,
                    eta,
                },
                &[c, u, avg],
            );
            let rows = shape[0] * shape[1];
            let flat = b.reshape(both, &[1, 2 * rows, shape[2]]);
            let [v, avg] = [0, rows].map(|start| {
                let half = b.op(Op::SliceRows { start, len: rows }, &[flat]);
                b.reshape(half, &shape)
            });
            b.output("avg", avg);
            v
        }
    }
}

impl Update {
    /// Inputs `x`, `c` and, where the kind needs them, `u`, `avg`, `prev`, `x_predicted`, `v`,
    /// `step_noise` `(steps, B, T, C)`, `noise`, `clean`, `mask` `(B, T)`. Outputs `x` (or
    /// `x_predicted` and `v` for [`Move::Predict`]), `prev`, `avg`.
    pub fn program(&self, shape: LatentShape, steps: usize) -> Result<Program> {
        let mut b = Builder::new(format!("update {:?}", self.step), Math::F32);
        let x = b.input("x", &shape);
        let c = b.input("c", &shape);
        let u = (self.guide != Guide::Off).then(|| b.input("u", &shape));
        let evaluated = if self.step == Move::Correct {
            b.input("x_predicted", &shape)
        } else {
            x
        };
        let mut v = guided(&mut b, self.guide, evaluated, c, u);
        if let Some(limit) = self.clamp {
            v = b.op(Op::ClampNorm { limit }, &[v, evaluated]);
        }
        let first_slope = (self.step == Move::Correct).then(|| b.input("v", &shape));
        if self.ema {
            let previous = first_slope.unwrap_or_else(|| b.input("prev", &shape));
            v = b.combine(slot::KEEP, v, slot::EMA, previous);
        }
        if self.step == Move::Predict {
            let predicted = b.combine(slot::ONE, x, slot::NEG_DT, v);
            b.output("x_predicted", predicted);
            b.output("v", v);
            return b.finish();
        }
        let slope = match first_slope {
            Some(first) => b.combine(slot::HALF, first, slot::HALF, v),
            None => v,
        };
        let moved = self.moved(&mut b, x, slope, shape, steps);
        let moved = match &self.dcw {
            Some(dcw) => {
                let denoised = b.combine(slot::ONE, x, slot::NEG_T, first_slope.unwrap_or(v));
                b.dcw(moved, denoised, dcw.clone(), slot::T)
            }
            None => moved,
        };
        let moved = if self.inject {
            inject(&mut b, moved, shape)
        } else {
            moved
        };
        b.output("x", moved);
        b.output("prev", slope);
        b.finish()
    }

    fn moved(&self, b: &mut Builder, x: Val, v: Val, shape: LatentShape, steps: usize) -> Val {
        match self.step {
            Move::Euler | Move::Predict | Move::Correct => b.combine(slot::ONE, x, slot::NEG_DT, v),
            Move::Finish | Move::Renoise { noise: false } => {
                b.combine(slot::ONE, x, slot::NEG_T, v)
            }
            Move::Renoise { noise: true } => {
                let clean = b.combine(slot::ONE, x, slot::NEG_T, v);
                let table = b.input("step_noise", &[steps, shape[0], shape[1], shape[2]]);
                let noise = b.op(Op::SelectSlab { index: slot::STEP }, &[table]);
                b.combine(slot::CLEAN, clean, slot::NOISE, noise)
            }
        }
    }
}

/// Outside the mask, the known latents at the noise level after the step.
fn inject(b: &mut Builder, x: Val, shape: LatentShape) -> Val {
    let mask = b.input("mask", &shape[..2]);
    let noise = b.input("noise", &shape);
    let clean = b.input("clean", &shape);
    let known = b.combine(slot::NOISE, noise, slot::CLEAN, clean);
    b.op(Op::SelectByMask, &[mask, x, known])
}

/// A scalar vector with the slots that never change filled in.
pub fn scalars(guidance_scale: f32, ema: f32) -> [f32; slot::COUNT] {
    let mut s = [0.0; slot::COUNT];
    let mut set = |slot: Scalar, value: f32| s[slot.0] = value;
    set(slot::GUIDE, guidance_scale);
    set(slot::UNGUIDE, 1.0 - guidance_scale);
    set(slot::ONE, 1.0);
    set(slot::HALF, 0.5);
    set(slot::EMA, ema);
    set(slot::KEEP, 1.0 - ema);
    s
}
