//! The transformer layer that the text encoder, the lyric and timbre encoders, the attention
//! pooler, the detokenizer and the language model share: pre-norm, grouped-query attention with
//! per-head norms and rotary positions, SwiGLU. Only widths, masks and name prefixes differ.

use crate::program::{Builder, Mask, Op, Val};

/// Widths of a layer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LayerDims {
    /// Width `C` of the residual stream.
    pub hidden: usize,
    /// Width of the gated MLP.
    pub intermediate: usize,
    /// Query heads `H`.
    pub heads: usize,
    /// Key/value heads `G`.
    pub kv_heads: usize,
    /// Head size `D`.
    pub head_dim: usize,
    /// Epsilon of every norm.
    pub eps: f32,
}

/// Which keys and values the queries of a self-attention see.
#[derive(Debug, Clone, Copy)]
pub enum Keys {
    /// Those of the same rows.
    Own(Mask),
    /// Those of the same rows and of everything before them.
    Cached(Cache),
}

impl From<Mask> for Keys {
    fn from(mask: Mask) -> Self {
        Keys::Own(mask)
    }
}

/// Keys and values of a layer, kept from run to run.
#[derive(Debug, Clone, Copy)]
pub struct Cache {
    /// State `(B, S, G, D)`: keys after norm and rotation.
    pub k: Val,
    /// State `(B, S, G, D)`.
    pub v: Val,
    /// Position of the first new row of each item, i32 `(B)`.
    pub at: Val,
    /// Positions of each item, new ones included, i32 `(B)`.
    pub lengths: Val,
}

/// Rotary tables, cos and sin `(T, D/2)`, or `(B, T, D/2)` for positions per item.
#[derive(Debug, Clone, Copy)]
pub struct Rope {
    /// Cosines.
    pub cos: Val,
    /// Sines.
    pub sin: Val,
}

/// Cosines and sines of `position * theta^(-2k/D)` for positions `0..t`, each `(t, D/2)`.
/// Angles are f32 products, as in the reference.
pub fn rope_tables(t: usize, head_dim: usize, theta: f64) -> (Vec<f32>, Vec<f32>) {
    let half = head_dim / 2;
    let frequencies: Vec<f32> = (0..half)
        .map(|k| theta.powf(-2.0 * k as f64 / head_dim as f64) as f32)
        .collect();
    let angles = (0..t).flat_map(|p| frequencies.iter().map(move |f| p as f32 * f));
    let angles: Vec<f64> = angles.map(f64::from).collect();
    (
        angles.iter().map(|a| a.cos() as f32).collect(),
        angles.iter().map(|a| a.sin() as f32).collect(),
    )
}

impl Rope {
    /// Appends the tables for positions `0..n` and the steps that look up `positions`, i32
    /// `(B, T)`.
    pub fn at(b: &mut Builder, positions: Val, n: usize, head_dim: usize, theta: f64) -> Self {
        let all = Rope::new(b, n, head_dim, theta);
        Rope {
            cos: b.embed(positions, all.cos),
            sin: b.embed(positions, all.sin),
        }
    }

    /// Appends the tables for positions `0..t`.
    pub fn new(b: &mut Builder, t: usize, head_dim: usize, theta: f64) -> Self {
        let (cos, sin) = rope_tables(t, head_dim, theta);
        let shape = [t, head_dim / 2];
        Rope {
            cos: b.constant(&shape, cos),
            sin: b.constant(&shape, sin),
        }
    }
}

/// `x W^T` with `W = NAME.weight (n, k)`.
pub fn linear(b: &mut Builder, name: &str, x: Val, n: usize) -> Val {
    let k = b.shape(x).last().copied().unwrap_or(0);
    let w = b.matrix(format!("{name}.weight"), &[n, k]);
    b.linear(x, w)
}

/// `x W^T + bias` with `W = NAME.weight (n, k)`, `bias = NAME.bias (n)`.
pub fn linear_bias(b: &mut Builder, name: &str, x: Val, n: usize) -> Val {
    let k = b.shape(x).last().copied().unwrap_or(0);
    let w = b.matrix(format!("{name}.weight"), &[n, k]);
    let bias = b.vector(format!("{name}.bias"), &[n], &[n]);
    b.linear_bias(x, w, bias)
}

/// Root-mean-square norm with `NAME.weight (C)`.
pub fn norm(b: &mut Builder, name: &str, x: Val, eps: f32) -> Val {
    let c = b.shape(x).last().copied().unwrap_or(0);
    let w = b.vector(format!("{name}.weight"), &[c], &[c]);
    b.rms_norm(x, w, eps)
}

/// Splits `(B, T, heads * D)` into heads, applies the per-head norm and, with `rope`, rotary
/// positions. Out `(B, T, heads, D)`.
pub fn heads(b: &mut Builder, name: &str, x: Val, dims: &LayerDims, rope: Option<Rope>) -> Val {
    let (d, [batch, t]) = (dims.head_dim, [b.shape(x)[0], b.shape(x)[1]]);
    let count = b.shape(x)[2] / d;
    let x = b.reshape(x, &[batch, t, count, d]);
    let w = b.vector(format!("{name}.weight"), &[d], &[d]);
    match rope {
        Some(rope) => b.op(Op::NormRope { eps: dims.eps }, &[x, w, rope.cos, rope.sin]),
        None => b.rms_norm(x, w, dims.eps),
    }
}

/// Self-attention of `NAME` over `x (B, T, C)`, output projection included; with a cache, over
/// what it holds as well. Taps the value projection and the context under the names in `tap`.
pub fn self_attention(
    b: &mut Builder,
    name: &str,
    tap: &SelfAttentionTaps,
    x: Val,
    dims: &LayerDims,
    keys: impl Into<Keys>,
    rope: Rope,
) -> Val {
    let (batch, t) = (b.shape(x)[0], b.shape(x)[1]);
    let (q_width, kv_width) = (dims.heads * dims.head_dim, dims.kv_heads * dims.head_dim);
    let q = linear(b, &format!("{name}.q_proj"), x, q_width);
    let q = heads(b, &format!("{name}.q_norm"), q, dims, Some(rope));
    let k = linear(b, &format!("{name}.k_proj"), x, kv_width);
    let k = heads(b, &format!("{name}.k_norm"), k, dims, Some(rope));
    let v = linear(b, &format!("{name}.v_proj"), x, kv_width);
    b.tap(tap.value.clone(), v);
    let v = b.reshape(v, &[batch, t, dims.kv_heads, dims.head_dim]);
    let ctx = match keys.into() {
        Keys::Own(mask) => b.attention(q, k, v, mask),
        Keys::Cached(cache) => {
            let k = b.write_rows(cache.k, k, cache.at);
            let v = b.write_rows(cache.v, v, cache.at);
            let mask = Mask::Causal;
            b.op(Op::Attention { mask }, &[q, k, v, cache.lengths])
        }
    };
    let ctx = b.reshape(ctx, &[batch, t, q_width]);
    b.tap(tap.context.clone(), ctx);
    linear(b, &format!("{name}.o_proj"), ctx, dims.hidden)
}

/// Names under which a self-attention's intermediates can be compared with a reference.
pub struct SelfAttentionTaps {
    /// The value projection.
    pub value: String,
    /// Attention before the output projection.
    pub context: String,
}

/// The gated MLP of `NAME`: `down(silu(gate x) * up x)`.
pub fn mlp(b: &mut Builder, name: &str, x: Val, dims: &LayerDims) -> Val {
    let shape = [dims.intermediate, dims.hidden];
    let gate = b.matrix(format!("{name}.gate_proj.weight"), &shape);
    let up = b.matrix(format!("{name}.up_proj.weight"), &shape);
    let h = b.swiglu(x, gate, up);
    linear(b, &format!("{name}.down_proj"), h, dims.hidden)
}

/// One pre-norm layer `PREFIX.{input_layernorm, self_attn, post_attention_layernorm, mlp}`.
/// `tap` prefixes the names of its intermediates. x and out `(B, T, C)`.
pub fn layer(
    b: &mut Builder,
    prefix: &str,
    tap: &str,
    x: Val,
    dims: &LayerDims,
    keys: impl Into<Keys>,
    rope: Rope,
) -> Val {
    let n = norm(b, &format!("{prefix}.input_layernorm"), x, dims.eps);
    b.tap(format!("{tap}.input_layernorm"), n);
    let taps = SelfAttentionTaps {
        value: format!("{tap}.v_proj_out"),
        context: format!("{tap}.self_ctx"),
    };
    let h = self_attention(
        b,
        &format!("{prefix}.self_attn"),
        &taps,
        n,
        dims,
        keys,
        rope,
    );
    b.tap(format!("{tap}.self_attn_out"), h);
    let x = b.add(x, h);
    let n = norm(
        b,
        &format!("{prefix}.post_attention_layernorm"),
        x,
        dims.eps,
    );
    let h = mlp(b, &format!("{prefix}.mlp"), n, dims);
    b.tap(format!("{tap}.mlp_out"), h);
    let x = b.add(x, h);
    b.tap(format!("{tap}.out"), x)
}
