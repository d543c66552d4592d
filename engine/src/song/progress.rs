//! The only way out of the engine while a job runs: progress out, cancellation in.

/// Where a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Mapping and checking a checkpoint, folding weights.
    Load,
    /// Prompts to tokens to hidden states.
    Text,
    /// Lyric, timbre and text states to one packed condition.
    Condition,
    /// Denoising steps.
    Diffuse,
    /// Latents to audio, tile by tile.
    Decode,
}

impl Stage {
    /// A short text for people.
    pub fn text(self) -> &'static str {
        match self {
            Stage::Load => "Loading model...",
            Stage::Text => "Preparing inputs...",
            Stage::Condition => "Encoding conditions...",
            Stage::Diffuse => "Generating music...",
            Stage::Decode => "Decoding audio...",
        }
    }
}

/// Sees a job's progress and may stop it. Asked between steps and tiles.
pub trait Watch {
    /// `done` of `total` units of `stage` are finished.
    fn progress(&self, stage: Stage, done: usize, total: usize);
    /// Whether the job should stop.
    fn cancelled(&self) -> bool;
}

/// Watches nothing.
pub struct NoWatch;

impl Watch for NoWatch {
    fn progress(&self, _: Stage, _: usize, _: usize) {}

    fn cancelled(&self) -> bool {
        false
    }
}
