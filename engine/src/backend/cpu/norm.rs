//! Root-mean-square norms, plain and with a modulation.

use super::elementwise::each_row;
use super::level::Level;
use super::pool::Pool;
use super::vecmath;

/// `Op::RmsNorm` over rows of `w.len()` elements.
pub fn rms_norm(
    pool: &Pool,
    level: Level,
    x: Option<&[f32]>,
    w: &[f32],
    eps: f32,
    out: &mut [f32],
) {
    each_row(pool, x, w.len(), out, |_, row| {
        vecmath::rms_norm_row(level, row, w, eps)
    });
}

/// `Op::RmsNormModulate`: x `(B, T, C)`, `scale` and `shift` `(B, C)`.
#[allow(clippy::too_many_arguments)] // one argument per operand of the contract
pub fn rms_norm_modulate(
    pool: &Pool,
    level: Level,
    x: &[f32],
    w: &[f32],
    eps: f32,
    scale: &[f32],
    shift: &[f32],
    out: &mut [f32],
) {
    let c = w.len();
    let t = out.len() / scale.len();
    each_row(pool, Some(x), c, out, |r, row| {
        let at = r / t * c;
        let (scale, shift) = (&scale[at..at + c], &shift[at..at + c]);
        vecmath::rms_norm_modulate_row(level, row, w, eps, scale, shift);
    });
}
