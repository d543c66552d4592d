//! Matrix products with weights `(N, K)` as stored.

use super::level::Level;
use super::parts::Parts;
use super::pool::Pool;
use super::vecmath;
use super::weight::{Weight, round_bf16};
use crate::program::Math;

/// Extents of a product: `(m, k) x (n, k)^T`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Product {
    /// Rows of activations.
    pub m: usize,
    /// Output features.
    pub n: usize,
    /// Input features.
    pub k: usize,
}

/// Bytes of scratch [`linear`] wants.
pub fn linear_scratch_bytes(p: Product, threads: usize) -> usize {
    4 * (p.m * p.k + threads * p.k)
}

/// `out = x w^T (+ bias)`.
#[allow(clippy::too_many_arguments)]
pub fn linear(
    pool: &Pool,
    level: Level,
    math: Math,
    p: Product,
    x: &[f32],
    w: Weight,
    bias: Option<&[f32]>,
    out: &mut [f32],
    scratch: &mut [u8],
) {
    let (xs, ws) = bytemuck::cast_slice_mut::<u8, f32>(scratch).split_at_mut(p.m * p.k);
    xs.copy_from_slice(x);
    round(math, xs);
    let xs = &*xs;
    let (ws, out) = (Parts::new(ws), Parts::new(out));
    pool.run(p.n, &|n, thread| {
        // SAFETY: one part per thread, and no two jobs of a thread run at once.
        let row = unsafe { ws.part(thread * p.k, p.k) };
        w.slice(n * p.k, p.k).widen(row);
        round(math, row);
        for m in 0..p.m {
            // SAFETY: column n belongs to this job alone.
            let o = unsafe { out.part(m * p.n + n, 1) };
            o[0] = vecmath::dot(level, &xs[m * p.k..][..p.k], row) + bias.map_or(0.0, |b| b[n]);
        }
    });
}

/// Rounds operands where products take bf16.
pub fn round(math: Math, row: &mut [f32]) {
    if math == Math::Bf16 {
        row.iter_mut().for_each(|x| *x = round_bf16(*x));
    }
}
