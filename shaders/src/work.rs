//! How much work a launch is, as far as it can be known from shapes: multiplications and
//! additions, a byte through memory counted as [`PER_BYTE`] of them, which is about what GPUs do
//! in its time. Only sums of it are used, to cut submissions before a driver loses patience.

use crate::launch::View;
use engine::program::{Mask, Op};

/// Arithmetic operations in the time of one byte.
const PER_BYTE: f64 = 16.0;

/// Work of reading or writing bytes.
pub fn of_bytes(bytes: usize) -> f64 {
    PER_BYTE * bytes as f64
}

/// Work of a step.
pub fn of(view: &View) -> f64 {
    let ins = view.ins.iter();
    let bytes: usize = ins.map(|arg| arg.len() * arg.dtype.bytes()).sum();
    products(view) + of_bytes(bytes + view.out.len() * view.out.dtype.bytes())
}

fn products(view: &View) -> f64 {
    let n = |i: usize| view.ins[i].len() as f64;
    let rows = |i: usize| (view.ins[i].len() / view.ins[i].width().max(1)) as f64;
    match view.op {
        Op::Linear | Op::ConvTranspose1d { .. } => 2.0 * rows(0) * n(1),
        Op::SwiGlu => 4.0 * rows(0) * n(1),
        Op::Conv1d { .. } => 2.0 * (view.out.len() / view.out.width().max(1)) as f64 * n(1),
        Op::SnakeConv1d { .. } | Op::SnakeConvTranspose1d { .. } => 2.0 * rows(0) * n(3),
        Op::Attention { mask } => {
            let keys = view.ins[1].shape[1];
            let seen = match *mask {
                Mask::Window(w) => keys.min(2 * w + 1),
                Mask::Full | Mask::Causal => keys,
            };
            4.0 * n(0) * seen as f64
        }
        _ => 0.0,
    }
}
