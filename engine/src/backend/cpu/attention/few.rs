//! Attention of a few queries: keys and values are read where they lie, once for two query heads
//! that share them.

use super::Operands;
use crate::backend::cpu::level::Level;
use crate::backend::cpu::pack::{round_row, rounded};
use crate::backend::cpu::pool::Pool;
use crate::backend::cpu::vecmath::{exp_row, fma, fold, leveled, scale_row};
use crate::program::Math;

/// Keys of one block.
const BLOCK: usize = 128;
/// Query heads that are taken at once.
const HEADS: usize = 2;
/// Multiplications of one job, about.
const JOB: usize = 64 << 10;
/// Lanes of the sums.
const LANES: usize = 16;
/// Keys or values that are taken at once, so that several sums run side by side.
const SIDE: usize = 4;

/// `Op::Attention`. A job is a few pairs of a query and a key/value head.
pub fn attention(pool: &Pool, level: Level, math: Math, o: &Operands, out: &mut [f32]) {
    let (t, g, d) = (o.dims.t, o.dims.kv_heads, o.dims.d);
    // The query heads that share a key/value head are neighbours in the output.
    let unit = o.dims.group() * d;
    let units = (JOB / (2 * o.dims.s * unit)).max(1);
    pool.pieces(out, units * unit, |job, part| {
        for (n, out) in part.chunks_exact_mut(unit).enumerate() {
            let (r, g) = ((job * units + n) / g, (job * units + n) % g);
            let (b, i) = (r / t, r % t);
            let keys = Keys {
                level,
                math,
                o,
                head: o.head(b, g),
                visible: o.visible(b, i),
            };
            for (n, out) in out.chunks_mut(HEADS * d).enumerate() {
                let h = g * o.dims.group() + HEADS * n;
                keys.attend(o.queries(b, i, h, out.len() / d), out);
            }
        }
    });
}

/// The keys and values that a query sees.
struct Keys<'a> {
    level: Level,
    math: Math,
    o: &'a Operands<'a>,
    /// Offset of key and value 0.
    head: usize,
    visible: (usize, usize),
}

/// Exponentials of one block, per query head.
type Block = [[f32; BLOCK]; HEADS];

impl Keys<'_> {
    /// Neighbouring heads of one query, at most [`HEADS`].
    fn attend(&self, q: &[f32], out: &mut [f32]) {
        let (level, d, stride) = (self.level, self.o.dims.d, self.o.stride());
        let (scale, round) = (self.o.dims.scale(), self.math == Math::Bf16);
        let (first, end) = self.visible;
        let (mut max, mut sum) = ([f32::NEG_INFINITY; HEADS], [0f32; HEADS]);
        let mut p: Block = [[0f32; BLOCK]; HEADS];
        out.fill(0.0);
        for start in (first..end).step_by(BLOCK) {
            let n = BLOCK.min(end - start);
            let rows = |x| Rows {
                x,
                start: self.head + start * stride,
                stride,
                n,
                round,
            };
            scores(level, q, d, &rows(self.o.k), &mut p);
            for (h, out) in out.chunks_exact_mut(d).enumerate() {
                let p = &mut p[h][..n];
                let largest = p.iter().fold(f32::NEG_INFINITY, |m, &p| m.max(p * scale));
                if largest > max[h] {
                    let shrink = (max[h] - largest).exp();
                    sum[h] *= shrink;
                    scale_row(level, out, shrink);
                    max[h] = largest;
                }
                p.iter_mut().for_each(|p| *p = *p * scale - max[h]);
                exp_row(level, p);
                sum[h] += p.iter().sum::<f32>();
                if round {
                    round_row(level, p);
                }
            }
            add_values(level, &p, &rows(self.o.v), out, d);
        }
        for (out, sum) in out.chunks_exact_mut(d).zip(sum) {
            // A query that sees no key gives zeros.
            scale_row(level, out, if sum > 0.0 { 1.0 / sum } else { 0.0 });
        }
    }
}

/// Neighbouring keys or values of one head.
struct Rows<'a> {
    x: &'a [f32],
    start: usize,
    stride: usize,
    /// How many; at most [`BLOCK`].
    n: usize,
    /// Whether elements are rounded to bf16 when they are read.
    round: bool,
}

impl Rows<'_> {
    /// Rows `j..j + SIDE`; the last one stands in for those behind it.
    #[inline(always)]
    fn side(&self, j: usize, d: usize) -> [&[f32]; SIDE] {
        std::array::from_fn(|i| &self.x[self.start + (j + i).min(self.n - 1) * self.stride..][..d])
    }
}

/// [`LANES`] elements from `at` on; with `PART`, zeros behind the end.
#[inline(always)]
fn load<const ROUND: bool, const PART: bool>(x: &[f32], at: usize) -> [f32; LANES] {
    let mut lanes = if PART {
        std::array::from_fn(|i| x.get(at + i).copied().unwrap_or(0.0))
    } else {
        let x = &x[at..at + LANES];
        std::array::from_fn(|i| x[i])
    };
    if ROUND {
        lanes.iter_mut().for_each(|x| *x = rounded(*x));
    }
    lanes
}

#[inline(always)]
fn scores_body<const FMA: bool>(q: &[f32], d: usize, k: &Rows, p: &mut Block) {
    match (q.len() / d, k.round) {
        (1, false) => scores_of::<FMA, 1, false>(q, d, k, p),
        (1, true) => scores_of::<FMA, 1, true>(q, d, k, p),
        (_, false) => scores_of::<FMA, 2, false>(q, d, k, p),
        (_, true) => scores_of::<FMA, 2, true>(q, d, k, p),
    }
}

#[inline(always)]
fn scores_of<const FMA: bool, const N: usize, const ROUND: bool>(
    q: &[f32],
    d: usize,
    k: &Rows,
    p: &mut Block,
) {
    for j in (0..k.n).step_by(SIDE) {
        let rows = k.side(j, d);
        let mut acc = [[[0f32; LANES]; N]; SIDE];
        let whole = d / LANES * LANES;
        for at in (0..whole).step_by(LANES) {
            products::<FMA, N, ROUND, false>(q, d, rows, at, &mut acc);
        }
        if whole < d {
            products::<FMA, N, ROUND, true>(q, d, rows, whole, &mut acc);
        }
        for (i, acc) in acc.into_iter().enumerate().take(k.n - j) {
            for (p, acc) in p.iter_mut().zip(acc) {
                p[j + i] = fold(acc, |a, b| a + b);
            }
        }
    }
}

/// Adds the products of [`LANES`] elements of `N` queries and of [`SIDE`] keys.
#[inline(always)]
fn products<const FMA: bool, const N: usize, const ROUND: bool, const PART: bool>(
    q: &[f32],
    d: usize,
    rows: [&[f32]; SIDE],
    at: usize,
    acc: &mut [[[f32; LANES]; N]; SIDE],
) {
    let q: [_; N] = std::array::from_fn(|h| load::<ROUND, PART>(&q[h * d..][..d], at));
    for (acc, row) in acc.iter_mut().zip(rows) {
        let k = load::<ROUND, PART>(row, at);
        for (acc, q) in acc.iter_mut().zip(q) {
            for ((a, k), q) in acc.iter_mut().zip(k).zip(q) {
                *a = fma::<FMA>(q, k, *a);
            }
        }
    }
}

#[inline(always)]
fn add_values_body<const FMA: bool>(p: &Block, v: &Rows, out: &mut [f32], d: usize) {
    match (out.len() / d, v.round) {
        (1, false) => add_values_to::<FMA, 1, false>(p, v, out, d),
        (1, true) => add_values_to::<FMA, 1, true>(p, v, out, d),
        (_, false) => add_values_to::<FMA, 2, false>(p, v, out, d),
        (_, true) => add_values_to::<FMA, 2, true>(p, v, out, d),
    }
}

#[inline(always)]
fn add_values_to<const FMA: bool, const N: usize, const ROUND: bool>(
    p: &Block,
    v: &Rows,
    out: &mut [f32],
    d: usize,
) {
    for j in (0..v.n).step_by(SIDE) {
        let rows = v.side(j, d);
        // Stand-ins count nothing.
        let weight = |h: usize, i: usize| if j + i < v.n { p[h][j + i] } else { 0.0 };
        let weights: [[f32; SIDE]; N] =
            std::array::from_fn(|h| std::array::from_fn(|i| weight(h, i)));
        let whole = d / LANES * LANES;
        for at in (0..whole).step_by(LANES) {
            weighted::<FMA, N, ROUND, false>(&weights, rows, at, out, d);
        }
        if whole < d {
            weighted::<FMA, N, ROUND, true>(&weights, rows, whole, out, d);
        }
    }
}

/// Adds [`LANES`] weighted elements of [`SIDE`] values to `N` results.
#[inline(always)]
fn weighted<const FMA: bool, const N: usize, const ROUND: bool, const PART: bool>(
    weights: &[[f32; SIDE]; N],
    rows: [&[f32]; SIDE],
    at: usize,
    out: &mut [f32],
    d: usize,
) {
    let v = rows.map(|row| load::<ROUND, PART>(row, at));
    for (h, weights) in weights.iter().enumerate() {
        let out = &mut out[h * d..][..d];
        let mut sum = load::<false, PART>(out, at);
        for (v, w) in v.iter().zip(weights) {
            for (s, v) in sum.iter_mut().zip(v) {
                *s = fma::<FMA>(*w, *v, *s);
            }
        }
        let n = if PART { d - at } else { LANES };
        out[at..at + n].copy_from_slice(&sum[..n]);
    }
}

leveled! {
    /// Inner products of one or two queries with every key.
    fn scores(q: &[f32], d: usize, k: &Rows, p: &mut Block) = scores_body
}
leveled! {
    /// Adds the weighted values to the results of one or two queries.
    fn add_values(p: &Block, v: &Rows, out: &mut [f32], d: usize) = add_values_body
}
