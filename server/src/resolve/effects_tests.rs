//! Every field of a request means something: sent with another value than its default, it changes
//! what is made, or stands in the list of those that are only accepted.

use super::tests::http;
use crate::fields::FIELDS;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

/// Fields that are read elsewhere: the model by the catalogue, the key by the authorization.
const ELSEWHERE: [&str; 2] = ["model", "ai_token"];
/// Fields that clients send and that mean nothing here, as the table says.
const ACCEPTED: [&str; 3] = ["lm_backend", "is_format_caption", "use_tiled_decode"];

/// Names of fields, what stands beside each so that it can matter, and its value.
type Effects = Vec<(&'static str, Value, Value)>;

/// Texts, metadata and what the language model does.
fn texts() -> Effects {
    vec![
        ("prompt", json!({}), json!("a waltz")),
        ("lyrics", json!({}), json!("la la")),
        ("global_caption", json!({}), json!("a waltz")),
        ("vocal_language", json!({}), json!("de")),
        ("key_scale", json!({}), json!("C Major")),
        ("time_signature", json!({}), json!("3/4")),
        ("bpm", json!({}), json!(90)),
        ("audio_duration", json!({}), json!(33.5)),
        ("instruction", json!({}), json!("Do it:")),
        ("get_lrc", json!({}), json!(true)),
        ("thinking", json!({}), json!(true)),
        ("sample_mode", json!({}), json!(true)),
        ("sample_query", json!({}), json!("a sad song")),
        ("use_format", json!({}), json!(true)),
        (
            "audio_code_string",
            json!({}),
            json!(["<|audio_code_1|>", "<|audio_code_2|>"]),
        ),
        ("lm_model_path", json!({}), json!("acestep-5Hz-lm-4B")),
        ("lm_temperature", json!({}), json!(0.5)),
        ("lm_cfg_scale", json!({}), json!(1.5)),
        ("lm_negative_prompt", json!({}), json!("drums")),
        ("lm_top_k", json!({}), json!(7)),
        ("lm_top_p", json!({}), json!(1)),
        ("lm_repetition_penalty", json!({}), json!(1.2)),
        ("constrained_decoding", json!({}), json!(false)),
        ("constrained_decoding_debug", json!({}), json!(true)),
        ("use_cot_caption", json!({}), json!(false)),
        ("use_cot_language", json!({}), json!(false)),
        ("use_cot_metas", json!({}), json!(false)),
        ("allow_lm_batch", json!({}), json!(false)),
        ("analysis_only", json!({}), json!(true)),
        ("full_analysis_only", json!({}), json!(true)),
        ("extract_codes_only", json!({}), json!(true)),
    ]
}

/// The loop, seeds and noise.
fn sampling() -> Effects {
    vec![
        ("inference_steps", json!({}), json!(12)),
        ("guidance_scale", json!({}), json!(3)),
        ("shift", json!({}), json!(2)),
        ("infer_method", json!({}), json!("sde")),
        ("timesteps", json!({}), json!("0.9,0.5")),
        ("use_adg", json!({}), json!(true)),
        ("cfg_interval_start", json!({}), json!(0.1)),
        ("cfg_interval_end", json!({}), json!(0.9)),
        ("sampler_mode", json!({}), json!("heun")),
        ("velocity_norm_threshold", json!({}), json!(2)),
        ("velocity_ema_factor", json!({}), json!(0.1)),
        ("dcw_enabled", json!({}), json!(false)),
        ("dcw_mode", json!({}), json!("low")),
        ("dcw_scaler", json!({}), json!(0.1)),
        ("dcw_high_scaler", json!({}), json!(0.1)),
        ("dcw_wavelet", json!({}), json!("db4")),
        ("use_random_seed", json!({"seed": 5}), json!(false)),
        ("seed", json!({"use_random_seed": false}), json!("5,6")),
        ("batch_size", json!({}), json!(3)),
        ("retake_variance", json!({}), json!(0.5)),
        ("retake_seed", json!({"retake_variance": 0.5}), json!(5)),
    ]
}

/// Tasks, and the files that come of them.
fn tasks_and_files() -> Effects {
    vec![
        ("task_type", json!({}), json!("cover")),
        ("track_name", json!({"task_type": "lego"}), json!("drums")),
        (
            "track_classes",
            json!({"task_type": "complete"}),
            json!(["bass"]),
        ),
        ("reference_audio_path", json!({}), json!("a.wav")),
        (
            "src_audio_path",
            json!({"task_type": "cover"}),
            json!("a.wav"),
        ),
        (
            "repainting_start",
            json!({"task_type": "repaint"}),
            json!(2),
        ),
        ("repainting_end", json!({"task_type": "repaint"}), json!(9)),
        (
            "audio_cover_strength",
            json!({"task_type": "cover"}),
            json!(0.5),
        ),
        (
            "cover_noise_strength",
            json!({"task_type": "cover"}),
            json!(0.5),
        ),
        (
            "chunk_mask_mode",
            json!({"task_type": "repaint"}),
            json!("explicit"),
        ),
        (
            "repaint_mode",
            json!({"task_type": "repaint"}),
            json!("aggressive"),
        ),
        (
            "repaint_strength",
            json!({"task_type": "repaint"}),
            json!(0.9),
        ),
        (
            "repaint_latent_crossfade_frames",
            json!({"task_type": "repaint"}),
            json!(3),
        ),
        (
            "repaint_wav_crossfade_sec",
            json!({"task_type": "repaint"}),
            json!(0.3),
        ),
        ("audio_format", json!({}), json!("flac")),
        ("latent_shift", json!({}), json!(0.1)),
        ("latent_rescale", json!({}), json!(1.1)),
        ("enable_normalization", json!({}), json!(false)),
        ("normalization_db", json!({}), json!(-3)),
        ("fade_in_duration", json!({}), json!(1)),
        ("fade_out_duration", json!({}), json!(1)),
        ("mp3_bitrate", json!({}), json!("320k")),
        ("mp3_sample_rate", json!({}), json!(44100)),
        (
            "opus_bitrate",
            json!({"audio_format": "opus"}),
            json!("64k"),
        ),
        ("aac_bitrate", json!({"audio_format": "aac"}), json!("96k")),
    ]
}

#[test]
fn every_field_means_something() {
    let effects = [texts(), sampling(), tasks_and_files()].concat();
    let mut seen: BTreeSet<&str> = ELSEWHERE.into_iter().chain(ACCEPTED).collect();
    for (name, beside, value) in &effects {
        assert!(seen.insert(*name), "{name} stands here twice");
        let mut sent: Map<String, Value> = beside.as_object().unwrap().clone();
        sent.insert((*name).to_owned(), value.clone());
        // A base model: turbo models have no guidance.
        let before = http(false, beside.clone()).unwrap();
        let after = http(false, Value::Object(sent)).unwrap();
        assert_ne!(before, after, "{name}");
        assert_eq!(before.notes, after.notes, "{name} was not taken as sent");
    }
    let known: BTreeSet<&str> = FIELDS.iter().map(|field| field.name).collect();
    assert_eq!(seen, known);
}

#[test]
fn fields_that_are_only_accepted_say_so() {
    for name in ACCEPTED {
        let field = FIELDS.iter().find(|field| field.name == name).unwrap();
        let says = field.help.contains("No effect") || field.help.contains("Accepted");
        assert!(says, "{name}: {}", field.help);
    }
}
