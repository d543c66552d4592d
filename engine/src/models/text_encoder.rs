//! The caption encoder (Qwen3-Embedding): all positions of the last hidden state, causal. Lyrics
//! use only its embedding table.

use super::config::TextConfig;
use super::layer::{LayerDims, Rope, layer, norm};
use crate::error::Result;
use crate::program::{Builder, Mask, Math, Program, Val};

fn dims(c: &TextConfig) -> LayerDims {
    LayerDims {
        hidden: c.hidden_size,
        intermediate: c.intermediate_size,
        heads: c.num_attention_heads,
        kv_heads: c.num_key_value_heads,
        head_dim: c.head_dim,
        eps: c.rms_norm_eps,
    }
}

fn table(b: &mut Builder, c: &TextConfig) -> Val {
    b.matrix("embed_tokens.weight", &[c.vocab_size, c.hidden_size])
}

/// Input `ids` i32 `(B, T)`; output `last_hidden_state` `(B, T, C)`, after the final norm.
/// Padding on the right is harmless: attention is causal.
pub fn text_encoder(c: &TextConfig, math: Math, batch: usize, t: usize) -> Result<Program> {
    let mut b = Builder::new("text_encoder", math);
    let ids = b.input_i32("ids", &[batch, t]);
    let table = table(&mut b, c);
    let mut x = b.embed(ids, table);
    b.tap("embed", x);
    let rope = Rope::new(&mut b, t, c.head_dim, c.rope_theta);
    for i in 0..c.num_hidden_layers {
        let (prefix, tap) = (format!("layers.{i}"), format!("layer{i}"));
        x = layer(&mut b, &prefix, &tap, x, &dims(c), Mask::Causal, rope);
    }
    let x = norm(&mut b, "norm", x, c.rms_norm_eps);
    b.output("last_hidden_state", x);
    b.finish()
}

/// Input `ids` i32 `(B, T)`; output `embed` `(B, T, C)`: rows of the embedding table.
pub fn token_embedding(c: &TextConfig, math: Math, batch: usize, t: usize) -> Result<Program> {
    let mut b = Builder::new("token_embedding", math);
    let ids = b.input_i32("ids", &[batch, t]);
    let table = table(&mut b, c);
    let x = b.embed(ids, table);
    b.output("embed", x);
    b.finish()
}
