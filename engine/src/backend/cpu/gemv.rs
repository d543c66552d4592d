//! Products with few rows of activations: every weight is read once, in the order of the file,
//! and nothing is packed. Reading one row of weights after the other keeps the memory system at a
//! single stream, which it serves fastest.
//!
//! Weights of bf16 are multiplied as they are read ([`pairs`], [`halves`]); others are widened to
//! a row of f32 first.

mod halves;
mod pairs;

use super::gemm::Product;
use super::pack::{round_row, rounded, stage_row};
use super::parts::Parts;
use super::pool::Pool;
use super::prefetch::{SECOND_LEVEL, prefetch_line};
use super::tile::Kernel;
use super::vecmath::{dot, leveled};
use super::weight::Weight;
use crate::program::DType;

/// Most rows of activations that this path takes.
pub const MAX_ROWS: usize = 8;
/// Bytes of weights of one job.
const JOB_BYTES: usize = 128 << 10;
/// Rows of activations that are multiplied at once with a row of weights.
const GROUP: usize = 4;
/// Weights of one step of the bf16 kernels; staged rows are filled up to a multiple.
const BLOCK: usize = 32;

/// Sums of one row of weights with every row of activations.
pub type Column = [f32; MAX_ROWS];

/// How activations are staged and rows of weights are multiplied.
#[derive(Clone, Copy, PartialEq)]
enum Path {
    /// bf16 weights times bf16 activations, in pairs.
    Pairs,
    /// bf16 weights times f32 activations, whose even and odd elements lie apart.
    Halves,
    /// f32 times f32.
    Wide,
}

impl Path {
    fn new(kernel: Kernel, weights: &[Weight]) -> Path {
        if weights.iter().any(|w| w.dtype != DType::BF16) {
            Path::Wide
        } else if kernel.pairs && pairs::AVAILABLE {
            Path::Pairs
        } else {
            Path::Halves
        }
    }

    /// Lanes of a staged row of `k` elements.
    fn lanes(self, k: usize) -> usize {
        match self {
            Path::Pairs => k.next_multiple_of(BLOCK) / 2,
            Path::Halves => k.next_multiple_of(BLOCK),
            Path::Wide => k,
        }
    }
}

/// Bytes of scratch [`gemv`] wants.
pub fn gemv_scratch_bytes(p: Product, threads: usize) -> usize {
    4 * (p.m * Path::Halves.lanes(p.k) + threads * p.k)
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
    store: impl Fn(usize, &[Column; W]) + Sync,
) {
    let path = Path::new(kernel, &weights);
    let lanes = path.lanes(p.k);
    let scratch = bytemuck::cast_slice_mut::<u8, u32>(scratch);
    let (xs, rows) = scratch.split_at_mut(p.m * lanes);
    for (x, to) in x.chunks_exact(p.k).zip(xs.chunks_exact_mut(lanes)) {
        stage(kernel, path, x, to);
    }
    let xs = &*xs;
    let row_bytes = p.k * weights[0].dtype.bytes();
    let features = (JOB_BYTES / row_bytes).clamp(1, p.n);
    let rows = Parts::new(bytemuck::cast_slice_mut(rows));
    pool.run(p.n.div_ceil(features), &|job, thread| {
        // SAFETY: one part per thread, and no two jobs of a thread run at once.
        let row = unsafe { rows.part(thread * p.k, p.k) };
        for n in job * features..p.n.min((job + 1) * features) {
            let sums = weights.map(|w| {
                let w = w.slice(n * p.k, p.k);
                let mut sums = [0f32; MAX_ROWS];
                match path {
                    Path::Pairs => {
                        pairs::multiply(kernel.level(), w.bytes, xs, &mut sums[..p.m]);
                    }
                    Path::Halves => {
                        let xs = bytemuck::cast_slice(xs);
                        halves::multiply(kernel.level(), w.bytes, xs, &mut sums[..p.m]);
                    }
                    Path::Wide => {
                        wide(kernel, w, bytemuck::cast_slice(xs), row, &mut sums[..p.m]);
                    }
                }
                sums
            });
            store(n, &sums);
        }
    });
}

/// A row of activations as the path wants it.
fn stage(kernel: Kernel, path: Path, x: &[f32], to: &mut [u32]) {
    if path == Path::Pairs {
        to.fill(0);
        return stage_row(kernel, x, &mut to[..x.len().div_ceil(2)]);
    }
    let to: &mut [f32] = bytemuck::cast_slice_mut(to);
    if path == Path::Halves {
        halves::stage(x, to);
    } else {
        to.copy_from_slice(x);
    }
    // Operands are rounded as everywhere, but multiplied in f32.
    if kernel.round || kernel.pairs {
        round_row(kernel.level(), to);
    }
}

fn wide(kernel: Kernel, w: Weight, xs: &[f32], row: &mut [f32], sums: &mut [f32]) {
    decode_row(kernel.level(), w, kernel.round || kernel.pairs, row);
    for (sum, x) in sums.iter_mut().zip(xs.chunks_exact(row.len())) {
        *sum = dot(kernel.level(), x, row);
    }
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

/// Bytes by which weights are fetched ahead of the sums: a page of the file.
const AHEAD: usize = 4 << 10;

/// Asks for the line [`AHEAD`] of `p`; it may be anywhere. The second-level cache has room for
/// more lines on their way than the first.
#[inline(always)]
fn fetch_ahead(p: *const u8) {
    prefetch_line::<SECOND_LEVEL>(p.wrapping_add(AHEAD));
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
    use half::{bf16, f16};

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
        let sizes = [
            (1, 1, 1),
            (2, 3, 31),
            (3, 700, 257),
            (4, 5, 100),
            (5, 9, 128),
            (8, 3, 95),
        ];
        let levels = Level::available().iter();
        let kernels =
            levels.flat_map(|l| [Math::F32, Math::Bf16].map(|math| Kernel::new(*l, math)));
        let kernels: Vec<Kernel> = kernels.collect();
        for (m, n, k) in sizes {
            let p = Product { m, n, k };
            let x: Vec<f32> = (0..m * k).map(|i| (i * 29 % 61) as f32 - 30.0).collect();
            let w: Vec<f32> = (0..n * k).map(|i| (i * 31 % 67) as f32 - 33.0).collect();
            let halves: Vec<u16> = w.iter().map(|w| bf16::from_f32(*w).to_bits()).collect();
            let stored: [(&[u8], DType); 2] = [
                (bytemuck::cast_slice(&w), DType::F32),
                (bytemuck::cast_slice(&halves), DType::BF16),
            ];
            for (kernel, (bytes, dtype)) in kernels.iter().flat_map(|k| stored.map(|s| (*k, s))) {
                let got = product(kernel, p, &x, Weight { bytes, dtype });
                for (i, got) in got.iter().enumerate() {
                    let (x, w) = (&x[i / n * k..][..k], &w[i % n * k..][..k]);
                    // Small integers: exact in every arithmetic.
                    let want: f32 = x.iter().zip(w).map(|(x, w)| x * w).sum();
                    assert_eq!(*got, want, "{kernel:?} {dtype:?} {p:?} at {i}");
                }
            }
        }
    }

    fn product(kernel: Kernel, p: Product, x: &[f32], w: Weight) -> Vec<f32> {
        let pool = Pool::new(2).expect("threads start");
        let mut scratch = vec![0u64; gemv_scratch_bytes(p, 2).div_ceil(8)];
        let mut out = vec![f32::NAN; p.m * p.n];
        let to = Parts::new(&mut out);
        let scratch = bytemuck::cast_slice_mut(&mut scratch);
        gemv(&pool, kernel, p, x, [w], scratch, |n, [sums]| {
            store_column(&to, p, n, sums);
        });
        out
    }
}
