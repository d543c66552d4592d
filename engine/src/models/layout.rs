//! Names and shapes of every tensor a checkpoint of each model has, in the published files.
//!
//! Programs declare what they use; this lists what a complete file holds, to write checkpoints
//! and to say what one lacks. Sources: `acestep/models/*/modeling_*.py`, `AutoencoderOobleck`
//! of diffusers, Qwen3 of transformers.

use super::config::{DitConfig, LmConfig, TextConfig, VaeConfig};

/// Name and shape of a tensor.
pub type Named = (String, Vec<usize>);

/// Width of the sinusoidal time embedding.
const TIME_CHANNELS: usize = 256;

struct List(Vec<Named>);

impl List {
    fn add(&mut self, name: impl Into<String>, shape: &[usize]) {
        self.0.push((name.into(), shape.to_vec()));
    }

    fn linear(&mut self, name: &str, out: usize, input: usize) {
        self.add(format!("{name}.weight"), &[out, input]);
        self.add(format!("{name}.bias"), &[out]);
    }

    fn attention(&mut self, name: &str, shape: &Stack) {
        let Stack {
            hidden,
            heads,
            kv_heads,
            head_dim,
            ..
        } = *shape;
        self.add(format!("{name}.q_proj.weight"), &[heads * head_dim, hidden]);
        for part in ["k_proj", "v_proj"] {
            self.add(
                format!("{name}.{part}.weight"),
                &[kv_heads * head_dim, hidden],
            );
        }
        self.add(format!("{name}.o_proj.weight"), &[hidden, heads * head_dim]);
        for part in ["q_norm", "k_norm"] {
            self.add(format!("{name}.{part}.weight"), &[head_dim]);
        }
    }

    fn mlp(&mut self, name: &str, shape: &Stack) {
        for part in ["gate_proj", "up_proj"] {
            self.add(
                format!("{name}.{part}.weight"),
                &[shape.inner, shape.hidden],
            );
        }
        self.add(
            format!("{name}.down_proj.weight"),
            &[shape.hidden, shape.inner],
        );
    }

    /// `layers` transformer layers and the norm behind them.
    fn stack(&mut self, prefix: &str, shape: &Stack, layers: usize) {
        for i in 0..layers {
            let name = format!("{prefix}layers.{i}");
            self.attention(&format!("{name}.self_attn"), shape);
            for norm in ["input_layernorm", "post_attention_layernorm"] {
                self.add(format!("{name}.{norm}.weight"), &[shape.hidden]);
            }
            self.mlp(&format!("{name}.mlp"), shape);
        }
        self.add(format!("{prefix}norm.weight"), &[shape.hidden]);
    }

    /// A convolution with its weight norm unfused.
    fn conv(&mut self, name: &str, v: [usize; 3], bias: Option<usize>) {
        self.add(format!("{name}.weight_v"), &v);
        self.add(format!("{name}.weight_g"), &[v[0], 1, 1]);
        if let Some(bias) = bias {
            self.add(format!("{name}.bias"), &[bias]);
        }
    }

    fn snake(&mut self, name: &str, channels: usize) {
        self.add(format!("{name}.alpha"), &[1, channels, 1]);
        self.add(format!("{name}.beta"), &[1, channels, 1]);
    }

    fn res_units(&mut self, block: &str, c: usize) {
        for unit in 1..=3 {
            let name = format!("{block}.res_unit{unit}");
            self.snake(&format!("{name}.snake1"), c);
            self.conv(&format!("{name}.conv1"), [c, c, 7], Some(c));
            self.snake(&format!("{name}.snake2"), c);
            self.conv(&format!("{name}.conv2"), [c, c, 1], Some(c));
        }
    }
}

/// Geometry that the layers of a stack share.
struct Stack {
    hidden: usize,
    inner: usize,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
}

/// A DiT checkpoint: decoder, condition encoder, audio tokenizer, detokenizer.
pub fn dit_tensors(c: &DitConfig) -> Vec<Named> {
    let mut list = List(Vec::new());
    let (h, he) = (c.hidden_size, c.encoder_hidden_size);
    decoder(&mut list, c);
    list.add("null_condition_emb", &[1, 1, he]);
    let stack = Stack {
        hidden: he,
        inner: c.encoder_intermediate_size,
        heads: c.encoder_num_attention_heads,
        kv_heads: c.encoder_num_key_value_heads,
        head_dim: c.head_dim,
    };
    let latent = c.audio_acoustic_hidden_dim;
    list.add("encoder.text_projector.weight", &[he, c.text_hidden_dim]);
    list.linear("encoder.lyric_encoder.embed_tokens", he, c.text_hidden_dim);
    list.stack(
        "encoder.lyric_encoder.",
        &stack,
        c.num_lyric_encoder_hidden_layers,
    );
    list.add("encoder.timbre_encoder.special_token", &[1, 1, he]);
    list.linear(
        "encoder.timbre_encoder.embed_tokens",
        he,
        c.timbre_hidden_dim,
    );
    list.stack(
        "encoder.timbre_encoder.",
        &stack,
        c.num_timbre_encoder_hidden_layers,
    );

    list.linear("tokenizer.audio_acoustic_proj", he, latent);
    list.add("tokenizer.attention_pooler.special_token", &[1, 1, he]);
    list.linear("tokenizer.attention_pooler.embed_tokens", he, he);
    list.stack(
        "tokenizer.attention_pooler.",
        &stack,
        c.num_attention_pooler_hidden_layers,
    );
    let levels = c.fsq_input_levels.len();
    list.linear("tokenizer.quantizer.project_in", levels, c.fsq_dim);
    list.linear("tokenizer.quantizer.project_out", c.fsq_dim, levels);

    list.add("detokenizer.special_tokens", &[1, c.pool_window_size, he]);
    list.linear("detokenizer.embed_tokens", he, c.fsq_dim);
    list.stack("detokenizer.", &stack, c.num_attention_pooler_hidden_layers);
    list.linear("detokenizer.proj_out", latent, he);
    list.linear("decoder.condition_embedder", h, he);
    list.0
}

fn decoder(list: &mut List, c: &DitConfig) {
    let h = c.hidden_size;
    let stack = Stack {
        hidden: h,
        inner: c.intermediate_size,
        heads: c.num_attention_heads,
        kv_heads: c.num_key_value_heads,
        head_dim: c.head_dim,
    };
    for i in 0..c.num_hidden_layers {
        let name = format!("decoder.layers.{i}");
        list.add(format!("{name}.scale_shift_table"), &[1, 6, h]);
        for norm in ["self_attn_norm", "cross_attn_norm", "mlp_norm"] {
            list.add(format!("{name}.{norm}.weight"), &[h]);
        }
        list.attention(&format!("{name}.self_attn"), &stack);
        list.attention(&format!("{name}.cross_attn"), &stack);
        list.mlp(&format!("{name}.mlp"), &stack);
    }
    list.add("decoder.scale_shift_table", &[1, 2, h]);
    list.add("decoder.norm_out.weight", &[h]);
    list.add(
        "decoder.proj_in.1.weight",
        &[h, c.in_channels, c.patch_size],
    );
    list.add("decoder.proj_in.1.bias", &[h]);
    let latent = c.audio_acoustic_hidden_dim;
    list.add("decoder.proj_out.1.weight", &[h, latent, c.patch_size]);
    list.add("decoder.proj_out.1.bias", &[latent]);
    for time in ["decoder.time_embed", "decoder.time_embed_r"] {
        list.linear(&format!("{time}.linear_1"), h, TIME_CHANNELS);
        list.linear(&format!("{time}.linear_2"), h, h);
        list.linear(&format!("{time}.time_proj"), 6 * h, h);
    }
}

/// A Qwen3 text encoder. The output head of a model that is only an encoder is not stored.
pub fn text_tensors(c: &TextConfig) -> Vec<Named> {
    let mut list = List(Vec::new());
    list.add("embed_tokens.weight", &[c.vocab_size, c.hidden_size]);
    let stack = Stack {
        hidden: c.hidden_size,
        inner: c.intermediate_size,
        heads: c.num_attention_heads,
        kv_heads: c.num_key_value_heads,
        head_dim: c.head_dim,
    };
    list.stack("", &stack, c.num_hidden_layers);
    list.0
}

/// A Qwen3 language model: as the text encoder, with a head unless it is the embedding table.
pub fn lm_tensors(c: &LmConfig) -> Vec<Named> {
    let mut tensors = text_tensors(c);
    if !c.tie_word_embeddings {
        tensors.push(("lm_head.weight".into(), vec![c.vocab_size, c.hidden_size]));
    }
    tensors
}

/// The autoencoder, encoder and decoder.
pub fn vae_tensors(c: &VaeConfig) -> Vec<Named> {
    let mut list = List(Vec::new());
    let widths = c.widths(c.encoder_hidden_size);
    let last = widths[widths.len() - 1];
    list.conv(
        "encoder.conv1",
        [widths[0], c.audio_channels, 7],
        Some(widths[0]),
    );
    for (i, stride) in c.downsampling_ratios.iter().enumerate() {
        let (block, narrow, wide) = (format!("encoder.block.{i}"), widths[i], widths[i + 1]);
        list.res_units(&block, narrow);
        list.snake(&format!("{block}.snake1"), narrow);
        list.conv(
            &format!("{block}.conv1"),
            [wide, narrow, 2 * stride],
            Some(wide),
        );
    }
    list.snake("encoder.snake1", last);
    list.conv(
        "encoder.conv2",
        [c.encoder_hidden_size, last, 3],
        Some(c.encoder_hidden_size),
    );

    let widths = c.widths(c.decoder_channels);
    let last = widths[widths.len() - 1];
    list.conv(
        "decoder.conv1",
        [last, c.decoder_input_channels, 7],
        Some(last),
    );
    for (i, stride) in c.downsampling_ratios.iter().rev().enumerate() {
        let from = widths.len() - 1 - i;
        let (block, wide, narrow) = (format!("decoder.block.{i}"), widths[from], widths[from - 1]);
        list.snake(&format!("{block}.snake1"), wide);
        list.conv(
            &format!("{block}.conv_t1"),
            [wide, narrow, 2 * stride],
            Some(narrow),
        );
        list.res_units(&block, narrow);
    }
    list.snake("decoder.snake1", widths[0]);
    list.conv("decoder.conv2", [c.audio_channels, widths[0], 7], None);
    list.0
}
