//! The wavelet correction of the sampler.
//!
//! The transform is linear and orthogonal, so correcting the bands of x towards those of y is
//! the same as adding the weighted bands of `x - y` to x; one transform serves, and x itself
//! passes unrounded.

use super::elementwise::each_row;
use super::pool::Pool;
use crate::program::{Dcw, DcwMode};

/// Strengths of the low and the high band before a step at time `t`.
fn strengths(dcw: &Dcw, t: f32) -> (f32, f32) {
    match dcw.mode {
        DcwMode::Low => (t * dcw.low, 0.0),
        DcwMode::High => (0.0, (1.0 - t) * dcw.low),
        DcwMode::Double => (t * dcw.low, (1.0 - t) * dcw.high),
        DcwMode::Pixel => (dcw.low, dcw.low),
    }
}

/// Coefficients per band of a signal of `t` samples, padded to an even number.
fn coefficients(t: usize, taps: usize) -> usize {
    (t.next_multiple_of(2) + taps - 1) / 2
}

/// Scratch of [`correct`]: both bands of `b` items of `t` frames of `ch` channels.
pub fn scratch_bytes(dcw: &Dcw, b: usize, t: usize, ch: usize) -> usize {
    match dcw.mode {
        DcwMode::Pixel => 0,
        _ => b * coefficients(t, dcw.filter.len()) * 2 * ch * size_of::<f32>(),
    }
}

/// Extents of the operands of [`correct`].
#[derive(Debug, Clone, Copy)]
pub struct DcwDims {
    /// Items.
    pub b: usize,
    /// Frames.
    pub t: usize,
    /// Channels.
    pub ch: usize,
}

/// `Op::Dcw`: x and y `(B, T, C)`, `t` the time before the step.
///
/// With `f` the low-pass decomposition filter of `F` taps and `g[j] = (-1)^(F-1-j) f[F-1-j]` the
/// high-pass one (its sign cancels), coefficient k of a band is `sum_j f[j] d[2k + 1 - j]`, and,
/// the transform being orthogonal, sample n is `sum_k band[k] f[2k + 1 - n]`.
#[allow(clippy::too_many_arguments)] // one argument per operand of the contract
pub fn correct(
    pool: &Pool,
    dcw: &Dcw,
    t: f32,
    dims: DcwDims,
    x: &[f32],
    y: &[f32],
    out: &mut [f32],
    scratch: &mut [u8],
) {
    let (low, high) = strengths(dcw, t);
    if dcw.mode == DcwMode::Pixel {
        each_row(pool, Some(x), dims.ch, out, |r, row| {
            let y = &y[r * dims.ch..][..dims.ch];
            row.iter_mut()
                .zip(y)
                .for_each(|(o, y)| *o += low * (*o - y));
        });
        return;
    }
    let DcwDims { b, t: frames, ch } = dims;
    let n = coefficients(frames, dcw.filter.len());
    let bytes = scratch_bytes(dcw, b, frames, ch);
    let bands: &mut [f32] = bytemuck::cast_slice_mut(&mut scratch[..bytes]);
    each_row(pool, None, 2 * ch, bands, |r, row| {
        let (i, k) = (r / n, r % n);
        let item = i * frames * ch;
        decompose(&dcw.filter, &x[item..], &y[item..], frames, k, row);
        let (l, h) = row.split_at_mut(ch);
        l.iter_mut().for_each(|v| *v *= low);
        h.iter_mut().for_each(|v| *v *= high);
    });
    let bands = &*bands;
    each_row(pool, Some(x), ch, out, |r, row| {
        let (i, at) = (r / frames, r % frames);
        add_back(&dcw.filter, &bands[i * n * 2 * ch..], n, at, row);
    });
}

/// Tap `j` of the high-pass decomposition filter.
fn high_tap(filter: &[f32], j: usize) -> f32 {
    let mirrored = filter.len() - 1 - j;
    if mirrored.is_multiple_of(2) {
        filter[mirrored]
    } else {
        -filter[mirrored]
    }
}

/// Coefficient `k` of both bands of `x - y` for all channels: low in the first half of `row`.
fn decompose(filter: &[f32], x: &[f32], y: &[f32], frames: usize, k: usize, row: &mut [f32]) {
    let ch = row.len() / 2;
    row.fill(0.0);
    let (low, high) = row.split_at_mut(ch);
    for (j, &f) in filter.iter().enumerate() {
        let Some(at) = (2 * k + 1).checked_sub(j).filter(|&at| at < frames) else {
            continue;
        };
        let g = high_tap(filter, j);
        let (x, y) = (&x[at * ch..][..ch], &y[at * ch..][..ch]);
        for (((l, h), x), y) in low.iter_mut().zip(high.iter_mut()).zip(x).zip(y) {
            let d = x - y;
            *l += f * d;
            *h += g * d;
        }
    }
}

/// Adds sample `at` of the signal that the `n` coefficients of the two bands stand for.
fn add_back(filter: &[f32], bands: &[f32], n: usize, at: usize, row: &mut [f32]) {
    let taps = filter.len();
    let ch = row.len();
    // Coefficient k reaches the samples 2k + 2 - F ..= 2k + 1, sample 2k + 1 - j by tap j.
    let first = at / 2;
    let last = ((at + taps - 2) / 2).min(n - 1);
    for k in first..=last {
        let j = 2 * k + 1 - at;
        let (f, g) = (filter[j], high_tap(filter, j));
        let (low, high) = bands[k * 2 * ch..][..2 * ch].split_at(ch);
        for ((o, l), h) in row.iter_mut().zip(low).zip(high) {
            *o += f * l + g * h;
        }
    }
}
