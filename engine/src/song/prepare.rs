//! From a request to what denoising starts from: conditions, source latents, times and noise.

use super::engine::{DEFAULT_DURATION_S, Engine, FRAMES_PER_SECOND, MIN_FRAMES, SAMPLING_RATE};
use super::loaded::LoadedDit;
use super::request::{SongRequest, StageTimes};
use super::{Stage, Watch};
use crate::error::{Error, Result};
use crate::models::config::DitConfig;
use crate::sample::schedule;
use crate::text::codes::CODES_PER_SECOND;
use crate::text::prompt;
use std::time::Instant;

/// Latent frames of one audio code.
pub const FRAMES_PER_CODE: usize = FRAMES_PER_SECOND / CODES_PER_SECOND;

/// Everything denoising starts from.
#[derive(Debug, Clone, PartialEq)]
pub struct Prepared {
    /// Caption prompt.
    pub text_ids: Vec<u32>,
    /// Lyric prompt.
    pub lyric_ids: Vec<u32>,
    /// Latent frames `T`.
    pub frames: usize,
    /// The condition, and the one that takes over at `switch_step` when there is one.
    pub conditions: Vec<PreparedCondition>,
    /// Step from which the second condition counts.
    pub switch_step: usize,
    /// Time of every step and the final 0.
    pub schedule: Vec<f32>,
    /// Initial noise of every item `(B, T, 64)`.
    pub noise: Vec<f32>,
}

/// What every item is conditioned on, and each item's source.
#[derive(Debug, Clone, PartialEq)]
pub struct PreparedCondition {
    /// Rows `L` of the condition.
    pub rows: usize,
    /// Packed condition of one item `(L, He)`.
    pub packed: Vec<f32>,
    /// Source latents and mask of every item `(B, T, 128)`.
    pub context: Vec<f32>,
}

impl Prepared {
    /// Rows of the longest condition.
    pub fn rows(&self) -> usize {
        self.conditions.iter().map(|c| c.rows).max().unwrap_or(0)
    }

    /// What item `index` of `of` starts from.
    pub fn item(&self, index: usize, of: usize) -> Prepared {
        let part = |all: &[f32]| {
            let len = all.len() / of;
            all[index * len..(index + 1) * len].to_vec()
        };
        let condition = |c: &PreparedCondition| PreparedCondition {
            rows: c.rows,
            packed: c.packed.clone(),
            context: part(&c.context),
        };
        Prepared {
            noise: part(&self.noise),
            conditions: self.conditions.iter().map(condition).collect(),
            text_ids: self.text_ids.clone(),
            lyric_ids: self.lyric_ids.clone(),
            schedule: self.schedule.clone(),
            ..*self
        }
    }
}

impl Engine {
    /// Prompts and codes to conditions, schedule and noise. The model must be loaded.
    ///
    /// # Errors
    /// [`Error::Request`] when seeds are missing or codes do not fit them.
    pub fn prepare(
        &self,
        request: &SongRequest,
        times: &mut StageTimes,
        watch: &dyn Watch,
    ) -> Result<Prepared> {
        check_items(request)?;
        let (dit, timbre) = self.dit(&request.model)?;
        let schedule = schedule_of(&dit.config, request)?;
        let steps = schedule.len() - 1;
        let frames = frames_of_request(request);
        let has_codes = !request.codes.is_empty();
        let switch_step = match has_codes {
            true => schedule::cover_steps(steps, request.cover_strength),
            false => steps,
        };

        let start = Instant::now();
        watch.progress(Stage::Text, 0, 1);
        let text = self.text()?;
        let tokens = |instruction: &str| {
            let (metas, duration) = (&request.metas, request.duration_s);
            let caption = prompt::caption_prompt(instruction, &request.caption, metas, duration);
            text.tokenizer.encode(&caption, prompt::CAPTION_TOKENS)
        };
        let text_ids = tokens(instruction(request))?;
        let lyrics = prompt::lyric_prompt(&request.language, &request.lyrics);
        let lyric_ids = text.tokenizer.encode(&lyrics, prompt::LYRIC_TOKENS)?;
        let encoder = text.on(self.backend(), self.math());
        let mut hidden = vec![encoder.hidden_states(&text_ids)?];
        if switch_step < steps {
            let mut plain = tokens(prompt::TEXT2MUSIC)?;
            // Upstream cuts or pads this prompt to the length of the other one.
            plain.resize(text_ids.len(), text.tokenizer.end_of_text());
            hidden.push(encoder.hidden_states(&plain)?);
        }
        let embeds = encoder.embeddings(&lyric_ids)?;
        watch.progress(Stage::Text, 1, 1);
        times.text_s += start.elapsed().as_secs_f64();
        if watch.cancelled() {
            return Err(Error::Cancelled);
        }

        let start = Instant::now();
        watch.progress(Stage::Condition, 0, 1);
        let encoder = dit.encoder(self.backend(), self.math());
        let lyric = encoder.lyric(&embeds)?;
        let sources = [
            self.sources(dit, request, frames)?,
            plain_sources(dit, request, frames),
        ];
        let mut conditions = Vec::new();
        for (hidden, context) in hidden.iter().zip(sources) {
            let packed = encoder.pack(&lyric, timbre, hidden)?;
            let rows = packed.len() / dit.config.encoder_hidden_size;
            conditions.push(PreparedCondition {
                rows,
                packed,
                context,
            });
        }
        watch.progress(Stage::Condition, 1, 1);
        times.condition_s += start.elapsed().as_secs_f64();

        let noise = self.noise_of(request, frames * dit.config.audio_acoustic_hidden_dim);
        Ok(Prepared {
            text_ids,
            lyric_ids,
            frames,
            conditions,
            switch_step,
            schedule,
            noise,
        })
    }

    /// Sources and masks of every item `(B, T, 128)`: what its codes stand for, else silence.
    fn sources(&self, dit: &LoadedDit, request: &SongRequest, frames: usize) -> Result<Vec<f32>> {
        let mut hints: Vec<Vec<f32>> = Vec::new();
        for codes in &request.codes {
            hints.push(dit.decode_codes(self.backend(), codes)?);
        }
        if hints.is_empty() {
            return Ok(plain_sources(dit, request, frames));
        }
        let mut all = Vec::new();
        for item in 0..request.seeds.len() {
            let mut latents = hints[item % hints.len()].clone();
            let width = dit.config.audio_acoustic_hidden_dim;
            latents.extend(dit.silence(frames - latents.len() / width));
            all.extend(context_of(&dit.config, &latents));
        }
        Ok(all)
    }

    fn noise_of(&self, request: &SongRequest, per_item: usize) -> Vec<f32> {
        let mut noise = vec![0f32; request.seeds.len() * per_item];
        for (seed, out) in request.seeds.iter().zip(noise.chunks_exact_mut(per_item)) {
            self.noise().fill(*seed, out);
        }
        noise
    }
}

fn check_items(request: &SongRequest) -> Result<()> {
    let (songs, lists) = (request.seeds.len(), request.codes.len());
    if songs == 0 {
        return Err(Error::Request(
            "no seed was given, so there is no song to make".into(),
        ));
    }
    if lists > 1 && lists != songs {
        return Err(Error::Request(format!(
            "there are {lists} lists of audio codes for {songs} songs: give one for each song, or \
             one for all"
        )));
    }
    match request.codes.iter().position(Vec::is_empty) {
        Some(i) => Err(Error::Request(format!(
            "the audio codes of song {} are empty: give codes for every song, or for none",
            i + 1
        ))),
        None => Ok(()),
    }
}

/// Plain generation from codes is a cover of what they stand for.
pub fn instruction(request: &SongRequest) -> &str {
    match request.instruction.as_str() {
        prompt::TEXT2MUSIC if !request.codes.is_empty() => prompt::COVER,
        other => other,
    }
}

/// Times of every step and the final 0.
fn schedule_of(config: &DitConfig, request: &SongRequest) -> Result<Vec<f32>> {
    let s = &request.sampling;
    let custom = s.timesteps.as_deref();
    if config.is_turbo {
        schedule::turbo(Some(s.steps), s.shift, custom)
    } else {
        schedule::base(s.steps, s.shift, custom)
    }
}

/// Latent frames of a request: those of the longest list of codes, else of the duration.
pub fn frames_of_request(request: &SongRequest) -> usize {
    match request.codes.iter().map(Vec::len).max() {
        Some(codes) => (codes * FRAMES_PER_CODE).max(MIN_FRAMES),
        None => frames_of(request.duration_s),
    }
}

/// Latent frames of a length in seconds, which is first rounded to tenths (half to even), then
/// cut to whole frames.
pub fn frames_of(duration_s: Option<f64>) -> usize {
    let seconds = duration_s.unwrap_or(DEFAULT_DURATION_S);
    // Formatting rounds the exact decimal value, as Python's `round` does.
    let tenths: f64 = format!("{seconds:.1}").parse().unwrap_or(seconds);
    let samples = (tenths.max(0.1) * SAMPLING_RATE as f64) as usize;
    (samples / (SAMPLING_RATE / FRAMES_PER_SECOND)).max(MIN_FRAMES)
}

/// Silence as every item's source.
fn plain_sources(dit: &LoadedDit, request: &SongRequest, frames: usize) -> Vec<f32> {
    context_of(&dit.config, &dit.silence(frames)).repeat(request.seeds.len())
}

/// A source of which everything is to be generated: `(T, 64)` to `(T, 128)`.
fn context_of(config: &DitConfig, source: &[f32]) -> Vec<f32> {
    let (channels, width) = (config.audio_acoustic_hidden_dim, config.in_channels);
    let mask = vec![1f32; width - 2 * channels];
    source
        .chunks_exact(channels)
        .flat_map(|frame| [frame, &mask].concat())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_round_to_tenths_and_cut_to_frames() {
        for (seconds, frames) in [
            (12.34, 307),
            (5.3, 132),
            (10.0, 250),
            (0.0, 128),
            (600.0, 15_000),
            (10.25, 254),
            (10.35, 257),
        ] {
            assert_eq!(frames_of(Some(seconds)), frames, "{seconds}");
        }
        assert_eq!(frames_of(None), 3000);
    }
}
