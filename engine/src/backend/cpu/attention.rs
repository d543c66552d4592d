//! Softmax attention with grouped heads, in blocks of keys: the score matrix is never formed.

use super::level::Level;
use super::pool::Pool;
use super::vecmath::{dot, exp_row, leveled};
use crate::program::{Mask, Math};

/// Keys of one block.
const BLOCK: usize = 128;
/// Query rows of one job.
const ROWS: usize = 16;

/// Extents of the operands of [`attention`].
#[derive(Debug, Clone, Copy)]
pub struct AttentionDims {
    /// Batch items.
    pub b: usize,
    /// Queries per item.
    pub t: usize,
    /// Keys per item.
    pub s: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Head size.
    pub d: usize,
}

/// Scratch that [`attention`] needs with a pool of `threads` threads.
pub fn attention_scratch_bytes(_dims: &AttentionDims, _threads: usize) -> usize {
    0
}

/// Keys that query `i` sees: `first..end`.
fn visible(mask: Mask, dims: &AttentionDims, i: usize, length: usize) -> (usize, usize) {
    match mask {
        Mask::Full => (0, length),
        Mask::Causal => (0, (dims.s - dims.t + i + 1).min(length)),
        Mask::Window(w) => (i.saturating_sub(w), (i + w + 1).min(length)),
    }
}

/// `Op::Attention`.
#[allow(clippy::too_many_arguments)] // one argument per operand of the contract
pub fn attention(
    pool: &Pool,
    level: Level,
    math: Math,
    mask: Mask,
    dims: &AttentionDims,
    q: &[f32],
    k: &[f32],
    v: &[f32],
    lengths: Option<&[i32]>,
    out: &mut [f32],
    _scratch: &mut [u8],
) {
    let AttentionDims {
        t,
        s,
        heads,
        kv_heads,
        d,
        ..
    } = *dims;
    let (row, kv_row) = (heads * d, kv_heads * d);
    pool.pieces(out, ROWS * row, |job, part| {
        for (n, out) in part.chunks_exact_mut(d).enumerate() {
            let r = job * ROWS + n / heads;
            let h = n % heads;
            let (b, i) = (r / t, r % t);
            let length = lengths.map_or(s, |l| l[b] as usize);
            let at = b * s * kv_row + h / (heads / kv_heads) * d;
            let keys = Keys {
                k: &k[at..],
                v: &v[at..],
                stride: kv_row,
            };
            let q = &q[r * row + h * d..][..d];
            one_query(level, math, q, &keys, visible(mask, dims, i, length), out);
        }
    });
}

/// Keys and values of one head, `stride` apart.
struct Keys<'a> {
    k: &'a [f32],
    v: &'a [f32],
    stride: usize,
}

fn one_query(
    level: Level,
    math: Math,
    q: &[f32],
    keys: &Keys,
    (first, end): (usize, usize),
    out: &mut [f32],
) {
    let d = q.len();
    let scale = 1.0 / (d as f32).sqrt();
    let (mut max, mut sum) = (f32::NEG_INFINITY, 0f32);
    out.fill(0.0);
    let mut p = [0f32; BLOCK];
    for start in (first..end).step_by(BLOCK) {
        let n = BLOCK.min(end - start);
        let p = &mut p[..n];
        for (j, p) in p.iter_mut().enumerate() {
            let k = &keys.k[(start + j) * keys.stride..][..d];
            *p = scale
                * match math {
                    Math::F32 => dot(level, q, k),
                    Math::Bf16 => dot_rounded(level, q, k),
                };
        }
        let block_max = p.iter().fold(f32::NEG_INFINITY, |m, &p| m.max(p));
        if block_max > max {
            let shrink = (max - block_max).exp();
            sum *= shrink;
            out.iter_mut().for_each(|o| *o *= shrink);
            max = block_max;
        }
        p.iter_mut().for_each(|p| *p -= max);
        exp_row(level, p);
        sum += p.iter().sum::<f32>();
        for (j, &p) in p.iter().enumerate() {
            let v = &keys.v[(start + j) * keys.stride..][..d];
            match math {
                Math::F32 => add_scaled(level, out, p, v),
                Math::Bf16 => add_scaled_rounded(level, out, p, v),
            }
        }
    }
    // A query that sees no key gives zeros.
    let inverse = if sum > 0.0 { 1.0 / sum } else { 0.0 };
    out.iter_mut().for_each(|o| *o *= inverse);
}

/// Nearest bf16, ties to even.
#[inline(always)]
fn rounded(x: f32) -> f32 {
    let bits = x.to_bits();
    f32::from_bits(bits.wrapping_add(0x7fff + (bits >> 16 & 1)) & 0xffff_0000)
}

#[inline(always)]
fn add_scaled_body<const FMA: bool>(out: &mut [f32], p: f32, v: &[f32]) {
    for (o, &v) in out.iter_mut().zip(v) {
        *o = super::vecmath::fma::<FMA>(p, v, *o);
    }
}

#[inline(always)]
fn add_scaled_rounded_body<const FMA: bool>(out: &mut [f32], p: f32, v: &[f32]) {
    let p = rounded(p);
    for (o, &v) in out.iter_mut().zip(v) {
        *o = super::vecmath::fma::<FMA>(p, rounded(v), *o);
    }
}

#[inline(always)]
fn dot_rounded_body<const FMA: bool>(x: &[f32], y: &[f32]) -> f32 {
    let mut acc = [0f32; 16];
    for (x, y) in x.chunks(16).zip(y.chunks(16)) {
        for ((a, &x), &y) in acc.iter_mut().zip(x).zip(y) {
            *a = super::vecmath::fma::<FMA>(rounded(x), rounded(y), *a);
        }
    }
    acc.iter().sum()
}

leveled! {
    /// `out += p v`.
    fn add_scaled(out: &mut [f32], p: f32, v: &[f32]) = add_scaled_body
}
leveled! {
    /// `out += p v` with factors rounded to bf16.
    fn add_scaled_rounded(out: &mut [f32], p: f32, v: &[f32]) = add_scaled_rounded_body
}
leveled! {
    /// Inner product of factors rounded to bf16.
    fn dot_rounded(x: &[f32], y: &[f32]) -> f32 = dot_rounded_body
}
