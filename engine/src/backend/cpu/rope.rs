//! Rotary embedding, plain and behind a norm over the head size.

use super::elementwise::each_row;
use super::level::Level;
use super::pool::Pool;
use super::vecmath;

/// `Op::Rope`: x `(B, T, H, D)` with `heads` heads; `cos` and `sin` are `(T, D/2)` or
/// `(B, T, D/2)`.
pub fn rope(
    pool: &Pool,
    level: Level,
    x: Option<&[f32]>,
    cos: &[f32],
    sin: &[f32],
    dims: RopeDims,
    out: &mut [f32],
) {
    let RopeDims { heads, d } = dims;
    let half = d / 2;
    let angles = cos.len() / half;
    each_row(pool, x, heads * d, out, |r, row| {
        let at = r % angles * half;
        let (cos, sin) = (&cos[at..at + half], &sin[at..at + half]);
        for head in row.chunks_exact_mut(d) {
            vecmath::rotate_head(level, head, cos, sin);
        }
    });
}

/// `Op::NormRope`: as [`rope`], each head normed with the weights `w (D)` first.
#[allow(clippy::too_many_arguments)] // one argument per operand of the contract
pub fn norm_rope(
    pool: &Pool,
    level: Level,
    x: Option<&[f32]>,
    w: &[f32],
    eps: f32,
    cos: &[f32],
    sin: &[f32],
    dims: RopeDims,
    out: &mut [f32],
) {
    let RopeDims { heads, d } = dims;
    let half = d / 2;
    let angles = cos.len() / half;
    each_row(pool, x, heads * d, out, |r, row| {
        let at = r % angles * half;
        let (cos, sin) = (&cos[at..at + half], &sin[at..at + half]);
        for head in row.chunks_exact_mut(d) {
            vecmath::rms_norm_row(level, head, w, eps);
            vecmath::rotate_head(level, head, cos, sin);
        }
    });
}

/// The last two axes of x.
#[derive(Debug, Clone, Copy)]
pub struct RopeDims {
    /// Heads.
    pub heads: usize,
    /// Head size.
    pub d: usize,
}
