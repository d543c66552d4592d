//! Attention of a few queries: keys and values are read where they lie, once for all query heads
//! that share them, and the next ones are fetched meanwhile: the time is that of reading them.

mod pairs;
mod wide;

use super::tiles::{exponentials, largest};
use super::{AttentionDims, Operands, Stored};
use crate::backend::cpu::pack::{round_row, stage_row};
use crate::backend::cpu::parts::Parts;
use crate::backend::cpu::pool::Pool;
use crate::backend::cpu::tile::Kernel;
use crate::backend::cpu::vecmath::scale_row;

/// Keys of one block. A block of keys and one of values fit into the first cache.
const BLOCK: usize = 64;
/// Most query heads that are taken in one pass over the keys.
const HEADS: usize = 8;
/// Query heads whose sums are kept in registers at once.
const PAIR: usize = 2;
/// Multiplications of one job, about.
const JOB: usize = 64 << 10;
/// Keys or values that are taken at once, so that several sums run side by side.
const SIDE: usize = 4;

/// Lanes of the queries of one thread.
fn thread_lanes(dims: &AttentionDims) -> usize {
    (dims.group().min(HEADS) * dims.d).next_multiple_of(16)
}

/// Scratch that [`attention`] needs with a pool of `threads` threads.
pub fn scratch_bytes(dims: &AttentionDims, threads: usize) -> usize {
    4 * threads * thread_lanes(dims)
}

/// `Op::Attention`. A job is a few pairs of a query and a key/value head.
pub fn attention(pool: &Pool, kernel: Kernel, o: &Operands, out: &mut [f32], scratch: &mut [u8]) {
    let AttentionDims {
        b, t, kv_heads, d, ..
    } = o.dims;
    // The query heads that share a key/value head are neighbours in the output.
    let (group, lanes, all) = (o.dims.group(), thread_lanes(&o.dims), b * t * kv_heads);
    let units = (JOB / (2 * o.dims.s * group * d)).max(1);
    let scratch = Parts::new(bytemuck::cast_slice_mut::<u8, u32>(scratch));
    let out = Parts::new(out);
    pool.run(all.div_ceil(units), &|job, thread| {
        // SAFETY: one part per thread, and no two jobs of a thread run at once.
        let staged = unsafe { scratch.part(thread * lanes, lanes) };
        for n in job * units..all.min((job + 1) * units) {
            let (row, g) = (n / kv_heads, n % kv_heads);
            let (b, i) = (row / t, row % t);
            let keys = Keys {
                kernel,
                pairs: pairs::fits(kernel, o.k, d),
                o,
                head: o.head(b, g),
                visible: o.visible(b, i),
            };
            // SAFETY: every unit belongs to one job.
            let out = unsafe { out.part(n * group * d, group * d) };
            for (first, out) in out.chunks_mut(HEADS * d).enumerate() {
                let heads = out.len() / d;
                let q = o.queries(b, i, g * group + first * HEADS, heads);
                keys.attend(q, staged, out);
            }
        }
    });
}

/// The keys and values that a query sees.
struct Keys<'a> {
    kernel: Kernel,
    /// Whether keys and queries are multiplied in pairs of bf16.
    pairs: bool,
    o: &'a Operands<'a>,
    /// Offset of key and value 0.
    head: usize,
    visible: (usize, usize),
}

/// Scores of one block, then their exponentials.
type Block = [f32; BLOCK];

impl<'a> Keys<'a> {
    /// Neighbouring keys or values from `start` on, at most a block, none behind `end`.
    fn rows(&self, x: Stored<'a>, start: usize, end: usize) -> Rows<'a> {
        Rows {
            x,
            start: self.head + start * self.o.stride(),
            stride: self.o.stride(),
            n: end.saturating_sub(start).min(BLOCK),
            d: self.o.dims.d,
            round: self.kernel.pairs || self.kernel.round,
        }
    }

    /// Queries as the kernels want them; rounded if operands are.
    fn stage<'s>(&self, q: &[f32], staged: &'s mut [u32]) -> &'s [u32] {
        let staged = &mut staged[..q.len()];
        if self.pairs {
            let pairs = &mut staged[..q.len() / 2];
            stage_row(self.kernel, q, pairs);
            return pairs;
        }
        let floats: &mut [f32] = bytemuck::cast_slice_mut(staged);
        floats.copy_from_slice(q);
        if self.kernel.pairs || self.kernel.round {
            round_row(self.kernel.level(), floats);
        }
        staged
    }

    /// Neighbouring heads of one query, at most [`HEADS`].
    fn attend(&self, q: &[f32], staged: &mut [u32], out: &mut [f32]) {
        let (d, (first, end)) = (self.o.dims.d, self.visible);
        let heads = out.len() / d;
        let q = self.stage(q, staged);
        let lanes = q.len() / heads;
        let (mut max, mut sum) = ([f32::NEG_INFINITY; HEADS], [0f32; HEADS]);
        let mut p: [Block; HEADS] = [[0f32; BLOCK]; HEADS];
        out.fill(0.0);
        let mut k = self.rows(self.o.k, first, end);
        (0..k.n).step_by(SIDE).for_each(|j| k.fetch(j));
        for start in (first..end).step_by(BLOCK) {
            let v = self.rows(self.o.v, start, end);
            let next = self.rows(self.o.k, start + BLOCK, end);
            for at in (0..heads).step_by(PAIR) {
                let many = PAIR.min(heads - at);
                // The first heads fetch what the others then find in the cache.
                let ahead = if at == 0 { v } else { v.none() };
                let q = &q[at * lanes..][..many * lanes];
                self.scores(q, &k, &ahead, &mut p[at..at + many]);
            }
            for (h, out) in out.chunks_exact_mut(d).enumerate() {
                self.soften(&mut p[h][..k.n], &mut max[h], &mut sum[h], out);
            }
            for at in (0..heads).step_by(PAIR) {
                let many = PAIR.min(heads - at);
                let ahead = if at == 0 { next } else { next.none() };
                let out = &mut out[at * d..][..many * d];
                self.add_values(&p[at..at + many], &v, &ahead, out);
            }
            k = next;
        }
        for (out, sum) in out.chunks_exact_mut(d).zip(sum) {
            // A query that sees no key gives zeros.
            let inverse = if sum > 0.0 { 1.0 / sum } else { 0.0 };
            scale_row(self.kernel.level(), out, inverse);
        }
    }

    /// Inner products of one or two queries with every key; fetches the rows of `ahead`.
    fn scores(&self, q: &[u32], k: &Rows, ahead: &Rows, p: &mut [Block]) {
        let level = self.kernel.level();
        match k.x {
            Stored::Bf16(x) if self.pairs => pairs::scores(level, q, x, k, ahead, p),
            _ => wide::scores(level, bytemuck::cast_slice(q), k, ahead, p),
        }
    }

    /// Adds the weighted values to the results of one or two queries; fetches the rows of
    /// `ahead`.
    fn add_values(&self, p: &[Block], v: &Rows, ahead: &Rows, out: &mut [f32]) {
        let level = self.kernel.level();
        match v.x {
            Stored::Bf16(x) if self.pairs => pairs::add_values(level, p, x, v, ahead, out),
            _ => wide::add_values(level, p, v, ahead, out),
        }
    }

    /// Turns scores into exponentials relative to the largest one so far; shrinks what was
    /// summed before when that grew.
    fn soften(&self, p: &mut [f32], max: &mut f32, sum: &mut f32, out: &mut [f32]) {
        let (level, scale) = (self.kernel.level(), self.o.dims.scale());
        let largest = scale * largest(level, p);
        if largest > *max {
            let shrink = (*max - largest).exp();
            *sum *= shrink;
            scale_row(level, out, shrink);
            *max = largest;
        }
        *sum += exponentials(level, p, scale, *max);
        if self.kernel.pairs || self.kernel.round {
            round_row(level, p);
        }
    }
}

/// Neighbouring keys or values of one head.
#[derive(Clone, Copy)]
struct Rows<'a> {
    x: Stored<'a>,
    start: usize,
    stride: usize,
    /// How many; at most [`BLOCK`].
    n: usize,
    /// Elements of one.
    d: usize,
    /// Whether f32 elements are rounded to bf16 when they are read.
    round: bool,
}

impl Rows<'_> {
    /// None of them.
    fn none(self) -> Self {
        Rows { n: 0, ..self }
    }

    /// Where row `j` begins; the last one stands in for those behind it.
    #[inline(always)]
    fn at(&self, j: usize) -> usize {
        self.start + j.min(self.n - 1) * self.stride
    }

    /// Asks for the rows `j..j + SIDE`, as far as there are any.
    #[inline(always)]
    fn fetch(&self, j: usize) {
        for j in j..self.n.min(j + SIDE) {
            self.x.fetch(self.at(j), self.d);
        }
    }
}
