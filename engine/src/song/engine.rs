//! The façade: a checkpoint tree on a device, one request at a time to a song.

use crate::audio::level;
use crate::backend::{Backend, Device};
use crate::error::{Error, Result};
use crate::models::config::DitConfig;
use crate::program::Math;
use crate::sample::denoise::{Condition, Job, Network, denoise};
use crate::sample::noise::{NoiseKind, StepNoise};
use crate::sample::repaint::Repaint;
use crate::song::describe::{DescribeRequest, Description};
use crate::song::fit::{Fit, JobShape};
use crate::song::loaded::{LoadedDit, LoadedText, LoadedVae};
use crate::song::plan::Planner;
use crate::song::prepare::Prepared;
use crate::song::progress::Part;
use crate::song::request::{Composed, Method, Song, SongItem, SongRequest, StageTimes};
use crate::song::{Stage, Watch};
use crate::text::grammar::MAX_DURATION_S;
use crate::weights::Checkpoints;
use std::path::PathBuf;
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
    pub device: Device,
    /// The language model's device; `None` is the same.
    pub lm_device: Option<Device>,
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

/// A checkpoint tree on a device. Models are mapped when they are first needed and stay.
pub struct Engine {
    pub(super) options: EngineOptions,
    pub(super) tree: Checkpoints,
    pub(super) text: Option<LoadedText>,
    pub(super) vae: Option<LoadedVae>,
    pub(super) dits: Vec<(LoadedDit, Vec<f32>)>,
    pub(super) planner: Option<Planner>,
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
            planner: None,
        })
    }

    /// The device.
    pub fn backend(&self) -> &dyn Backend {
        &*self.options.device.backend
    }

    /// How products treat their operands.
    pub fn math(&self) -> Math {
        self.options.device.math
    }

    /// Which generator a seed starts.
    pub fn noise(&self) -> NoiseKind {
        self.options.noise
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
        let (total, math) = (3, self.math());
        let backend = self.options.device.backend.clone();
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

    /// Maps and checks a language model and reads its tokenizer; without a name the first there
    /// is. It takes the place of the one before, which stays when this one cannot be loaded.
    ///
    /// # Errors
    /// [`Error::Missing`] when it is not there, [`Error::Corrupt`] when its files are damaged,
    /// [`Error::TooBig`] when its weights do not fit into the device's memory.
    pub fn load_lm(&mut self, name: Option<&str>, watch: &dyn Watch) -> Result<()> {
        let name = self.tree.lm(name)?.name.clone();
        if self.lm() == Some(&name) {
            return Ok(());
        }
        watch.progress(Stage::Load, 0, 1);
        let device = self.options.lm_device.as_ref();
        let device = device.unwrap_or(&self.options.device).clone();
        self.planner = Some(Planner::open(
            &self.tree,
            Some(&name),
            device,
            MAX_DURATION_S,
        )?);
        watch.progress(Stage::Load, 1, 1);
        Ok(())
    }

    /// Name of the language model that is loaded.
    pub fn lm(&self) -> Option<&str> {
        let planner = self.planner.as_ref()?;
        Some(&planner.language_model().name)
    }

    fn planner(&self) -> Result<&Planner> {
        self.planner.as_ref().ok_or_else(|| {
            Error::Missing(
                "no language model is loaded: put a folder acestep-5Hz-lm-* beside the other \
                 models"
                    .into(),
            )
        })
    }

    /// Describes a song in words. A language model must be loaded.
    pub fn describe(&self, request: &DescribeRequest, watch: &dyn Watch) -> Result<Description> {
        self.planner()?.describe(request, watch)
    }

    /// The request with what its planning asks for. Without a language model a planning that
    /// only completes what is missing is left out.
    ///
    /// # Errors
    /// [`Error::Missing`] when the planning cannot be left out, and those of
    /// [`Planner::compose`].
    pub fn compose(
        &self,
        request: &SongRequest,
        times: &mut StageTimes,
        watch: &dyn Watch,
    ) -> Result<Composed> {
        match &request.planning {
            Some(planning) if planning.is_required() || self.planner.is_some() => {
                let planner = self.planner()?;
                if let Ok((dit, _)) = self.dit(&request.model)
                    && planning.codes
                {
                    planner.check_codes(&dit.name, dit.config.codes())?;
                }
                planner.compose(request, times, watch)
            }
            _ => Ok(Composed::unplanned(request)),
        }
    }

    pub(super) fn text(&self) -> Result<&LoadedText> {
        self.text
            .as_ref()
            .ok_or_else(|| Error::Bug("the text encoder is not loaded".into()))
    }

    pub(super) fn vae(&self) -> Result<&LoadedVae> {
        self.vae
            .as_ref()
            .ok_or_else(|| Error::Bug("the VAE is not loaded".into()))
    }

    /// A loaded model and its timbre of silence.
    pub(super) fn dit(&self, name: &str) -> Result<&(LoadedDit, Vec<f32>)> {
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
        request.check_source()?;
        let mut composed = self.compose(request, &mut times, watch)?;
        if composed.request.works_on_recording() {
            // The recording's own length counts, whatever was asked for or planned.
            composed.request.duration_s = None;
        }
        let source = composed.request.source.clone();
        let notes = self.adopt_own_song(&mut composed.request, &mut times, watch)?;
        composed.notes.extend(notes);
        let prepared = self.prepare(&composed.request, &mut times, watch)?;
        // The recording's samples are not kept for as long as the song is.
        composed.request.source = source;
        let request = &composed.request;
        let start = Instant::now();
        let latents = self.diffuse_all(request, &prepared, &mut times, watch)?;
        times.diffuse_s = start.elapsed().as_secs_f64();
        let mut items = self.render_all(request, &prepared, &latents, &mut times, watch)?;
        if request.lrc {
            let start = Instant::now();
            for (index, item) in items.iter_mut().enumerate() {
                let times = self.lyric_times(request, &prepared, index, &item.latents, watch);
                // The song is there, whatever becomes of its lyrics.
                item.lrc = Some(match times {
                    Err(Error::Cancelled) => return Err(Error::Cancelled),
                    Err(error) => {
                        let note = format!("the lyrics of a song were not timed: {error}");
                        composed.notes.push(note);
                        String::new()
                    }
                    Ok(text) => text,
                });
            }
            times.align_s = start.elapsed().as_secs_f64();
        }
        let sample_rate = self.vae()?.config.sampling_rate as u32;
        Ok(Song {
            items,
            sample_rate,
            frames: prepared.frames,
            autoencoder: self.vae()?.fingerprint(),
            times,
            composed,
        })
    }

    /// The audio of every item of `latents` `(B, T, 64)`.
    fn render_all(
        &self,
        request: &SongRequest,
        prepared: &Prepared,
        latents: &[f32],
        times: &mut StageTimes,
        watch: &dyn Watch,
    ) -> Result<Vec<SongItem>> {
        let start = Instant::now();
        let of = request.seeds.len();
        let mut items = Vec::new();
        for (index, latents) in latents.chunks_exact(latents.len() / of).enumerate() {
            if latents.iter().all(|x| *x == 0.0) {
                return Err(Error::Device(
                    "the latents are all zero; the checkpoint is faulty".into(),
                ));
            }
            let watch = Part { watch, index, of };
            let latents = request.output.moved(latents);
            let (pcm, gain) = self.render(request, prepared, &latents, &watch)?;
            items.push(SongItem {
                seed: request.seeds[index],
                pcm,
                latents: latents.into_owned(),
                gain,
                lrc: None,
            });
        }
        times.decode_s = start.elapsed().as_secs_f64();
        Ok(items)
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
            math: self.math(),
        };
        let job = JobShape {
            items: request.seeds.len(),
            frames: prepared.frames,
            rows: prepared.rows(),
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
        for (index, seed) in request.seeds.iter().enumerate() {
            let alone = SongRequest {
                seeds: vec![*seed],
                ..request.clone()
            };
            let of = job.items;
            let watch = Part { watch, index, of };
            let prepared = prepared.item(index, of);
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
        let repeated = prepared.conditions.iter().map(|c| {
            let lengths = vec![c.rows as i32; batch];
            (c, c.packed.repeat(batch), lengths)
        });
        let repeated: Vec<_> = repeated.collect();
        let conditions = repeated.iter().map(|(c, packed, lengths)| Condition {
            packed,
            rows: c.rows,
            lengths,
            context: &c.context,
        });
        let conditions: Vec<_> = conditions.collect();
        let job = Job {
            batch,
            frames: prepared.frames,
            schedule: &prepared.schedule[..steps],
            sampling: &request.sampling,
            start: prepared.start.as_deref().unwrap_or(&prepared.noise),
            noise: &prepared.noise,
            step_noise: StepNoise::Seeds(&request.seeds),
            conditions: &conditions,
            switch_step: prepared.switch_step,
            repaint: prepared.known.as_ref().map(|known| Repaint {
                mask: &known.mask,
                clean: &known.clean,
                injection_ratio: known.injection_ratio,
                crossfade: known.crossfade,
            }),
        };
        let net = Network {
            backend: self.backend(),
            config: &dit.config,
            weights: &dit.weights,
            math: self.math(),
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

    /// Final latents `(T, 64)` of one item, [`Output::moved`], to PCM: interleaved, spliced,
    /// levelled, faded. Also returns how much louder that is than it was decoded.
    pub fn render(
        &self,
        request: &SongRequest,
        prepared: &Prepared,
        latents: &[f32],
        watch: &dyn Watch,
    ) -> Result<(Vec<f32>, f32)> {
        let vae = self.vae()?;
        let decoder = vae.on(self.backend(), self.math());
        let mut pcm = decoder.decode_song(latents, watch)?;
        if pcm.iter().any(|x| !x.is_finite()) {
            return Err(Error::Device(
                "the decoded audio is not finite; the checkpoint or the device is faulty".into(),
            ));
        }
        let rate = vae.config.sampling_rate as u32;
        let gain = level::finish(&mut pcm, rate, &request.output, prepared.splice.as_ref());
        Ok((pcm, gain))
    }
}
