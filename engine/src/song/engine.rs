//! The façade: a checkpoint tree on a device, one request at a time to a song.

use crate::audio::level;
use crate::backend::Backend;
use crate::error::{Error, Result};
use crate::models::config::DitConfig;
use crate::program::Math;
use crate::sample::denoise::{Condition, Job, Network, denoise};
use crate::sample::noise::{NoiseKind, StepNoise};
use crate::sample::schedule;
use crate::song::fit::{Fit, JobShape};
use crate::song::loaded::{LoadedDit, LoadedText, LoadedVae};
use crate::song::progress::Part;
use crate::song::request::{Method, Song, SongItem, SongRequest, StageTimes};
use crate::song::{Stage, Watch};
use crate::text::prompt;
use crate::weights::Checkpoints;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

/// Samples per second and channel.
pub const SAMPLING_RATE: usize = 48_000;
/// Latent frames per second.
pub const FRAMES_PER_SECOND: usize = 25;
/// Shorter songs are computed at this length (5.12 s), as upstream does.
pub const MIN_FRAMES: usize = 128;
/// Length in seconds of a song for which none was asked.
pub const DEFAULT_DURATION_S: f64 = 120.0;

/// How an engine is opened.
#[derive(Clone)]
pub struct EngineOptions {
    /// Folder with the published layout.
    pub checkpoints: PathBuf,
    /// The device.
    pub backend: Arc<dyn Backend>,
    /// How products treat their operands.
    pub math: Math,
    /// Which generator a seed starts.
    pub noise: NoiseKind,
}

/// A diffusion model of the tree, loaded or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelInfo {
    /// Name of its directory.
    pub name: String,
    /// Distilled for few steps without guidance.
    pub is_turbo: bool,
    /// Whether its weights are mapped and checked.
    pub is_loaded: bool,
}

/// Everything denoising starts from.
#[derive(Debug, Clone, PartialEq)]
pub struct Prepared {
    /// Caption prompt.
    pub text_ids: Vec<u32>,
    /// Lyric prompt.
    pub lyric_ids: Vec<u32>,
    /// Latent frames `T`.
    pub frames: usize,
    /// Rows `L` of the condition.
    pub rows: usize,
    /// Packed condition of one item `(L, He)`.
    pub packed: Vec<f32>,
    /// Source latents and mask of one item `(T, 128)`.
    pub context: Vec<f32>,
    /// Time of every step and the final 0.
    pub schedule: Vec<f32>,
    /// Initial noise of every item `(B, T, 64)`.
    pub noise: Vec<f32>,
}

/// A checkpoint tree on a device. Models are mapped when they are first needed and stay.
pub struct Engine {
    options: EngineOptions,
    tree: Checkpoints,
    text: Option<LoadedText>,
    vae: Option<LoadedVae>,
    dits: Vec<(LoadedDit, Vec<f32>)>,
}

impl Engine {
    /// Looks at the tree; maps nothing yet.
    pub fn open(options: EngineOptions) -> Result<Self> {
        let tree = Checkpoints::open(&options.checkpoints)?;
        Ok(Engine {
            options,
            tree,
            text: None,
            vae: None,
            dits: Vec::new(),
        })
    }

    /// The device.
    pub fn backend(&self) -> &dyn Backend {
        &*self.options.backend
    }

    /// The tree.
    pub fn checkpoints(&self) -> &Checkpoints {
        &self.tree
    }

    /// Diffusion models of the tree. One whose config cannot be read is left out.
    pub fn models(&self) -> Vec<ModelInfo> {
        let info = |m: &crate::weights::tree::Model| {
            let config = DitConfig::load(&m.path).ok()?;
            let is_loaded = self.dits.iter().any(|(d, _)| d.name == m.name);
            Some(ModelInfo {
                name: m.name.clone(),
                is_turbo: config.is_turbo,
                is_loaded,
            })
        };
        self.tree.dits().iter().filter_map(info).collect()
    }

    /// Maps and checks a diffusion model, the text encoder and the VAE, and computes what does
    /// not depend on the request (folded weights, the timbre of silence). What is loaded before a
    /// cancellation stays.
    pub fn load(&mut self, model: &str, watch: &dyn Watch) -> Result<()> {
        let (total, math) = (3, self.options.math);
        let backend = self.options.backend.clone();
        let go_on = |done| {
            watch.progress(Stage::Load, done, total);
            if watch.cancelled() {
                return Err(Error::Cancelled);
            }
            Ok(())
        };
        go_on(0)?;
        if self.text.is_none() {
            self.text = Some(LoadedText::open(&self.tree, math)?);
        }
        go_on(1)?;
        if self.vae.is_none() {
            let vae = LoadedVae::open(&self.tree.vae()?, math)?;
            vae.fold(&*backend, math)?;
            self.vae = Some(vae);
        }
        go_on(2)?;
        if !self.dits.iter().any(|(d, _)| d.name == model) {
            let path = self.tree.dit(Some(model))?.path.clone();
            let dit = LoadedDit::open(model, &path, math)?;
            self.check_fit(&dit)?;
            let frames = dit.config.timbre_fix_frame;
            let timbre = dit
                .encoder(&*backend, math)
                .timbre(&dit.silence(frames), frames)?;
            self.dits.push((dit, timbre));
        }
        watch.progress(Stage::Load, total, total);
        Ok(())
    }

    /// Parts of a tree that were not made for each other are found here, not in the middle of a
    /// song.
    fn check_fit(&self, dit: &LoadedDit) -> Result<()> {
        let (text, vae) = (self.text()?, self.vae()?);
        let pairs = [
            (
                "text_hidden_dim of the diffusion model and hidden_size of the text encoder",
                dit.config.text_hidden_dim,
                text.config.hidden_size,
            ),
            (
                "latent channels of the diffusion model and of the VAE",
                dit.config.audio_acoustic_hidden_dim,
                vae.config.decoder_input_channels,
            ),
            // Lengths, schedules of frames and file formats all count on these two.
            (
                "the VAE's sampling_rate and the samples per second of a song",
                vae.config.sampling_rate,
                SAMPLING_RATE,
            ),
            (
                "the VAE's samples per latent (product of downsampling_ratios) and those of a \
                 model of 25 latents per second",
                vae.config.hop(),
                SAMPLING_RATE / FRAMES_PER_SECOND,
            ),
        ];
        match pairs.iter().find(|(_, a, b)| a != b) {
            None => Ok(()),
            Some((what, a, b)) => Err(Error::Corrupt(format!(
                "{}: {what} differ: {a} and {b}; the folders do not belong together",
                dit.name
            ))),
        }
    }

    fn text(&self) -> Result<&LoadedText> {
        self.text
            .as_ref()
            .ok_or_else(|| Error::Bug("the text encoder is not loaded".into()))
    }

    fn vae(&self) -> Result<&LoadedVae> {
        self.vae
            .as_ref()
            .ok_or_else(|| Error::Bug("the VAE is not loaded".into()))
    }

    fn dit(&self, name: &str) -> Result<&(LoadedDit, Vec<f32>)> {
        let found = self.dits.iter().find(|(d, _)| d.name == name);
        found.ok_or_else(|| Error::Bug(format!("model {name} is not loaded")))
    }

    /// Request to songs. Items that do not fit into memory together are denoised one after
    /// another, with the same result.
    ///
    /// # Errors
    /// [`Error::TooBig`] when not even one fits; [`Error::Cancelled`]; and what the stages report.
    pub fn make(&mut self, request: &SongRequest, watch: &dyn Watch) -> Result<Song> {
        let mut times = StageTimes::default();
        let start = Instant::now();
        self.load(&request.model, watch)?;
        times.load_s = start.elapsed().as_secs_f64();
        let prepared = self.prepare(request, &mut times, watch)?;
        let start = Instant::now();
        let latents = self.diffuse_all(request, &prepared, &mut times, watch)?;
        times.diffuse_s = start.elapsed().as_secs_f64();
        let start = Instant::now();
        let mut items = Vec::new();
        let per_item = latents.len() / request.seeds.len();
        for (index, latents) in latents.chunks_exact(per_item).enumerate() {
            let of = request.seeds.len();
            let pcm = self.render(request, latents, &Part { watch, index, of })?;
            items.push(SongItem {
                seed: request.seeds[index],
                pcm,
                latents: latents.to_vec(),
            });
        }
        times.decode_s = start.elapsed().as_secs_f64();
        let sample_rate = self.vae()?.config.sampling_rate as u32;
        Ok(Song {
            items,
            sample_rate,
            frames: prepared.frames,
            times,
        })
    }

    /// Prompts to the packed condition, schedule and noise. The model must be loaded.
    pub fn prepare(
        &self,
        request: &SongRequest,
        times: &mut StageTimes,
        watch: &dyn Watch,
    ) -> Result<Prepared> {
        if request.seeds.is_empty() {
            return Err(Error::Request(
                "no seed was given, so there is no song to make".into(),
            ));
        }
        let (backend, math) = (self.backend(), self.options.math);
        let (dit, timbre) = self.dit(&request.model)?;
        let schedule = schedule_of(&dit.config, request)?;
        let frames = frames_of(request.duration_s);

        let start = Instant::now();
        watch.progress(Stage::Text, 0, 1);
        let text = self.text()?;
        let caption = prompt::caption_prompt(
            &request.instruction,
            &request.caption,
            &request.metas,
            request.duration_s,
        );
        let lyrics = prompt::lyric_prompt(&request.language, &request.lyrics);
        let text_ids = text.tokenizer.encode(&caption, prompt::CAPTION_TOKENS)?;
        let lyric_ids = text.tokenizer.encode(&lyrics, prompt::LYRIC_TOKENS)?;
        let encoder = text.on(backend, math);
        let hidden = encoder.hidden_states(&text_ids)?;
        let embeds = encoder.embeddings(&lyric_ids)?;
        watch.progress(Stage::Text, 1, 1);
        times.text_s += start.elapsed().as_secs_f64();
        if watch.cancelled() {
            return Err(Error::Cancelled);
        }

        let start = Instant::now();
        watch.progress(Stage::Condition, 0, 1);
        let encoder = dit.encoder(backend, math);
        let lyric = encoder.lyric(&embeds)?;
        let packed = encoder.pack(&lyric, timbre, &hidden)?;
        watch.progress(Stage::Condition, 1, 1);
        times.condition_s += start.elapsed().as_secs_f64();

        let rows = packed.len() / dit.config.encoder_hidden_size;
        let context = context_of(&dit.config, &dit.silence(frames));
        let noise = self.noise_of(request, frames * dit.config.audio_acoustic_hidden_dim);
        Ok(Prepared {
            text_ids,
            lyric_ids,
            frames,
            rows,
            packed,
            context,
            schedule,
            noise,
        })
    }

    fn noise_of(&self, request: &SongRequest, per_item: usize) -> Vec<f32> {
        let mut noise = vec![0f32; request.seeds.len() * per_item];
        for (seed, out) in request.seeds.iter().zip(noise.chunks_exact_mut(per_item)) {
            self.options.noise.fill(*seed, out);
        }
        noise
    }

    /// Bytes that diffusion and decoding take when `at_once` items are denoised together.
    pub fn needs(&self, request: &SongRequest, prepared: &Prepared, at_once: usize) -> Result<u64> {
        let (fit, job) = self.fit(request, prepared)?;
        fit.needs(&job, at_once)
    }

    fn fit(&self, request: &SongRequest, prepared: &Prepared) -> Result<(Fit<'_>, JobShape)> {
        let (dit, _) = self.dit(&request.model)?;
        let sampling = &request.sampling;
        let fit = Fit {
            backend: self.backend(),
            dit: &dit.config,
            vae: &self.vae()?.config,
            math: self.options.math,
        };
        let job = JobShape {
            items: request.seeds.len(),
            frames: prepared.frames,
            rows: prepared.rows,
            steps: prepared.schedule.len() - 1,
            guided: !dit.config.is_turbo && sampling.guidance_scale > 1.0,
            step_noise: sampling.method == Method::Sde,
        };
        Ok((fit, job))
    }

    /// [`Engine::diffuse`], as many items at once as fit.
    fn diffuse_all(
        &self,
        request: &SongRequest,
        prepared: &Prepared,
        times: &mut StageTimes,
        watch: &dyn Watch,
    ) -> Result<Vec<f32>> {
        let (fit, job) = self.fit(request, prepared)?;
        if fit.items_at_once(&job, self.backend().caps().memory_bytes)? == job.items {
            return self.diffuse(request, prepared, times, watch);
        }
        let mut latents = Vec::with_capacity(prepared.noise.len());
        let noises = prepared
            .noise
            .chunks_exact(prepared.noise.len() / job.items);
        for (index, (seed, noise)) in request.seeds.iter().zip(noises).enumerate() {
            let alone = SongRequest {
                seeds: vec![*seed],
                ..request.clone()
            };
            let prepared = Prepared {
                noise: noise.to_vec(),
                ..prepared.clone()
            };
            let of = job.items;
            let watch = Part { watch, index, of };
            latents.extend(self.diffuse(&alone, &prepared, times, &watch)?);
        }
        Ok(latents)
    }

    /// Noise to final latents `(B, T, 64)`.
    pub fn diffuse(
        &self,
        request: &SongRequest,
        prepared: &Prepared,
        times: &mut StageTimes,
        watch: &dyn Watch,
    ) -> Result<Vec<f32>> {
        let (dit, _) = self.dit(&request.model)?;
        let batch = request.seeds.len();
        let steps = prepared.schedule.len() - 1;
        let condition = Condition {
            packed: &prepared.packed.repeat(batch),
            rows: prepared.rows,
            lengths: &vec![prepared.rows as i32; batch],
            context: &prepared.context.repeat(batch),
        };
        let job = Job {
            batch,
            frames: prepared.frames,
            schedule: &prepared.schedule[..steps],
            sampling: &request.sampling,
            start: &prepared.noise,
            noise: &prepared.noise,
            step_noise: StepNoise::Seeds(&request.seeds),
            conditions: &[condition],
            switch_step: steps,
            repaint: None,
        };
        let net = Network {
            backend: self.backend(),
            config: &dit.config,
            weights: &dit.weights,
            math: self.options.math,
        };
        let mut evaluations = 0;
        let mut count = |_: usize, _: f32, _: &crate::backend::Region| {
            evaluations += 1;
            Ok(())
        };
        let latents = denoise(net, &job, watch, Some(&mut count))?;
        times.steps = steps;
        times.evaluations += evaluations;
        Ok(latents)
    }

    /// Final latents `(T, 64)` of one item to PCM: interleaved, levelled, faded.
    pub fn render(
        &self,
        request: &SongRequest,
        latents: &[f32],
        watch: &dyn Watch,
    ) -> Result<Vec<f32>> {
        let out = &request.output;
        if latents.iter().all(|x| *x == 0.0) {
            return Err(Error::Device(
                "the latents are all zero; the checkpoint is faulty".into(),
            ));
        }
        let vae = self.vae()?;
        let decoder = vae.on(self.backend(), self.options.math);
        let mut pcm = if (out.latent_rescale, out.latent_shift) == (1.0, 0.0) {
            decoder.decode_song(latents, watch)?
        } else {
            let moved: Vec<f32> = latents
                .iter()
                .map(|x| x * out.latent_rescale + out.latent_shift)
                .collect();
            decoder.decode_song(&moved, watch)?
        };
        if pcm.iter().any(|x| !x.is_finite()) {
            return Err(Error::Device(
                "the decoded audio is not finite; the checkpoint or the device is faulty".into(),
            ));
        }
        level::finish(&mut pcm, vae.config.sampling_rate as u32, out);
        Ok(pcm)
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

/// Latent frames of a length in seconds, which is first rounded to tenths (half to even), then
/// cut to whole frames.
pub fn frames_of(duration_s: Option<f64>) -> usize {
    let seconds = duration_s.unwrap_or(DEFAULT_DURATION_S);
    // Formatting rounds the exact decimal value, as Python's `round` does.
    let tenths: f64 = format!("{seconds:.1}").parse().unwrap_or(seconds);
    let samples = (tenths.max(0.1) * SAMPLING_RATE as f64) as usize;
    (samples / (SAMPLING_RATE / FRAMES_PER_SECOND)).max(MIN_FRAMES)
}

/// Silence as the source, everything to be generated: `(T, 64)` to `(T, 128)`.
fn context_of(config: &DitConfig, silence: &[f32]) -> Vec<f32> {
    let (channels, width) = (config.audio_acoustic_hidden_dim, config.in_channels);
    let mask = vec![1f32; width - 2 * channels];
    silence
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
