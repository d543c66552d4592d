//! Attention of a few queries: keys and values are read where they lie.

use super::Operands;
use crate::backend::cpu::level::Level;
use crate::backend::cpu::pack::rounded;
use crate::backend::cpu::pool::Pool;
use crate::backend::cpu::vecmath::{dot, exp_row, fma, leveled};
use crate::program::Math;

/// Keys of one block.
const BLOCK: usize = 128;
/// Multiplications of one job, about.
const JOB: usize = 64 << 10;

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
            for (n, out) in out.chunks_exact_mut(d).enumerate() {
                let q = o.query(b, i, g * o.dims.group() + n);
                one_query(level, math, o, q, o.head(b, g), o.visible(b, i), out);
            }
        }
    });
}

/// One query over keys `first..end` of the head that begins at `head`.
fn one_query(
    level: Level,
    math: Math,
    o: &Operands,
    q: &[f32],
    head: usize,
    (first, end): (usize, usize),
    out: &mut [f32],
) {
    let (d, stride) = (q.len(), o.stride());
    let (mut max, mut sum) = (f32::NEG_INFINITY, 0f32);
    let mut p = [0f32; BLOCK];
    out.fill(0.0);
    for start in (first..end).step_by(BLOCK) {
        let p = &mut p[..BLOCK.min(end - start)];
        for (j, p) in p.iter_mut().enumerate() {
            let k = &o.k[head + (start + j) * stride..][..d];
            *p = o.dims.scale()
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
            let v = &o.v[head + (start + j) * stride..][..d];
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

#[inline(always)]
fn add_scaled_body<const FMA: bool>(out: &mut [f32], p: f32, v: &[f32]) {
    for (o, &v) in out.iter_mut().zip(v) {
        *o = fma::<FMA>(p, v, *o);
    }
}

#[inline(always)]
fn add_scaled_rounded_body<const FMA: bool>(out: &mut [f32], p: f32, v: &[f32]) {
    let p = rounded(p);
    for (o, &v) in out.iter_mut().zip(v) {
        *o = fma::<FMA>(p, rounded(v), *o);
    }
}

#[inline(always)]
fn dot_rounded_body<const FMA: bool>(x: &[f32], y: &[f32]) -> f32 {
    let mut acc = [0f32; 16];
    for (x, y) in x.chunks(16).zip(y.chunks(16)) {
        for ((a, &x), &y) in acc.iter_mut().zip(x).zip(y) {
            *a = fma::<FMA>(rounded(x), rounded(y), *a);
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
