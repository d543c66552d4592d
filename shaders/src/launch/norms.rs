//! Norms and rotary embeddings: one workgroup a row, or 16 threads a head of 128.

use super::{Launch, Operand, View, folded, sums, switch, word};
use crate::kernels::{Const, RMS_NORM, RMS_NORM_QUADS, ROPE, ROPE_HEADS, Variant};
use engine::program::Op;

pub fn launches(view: &View) -> Vec<Launch> {
    vec![match *view.op {
        Op::RmsNorm { eps } => rms_norm(view, eps, false),
        Op::RmsNormModulate { eps } => rms_norm(view, eps, true),
        Op::NormRope { eps } => rope(view, Some(eps)),
        _ => rope(view, None),
    }]
}

/// Threads of the workgroups that rotate heads.
const HEADS_THREADS: u32 = 128;

/// Whether operands begin with whole vectors.
fn in_quads(view: &View) -> bool {
    let mut args = view.ins.iter().chain([&view.out]);
    args.all(|arg| arg.offset.is_multiple_of(4))
}

/// Threads that hold a row of `c` in 16 elements each.
fn row_threads(c: usize, most: u32) -> Option<u32> {
    let enough = [64, 128, 256].into_iter().find(|n| c <= 16 * *n as usize);
    enough.filter(|n| c.is_multiple_of(4) && *n <= most)
}

fn rms_norm(view: &View, eps: f32, modulate: bool) -> Launch {
    let c = view.out.width();
    let rows = view.out.len() / c;
    let (scale, shift) = if modulate { (2, 3) } else { (1, 1) };
    let t = if modulate { view.out.shape[1] } else { 1 };
    let threads = row_threads(c, view.room.threads).filter(|_| in_quads(view));
    Launch {
        variant: rms_norm_variant(threads, modulate, view.room.subgroups),
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
    let heads = d == 128 && in_quads(view);
    let per_group = if heads {
        HEADS_THREADS as usize / 16
    } else {
        1
    };
    Launch {
        variant: rope_variant(heads, eps.is_some(), view.room.subgroups),
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
        groups: folded((b * t * h).div_ceil(per_group)),
    }
}

fn rms_norm_variant(threads: Option<u32>, modulate: bool, subgroups: bool) -> Variant {
    let variant = match threads {
        None => Variant::new(&RMS_NORM),
        Some(n) => Variant::new(&RMS_NORM_QUADS)
            .with("THREADS", Const::U32(n))
            .including(sums(subgroups)),
    };
    switch(variant, "MODULATE", modulate)
}

fn rope_variant(heads: bool, norm: bool, subgroups: bool) -> Variant {
    let variant = match heads {
        false => Variant::new(&ROPE),
        true => Variant::new(&ROPE_HEADS)
            .with("THREADS", Const::U32(HEADS_THREADS))
            .including(sums(subgroups)),
    };
    switch(variant, "NORM", norm)
}

pub fn variants() -> Vec<Variant> {
    let mut variants = Vec::new();
    for on in [false, true] {
        variants.push(rms_norm_variant(None, on, false));
        variants.push(rope_variant(false, on, false));
        for subgroups in [false, true] {
            variants.push(rms_norm_variant(Some(128), on, subgroups));
            variants.push(rope_variant(true, on, subgroups));
        }
    }
    variants
}
