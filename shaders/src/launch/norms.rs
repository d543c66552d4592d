//! Norms and rotary embeddings: one workgroup a row.

use super::{Launch, Operand, View, folded, switch, word};
use crate::kernels::{RMS_NORM, ROPE, Variant};
use engine::program::Op;

pub fn launches(view: &View) -> Vec<Launch> {
    vec![match *view.op {
        Op::RmsNorm { eps } => rms_norm(view, eps, false),
        Op::RmsNormModulate { eps } => rms_norm(view, eps, true),
        Op::NormRope { eps } => rope(view, Some(eps)),
        _ => rope(view, None),
    }]
}

fn rms_norm(view: &View, eps: f32, modulate: bool) -> Launch {
    let c = view.out.width();
    let rows = view.out.len() / c;
    let (scale, shift) = if modulate { (2, 3) } else { (1, 1) };
    let t = if modulate { view.out.shape[1] } else { 1 };
    Launch {
        variant: switch(Variant::new(&RMS_NORM), "MODULATE", modulate),
        operands: vec![
            Operand::In(0),
            Operand::In(1),
            Operand::In(scale),
            Operand::In(shift),
            Operand::Out,
        ],
        words: vec![
            view.ins[0].offset,
            view.ins[1].offset,
            view.ins[scale].offset,
            view.ins[shift].offset,
            view.out.offset,
            word(rows),
            word(c),
            word(t),
            eps.to_bits(),
        ],
        groups: folded(rows),
    }
}

/// With `eps` the norm comes first.
fn rope(view: &View, eps: Option<f32>) -> Launch {
    let shape = view.out.shape;
    let [b, t, h, d] = [shape[0], shape[1], shape[2], shape[3]];
    let (cos, sin) = if eps.is_some() { (2, 3) } else { (1, 2) };
    let per_item = if view.ins[cos].shape.len() == 3 { t } else { 0 };
    Launch {
        variant: switch(Variant::new(&ROPE), "NORM", eps.is_some()),
        operands: vec![
            Operand::In(0),
            Operand::In(1),
            Operand::In(cos),
            Operand::In(sin),
            Operand::Out,
        ],
        words: vec![
            view.ins[0].offset,
            view.ins[1].offset,
            view.ins[cos].offset,
            view.ins[sin].offset,
            view.out.offset,
            word(b * t * h),
            word(h),
            word(t),
            word(d),
            word(per_item),
            eps.unwrap_or(0.0).to_bits(),
        ],
        groups: folded(b * t * h),
    }
}

pub fn variants() -> Vec<Variant> {
    let both = [false, true];
    let norm = both.map(|on| switch(Variant::new(&RMS_NORM), "MODULATE", on));
    let rope = both.map(|on| switch(Variant::new(&ROPE), "NORM", on));
    norm.into_iter().chain(rope).collect()
}
