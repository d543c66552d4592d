//! A recorded request through the whole engine: text in, waveform out.

use super::bench::Bench;
use super::golden::Golden;
use super::kinds::TASKS;
use super::report::{Kind, Reporter};
use super::sampler::Params;
use engine::sample::noise::NoiseKind;
use engine::song::prepare::instruction;
use engine::song::{Engine, EngineOptions, Metas, NoWatch, Output, SongRequest, StageTimes};
use engine::text::{parse_codes, prompt};
use engine::{Error, Result};
use serde_json::{Map, Value};

/// Keys of a request that plain generation understands. A request with another key belongs to a
/// task that is still to come.
const KEYS: [&str; 29] = [
    "audio_code_string",
    "audio_cover_strength",
    "captions",
    "lyrics",
    "bpm",
    "key_scale",
    "time_signature",
    "vocal_language",
    "use_random_seed",
    "seed",
    "batch_size",
    "audio_duration",
    "shift",
    "inference_steps",
    "infer_steps",
    "guidance_scale",
    "cfg_interval_start",
    "cfg_interval_end",
    "use_adg",
    "infer_method",
    "sampler_mode",
    "timesteps",
    "dcw_enabled",
    "dcw_mode",
    "dcw_scaler",
    "dcw_high_scaler",
    "dcw_wavelet",
    "velocity_norm_threshold",
    "velocity_ema_factor",
];

/// Compares ids, condition, noise, times, latents and waveform of a text2music request.
pub fn end_to_end(b: &Bench, g: &Golden, r: &mut Reporter) -> Result<()> {
    let parsed = g.params.get("request").and_then(Value::as_object);
    let keys = parsed.ok_or_else(|| Error::Corrupt("the header has no request".into()))?;
    let task = keys
        .get("task_type")
        .and_then(Value::as_str)
        .unwrap_or("text2music");
    let plain = keys
        .iter()
        .all(|(key, value)| value.is_null() || key == "task_type" || KEYS.contains(&key.as_str()));
    if task != "text2music" || !plain {
        r.not_built(TASKS);
        return Ok(());
    }
    let request = request_of(g, keys)?;
    let mut engine = Engine::open(EngineOptions {
        checkpoints: b.checkpoints(),
        device: b.device(),
        lm_device: None,
        noise: NoiseKind::Mt19937,
    })?;
    engine.load(&request.model, &NoWatch)?;
    let guided = !engine
        .models()
        .iter()
        .any(|m| m.name == request.model && m.is_turbo)
        && request.sampling.guidance_scale > 1.0;
    let mut times = StageTimes::default();
    let prepared = engine.prepare(&request, &mut times, &NoWatch)?;
    let batch = request.seeds.len();
    for (name, ids) in [
        ("text_token_ids", &prepared.text_ids),
        ("lyric_token_ids", &prepared.lyric_ids),
    ] {
        let ids: Vec<i64> = ids.iter().map(|id| i64::from(*id)).collect();
        r.exact(name, &ids.repeat(batch), &g.integers(name)?);
    }
    if let Some(want) = g.params.get("text_and_lyrics").and_then(Value::as_str) {
        let texts = prompts(&request);
        r.exact_text(
            "text_and_lyrics",
            &format!("{}\n\n{}", texts.0, texts.1),
            want,
        );
    }
    let starts = &prepared.schedule[..prepared.schedule.len() - 1];
    r.exact_f32("timesteps", starts, &g.array("timesteps")?.data);
    let known = [
        ("noise", prepared.noise.clone(), Kind::Noise),
        (
            "encoder_hidden_states",
            prepared.conditions[0].packed.repeat(batch),
            Kind::Block,
        ),
        (
            "context_latents",
            prepared.conditions[0].context.clone(),
            Kind::BlockF32,
        ),
    ];
    for (name, ours, kind) in known.iter().filter(|(name, _, _)| g.has(name)) {
        r.compare(name, ours, &g.array(name)?, *kind);
    }
    let latents = engine.diffuse(&request, &prepared, &mut times, &NoWatch)?;
    let kind = if guided { Kind::GuidedSong } else { Kind::Song };
    r.compare("latents", &latents, &g.array("latents")?, kind);
    let mut audio = Vec::new();
    for item in latents.chunks_exact(latents.len() / batch) {
        audio.push(engine.render(&request, item, &NoWatch)?);
    }
    waveform(g, r, &audio)
}

fn prompts(request: &SongRequest) -> (String, String) {
    (
        prompt::caption_prompt(
            instruction(request),
            &request.caption,
            &request.metas,
            request.duration_s,
        ),
        prompt::lyric_prompt(&request.language, &request.lyrics),
    )
}

fn request_of(g: &Golden, keys: &Map<String, Value>) -> Result<SongRequest> {
    let text = |key: &str| keys.get(key).and_then(Value::as_str).map(str::to_owned);
    let model = g.params.get("model").and_then(Value::as_str);
    let model = model.ok_or_else(|| Error::Corrupt("the header names no model".into()))?;
    Ok(SongRequest {
        model: model.to_string(),
        caption: text("captions").unwrap_or_default(),
        lyrics: text("lyrics").unwrap_or_default(),
        language: text("vocal_language").unwrap_or_else(|| "unknown".into()),
        instruction: prompt::TEXT2MUSIC.into(),
        metas: Metas {
            bpm: keys.get("bpm").and_then(Value::as_u64).map(|b| b as u32),
            key_scale: text("key_scale"),
            time_signature: text("time_signature"),
        },
        duration_s: keys
            .get("audio_duration")
            .and_then(Value::as_f64)
            .filter(|d| *d > 0.0),
        codes: match text("audio_code_string") {
            Some(codes) if !codes.trim().is_empty() => vec![parse_codes(&codes).codes],
            _ => Vec::new(),
        },
        cover_strength: keys
            .get("audio_cover_strength")
            .and_then(Value::as_f64)
            .unwrap_or(1.0),
        planning: None,
        seeds: seeds_of(g)?,
        sampling: Params(keys).sampling()?,
        // Recorded before normalisation.
        output: Output {
            normalize_db: None,
            ..Output::default()
        },
    })
}

/// The header's `seeds`: one number or a list with commas.
fn seeds_of(g: &Golden) -> Result<Vec<u64>> {
    let seeds: Option<Vec<u64>> = match g.params.get("seeds") {
        Some(Value::Number(n)) => n.as_u64().map(|n| vec![n]),
        Some(Value::Array(list)) => list.iter().map(Value::as_u64).collect(),
        Some(Value::String(text)) => text.split(',').map(|s| s.trim().parse().ok()).collect(),
        _ => None,
    };
    seeds
        .filter(|s| !s.is_empty())
        .ok_or_else(|| Error::Corrupt("the header's seeds are not numbers".into()))
}

/// Beginning, end and loudness of the audio of each item, interleaved stereo.
fn waveform(g: &Golden, r: &mut Reporter, items: &[Vec<f32>]) -> Result<()> {
    const CHANNELS: usize = engine::audio::CHANNELS;
    let samples = items.first().map_or(0, Vec::len) / CHANNELS;
    if g.has("wav_samples") {
        r.exact(
            "wav_samples",
            &[samples as i64],
            &g.integers("wav_samples")?,
        );
    }
    let channel = |c: usize, item: &Vec<f32>| -> Vec<f32> {
        item.iter().skip(c).step_by(CHANNELS).copied().collect()
    };
    let planar: Vec<Vec<f32>> = items
        .iter()
        .flat_map(|item| (0..CHANNELS).map(move |c| channel(c, item)))
        .collect();
    for name in ["wav_head", "wav_tail", "wav_block_rms"] {
        if !g.has(name) {
            continue;
        }
        let golden = g.array(name)?;
        let [_, _, n]: [usize; 3] = golden.dims(name)?;
        let n = n.min(samples);
        let part = |c: &Vec<f32>| match name {
            "wav_head" => c[..n].to_vec(),
            "wav_tail" => c[samples - n..].to_vec(),
            _ => c.chunks(samples.div_ceil(n)).map(rms).collect(),
        };
        let ours: Vec<f32> = planar.iter().flat_map(part).collect();
        r.compare(name, &ours, &golden, Kind::Wave);
    }
    Ok(())
}

fn rms(x: &[f32]) -> f32 {
    let sum: f64 = x.iter().map(|v| f64::from(*v) * f64::from(*v)).sum();
    (sum / x.len() as f64).sqrt() as f32
}
