//! The diffusion transformer: latents, time and condition to velocity.
//!
//! Three programs, by how often their results change: [`time_table`] once per schedule,
//! [`cross_kv`] once per condition, [`velocity`] at every evaluation.

use super::condition::layer_mask;
use super::config::DitConfig;
use super::layer::{
    LayerDims, Rope, SelfAttentionTaps, heads, linear, linear_bias, mlp, norm, self_attention,
};
use crate::error::Result;
use crate::program::{Builder, Mask, Math, Op, Program, Scalar, Val, WeightDecl, WeightForm};

/// Width of the sinusoid of a time.
const TIME_SINUSOID: usize = 256;

fn dims(c: &DitConfig) -> LayerDims {
    LayerDims {
        hidden: c.hidden_size,
        intermediate: c.intermediate_size,
        heads: c.num_attention_heads,
        kv_heads: c.num_key_value_heads,
        head_dim: c.head_dim,
        eps: c.rms_norm_eps,
    }
}

/// Inputs `t` `(N)` and `dt` `(N)` = t - r (zero in generation). Outputs `temb` `(N, H)` and
/// `proj` `(N, 6 H)`: what the layers add to their modulation tables.
pub fn time_table(c: &DitConfig, math: Math, n: usize) -> Result<Program> {
    let mut b = Builder::new("time_table", math);
    let t = b.input("t", &[n]);
    let dt = b.input("dt", &[n]);
    let (temb_t, proj_t) = time_embed(&mut b, c, "decoder.time_embed", t);
    let (temb_r, proj_r) = time_embed(&mut b, c, "decoder.time_embed_r", dt);
    b.tap("temb_t", temb_t);
    b.tap("temb_r", temb_r);
    let temb = b.add(temb_t, temb_r);
    let proj = b.add(proj_t, proj_r);
    b.output("temb", temb);
    b.output("proj", proj);
    b.finish()
}

fn time_embed(b: &mut Builder, c: &DitConfig, name: &str, t: Val) -> (Val, Val) {
    let h = c.hidden_size;
    let x = b.op(Op::TimeSinusoid { dim: TIME_SINUSOID }, &[t]);
    let x = linear_bias(b, &format!("{name}.linear_1"), x, h);
    let x = b.silu(x);
    let temb = linear_bias(b, &format!("{name}.linear_2"), x, h);
    let x = b.silu(temb);
    (temb, linear_bias(b, &format!("{name}.time_proj"), x, 6 * h))
}

/// Names of the cross-attention keys and values of layer `i`: outputs of [`cross_kv`], inputs of
/// [`velocity`], `(B, L, G, D)` each.
pub fn kv_names(i: usize) -> (String, String) {
    (format!("cross_k.{i}"), format!("cross_v.{i}"))
}

/// Input `condition` `(B, L, He)`, packed. Outputs the keys and values of every layer's
/// cross-attention (see [`kv_names`]).
pub fn cross_kv(c: &DitConfig, math: Math, batch: usize, rows: usize) -> Result<Program> {
    let mut b = Builder::new("cross_kv", math);
    let cond = b.input("condition", &[batch, rows, c.encoder_hidden_size]);
    let e = linear_bias(&mut b, "decoder.condition_embedder", cond, c.hidden_size);
    b.tap("cond_embed_out", e);
    let width = c.num_key_value_heads * c.head_dim;
    for i in 0..c.num_hidden_layers {
        let name = format!("decoder.layers.{i}.cross_attn");
        let k = cross_keys(&mut b, c, i, e);
        let v = linear(&mut b, &format!("{name}.v_proj"), e, width);
        let v = b.reshape(v, &[batch, rows, c.num_key_value_heads, c.head_dim]);
        let (k_name, v_name) = kv_names(i);
        b.output(k_name, k);
        b.output(v_name, v);
    }
    b.finish()
}

/// Keys `(B, L, G, D)` of layer `i` for the embedded condition `e` `(B, L, H)`.
fn cross_keys(b: &mut Builder, c: &DitConfig, i: usize, e: Val) -> Val {
    let name = format!("decoder.layers.{i}.cross_attn");
    let k = linear(
        b,
        &format!("{name}.k_proj"),
        e,
        c.num_key_value_heads * c.head_dim,
    );
    heads(b, &format!("{name}.k_norm"), k, &dims(c), None)
}

/// Names of the outputs of [`cross_weights`] for a layer.
pub fn weights_name(layer: usize) -> String {
    format!("weights.{layer}")
}

/// What the tokens of a song look at in its condition: inputs `x` `(1, T, 64)`, `context`
/// `(1, T, 128)`, `t` and `dt` `(1)` as for [`time_table`], `condition` `(1, L, He)` as for
/// [`cross_kv`]. For every layer of `maps`, ascending, an output ([`weights_name`]) with the
/// weights of its cross-attention heads, `(1, heads, S, L)`. Nothing behind the last of these
/// layers is computed.
pub fn cross_weights(
    c: &DitConfig,
    math: Math,
    frames: usize,
    rows: usize,
    maps: &[(usize, Vec<usize>)],
) -> Result<Program> {
    let mut b = Builder::new("cross_weights", math);
    let shape = VelocityShape {
        batch: 1,
        frames,
        condition_rows: rows,
        guided: false,
        time: TimeFrom::Items,
    };
    let mut x = patchify(&mut b, c, &shape);
    let t = b.input("t", &[1]);
    let dt = b.input("dt", &[1]);
    let (_, proj_t) = time_embed(&mut b, c, "decoder.time_embed", t);
    let (_, proj_r) = time_embed(&mut b, c, "decoder.time_embed_r", dt);
    let proj = b.add(proj_t, proj_r);
    let cond = b.input("condition", &[1, rows, c.encoder_hidden_size]);
    let e = linear_bias(&mut b, "decoder.condition_embedder", cond, c.hidden_size);
    let rope = Rope::new(
        &mut b,
        frames.div_ceil(c.patch_size),
        c.head_dim,
        c.rope_theta,
    );
    let last = maps.last().map_or(0, |(layer, _)| *layer);
    for i in 0..=last {
        let m = modulation(&mut b, c, i, proj);
        x = after_self(&mut b, c, i, x, &m, rope);
        let q = cross_queries(&mut b, c, i, x);
        let k = cross_keys(&mut b, c, i, e);
        if let Some((_, heads)) = maps.iter().find(|(layer, _)| *layer == i) {
            let (mask, heads) = (Mask::Full, heads.clone());
            let weights = b.op(Op::AttentionWeights { mask, heads }, &[q, k]);
            b.output(weights_name(i), weights);
        }
        if i < last {
            let width = c.num_key_value_heads * c.head_dim;
            let v = format!("decoder.layers.{i}.cross_attn.v_proj");
            let v = linear(&mut b, &v, e, width);
            let v = b.reshape(v, &[1, rows, c.num_key_value_heads, c.head_dim]);
            x = after_cross(&mut b, c, i, x, &[q, k, v]);
            x = after_mlp(&mut b, c, i, x, &m);
        }
    }
    b.finish()
}

/// Where a [`velocity`] program takes its time from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TimeFrom {
    /// Row of a table of this many rows, chosen by scalar 0: one time for the whole batch.
    Table(usize),
    /// One row per item.
    Items,
}

/// Shape of a [`velocity`] program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct VelocityShape {
    /// Songs `B`.
    pub batch: usize,
    /// Latent frames `T`, odd or even.
    pub frames: usize,
    /// Rows `L` of the packed condition.
    pub condition_rows: usize,
    /// Whether the unconditional branch runs beside the conditional one. Keys, values and
    /// lengths then have `2B` items, the unconditional ones last.
    pub guided: bool,
    /// Where the time comes from.
    pub time: TimeFrom,
}

impl VelocityShape {
    /// Items that pass through the layers.
    pub fn items(&self) -> usize {
        if self.guided {
            2 * self.batch
        } else {
            self.batch
        }
    }
}

/// The scalar that chooses the row of the time table.
pub const TIME_ROW: Scalar = Scalar(0);

/// Inputs `x` `(B, T, 64)`, `context` `(B, T, 128)` = source latents then mask, `temb` `(R, H)`
/// and `proj` `(R, 6H)` of [`time_table`], `lengths` i32 (valid condition rows per item) and the
/// tensors of [`cross_kv`]. Output `velocity` `(B, T, 64)`; guided programs also
/// `velocity_uncond`.
pub fn velocity(c: &DitConfig, math: Math, shape: VelocityShape) -> Result<Program> {
    let mut b = Builder::new("velocity", math);
    let (batch, frames) = (shape.batch, shape.frames);
    let items = shape.items();
    let tokens = frames.div_ceil(c.patch_size);

    let x = patchify(&mut b, c, &shape);
    b.tap("proj_in_out", x);
    let mut x = if shape.guided { twice(&mut b, x) } else { x };
    let (temb, proj) = time_rows(&mut b, c, &shape, items);
    let lengths = b.input_i32("lengths", &[items]);
    let rope = Rope::new(&mut b, tokens, c.head_dim, c.rope_theta);
    for i in 0..c.num_hidden_layers {
        let kv_shape = [
            items,
            shape.condition_rows,
            c.num_key_value_heads,
            c.head_dim,
        ];
        let (k_name, v_name) = kv_names(i);
        let cross = Cross {
            k: b.input(k_name, &kv_shape),
            v: b.input(v_name, &kv_shape),
            lengths,
        };
        x = layer(&mut b, c, i, x, proj, rope, cross);
    }
    let y = head(&mut b, c, x, temb);
    let y = b.reshape(
        y,
        &[items, tokens * c.patch_size, c.audio_acoustic_hidden_dim],
    );
    let y = if tokens * c.patch_size == frames {
        y
    } else {
        b.op(
            Op::SliceRows {
                start: 0,
                len: frames,
            },
            &[y],
        )
    };
    if shape.guided {
        let width = c.audio_acoustic_hidden_dim;
        let flat = b.reshape(y, &[1, items * frames, width]);
        for (name, start) in [("velocity", 0), ("velocity_uncond", batch * frames)] {
            let half = b.op(
                Op::SliceRows {
                    start,
                    len: batch * frames,
                },
                &[flat],
            );
            let half = b.reshape(half, &[batch, frames, width]);
            b.output(name, half);
        }
    } else {
        b.output("velocity", y);
    }
    b.finish()
}

/// Frames to tokens: `[source | mask | x]`, padded with a zero frame to whole patches, and a
/// linear over each patch.
fn patchify(b: &mut Builder, c: &DitConfig, shape: &VelocityShape) -> Val {
    let (batch, frames, p) = (shape.batch, shape.frames, c.patch_size);
    let latent = c.audio_acoustic_hidden_dim;
    let x = b.input("x", &[batch, frames, latent]);
    let context = b.input("context", &[batch, frames, c.in_channels - latent]);
    let x = b.op(Op::ConcatChannels, &[context, x]);
    let tokens = frames.div_ceil(p);
    let x = match tokens * p - frames {
        0 => x,
        rows => b.op(Op::PadRows { rows }, &[x]),
    };
    let x = b.reshape(x, &[batch, tokens, p * c.in_channels]);
    let w = b.weight_decl(WeightDecl {
        name: "decoder.proj_in.1.weight".into(),
        stored: vec![c.hidden_size, c.in_channels, p],
        shape: vec![c.hidden_size, p * c.in_channels],
        form: WeightForm::Permuted([0, 2, 1]),
        widen: false,
    });
    let bias = b.vector("decoder.proj_in.1.bias", &[c.hidden_size], &[c.hidden_size]);
    b.linear_bias(x, w, bias)
}

/// The items of `x (B, S, C)` twice: `(2B, S, C)`.
fn twice(b: &mut Builder, x: Val) -> Val {
    let [batch, s, c] = [b.shape(x)[0], b.shape(x)[1], b.shape(x)[2]];
    let flat = b.reshape(x, &[1, batch * s, c]);
    let both = b.op(Op::ConcatRows, &[flat, flat]);
    b.reshape(both, &[2 * batch, s, c])
}

fn time_rows(b: &mut Builder, c: &DitConfig, shape: &VelocityShape, items: usize) -> (Val, Val) {
    let h = c.hidden_size;
    match shape.time {
        TimeFrom::Items => (
            b.input("temb", &[items, h]),
            b.input("proj", &[items, 6 * h]),
        ),
        TimeFrom::Table(rows) => {
            let select = Op::SelectRow {
                index: TIME_ROW,
                rows: items,
            };
            let temb = b.input("temb", &[rows, h]);
            let proj = b.input("proj", &[rows, 6 * h]);
            (b.op(select.clone(), &[temb]), b.op(select, &[proj]))
        }
    }
}

/// Keys and values of the condition for one layer.
#[derive(Clone, Copy)]
struct Cross {
    k: Val,
    v: Val,
    lengths: Val,
}

/// Row `j` of `(B, rows, C)` as `(B, C)`.
fn row(b: &mut Builder, table: Val, j: usize) -> Val {
    let (items, c) = (b.shape(table)[0], b.shape(table)[2]);
    let r = b.op(Op::SliceRows { start: j, len: 1 }, &[table]);
    b.reshape(r, &[items, c])
}

/// Layer `i`. x and out `(B, S, H)`; `proj (B, 6H)` as for [`modulation`].
fn layer(
    b: &mut Builder,
    c: &DitConfig,
    i: usize,
    x: Val,
    proj: Val,
    rope: Rope,
    cross: Cross,
) -> Val {
    let m = modulation(b, c, i, proj);
    let x = after_self(b, c, i, x, &m, rope);
    let q = cross_queries(b, c, i, x);
    let x = after_cross(b, c, i, x, &[q, cross.k, cross.v, cross.lengths]);
    after_mlp(b, c, i, x, &m)
}

/// Shift, scale and gate of a layer's attention, then those of its MLP, `(B, H)` each.
type Modulation = [Val; 6];

/// `proj (B, 6H)` is added to the layer's own table.
fn modulation(b: &mut Builder, c: &DitConfig, i: usize, proj: Val) -> Modulation {
    let (h, items) = (c.hidden_size, b.shape(proj)[0]);
    let name = format!("decoder.layers.{i}.scale_shift_table");
    let table = b.vector(name, &[1, 6, h], &[6 * h]);
    let m = b.op(Op::AddVector, &[proj, table]);
    let m = b.reshape(m, &[items, 6, h]);
    std::array::from_fn(|j| row(b, m, j))
}

/// A layer's self-attention.
fn after_self(
    b: &mut Builder,
    c: &DitConfig,
    i: usize,
    x: Val,
    [shift, scale, gate, ..]: &Modulation,
    rope: Rope,
) -> Val {
    let (name, tap) = (format!("decoder.layers.{i}"), format!("block{i}"));
    let (h, eps) = (c.hidden_size, c.rms_norm_eps);
    let w = b.vector(format!("{name}.self_attn_norm.weight"), &[h], &[h]);
    let n = b.op(Op::RmsNormModulate { eps }, &[x, w, *scale, *shift]);
    b.tap(format!("{tap}.self_attn_in"), n);
    let taps = SelfAttentionTaps {
        value: format!("{tap}.self_v"),
        context: format!("{tap}.self_ctx"),
    };
    let attn = format!("{name}.self_attn");
    let a = self_attention(b, &attn, &taps, n, &dims(c), layer_mask(c, i), rope);
    b.tap(format!("{tap}.self_attn_out"), a);
    let x = b.op(Op::GatedAdd, &[x, a, *gate]);
    b.tap(format!("{tap}.after_self"), x)
}

/// Queries `(B, S, heads, D)` of a layer's attention to the condition: per-head norm, no
/// positions.
fn cross_queries(b: &mut Builder, c: &DitConfig, i: usize, x: Val) -> Val {
    let name = format!("decoder.layers.{i}");
    let n = norm(b, &format!("{name}.cross_attn_norm"), x, c.rms_norm_eps);
    b.tap(format!("block{i}.cross_attn_in"), n);
    let width = c.num_attention_heads * c.head_dim;
    let q = linear(b, &format!("{name}.cross_attn.q_proj"), n, width);
    heads(b, &format!("{name}.cross_attn.q_norm"), q, &dims(c), None)
}

/// A layer's attention to the condition, of queries, keys, values and perhaps lengths.
fn after_cross(b: &mut Builder, c: &DitConfig, i: usize, x: Val, of: &[Val]) -> Val {
    let (items, s) = (b.shape(x)[0], b.shape(x)[1]);
    let ctx = b.op(Op::Attention { mask: Mask::Full }, of);
    let ctx = b.reshape(ctx, &[items, s, c.num_attention_heads * c.head_dim]);
    let name = format!("decoder.layers.{i}.cross_attn.o_proj");
    let a = linear(b, &name, ctx, c.hidden_size);
    b.tap(format!("block{i}.cross_attn_out"), a);
    let x = b.add(x, a);
    b.tap(format!("block{i}.after_cross"), x)
}

/// A layer's MLP.
fn after_mlp(
    b: &mut Builder,
    c: &DitConfig,
    i: usize,
    x: Val,
    [_, _, _, shift, scale, gate]: &Modulation,
) -> Val {
    let (name, tap) = (format!("decoder.layers.{i}"), format!("block{i}"));
    let (h, eps) = (c.hidden_size, c.rms_norm_eps);
    let w = b.vector(format!("{name}.mlp_norm.weight"), &[h], &[h]);
    let n = b.op(Op::RmsNormModulate { eps }, &[x, w, *scale, *shift]);
    b.tap(format!("{tap}.mlp_in"), n);
    let y = mlp(b, &format!("{name}.mlp"), n, &dims(c));
    b.tap(format!("{tap}.mlp_out"), y);
    let x = b.op(Op::GatedAdd, &[x, y, *gate]);
    b.tap(format!("{tap}.out"), x)
}

/// Modulated norm and the transposed patch convolution, as a linear: `(B, S, H)` to
/// `(B, S, patch * 64)`.
fn head(b: &mut Builder, c: &DitConfig, x: Val, temb: Val) -> Val {
    let (h, p, latent) = (c.hidden_size, c.patch_size, c.audio_acoustic_hidden_dim);
    let table = b.vector("decoder.scale_shift_table", &[1, 2, h], &[1, 2, h]);
    let [shift, scale] = std::array::from_fn(|j| {
        let own = b.op(Op::SliceRows { start: j, len: 1 }, &[table]);
        let own = b.reshape(own, &[h]);
        b.op(Op::AddVector, &[temb, own])
    });
    let w = b.vector("decoder.norm_out.weight", &[h], &[h]);
    let n = b.op(
        Op::RmsNormModulate {
            eps: c.rms_norm_eps,
        },
        &[x, w, scale, shift],
    );
    b.tap("head_in", n);
    let w = b.weight_decl(WeightDecl {
        name: "decoder.proj_out.1.weight".into(),
        stored: vec![h, latent, p],
        shape: vec![p * latent, h],
        form: WeightForm::Permuted([2, 1, 0]),
        widen: false,
    });
    let bias = b.weight_decl(WeightDecl {
        name: "decoder.proj_out.1.bias".into(),
        stored: vec![latent],
        shape: vec![p * latent],
        form: WeightForm::Tiled(p),
        widen: true,
    });
    b.linear_bias(n, w, bias)
}
