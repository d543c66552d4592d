//! The one table of request fields. A row gives a field its names, kind, default, range and
//! help; the struct of what a client said ([`RawRequest`]), the lookup of aliases, the accessors
//! with defaults and the printed documentation all come from it.
//!
//! Names, defaults and ranges are those of upstream's API document (`docs/en/API.md`) and of its
//! request parser (`acestep/api/http/release_task_param_parser.py`).

use crate::coerce::{Bool, Coerce, Float, Int, Kind, Seed, Text, Texts};
use crate::raw::Sources;
use serde_json::{Map, Value};
use std::sync::LazyLock;

/// One row.
#[derive(Debug)]
pub struct Field {
    /// Canonical name.
    pub name: &'static str,
    /// Further names in the order in which they are tried.
    pub aliases: &'static [&'static str],
    /// How its value is read.
    pub kind: Kind,
    /// The default as documentation shows it.
    pub default: &'static str,
    /// Smallest and largest value; a number outside is clamped over HTTP, refused on the command
    /// line.
    pub range: Option<(f64, f64)>,
    /// The only texts allowed; anything else is refused. Empty: any text.
    pub choices: &'static [&'static str],
    /// One line for people.
    pub help: &'static str,
}

/// A text that a client sent where only certain texts or types are allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal(pub String);

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

macro_rules! fields {
    ($($name:ident: $kind:ident = $default:tt, [$($alias:literal),*], $range:tt, [$($choice:literal),*], $help:literal;)*) => {
        /// Every field, in the order of the documentation.
        pub static FIELDS: &[Field] = &[$(Field {
            name: stringify!($name),
            aliases: &[$($alias),*],
            kind: <$kind as Coerce>::KIND,
            default: stringify!($default),
            range: fields!(@range $range),
            choices: &[$($choice),*],
            help: $help,
        }),*];

        /// What a client said: `None` is "not given" or "unreadable", which mean the same.
        #[derive(Debug, Clone, Default, PartialEq)]
        #[allow(missing_docs)]
        pub struct RawRequest {
            $(pub $name: Option<$kind>,)*
        }

        /// The values with the table's defaults applied.
        #[allow(missing_docs)]
        impl RawRequest {
            $(fields!(@accessor $name, $kind, $default);)*

            /// Reads every field. Fails only where a kind refuses a type.
            pub fn read(sources: &Sources) -> Result<Self, Refusal> {
                let mut names = NAMES.iter();
                Ok(RawRequest {
                    $($name: match names.next().and_then(|n| sources.find(n)) {
                        None => None,
                        Some(value) => <$kind as Coerce>::coerce(value)
                            .map_err(|e| Refusal(format!(concat!(stringify!($name), " {}"), e)))?,
                    },)*
                })
            }

            /// What was said, by canonical names; [`RawRequest::read`] makes the same of it.
            pub fn to_fields(&self) -> Map<String, Value> {
                let mut fields = Map::new();
                $(if let Some(value) = &self.$name {
                    fields.insert(stringify!($name).to_owned(), value.to_json());
                })*
                fields
            }
        }
    };
    (@range ()) => { None };
    (@range ($low:literal to $high:literal)) => { Some(($low, $high)) };
    (@accessor $name:ident, $kind:ident, null) => {
        pub fn $name(&self) -> Option<$kind> { self.$name.clone() }
    };
    (@accessor $name:ident, $kind:ident, $default:tt) => {
        pub fn $name(&self) -> $kind {
            self.$name.clone().unwrap_or_else(|| $kind::from($default))
        }
    };
}

fields! {
    prompt: Text = "", ["caption"], (), [], "Description of the music";
    lyrics: Text = "", [], (), [], "Lyrics; empty, [inst] or [instrumental] for none";
    global_caption: Text = "", [], (), [], "Description of the whole song, for lego with stem models";
    thinking: Bool = false, [], (), [], "The language model plans the song as audio codes";
    sample_mode: Bool = false, ["sampleMode"], (), [], "The language model writes caption, lyrics and metadata";
    sample_query: Text = "", ["sampleQuery", "description", "desc"], (), [], "What to write in sample mode; text switches it on";
    use_format: Bool = false, ["useFormat", "format"], (), [], "The language model rewrites caption and lyrics";
    model: Text = null, ["model_name", "modelName", "dit_model", "ditModel"], (), [], "Name of a loaded model; anything else is the primary model";
    vocal_language: Text = "en", ["vocalLanguage", "language"], (), [], "Language code of the lyrics";
    audio_format: Text = "mp3", [], (), ["flac", "mp3", "opus", "aac", "wav", "wav32"], "Format of the result";
    bpm: Int = null, [], (30.0 to 300.0), [], "Beats per minute";
    key_scale: Text = "", ["keyscale", "keyScale", "key"], (), [], "For example C Major, F# minor, Am";
    time_signature: Text = "", ["timesignature", "timeSignature"], (), [], "2, 3, 4 or 6; 4/4 and the like are understood";
    audio_duration: Float = null, ["duration", "audioDuration", "target_duration", "targetDuration"], (10.0 to 600.0), [], "Length in seconds";
    audio_code_string: Texts = null, ["audioCodeString", "audio_codes"], (), [], "Audio codes instead of a plan by the language model";
    inference_steps: Int = 8, ["inferenceSteps"], (1.0 to 200.0), [], "Denoising steps; turbo models take 1 to 20";
    guidance_scale: Float = 7.0, ["guidanceScale"], (1.0 to 30.0), [], "Strength of the caption; no effect on turbo models";
    use_random_seed: Bool = true, ["useRandomSeed"], (), [], "Draw the seeds";
    seed: Seed = null, [], (), [], "One seed, or one per item separated by commas, with use_random_seed false";
    batch_size: Int = 2, [], (1.0 to 8.0), [], "Number of songs";
    shift: Float = 3.0, [], (1.0 to 5.0), [], "Shift of the schedule; turbo models know 1, 2 and 3";
    infer_method: Text = "ode", ["inferMethod"], (), [], "ode (deterministic) or sde";
    timesteps: Text = null, [], (), [], "Descending times between 1 and 0 separated by commas, instead of steps and shift";
    use_adg: Bool = false, [], (), [], "Angle-based guidance (base models)";
    cfg_interval_start: Float = 0.0, [], (0.0 to 1.0), [], "Guidance starts at this time";
    cfg_interval_end: Float = 1.0, [], (0.0 to 1.0), [], "Guidance ends at this time";
    lm_model_path: Text = null, [], (), [], "Language model to load if none is loaded yet";
    lm_backend: Text = "vllm", [], (), ["vllm", "pt", "mlx"], "Accepted; the language model always runs on our own engine";
    lm_temperature: Float = 0.85, [], (0.0 to 2.0), [], "Temperature of the language model";
    lm_cfg_scale: Float = 2.5, [], (1.0 to 100.0), [], "Guidance of the language model; above 1 is on";
    lm_negative_prompt: Text = "NO USER INPUT", [], (), [], "What the language model is guided away from";
    lm_top_k: Int = null, [], (), [], "Sample from the k likeliest tokens; 0 is off";
    lm_top_p: Float = 0.9, [], (), [], "Sample from the likeliest tokens with this total probability; 1 is off";
    lm_repetition_penalty: Float = 1.0, [], (0.1 to 10.0), [], "Penalty of tokens that were written before; 1 is off";
    constrained_decoding: Bool = true, ["constrainedDecoding", "constrained"], (), [], "Metadata keeps the grammar; audio codes always do";
    constrained_decoding_debug: Bool = false, ["constrainedDecodingDebug"], (), [], "Log every step of the grammar";
    use_cot_caption: Bool = true, ["cot_caption", "cot-caption"], (), [], "The language model may rewrite the caption";
    use_cot_language: Bool = true, ["cot_language", "cot-language"], (), [], "The language model may find the language";
    use_cot_metas: Bool = true, [], (), [], "The language model completes the metadata";
    allow_lm_batch: Bool = true, ["allowLmBatch", "parallel_thinking"], (), [], "The language model plans the batch at once";
    is_format_caption: Bool = false, ["isFormatCaption"], (), [], "No effect";
    use_tiled_decode: Bool = true, ["useTiledDecode"], (), [], "No effect: tiles are exact and always used";
    task_type: Text = "text2music", ["taskType"], (), ["text2music", "cover", "cover-nofsq", "repaint", "lego", "extract", "complete"], "What to make";
    instruction: Text = "", [], (), [], "Instruction line of the prompt; empty is the task's own";
    track_name: Text = null, ["trackName"], (), [], "Track for lego and extract";
    track_classes: Texts = null, ["trackClasses", "instruments"], (), [], "Tracks for complete";
    reference_audio_path: Text = "", ["ref_audio_path", "referenceAudioPath", "refAudioPath"], (), [], "Audio whose sound to take up";
    src_audio_path: Text = "", ["ctx_audio_path", "sourceAudioPath", "srcAudioPath", "ctxAudioPath"], (), [], "Audio to work on";
    repainting_start: Float = 0.0, [], (), [], "Start of the repainted part in seconds";
    repainting_end: Float = null, [], (), [], "End of the repainted part in seconds; absent, 0 or -1 is the end";
    audio_cover_strength: Float = 1.0, ["audioCoverStrength", "cover_strength", "coverStrength"], (0.0 to 1.0), [], "How much of the steps follow the source";
    cover_noise_strength: Float = 0.0, ["coverNoiseStrength"], (0.0 to 1.0), [], "0 starts from noise, 1 closest to the source";
    chunk_mask_mode: Text = "auto", [], (), ["explicit", "auto"], "How the changed part is marked";
    repaint_mode: Text = "balanced", [], (), ["conservative", "balanced", "aggressive"], "How freely to repaint";
    repaint_strength: Float = 0.5, [], (), [], "0 to 1, for the mode balanced";
    repaint_latent_crossfade_frames: Int = 10, [], (), [], "Width of the crossfade in frames of 1/25 s";
    repaint_wav_crossfade_sec: Float = 0.0, [], (), [], "Width of the crossfade of the audio in seconds";
    analysis_only: Bool = false, ["analysisOnly"], (), [], "Only metadata, by the language model";
    full_analysis_only: Bool = false, ["fullAnalysisOnly"], (), [], "Metadata, lyrics and codes of the source";
    extract_codes_only: Bool = false, ["extractCodesOnly"], (), [], "Only the audio codes of the source";
    retake_seed: Seed = null, ["retakeSeed"], (), [], "Seeds of a second noise";
    retake_variance: Float = 0.0, ["retakeVariance"], (0.0 to 1.0), [], "How much of the second noise is mixed in";
    get_lrc: Bool = false, [], (), [], "Find out when each line of the lyrics is sung; comes back as lrc";
    ai_token: Text = "", [], (), [], "The API key";
    sampler_mode: Text = "euler", [], (), [], "euler or heun";
    velocity_norm_threshold: Float = 0.0, [], (0.0 to 1000.0), [], "Largest ratio of the norms of velocity and state; 0 is off";
    velocity_ema_factor: Float = 0.0, [], (0.0 to 1.0), [], "Weight of the previous velocity; 0 is off";
    dcw_enabled: Bool = true, [], (), [], "Wavelet correction";
    dcw_mode: Text = "double", [], (), [], "double, low, high or pix";
    dcw_scaler: Float = 0.05, [], (0.0 to 1.0), [], "Strength of the wavelet correction in the low band";
    dcw_high_scaler: Float = 0.02, [], (0.0 to 1.0), [], "Strength of the wavelet correction in the high band";
    dcw_wavelet: Text = "haar", [], (), [], "Wavelet of the correction";
    latent_shift: Float = 0.0, [], (-10.0 to 10.0), [], "Added to the latents before decoding";
    latent_rescale: Float = 1.0, [], (0.01 to 10.0), [], "Multiplies the latents before decoding";
    enable_normalization: Bool = true, [], (), [], "Bring the peak to normalization_db; a repainted recording keeps its level unless this is sent";
    normalization_db: Float = (-1.0), [], (-60.0 to 0.0), [], "Peak level in dB";
    fade_in_duration: Float = 0.0, [], (0.0 to 600.0), [], "Seconds of fade-in";
    fade_out_duration: Float = 0.0, [], (0.0 to 600.0), [], "Seconds of fade-out";
    mp3_bitrate: Text = "128k", [], (), [], "128k, 160k, 192k, 224k, 256k or 320k";
    opus_bitrate: Text = "128k", [], (32.0 to 510.0), [], "32k to 510k";
    aac_bitrate: Text = "192k", [], (64.0 to 320.0), [], "64k to 320k";
    mp3_sample_rate: Int = 48000, [], (), [], "48000, 44100 or 32000";
}

/// Names of each field in the order in which they are tried: the table's, then the camelCase
/// form of each.
static NAMES: LazyLock<Vec<Vec<String>>> = LazyLock::new(|| {
    let names = |field: &Field| {
        let listed = || std::iter::once(field.name).chain(field.aliases.iter().copied());
        let mut names: Vec<String> = listed().map(str::to_owned).collect();
        for camel in listed().map(camel_case) {
            if !names.contains(&camel) {
                names.push(camel);
            }
        }
        names
    };
    FIELDS.iter().map(names).collect()
});

/// Every name by which field `index` of [`FIELDS`] is known.
pub fn names(index: usize) -> &'static [String] {
    &NAMES[index]
}

/// The row of a field.
///
/// # Panics
/// When there is no such row; every caller names one literally.
pub fn field(name: &str) -> &'static Field {
    match FIELDS.iter().find(|f| f.name == name) {
        Some(field) => field,
        None => panic!("no request field is called {name}"),
    }
}

/// `audio_cover_strength` as `audioCoverStrength`.
fn camel_case(name: &str) -> String {
    let mut parts = name.split(['_', '-']);
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let mut chars = part.chars();
        out.extend(chars.next().map(|c| c.to_ascii_uppercase()));
        out.push_str(chars.as_str());
    }
    out
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::collections::HashMap;

    /// A value of the kind that is not its default.
    fn sample(kind: Kind) -> Value {
        match kind {
            Kind::Text => json!("text"),
            Kind::Int => json!(77),
            Kind::Float => json!(0.625),
            Kind::Bool => json!("yes"),
            Kind::Texts => json!(["a"]),
            Kind::Seed => json!("5,6"),
        }
    }

    #[test]
    fn no_name_means_two_fields() {
        let mut seen = HashMap::new();
        for (index, row) in FIELDS.iter().enumerate() {
            for name in names(index) {
                if let Some(other) = seen.insert(name.clone(), row.name) {
                    panic!("{name} means both {other} and {}", row.name);
                }
            }
        }
    }

    #[test]
    fn every_name_of_every_field_is_read_alike() {
        for (index, row) in FIELDS.iter().enumerate() {
            let canonical = {
                let body = json!({ row.name: sample(row.kind) });
                RawRequest::read(&Sources::new(body.as_object().unwrap().clone())).unwrap()
            };
            assert_ne!(canonical, RawRequest::default(), "{}", row.name);
            let again = RawRequest::read(&Sources::new(canonical.to_fields())).unwrap();
            assert_eq!(again, canonical, "{} as it is kept", row.name);
            for name in names(index) {
                for body in [
                    json!({ name.as_str(): sample(row.kind) }),
                    json!({ "param_obj": { name.as_str(): sample(row.kind) } }),
                    json!({ "metas": { name.as_str(): sample(row.kind) } }),
                ] {
                    let sources = Sources::new(body.as_object().unwrap().clone());
                    assert_eq!(RawRequest::read(&sources).unwrap(), canonical, "{body}");
                }
            }
        }
    }

    #[test]
    fn wrong_types_read_as_not_given() {
        for row in FIELDS {
            if matches!(row.kind, Kind::Int | Kind::Float) {
                for wrong in [json!("abc"), json!(""), json!([]), json!({}), Value::Null] {
                    let body = json!({ row.name: wrong });
                    let sources = Sources::new(body.as_object().unwrap().clone());
                    assert_eq!(
                        RawRequest::read(&sources).unwrap(),
                        RawRequest::default(),
                        "{body}"
                    );
                }
            }
        }
    }

    #[test]
    fn types_that_are_refused_name_the_field() {
        for body in [
            json!({"seed": 1.5}),
            json!({"seed": [1]}),
            json!({"track_classes": [1]}),
        ] {
            let object = body.as_object().unwrap().clone();
            let name = object.keys().next().unwrap().clone();
            let refusal = RawRequest::read(&Sources::new(object)).unwrap_err();
            assert!(refusal.0.starts_with(&name), "{refusal}");
        }
    }

    #[test]
    fn defaults_are_the_documented_ones() {
        let raw = RawRequest::default();
        assert_eq!(raw.inference_steps(), 8);
        assert_eq!(raw.guidance_scale(), 7.0);
        assert_eq!(raw.batch_size(), 2);
        assert_eq!(raw.shift(), 3.0);
        assert_eq!(raw.audio_format(), "mp3");
        assert_eq!(raw.vocal_language(), "en");
        assert_eq!(raw.normalization_db(), -1.0);
        assert_eq!(raw.audio_duration(), None);
        assert!(raw.use_random_seed());
    }

    #[test]
    fn defaults_lie_within_ranges() {
        for row in FIELDS {
            if let (Some((low, high)), Ok(default)) = (
                row.range,
                row.default
                    .trim_matches(['(', ')'])
                    .replace(' ', "")
                    .parse::<f64>(),
            ) {
                assert!(low <= default && default <= high, "{}", row.name);
            }
        }
    }

    #[test]
    fn camel_case_forms() {
        assert_eq!(camel_case("audio_cover_strength"), "audioCoverStrength");
        assert_eq!(camel_case("cot-caption"), "cotCaption");
        assert_eq!(camel_case("seed"), "seed");
    }
}
