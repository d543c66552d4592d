//! Attention of many queries through the micro-kernels of matrix products.
//!
//! Keys of a head become panels of 32 columns of `K^T`, values panels of 32 columns of `V`. A job
//! is a few tiles of query rows of one head: for each block of keys it computes scores, turns them
//! into weights relative to the largest score so far, and adds the weighted values to the
//! unnormalised results, which it shrinks when a larger score comes. A block of packed keys and
//! values thus serves all tiles of the job from the second-level cache.

use super::{AttentionDims, Operands, Stored};
use crate::backend::cpu::pack::{Rows, pack_panel, rounded, stage_row};
use crate::backend::cpu::parts::Parts;
use crate::backend::cpu::pool::Pool;
use crate::backend::cpu::tile::{Kernel, NR, Sums, Tile};
use crate::backend::cpu::vecmath::{exp_lane, fma, fold, leveled, scale_row};

/// Keys of one block, a multiple of [`NR`].
const BLOCK: usize = 128;
/// Floats from row to row of the scores of a tile, and lanes of its weights: the rows do not
/// compete for the same lines of the cache.
const SCORE_ROW: usize = BLOCK + 16;
/// Tiles of query rows of one job.
const TILES: usize = 4;
/// Bytes of keys and values that are packed at once.
const PACKED_BYTES: usize = 32 << 20;

/// Sizes that follow from the extents. All are multiples of a cache line.
#[derive(Clone, Copy)]
struct Layout {
    kernel: Kernel,
    /// Lanes of one query or key.
    lanes: usize,
    /// Lanes from staged query to staged query.
    stride: usize,
    /// Panels of columns of the values.
    panels: usize,
    /// Lanes of the packed keys of one head; also of one panel of its values.
    keys: usize,
    values: usize,
    /// Query rows of one job.
    rows: usize,
    /// Pairs of an item and a key/value head that are packed at once.
    heads: usize,
}

impl Layout {
    fn new(kernel: Kernel, dims: &AttentionDims) -> Layout {
        let keys = dims.s.next_multiple_of(NR);
        let (lanes, panels) = (kernel.lanes(dims.d), dims.d.div_ceil(NR));
        let mut l = Layout {
            kernel,
            lanes,
            stride: kernel.row_stride(lanes).next_multiple_of(16),
            panels,
            keys: keys * lanes,
            values: kernel.lanes(keys) * NR,
            rows: TILES * kernel.mr,
            heads: 1,
        };
        let all = dims.b * dims.kv_heads;
        l.heads = (PACKED_BYTES / (4 * l.head())).clamp(1, all);
        // Rounds of equal size.
        l.heads = all.div_ceil(all.div_ceil(l.heads));
        l
    }

    /// Lanes of the packed keys and values of one head.
    fn head(&self) -> usize {
        self.keys + self.panels * self.values
    }

    /// Whether exponentials are not operands as they are.
    fn staged(&self) -> bool {
        self.kernel.pairs || self.kernel.round
    }

    /// Lanes of one thread: queries, results, scores, weights, and a maximum and a sum per row.
    fn thread(&self) -> usize {
        let tile = 2 * self.kernel.mr * SCORE_ROW;
        let rows = self.rows * (self.stride + self.panels * NR + 2);
        (tile + rows).next_multiple_of(16)
    }
}

/// Scratch that [`attention`] needs with a pool of `threads` threads.
pub fn scratch_bytes(kernel: Kernel, dims: &AttentionDims, threads: usize) -> usize {
    let l = Layout::new(kernel, dims);
    4 * (l.heads * l.head() + threads * l.thread())
}

/// `Op::Attention`.
pub fn attention(pool: &Pool, kernel: Kernel, o: &Operands, out: &mut [f32], scratch: &mut [u8]) {
    let l = Layout::new(kernel, &o.dims);
    let AttentionDims { b, t, kv_heads, .. } = o.dims;
    let lanes = bytemuck::cast_slice_mut::<u8, u32>(scratch);
    let (packed, threads) = lanes.split_at_mut(l.heads * l.head());
    let (threads, out) = (Parts::new(threads), Parts::new(out));
    for first in (0..b * kv_heads).step_by(l.heads) {
        let heads = l.heads.min(b * kv_heads - first);
        pack(pool, &l, o, first, &mut packed[..heads * l.head()]);
        let packed = &*packed;
        let jobs_per_head = t.div_ceil(l.rows);
        pool.run(heads * o.dims.group() * jobs_per_head, &|job, thread| {
            let (head, rows) = (job / jobs_per_head, job % jobs_per_head);
            let (kv, n) = (head / o.dims.group(), head % o.dims.group());
            let (item, g) = ((first + kv) / kv_heads, (first + kv) % kv_heads);
            let head = Head {
                item,
                h: g * o.dims.group() + n,
                packed: &packed[kv * l.head()..][..l.head()],
            };
            // SAFETY: one part per thread, and no two jobs of a thread run at once.
            let scratch = unsafe { threads.part(thread * l.thread(), l.thread()) };
            let from = rows * l.rows;
            job_rows(&l, o, &head, (from, t.min(from + l.rows)), scratch, &out);
        });
    }
}

/// Packs keys and values of the heads from `first` on; a job is one block of keys.
fn pack(pool: &Pool, l: &Layout, o: &Operands, first: usize, packed: &mut [u32]) {
    let blocks = o.dims.s.div_ceil(BLOCK);
    let heads = packed.len() / l.head();
    let to = Parts::new(packed);
    let per = NR / l.kernel.lanes(NR);
    pool.run(heads * blocks, &|job, _| {
        let (head, start) = (job / blocks, job % blocks * BLOCK);
        let pair = first + head;
        let (item, g) = (pair / o.dims.kv_heads, pair % o.dims.kv_heads);
        // Keys that nobody sees may hold anything: they are not read.
        let count = BLOCK.min(o.length(item).saturating_sub(start));
        let at = o.head(item, g) + start * o.stride();
        for panel in (0..count).step_by(NR) {
            // SAFETY: every panel of every head is packed by one job.
            let dst = unsafe { to.part(head * l.head() + (start + panel) * l.lanes, NR * l.lanes) };
            let rows = Rows {
                weight: o.k.weight(),
                start: at + panel * o.stride(),
                stride: o.stride(),
                count: NR.min(count - panel),
                k: o.dims.d,
            };
            pack_panel(l.kernel, rows, dst);
        }
        if count == 0 {
            return;
        }
        let keys = count.next_multiple_of(NR);
        for panel in 0..l.panels {
            let lane = head * l.head() + l.keys + panel * l.values + start / per * NR;
            // SAFETY: as above.
            let dst = unsafe { to.part(lane, keys / per * NR) };
            let v = Values {
                v: o.v,
                start: at + panel * NR,
                stride: o.stride(),
                count,
                width: NR.min(o.dims.d - panel * NR),
            };
            pack_values(l.kernel, &v, dst);
        }
    });
}

/// Up to [`NR`] columns of neighbouring values.
struct Values<'a> {
    v: Stored<'a>,
    /// First element of the first of them.
    start: usize,
    stride: usize,
    count: usize,
    width: usize,
}

impl Values<'_> {
    /// The columns of value `j`; zeros where there are none.
    #[inline(always)]
    fn row(&self, j: usize) -> [f32; NR] {
        let mut row = [0f32; NR];
        if j >= self.count {
            return row;
        }
        let at = self.start + j * self.stride;
        match self.v {
            Stored::F32(v) => {
                let from = &v[at..][..self.width];
                match <&[f32; NR]>::try_from(from) {
                    Ok(whole) => row = *whole,
                    Err(_) => row[..self.width].copy_from_slice(from),
                }
            }
            Stored::Bf16(v) => {
                for (x, from) in row.iter_mut().zip(&v[at..][..self.width]) {
                    *x = f32::from_bits(u32::from(*from) << 16);
                }
            }
        }
        row
    }
}

fn pack_values(kernel: Kernel, v: &Values, dst: &mut [u32]) {
    if kernel.pairs {
        pack_pairs(kernel.level(), v, dst);
    } else {
        pack_singles(kernel.level(), v, kernel.round, dst);
    }
}

#[inline(always)]
fn pack_pairs_body<const FMA: bool>(v: &Values, dst: &mut [u32]) {
    for (i, lanes) in dst.chunks_exact_mut(NR).enumerate() {
        let (a, b) = (v.row(2 * i), v.row(2 * i + 1));
        for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
            *lane = rounded(a).to_bits() >> 16 | rounded(b).to_bits();
        }
    }
}

#[inline(always)]
fn pack_singles_body<const FMA: bool>(v: &Values, round: bool, dst: &mut [u32]) {
    for (j, lanes) in dst.chunks_exact_mut(NR).enumerate() {
        for (lane, x) in lanes.iter_mut().zip(v.row(j)) {
            *lane = if round { rounded(x) } else { x }.to_bits();
        }
    }
}

leveled! {
    /// Values as pairs of bf16 of neighbouring keys.
    fn pack_pairs(v: &Values, dst: &mut [u32]) = pack_pairs_body
}
leveled! {
    /// Values as f32, rounded to bf16 or not.
    fn pack_singles(v: &Values, round: bool, dst: &mut [u32]) = pack_singles_body
}

/// One query head and the packed head it reads.
struct Head<'a> {
    item: usize,
    h: usize,
    packed: &'a [u32],
}

/// What a job keeps of its rows between blocks.
struct State<'a> {
    /// Staged queries.
    q: &'a mut [u32],
    /// Unnormalised results.
    out: &'a mut [f32],
    /// Scores of one tile, then their exponentials.
    scores: &'a mut [f32],
    /// The exponentials as operands.
    weights: &'a mut [u32],
    /// Largest score per row, scaled.
    max: &'a mut [f32],
    /// Sum of the exponentials per row.
    sum: &'a mut [f32],
}

impl<'a> State<'a> {
    fn new(l: &Layout, scratch: &'a mut [u32]) -> Self {
        let (q, rest) = scratch.split_at_mut(l.rows * l.stride);
        let (out, rest) = rest.split_at_mut(l.rows * l.panels * NR);
        let (scores, rest) = rest.split_at_mut(l.kernel.mr * SCORE_ROW);
        let (weights, rest) = rest.split_at_mut(l.kernel.mr * SCORE_ROW);
        let (max, rest) = rest.split_at_mut(l.rows);
        State {
            q,
            out: bytemuck::cast_slice_mut(out),
            scores: bytemuck::cast_slice_mut(scores),
            weights,
            max: bytemuck::cast_slice_mut(max),
            sum: bytemuck::cast_slice_mut(&mut rest[..l.rows]),
        }
    }
}

/// Rows `from..to` of one head.
fn job_rows(
    l: &Layout,
    o: &Operands,
    head: &Head,
    (from, to): (usize, usize),
    scratch: &mut [u32],
    out: &Parts<f32>,
) {
    let rows = to - from;
    let mut state = State::new(l, scratch);
    state.out[..rows * l.panels * NR].fill(0.0);
    state.max.fill(f32::NEG_INFINITY);
    state.sum.fill(0.0);
    for r in 0..rows {
        let q = o.queries(head.item, from + r, head.h, 1);
        stage_row(l.kernel, q, &mut state.q[r * l.stride..][..l.lanes]);
    }
    let (first, end) = span(o, head.item, from, to);
    let mut start = first / NR * NR;
    while start < end {
        let stop = end.min(start + BLOCK);
        for tile in (0..rows).step_by(l.kernel.mr) {
            let tile = (tile, l.kernel.mr.min(rows - tile));
            tile_block(l, o, head, from, tile, (start, stop), &mut state);
        }
        start += BLOCK;
    }
    let AttentionDims { t, heads, d, .. } = o.dims;
    for r in 0..rows {
        let at = ((head.item * t + from + r) * heads + head.h) * d;
        // SAFETY: every row of every head belongs to one job.
        let to = unsafe { out.part(at, d) };
        // A query that sees no key gives zeros.
        let inverse = if state.sum[r] > 0.0 {
            1.0 / state.sum[r]
        } else {
            0.0
        };
        let row = &state.out[r * l.panels * NR..][..d];
        to.iter_mut().zip(row).for_each(|(to, x)| *to = x * inverse);
    }
}

/// Keys that any of the queries `from..to` sees.
fn span(o: &Operands, item: usize, from: usize, to: usize) -> (usize, usize) {
    (o.visible(item, from).0, o.visible(item, to - 1).1)
}

/// Adds what the keys `start..stop` (at most a block, from a multiple of [`NR`]) give to the
/// `rows` rows from row `first` of the job.
fn tile_block(
    l: &Layout,
    o: &Operands,
    head: &Head,
    from: usize,
    (first, rows): (usize, usize),
    (start, stop): (usize, usize),
    s: &mut State,
) {
    let (lo, hi) = span(o, head.item, from + first, from + first + rows);
    // Only the panels that some row of the tile sees.
    let start = start.max(lo / NR * NR);
    let stop = stop.min(hi);
    if start >= stop {
        return;
    }
    let keys = (stop - start).next_multiple_of(NR);
    let mut sums = Sums::new();
    for panel in (0..keys).step_by(NR) {
        let tile = Tile {
            a: &s.q[first * l.stride..],
            a_row: l.stride,
            a_tap: 0,
            b: &head.packed[(start + panel) * l.lanes..][..NR * l.lanes],
            taps: 1,
            k: l.lanes,
            ahead: &[],
        };
        l.kernel.run(rows, tile, &mut sums);
        for (r, sums) in sums.0[..rows].iter().enumerate() {
            s.scores[r * SCORE_ROW + panel..][..NR].copy_from_slice(sums);
        }
    }
    let mut seen = false;
    for r in 0..rows {
        let (lo, hi) = o.visible(head.item, from + first + r);
        let visible = (lo.max(start) - start).min(keys)..hi.min(stop).saturating_sub(start);
        let scores = &mut s.scores[r * SCORE_ROW..][..keys];
        let row = &mut s.out[(first + r) * l.panels * NR..][..l.panels * NR];
        let (max, sum) = (&mut s.max[first + r], &mut s.sum[first + r]);
        seen |= soften(l, o.dims.scale(), scores, visible, (max, sum), row);
        if l.staged() {
            let weights = &mut s.weights[r * SCORE_ROW..][..l.kernel.lanes(keys)];
            stage_row(l.kernel, scores, weights);
        }
    }
    if seen {
        add_values(l, head, (first, rows), (start, keys), &mut sums, s);
    }
}

/// Turns the scores of one row into exponentials relative to the row's largest score so far;
/// hidden ones become 0. Shrinks what was summed before when the largest score grew. Returns
/// whether anything is visible.
fn soften(
    l: &Layout,
    scale: f32,
    scores: &mut [f32],
    visible: std::ops::Range<usize>,
    (max, sum): (&mut f32, &mut f32),
    out: &mut [f32],
) -> bool {
    if visible.is_empty() {
        scores.fill(0.0);
        return false;
    }
    scores[..visible.start].fill(0.0);
    scores[visible.end..].fill(0.0);
    let scores = &mut scores[visible];
    let level = l.kernel.level();
    let largest = scale * largest(level, scores);
    if largest > *max {
        let shrink = (*max - largest).exp();
        *sum *= shrink;
        scale_row(level, out, shrink);
        *max = largest;
    }
    *sum += exponentials(level, scores, scale, *max);
    true
}

/// Adds weights times values to the results of the tile.
fn add_values(
    l: &Layout,
    head: &Head,
    (first, rows): (usize, usize),
    (start, keys): (usize, usize),
    sums: &mut Sums,
    s: &mut State,
) {
    let per = NR / l.kernel.lanes(NR);
    let k = l.kernel.lanes(keys);
    for panel in 0..l.panels {
        let at = l.keys + panel * l.values + start / per * NR;
        let tile = Tile {
            a: if l.staged() {
                s.weights
            } else {
                bytemuck::cast_slice(s.scores)
            },
            a_row: SCORE_ROW,
            a_tap: 0,
            b: &head.packed[at..][..k * NR],
            taps: 1,
            k,
            ahead: &[],
        };
        l.kernel.run(rows, tile, sums);
        for (r, sums) in sums.0[..rows].iter().enumerate() {
            let row = &mut s.out[((first + r) * l.panels + panel) * NR..][..NR];
            row.iter_mut().zip(sums).for_each(|(o, x)| *o += x);
        }
    }
}

/// Lanes of the reductions over scores.
const LANES: usize = 16;

#[inline(always)]
fn largest_body<const FMA: bool>(x: &[f32]) -> f32 {
    // Not `f32::max`: a comparison is one instruction.
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let mut acc = [f32::NEG_INFINITY; LANES];
    let (blocks, rest) = x.as_chunks::<LANES>();
    for block in blocks {
        for (a, x) in acc.iter_mut().zip(block) {
            *a = larger(*a, *x);
        }
    }
    rest.iter()
        .chain(&acc)
        .fold(f32::NEG_INFINITY, |m, &x| larger(m, x))
}

#[inline(always)]
fn exponentials_body<const FMA: bool>(row: &mut [f32], scale: f32, max: f32) -> f32 {
    let mut acc = [0f32; LANES];
    let (blocks, rest) = row.as_chunks_mut::<LANES>();
    for block in blocks {
        for (a, x) in acc.iter_mut().zip(block) {
            *x = exp_lane::<FMA>(fma::<FMA>(*x, scale, -max));
            *a += *x;
        }
    }
    for (a, x) in acc.iter_mut().zip(rest) {
        *x = exp_lane::<FMA>(fma::<FMA>(*x, scale, -max));
        *a += *x;
    }
    fold(acc, |a, b| a + b)
}

leveled! {
    /// The largest element.
    pub(super) fn largest(x: &[f32]) -> f32 = largest_body
}
leveled! {
    /// `exp(x scale - max)` of every element in place, and their sum.
    pub(super) fn exponentials(row: &mut [f32], scale: f32, max: f32) -> f32 = exponentials_body
}
