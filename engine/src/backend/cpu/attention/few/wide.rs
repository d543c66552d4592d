//! Products in f32: keys and values are widened as they are read.

use super::{Block, Rows, SIDE};
use crate::backend::cpu::attention::Stored;
use crate::backend::cpu::pack::rounded;
use crate::backend::cpu::vecmath::{fma, fold, leveled};

/// Lanes of the sums.
const LANES: usize = 16;

/// An element as it is stored.
trait Element: Copy {
    fn widen(self) -> f32;
}

impl Element for f32 {
    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }
}

/// The bits of a bf16.
impl Element for u16 {
    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from_bits(u32::from(self) << 16)
    }
}

/// [`LANES`] elements from `at` on; with `PART`, zeros behind the end.
#[inline(always)]
fn load<E: Element, const ROUND: bool, const PART: bool>(x: &[E], at: usize) -> [f32; LANES] {
    let mut lanes = if PART {
        std::array::from_fn(|i| x.get(at + i).map_or(0.0, |x| x.widen()))
    } else {
        let x = &x[at..at + LANES];
        std::array::from_fn(|i| x[i].widen())
    };
    if ROUND {
        lanes.iter_mut().for_each(|x| *x = rounded(*x));
    }
    lanes
}

/// Rows `j..j + SIDE`.
#[inline(always)]
fn side<'a, E>(x: &'a [E], rows: &Rows, j: usize) -> [&'a [E]; SIDE] {
    std::array::from_fn(|i| &x[rows.at(j + i)..][..rows.d])
}

#[inline(always)]
fn scores_body<const FMA: bool>(q: &[f32], k: &Rows, ahead: &Rows, p: &mut [Block]) {
    match (k.x, p.len(), k.round) {
        (Stored::Bf16(x), 1, _) => scores_of::<u16, FMA, 1, false>(q, x, k, ahead, p),
        (Stored::Bf16(x), _, _) => scores_of::<u16, FMA, 2, false>(q, x, k, ahead, p),
        (Stored::F32(x), 1, false) => scores_of::<f32, FMA, 1, false>(q, x, k, ahead, p),
        (Stored::F32(x), 1, true) => scores_of::<f32, FMA, 1, true>(q, x, k, ahead, p),
        (Stored::F32(x), _, false) => scores_of::<f32, FMA, 2, false>(q, x, k, ahead, p),
        (Stored::F32(x), _, true) => scores_of::<f32, FMA, 2, true>(q, x, k, ahead, p),
    }
}

#[inline(always)]
fn scores_of<E: Element, const FMA: bool, const N: usize, const ROUND: bool>(
    q: &[f32],
    x: &[E],
    k: &Rows,
    ahead: &Rows,
    p: &mut [Block],
) {
    for j in (0..k.n).step_by(SIDE) {
        ahead.fetch(j);
        let rows = side(x, k, j);
        let mut acc = [[[0f32; LANES]; N]; SIDE];
        let whole = k.d / LANES * LANES;
        for at in (0..whole).step_by(LANES) {
            products::<E, FMA, N, ROUND, false>(q, k.d, rows, at, &mut acc);
        }
        if whole < k.d {
            products::<E, FMA, N, ROUND, true>(q, k.d, rows, whole, &mut acc);
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
fn products<E: Element, const FMA: bool, const N: usize, const ROUND: bool, const PART: bool>(
    q: &[f32],
    d: usize,
    rows: [&[E]; SIDE],
    at: usize,
    acc: &mut [[[f32; LANES]; N]; SIDE],
) {
    let q: [_; N] = std::array::from_fn(|h| load::<f32, false, PART>(&q[h * d..][..d], at));
    for (acc, row) in acc.iter_mut().zip(rows) {
        let k = load::<E, ROUND, PART>(row, at);
        for (acc, q) in acc.iter_mut().zip(q) {
            for ((a, k), q) in acc.iter_mut().zip(k).zip(q) {
                *a = fma::<FMA>(q, k, *a);
            }
        }
    }
}

#[inline(always)]
fn add_values_body<const FMA: bool>(p: &[Block], v: &Rows, ahead: &Rows, out: &mut [f32]) {
    match (v.x, p.len(), v.round) {
        (Stored::Bf16(x), 1, _) => add_values_to::<u16, FMA, 1, false>(p, x, v, ahead, out),
        (Stored::Bf16(x), _, _) => add_values_to::<u16, FMA, 2, false>(p, x, v, ahead, out),
        (Stored::F32(x), 1, false) => add_values_to::<f32, FMA, 1, false>(p, x, v, ahead, out),
        (Stored::F32(x), 1, true) => add_values_to::<f32, FMA, 1, true>(p, x, v, ahead, out),
        (Stored::F32(x), _, false) => add_values_to::<f32, FMA, 2, false>(p, x, v, ahead, out),
        (Stored::F32(x), _, true) => add_values_to::<f32, FMA, 2, true>(p, x, v, ahead, out),
    }
}

#[inline(always)]
fn add_values_to<E: Element, const FMA: bool, const N: usize, const ROUND: bool>(
    p: &[Block],
    x: &[E],
    v: &Rows,
    ahead: &Rows,
    out: &mut [f32],
) {
    for j in (0..v.n).step_by(SIDE) {
        ahead.fetch(j);
        let rows = side(x, v, j);
        // Stand-ins count nothing.
        let weight = |h: usize, i: usize| if j + i < v.n { p[h][j + i] } else { 0.0 };
        let weights: [[f32; SIDE]; N] =
            std::array::from_fn(|h| std::array::from_fn(|i| weight(h, i)));
        let whole = v.d / LANES * LANES;
        for at in (0..whole).step_by(LANES) {
            weighted::<E, FMA, N, ROUND, false>(&weights, rows, at, out, v.d);
        }
        if whole < v.d {
            weighted::<E, FMA, N, ROUND, true>(&weights, rows, whole, out, v.d);
        }
    }
}

/// Adds [`LANES`] weighted elements of [`SIDE`] values to `N` results.
#[inline(always)]
fn weighted<E: Element, const FMA: bool, const N: usize, const ROUND: bool, const PART: bool>(
    weights: &[[f32; SIDE]; N],
    rows: [&[E]; SIDE],
    at: usize,
    out: &mut [f32],
    d: usize,
) {
    let v = rows.map(|row| load::<E, ROUND, PART>(row, at));
    for (h, weights) in weights.iter().enumerate() {
        let out = &mut out[h * d..][..d];
        let mut sum = load::<f32, false, PART>(out, at);
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
    pub(super) fn scores(q: &[f32], k: &Rows, ahead: &Rows, p: &mut [Block]) = scores_body
}
leveled! {
    /// Adds the weighted values to the results of one or two queries.
    pub(super) fn add_values(p: &[Block], v: &Rows, ahead: &Rows, out: &mut [f32]) = add_values_body
}
