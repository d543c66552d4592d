//! Operations that move elements; exact.

use super::{Tensor, Want};
use crate::cases::round_to;
use engine::program::Op;

/// The result, or `None` when the operation belongs elsewhere.
pub fn evaluate(op: &Op, ins: &[Tensor], scalars: &[f64]) -> Option<Want> {
    let x = &ins[0];
    let mut out = Vec::new();
    // Axes of x seen as (B, T, C); missing ones are 1.
    let axis = |i: usize| x.shape.get(i).copied().unwrap_or(1);
    let (b, t, c) = (axis(0), axis(1), axis(2));
    match *op {
        Op::ConcatChannels => {
            for r in 0..x.rows() {
                ins.iter().for_each(|p| out.extend_from_slice(p.row(r)));
            }
        }
        Op::ConcatRows => {
            for i in 0..b {
                for p in ins {
                    for t in 0..p.shape[1] {
                        out.extend_from_slice(p.row(i * p.shape[1] + t));
                    }
                }
            }
        }
        Op::SliceRows { start, len } => {
            for i in 0..b {
                (start..start + len).for_each(|r| out.extend_from_slice(x.row(i * t + r)));
            }
        }
        Op::PadRows { rows } => {
            for i in 0..b {
                (0..t).for_each(|r| out.extend_from_slice(x.row(i * t + r)));
                out.extend(std::iter::repeat_n(0.0, rows * c));
            }
        }
        Op::SelectRow { index, rows } => {
            let r = scalars[index.0].round().clamp(0.0, (b - 1) as f64) as usize;
            (0..rows).for_each(|_| out.extend_from_slice(x.row(r)));
        }
        Op::SelectSlab { index } => {
            let r = scalars[index.0].round().clamp(0.0, (b - 1) as f64) as usize;
            let n = x.data.len() / b;
            out.extend_from_slice(&x.data[r * n..(r + 1) * n]);
        }
        Op::PrependRow => {
            for i in 0..b {
                out.extend_from_slice(&ins[1].data);
                (0..t).for_each(|r| out.extend_from_slice(x.row(i * t + r)));
            }
        }
        Op::RepeatAdd => {
            for n in 0..x.rows() {
                for j in 0..ins[1].rows() {
                    let sum = x.row(n).iter().zip(ins[1].row(j)).map(|(x, p)| x + p);
                    // One rounding, correctly done everywhere.
                    out.extend(sum.map(|s| f64::from(s as f32)));
                }
            }
        }
        Op::Embed => x
            .data
            .iter()
            .for_each(|&id| out.extend_from_slice(ins[1].row(id as usize))),
        Op::WriteRows => out = written(ins),
        Op::SelectByMask => {
            for (r, &m) in x.data.iter().enumerate() {
                out.extend_from_slice(ins[if m != 0.0 { 1 } else { 2 }].row(r));
            }
        }
        Op::FsqDecode { ref levels } => return Some(decode(&x.data, levels)),
        _ => return None,
    }
    Some(Want::exact(out))
}

/// A cache `(B, S, ...)` with rows `(B, T, ...)` from `at` on, as the cache stores them.
fn written(ins: &[Tensor]) -> Vec<f64> {
    let (cache, rows, at) = (&ins[0], &ins[1], &ins[2]);
    let (s, t) = (cache.shape[1], rows.shape[1]);
    let mut out = cache.data.clone();
    let width = out.len() / (cache.shape[0] * s);
    for (r, row) in rows.data.chunks(width).enumerate() {
        let place = r / t * s + at.data[r / t] as usize + r % t;
        let kept = row
            .iter()
            .map(|x| f64::from(round_to(*x as f32, cache.dtype)));
        let to = &mut out[place * width..][..width];
        to.iter_mut().zip(kept).for_each(|(to, x)| *to = x);
    }
    out
}

fn decode(codes: &[f64], levels: &[u32]) -> Want {
    let mut data = Vec::new();
    for &code in codes {
        let mut code = code as u64;
        for &levels in levels {
            let levels = u64::from(levels);
            let k = code % levels;
            code /= levels;
            data.push(2.0 * k as f64 / (levels - 1) as f64 - 1.0);
        }
    }
    let slack = vec![4.0 * super::U; data.len()];
    Want { data, slack }
}
