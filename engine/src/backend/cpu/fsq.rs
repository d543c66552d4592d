//! Finite scalar quantisation: vectors to codes and back.

use super::pool::Pool;

/// Codes of one job.
const JOB: usize = 1024;

/// `Op::FsqEncode`: x `(N, levels.len())`.
pub fn encode(pool: &Pool, x: &[f32], levels: &[u32], out: &mut [i32]) {
    let d = levels.len();
    pool.pieces(out, JOB, |job, part| {
        for (i, code) in part.iter_mut().enumerate() {
            let row = &x[(job * JOB + i) * d..][..d];
            let mut basis = 1;
            *code = 0;
            for (&x, &levels) in row.iter().zip(levels) {
                *code += digit(x, levels) * basis;
                basis *= levels as i32;
            }
        }
    });
}

/// The number of the nearest of `levels` grid points, after the soft clamp.
fn digit(x: f32, levels: u32) -> i32 {
    let top = (levels - 1) as f32;
    let c = 1.0 + 1.0 / top;
    let z = (c * (x / c).tanh()).clamp(-1.0, 1.0);
    (top * (z + 1.0) / 2.0 + 0.5).floor() as i32
}

/// `Op::FsqDecode`: out `(N, levels.len())`.
pub fn decode(pool: &Pool, codes: &[i32], levels: &[u32], out: &mut [f32]) {
    let d = levels.len();
    pool.pieces(out, JOB * d, |job, part| {
        for (i, row) in part.chunks_exact_mut(d).enumerate() {
            let mut code = codes[job * JOB + i];
            for (value, &levels) in row.iter_mut().zip(levels) {
                let levels = levels as i32;
                *value = 2.0 * code.rem_euclid(levels) as f32 / (levels - 1) as f32 - 1.0;
                code = code.div_euclid(levels);
            }
        }
    });
}
