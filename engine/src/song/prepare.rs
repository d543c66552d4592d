//! From a request to what denoising starts from: conditions, source latents, times and noise.

use super::engine::{DEFAULT_DURATION_S, Engine, FRAMES_PER_SECOND, MIN_FRAMES, SAMPLING_RATE};
use super::material::Material;
use super::request::{ChunkMask, SongRequest, StageTimes};
use super::{Stage, Watch};
use crate::audio::splice::Splice;
use crate::error::{Error, Result};
use crate::models::config::DitConfig;
use crate::sample::schedule;
use crate::text::prompt;
use std::time::Instant;

/// Everything denoising starts from.
#[derive(Debug, Clone, PartialEq)]
pub struct Prepared {
    /// Caption prompt and lyric prompt.
    pub prompts: [String; 2],
    /// Caption prompt as tokens.
    pub text_ids: Vec<u32>,
    /// Lyric prompt as tokens.
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
    /// Latents that denoising starts from, where they are not the noise `(B, T, 64)`.
    pub start: Option<Vec<f32>>,
    /// What is known of every item, where only a part is made anew.
    pub known: Option<Known>,
    /// The recording to put back around the part after decoding.
    pub splice: Option<Splice>,
}

/// A part that is made anew, and what is known around it.
#[derive(Debug, Clone, PartialEq)]
pub struct Known {
    /// 1 where frames are made, 0 where they are known `(B, T)`.
    pub mask: Vec<f32>,
    /// Known latents `(B, T, 64)`.
    pub clean: Vec<f32>,
    /// Share of the steps after which they are put back.
    pub injection_ratio: f64,
    /// Frames of the blend on each side.
    pub crossfade: usize,
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
        let known = |k: &Known| Known {
            mask: part(&k.mask),
            clean: part(&k.clean),
            ..*k
        };
        Prepared {
            noise: part(&self.noise),
            start: self.start.as_deref().map(part),
            known: self.known.as_ref().map(known),
            splice: self.splice.clone(),
            conditions: self.conditions.iter().map(condition).collect(),
            prompts: self.prompts.clone(),
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
        let (dit, silent_timbre) = self.dit(&request.model)?;
        let mut schedule = schedule_of(&dit.config, request)?;
        let material = self.material(dit, request, times, watch)?;
        let timbre = self.timbre(dit, silent_timbre, request, times, watch)?;
        let noise = self.noise_of(request, material.clean[0].len());
        let mixed = start_of(request, &material, &noise, &mut schedule);
        let steps = schedule.len() - 1;
        let switch_step = match material.has_source {
            true => schedule::cover_steps(steps, request.cover_strength),
            false => steps,
        };

        let start = Instant::now();
        watch.progress(Stage::Text, 0, 1);
        let text = self.text()?;
        let tokens = |caption: &str| text.tokenizer.encode(caption, prompt::CAPTION_TOKENS);
        let shown = caption(&dit.config, request, material.duration_s);
        let text_ids = tokens(&shown)?;
        let lyrics = prompt::lyric_prompt(&request.language, &request.lyrics);
        let lyric_ids = text.tokenizer.encode(&lyrics, prompt::LYRIC_TOKENS)?;
        let encoder = text.on(self.backend(), self.math());
        let mut hidden = vec![encoder.hidden_states(&text_ids)?];
        if switch_step < steps {
            let (caption, metas) = (&request.caption, &request.metas);
            let plain =
                prompt::caption_prompt(prompt::TEXT2MUSIC, caption, metas, material.duration_s);
            let mut plain = tokens(&plain)?;
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
        let conditions = self.conditions(request, &material, [&timbre, &embeds], &hidden)?;
        watch.progress(Stage::Condition, 1, 1);
        times.condition_s += start.elapsed().as_secs_f64();

        Ok(Prepared {
            prompts: [shown, lyrics],
            text_ids,
            lyric_ids,
            frames: material.frames,
            conditions,
            switch_step,
            schedule,
            noise,
            start: mixed,
            known: known(request, &material),
            splice: material.splice,
        })
    }

    /// The packed condition for the states of each caption prompt: the first sees the sources,
    /// the second, plain one, silence.
    fn conditions(
        &self,
        request: &SongRequest,
        material: &Material,
        [timbre, lyrics]: [&[f32]; 2],
        captions: &[Vec<f32>],
    ) -> Result<Vec<PreparedCondition>> {
        let (dit, _) = self.dit(&request.model)?;
        let encoder = dit.encoder(self.backend(), self.math());
        let lyric = encoder.lyric(lyrics)?;
        let plain = [dit.silence(material.frames)];
        let sources = [&material.shown[..], &plain];
        let condition = |(hidden, latents): (&Vec<f32>, &[Vec<f32>])| {
            let packed = encoder.pack(&lyric, timbre, hidden)?;
            Ok(PreparedCondition {
                rows: packed.len() / dit.config.encoder_hidden_size,
                packed,
                context: contexts(&dit.config, request, latents, &material.mask),
            })
        };
        captions.iter().zip(sources).map(condition).collect()
    }

    /// The noise of every seed; with a retake two noises, turned into each other.
    fn noise_of(&self, request: &SongRequest, per_item: usize) -> Vec<f32> {
        let fill = |seeds: &[u64]| {
            let mut noise = vec![0f32; seeds.len() * per_item];
            for (seed, out) in seeds.iter().zip(noise.chunks_exact_mut(per_item)) {
                self.noise().fill(*seed, out);
            }
            noise
        };
        let mut noise = fill(&request.seeds);
        if let Some(retake) = request.retake.as_ref().filter(|r| r.variance > 0.0) {
            let angle = retake.variance * std::f64::consts::FRAC_PI_2;
            let (sin, cos) = (angle.sin() as f32, angle.cos() as f32);
            let other = fill(&retake.seeds);
            for (x, other) in noise.iter_mut().zip(other) {
                *x = cos * *x + sin * other;
            }
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

/// The caption prompt that the model was trained on.
fn caption(config: &DitConfig, request: &SongRequest, duration_s: Option<f64>) -> String {
    let (instruction, caption, metas) = (instruction(request), &request.caption, &request.metas);
    if !config.is_lego_sft {
        return prompt::caption_prompt(instruction, caption, metas, duration_s);
    }
    let is_marked = request.repainting.mask == ChunkMask::Explicit;
    let global = &request.global_caption;
    prompt::stem_prompt(instruction, global, caption, is_marked, metas, duration_s)
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

/// Latent frames of a length in seconds, which is first rounded to tenths (half to even), then
/// cut to whole frames.
pub fn frames_of(duration_s: Option<f64>) -> usize {
    let seconds = duration_s.unwrap_or(DEFAULT_DURATION_S);
    // Formatting rounds the exact decimal value, as Python's `round` does.
    let tenths: f64 = format!("{seconds:.1}").parse().unwrap_or(seconds);
    let samples = (tenths.max(0.1) * SAMPLING_RATE as f64) as usize;
    (samples / (SAMPLING_RATE / FRAMES_PER_SECOND)).max(MIN_FRAMES)
}

/// Where denoising starts when it does not start from noise alone: a mix with the source, at the
/// time of the schedule that is nearest to its share of noise. The schedule begins there.
fn start_of(
    request: &SongRequest,
    material: &Material,
    noise: &[f32],
    schedule: &mut Vec<f32>,
) -> Option<Vec<f32>> {
    let strength = request.cover_noise_strength as f32;
    if strength <= 0.0 || !material.has_source {
        return None;
    }
    *schedule = schedule::after_cover_noise(schedule, strength).to_vec();
    let t = schedule[0];
    let clean = per_item(request, &material.clean);
    let mixed = noise.iter().zip(clean.concat());
    Some(mixed.map(|(noise, x)| t * noise + (1.0 - t) * x).collect())
}

/// What is known of every item.
fn known(request: &SongRequest, material: &Material) -> Option<Known> {
    let region = material.region.as_ref()?;
    let mask = |t: usize| if region.contains(&t) { 1.0 } else { 0.0 };
    let mask: Vec<f32> = (0..material.frames).map(mask).collect();
    Some(Known {
        mask: mask.repeat(request.seeds.len()),
        clean: per_item(request, &material.clean).concat(),
        injection_ratio: request.repainting.injection_ratio(),
        crossfade: request.repainting.crossfade_frames(),
    })
}

/// One entry for each item, from a list with one for each or one for all.
fn per_item<'a>(request: &SongRequest, list: &'a [Vec<f32>]) -> Vec<&'a [f32]> {
    let items = 0..request.seeds.len();
    items.map(|i| &*list[i % list.len()]).collect()
}

/// Source latents `(T, 64)` and mask `(T)` of every item to `(B, T, 128)`.
fn contexts(
    config: &DitConfig,
    request: &SongRequest,
    latents: &[Vec<f32>],
    mask: &[f32],
) -> Vec<f32> {
    let (channels, width) = (config.audio_acoustic_hidden_dim, config.in_channels);
    let mut all = Vec::new();
    for latents in per_item(request, latents) {
        for (frame, m) in latents.chunks_exact(channels).zip(mask) {
            all.extend_from_slice(frame);
            all.extend(std::iter::repeat_n(*m, width - 2 * channels));
        }
    }
    all
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
