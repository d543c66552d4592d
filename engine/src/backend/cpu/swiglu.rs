//! The gated half of a feed-forward block.

use super::gemm::{Product, gemm, gemm_scratch_bytes};
use super::gemv::{MAX_ROWS, gemv, gemv_scratch_bytes, store_column};
use super::parts::Parts;
use super::pool::Pool;
use super::tile::Kernel;
use super::vecmath;
use super::weight::Weight;

/// Bytes of scratch [`swiglu`] wants.
pub fn swiglu_scratch_bytes(kernel: Kernel, p: Product, threads: usize) -> usize {
    match p.m <= MAX_ROWS {
        true => gemv_scratch_bytes(p, threads),
        false => gemm_scratch_bytes(kernel, p, 2, threads),
    }
}

/// `Op::SwiGlu`: `out = silu(x gate^T) (x up^T)`. The two products of a tile meet while they are
/// in the cache; neither is ever whole in memory.
#[allow(clippy::too_many_arguments)] // one argument per operand of the contract
pub fn swiglu(
    pool: &Pool,
    kernel: Kernel,
    p: Product,
    x: &[f32],
    gate: Weight,
    up: Weight,
    out: &mut [f32],
    scratch: &mut [u8],
) {
    let level = kernel.level();
    let out = Parts::new(out);
    if p.m <= MAX_ROWS {
        gemv(pool, kernel, p, x, [gate, up], scratch, |n, [g, u]| {
            let mut values = *g;
            vecmath::silu_row(level, &mut values);
            values.iter_mut().zip(u).for_each(|(v, u)| *v *= u);
            store_column(&out, p, n, &values);
        });
        return;
    }
    gemm(pool, kernel, p, x, [gate, up], scratch, |s, [g, u]| {
        for (i, (g, u)) in g.0.iter_mut().zip(&u.0).enumerate().take(s.rows) {
            vecmath::silu_row(level, g);
            // SAFETY: every place of the output is stored once.
            let row = unsafe { out.part((s.row + i) * p.n + s.col, s.cols) };
            for ((o, g), u) in row.iter_mut().zip(&*g).zip(u) {
                *o = g * u;
            }
        }
    });
}
