//! Products of activations with weights `(N, K)` that stay as stored: the loops around the
//! micro-kernels of [`super::tile`].
//!
//! Rows of activations are staged once, shared by all threads. A job is a few panels of 32
//! output columns: it packs them from the mapped weights into its thread's scratch space, which
//! then stays in the second-level cache while all staged rows pass by. What a job computes, and
//! the order of every sum, depends on the extents alone.

use super::pack::{Rows, pack_panel, stage_row};
use super::parts::Parts;
use super::pool::Pool;
use super::tile::{Kernel, NR, Sums, Tile};
use super::weight::Weight;

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

/// Rows that are staged at once; bounds scratch space for long songs.
const BLOCK_ROWS: usize = 1536;
/// From this many rows on, a job takes several panels, so that rows are read less often.
const MANY_ROWS: usize = 500;
/// Bytes of panels a job holds in the second-level cache.
const PANEL_BYTES: usize = 512 << 10;
/// Bytes of rows that pass by all panels of a job before the next rows do.
const GROUP_BYTES: usize = 256 << 10;

/// Sizes that follow from the extents.
struct Layout {
    /// Lanes of one row or column.
    lanes: usize,
    /// Lanes from staged row to staged row.
    stride: usize,
    /// Rows staged at once.
    block: usize,
    /// Panels of each weight in a full job.
    panels: usize,
    /// Tiles of rows that pass by together.
    group: usize,
}

impl Layout {
    fn new(kernel: Kernel, p: Product, weights: usize) -> Layout {
        let lanes = kernel.lanes(p.k);
        let stride = kernel.row_stride(lanes);
        let block = p.m.div_ceil(p.m.div_ceil(BLOCK_ROWS));
        let all = p.n.div_ceil(NR);
        let panels = match p.m < MANY_ROWS {
            true => 1,
            // At least 16 jobs, so that they spread over the threads.
            false => (PANEL_BYTES / (weights * lanes * NR * 4))
                .min(all / 16)
                .clamp(1, 8),
        };
        let group = (GROUP_BYTES / (kernel.mr * stride * 4)).max(1);
        Layout {
            lanes,
            stride,
            block,
            panels,
            group,
        }
    }

    /// Lanes of staged rows, a whole number of cache lines.
    fn staged(&self) -> usize {
        (self.block * self.stride).next_multiple_of(16)
    }

    /// Lanes of one thread's panels.
    fn packed(&self, weights: usize) -> usize {
        weights * self.panels * self.lanes * NR
    }
}

/// Bytes of scratch [`gemm`] wants for `weights` weights of the same extents.
pub fn gemm_scratch_bytes(kernel: Kernel, p: Product, weights: usize, threads: usize) -> usize {
    let l = Layout::new(kernel, p, weights);
    4 * (l.staged() + threads * l.packed(weights))
}

/// Where a tile of sums belongs in the output.
#[derive(Debug, Clone, Copy)]
pub struct Spot {
    /// First row.
    pub row: usize,
    /// Number of rows.
    pub rows: usize,
    /// First column.
    pub col: usize,
    /// Number of columns, at most [`NR`].
    pub cols: usize,
}

/// Computes `x w^T` for `W` weights at once and gives every tile of their sums to `store`, each
/// place of the output exactly once.
pub fn gemm<const W: usize>(
    pool: &Pool,
    kernel: Kernel,
    p: Product,
    x: &[f32],
    weights: [Weight; W],
    scratch: &mut [u8],
    store: impl Fn(Spot, &mut [Sums; W]) + Sync,
) {
    let l = Layout::new(kernel, p, W);
    let (staged, packed) = bytemuck::cast_slice_mut::<u8, u32>(scratch).split_at_mut(l.staged());
    let packed = Parts::new(packed);
    for row0 in (0..p.m).step_by(l.block) {
        let rows = l.block.min(p.m - row0);
        let x = &x[row0 * p.k..][..rows * p.k];
        pool.pieces(&mut staged[..rows * l.stride], l.stride, |i, to| {
            stage_row(kernel, &x[i * p.k..][..p.k], &mut to[..l.lanes]);
        });
        let staged = &staged[..rows * l.stride];
        pool.run(p.n.div_ceil(l.panels * NR), &|job, thread| {
            // SAFETY: one part per thread, and no two jobs of a thread run at once.
            let b = unsafe { packed.part(thread * l.packed(W), l.packed(W)) };
            let cols = (job * l.panels * NR, p.n.min((job + 1) * l.panels * NR));
            pack_job(kernel, p, &weights, cols, l.lanes, b);
            // Most likely the job that this thread draws next.
            let next = ((job + pool.threads()) * l.panels * NR).min(p.n);
            let next = weights.map(|w| {
                let count = (l.panels * NR).min(p.n - next);
                w.slice(next * p.k, count * p.k).bytes
            });
            multiply(kernel, &l, (row0, rows), cols, staged, b, next, &store);
        });
    }
}

/// Packs columns `cols` of all weights, panel by panel, the weights side by side.
fn pack_job(
    kernel: Kernel,
    p: Product,
    weights: &[Weight],
    cols: (usize, usize),
    lanes: usize,
    b: &mut [u32],
) {
    let mut panels = b.chunks_exact_mut(lanes * NR);
    for col in (cols.0..cols.1).step_by(NR) {
        let count = NR.min(cols.1 - col);
        for (weight, panel) in weights.iter().zip(&mut panels) {
            let rows = Rows {
                weight: *weight,
                start: col * p.k,
                stride: p.k,
                count,
                k: p.k,
            };
            pack_panel(kernel, rows, panel);
        }
    }
}

/// All staged rows against the panels of one job; meanwhile `next`, the weights of another job,
/// is fetched into the cache.
#[allow(clippy::too_many_arguments)] // the state of one job
fn multiply<const W: usize>(
    kernel: Kernel,
    l: &Layout,
    (row0, rows): (usize, usize),
    cols: (usize, usize),
    staged: &[u32],
    b: &[u32],
    mut next: [&[u8]; W],
    store: &(impl Fn(Spot, &mut [Sums; W]) + Sync),
) {
    let mut sums = [const { Sums::new() }; W];
    let tiles = rows.div_ceil(kernel.mr);
    for first in (0..tiles).step_by(l.group) {
        for (i, col) in (cols.0..cols.1).step_by(NR).enumerate() {
            for tile in first..tiles.min(first + l.group) {
                let (from, to) = split(rows, tiles, tile);
                for (w, sums) in sums.iter_mut().enumerate() {
                    let a = &staged[from * l.stride..];
                    let b = &b[(i * W + w) * l.lanes * NR..][..l.lanes * NR];
                    // A line per step.
                    let (ahead, rest) = next[w].split_at(next[w].len().min(l.lanes * 64));
                    next[w] = rest;
                    let (a_row, k) = (l.stride, l.lanes);
                    kernel.run(
                        to - from,
                        Tile {
                            a,
                            a_row,
                            a_tap: 0,
                            b,
                            taps: 1,
                            k,
                            ahead,
                        },
                        sums,
                    );
                }
                let cols = NR.min(cols.1 - col);
                store(
                    Spot {
                        row: row0 + from,
                        rows: to - from,
                        col,
                        cols,
                    },
                    &mut sums,
                );
            }
        }
    }
}

/// Part `i` of `parts` nearly equal parts of `0..n`. Equal tiles keep more sums in flight than
/// full ones with a short rest.
pub fn split(n: usize, parts: usize, i: usize) -> (usize, usize) {
    (i * n / parts, (i + 1) * n / parts)
}

#[cfg(test)]
mod tests {
    use super::super::level::Level;
    use super::*;
    use crate::program::{DType, Math};

    #[test]
    fn parts_cover_everything_and_are_never_larger_than_a_tile() {
        for n in 1..200usize {
            for mr in [4, 6, 14] {
                let parts = n.div_ceil(mr);
                let mut at = 0;
                for i in 0..parts {
                    let (from, to) = split(n, parts, i);
                    assert!(from == at && to > from && to - from <= mr);
                    at = to;
                }
                assert_eq!(at, n);
            }
        }
    }

    /// Small extents around every edge, and one that needs several blocks of rows and several
    /// panels per job.
    #[test]
    fn products_agree_with_plain_sums() {
        let pool = Pool::new(2).expect("threads start");
        let extents = [
            (5, 1, 1),
            (1, 33, 7),
            (13, 31, 32),
            (29, 65, 37),
            (1601, 1088, 3),
        ];
        for (m, n, k) in extents {
            let p = Product { m, n, k };
            let x: Vec<f32> = (0..m * k).map(|i| (i * 29 % 61) as f32 - 30.0).collect();
            let w: Vec<f32> = (0..n * k).map(|i| (i * 31 % 67) as f32 - 33.0).collect();
            for &level in Level::available() {
                for math in [Math::F32, Math::Bf16] {
                    let kernel = Kernel::new(level, math);
                    let mut out = vec![f32::NAN; m * n];
                    let mut scratch = vec![0u64; gemm_scratch_bytes(kernel, p, 1, 2).div_ceil(8)];
                    let weight = Weight {
                        bytes: bytemuck::cast_slice(&w),
                        dtype: DType::F32,
                    };
                    let to = Parts::new(&mut out);
                    let scratch = bytemuck::cast_slice_mut(&mut scratch);
                    gemm(&pool, kernel, p, &x, [weight], scratch, |s, [sums]| {
                        for i in 0..s.rows {
                            // SAFETY: every place is stored once.
                            let row = unsafe { to.part((s.row + i) * n + s.col, s.cols) };
                            row.copy_from_slice(&sums.0[i][..s.cols]);
                        }
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
}
