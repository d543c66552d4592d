//! The `config.json` of every component, parsed strictly: a number that is absurd, a key of the
//! wrong type or two keys that contradict each other are refused here, so that model code can
//! trust what it reads.
//!
//! Defaults of absent keys are those of `acestep/models/common/configuration_acestep_v15.py`.
//! Unknown keys are ignored: published files carry many that only matter to training.

use super::fields::{Fields, brief, whole_list};
use crate::error::Result;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// More layers than any published model has; bounds what a hostile file can make us build.
const MAX_LAYERS: usize = 1000;

/// What a self-attention layer sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LayerType {
    /// Keys at most `sliding_window` positions away.
    Sliding,
    /// Every key.
    Full,
}

/// Which schedule and guidance a model was made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    /// Distilled: eight steps from fixed tables, no guidance.
    Turbo,
    /// Base and sft: free step count, classifier-free guidance.
    Base,
}

impl Family {
    /// `turbo` or `base`.
    pub fn name(self) -> &'static str {
        match self {
            Family::Turbo => "turbo",
            Family::Base => "base",
        }
    }
}

/// Geometry of a DiT checkpoint with its encoders, audio tokenizer and detokenizer.
#[derive(Debug, Clone, PartialEq)]
pub struct DitConfig {
    /// Width of the DiT.
    pub hidden_size: usize,
    /// Inner width of the DiT's gated MLP.
    pub intermediate_size: usize,
    /// Layers of the DiT.
    pub num_hidden_layers: usize,
    /// Query heads of the DiT.
    pub num_attention_heads: usize,
    /// Key/value heads of the DiT; divides the query heads.
    pub num_key_value_heads: usize,
    /// Size of a head, here and in the encoders; even.
    pub head_dim: usize,
    /// Whether the configuration names an encoder of its own (XL): then the timbre encoder
    /// prepends its special token.
    pub has_encoder_config: bool,
    /// Width of the encoders, tokenizer and detokenizer (the DiT's when not given).
    pub encoder_hidden_size: usize,
    /// Inner width of their MLPs.
    pub encoder_intermediate_size: usize,
    /// Their query heads.
    pub encoder_num_attention_heads: usize,
    /// Their key/value heads.
    pub encoder_num_key_value_heads: usize,
    /// Added to the mean square in every norm.
    pub rms_norm_eps: f32,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Positions a sliding layer sees on each side, `|i - j| <= sliding_window`.
    pub sliding_window: usize,
    /// Per DiT layer; see [`DitConfig::encoder_layer_type`] for the encoders.
    pub layer_types: Vec<LayerType>,
    /// Whether layers that `layer_types` does not list may slide.
    pub use_sliding_window: bool,
    /// Channels of the DiT's input: source latent, mask, noisy latent.
    pub in_channels: usize,
    /// Channels of a latent.
    pub audio_acoustic_hidden_dim: usize,
    /// Latent frames per DiT token.
    pub patch_size: usize,
    /// Latent frames per audio code.
    pub pool_window_size: usize,
    /// Width of the text encoder's output.
    pub text_hidden_dim: usize,
    /// Channels of a timbre reference (latents).
    pub timbre_hidden_dim: usize,
    /// Frames of a timbre reference.
    pub timbre_fix_frame: usize,
    /// Layers of the lyric encoder.
    pub num_lyric_encoder_hidden_layers: usize,
    /// Layers of the timbre encoder.
    pub num_timbre_encoder_hidden_layers: usize,
    /// Layers of the attention pooler, and of the detokenizer.
    pub num_attention_pooler_hidden_layers: usize,
    /// Width the quantiser projects from and to.
    pub fsq_dim: usize,
    /// Levels per quantised dimension.
    pub fsq_input_levels: Vec<u32>,
    /// Whether the weights are distilled; decides the [`Family`].
    pub is_turbo: bool,
    /// Name the training gave it; for people only.
    pub model_version: Option<String>,
    /// Stem-tuned checkpoint: the caption template differs.
    pub is_lego_sft: bool,
    /// Cross-attention heads, by layer, whose scores align lyrics with time.
    pub lyric_alignment_layers_config: Option<BTreeMap<usize, Vec<usize>>>,
}

impl DitConfig {
    /// Reads the configuration of a DiT directory: `config.json`, or the four of the diffusers
    /// layout (`transformer`, `condition_encoder`, `audio_tokenizer`,
    /// `audio_token_detokenizer`).
    pub fn load(dir: &Path) -> Result<Self> {
        if !dir.join("config.json").exists() && dir.join("transformer").is_dir() {
            return DitConfig::from_fields(&diffusers_fields(dir)?);
        }
        DitConfig::from_fields(&Fields::read(&dir.join("config.json"))?)
    }

    /// Parses the text of a `config.json`; `path` is for messages.
    pub fn parse(text: &str, path: &Path) -> Result<Self> {
        DitConfig::from_fields(&Fields::parse(text.as_bytes(), path)?)
    }

    /// The schedule family.
    pub fn family(&self) -> Family {
        if self.is_turbo {
            Family::Turbo
        } else {
            Family::Base
        }
    }

    /// What layer `i` of a lyric, timbre, pooler or detokenizer stack sees: as the DiT's layer
    /// of the same number, alternating beyond its last.
    pub fn encoder_layer_type(&self, i: usize) -> LayerType {
        match self.layer_types.get(i) {
            Some(kind) => *kind,
            None if self.use_sliding_window => alternating(i),
            None => LayerType::Full,
        }
    }

    /// Number of audio codes.
    pub fn codes(&self) -> usize {
        self.fsq_input_levels.iter().map(|l| *l as usize).product()
    }

    fn from_fields(f: &Fields) -> Result<Self> {
        f.only("model_type", &json!("acestep"))?;
        refuse_unsupported(f)?;
        f.only("fsq_input_num_quantizers", &json!(1))?;
        f.only("pool_window_size", &json!(5))?;
        let layers = f.whole("num_hidden_layers", Some(24), 1..=MAX_LAYERS)?;
        let window = f.size("sliding_window", Some(128))?;
        let use_sliding_window = f.flag("use_sliding_window", Some(true))?;
        let hidden_size = f.size("hidden_size", None)?;
        let intermediate_size = f.size("intermediate_size", Some(6144))?;
        let heads = f.size("num_attention_heads", Some(16))?;
        let kv_heads = f.size("num_key_value_heads", Some(8))?;
        let encoder_hidden_size = f.size("encoder_hidden_size", Some(hidden_size))?;
        let stack = |key, default| f.whole(key, Some(default), 1..=MAX_LAYERS);
        let config = DitConfig {
            hidden_size,
            intermediate_size,
            num_hidden_layers: layers,
            num_attention_heads: heads,
            num_key_value_heads: kv_heads,
            head_dim: f.whole("head_dim", Some(128), 2..=1024)?,
            has_encoder_config: f.get("encoder_hidden_size").is_some(),
            encoder_hidden_size,
            encoder_intermediate_size: f
                .size("encoder_intermediate_size", Some(intermediate_size))?,
            encoder_num_attention_heads: f.size("encoder_num_attention_heads", Some(heads))?,
            encoder_num_key_value_heads: f.size("encoder_num_key_value_heads", Some(kv_heads))?,
            rms_norm_eps: eps(f)?,
            rope_theta: rope_theta(f)?,
            sliding_window: window,
            layer_types: layer_types(f, layers, use_sliding_window)?,
            use_sliding_window,
            in_channels: f.size("in_channels", Some(192))?,
            audio_acoustic_hidden_dim: f.size("audio_acoustic_hidden_dim", Some(64))?,
            patch_size: f.whole("patch_size", Some(2), 1..=64)?,
            pool_window_size: f.whole("pool_window_size", Some(5), 1..=1000)?,
            text_hidden_dim: f.size("text_hidden_dim", Some(1024))?,
            timbre_hidden_dim: f.size("timbre_hidden_dim", Some(64))?,
            timbre_fix_frame: f.whole("timbre_fix_frame", Some(750), 1..=15_000)?,
            num_lyric_encoder_hidden_layers: stack("num_lyric_encoder_hidden_layers", 8)?,
            num_timbre_encoder_hidden_layers: stack("num_timbre_encoder_hidden_layers", 4)?,
            num_attention_pooler_hidden_layers: stack("num_attention_pooler_hidden_layers", 2)?,
            fsq_dim: f.size("fsq_dim", Some(encoder_hidden_size))?,
            fsq_input_levels: f
                .wholes("fsq_input_levels", Some(&[8, 8, 8, 5, 5, 5]), 2..=1000)?
                .into_iter()
                .map(|l| l as u32)
                .collect(),
            is_turbo: f.flag("is_turbo", None)?,
            model_version: f.text("model_version")?.map(str::to_string),
            is_lego_sft: f.flag("is_lego_sft", Some(false))?,
            lyric_alignment_layers_config: alignment(f, layers, heads)?,
        };
        config.check(f)?;
        Ok(config)
    }

    fn check(&self, f: &Fields) -> Result<()> {
        grouped(
            f,
            "num_key_value_heads",
            self.num_attention_heads,
            self.num_key_value_heads,
        )?;
        grouped(
            f,
            "encoder_num_key_value_heads",
            self.encoder_num_attention_heads,
            self.encoder_num_key_value_heads,
        )?;
        even_head(f, self.head_dim)?;
        let agree = |key: &str, found: usize, expected: usize, what: &str| {
            if found == expected {
                return Ok(());
            }
            Err(f.refuse(key, &found.to_string(), &format!("{expected} ({what})")))
        };
        let latent = self.audio_acoustic_hidden_dim;
        agree(
            "in_channels",
            self.in_channels,
            3 * latent,
            "3 times audio_acoustic_hidden_dim",
        )?;
        agree(
            "timbre_hidden_dim",
            self.timbre_hidden_dim,
            latent,
            "audio_acoustic_hidden_dim",
        )?;
        agree(
            "fsq_dim",
            self.fsq_dim,
            self.encoder_hidden_size,
            "the width of the encoders",
        )?;
        let codes = self
            .fsq_input_levels
            .iter()
            .try_fold(1u32, |n, l| n.checked_mul(*l));
        if codes.is_none_or(|n| n > 1 << 30) {
            let found = format!("{:?}", self.fsq_input_levels);
            return Err(f.refuse("fsq_input_levels", &found, "at most 2^30 codes in all"));
        }
        Ok(())
    }
}

/// One configuration from the four files of the diffusers layout. The encoder keys appear only
/// when the widths differ, which is what tells XL from the rest there.
fn diffusers_fields(dir: &Path) -> Result<Fields> {
    let read = |part: &str| Fields::read(&dir.join(part).join("config.json"));
    let mut dit = read("transformer")?;
    let condition = read("condition_encoder")?;
    let tokenizer = read("audio_tokenizer")?;
    if dit.get("is_turbo").is_none() {
        dit.set("is_turbo", Some(json!(false)));
    }
    let narrower = condition.get("hidden_size") != dit.get("hidden_size");
    for (key, from) in [
        ("encoder_hidden_size", "hidden_size"),
        ("encoder_intermediate_size", "intermediate_size"),
        ("encoder_num_attention_heads", "num_attention_heads"),
        ("encoder_num_key_value_heads", "num_key_value_heads"),
    ] {
        dit.set(key, condition.get(from).filter(|_| narrower).cloned());
    }
    for key in [
        "text_hidden_dim",
        "timbre_hidden_dim",
        "num_lyric_encoder_hidden_layers",
        "num_timbre_encoder_hidden_layers",
    ] {
        dit.set(key, condition.get(key).cloned());
    }
    for key in [
        "pool_window_size",
        "fsq_dim",
        "fsq_input_levels",
        "fsq_input_num_quantizers",
        "num_attention_pooler_hidden_layers",
    ] {
        dit.set(key, tokenizer.get(key).cloned());
    }
    Ok(dit)
}

/// Geometry of a Qwen3 transformer: the text encoder and the language model.
#[derive(Debug, Clone, PartialEq)]
pub struct TextConfig {
    /// Rows of the embedding table.
    pub vocab_size: usize,
    /// Width.
    pub hidden_size: usize,
    /// Inner width of the gated MLP.
    pub intermediate_size: usize,
    /// Layers.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key/value heads; divides the query heads.
    pub num_key_value_heads: usize,
    /// Size of a head; even.
    pub head_dim: usize,
    /// Added to the mean square in every norm.
    pub rms_norm_eps: f32,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Longest sequence it was trained for.
    pub max_position_embeddings: usize,
    /// Whether the output head is the embedding table.
    pub tie_word_embeddings: bool,
}

/// The language model has the text encoder's architecture.
pub type LmConfig = TextConfig;

impl TextConfig {
    /// Reads `config.json` of a directory.
    pub fn load(dir: &Path) -> Result<Self> {
        TextConfig::from_fields(&Fields::read(&dir.join("config.json"))?)
    }

    /// Parses the text of a `config.json`; `path` is for messages.
    pub fn parse(text: &str, path: &Path) -> Result<Self> {
        TextConfig::from_fields(&Fields::parse(text.as_bytes(), path)?)
    }

    fn from_fields(f: &Fields) -> Result<Self> {
        f.only("model_type", &json!("qwen3"))?;
        refuse_unsupported(f)?;
        let layers = f.whole("num_hidden_layers", None, 1..=MAX_LAYERS)?;
        if layer_types(f, layers, f.flag("use_sliding_window", Some(false))?)?
            .contains(&LayerType::Sliding)
        {
            return Err(f.refuse(
                "layer_types",
                "a list with sliding_attention",
                "full_attention in every layer of a text model",
            ));
        }
        let heads = f.size("num_attention_heads", None)?;
        let hidden_size = f.size("hidden_size", None)?;
        let config = TextConfig {
            vocab_size: f.size("vocab_size", None)?,
            hidden_size,
            intermediate_size: f.size("intermediate_size", None)?,
            num_hidden_layers: layers,
            num_attention_heads: heads,
            num_key_value_heads: f.size("num_key_value_heads", None)?,
            head_dim: f.whole("head_dim", Some(128), 2..=1024)?,
            rms_norm_eps: eps(f)?,
            rope_theta: rope_theta(f)?,
            max_position_embeddings: f.whole(
                "max_position_embeddings",
                Some(32_768),
                1..=100_000_000,
            )?,
            tie_word_embeddings: f.flag("tie_word_embeddings", Some(true))?,
        };
        grouped(f, "num_key_value_heads", heads, config.num_key_value_heads)?;
        even_head(f, config.head_dim)?;
        Ok(config)
    }
}

/// Geometry of the audio autoencoder (`AutoencoderOobleck`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VaeConfig {
    /// Channels of the waveform.
    pub audio_channels: usize,
    /// Width multiples per stage, from the waveform inwards.
    pub channel_multiples: Vec<usize>,
    /// Narrowest width of the decoder.
    pub decoder_channels: usize,
    /// Channels of a latent.
    pub decoder_input_channels: usize,
    /// Strides per stage, from the waveform inwards; even.
    pub downsampling_ratios: Vec<usize>,
    /// Narrowest width of the encoder; it puts out as many channels (mean and scale).
    pub encoder_hidden_size: usize,
    /// Samples per second.
    pub sampling_rate: usize,
}

impl VaeConfig {
    /// Reads `config.json` of a directory.
    pub fn load(dir: &Path) -> Result<Self> {
        VaeConfig::from_fields(&Fields::read(&dir.join("config.json"))?)
    }

    /// Parses the text of a `config.json`; `path` is for messages.
    pub fn parse(text: &str, path: &Path) -> Result<Self> {
        VaeConfig::from_fields(&Fields::parse(text.as_bytes(), path)?)
    }

    /// Samples per latent.
    pub fn hop(&self) -> usize {
        self.downsampling_ratios.iter().product()
    }

    /// Widths from the waveform inwards, one more than there are stages: `base` times 1, then
    /// times each multiple.
    pub fn widths(&self, base: usize) -> Vec<usize> {
        std::iter::once(1)
            .chain(self.channel_multiples.iter().copied())
            .map(|m| m * base)
            .collect()
    }

    fn from_fields(f: &Fields) -> Result<Self> {
        f.only("_class_name", &json!("AutoencoderOobleck"))?;
        f.only("audio_channels", &json!(2))?;
        let config = VaeConfig {
            audio_channels: f.size("audio_channels", Some(2))?,
            channel_multiples: f.wholes("channel_multiples", None, 1..=1024)?,
            decoder_channels: f.whole("decoder_channels", None, 1..=65_536)?,
            decoder_input_channels: f.whole("decoder_input_channels", None, 1..=65_536)?,
            downsampling_ratios: f.wholes("downsampling_ratios", None, 1..=1024)?,
            encoder_hidden_size: f.whole("encoder_hidden_size", None, 1..=65_536)?,
            sampling_rate: f.whole("sampling_rate", Some(48_000), 8_000..=384_000)?,
        };
        let ratios = &config.downsampling_ratios;
        if ratios.len() != config.channel_multiples.len() {
            return Err(f.refuse(
                "channel_multiples",
                &format!("a list of {}", config.channel_multiples.len()),
                &format!("as many as downsampling_ratios has ({})", ratios.len()),
            ));
        }
        if config.encoder_hidden_size != 2 * config.decoder_input_channels {
            return Err(f.refuse(
                "encoder_hidden_size",
                &config.encoder_hidden_size.to_string(),
                "2 times decoder_input_channels (mean and scale)",
            ));
        }
        let hop = ratios.iter().try_fold(1usize, |n, r| n.checked_mul(*r));
        // An odd stride loses a sample per stage, and lengths are promised to be exact.
        if ratios.iter().any(|r| r % 2 == 1) || hop.is_none_or(|h| h > 1_000_000) {
            return Err(f.refuse(
                "downsampling_ratios",
                &format!("{ratios:?}"),
                "even strides with a product of at most 1000000",
            ));
        }
        Ok(config)
    }
}

fn alternating(i: usize) -> LayerType {
    if i.is_multiple_of(2) {
        LayerType::Sliding
    } else {
        LayerType::Full
    }
}

/// What no published model uses and no program here computes.
fn refuse_unsupported(f: &Fields) -> Result<()> {
    f.only("hidden_act", &json!("silu"))?;
    f.only("attention_bias", &json!(false))?;
    for key in ["rope_scaling", "rope_parameters"] {
        let Some(value) = f.get(key) else { continue };
        let kind = value.get("rope_type").or_else(|| value.get("type"));
        if kind.is_none_or(|k| k != "default") {
            return Err(f.refuse(key, &brief(value), "null or the type \"default\""));
        }
    }
    Ok(())
}

fn eps(f: &Fields) -> Result<f32> {
    Ok(f.number("rms_norm_eps", 1e-6, 1e-12..=1e-1)? as f32)
}

/// `rope_theta`, which newer files keep inside `rope_parameters`.
fn rope_theta(f: &Fields) -> Result<f64> {
    let nested = f.get("rope_parameters").and_then(|p| p.get("rope_theta"));
    match nested {
        Some(value) => value
            .as_f64()
            .filter(|x| (1.0..=1e12).contains(x))
            .ok_or_else(|| {
                f.refuse(
                    "rope_parameters.rope_theta",
                    &brief(value),
                    "a number from 1",
                )
            }),
        None => f.number("rope_theta", 1e6, 1.0..=1e12),
    }
}

fn layer_types(f: &Fields, layers: usize, sliding: bool) -> Result<Vec<LayerType>> {
    let Some(value) = f.get("layer_types") else {
        let kind = |i| {
            if sliding {
                alternating(i)
            } else {
                LayerType::Full
            }
        };
        return Ok((0..layers).map(kind).collect());
    };
    let refuse = |expected: &str| f.refuse("layer_types", &brief(value), expected);
    let list = value.as_array().ok_or_else(|| refuse("a list"))?;
    if list.len() != layers {
        let found = format!("a list of {}", list.len());
        let expected = format!("one entry for each of the {layers} layers (num_hidden_layers)");
        return Err(f.refuse("layer_types", &found, &expected));
    }
    list.iter()
        .map(|entry| match entry.as_str() {
            // An explicit list wins over `use_sliding_window`.
            Some("sliding_attention") => Ok(LayerType::Sliding),
            Some("full_attention") => Ok(LayerType::Full),
            _ => Err(refuse(
                "entries \"sliding_attention\" or \"full_attention\"",
            )),
        })
        .collect()
}

fn grouped(f: &Fields, key: &str, heads: usize, kv_heads: usize) -> Result<()> {
    if heads.is_multiple_of(kv_heads) {
        return Ok(());
    }
    Err(f.refuse(
        key,
        &kv_heads.to_string(),
        &format!("a divisor of the {heads} query heads"),
    ))
}

fn even_head(f: &Fields, head_dim: usize) -> Result<()> {
    if head_dim.is_multiple_of(2) {
        return Ok(());
    }
    Err(f.refuse(
        "head_dim",
        &head_dim.to_string(),
        "an even number (rotary embedding)",
    ))
}

fn alignment(
    f: &Fields,
    layers: usize,
    heads: usize,
) -> Result<Option<BTreeMap<usize, Vec<usize>>>> {
    const KEY: &str = "lyric_alignment_layers_config";
    let Some(value) = f.get(KEY) else {
        return Ok(None);
    };
    let refuse = || {
        let expected = format!("lists of heads below {heads} by layer below {layers}");
        f.refuse(KEY, &brief(value), &expected)
    };
    let entry = |(layer, list): (&String, &Value)| -> Result<(usize, Vec<usize>)> {
        let layer = layer
            .parse()
            .ok()
            .filter(|l| *l < layers)
            .ok_or_else(refuse)?;
        Ok((
            layer,
            whole_list(list, &(0..=heads - 1)).ok_or_else(refuse)?,
        ))
    };
    value
        .as_object()
        .ok_or_else(refuse)?
        .iter()
        .map(entry)
        .collect::<Result<_>>()
        .map(Some)
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
