//! The gated half of a feed-forward block.

use super::level::Level;
use super::linear::{Product, round};
use super::parts::Parts;
use super::pool::Pool;
use super::vecmath;
use super::weight::Weight;
use crate::program::Math;

/// Bytes of scratch [`swiglu`] wants.
pub fn swiglu_scratch_bytes(p: Product, threads: usize) -> usize {
    4 * (p.m * p.k + threads * 2 * p.k)
}

/// `out = silu(x gate^T) * (x up^T)`.
#[allow(clippy::too_many_arguments)]
pub fn swiglu(
    pool: &Pool,
    level: Level,
    math: Math,
    p: Product,
    x: &[f32],
    gate: Weight,
    up: Weight,
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
        let rows = unsafe { ws.part(thread * 2 * p.k, 2 * p.k) };
        let (g, u) = rows.split_at_mut(p.k);
        gate.slice(n * p.k, p.k).widen(g);
        up.slice(n * p.k, p.k).widen(u);
        round(math, g);
        round(math, u);
        for m in 0..p.m {
            let x = &xs[m * p.k..][..p.k];
            let z = vecmath::dot(level, x, g);
            // SAFETY: column n belongs to this job alone.
            let o = unsafe { out.part(m * p.n + n, 1) };
            o[0] = z / (1.0 + (-z).exp()) * vecmath::dot(level, x, u);
        }
    });
}
