//! Products with very few rows of activations: every weight is read once, in the order of the
//! file, and nothing is packed. Reading one row of weights after the other keeps the memory
//! system at a single stream, which it serves fastest.

use super::gemm::Product;
use super::pack::{round_row, rounded};
use super::parts::Parts;
use super::pool::Pool;
use super::tile::Kernel;
use super::vecmath::{dot, leveled};
use super::weight::Weight;
use crate::program::DType;

/// Most rows of activations that this path takes.
pub const MAX_ROWS: usize = 4;
/// Bytes of weights of one job.
const JOB_BYTES: usize = 128 << 10;

/// Bytes of scratch [`gemv`] wants.
pub fn gemv_scratch_bytes(p: Product, threads: usize) -> usize {
    4 * (p.m + threads) * p.k
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
    let (xs, rows) = bytemuck::cast_slice_mut::<u8, f32>(scratch).split_at_mut(p.m * p.k);
    xs.copy_from_slice(x);
    if round {
        round_row(level, xs);
    }
    let xs = &*xs;
    let row_bytes = p.k * weights[0].dtype.bytes();
    let features = (JOB_BYTES / row_bytes).clamp(1, p.n);
    let rows = Parts::new(rows);
    pool.run(p.n.div_ceil(features), &|job, thread| {
        // SAFETY: one part per thread, and no two jobs of a thread run at once.
        let row = unsafe { rows.part(thread * p.k, p.k) };
        for n in job * features..p.n.min((job + 1) * features) {
            let sums = weights.map(|w| {
                decode_row(level, w.slice(n * p.k, p.k), round, row);
                let mut sums = [0f32; MAX_ROWS];
                for (sum, x) in sums.iter_mut().zip(xs.chunks_exact(p.k)) {
                    *sum = dot(level, x, row);
                }
                sums
            });
            store(n, &sums);
        }
    });
}

leveled! {
    /// Widens a row of weights, and rounds it to bf16 if asked to.
    fn decode_row(w: Weight, round: bool, out: &mut [f32]) = decode_body
}

#[inline(always)]
fn decode_body<const FMA: bool>(w: Weight, round: bool, out: &mut [f32]) {
    match w.dtype {
        DType::BF16 => {
            for (o, b) in out.iter_mut().zip(w.bytes.as_chunks::<2>().0) {
                *o = f32::from_bits(u32::from(u16::from_le_bytes(*b)) << 16);
            }
            return;
        }
        DType::F16 => {
            for (o, b) in out.iter_mut().zip(w.bytes.as_chunks::<2>().0) {
                *o = widen_f16(u16::from_le_bytes(*b));
            }
        }
        DType::F32 | DType::I32 => {
            for (o, b) in out.iter_mut().zip(w.bytes.as_chunks::<4>().0) {
                *o = f32::from_le_bytes(*b);
            }
        }
    }
    if round {
        for o in out {
            *o = rounded(*o);
        }
    }
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
    use crate::program::Math;
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
    fn products_agree_with_plain_sums() {
        let pool = Pool::new(2).expect("threads start");
        for (m, n, k) in [(1, 1, 1), (2, 3, 31), (3, 700, 257), (4, 5, 100)] {
            let p = Product { m, n, k };
            let x: Vec<f32> = (0..m * k).map(|i| (i * 29 % 61) as f32 - 30.0).collect();
            let w: Vec<f32> = (0..n * k).map(|i| (i * 31 % 67) as f32 - 33.0).collect();
            let weight = Weight {
                bytes: bytemuck::cast_slice(&w),
                dtype: DType::F32,
            };
            for &level in Level::available() {
                let kernel = Kernel::new(level, Math::Bf16);
                let mut scratch = vec![0u64; gemv_scratch_bytes(p, 2).div_ceil(8)];
                let mut out = vec![f32::NAN; m * n];
                let to = Parts::new(&mut out);
                let scratch = bytemuck::cast_slice_mut(&mut scratch);
                gemv(&pool, kernel, p, &x, [weight], scratch, |n, [sums]| {
                    store_column(&to, p, n, sums);
                });
                for (i, got) in out.iter().enumerate() {
                    let (x, w) = (&x[i / n * k..][..k], &w[i % n * k..][..k]);
                    // Small integers: exact in every arithmetic.
                    let want: f32 = x.iter().zip(w).map(|(x, w)| x * w).sum();
                    assert_eq!(*got, want, "{kernel:?} {p:?} at {i}");
                }
            }
        }
    }
}
