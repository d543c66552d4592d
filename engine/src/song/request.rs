//! What the engine is asked for and what it returns. Everything here is resolved: defaults that
//! depend on the model are the resolver's business, not the engine's.

use crate::error::{Error, Result};
use crate::program::Dcw;
use crate::sample::logits::TokenSampling;
use crate::song::sidecar::Kept;
use crate::song::task::{SourceUse, Task};
use crate::text::grammar::Event;
use crate::text::prompt;
use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::Arc;

/// Musical facts for the caption prompt; `None` is written as `N/A`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Metas {
    /// Beats per minute.
    pub bpm: Option<u32>,
    /// For example `C Major`.
    pub key_scale: Option<String>,
    /// For example `4`.
    pub time_signature: Option<String>,
}

/// How the state moves between time steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Deterministic flow.
    Ode,
    /// Predict the clean sample, add fresh noise.
    Sde,
}

/// Integrator of the deterministic flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Solver {
    /// One evaluation per step.
    Euler,
    /// Two evaluations per step but the last.
    Heun,
}

/// How the conditional and unconditional predictions are combined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guidance {
    /// Adaptive projected guidance (upstream's default).
    Apg,
    /// Angle-based dynamic guidance.
    Adg,
}

/// Parameters of the denoising loop.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    /// Number of steps; ignored when `timesteps` is given.
    pub steps: usize,
    /// Schedule shift.
    pub shift: f64,
    /// Custom schedule, descending.
    pub timesteps: Option<Vec<f64>>,
    /// ODE or SDE.
    pub method: Method,
    /// Euler or Heun (ODE only).
    pub solver: Solver,
    /// Guidance scale; at most 1 means no guidance. Ignored by turbo models.
    pub guidance_scale: f32,
    /// Kind of guidance.
    pub guidance: Guidance,
    /// Guidance is applied at times within this interval, ends included.
    pub guidance_interval: (f32, f32),
    /// Wavelet correction.
    pub dcw: Option<Dcw>,
    /// Largest ratio of the norms of velocity and state; 0 is off.
    pub velocity_norm_threshold: f32,
    /// Weight of the previous velocity; 0 is off.
    pub velocity_ema_factor: f32,
}

/// What happens to the decoded audio.
#[derive(Debug, Clone, PartialEq)]
pub struct Output {
    /// Added to the latents after `latent_rescale`, before decoding.
    pub latent_shift: f32,
    /// Multiplies the latents before decoding.
    pub latent_rescale: f32,
    /// Peak level in dB after decoding; `None` leaves the level.
    pub normalize_db: Option<f32>,
    /// Seconds of linear fade-in.
    pub fade_in_s: f64,
    /// Seconds of linear fade-out.
    pub fade_out_s: f64,
}

impl Default for Output {
    fn default() -> Self {
        Output {
            latent_shift: 0.0,
            latent_rescale: 1.0,
            normalize_db: Some(-1.0),
            fade_in_s: 0.0,
            fade_out_s: 0.0,
        }
    }
}

impl Output {
    /// The latents that are decoded for those that denoising ends with.
    pub fn moved<'a>(&self, latents: &'a [f32]) -> Cow<'a, [f32]> {
        if (self.latent_rescale, self.latent_shift) == (1.0, 0.0) {
            return latents.into();
        }
        let moved = latents
            .iter()
            .map(|x| x * self.latent_rescale + self.latent_shift);
        moved.collect::<Vec<_>>().into()
    }
}

/// A wish of one sentence from which the language model invents a song.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// The wish; blank for anything at all.
    pub query: String,
    /// Without a singing voice.
    pub instrumental: bool,
}

/// What the language model does for a request before the music is made. What the user gave
/// (beats, key, time signature, duration, and the language where it is kept) always stays.
#[derive(Debug, Clone, PartialEq)]
pub struct Planning {
    /// Caption, lyrics and metadata are invented from this.
    pub wish: Option<Wish>,
    /// Caption and lyrics are rewritten. A rewriting that fails is left out.
    pub format: bool,
    /// Metadata that is missing is written.
    pub metadata: bool,
    /// The caption is rewritten together with the metadata.
    pub caption: bool,
    /// The language of the lyrics is found together with the metadata.
    pub language: bool,
    /// Whether the request's language is what the user said.
    pub keep_language: bool,
    /// Audio codes are written, unless the request brings its own.
    pub codes: bool,
    /// What the music should not be; blank for nothing in particular.
    pub negative: String,
    /// How tokens are drawn. Guidance is that of the codes alone.
    pub sampling: TokenSampling,
    /// Whether the codes of several songs are written at once.
    pub batch: bool,
    /// Whether the grammar is kept.
    pub constrained: bool,
    /// Whether the grammar records what it does.
    pub debug: bool,
}

impl Planning {
    /// Whether the request cannot be made without a language model.
    pub fn is_required(&self) -> bool {
        self.wish.is_some() || self.format || self.codes
    }
}

/// Audio that a request brings.
#[derive(Debug, Clone, PartialEq)]
pub enum Recording {
    /// A file, which is decoded when its turn has come.
    File(PathBuf),
    /// Interleaved stereo at 48 kHz, taken as it is.
    Samples(Arc<Vec<f32>>),
    /// A song of our own.
    Own(Arc<OwnSong>),
}

/// A song of our own whose latents are known, so that it need not be encoded.
#[derive(Debug, Clone, PartialEq)]
pub struct OwnSong {
    /// Interleaved stereo at 48 kHz.
    pub samples: Arc<Vec<f32>>,
    /// The latents that it was decoded from, and what is known beside them.
    pub kept: Kept,
}

/// How freely a part is made anew.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Freedom {
    /// Close to what was there: every step is led back to it around the part.
    Conservative,
    /// Between the others: from 0, as conservative, to 1, as aggressive.
    Balanced(f64),
    /// As the model likes; nothing around the part is put back.
    Aggressive,
}

/// How the network is told which part is to be new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChunkMask {
    /// Everything counts as new; upstream's default.
    Auto,
    /// The part alone.
    Explicit,
}

/// The part of a recording that repaint and lego work on, in seconds. A start below 0 and an end
/// behind the recording make it longer.
#[derive(Debug, Clone, PartialEq)]
pub struct Repainting {
    /// Start of the part.
    pub start_s: f64,
    /// Its end; `None` is that of the recording.
    pub end_s: Option<f64>,
    /// How the part is marked.
    pub mask: ChunkMask,
    /// How freely it is made.
    pub freedom: Freedom,
    /// Width in latent frames of the blend on each side; `None` leaves it to the freedom.
    pub crossfade_frames: Option<usize>,
    /// Seconds of the fade into the recording on each side; `None` leaves it to the freedom.
    pub fade_s: Option<f64>,
}

impl Default for Repainting {
    fn default() -> Self {
        Repainting {
            start_s: 0.0,
            end_s: None,
            mask: ChunkMask::Auto,
            freedom: Freedom::Balanced(0.5),
            crossfade_frames: None,
            fade_s: None,
        }
    }
}

impl Repainting {
    /// Share of the steps after which the recording is put back around the part. With it go the
    /// widths of blend and fade, as upstream's `_resolve_repaint_config` couples them.
    pub fn injection_ratio(&self) -> f64 {
        match self.freedom {
            Freedom::Conservative => 1.0,
            Freedom::Balanced(strength) => 1.0 - strength.clamp(0.0, 1.0),
            Freedom::Aggressive => 0.0,
        }
    }

    /// Width in latent frames of the blend on each side.
    pub fn crossfade_frames(&self) -> usize {
        let coupled = (25.0 * self.injection_ratio()).round_ties_even() as usize;
        self.crossfade_frames.unwrap_or(coupled)
    }

    /// Seconds of the fade into the recording on each side; `None` where nothing is put back.
    pub fn fade_s(&self) -> Option<f64> {
        match self.freedom {
            Freedom::Aggressive => None,
            _ => Some(self.fade_s.unwrap_or(0.05 * self.injection_ratio())),
        }
    }
}

/// A second noise to mix into the first one: the same song, a little different.
#[derive(Debug, Clone, PartialEq)]
pub struct Retake {
    /// Seeds of the second noise, one per item.
    pub seeds: Vec<u64>,
    /// From 0, the first noise alone, to 1, the second one alone.
    pub variance: f64,
}

/// One job for the engine.
#[derive(Debug, Clone, PartialEq)]
pub struct SongRequest {
    /// Directory name of the diffusion model under the checkpoints directory.
    pub model: String,
    /// Description of the music.
    pub caption: String,
    /// Description of the whole song, where [`SongRequest::caption`] is that of a stem. Only
    /// models trained on stems read it.
    pub global_caption: String,
    /// Lyrics; empty or `[Instrumental]` for none.
    pub lyrics: String,
    /// Language code of the lyrics.
    pub language: String,
    /// What is made.
    pub task: Task,
    /// Instruction line of the caption prompt.
    pub instruction: String,
    /// The recording to work on, for tasks that work on one.
    pub source: Option<Recording>,
    /// A recording whose sound is taken up: 30 seconds of it, if it is a file.
    pub reference: Option<Recording>,
    /// The part of the recording that is made anew.
    pub repainting: Repainting,
    /// Musical facts.
    pub metas: Metas,
    /// Length in seconds; `None` lets the engine take upstream's default of 120 s (the prompt
    /// then says 30).
    pub duration_s: Option<f64>,
    /// Audio codes to make the music from, five per second: one list for every seed, one list
    /// for all of them, or none. With codes they decide the length, and the instruction of plain
    /// generation becomes that of covers.
    pub codes: Vec<Vec<u32>>,
    /// Share of the steps that follow codes or recording; the rest is plain generation.
    pub cover_strength: f64,
    /// 0 starts from noise, 1 closest to the source.
    pub cover_noise_strength: f64,
    /// A second noise.
    pub retake: Option<Retake>,
    /// What the language model does first; `None` leaves the request as it is.
    pub planning: Option<Planning>,
    /// One seed per item; its length is the batch size.
    pub seeds: Vec<u64>,
    /// Denoising.
    pub sampling: Sampling,
    /// After decoding.
    pub output: Output,
    /// Whether to find out when each line of the lyrics is sung.
    pub lrc: bool,
}

impl SongRequest {
    /// Whether a recording is what the music is made from: then its length is the song's.
    pub fn works_on_recording(&self) -> bool {
        let uses_one = self.task.row().source != SourceUse::Nothing;
        uses_one && self.source.is_some() && self.codes.is_empty()
    }

    /// Refuses a task that lacks what it works on.
    ///
    /// # Errors
    /// [`Error::Request`] that says how to give it.
    pub fn check_source(&self) -> Result<()> {
        let row = self.task.row();
        if !row.needs_source || self.source.is_some() || !self.codes.is_empty() {
            return Ok(());
        }
        Err(Error::Request(format!(
            "Task '{}' requires source audio: name a file with src_audio_path, upload one as \
             src_audio, or give audio_code_string",
            row.name
        )))
    }

    /// Instrumental music of [`super::engine::DEFAULT_DURATION_S`] that nothing is known of, one
    /// song per seed.
    pub fn new(model: &str, seeds: Vec<u64>, sampling: Sampling) -> Self {
        SongRequest {
            model: model.to_owned(),
            caption: String::new(),
            global_caption: String::new(),
            lyrics: prompt::INSTRUMENTAL.into(),
            language: "unknown".into(),
            task: Task::Text2Music,
            instruction: prompt::TEXT2MUSIC.into(),
            source: None,
            reference: None,
            repainting: Repainting::default(),
            metas: Metas::default(),
            duration_s: None,
            codes: Vec::new(),
            cover_strength: 1.0,
            cover_noise_strength: 0.0,
            retake: None,
            planning: None,
            seeds,
            sampling,
            output: Output::default(),
            lrc: false,
        }
    }
}

/// One finished item.
#[derive(Debug, Clone, PartialEq)]
pub struct SongItem {
    /// Seed of its noise.
    pub seed: u64,
    /// Interleaved stereo at 48 kHz.
    pub pcm: Vec<f32>,
    /// The latents that were decoded, `(T, 64)` row-major, 25 frames per second.
    pub latents: Vec<f32>,
    /// How much louder `pcm` is than what was decoded.
    pub gain: f32,
    /// When each line of the lyrics is sung, as LRC text, where that was asked for: empty when
    /// nothing is sung or the lines could not be found.
    pub lrc: Option<String>,
}

/// Seconds spent per stage.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize)]
pub struct StageTimes {
    /// Loading and folding weights.
    pub load_s: f64,
    /// The language model's texts and metadata.
    pub reason_s: f64,
    /// The language model's audio codes.
    pub codes_s: f64,
    /// Reading recordings from their files.
    pub read_s: f64,
    /// Encoding recordings; exactly 0 when none was encoded.
    pub encode_s: f64,
    /// Tokens and text encoder.
    pub text_s: f64,
    /// Condition encoders.
    pub condition_s: f64,
    /// Cross-attention keys and values, initial upload and all denoising steps.
    pub diffuse_s: f64,
    /// Denoising steps that ran; a list of times has its own number of them.
    pub steps: usize,
    /// Number of evaluations of the network.
    pub evaluations: usize,
    /// VAE.
    pub decode_s: f64,
    /// Finding out when the lyrics are sung.
    pub align_s: f64,
}

/// A request with what the language model added to it.
#[derive(Debug, Clone, PartialEq)]
pub struct Composed {
    /// The request as it is made.
    pub request: SongRequest,
    /// Whether a language model was asked.
    pub planned: bool,
    /// Sentences on what did not go as asked.
    pub notes: Vec<String>,
    /// What the grammar did, when asked for.
    pub events: Vec<Event>,
}

/// A finished job.
#[derive(Debug, Clone, PartialEq)]
pub struct Song {
    /// What was made: the request with what the language model wrote.
    pub composed: Composed,
    /// Items in the order of the request's seeds.
    pub items: Vec<SongItem>,
    /// Samples per second and channel.
    pub sample_rate: u32,
    /// Frames of latents per item.
    pub frames: usize,
    /// Which autoencoder decoded them ([`super::loaded::LoadedVae::fingerprint`]).
    pub autoencoder: String,
    /// Where the time went.
    pub times: StageTimes,
}
