//! Element-wise operations. Each works on its output in place; when the input lies elsewhere
//! (`x` is given) it is copied row by row first, while the row is in the first-level cache.

use super::level::Level;
use super::pool::Pool;
use super::vecmath;

/// Elements of one job: about 0.1 ms of memory traffic.
const JOB: usize = 64 * 1024;
/// Row length of operations that have no rows of their own.
const CHUNK: usize = 4096;

/// Runs `f(row number, row)` on every row of `c` elements of `out`, which holds x already or
/// gets a copy of it first.
pub(super) fn each_row(
    pool: &Pool,
    x: Option<&[f32]>,
    c: usize,
    out: &mut [f32],
    f: impl Fn(usize, &mut [f32]) + Sync,
) {
    let rows = (JOB / c).max(1);
    pool.pieces(out, rows * c, |job, part| {
        for (i, row) in part.chunks_mut(c).enumerate() {
            let r = job * rows + i;
            if let Some(x) = x {
                row.copy_from_slice(&x[r * c..r * c + row.len()]);
            }
            f(r, row);
        }
    });
}

/// Runs `f(o, y)` on every pair of elements of `out` and `y`.
fn pairs(
    pool: &Pool,
    x: Option<&[f32]>,
    y: &[f32],
    out: &mut [f32],
    f: impl Fn(&mut f32, f32) + Sync,
) {
    each_row(pool, x, CHUNK, out, |r, row| {
        let y = &y[r * CHUNK..r * CHUNK + row.len()];
        row.iter_mut().zip(y).for_each(|(o, &y)| f(o, y));
    });
}

/// `Op::Add`: `a + b`.
pub fn add(pool: &Pool, a: Option<&[f32]>, b: &[f32], out: &mut [f32]) {
    pairs(pool, a, b, out, |o, b| *o += b);
}

/// `Op::Mul`: `a * b`.
pub fn mul(pool: &Pool, a: Option<&[f32]>, b: &[f32], out: &mut [f32]) {
    pairs(pool, a, b, out, |o, b| *o *= b);
}

/// `Op::Combine`: `a x + b y`.
pub fn combine(pool: &Pool, x: Option<&[f32]>, y: &[f32], a: f32, b: f32, out: &mut [f32]) {
    pairs(pool, x, y, out, |o, y| *o = a * *o + b * y);
}

/// `Op::Silu`.
pub fn silu(pool: &Pool, level: Level, x: Option<&[f32]>, out: &mut [f32]) {
    each_row(pool, x, CHUNK, out, |_, row| vecmath::silu_row(level, row));
}

/// `Op::AddVector`: `v` is added to every row.
pub fn add_vector(pool: &Pool, x: Option<&[f32]>, v: &[f32], out: &mut [f32]) {
    each_row(pool, x, v.len(), out, |_, row| {
        row.iter_mut().zip(v).for_each(|(o, v)| *o += v);
    });
}

/// `Op::MulVector`: every row is multiplied by `v`.
pub fn mul_vector(pool: &Pool, x: Option<&[f32]>, v: &[f32], out: &mut [f32]) {
    each_row(pool, x, v.len(), out, |_, row| {
        row.iter_mut().zip(v).for_each(|(o, v)| *o *= v);
    });
}

/// Rows of each batch item: `out` is `(B, T, C)`, `v` is `(B, C)`.
fn rows_per_item(out: &[f32], v: &[f32]) -> usize {
    out.len() / v.len()
}

/// `Op::MulRows`: `v` is `(B, C)`, `c` the number of channels.
pub fn mul_rows(pool: &Pool, x: Option<&[f32]>, v: &[f32], c: usize, out: &mut [f32]) {
    let t = rows_per_item(out, v);
    each_row(pool, x, c, out, |r, row| {
        let v = &v[r / t * c..][..c];
        row.iter_mut().zip(v).for_each(|(o, v)| *o *= v);
    });
}

/// `Op::Modulate`: `scale` and `shift` are `(B, C)`, `c` the number of channels.
pub fn modulate(
    pool: &Pool,
    x: Option<&[f32]>,
    scale: &[f32],
    shift: &[f32],
    c: usize,
    out: &mut [f32],
) {
    let t = rows_per_item(out, scale);
    each_row(pool, x, c, out, |r, row| {
        let at = r / t * c;
        let (scale, shift) = (&scale[at..at + c], &shift[at..at + c]);
        for ((o, scale), shift) in row.iter_mut().zip(scale).zip(shift) {
            *o = *o * (1.0 + scale) + shift;
        }
    });
}

/// `Op::GatedAdd`: `residual + x * gate[b]`, `gate` is `(B, C)`, `c` the number of channels.
pub fn gated_add(
    pool: &Pool,
    residual: Option<&[f32]>,
    x: &[f32],
    gate: &[f32],
    c: usize,
    out: &mut [f32],
) {
    let t = rows_per_item(out, gate);
    each_row(pool, residual, c, out, |r, row| {
        let (x, gate) = (&x[r * c..][..c], &gate[r / t * c..][..c]);
        for ((o, x), gate) in row.iter_mut().zip(x).zip(gate) {
            *o += x * gate;
        }
    });
}

/// `Op::SelectByMask`: one element of `m` per row of `a` and `b`.
pub fn select_by_mask(pool: &Pool, m: &[f32], a: &[f32], b: &[f32], out: &mut [f32]) {
    let c = out.len() / m.len();
    each_row(pool, None, c, out, |r, row| {
        let from = if m[r] != 0.0 { a } else { b };
        row.copy_from_slice(&from[r * c..][..c]);
    });
}

/// `Op::Snake`: `alpha` and `beta` as stored (before `exp`), one per channel.
pub fn snake(
    pool: &Pool,
    level: Level,
    x: Option<&[f32]>,
    alpha: &[f32],
    beta: &[f32],
    out: &mut [f32],
) {
    // Channels in blocks, so that the factors need no memory beyond the stack.
    const BLOCK: usize = 256;
    let c = alpha.len();
    let rows = (JOB / c).max(1);
    pool.pieces(out, rows * c, |job, part| {
        if let Some(x) = x {
            part.copy_from_slice(&x[job * rows * c..][..part.len()]);
        }
        for first in (0..c).step_by(BLOCK) {
            let n = BLOCK.min(c - first);
            let (mut a, mut b) = ([0f32; BLOCK], [0f32; BLOCK]);
            for i in 0..n {
                (a[i], b[i]) = vecmath::snake_factors(alpha[first + i], beta[first + i]);
            }
            for row in part.chunks_exact_mut(c) {
                vecmath::snake_row_in_place(level, &mut row[first..first + n], &a[..n], &b[..n]);
            }
        }
    });
}

/// `Op::TimeSinusoid`: one row of `dim` per element of `t`. The angles are formed in f32, as
/// the reference does, because their rounding is visible at `1000 t`.
pub fn time_sinusoid(pool: &Pool, t: &[f32], dim: usize, out: &mut [f32]) {
    let half = dim / 2;
    let slope = -(10_000f64.ln() as f32);
    each_row(pool, None, dim, out, |r, row| {
        let t = 1000.0 * t[r];
        for i in 0..half {
            let angle = t * (slope * i as f32 / half as f32).exp();
            row[i] = angle.cos();
            row[half + i] = angle.sin();
        }
    });
}
