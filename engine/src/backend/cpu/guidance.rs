//! Guidance: the ways in which a conditional and an unconditional prediction become one.
//!
//! Sums run in f64 over one column (channel) or row (frame) at a time, in an order that does not
//! depend on the number of threads.

use super::elementwise::each_row;
use super::pool::Pool;

/// Channels of one job of the sums along time: one cache line of f32.
const BLOCK: usize = 16;

/// Largest angle of [`adg`]: the reference's 3.14 / 6, not a sixth of pi.
const WIDEST: f64 = 0.523_333_333_333_333_3;
/// Largest angle with renormalisation: the reference's 3.14 / 3.
const WIDEST_RENORM: f64 = 2.0 * WIDEST;

/// Parameters of [`apg`] beside its operands.
#[derive(Debug, Clone, Copy)]
pub struct Apg {
    /// Guidance scale.
    pub scale: f32,
    /// Weight of the running average; 0 disables it.
    pub momentum: f32,
    /// Largest norm; 0 disables the limit.
    pub limit: f32,
    /// Share of the parallel part that is kept.
    pub eta: f32,
}

/// Scratch of [`apg`] for `b` items of `ch` channels.
pub fn apg_scratch_bytes(b: usize, ch: usize) -> usize {
    b * ch * size_of::<[f32; 2]>()
}

/// `Op::Apg`: c, u, avg are `b` items of `(T, C)` with `ch` channels; `out` is two slabs, the
/// guided prediction and the new running average.
///
/// With `d` the limited difference, `v = c + (g - 1) (d - k c)` where `k` is
/// `(1 - eta) <d, c> / |c|^2`: three sums per channel decide everything.
#[allow(clippy::too_many_arguments)] // one argument per operand of the contract
pub fn apg(
    pool: &Pool,
    p: Apg,
    c: &[f32],
    u: &[f32],
    avg: &[f32],
    b: usize,
    ch: usize,
    out: &mut [f32],
    scratch: &mut [u8],
) {
    let item = c.len() / b;
    let (v_out, avg_out) = out.split_at_mut(c.len());
    each_row(pool, None, ch, avg_out, |r, row| {
        let at = r * ch;
        for (i, o) in row.iter_mut().enumerate() {
            let momentum = if p.momentum == 0.0 {
                0.0
            } else {
                p.momentum * avg[at + i]
            };
            *o = c[at + i] - u[at + i] + momentum;
        }
    });
    let avg_out = &*avg_out;
    let factors: &mut [[f32; 2]] =
        bytemuck::cast_slice_mut(&mut scratch[..apg_scratch_bytes(b, ch)]);
    each_column_block(pool, ch, factors, |i, first, factors| {
        let at = i * item + first;
        let sums = column_sums(&c[at..], &avg_out[at..], ch, item / ch, factors.len());
        for (f, [cc, cd, dd]) in factors.iter_mut().zip(sums) {
            let norm = dd.sqrt();
            let limit = f64::from(p.limit);
            let s = if p.limit > 0.0 && norm > limit {
                limit / norm
            } else {
                1.0
            };
            let c_norm = cc.sqrt().max(1e-12);
            let k = (1.0 - f64::from(p.eta)) * s * cd / (c_norm * c_norm);
            *f = [s as f32, k as f32];
        }
    });
    let factors = &*factors;
    each_row(pool, Some(c), ch, v_out, |r, row| {
        let factors = &factors[r * ch / item * ch..][..ch];
        let d = &avg_out[r * ch..][..ch];
        for ((v, d), [s, k]) in row.iter_mut().zip(d).zip(factors) {
            *v += (p.scale - 1.0) * (s * d - k * *v);
        }
    });
}

/// Runs `f(item, first channel, part)` on blocks of the channels of every item; `stats` has one
/// element per item and channel.
fn each_column_block<T: Send>(
    pool: &Pool,
    ch: usize,
    stats: &mut [T],
    f: impl Fn(usize, usize, &mut [T]) + Sync,
) {
    // Pieces of whole items when the channels are no multiple of the block.
    let piece = if ch.is_multiple_of(BLOCK) { BLOCK } else { ch };
    pool.pieces(stats, piece, |job, part| {
        let (i, base) = (job * piece / ch, job * piece % ch);
        for (n, part) in part.chunks_mut(BLOCK).enumerate() {
            f(i, base + n * BLOCK, part);
        }
    });
}

/// `[<x, x>, <x, y>, <y, y>]` of up to [`BLOCK`] neighbouring columns over `rows` rows of `ch`.
fn column_sums(x: &[f32], y: &[f32], ch: usize, rows: usize, width: usize) -> [[f64; 3]; BLOCK] {
    let mut sums = [[0f64; 3]; BLOCK];
    for t in 0..rows {
        let (x, y) = (&x[t * ch..][..width], &y[t * ch..][..width]);
        for ((s, &x), &y) in sums.iter_mut().zip(x).zip(y) {
            let (x, y) = (f64::from(x), f64::from(y));
            *s = [s[0] + x * x, s[1] + x * y, s[2] + y * y];
        }
    }
    sums
}

/// Parameters of [`adg`] beside its operands.
#[derive(Debug, Clone, Copy)]
pub struct Adg {
    /// Guidance scale.
    pub scale: f32,
    /// Time of the latent.
    pub t: f32,
    /// Whether the angle is clipped.
    pub clip: bool,
    /// Whether the result gets the length of the conditional prediction.
    pub renorm: bool,
}

/// Scratch of [`adg`] for `b` items of `ch` channels.
pub fn adg_scratch_bytes(b: usize, ch: usize) -> usize {
    b * ch * size_of::<f32>()
}

/// `Op::Adg`: x, c, u are `b` items of `(T, C)` with `ch` channels.
#[allow(clippy::too_many_arguments)] // one argument per operand of the contract
pub fn adg(
    pool: &Pool,
    p: Adg,
    x: &[f32],
    c: &[f32],
    u: &[f32],
    b: usize,
    ch: usize,
    out: &mut [f32],
    scratch: &mut [u8],
) {
    let item = x.len() / b;
    let t = p.t;
    each_row(pool, None, ch, out, |r, row| {
        let at = r * ch..(r + 1) * ch;
        adg_frame(p, &x[at.clone()], &c[at.clone()], &u[at], row);
    });
    if p.renorm {
        let ratios: &mut [f32] = bytemuck::cast_slice_mut(&mut scratch[..adg_scratch_bytes(b, ch)]);
        let x0 = &*out;
        each_column_block(pool, ch, ratios, |i, first, ratios| {
            let mut sums = [[0f64; 2]; BLOCK];
            for at in (i * item..(i + 1) * item).step_by(ch) {
                for (j, s) in sums.iter_mut().enumerate().take(ratios.len()) {
                    let at = at + first + j;
                    let a = f64::from(x[at]) - f64::from(t) * f64::from(c[at]);
                    *s = [s[0] + a * a, s[1] + f64::from(x0[at]).powi(2)];
                }
            }
            for (ratio, [a, x0]) in ratios.iter_mut().zip(sums) {
                *ratio = if x0 > 0.0 {
                    (a / x0).sqrt() as f32
                } else {
                    1.0
                };
            }
        });
        let ratios = &*ratios;
        each_row(pool, None, ch, out, |r, row| {
            let ratios = &ratios[r * ch / item * ch..][..ch];
            row.iter_mut()
                .zip(ratios)
                .for_each(|(x0, ratio)| *x0 *= ratio);
        });
    }
    each_row(pool, None, ch, out, |r, row| {
        row.iter_mut()
            .zip(&x[r * ch..][..ch])
            .for_each(|(o, x)| *o = (x - *o) / t);
    });
}

/// The guided clean sample of one frame.
fn adg_frame(p: Adg, x: &[f32], c: &[f32], u: &[f32], out: &mut [f32]) {
    let t = f64::from(p.t);
    // The clean samples the two predictions point to.
    let pair = |i: usize| {
        let x = f64::from(x[i]);
        (x - t * f64::from(c[i]), x - t * f64::from(u[i]))
    };
    let (mut aa, mut ab, mut bb, mut db) = (0f64, 0f64, 0f64, 0f64);
    for i in 0..x.len() {
        let (a, b) = pair(i);
        aa += a * a;
        ab += a * b;
        bb += b * b;
        db += (a - b) * b;
    }
    let norms = (aa * bb).sqrt();
    let cos = if norms > 0.0 { ab / norms } else { 1.0 };
    let theta = cos.clamp(-1.0 + 1e-6, 1.0 - 1e-6).acos();
    let weight = f64::from((p.scale - 1.0).max(0.0)) + 1e-3;
    let mut angle = weight * theta;
    if p.clip {
        let widest = if p.renorm { WIDEST_RENORM } else { WIDEST };
        angle = angle.clamp(-widest, widest);
    }
    let sine = theta.sin();
    let across = if sine > 1e-3 {
        angle.sin() / sine
    } else {
        weight
    };
    let along = db / (bb + 1e-8);
    for (i, o) in out.iter_mut().enumerate() {
        let (a, b) = pair(i);
        *o = (angle.cos() * a + across * (a - b - along * b)) as f32;
    }
}

/// `Op::ClampNorm`: items of `item` elements; v lies in `out` unless it is given.
pub fn clamp_norm(
    pool: &Pool,
    v: Option<&[f32]>,
    x: &[f32],
    item: usize,
    limit: f32,
    out: &mut [f32],
) {
    let norm = |x: &[f32]| x.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt() + 1e-10;
    pool.pieces(out, item, |i, part| {
        let at = i * item;
        if let Some(v) = v {
            part.copy_from_slice(&v[at..at + item]);
        }
        let ratio = f64::from(limit) * norm(&x[at..at + item]) / norm(part);
        if ratio < 1.0 {
            part.iter_mut().for_each(|v| *v *= ratio as f32);
        }
    });
}
