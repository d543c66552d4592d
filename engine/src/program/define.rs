//! What fused operations mean: each one in simpler operations. The definition is the test oracle
//! of a fused kernel and what runs on a backend that has none.

use super::build::{Builder, Val};
use super::op::Op;

/// Appends the definition of `op` and returns its output, or `None` when `op` is a primitive.
pub fn define(b: &mut Builder, op: &Op, ins: &[Val]) -> Option<Val> {
    let out = match *op {
        Op::RmsNormModulate { eps } => {
            let normed = b.op(Op::RmsNorm { eps }, &ins[..2]);
            b.op(Op::Modulate, &[normed, ins[2], ins[3]])
        }
        Op::NormRope { eps } => {
            let normed = b.op(Op::RmsNorm { eps }, &ins[..2]);
            b.op(Op::Rope, &[normed, ins[2], ins[3]])
        }
        Op::GatedAdd => {
            let gated = b.op(Op::MulRows, &[ins[1], ins[2]]);
            b.op(Op::Add, &[ins[0], gated])
        }
        Op::SwiGlu => {
            let gate = b.op(Op::Linear, &[ins[0], ins[1]]);
            let gate = b.op(Op::Silu, &[gate]);
            let up = b.op(Op::Linear, &[ins[0], ins[2]]);
            b.op(Op::Mul, &[gate, up])
        }
        Op::SnakeConv1d { dilation, pad } => {
            let x = b.op(Op::Snake, &ins[..3]);
            let rest: Vec<Val> = std::iter::once(x).chain(ins[3..].iter().copied()).collect();
            b.op(
                Op::Conv1d {
                    dilation,
                    stride: 1,
                    pad,
                },
                &rest,
            )
        }
        Op::SnakeConvTranspose1d { stride, pad } => {
            let x = b.op(Op::Snake, &ins[..3]);
            let rest: Vec<Val> = std::iter::once(x).chain(ins[3..].iter().copied()).collect();
            b.op(Op::ConvTranspose1d { stride, pad }, &rest)
        }
        _ => return None,
    };
    Some(out)
}
