//! What the engine is asked for and what it returns. Everything here is resolved: defaults that
//! depend on the model are the resolver's business, not the engine's.

use crate::program::Dcw;
use crate::sample::logits::TokenSampling;
use crate::text::grammar::Event;

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

/// One job for the engine.
#[derive(Debug, Clone, PartialEq)]
pub struct SongRequest {
    /// Directory name of the diffusion model under the checkpoints directory.
    pub model: String,
    /// Description of the music.
    pub caption: String,
    /// Lyrics; empty or `[Instrumental]` for none.
    pub lyrics: String,
    /// Language code of the lyrics.
    pub language: String,
    /// Instruction line of the caption prompt.
    pub instruction: String,
    /// Musical facts.
    pub metas: Metas,
    /// Length in seconds; `None` lets the engine take upstream's default of 120 s (the prompt
    /// then says 30).
    pub duration_s: Option<f64>,
    /// Audio codes to make the music from, five per second: one list for every seed, one list
    /// for all of them, or none. With codes they decide the length, and the instruction of plain
    /// generation becomes that of covers.
    pub codes: Vec<Vec<u32>>,
    /// Share of the steps that follow the codes; the rest is plain generation.
    pub cover_strength: f64,
    /// What the language model does first; `None` leaves the request as it is.
    pub planning: Option<Planning>,
    /// One seed per item; its length is the batch size.
    pub seeds: Vec<u64>,
    /// Denoising.
    pub sampling: Sampling,
    /// After decoding.
    pub output: Output,
}

/// One finished item.
#[derive(Debug, Clone, PartialEq)]
pub struct SongItem {
    /// Seed of its noise.
    pub seed: u64,
    /// Interleaved stereo at 48 kHz.
    pub pcm: Vec<f32>,
    /// Final latents, `(T, 64)` row-major, 25 frames per second.
    pub latents: Vec<f32>,
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
    /// Where the time went.
    pub times: StageTimes,
}
