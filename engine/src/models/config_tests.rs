//! Configurations: defaults, fallbacks, and a refusal that names file, key, found and expected.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::error::Error;
use serde_json::{Value, json};

fn xl() -> Value {
    json!({
        "architectures": ["AceStepConditionGenerationModel"], "model_type": "acestep",
        "hidden_size": 56, "intermediate_size": 112, "num_hidden_layers": 4,
        "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 128,
        "layer_types": ["full_attention", "full_attention", "sliding_attention", "full_attention"],
        "sliding_window": 4, "encoder_hidden_size": 40, "encoder_intermediate_size": 96,
        "encoder_num_attention_heads": 2, "encoder_num_key_value_heads": 1, "fsq_dim": 40,
        "text_hidden_dim": 64, "is_turbo": true, "rope_scaling": null,
        "lyric_alignment_layers_config": {"3": [0, 2]}, "a_key_of_the_future": [1]
    })
}

fn with(mut base: Value, key: &str, value: Value) -> Value {
    base.as_object_mut().unwrap().insert(key.to_string(), value);
    base
}

fn without(mut base: Value, key: &str) -> Value {
    base.as_object_mut().unwrap().remove(key);
    base
}

fn dit(value: &Value) -> Result<DitConfig> {
    DitConfig::parse(&value.to_string(), Path::new("m/config.json"))
}

#[track_caller]
fn refused(value: &Value, parts: &[&str]) {
    let Err(Error::Corrupt(text)) = dit(value) else {
        panic!("{value} was accepted")
    };
    for part in ["m/config.json"].iter().chain(parts) {
        assert!(text.contains(part), "{part:?} is not in {text:?}");
    }
}

#[test]
fn a_dit_keeps_what_the_file_says() {
    let c = dit(&xl()).unwrap();
    assert_eq!(
        (
            c.hidden_size,
            c.encoder_hidden_size,
            c.encoder_intermediate_size
        ),
        (56, 40, 96)
    );
    assert!(c.has_encoder_config);
    assert_eq!(c.layer_types[..2], [LayerType::Full, LayerType::Full]);
    assert_eq!(c.encoder_layer_type(0), LayerType::Full);
    assert_eq!(c.encoder_layer_type(2), LayerType::Sliding);
    assert_eq!(
        c.encoder_layer_type(4),
        LayerType::Sliding,
        "beyond the list: even slides"
    );
    assert_eq!(c.encoder_layer_type(5), LayerType::Full);
    assert_eq!(c.lyric_alignment_layers_config.unwrap()[&3], [0, 2]);
    assert_eq!(
        c.timbre_fix_frame, 750,
        "an absent key takes upstream's default"
    );
}

#[test]
fn absent_encoder_keys_fall_back_to_the_decoder() {
    let c = dit(&json!({"hidden_size": 64, "is_turbo": false, "num_hidden_layers": 2})).unwrap();
    assert_eq!(
        (c.encoder_hidden_size, c.encoder_intermediate_size),
        (64, 6144)
    );
    assert!(!c.has_encoder_config);
    assert_eq!(c.family(), Family::Base);
    assert_eq!(c.layer_types, [LayerType::Sliding, LayerType::Full]);
    assert_eq!(c.codes(), 64_000);
}

#[test]
fn without_a_window_nothing_slides() {
    let c = with(xl(), "use_sliding_window", json!(false));
    let c = dit(&without(c, "layer_types")).unwrap();
    assert!(c.layer_types.iter().all(|t| *t == LayerType::Full));
    assert_eq!(c.encoder_layer_type(8), LayerType::Full);
}

#[test]
fn listed_layers_win_over_the_switch() {
    let c = dit(&with(xl(), "use_sliding_window", json!(false))).unwrap();
    assert_eq!(c.layer_types[1..3], [LayerType::Full, LayerType::Sliding]);
    assert_eq!(c.encoder_layer_type(4), LayerType::Full);
}

#[test]
fn every_refusal_names_key_found_and_expected() {
    for (key, value, expected) in [
        ("hidden_size", json!("64"), "whole number"),
        ("hidden_size", json!(0), "1 to 1000000"),
        ("hidden_size", json!(2_000_000), "1 to 1000000"),
        ("hidden_size", json!(-1), "1 to 1000000"),
        ("hidden_size", json!(64.5), "whole number"),
        ("num_hidden_layers", json!(5), "5 layers"),
        ("layer_types", json!(["full_attention"]), "4 layers"),
        ("layer_types", json!("sliding"), "a list"),
        ("layer_types", json!([1, 2, 3, 4]), "sliding_attention"),
        ("num_key_value_heads", json!(3), "divisor of the 4"),
        ("encoder_num_key_value_heads", json!(3), "divisor of the 2"),
        ("head_dim", json!(5), "even"),
        ("timbre_fix_frame", json!(15_001), "1 to 15000"),
        ("hidden_act", json!("gelu"), "silu"),
        (
            "rope_scaling",
            json!({"type": "yarn", "factor": 4}),
            "default",
        ),
        ("attention_bias", json!(true), "false"),
        ("is_turbo", json!(1), "true or false"),
        ("in_channels", json!(128), "192"),
        ("fsq_dim", json!(64), "40"),
        ("pool_window_size", json!(4), "5"),
        ("fsq_input_levels", json!([8, 1]), "2 to 1000"),
        (
            "fsq_input_levels",
            json!([1000, 1000, 1000, 1000, 1000, 1000, 1000]),
            "2^30",
        ),
        ("fsq_input_num_quantizers", json!(2), "1"),
        ("rms_norm_eps", json!(-1.0), "number"),
        ("rope_theta", json!("1e6"), "number"),
        (
            "lyric_alignment_layers_config",
            json!({"9": [0]}),
            "below 4",
        ),
        (
            "lyric_alignment_layers_config",
            json!({"1": [7]}),
            "below 4",
        ),
        ("model_type", json!("qwen3"), "acestep"),
    ] {
        let named = if key == "num_hidden_layers" {
            "layer_types"
        } else {
            key
        };
        refused(&with(xl(), key, value), &[named, expected]);
    }
    refused(&without(xl(), "is_turbo"), &["is_turbo is missing"]);
    refused(&without(xl(), "hidden_size"), &["hidden_size is missing"]);
    refused(&json!([1]), &["expected a JSON object", "a list"]);
    let cut = &xl().to_string()[..100];
    let text = DitConfig::parse(cut, Path::new("m/config.json"))
        .unwrap_err()
        .to_string();
    assert!(
        text.contains("not valid JSON") && text.contains("download"),
        "{text}"
    );
}

#[test]
fn text_and_vae_configurations() {
    let path = Path::new("m/config.json");
    let text = json!({
        "model_type": "qwen3", "vocab_size": 3026, "hidden_size": 64, "intermediate_size": 160,
        "num_hidden_layers": 3, "num_attention_heads": 2, "num_key_value_heads": 1,
        "sliding_window": null, "use_sliding_window": false,
        "rope_parameters": {"rope_type": "default", "rope_theta": 5e5}
    });
    let c = TextConfig::parse(&text.to_string(), path).unwrap();
    assert_eq!((c.vocab_size, c.head_dim, c.rope_theta), (3026, 128, 5e5));
    for (key, value) in [
        ("layer_types", json!(["full_attention"])),
        ("use_sliding_window", json!(true)),
        ("vocab_size", json!(null)),
        ("num_key_value_heads", json!(4)),
    ] {
        let error = TextConfig::parse(&with(text.clone(), key, value).to_string(), path);
        assert!(matches!(error, Err(Error::Corrupt(_))), "{key}");
    }

    let vae = json!({
        "_class_name": "AutoencoderOobleck", "audio_channels": 2, "channel_multiples": [1, 2],
        "decoder_channels": 6, "decoder_input_channels": 4, "downsampling_ratios": [2, 10],
        "encoder_hidden_size": 8, "sampling_rate": 48000
    });
    let c = VaeConfig::parse(&vae.to_string(), path).unwrap();
    assert_eq!((c.hop(), c.widths(6)), (20, vec![6, 6, 12]));
    for (key, value) in [
        ("downsampling_ratios", json!([2])),
        ("downsampling_ratios", json!([3, 10])),
        ("downsampling_ratios", json!([1024, 1024])),
        ("encoder_hidden_size", json!(7)),
        ("audio_channels", json!(1)),
        ("_class_name", json!("AutoencoderKL")),
        ("channel_multiples", json!([])),
    ] {
        let error = VaeConfig::parse(&with(vae.clone(), key, value).to_string(), path);
        assert!(matches!(error, Err(Error::Corrupt(_))), "{key}");
    }
}
