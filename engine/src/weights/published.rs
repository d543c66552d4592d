//! `config.json` of the published models, to write trees of their geometry.

use crate::error::Result;
use crate::models::config::{DitConfig, LmConfig, TextConfig, VaeConfig};
use crate::models::layout::{self, Named};
use serde_json::{Map, Value, json};
use std::path::Path;

/// A part of a checkpoint tree that has weights of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// DiT with its encoders.
    Dit,
    /// Qwen3 text encoder.
    Text,
    /// Audio autoencoder.
    Vae,
    /// Qwen3 language model.
    Lm,
}

impl Kind {
    /// For people and reports.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Dit => "dit",
            Kind::Text => "text encoder",
            Kind::Vae => "vae",
            Kind::Lm => "lm",
        }
    }

    /// Names and shapes of a complete checkpoint with this configuration, in order of name.
    pub fn tensors(self, config: &Value) -> Result<Vec<Named>> {
        let text = config.to_string();
        let path = Path::new("config.json");
        let mut tensors = match self {
            Kind::Dit => layout::dit_tensors(&DitConfig::parse(&text, path)?),
            Kind::Text => layout::text_tensors(&TextConfig::parse(&text, path)?),
            Kind::Lm => layout::lm_tensors(&LmConfig::parse(&text, path)?),
            Kind::Vae => layout::vae_tensors(&VaeConfig::parse(&text, path)?),
        };
        tensors.sort();
        Ok(tensors)
    }
}

/// DiT of the 2B family; `turbo` or base.
pub fn dit(turbo: bool) -> Value {
    let mut config = json!({
        "architectures": ["AceStepConditionGenerationModel"],
        "attention_bias": false,
        "attention_dropout": 0.0,
        "audio_acoustic_hidden_dim": 64,
        "data_proportion": 0.5,
        "dtype": "bfloat16",
        "fsq_dim": 2048,
        "fsq_input_levels": [8, 8, 8, 5, 5, 5],
        "fsq_input_num_quantizers": 1,
        "head_dim": 128,
        "hidden_act": "silu",
        "hidden_size": 2048,
        "in_channels": 192,
        "initializer_range": 0.02,
        "intermediate_size": 6144,
        "is_turbo": turbo,
        "layer_types": alternating(24),
        "max_position_embeddings": 32768,
        "model_type": "acestep",
        "num_attention_heads": 16,
        "num_attention_pooler_hidden_layers": 2,
        "num_audio_decoder_hidden_layers": 24,
        "num_hidden_layers": 24,
        "num_key_value_heads": 8,
        "num_lyric_encoder_hidden_layers": 8,
        "num_timbre_encoder_hidden_layers": 4,
        "patch_size": 2,
        "pool_window_size": 5,
        "rms_norm_eps": 1e-6,
        "rope_scaling": null,
        "rope_theta": 1_000_000,
        "sliding_window": 128,
        "text_hidden_dim": 1024,
        "timbre_fix_frame": 750,
        "timbre_hidden_dim": 64,
        "timestep_mu": -0.4,
        "timestep_sigma": 1.0,
        "use_cache": true,
        "use_sliding_window": true,
        "vocab_size": 64003
    });
    if turbo {
        config["model_version"] = json!("turbo");
    }
    config
}

/// DiT of the XL family, turbo.
pub fn dit_xl() -> Value {
    changed(
        dit(true),
        json!({
            "hidden_size": 2560,
            "intermediate_size": 9728,
            "num_hidden_layers": 32,
            "num_audio_decoder_hidden_layers": 32,
            "layer_types": alternating(32),
            "num_attention_heads": 32,
            "encoder_hidden_size": 2048,
            "encoder_intermediate_size": 6144,
            "encoder_num_attention_heads": 16,
            "encoder_num_key_value_heads": 8,
            "lyric_alignment_layers_config": {
                "3": [18, 27], "4": [22], "5": [5, 6, 7], "6": [2, 12, 13], "7": [20, 21]
            }
        }),
    )
}

/// Qwen3-Embedding-0.6B.
pub fn text() -> Value {
    json!({
        "architectures": ["Qwen3ForCausalLM"],
        "attention_bias": false,
        "attention_dropout": 0.0,
        "bos_token_id": 151643,
        "eos_token_id": 151643,
        "head_dim": 128,
        "hidden_act": "silu",
        "hidden_size": 1024,
        "initializer_range": 0.02,
        "intermediate_size": 3072,
        "max_position_embeddings": 32768,
        "max_window_layers": 28,
        "model_type": "qwen3",
        "num_attention_heads": 16,
        "num_hidden_layers": 28,
        "num_key_value_heads": 8,
        "rms_norm_eps": 1e-6,
        "rope_scaling": null,
        "rope_theta": 1_000_000,
        "sliding_window": null,
        "tie_word_embeddings": true,
        "torch_dtype": "bfloat16",
        "use_cache": true,
        "use_sliding_window": false,
        "vocab_size": 151669
    })
}

/// A 5 Hz language model by width, layers, query heads and inner width.
pub fn lm(hidden: usize, layers: usize, heads: usize, inner: usize) -> Value {
    changed(
        text(),
        json!({
            "architectures": ["Qwen3Model"],
            "hidden_size": hidden,
            "intermediate_size": inner,
            "max_position_embeddings": 40960,
            "num_attention_heads": heads,
            "num_hidden_layers": layers,
            "vocab_size": 217204
        }),
    )
}

/// The autoencoder.
pub fn vae() -> Value {
    json!({
        "_class_name": "AutoencoderOobleck",
        "audio_channels": 2,
        "channel_multiples": [1, 2, 4, 8, 16],
        "decoder_channels": 128,
        "decoder_input_channels": 64,
        "downsampling_ratios": [2, 4, 4, 6, 10],
        "encoder_hidden_size": 128,
        "sampling_rate": 48000
    })
}

/// `base` with the keys of `changes` replaced or added.
pub fn changed(base: Value, changes: Value) -> Value {
    let map = |value| match value {
        Value::Object(map) => map,
        _ => Map::new(),
    };
    let mut out = map(base);
    out.extend(map(changes));
    Value::Object(out)
}

/// Layer types that slide and see everything in turn.
pub fn alternating(layers: usize) -> Vec<&'static str> {
    ["sliding_attention", "full_attention"]
        .into_iter()
        .cycle()
        .take(layers)
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// The published files of these models, to the byte: names, shapes, dtype and header.
    #[test]
    fn sizes_of_the_published_files() {
        for (kind, config, tensors, bytes) in [
            (Kind::Dit, dit(true), 677, 4_787_825_604),
            (Kind::Dit, dit(false), 677, 4_787_825_604),
            (Kind::Vae, vae(), 365, 337_431_388),
            (Kind::Text, text(), 310, 1_191_586_416),
            (Kind::Lm, lm(2048, 28, 16, 6144), 310, 3_708_521_528),
        ] {
            let list = kind.tensors(&config).unwrap();
            assert_eq!(list.len(), tensors, "{kind:?}");
            assert_eq!(super::super::write::file_bytes(&list), bytes, "{kind:?}");
        }
        let parameters = |config: &Value, kind: Kind| -> usize {
            kind.tensors(config)
                .unwrap()
                .iter()
                .map(|(_, s)| s.iter().product::<usize>())
                .sum()
        };
        assert_eq!(dit_xl().get("fsq_dim"), Some(&json!(2048)));
        assert_eq!(Kind::Dit.tensors(&dit_xl()).unwrap().len(), 829);
        assert_eq!(parameters(&lm(1024, 28, 16, 3072), Kind::Lm), 662_884_352);
        assert_eq!(parameters(&lm(2560, 36, 32, 9728), Kind::Lm), 4_189_554_176);
    }
}
