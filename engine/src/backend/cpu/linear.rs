//! Linear layers.

use super::gemm::{Product, gemm, gemm_scratch_bytes};
use super::gemv::{MAX_ROWS, gemv, gemv_scratch_bytes, store_column};
use super::parts::Parts;
use super::pool::Pool;
use super::tile::Kernel;
use super::weight::Weight;

/// Bytes of scratch [`linear`] wants.
pub fn linear_scratch_bytes(kernel: Kernel, p: Product, threads: usize) -> usize {
    match p.m <= MAX_ROWS {
        true => gemv_scratch_bytes(p, threads),
        false => gemm_scratch_bytes(kernel, p, 1, threads),
    }
}

/// `Op::Linear`: `out = x w^T (+ bias)`.
#[allow(clippy::too_many_arguments)] // one argument per operand of the contract
pub fn linear(
    pool: &Pool,
    kernel: Kernel,
    p: Product,
    x: &[f32],
    w: Weight,
    bias: Option<&[f32]>,
    out: &mut [f32],
    scratch: &mut [u8],
) {
    let out = Parts::new(out);
    if p.m <= MAX_ROWS {
        gemv(pool, kernel, p, x, [w], scratch, |n, [sums]| {
            let bias = bias.map_or(0.0, |b| b[n]);
            store_column(&out, p, n, &sums.map(|s| s + bias));
        });
        return;
    }
    gemm(pool, kernel, p, x, [w], scratch, |s, [sums]| {
        for (i, sums) in sums.0.iter().enumerate().take(s.rows) {
            // SAFETY: every place of the output is stored once.
            let row = unsafe { out.part((s.row + i) * p.n + s.col, s.cols) };
            match bias {
                None => row.copy_from_slice(&sums[..s.cols]),
                Some(bias) => {
                    for ((o, sum), b) in row.iter_mut().zip(sums).zip(&bias[s.col..]) {
                        *o = sum + b;
                    }
                }
            }
        }
    });
}
