//! Convolutions along time, plain and transposed, with an optional Snake in front.

use super::level::Level;
use super::pack::round_row;
use super::pool::Pool;
use super::vecmath;
use super::weight::Weight;
use crate::program::Math;

/// Extents and steps of a convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConvDims {
    /// Batch rows.
    pub b: usize,
    /// Input length.
    pub t_in: usize,
    /// Output length.
    pub t_out: usize,
    /// Input channels.
    pub cin: usize,
    /// Output channels.
    pub cout: usize,
    /// Taps.
    pub k: usize,
    /// Distance between outputs, or the up-sampling factor of a transposed convolution.
    pub stride: usize,
    /// Distance between taps; 1 in a transposed convolution.
    pub dilation: usize,
    /// Zeros on each side, or samples cut from each side of a transposed convolution.
    pub pad: usize,
    /// Whether it is transposed: weights `(K, Cout, Cin)` instead of `(Cout, K, Cin)`.
    pub transposed: bool,
}

/// Snake in front of a convolution, as stored: `alpha (Cin)`, `beta (Cin)`.
#[derive(Clone, Copy)]
pub struct Snake<'a> {
    /// Logarithm of the frequency.
    pub alpha: &'a [f32],
    /// Logarithm of the inverse height.
    pub beta: &'a [f32],
}

/// Bytes of scratch [`conv`] wants.
pub fn conv_scratch_bytes(d: &ConvDims, _threads: usize) -> usize {
    4 * (d.b * d.t_in * d.cin + d.k * d.cin * d.cout + 2 * d.cin)
}

/// The convolution of [`crate::program::Op::Conv1d`] or
/// [`crate::program::Op::ConvTranspose1d`].
#[allow(clippy::too_many_arguments)]
pub fn conv(
    pool: &Pool,
    level: Level,
    math: Math,
    d: &ConvDims,
    x: &[f32],
    snake: Option<Snake>,
    w: Weight,
    bias: Option<&[f32]>,
    out: &mut [f32],
    scratch: &mut [u8],
) {
    let scratch = bytemuck::cast_slice_mut::<u8, f32>(scratch);
    let (xs, rest) = scratch.split_at_mut(d.b * d.t_in * d.cin);
    let (ws, factors) = rest.split_at_mut(d.k * d.cin * d.cout);
    let (a, ib) = factors.split_at_mut(d.cin);
    w.widen(ws);
    if math == Math::Bf16 {
        round_row(level, ws);
    }
    if let Some(s) = snake {
        for c in 0..d.cin {
            (a[c], ib[c]) = vecmath::snake_factors(s.alpha[c], s.beta[c]);
        }
    }
    let (ws, a, ib) = (&*ws, &*a, &ib[..d.cin]);
    pool.pieces(xs, d.cin, |i, row| {
        let x = &x[i * d.cin..][..d.cin];
        match snake {
            Some(_) => vecmath::snake_row(level, x, a, ib, row),
            None => row.copy_from_slice(x),
        }
        if math == Math::Bf16 {
            round_row(level, row);
        }
    });
    let xs = &*xs;
    pool.pieces(out, d.cout, |i, row| {
        let (b, t) = (i / d.t_out, i % d.t_out);
        for (o, y) in row.iter_mut().enumerate() {
            let mut sum = bias.map_or(0.0, |bias| bias[o]);
            for k in 0..d.k {
                let Some(from) = source(d, t, k) else {
                    continue;
                };
                let at = if d.transposed {
                    k * d.cout + o
                } else {
                    o * d.k + k
                };
                sum += vecmath::dot(
                    level,
                    &xs[(b * d.t_in + from) * d.cin..][..d.cin],
                    &ws[at * d.cin..][..d.cin],
                );
            }
            *y = sum;
        }
    });
}

/// Input row that tap `k` of output row `t` reads, if there is one.
fn source(d: &ConvDims, t: usize, k: usize) -> Option<usize> {
    let from = if d.transposed {
        let at = (t + d.pad).checked_sub(k)?;
        (at % d.stride == 0).then_some(at / d.stride)?
    } else {
        (t * d.stride + k * d.dilation).checked_sub(d.pad)?
    };
    (from < d.t_in).then_some(from)
}
