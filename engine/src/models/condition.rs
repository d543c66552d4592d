//! Condition encoders: lyrics, timbre and caption to one packed sequence for the diffusion
//! transformer's cross-attention.

use super::config::{DitConfig, LayerType};
use super::layer::{LayerDims, Rope, layer, linear, linear_bias, norm};
use crate::error::Result;
use crate::program::{Builder, Mask, Math, Op, Program, Val};

/// Widths of the encoder layers (narrower than the decoder's in XL models).
pub(super) fn encoder_dims(c: &DitConfig) -> LayerDims {
    LayerDims {
        hidden: c.encoder_hidden_size,
        intermediate: c.encoder_intermediate_size,
        heads: c.encoder_num_attention_heads,
        kv_heads: c.encoder_num_key_value_heads,
        head_dim: c.head_dim,
        eps: c.rms_norm_eps,
    }
}

/// Mask of layer `i` of any encoder or the decoder: the config's own list decides.
pub(super) fn layer_mask(c: &DitConfig, i: usize) -> Mask {
    match c.encoder_layer_type(i) {
        LayerType::Sliding => Mask::Window(c.sliding_window),
        LayerType::Full => Mask::Full,
    }
}

/// Layers `PREFIX.layers.*` and `PREFIX.norm` over `x (B, T, C)`, bidirectional. The normed
/// output is tapped as `norm_tap`.
pub(super) fn encoder_layers(
    b: &mut Builder,
    c: &DitConfig,
    prefix: &str,
    tap: &str,
    mut x: Val,
    layers: usize,
) -> Val {
    let t = b.shape(x)[1];
    let rope = Rope::new(b, t, c.head_dim, c.rope_theta);
    for i in 0..layers {
        let name = format!("{prefix}.layers.{i}");
        let tap = format!("{tap}layer{i}");
        x = layer(b, &name, &tap, x, &encoder_dims(c), layer_mask(c, i), rope);
    }
    norm(b, &format!("{prefix}.norm"), x, c.rms_norm_eps)
}

/// Input `inputs_embeds` `(B, T, text width)`: rows of the text encoder's embedding table. Output
/// `out` `(B, T, He)`. Every row is a valid token: items of other lengths run by themselves.
pub fn lyric_encoder(c: &DitConfig, math: Math, batch: usize, t: usize) -> Result<Program> {
    let mut b = Builder::new("lyric_encoder", math);
    let x = b.input("inputs_embeds", &[batch, t, c.text_hidden_dim]);
    let prefix = "encoder.lyric_encoder";
    let x = linear_bias(
        &mut b,
        &format!("{prefix}.embed_tokens"),
        x,
        c.encoder_hidden_size,
    );
    b.tap("embed", x);
    let x = encoder_layers(&mut b, c, prefix, "", x, c.num_lyric_encoder_hidden_layers);
    b.output("out", x);
    b.finish()
}

/// Input `latents` `(N, frames, timbre width)`, one clip per row. Output `timbre` `(N, 1, He)`:
/// row 0 of the normed output, which is the prepended special token in XL models and the first
/// frame in the others.
pub fn timbre_encoder(c: &DitConfig, math: Math, clips: usize, frames: usize) -> Result<Program> {
    let mut b = Builder::new("timbre_encoder", math);
    let x = b.input("latents", &[clips, frames, c.timbre_hidden_dim]);
    let (prefix, he) = ("encoder.timbre_encoder", c.encoder_hidden_size);
    let mut x = linear_bias(&mut b, &format!("{prefix}.embed_tokens"), x, he);
    b.tap("embed", x);
    if c.has_encoder_config {
        let token = b.vector(format!("{prefix}.special_token"), &[1, 1, he], &[he]);
        x = b.op(Op::PrependRow, &[x, token]);
    }
    let x = encoder_layers(&mut b, c, prefix, "", x, c.num_timbre_encoder_hidden_layers);
    b.tap("norm_out", x);
    let x = b.op(Op::SliceRows { start: 0, len: 1 }, &[x]);
    b.output("timbre", x);
    b.finish()
}

/// Sizes of one item's condition: rows of lyrics, timbre clips and caption.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PackShape {
    /// Lyric tokens.
    pub lyric: usize,
    /// Timbre embeddings.
    pub timbre: usize,
    /// Caption tokens.
    pub text: usize,
}

impl PackShape {
    /// Rows of the packed sequence.
    pub fn rows(&self) -> usize {
        self.lyric + self.timbre + self.text
    }
}

/// Inputs `lyric` `(1, Ll, He)`, `timbre` `(1, Nt, He)`, `text` `(1, Lt, text width)`. Output
/// `packed` `(1, Ll + Nt + Lt, He)` in that order, the caption projected first.
pub fn pack(c: &DitConfig, math: Math, shape: PackShape) -> Result<Program> {
    let mut b = Builder::new("pack", math);
    let he = c.encoder_hidden_size;
    let lyric = b.input("lyric", &[1, shape.lyric, he]);
    let timbre = b.input("timbre", &[1, shape.timbre, he]);
    let text = b.input("text", &[1, shape.text, c.text_hidden_dim]);
    let text = linear(&mut b, "encoder.text_projector", text, he);
    b.tap("text_projected", text);
    let packed = b.op(Op::ConcatRows, &[lyric, timbre, text]);
    b.output("packed", packed);
    b.finish()
}

/// Output `null` `(1, 1, He)`: the condition of the unconditional branch, one row that stands
/// for any number of equal rows.
pub fn null_condition(c: &DitConfig, math: Math) -> Result<Program> {
    let mut b = Builder::new("null_condition", math);
    let he = c.encoder_hidden_size;
    let null = b.vector("null_condition_emb", &[1, 1, he], &[1, 1, he]);
    b.output("null", null);
    b.finish()
}
