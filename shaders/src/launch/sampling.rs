//! Guidance and the wavelet correction.

use super::{Launch, Operand, View, folded, switch, word};
use crate::kernels::{ADG, ADG_RENORM, APG, CLAMP_NORM, Const, DCW, Variant};
use engine::program::{Dcw, DcwMode, Op, Scalar};

/// Largest angle of the angle-based guidance: the reference's 3.14 / 6, not a sixth of pi.
const WIDEST: f32 = 314.0 / 600.0;

pub fn launches(view: &View) -> Vec<Launch> {
    match view.op {
        Op::Apg {
            scale,
            momentum,
            limit,
            eta,
        } => vec![apg(view, *scale, [*momentum, *limit, *eta])],
        Op::Adg {
            scale,
            t,
            clip,
            renorm,
        } => adg(view, *scale, *t, *clip, *renorm),
        Op::Dcw { dcw, t } => self::dcw(view, dcw, *t),
        Op::ClampNorm { limit } => vec![clamp_norm(view, *limit)],
        _ => Vec::new(),
    }
}

/// Extents `(B, T, C)` of the first input.
fn extents(view: &View) -> [usize; 3] {
    let shape = view.ins[0].shape;
    [shape[0], shape[1], shape[2]]
}

fn apg(view: &View, scale: Scalar, [momentum, limit, eta]: [f32; 3]) -> Launch {
    let [b, t, c] = extents(view);
    Launch {
        variant: apg_variant(momentum != 0.0, limit > 0.0),
        operands: vec![
            Operand::In(0),
            Operand::In(1),
            Operand::In(2),
            Operand::Out,
            Operand::Scalars,
        ],
        words: vec![
            view.ins[0].offset,
            view.ins[1].offset,
            view.ins[2].offset,
            view.out.offset,
            word(b),
            word(t),
            word(c),
            word(scale.0),
            momentum.to_bits(),
            limit.to_bits(),
            eta.to_bits(),
        ],
        groups: folded(b * c),
    }
}

fn apg_variant(average: bool, limit: bool) -> Variant {
    switch(
        switch(Variant::new(&APG), "AVERAGE", average),
        "LIMIT",
        limit,
    )
}

fn adg(view: &View, scale: Scalar, time: Scalar, clip: bool, renorm: bool) -> Vec<Launch> {
    let [b, t, c] = extents(view);
    let mut launches = vec![Launch {
        variant: adg_variant(clip, renorm),
        operands: vec![
            Operand::In(0),
            Operand::In(1),
            Operand::In(2),
            Operand::Out,
            Operand::Scalars,
        ],
        words: vec![
            view.ins[0].offset,
            view.ins[1].offset,
            view.ins[2].offset,
            view.out.offset,
            word(b * t),
            word(c),
            word(scale.0),
            word(time.0),
        ],
        groups: folded(b * t),
    }];
    if renorm {
        launches.push(Launch {
            variant: Variant::new(&ADG_RENORM),
            operands: vec![
                Operand::In(0),
                Operand::In(1),
                Operand::Out,
                Operand::Scalars,
            ],
            words: vec![
                view.ins[0].offset,
                view.ins[1].offset,
                view.out.offset,
                word(b),
                word(t),
                word(c),
                word(time.0),
            ],
            groups: folded(b * c),
        });
    }
    launches
}

fn adg_variant(clip: bool, renorm: bool) -> Variant {
    let widest = if renorm { 2.0 * WIDEST } else { WIDEST };
    let variant = switch(Variant::new(&ADG), "CLIP", clip);
    switch(variant, "RENORM", renorm).with("WIDEST", Const::F32(widest))
}

fn clamp_norm(view: &View, limit: f32) -> Launch {
    let items = view.out.shape[0];
    Launch {
        variant: Variant::new(&CLAMP_NORM),
        operands: vec![Operand::In(0), Operand::In(1), Operand::Out],
        words: vec![
            view.ins[0].offset,
            view.ins[1].offset,
            view.out.offset,
            word(view.out.len() / items),
            limit.to_bits(),
        ],
        groups: [word(items), 1, 1],
    }
}

/// Coefficients per band of a signal of `t` samples, padded to an even number.
fn coefficients(t: usize, taps: usize) -> usize {
    (t.next_multiple_of(2) + taps - 1) / 2
}

/// Elements of both bands of a value `(B, T, C)`.
pub fn band_elements(dcw: &Dcw, shape: &[usize]) -> usize {
    match dcw.mode {
        DcwMode::Pixel => 0,
        _ => shape[0] * coefficients(shape[1], dcw.filter.len()) * 2 * shape[2],
    }
}

fn dcw(view: &View, dcw: &Dcw, time: Scalar) -> Vec<Launch> {
    let [b, t, c] = extents(view);
    let n = coefficients(t, dcw.filter.len());
    let pixel = dcw.mode == DcwMode::Pixel;
    let pass = |pass: u32, total: usize| Launch {
        variant: dcw_variant(dcw, pass),
        operands: vec![
            Operand::In(0),
            Operand::In(1),
            if pixel {
                Operand::In(1)
            } else {
                Operand::Scratch
            },
            Operand::Out,
            Operand::Scalars,
        ],
        words: vec![
            view.ins[0].offset,
            view.ins[1].offset,
            0,
            view.out.offset,
            word(total),
            word(t),
            word(c),
            word(n),
            word(time.0),
            dcw.low.to_bits(),
            dcw.high.to_bits(),
        ],
        groups: folded(total.div_ceil(64)),
    };
    let mut launches = Vec::new();
    if !pixel {
        launches.push(pass(0, b * n * c));
    }
    launches.push(pass(1, b * t * c));
    launches
}

fn dcw_variant(dcw: &Dcw, pass: u32) -> Variant {
    let mode = match dcw.mode {
        DcwMode::Low => 0,
        DcwMode::High => 1,
        DcwMode::Double => 2,
        DcwMode::Pixel => 3,
    };
    Variant::new(&DCW)
        .with("MODE", Const::U32(mode))
        .with("PASS", Const::U32(pass))
        .with("TAPS", Const::U32(word(dcw.filter.len())))
        .with_f32s("FILTER", &dcw.filter)
}

pub fn variants() -> Vec<Variant> {
    let haar = Dcw {
        mode: DcwMode::Double,
        low: 0.05,
        high: 0.02,
        filter: vec![std::f32::consts::FRAC_1_SQRT_2; 2],
    };
    vec![
        apg_variant(true, true),
        apg_variant(false, false),
        adg_variant(true, false),
        adg_variant(false, true),
        Variant::new(&ADG_RENORM),
        Variant::new(&CLAMP_NORM),
        dcw_variant(&haar, 0),
        dcw_variant(&haar, 1),
    ]
}
