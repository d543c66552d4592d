//! Products with very few rows of activations: every weight is read once, in the order of the
//! file, and nothing is packed. Reading one row of weights after the other keeps the memory
//! system at a single stream, which it serves fastest.

use super::gemm::Product;
use super::pack::round_row;
use super::parts::Parts;
use super::pool::Pool;
use super::tile::Kernel;
use super::vecmath::{fma, leveled};
use super::weight::Weight;
use crate::program::DType;

/// Most rows of activations that this path takes.
pub const MAX_ROWS: usize = 4;
/// Bytes of weights of one job.
const JOB_BYTES: usize = 128 << 10;
/// Elements of one step.
const STEP: usize = 32;

/// Bytes of scratch [`gemv`] wants.
pub fn gemv_scratch_bytes(p: Product) -> usize {
    4 * p.m * p.k
}

/// Computes `x w^T` for `W` weights at once and gives the sums of every output feature to
/// `store(feature, sums)`, `sums[w][row]`.
pub fn gemv<const W: usize>(
    pool: &Pool,
    kernel: Kernel,
    p: Product,
    x: &[f32],
    weights: [Weight; W],
    scratch: &mut [u8],
    store: impl Fn(usize, &[[f32; MAX_ROWS]; W]) + Sync,
) {
    let level = kernel.level();
    // Operands are rounded as everywhere, but multiplied in f32.
    let round = kernel.round || kernel.pairs;
    let xs = &mut bytemuck::cast_slice_mut::<u8, f32>(scratch)[..p.m * p.k];
    xs.copy_from_slice(x);
    if round {
        round_row(level, xs);
    }
    let xs = &*xs;
    let row_bytes = p.k * weights[0].dtype.bytes();
    let features = (JOB_BYTES / row_bytes).clamp(1, p.n);
    pool.run(p.n.div_ceil(features), &|job, _| {
        for n in job * features..p.n.min((job + 1) * features) {
            let sums = weights.map(|w| dots(level, w.slice(n * p.k, p.k), round, xs, p.m));
            store(n, &sums);
        }
    });
}

leveled! {
    /// Inner products of one row of weights with `m` rows of activations.
    fn dots(w: Weight, round: bool, x: &[f32], m: usize) -> [f32; MAX_ROWS] = dots_body
}

#[inline(always)]
fn dots_body<const FMA: bool>(w: Weight, round: bool, x: &[f32], m: usize) -> [f32; MAX_ROWS] {
    match m {
        1 => dots_rows::<FMA, 1>(w, round, x),
        2 => dots_rows::<FMA, 2>(w, round, x),
        3 => dots_rows::<FMA, 3>(w, round, x),
        _ => dots_rows::<FMA, 4>(w, round, x),
    }
}

#[inline(always)]
fn dots_rows<const FMA: bool, const M: usize>(
    w: Weight,
    round: bool,
    x: &[f32],
) -> [f32; MAX_ROWS] {
    let k = x.len() / M;
    let rows: [&[f32]; M] = std::array::from_fn(|i| &x[i * k..][..k]);
    let steps: [&[[f32; STEP]]; M] = rows.map(|row| row.as_chunks().0);
    let mut acc = [[0f32; STEP]; M];
    let e = w.dtype.bytes();
    for (at, bytes) in w.bytes.chunks_exact(STEP * e).enumerate() {
        let b = decode(bytes, w.dtype, round);
        for i in 0..M {
            add_step::<FMA>(&mut acc[i], &steps[i][at], &b);
        }
    }
    let rest = k % STEP;
    if rest > 0 {
        // Filled up with zeros.
        let mut bytes = [0u8; STEP * 4];
        bytes[..rest * e].copy_from_slice(&w.bytes[(k - rest) * e..]);
        let b = decode(&bytes[..STEP * e], w.dtype, round);
        for i in 0..M {
            let mut step = [0f32; STEP];
            step[..rest].copy_from_slice(&rows[i][k - rest..]);
            add_step::<FMA>(&mut acc[i], &step, &b);
        }
    }
    let mut sums = [0f32; MAX_ROWS];
    for (sum, acc) in sums.iter_mut().zip(&acc) {
        *sum = acc.iter().sum();
    }
    sums
}

#[inline(always)]
fn add_step<const FMA: bool>(acc: &mut [f32; STEP], x: &[f32; STEP], b: &[f32; STEP]) {
    for j in 0..STEP {
        acc[j] = fma::<FMA>(x[j], b[j], acc[j]);
    }
}

/// One step of weights as f32.
#[inline(always)]
fn decode(bytes: &[u8], dtype: DType, round: bool) -> [f32; STEP] {
    let mut out = [0f32; STEP];
    match dtype {
        DType::BF16 => {
            for (o, b) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                *o = f32::from_bits(u32::from(u16::from_le_bytes(*b)) << 16);
            }
            return out;
        }
        DType::F16 => {
            for (o, b) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                *o = widen_f16(u16::from_le_bytes(*b));
            }
        }
        DType::F32 | DType::I32 => {
            for (o, b) in out.iter_mut().zip(bytes.as_chunks::<4>().0) {
                *o = f32::from_le_bytes(*b);
            }
        }
    }
    if round {
        for o in &mut out {
            *o = super::pack::rounded(*o);
        }
    }
    out
}

/// Exact, in operations that vectorise: the bits of an f16 seen as an f32 are 2^112 too small.
#[inline(always)]
fn widen_f16(h: u16) -> f32 {
    let bits = u32::from(h & 0x7fff) << 13;
    let finite = f32::from_bits(bits) * f32::from_bits(0x7780_0000);
    let magnitude = if h & 0x7c00 == 0x7c00 {
        bits | 0x7f80_0000
    } else {
        finite.to_bits()
    };
    f32::from_bits(magnitude | u32::from(h & 0x8000) << 16)
}

/// Writes the sums of one feature to column `n` of an `(m, n)` output.
pub fn store_column(out: &Parts<f32>, p: Product, n: usize, values: &[f32]) {
    for (m, value) in values.iter().enumerate().take(p.m) {
        // SAFETY: feature n belongs to one job alone.
        let place = unsafe { out.part(m * p.n + n, 1) };
        place[0] = *value;
    }
}

#[cfg(test)]
mod tests {
    use super::super::level::Level;
    use super::*;
    use half::f16;

    #[test]
    fn f16_is_widened_exactly() {
        for h in 0..=u16::MAX {
            let want = f16::from_bits(h).to_f32();
            let got = widen_f16(h);
            assert!(
                got == want && got.is_sign_negative() == want.is_sign_negative()
                    || want.is_nan() && got.is_nan()
            );
        }
    }

    #[test]
    fn sums_agree_with_plain_ones_at_every_level_and_length() {
        for k in [1, 31, 32, 33, 100] {
            let x: Vec<f32> = (0..4 * k).map(|i| (i * 29 % 61) as f32 - 30.0).collect();
            let w: Vec<f32> = (0..k).map(|i| (i * 31 % 67) as f32 - 33.0).collect();
            let weight = Weight {
                bytes: bytemuck::cast_slice(&w),
                dtype: DType::F32,
            };
            for &level in Level::available() {
                for m in 1..=MAX_ROWS {
                    let got = dots(level, weight, true, &x[..m * k], m);
                    for (i, got) in got.iter().enumerate().take(m) {
                        let row = &x[i * k..][..k];
                        let want: f32 = row.iter().zip(&w).map(|(x, w)| x * w).sum();
                        assert_eq!(*got, want);
                    }
                }
            }
        }
    }
}
