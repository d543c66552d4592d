//! 25 Hz latents to 5 Hz codes (attention pooler, finite scalar quantisation) and back
//! (detokenizer). Always f32: a code next to a level boundary must not depend on rounding.

use super::condition::encoder_layers;
use super::config::DitConfig;
use super::layer::linear_bias;
use crate::error::Result;
use crate::program::{Builder, Math, Op, Program, Val};

/// Input `latents` `(N, pool, 64)`: groups of frames. Outputs `indices` i32 `(N)` and
/// `quantized` `(N, width)`.
pub fn audio_tokenizer(c: &DitConfig, groups: usize) -> Result<Program> {
    let mut b = Builder::new("audio_tokenizer", Math::F32);
    let he = c.encoder_hidden_size;
    let dims = c.fsq_input_levels.len();
    let x = b.input(
        "latents",
        &[groups, c.pool_window_size, c.audio_acoustic_hidden_dim],
    );
    let x = linear_bias(&mut b, "tokenizer.audio_acoustic_proj", x, he);
    b.tap("proj", x);
    let pooler = "tokenizer.attention_pooler";
    let x = linear_bias(&mut b, &format!("{pooler}.embed_tokens"), x, he);
    let token = b.vector(format!("{pooler}.special_token"), &[1, 1, he], &[he]);
    let x = b.op(Op::PrependRow, &[x, token]);
    let x = encoder_layers(
        &mut b,
        c,
        pooler,
        "pooler.",
        x,
        c.num_attention_pooler_hidden_layers,
    );
    let x = b.op(Op::SliceRows { start: 0, len: 1 }, &[x]);
    let x = b.reshape(x, &[groups, he]);
    b.tap("pooled", x);
    let z = linear_bias(&mut b, "tokenizer.quantizer.project_in", x, dims);
    b.tap("fsq_in6", z);
    let codes = b.op(
        Op::FsqEncode {
            levels: c.fsq_input_levels.clone(),
        },
        &[z],
    );
    b.output("indices", codes);
    let quantized = quantized(&mut b, c, codes, "fsq_codes6");
    b.output("quantized", quantized);
    b.finish()
}

/// Input `codes` i32 `(N)`. Outputs `quantized` `(N, width)` and `latents` `(1, pool N, 64)`,
/// the hints that replace source latents.
pub fn audio_detokenizer(c: &DitConfig, groups: usize) -> Result<Program> {
    let mut b = Builder::new("audio_detokenizer", Math::F32);
    let (he, pool) = (c.encoder_hidden_size, c.pool_window_size);
    let codes = b.input_i32("codes", &[groups]);
    let quantized = quantized(&mut b, c, codes, "codes6");
    b.output("quantized", quantized);
    let x = linear_bias(&mut b, "detokenizer.embed_tokens", quantized, he);
    let tokens = b.vector("detokenizer.special_tokens", &[1, pool, he], &[pool, he]);
    let x = b.op(Op::RepeatAdd, &[x, tokens]);
    let layers = c.num_attention_pooler_hidden_layers;
    let x = encoder_layers(&mut b, c, "detokenizer", "detokenizer.", x, layers);
    let x = linear_bias(
        &mut b,
        "detokenizer.proj_out",
        x,
        c.audio_acoustic_hidden_dim,
    );
    let x = b.reshape(x, &[1, groups * pool, c.audio_acoustic_hidden_dim]);
    b.output("latents", x);
    b.finish()
}

fn quantized(b: &mut Builder, c: &DitConfig, codes: Val, tap: &str) -> Val {
    let grid = b.op(
        Op::FsqDecode {
            levels: c.fsq_input_levels.clone(),
        },
        &[codes],
    );
    b.tap(tap, grid);
    linear_bias(b, "tokenizer.quantizer.project_out", grid, c.fsq_dim)
}
