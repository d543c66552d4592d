//! From what was said to what it means: the one pure function in which a default or a limit
//! depends on anything else. HTTP requests and the command line go through it alike; they differ
//! in [`Caller`] alone.

mod checks;
pub mod describe;
mod hints;
mod planning;
mod sampling;
mod task;

pub use planning::LmNeed;

use crate::fields::{RawRequest, Refusal};
use crate::languages::LANGUAGES;
use crate::seeds;
use crate::submit::Wanted;
use checks::Checks;
use engine::audio::{self, AudioFormat, Mp3};
use engine::song::{Metas, Output, SongRequest};
use engine::text::prompt;

/// What is known about the model that will run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelFacts {
    /// Directory name.
    pub name: String,
    /// Distilled to few steps without guidance.
    pub is_turbo: bool,
}

/// Who asks. It decides what happens to a value that is out of range and which defaults apply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    /// The HTTP API: limits clamp, wrong texts fall back, both are noted; the documented defaults.
    Http,
    /// The command line: limits refuse; steps and shift default to what suits the model.
    CommandLine,
}

/// What the answer says about the music, as the user gave it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Echo {
    /// Caption as sent.
    pub prompt: String,
    /// Lyrics as sent.
    pub lyrics: String,
    /// Beats per minute.
    pub bpm: Option<i64>,
    /// Key as sent.
    pub key_scale: String,
    /// Time signature as sent.
    pub time_signature: String,
}

/// What a job is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Music.
    Song,
    /// Only the metadata that the language model would plan with.
    Metadata,
    /// The audio codes of the source.
    Codes,
    /// The source in words, and its audio codes.
    Understanding,
}

/// Of several flags the first of these counts, as upstream has it.
fn work(raw: &RawRequest) -> Work {
    if raw.extract_codes_only() {
        Work::Codes
    } else if raw.full_analysis_only() {
        Work::Understanding
    } else if raw.analysis_only() {
        Work::Metadata
    } else {
        Work::Song
    }
}

/// A request with every value decided.
#[derive(Debug, Clone, PartialEq)]
pub struct Resolved {
    /// For the engine.
    pub song: SongRequest,
    /// Format of the files.
    pub format: AudioFormat,
    /// For the answer.
    pub echo: Echo,
    /// Sentences on values that were not taken as sent.
    pub notes: Vec<String>,
    /// How much the job depends on a language model.
    pub lm: LmNeed,
    /// Name of the language model to load when none is loaded yet.
    pub lm_model: Option<String>,
    /// What is wanted.
    pub work: Work,
    /// What else the answer says.
    pub wanted: Wanted,
}

/// Decides every value. `random` draws seeds.
pub fn resolve(
    raw: &RawRequest,
    model: &ModelFacts,
    caller: Caller,
    random: &mut dyn FnMut() -> u32,
) -> Result<Resolved, Refusal> {
    let mut checks = Checks::new(caller);
    refuse_long_texts(raw, caller)?;
    refuse_wrong_choices(raw)?;
    let format = format(raw, &mut checks)?;
    let sampling = sampling::resolve(raw, model, &mut checks)?;
    let bpm = match raw.bpm {
        Some(bpm) => checks.within_or_absent("bpm", bpm)?,
        None => None,
    };
    let batch = checks.clamp("batch_size", raw.batch_size() as f64)? as usize;
    let duration_s = duration(raw, &mut checks)?;
    let planned = planning::resolve(raw, &mut checks)?;
    if caller == Caller::CommandLine {
        let given = seeds::given(raw.seed.as_ref());
        if given > batch {
            return Err(Refusal(format!(
                "--seed names {given} seeds for {batch} song{}; raise --batch-size or give fewer",
                if batch == 1 { "" } else { "s" }
            )));
        }
    }
    let seeds = seeds::seeds(raw.seed.as_ref(), raw.use_random_seed(), batch, random);
    let song = SongRequest {
        caption: raw.prompt(),
        global_caption: raw.global_caption(),
        lyrics: lyrics(&raw.lyrics()),
        language: match planned.language {
            Some(named) => named.to_owned(),
            None => language(raw, &mut checks)?,
        },
        metas: Metas {
            bpm: bpm.and_then(|b| u32::try_from(b).ok()),
            key_scale: key_scale(&raw.key_scale(), &mut checks)?,
            time_signature: time_signature(&raw.time_signature(), &mut checks)?,
        },
        duration_s,
        codes: planning::codes(raw, batch, &mut checks)?,
        planning: Some(planned.planning),
        output: output(raw, &mut checks)?,
        lrc: raw.get_lrc(),
        ..SongRequest::new(&model.name, seeds, sampling)
    };
    let song = task::resolve(raw, model, song, &mut checks, random)?;
    let echo = Echo {
        prompt: raw.prompt(),
        lyrics: raw.lyrics(),
        bpm,
        // A value that was taken as not given does not come back as if it had been used.
        key_scale: match &song.metas.key_scale {
            Some(_) => raw.key_scale(),
            None => String::new(),
        },
        time_signature: match &song.metas.time_signature {
            Some(_) => raw.time_signature(),
            None => String::new(),
        },
    };
    Ok(Resolved {
        song,
        format,
        echo,
        notes: checks.notes,
        lm: planned.need,
        lm_model: raw.lm_model_path.as_deref().and_then(last_component),
        work: work(raw),
        wanted: Wanted::default(),
    })
}

/// Seconds of music. Over HTTP, a length that is not positive is none.
fn duration(raw: &RawRequest, checks: &mut Checks) -> Result<Option<f64>, Refusal> {
    match raw.audio_duration {
        Some(seconds) if seconds > 0.0 || checks.caller == Caller::CommandLine => {
            checks.clamp("audio_duration", seconds).map(Some)
        }
        _ => Ok(None),
    }
}

/// The name of a model folder, of which a client may send the path.
fn last_component(path: &str) -> Option<String> {
    let name = std::path::Path::new(path.trim()).file_name()?;
    name.to_str().map(str::to_owned)
}

/// Texts that jobs keep until they are forgotten, and that come back in every answer.
fn refuse_long_texts(raw: &RawRequest, caller: Caller) -> Result<(), Refusal> {
    checks::length(caller, "prompt", raw.prompt.as_deref())?;
    checks::length(caller, "lyrics", raw.lyrics.as_deref())?;
    checks::length(caller, "global_caption", raw.global_caption.as_deref())?;
    checks::length(caller, "instruction", raw.instruction.as_deref())?;
    checks::length(caller, "sample_query", raw.sample_query.as_deref())?;
    checks::length(
        caller,
        "lm_negative_prompt",
        raw.lm_negative_prompt.as_deref(),
    )?;
    checks::length(caller, "key_scale", raw.key_scale.as_deref())?;
    checks::length(caller, "time_signature", raw.time_signature.as_deref())
}

/// Texts that must be one of a list, and the one range that refuses.
fn refuse_wrong_choices(raw: &RawRequest) -> Result<(), Refusal> {
    checks::choice("lm_backend", &raw.lm_backend())?;
    checks::choice("chunk_mask_mode", &raw.chunk_mask_mode())?;
    checks::choice("repaint_mode", &raw.repaint_mode())?;
    checks::choice("task_type", &raw.task_type())?;
    checks::choice("audio_format", &raw.audio_format().trim().to_lowercase())?;
    let strength = raw.repaint_strength();
    if !(0.0..=1.0).contains(&strength) {
        return Err(Refusal(format!(
            "repaint_strength must be between 0 and 1, got {strength}"
        )));
    }
    let (start, end) = (raw.repainting_start(), raw.repainting_end.unwrap_or(-1.0));
    if end > 0.0 && end <= start {
        return Err(Refusal(format!(
            "repainting_end ({end}) is before repainting_start ({start}); give an end behind the \
             start, or -1 for the end of the audio"
        )));
    }
    Ok(())
}

/// Lyrics for the prompt; the ways to say "none" become the text the models know.
fn lyrics(said: &str) -> String {
    match prompt::is_instrumental(said) {
        true => prompt::INSTRUMENTAL.into(),
        false => said.to_owned(),
    }
}

fn language(raw: &RawRequest, checks: &mut Checks) -> Result<String, Refusal> {
    let said = raw.vocal_language().trim().to_lowercase();
    if LANGUAGES.contains(&said.as_str()) {
        return Ok(said);
    }
    if !said.is_empty() || checks.caller == Caller::CommandLine {
        checks.fall_back(
            "vocal_language",
            &said,
            "unknown",
            &format!("one of {}", LANGUAGES.join(", ")),
        )?;
    }
    Ok("unknown".into())
}

/// Whether a text says that nothing is known, as answers do.
fn is_absent(said: &str) -> bool {
    said.is_empty() || said.eq_ignore_ascii_case("N/A")
}

/// A key, free in its spelling. It is written between tags, one field a line.
fn key_scale(said: &str, checks: &mut Checks) -> Result<Option<String>, Refusal> {
    const LIMIT: usize = 64;
    let said = said.trim();
    if is_absent(said) {
        return Ok(None);
    }
    let line_ends = ['<', '\n', '\r', '\u{85}', '\u{2028}', '\u{2029}'];
    if said.chars().nth(LIMIT).is_none() && !said.contains(line_ends) {
        return Ok(Some(said.to_owned()));
    }
    let allowed = format!("one line of at most {LIMIT} characters without <");
    checks.fall_back("key_scale", said, "not given", &allowed)?;
    Ok(None)
}

/// `4/4` and `4` as `4`.
fn time_signature(said: &str, checks: &mut Checks) -> Result<Option<String>, Refusal> {
    let said = said.trim();
    if is_absent(said) {
        return Ok(None);
    }
    let first = said.split('/').next().unwrap_or_default().trim();
    if ["2", "3", "4", "6"].contains(&first) {
        return Ok(Some(first.to_owned()));
    }
    checks.fall_back("time_signature", said, "not given", "2, 3, 4 or 6")?;
    Ok(None)
}

fn format(raw: &RawRequest, checks: &mut Checks) -> Result<AudioFormat, Refusal> {
    let parsed = AudioFormat::parse(&raw.audio_format());
    match parsed.map_err(|e| Refusal(format!("audio_format: {e}")))? {
        AudioFormat::Mp3(default) => mp3(raw, default, checks).map(AudioFormat::Mp3),
        AudioFormat::Opus(default) => {
            kbps("opus_bitrate", &raw.opus_bitrate(), default, checks).map(AudioFormat::Opus)
        }
        AudioFormat::Aac(default) => {
            kbps("aac_bitrate", &raw.aac_bitrate(), default, checks).map(AudioFormat::Aac)
        }
        format @ (AudioFormat::Wav | AudioFormat::Wav32 | AudioFormat::Flac) => Ok(format),
    }
}

/// A bit rate within the range of its field.
fn kbps(name: &str, said: &str, default: u16, checks: &mut Checks) -> Result<u16, Refusal> {
    match audio::parse_kbps(said) {
        // The ranges are within 16 bits.
        Some(kbps) => Ok(checks.clamp(name, f64::from(kbps))? as u16),
        None => {
            let instead = format!("{default}k");
            checks.fall_back(name, said, &instead, "a number of kbit/s such as 128k")?;
            Ok(default)
        }
    }
}

fn mp3(raw: &RawRequest, default: Mp3, checks: &mut Checks) -> Result<Mp3, Refusal> {
    let bitrate = raw.mp3_bitrate();
    let rate = u32::try_from(raw.mp3_sample_rate()).unwrap_or(0);
    match Mp3::new(&bitrate, rate) {
        Ok(settings) => Ok(settings),
        Err(e) if checks.caller == Caller::CommandLine => Err(Refusal(e.to_string())),
        Err(e) => {
            checks.notes.push(format!(
                "mp3_bitrate and mp3_sample_rate were not taken: {e}"
            ));
            Ok(default)
        }
    }
}

fn output(raw: &RawRequest, checks: &mut Checks) -> Result<Output, Refusal> {
    // What a repainted part leaves alone keeps its level too, unless the client asks for another.
    let wanted = match raw.task_type().as_str() {
        "repaint" => raw.enable_normalization == Some(true),
        _ => raw.enable_normalization(),
    };
    // A level above 0 dB is upstream's way to say "leave the level".
    let normalize = wanted && raw.normalization_db() <= 0.0;
    if wanted && !normalize {
        checks.notes.push(format!(
            "normalization_db {} is above 0: the level was left as it is",
            raw.normalization_db()
        ));
    }
    let db = if normalize {
        checks.clamp("normalization_db", raw.normalization_db())?
    } else {
        0.0
    };
    Ok(Output {
        latent_shift: checks.clamp("latent_shift", raw.latent_shift())? as f32,
        latent_rescale: checks.clamp("latent_rescale", raw.latent_rescale())? as f32,
        normalize_db: normalize.then_some(db as f32),
        fade_in_s: checks.clamp("fade_in_duration", raw.fade_in_duration())?,
        fade_out_s: checks.clamp("fade_out_duration", raw.fade_out_duration())?,
    })
}

/// What an empty request is made into, for tests elsewhere.
#[cfg(test)]
pub fn example() -> SongRequest {
    let model = ModelFacts {
        name: "acestep-v15-turbo".into(),
        is_turbo: true,
    };
    match resolve(&RawRequest::default(), &model, Caller::Http, &mut || 7) {
        Ok(resolved) => resolved.song,
        Err(refusal) => panic!("{refusal}"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod effects_tests;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod planning_tests;
#[cfg(test)]
mod tests;
