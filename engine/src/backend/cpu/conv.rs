//! Convolutions along time, plain and transposed, with an optional Snake in front: products whose
//! rows of A are windows of the input, of which nothing is ever laid out in memory.
//!
//! Both kinds are sums of short, dense convolutions, one per *phase*. A plain convolution has one
//! phase. A transposed one with stride `s` has `s`: outputs `t` with `(t + pad) mod s = p` use the
//! taps `p, p + s, ...` only. A job stages a block of input rows once, zeros outside and Snake
//! applied, and runs all phases and columns of its share over it.

use super::gemm::split;
use super::memory::Aligned;
use super::pack::{Rows, pack_panel, stage_row};
use super::parts::Parts;
use super::pool::Pool;
use super::tile::{Kernel, NR, Sums, Tile};
use super::vecmath;
use super::weight::Weight;
use crate::error::Result;
use crate::program::DType;

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

/// Snake in front of a convolution, as stored.
#[derive(Clone, Copy)]
pub struct Snake<'a> {
    /// Logarithm of the frequency, `(Cin)`.
    pub alpha: &'a [f32],
    /// Logarithm of the inverse height, `(Cin)`.
    pub beta: &'a [f32],
}

/// Everything packed weights depend on, beside their elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PackForm {
    kernel: Kernel,
    dtype: DType,
    cin: usize,
    cout: usize,
    k: usize,
    /// Stride of a transposed convolution, 0 of a plain one.
    phases: usize,
}

/// Weights in the form of the micro-kernels: per phase, per 32 output channels, a panel with all
/// taps.
pub struct Packed(Aligned);

/// Bytes of staged rows a job wants to hold in the second-level cache.
const STAGED_BYTES: usize = 256 << 10;
/// Most positions of a job.
const MAX_POSITIONS: usize = 512;
/// Jobs a convolution is cut into at least, if it can be.
const JOBS: usize = 16;

/// A dense convolution: position `q` of the phase is one output row.
#[derive(Clone, Copy)]
struct Phase {
    /// Number of taps.
    taps: usize,
    /// Staged rows by which its first tap lies behind the first staged row of a position.
    shift: usize,
    /// Output row of position q: `q * step + p - pad`.
    p: usize,
}

impl ConvDims {
    fn phases(&self) -> usize {
        if self.transposed { self.stride } else { 1 }
    }

    fn phase(&self, p: usize) -> Phase {
        if !self.transposed {
            return Phase {
                taps: self.k,
                shift: 0,
                p: 0,
            };
        }
        let taps = if p < self.k {
            (self.k - p).div_ceil(self.stride)
        } else {
            0
        };
        Phase {
            taps,
            shift: self.k.div_ceil(self.stride) - taps,
            p,
        }
    }

    /// Kernel tap of tap `i` of a phase; taps are in the order of the rows they read.
    fn tap(&self, phase: Phase, i: usize) -> usize {
        if self.transposed {
            phase.p + (phase.taps - 1 - i) * self.stride
        } else {
            i
        }
    }

    /// Positions per batch row, the same for all phases.
    fn positions(&self) -> usize {
        if self.transposed {
            (self.t_out - 1 + self.pad) / self.stride + 1
        } else {
            self.t_out
        }
    }

    /// Input rows from position to position, rows before the one that shares a position's number,
    /// and rows a position reads beyond its first.
    fn window(&self) -> (usize, usize, usize) {
        match self.transposed {
            true => (
                1,
                self.k.div_ceil(self.stride) - 1,
                self.k.div_ceil(self.stride) - 1,
            ),
            false => (self.stride, self.pad, (self.k - 1) * self.dilation),
        }
    }

    /// Output row of a position of a phase, if it exists.
    fn out_row(&self, phase: Phase, q: usize) -> Option<usize> {
        match self.transposed {
            true => (q * self.stride + phase.p)
                .checked_sub(self.pad)
                .filter(|t| *t < self.t_out),
            false => Some(q),
        }
    }

    /// First element of the row of weights of a kernel tap and output channel, and elements from
    /// channel to channel.
    fn weight_row(&self, tap: usize, o: usize) -> (usize, usize) {
        match self.transposed {
            true => ((tap * self.cout + o) * self.cin, self.cin),
            false => ((o * self.k + tap) * self.cin, self.k * self.cin),
        }
    }

    /// What packed weights depend on.
    pub fn form(&self, kernel: Kernel, dtype: DType) -> PackForm {
        let phases = if self.transposed { self.stride } else { 0 };
        PackForm {
            kernel,
            dtype,
            cin: self.cin,
            cout: self.cout,
            k: self.k,
            phases,
        }
    }

    /// Lanes of all packed weights.
    fn packed_lanes(&self, kernel: Kernel) -> usize {
        self.k * self.cout.div_ceil(NR) * kernel.lanes(self.cin) * NR
    }

    /// First lane of a panel of a phase.
    fn panel_at(&self, kernel: Kernel, p: usize, panel: usize) -> usize {
        let before: usize = (0..p).map(|p| self.phase(p).taps).sum();
        let taps = before * self.cout.div_ceil(NR) + self.phase(p).taps * panel;
        taps * kernel.lanes(self.cin) * NR
    }
}

/// Packs the weights of a convolution.
pub fn pack(pool: &Pool, kernel: Kernel, d: &ConvDims, w: Weight) -> Result<Packed> {
    let mut packed = Aligned::zeroed(4 * d.packed_lanes(kernel))?;
    pack_into(
        pool,
        kernel,
        d,
        w,
        bytemuck::cast_slice_mut(packed.bytes_mut()),
    );
    Ok(Packed(packed))
}

fn pack_into(pool: &Pool, kernel: Kernel, d: &ConvDims, w: Weight, to: &mut [u32]) {
    let panels = d.cout.div_ceil(NR);
    let lanes = kernel.lanes(d.cin) * NR;
    let to = Parts::new(to);
    pool.run(d.phases() * panels, &|job, _| {
        let (p, panel) = (job / panels, job % panels);
        let phase = d.phase(p);
        let at = d.panel_at(kernel, p, panel);
        for i in 0..phase.taps {
            // SAFETY: panels and their taps are disjoint.
            let to = unsafe { to.part(at + i * lanes, lanes) };
            let (start, stride) = d.weight_row(d.tap(phase, i), panel * NR);
            let count = NR.min(d.cout - panel * NR);
            pack_panel(
                kernel,
                Rows {
                    weight: w,
                    start,
                    stride,
                    count,
                    k: d.cin,
                },
                to,
            );
        }
    });
}

/// How the work is cut.
struct Layout {
    /// Lanes of one staged row, and from row to row.
    lanes: usize,
    stride: usize,
    /// Blocks of positions per batch row.
    blocks: usize,
    /// Shares of the columns of all phases.
    shares: usize,
    /// Rows staged by one job at most.
    rows: usize,
}

impl Layout {
    fn new(kernel: Kernel, d: &ConvDims) -> Layout {
        let lanes = kernel.lanes(d.cin);
        let stride = kernel.row_stride(lanes);
        let (step, _, span) = d.window();
        let positions = d.positions();
        let most = (STAGED_BYTES / (4 * stride * step)).clamp(4 * kernel.mr, MAX_POSITIONS);
        let blocks = positions.div_ceil(most);
        let panels = d.phases() * d.cout.div_ceil(NR);
        let shares = JOBS.div_ceil(d.b * blocks).min(panels);
        let rows = (positions.div_ceil(blocks) - 1) * step + span + 1;
        Layout {
            lanes,
            stride,
            blocks,
            shares,
            rows,
        }
    }

    /// Lanes of one thread: staged rows, and one row before it becomes lanes.
    fn thread(&self, d: &ConvDims) -> usize {
        (self.rows * self.stride + d.cin).next_multiple_of(16)
    }
}

/// Bytes of scratch [`conv`] wants; `packed` says whether it is given packed weights.
pub fn conv_scratch_bytes(kernel: Kernel, d: &ConvDims, threads: usize, packed: bool) -> usize {
    let own = if packed { 0 } else { d.packed_lanes(kernel) };
    4 * (own + threads * Layout::new(kernel, d).thread(d) + 2 * d.cin)
}

/// Operands of a convolution.
#[derive(Clone, Copy)]
pub struct Operands<'a> {
    /// Input `(B, T, Cin)`.
    pub x: &'a [f32],
    /// Activation in front.
    pub snake: Option<Snake<'a>>,
    /// Weights as stored.
    pub w: Weight<'a>,
    /// The same, packed beforehand.
    pub packed: Option<&'a Packed>,
    /// `(Cout)`.
    pub bias: Option<&'a [f32]>,
}

/// `Op::Conv1d`, `Op::ConvTranspose1d` and their forms with Snake. `out` is `(B, T', Cout)`.
pub fn conv(
    pool: &Pool,
    kernel: Kernel,
    d: &ConvDims,
    o: Operands,
    out: &mut [f32],
    scratch: &mut [u8],
) {
    let l = Layout::new(kernel, d);
    let scratch: &mut [u32] = bytemuck::cast_slice_mut(scratch);
    let own = if o.packed.is_some() {
        0
    } else {
        d.packed_lanes(kernel)
    };
    let (own, rest) = scratch.split_at_mut(own);
    let (threads, factors) = rest.split_at_mut(pool.threads() * l.thread(d));
    let weights: &[u32] = match o.packed {
        Some(packed) => bytemuck::cast_slice(packed.0.bytes()),
        None => {
            pack_into(pool, kernel, d, o.w, own);
            own
        }
    };
    let (alpha, inv_beta) = bytemuck::cast_slice_mut::<u32, f32>(factors).split_at_mut(d.cin);
    if let Some(s) = o.snake {
        for c in 0..d.cin {
            (alpha[c], inv_beta[c]) = vecmath::snake_factors(s.alpha[c], s.beta[c]);
        }
    }
    let snake = o.snake.map(|_| (&*alpha, &inv_beta[..d.cin]));
    let (threads, out) = (Parts::new(threads), Parts::new(out));
    pool.run(d.b * l.blocks * l.shares, &|job, thread| {
        // SAFETY: one part per thread, and no two jobs of a thread run at once.
        let lanes = unsafe { threads.part(thread * l.thread(d), l.thread(d)) };
        let (staged, row) = lanes.split_at_mut(l.rows * l.stride);
        let (share, block, b) = (
            job % l.shares,
            job / l.shares % l.blocks,
            job / l.shares / l.blocks,
        );
        let positions = split(d.positions(), l.blocks, block);
        let x = &o.x[b * d.t_in * d.cin..][..d.t_in * d.cin];
        stage(kernel, d, &l, positions, x, snake, staged, row);
        let panels = split(d.phases() * d.cout.div_ceil(NR), l.shares, share);
        multiply(
            kernel,
            d,
            &l,
            positions,
            panels,
            staged,
            weights,
            |row, col, sums| {
                // SAFETY: every place of the output belongs to one position of one phase and one
                // panel, hence to one job.
                let to =
                    unsafe { out.part((b * d.t_out + row) * d.cout + col, NR.min(d.cout - col)) };
                match o.bias {
                    None => to.copy_from_slice(&sums[..to.len()]),
                    Some(bias) => {
                        for ((o, s), b) in to.iter_mut().zip(sums).zip(&bias[col..]) {
                            *o = s + b;
                        }
                    }
                }
            },
        );
    });
}

/// Stages the input rows that positions `from..to` read.
#[allow(clippy::too_many_arguments)] // the state of one job
fn stage(
    kernel: Kernel,
    d: &ConvDims,
    l: &Layout,
    (from, to): (usize, usize),
    x: &[f32],
    snake: Option<(&[f32], &[f32])>,
    staged: &mut [u32],
    row: &mut [u32],
) {
    let (step, before, span) = d.window();
    let rows = (to - from - 1) * step + span + 1;
    let row: &mut [f32] = &mut bytemuck::cast_slice_mut(row)[..d.cin];
    for (i, lanes) in staged.chunks_exact_mut(l.stride).enumerate().take(rows) {
        let lanes = &mut lanes[..l.lanes];
        match (from * step + i)
            .checked_sub(before)
            .filter(|t| *t < d.t_in)
        {
            None => lanes.fill(0),
            Some(t) => {
                let x = &x[t * d.cin..][..d.cin];
                match snake {
                    None => stage_row(kernel, x, lanes),
                    Some((alpha, inv_beta)) => {
                        vecmath::snake_row(kernel.level(), x, alpha, inv_beta, row);
                        stage_row(kernel, row, lanes);
                    }
                }
            }
        }
    }
}

/// Runs a share of the panels over the staged rows and gives every output row of 32 columns to
/// `store(row, first column, sums)`.
#[allow(clippy::too_many_arguments)] // the state of one job
fn multiply(
    kernel: Kernel,
    d: &ConvDims,
    l: &Layout,
    (from, to): (usize, usize),
    panels: (usize, usize),
    staged: &[u32],
    weights: &[u32],
    store: impl Fn(usize, usize, &[f32; NR]),
) {
    let (step, _, _) = d.window();
    let per_phase = d.cout.div_ceil(NR);
    let tiles = (to - from).div_ceil(kernel.mr);
    let mut sums = Sums::new();
    for panel in panels.0..panels.1 {
        let (p, panel) = (panel / per_phase, panel % per_phase);
        let phase = d.phase(p);
        let b = &weights[d.panel_at(kernel, p, panel)..];
        for tile in 0..tiles {
            let (first, end) = split(to - from, tiles, tile);
            if phase.taps == 0 {
                sums = Sums::new();
            } else {
                let a = &staged[(first * step + phase.shift) * l.stride..];
                let (a_row, a_tap) = (step * l.stride, d.dilation * l.stride);
                let t = Tile {
                    a,
                    a_row,
                    a_tap,
                    b,
                    taps: phase.taps,
                    k: l.lanes,
                    ahead: &[],
                };
                kernel.run(end - first, t, &mut sums);
            }
            for (i, sums) in sums.0.iter().enumerate().take(end - first) {
                if let Some(row) = d.out_row(phase, from + first + i) {
                    store(row, panel * NR, sums);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::level::Level;
    use super::*;
    use crate::program::Math;

    /// The contract as it is written: every term of every output.
    fn plain(d: &ConvDims, x: &[f32], w: &[f32]) -> Vec<f32> {
        let mut out = vec![0f32; d.b * d.t_out * d.cout];
        for (at, y) in out.iter_mut().enumerate() {
            let (b, t, o) = (at / d.cout / d.t_out, at / d.cout % d.t_out, at % d.cout);
            for (i, k) in (0..d.t_in).flat_map(|i| (0..d.k).map(move |k| (i, k))) {
                let meets = match d.transposed {
                    true => i * d.stride + k == t + d.pad,
                    false => t * d.stride + k * d.dilation == i + d.pad,
                };
                let row = if d.transposed {
                    k * d.cout + o
                } else {
                    o * d.k + k
                };
                for c in (0..d.cin).filter(|_| meets) {
                    *y += x[(b * d.t_in + i) * d.cin + c] * w[row * d.cin + c];
                }
            }
        }
        out
    }

    fn dims(s: [usize; 8], transposed: bool) -> ConvDims {
        let [b, t_in, cin, cout, k, stride, dilation, pad] = s;
        let t_out = match transposed {
            true => (t_in - 1) * stride + k - 2 * pad,
            false => (t_in + 2 * pad - dilation * (k - 1) - 1) / stride + 1,
        };
        ConvDims {
            b,
            t_in,
            t_out,
            cin,
            cout,
            k,
            stride,
            dilation,
            pad,
            transposed,
        }
    }

    #[test]
    fn convolutions_agree_with_their_contract() {
        let cases = [
            dims([2, 5, 1, 1, 1, 1, 1, 0], false),
            dims([1, 70, 3, 33, 7, 1, 9, 27], false),
            dims([2, 31, 6, 2, 7, 1, 1, 3], false),
            dims([1, 41, 5, 31, 4, 3, 2, 1], false),
            dims([1, 1300, 130, 3, 3, 1, 1, 1], false),
            dims([1, 1, 4, 3, 8, 4, 1, 2], true),
            dims([2, 23, 5, 34, 20, 10, 1, 5], true),
            dims([1, 17, 2, 3, 5, 3, 1, 1], true),
            dims([1, 9, 3, 2, 2, 3, 1, 0], true),
            dims([1, 1100, 3, 2, 12, 6, 1, 3], true),
        ];
        let pool = Pool::new(2).expect("threads start");
        for d in cases {
            let x: Vec<f32> = (0..d.b * d.t_in * d.cin)
                .map(|i| (i * 29 % 61) as f32 - 30.0)
                .collect();
            let w: Vec<f32> = (0..d.cout * d.k * d.cin)
                .map(|i| (i * 31 % 17) as f32 - 8.0)
                .collect();
            let want = plain(&d, &x, &w);
            for &level in Level::available() {
                for math in [Math::F32, Math::Bf16] {
                    let kernel = Kernel::new(level, math);
                    let weight = Weight {
                        bytes: bytemuck::cast_slice(&w),
                        dtype: DType::F32,
                    };
                    let packed = pack(&pool, kernel, &d, weight).expect("memory");
                    for packed in [None, Some(&packed)] {
                        let bytes = conv_scratch_bytes(kernel, &d, 2, packed.is_some());
                        let mut scratch = vec![0xa5a5_a5a5u32; bytes / 4];
                        let mut out = vec![f32::NAN; want.len()];
                        let o = Operands {
                            x: &x,
                            snake: None,
                            w: weight,
                            packed,
                            bias: None,
                        };
                        let scratch = bytemuck::cast_slice_mut(&mut scratch);
                        conv(&pool, kernel, &d, o, &mut out, scratch);
                        // Small integers: exact in every arithmetic.
                        assert!(out == want, "{kernel:?} {d:?} packed {}", packed.is_some());
                    }
                }
            }
        }
    }
}
