//! From operations to kernels: operand checks that need contents, scratch sizes, one call each.

use super::attention::{self, AttentionDims, Stored};
use super::conv::{self, ConvDims, Operands, Snake};
use super::dcw::{self, DcwDims};
use super::exec::Args;
use super::gemm::Product;
use super::guidance::{self, Adg, Apg};
use super::level::Level;
use super::linear;
use super::pool::Pool;
use super::rope::{self, RopeDims};
use super::tile::Kernel;
use super::{elementwise, embed, fsq, moving, norm, swiglu};
use crate::error::{Error, Result};
use crate::program::op::MAX_INS;
use crate::program::{DType, Op, Program, Step, ValKind};
use half::bf16;

/// Bytes of scratch space that step `i` wants on a pool of `threads` threads.
pub fn scratch_bytes(program: &Program, i: usize, level: Level, threads: usize) -> usize {
    let kernel = Kernel::new(level, program.math);
    let step = &program.steps[i];
    let mut ins: [&[usize]; MAX_INS] = [&[]; MAX_INS];
    for (shape, v) in ins.iter_mut().zip(&step.ins) {
        *shape = &program.vals[v.index()].shape;
    }
    let out = &program.vals[step.out.index()].shape;
    match &step.op {
        Op::Linear => linear::linear_scratch_bytes(kernel, product(ins[0], ins[1]), threads),
        Op::SwiGlu => swiglu::swiglu_scratch_bytes(kernel, product(ins[0], ins[1]), threads),
        Op::Attention { .. } => {
            attention::attention_scratch_bytes(kernel, &attention_dims(ins[0], ins[1]), threads)
        }
        Op::AttentionWeights { .. } => {
            attention::weights_scratch_bytes(&attention_dims(ins[0], ins[1]), threads)
        }
        Op::Conv1d { .. }
        | Op::ConvTranspose1d { .. }
        | Op::SnakeConv1d { .. }
        | Op::SnakeConvTranspose1d { .. } => {
            let packed = packed_input(program, step).is_some();
            conv::conv_scratch_bytes(kernel, &conv_dims(&step.op, &ins, out), threads, packed)
        }
        Op::Apg { .. } => guidance::apg_scratch_bytes(ins[0][0], ins[0][2]),
        Op::Adg { .. } => guidance::adg_scratch_bytes(ins[0][0], ins[0][2]),
        Op::Dcw { dcw, .. } => dcw::scratch_bytes(dcw, ins[0][0], ins[0][1], ins[0][2]),
        _ => 0,
    }
}

/// Which input of a step is a weight that is packed when the program is prepared: that of a
/// convolution, unless it may change from run to run.
pub fn packed_input(program: &Program, step: &Step) -> Option<usize> {
    let weights = match step.op {
        Op::Conv1d { .. }
        | Op::ConvTranspose1d { .. }
        | Op::SnakeConv1d { .. }
        | Op::SnakeConvTranspose1d { .. } => conv_weights(&step.op),
        _ => return None,
    };
    let root = program.root(step.ins[weights]);
    match program.vals[root.index()].kind {
        ValKind::Weight(_) | ValKind::Const(_) => Some(weights),
        _ => None,
    }
}

/// Extents of a step that is a convolution.
pub fn step_conv_dims(program: &Program, step: &Step) -> ConvDims {
    let mut ins: [&[usize]; MAX_INS] = [&[]; MAX_INS];
    for (shape, v) in ins.iter_mut().zip(&step.ins) {
        *shape = &program.vals[v.index()].shape;
    }
    conv_dims(&step.op, &ins, &program.vals[step.out.index()].shape)
}

/// Runs one step.
pub fn step(pool: &Pool, level: Level, op: &Op, scalars: &[f32], mut a: Args) -> Result<()> {
    match op {
        Op::Reshape
        | Op::ConcatChannels
        | Op::ConcatRows
        | Op::SliceRows { .. }
        | Op::PadRows { .. }
        | Op::SelectRow { .. }
        | Op::SelectSlab { .. }
        | Op::PrependRow
        | Op::RepeatAdd => run_moving(pool, op, scalars, a),
        Op::Add
        | Op::Mul
        | Op::Silu
        | Op::AddVector
        | Op::MulVector
        | Op::MulRows
        | Op::Modulate
        | Op::Combine { .. }
        | Op::SelectByMask
        | Op::Snake
        | Op::GatedAdd
        | Op::TimeSinusoid { .. } => run_elementwise(pool, level, op, scalars, a),
        Op::RmsNorm { .. }
        | Op::RmsNormModulate { .. }
        | Op::Rope
        | Op::NormRope { .. }
        | Op::ClampNorm { .. } => run_norms(pool, level, op, a),
        Op::Linear | Op::SwiGlu => run_products(pool, level, op, a),
        Op::Conv1d { .. }
        | Op::ConvTranspose1d { .. }
        | Op::SnakeConv1d { .. }
        | Op::SnakeConvTranspose1d { .. } => run_conv(pool, level, op, a),
        Op::Attention { .. } | Op::AttentionWeights { .. } => {
            return run_attention(pool, level, op, a);
        }
        Op::Embed => {
            let c = a.shape[a.shape.len() - 1];
            let rows = a.ins[1].shape[0];
            return embed::embed(pool, a.i32(0), a.weight(1), rows, c, a.out_f32());
        }
        Op::WriteRows => return run_write_rows(a),
        Op::FsqEncode { levels } => fsq::encode(pool, a.f32(0), levels, a.out_i32()),
        Op::FsqDecode { levels } => {
            check_codes(a.i32(0), levels)?;
            fsq::decode(pool, a.i32(0), levels, a.out_f32());
        }
        Op::Apg { .. } | Op::Adg { .. } | Op::Dcw { .. } => run_sampling(pool, op, scalars, a),
    }
    Ok(())
}

fn run_moving(pool: &Pool, op: &Op, scalars: &[f32], mut a: Args) {
    let shape = a.ins[0].shape;
    // Elements of one item of axis 0, of x and of the output.
    let item = |s: &[usize]| s[1..].iter().product::<usize>();
    let (x_item, out_item) = (item(shape), item(a.shape));
    match *op {
        Op::ConcatChannels | Op::ConcatRows => {
            let empty: (&[f32], usize) = (&[], 0);
            let mut parts = [empty; MAX_INS];
            for (i, part) in parts.iter_mut().enumerate().take(a.count) {
                let s = a.ins[i].shape;
                let n = if *op == Op::ConcatRows {
                    item(s)
                } else {
                    s[s.len() - 1]
                };
                *part = (a.f32(i), n);
            }
            moving::concat(pool, &parts[..a.count], a.out_f32());
        }
        Op::SliceRows { start, .. } => {
            moving::slice(
                pool,
                a.f32(0),
                x_item,
                start * shape[2],
                out_item,
                a.out_f32(),
            );
        }
        Op::PadRows { .. } => moving::pad(pool, a.f32(0), x_item, out_item, a.out_f32()),
        Op::SelectRow { index, .. } => {
            moving::select_row(pool, a.f32(0), shape[1], scalars[index.0], a.out_f32());
        }
        Op::SelectSlab { index } => {
            moving::select_slab(pool, a.f32(0), scalars[index.0], a.out_f32());
        }
        Op::PrependRow => moving::prepend_row(pool, a.f32(0), a.f32(1), x_item, a.out_f32()),
        Op::RepeatAdd => moving::repeat_add(pool, a.f32(0), a.f32(1), shape[1], a.out_f32()),
        _ => moving::copy(pool, a.f32(0), a.out_f32()),
    }
}

fn run_write_rows(mut a: Args) -> Result<()> {
    let (cache, rows) = (a.shape, a.ins[1].shape);
    let (s, t) = (cache[1], rows[1]);
    let at = a.i32(2);
    if let Some(at) = at
        .iter()
        .find(|at| usize::try_from(**at).map_or(true, |at| at > s - t))
    {
        return Err(Error::Bug(format!(
            "{t} rows cannot be written from row {at} on of a state with {s} rows"
        )));
    }
    let kept = a.ins[0].dtype;
    match a.stored(1) {
        Stored::F32(rows) if kept == DType::BF16 => {
            let cache = bytemuck::cast_slice_mut(a.out);
            moving::write_rows(rows, at, s, t, cache, |x| bf16::from_f32(*x).to_bits());
        }
        Stored::F32(rows) => moving::write_rows(rows, at, s, t, a.out_f32(), |x| *x),
        Stored::Bf16(rows) => {
            let cache = bytemuck::cast_slice_mut(a.out);
            moving::write_rows(rows, at, s, t, cache, |x| *x);
        }
    }
    Ok(())
}

fn run_elementwise(pool: &Pool, level: Level, op: &Op, scalars: &[f32], mut a: Args) {
    let c = a.shape[a.shape.len() - 1];
    match *op {
        Op::Add => elementwise::add(pool, a.first(), a.f32(1), a.out_f32()),
        Op::Mul => elementwise::mul(pool, a.first(), a.f32(1), a.out_f32()),
        Op::Silu => elementwise::silu(pool, level, a.first(), a.out_f32()),
        Op::AddVector => elementwise::add_vector(pool, a.first(), a.f32(1), a.out_f32()),
        Op::MulVector => elementwise::mul_vector(pool, a.first(), a.f32(1), a.out_f32()),
        Op::MulRows => elementwise::mul_rows(pool, a.first(), a.f32(1), c, a.out_f32()),
        Op::Modulate => {
            elementwise::modulate(pool, a.first(), a.f32(1), a.f32(2), c, a.out_f32());
        }
        Op::Combine { a: fx, b: fy } => {
            let (fx, fy) = (scalars[fx.0], scalars[fy.0]);
            elementwise::combine(pool, a.first(), a.f32(1), fx, fy, a.out_f32());
        }
        Op::SelectByMask => {
            elementwise::select_by_mask(pool, a.f32(0), a.f32(1), a.f32(2), a.out_f32());
        }
        Op::Snake => {
            elementwise::snake(pool, level, a.first(), a.f32(1), a.f32(2), a.out_f32());
        }
        Op::GatedAdd => {
            elementwise::gated_add(pool, a.first(), a.f32(1), a.f32(2), c, a.out_f32());
        }
        _ => elementwise::time_sinusoid(pool, a.f32(0), c, a.out_f32()),
    }
}

fn run_norms(pool: &Pool, level: Level, op: &Op, mut a: Args) {
    let s = a.shape;
    match *op {
        Op::RmsNorm { eps } => {
            norm::rms_norm(pool, level, a.first(), a.f32(1), eps, a.out_f32());
        }
        Op::RmsNormModulate { eps } => {
            let (x, w, scale, shift) = (a.f32(0), a.f32(1), a.f32(2), a.f32(3));
            norm::rms_norm_modulate(pool, level, x, w, eps, scale, shift, a.out_f32());
        }
        Op::Rope => {
            let dims = RopeDims {
                heads: s[2],
                d: s[3],
            };
            rope::rope(
                pool,
                level,
                a.first(),
                a.f32(1),
                a.f32(2),
                dims,
                a.out_f32(),
            );
        }
        Op::NormRope { eps } => {
            let dims = RopeDims {
                heads: s[2],
                d: s[3],
            };
            let (w, cos, sin) = (a.f32(1), a.f32(2), a.f32(3));
            rope::norm_rope(pool, level, a.first(), w, eps, cos, sin, dims, a.out_f32());
        }
        Op::ClampNorm { limit } => {
            guidance::clamp_norm(pool, a.first(), a.f32(1), s[1] * s[2], limit, a.out_f32());
        }
        _ => {}
    }
}

fn run_products(pool: &Pool, level: Level, op: &Op, a: Args) {
    let p = product(a.ins[0].shape, a.ins[1].shape);
    let kernel = Kernel::new(level, a.math);
    let (x, w) = (a.f32(0), a.weight(1));
    let third = (a.count > 2).then_some(2);
    if *op == Op::SwiGlu {
        let up = a.weight(2);
        let Args { out, scratch, .. } = a;
        let out = bytemuck::cast_slice_mut(out);
        swiglu::swiglu(pool, kernel, p, x, w, up, out, scratch);
    } else {
        let bias = third.map(|i| a.f32(i));
        let Args { out, scratch, .. } = a;
        let out = bytemuck::cast_slice_mut(out);
        linear::linear(pool, kernel, p, x, w, bias, out, scratch);
    }
}

fn run_conv(pool: &Pool, level: Level, op: &Op, a: Args) {
    let shapes = a.ins.map(|i| i.shape);
    let d = conv_dims(op, &shapes, a.shape);
    let w = conv_weights(op);
    let operands = Operands {
        x: a.f32(0),
        snake: (w == 3).then(|| Snake {
            alpha: a.f32(1),
            beta: a.f32(2),
        }),
        w: a.weight(w),
        packed: a.packed,
        bias: (a.count > w + 1).then(|| a.f32(w + 1)),
    };
    let Args {
        out, scratch, math, ..
    } = a;
    let out = bytemuck::cast_slice_mut(out);
    conv::conv(pool, Kernel::new(level, math), &d, operands, out, scratch);
}

fn run_attention(pool: &Pool, level: Level, op: &Op, a: Args) -> Result<()> {
    // Weights are asked for without values.
    let heads = match op {
        Op::AttentionWeights { heads, .. } => Some(heads),
        _ => None,
    };
    let (Op::Attention { mask } | Op::AttentionWeights { mask, .. }) = *op else {
        return Ok(());
    };
    let dims = attention_dims(a.ins[0].shape, a.ins[1].shape);
    let at = if heads.is_some() { 2 } else { 3 };
    let lengths = (a.count > at).then(|| a.i32(at));
    for l in lengths.unwrap_or_default() {
        if !usize::try_from(*l).is_ok_and(|l| (1..=dims.s).contains(&l)) {
            return Err(Error::Bug(format!(
                "attention over {} keys was given the length {l}; it must be 1..={}",
                dims.s, dims.s
            )));
        }
    }
    let (q, k) = (a.f32(0), a.stored(1));
    let v = if heads.is_some() { k } else { a.stored(2) };
    let Args {
        out, scratch, math, ..
    } = a;
    let out = bytemuck::cast_slice_mut(out);
    match heads {
        Some(heads) => {
            let what = (mask, &heads[..]);
            attention::attention_weights(
                pool, level, math, what, &dims, q, k, lengths, out, scratch,
            );
        }
        None => attention::attention(
            pool, level, math, mask, &dims, q, k, v, lengths, out, scratch,
        ),
    }
    Ok(())
}

fn run_sampling(pool: &Pool, op: &Op, scalars: &[f32], a: Args) {
    let s = a.ins[0].shape;
    let (b, ch) = (s[0], s[2]);
    let (x, y) = (a.f32(0), a.f32(1));
    let third = if a.count > 2 { a.f32(2) } else { &[] };
    let Args { out, scratch, .. } = a;
    let out: &mut [f32] = bytemuck::cast_slice_mut(out);
    match op {
        Op::Apg {
            scale,
            momentum,
            limit,
            eta,
        } => {
            let p = Apg {
                scale: scalars[scale.0],
                momentum: *momentum,
                limit: *limit,
                eta: *eta,
            };
            guidance::apg(pool, p, x, y, third, b, ch, out, scratch);
        }
        Op::Adg {
            scale,
            t,
            clip,
            renorm,
        } => {
            let (scale, t) = (scalars[scale.0], scalars[t.0]);
            let p = Adg {
                scale,
                t,
                clip: *clip,
                renorm: *renorm,
            };
            guidance::adg(pool, p, x, y, third, b, ch, out, scratch);
        }
        Op::Dcw { dcw, t } => {
            let dims = DcwDims { b, t: s[1], ch };
            dcw::correct(pool, dcw, scalars[t.0], dims, x, y, out, scratch);
        }
        _ => {}
    }
}

fn check_codes(codes: &[i32], levels: &[u32]) -> Result<()> {
    let entries: i64 = levels.iter().map(|l| i64::from(*l)).product();
    match codes
        .iter()
        .find(|c| !(0..entries).contains(&i64::from(**c)))
    {
        Some(code) => Err(Error::Request(format!(
            "audio code {code} is outside the code book of {entries} entries"
        ))),
        None => Ok(()),
    }
}

fn product(x: &[usize], w: &[usize]) -> Product {
    Product {
        m: x.iter().product::<usize>() / w[1],
        n: w[0],
        k: w[1],
    }
}

fn attention_dims(q: &[usize], k: &[usize]) -> AttentionDims {
    AttentionDims {
        b: q[0],
        t: q[1],
        s: k[1],
        heads: q[2],
        kv_heads: k[2],
        d: q[3],
    }
}

/// Which input of a convolution its weights are.
fn conv_weights(op: &Op) -> usize {
    match op {
        Op::SnakeConv1d { .. } | Op::SnakeConvTranspose1d { .. } => 3,
        _ => 1,
    }
}

fn conv_dims(op: &Op, ins: &[&[usize]; MAX_INS], out: &[usize]) -> ConvDims {
    let (transposed, stride, dilation, pad) = match *op {
        Op::Conv1d {
            dilation,
            stride,
            pad,
        } => (false, stride, dilation, pad),
        Op::SnakeConv1d { dilation, pad } => (false, 1, dilation, pad),
        Op::ConvTranspose1d { stride, pad } | Op::SnakeConvTranspose1d { stride, pad } => {
            (true, stride, 1, pad)
        }
        _ => (false, 1, 1, 0),
    };
    let w = ins[conv_weights(op)];
    let k = if transposed { w[0] } else { w[1] };
    let (b, t_in, cin) = (ins[0][0], ins[0][1], ins[0][2]);
    let (t_out, cout) = (out[1], out[2]);
    ConvDims {
        b,
        t_in,
        t_out,
        cin,
        cout,
        k,
        stride,
        dilation,
        pad,
        transposed,
    }
}
