//! Operations that make every element from few others, all in one frame.

use super::{Launch, Operand, View, folded, word};
use crate::kernels::{self, Shader, Variant};
use engine::program::{Op, Scalar};

/// Every shader of the frame.
static ALL: [&Shader; 13] = [
    &kernels::ADD,
    &kernels::MUL,
    &kernels::SILU,
    &kernels::ADD_VECTOR,
    &kernels::MUL_VECTOR,
    &kernels::MUL_ROWS,
    &kernels::MODULATE,
    &kernels::COMBINE,
    &kernels::SELECT_BY_MASK,
    &kernels::GATED_ADD,
    &kernels::SNAKE,
    &kernels::REPEAT_ADD,
    &kernels::TIME_SINUSOID,
];

pub fn launches(view: &View) -> Vec<Launch> {
    let shape = view.out.shape;
    // Rows of an item, where an operand has one row per item.
    let rows = || shape[shape.len() - 2];
    let (shader, t, scalars) = match *view.op {
        Op::Add => (&kernels::ADD, 1, None),
        Op::Mul => (&kernels::MUL, 1, None),
        Op::Silu => (&kernels::SILU, 1, None),
        Op::AddVector => (&kernels::ADD_VECTOR, 1, None),
        Op::MulVector => (&kernels::MUL_VECTOR, 1, None),
        Op::MulRows => (&kernels::MUL_ROWS, rows(), None),
        Op::Modulate => (&kernels::MODULATE, rows(), None),
        Op::Combine { a, b } => (&kernels::COMBINE, 1, Some((a, b))),
        Op::SelectByMask => (&kernels::SELECT_BY_MASK, 1, None),
        Op::GatedAdd => (&kernels::GATED_ADD, rows(), None),
        Op::Snake => (&kernels::SNAKE, 1, None),
        Op::RepeatAdd => (&kernels::REPEAT_ADD, shape[1], None),
        _ => (&kernels::TIME_SINUSOID, 1, None),
    };
    vec![launch(
        view,
        shader,
        t,
        scalars,
        Operand::Out,
        view.out.offset,
    )]
}

/// The snake of the first three inputs into scratch space.
pub fn snake_into_scratch(view: &View) -> Launch {
    let mut launch = launch(view, &kernels::SNAKE, 1, None, Operand::Scratch, 0);
    let input = view.ins[0];
    launch.words[4] = word(input.len());
    launch.words[5] = word(input.width());
    launch.groups = folded(input.len().div_ceil(256));
    launch
}

fn launch(
    view: &View,
    shader: &'static Shader,
    t: usize,
    scalars: Option<(Scalar, Scalar)>,
    out: Operand,
    out_offset: u32,
) -> Launch {
    // What a shader does not read is bound to the first input.
    let input = |i: usize| if i < view.ins.len().min(3) { i } else { 0 };
    let offset = |i: usize| view.ins[input(i)].offset;
    let (sa, sb) = scalars.unwrap_or((Scalar(0), Scalar(0)));
    Launch {
        variant: Variant::new(shader),
        operands: vec![
            Operand::In(input(0)),
            Operand::In(input(1)),
            Operand::In(input(2)),
            out,
            Operand::Scalars,
        ],
        words: vec![
            offset(0),
            offset(1),
            offset(2),
            out_offset,
            word(view.out.len()),
            word(view.out.width()),
            word(t),
            word(sa.0),
            word(sb.0),
        ],
        groups: folded(view.out.len().div_ceil(256)),
    }
}

pub fn variants() -> Vec<Variant> {
    ALL.iter().map(|shader| Variant::new(shader)).collect()
}
