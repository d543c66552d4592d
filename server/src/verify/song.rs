//! A recorded request through the whole engine: text in, waveform out.

use super::bench::Bench;
use super::golden::Golden;
use super::report::{Kind, Reporter};
use super::sampler::Params;
use engine::sample::noise::NoiseKind;
use engine::song::{
    ChunkMask, Engine, EngineOptions, Freedom, Metas, NoWatch, Output, Recording, Repainting,
    SongRequest, StageTimes,
};
use engine::text::{parse_codes, prompt};
use engine::{Error, Result};
use serde_json::{Map, Value};
use std::sync::Arc;

/// Keys of a recorded request. The widths of the crossfades have no effect upstream.
const KEYS: [&str; 43] = [
    "task_type",
    "src_audio",
    "reference_audio",
    "instruction",
    "repainting_start",
    "repainting_end",
    "chunk_mask_mode",
    "repaint_mode",
    "repaint_strength",
    "cover_noise_strength",
    "repaint_latent_crossfade_frames",
    "repaint_wav_crossfade_sec",
    "track_name",
    "use_tiled_decode",
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

/// Compares ids, condition, noise, times, latents and waveform of a request.
pub fn end_to_end(b: &Bench, g: &Golden, r: &mut Reporter) -> Result<()> {
    let parsed = g.params.get("request").and_then(Value::as_object);
    let keys = parsed.ok_or_else(|| Error::Corrupt("the header has no request".into()))?;
    if let Some((key, _)) = keys
        .iter()
        .find(|(key, value)| !value.is_null() && !KEYS.contains(&key.as_str()))
    {
        return Err(Error::Corrupt(format!(
            "the recorded request has {key}, which this comparison does not know"
        )));
    }
    let request = request_of(b, g, keys)?;
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
        let [caption, lyrics] = &prepared.prompts;
        r.exact_text("text_and_lyrics", &format!("{caption}\n\n{lyrics}"), want);
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
            context_kind(&request),
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
        let item = request.output.moved(item);
        audio.push(engine.render(&request, &prepared, &item, &NoWatch)?.0);
    }
    waveform(g, r, &audio)
}

fn request_of(b: &Bench, g: &Golden, keys: &Map<String, Value>) -> Result<SongRequest> {
    let text = |key: &str| keys.get(key).and_then(Value::as_str).map(str::to_owned);
    let model = g.params.get("model").and_then(Value::as_str);
    let model = model.ok_or_else(|| Error::Corrupt("the header names no model".into()))?;
    let number = |key: &str| keys.get(key).and_then(Value::as_f64);
    let task = text("task_type").unwrap_or_else(|| "text2music".into());
    let recording = |key: &str, name: &str| match keys.get(key).is_some_and(|v| !v.is_null()) {
        true => recorded(&b.stage("e2e/source_audio.safetensors")?, name).map(Some),
        false => Ok(None),
    };
    Ok(SongRequest {
        caption: text("captions").unwrap_or_default(),
        lyrics: text("lyrics").unwrap_or_default(),
        language: text("vocal_language").unwrap_or_else(|| "unknown".into()),
        task: task.parse().map_err(Error::Corrupt)?,
        instruction: text("instruction").unwrap_or_else(|| prompt::TEXT2MUSIC.into()),
        source: recording("src_audio", "src_i16")?,
        reference: recording("reference_audio", "ref_i16")?,
        repainting: repainting_of(keys),
        metas: Metas {
            bpm: keys.get("bpm").and_then(Value::as_u64).map(|b| b as u32),
            key_scale: text("key_scale"),
            time_signature: text("time_signature"),
        },
        duration_s: number("audio_duration").filter(|d| *d > 0.0),
        codes: match text("audio_code_string") {
            Some(codes) if !codes.trim().is_empty() => vec![parse_codes(&codes).codes],
            _ => Vec::new(),
        },
        cover_strength: number("audio_cover_strength").unwrap_or(1.0),
        cover_noise_strength: number("cover_noise_strength").unwrap_or(0.0),
        // Recorded before normalisation.
        output: Output {
            normalize_db: None,
            ..Output::default()
        },
        ..SongRequest::new(model, seeds_of(g)?, Params(keys).sampling()?)
    })
}

/// Codes are decoded in f32 whatever the run; a recording has gone through the autoencoder.
fn context_kind(request: &SongRequest) -> Kind {
    match request.source.is_some() && request.codes.is_empty() {
        true => Kind::Vae,
        false => Kind::BlockF32,
    }
}

/// The part that is made anew, and how.
fn repainting_of(keys: &Map<String, Value>) -> Repainting {
    let text = |key: &str| keys.get(key).and_then(Value::as_str);
    let number = |key: &str| keys.get(key).and_then(Value::as_f64);
    Repainting {
        start_s: number("repainting_start").unwrap_or(0.0),
        end_s: number("repainting_end").filter(|end| *end >= 0.0),
        mask: match text("chunk_mask_mode") {
            Some("explicit") => ChunkMask::Explicit,
            _ => ChunkMask::Auto,
        },
        freedom: match text("repaint_mode") {
            Some("conservative") => Freedom::Conservative,
            Some("aggressive") => Freedom::Aggressive,
            _ => Freedom::Balanced(number("repaint_strength").unwrap_or(0.5)),
        },
        ..Repainting::default()
    }
}

/// A recording of the file with all of them, `(channels, samples)` of 16 bits, as stereo.
fn recorded(audio: &Golden, name: &str) -> Result<Recording> {
    let planar = audio.integers(name)?;
    let samples = planar.len() / engine::audio::CHANNELS;
    let at = |c: usize, i: usize| planar[c * samples + i] as f32 / 32_768.0;
    let interleaved = (0..samples).flat_map(|i| [at(0, i), at(1, i)]).collect();
    Ok(Recording::Samples(Arc::new(interleaved)))
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
