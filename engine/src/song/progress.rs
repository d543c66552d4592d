//! The only way out of the engine while a job runs: progress out, cancellation in.

/// Where a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Mapping and checking a checkpoint, folding weights.
    Load,
    /// Audio to latents, tile by tile.
    Encode,
    /// The language model's metadata, token by token.
    Reason,
    /// The language model's audio codes, code by code.
    Codes,
    /// Prompts to tokens to hidden states.
    Text,
    /// Lyric, timbre and text states to one packed condition.
    Condition,
    /// Denoising steps.
    Diffuse,
    /// Latents to audio, tile by tile.
    Decode,
    /// When the lyrics are sung.
    Align,
}

impl Stage {
    /// A short text for people.
    pub fn text(self) -> &'static str {
        match self {
            Stage::Load => "Loading model...",
            Stage::Encode => "Encoding audio...",
            Stage::Reason => "Planning the song...",
            Stage::Codes => "Generating audio codes...",
            Stage::Text => "Preparing inputs...",
            Stage::Condition => "Encoding conditions...",
            Stage::Diffuse => "Generating music...",
            Stage::Decode => "Decoding audio...",
            Stage::Align => "Timing the lyrics...",
        }
    }
}

/// Sees a job's progress and may stop it. Asked between tokens, steps and tiles.
pub trait Watch {
    /// `done` of `total` units of `stage` are finished.
    fn progress(&self, stage: Stage, done: usize, total: usize);
    /// Whether the job should stop.
    fn cancelled(&self) -> bool;
}

/// Watches one part of equally long parts, so that the whole never seems to fall back.
pub(crate) struct Part<'a> {
    /// Watches the whole.
    pub watch: &'a dyn Watch,
    /// This part's number from 0.
    pub index: usize,
    /// Number of parts.
    pub of: usize,
}

impl Watch for Part<'_> {
    fn progress(&self, stage: Stage, done: usize, total: usize) {
        self.watch
            .progress(stage, self.index * total + done, self.of * total);
    }

    fn cancelled(&self) -> bool {
        self.watch.cancelled()
    }
}

/// Watches nothing.
pub struct NoWatch;

impl Watch for NoWatch {
    fn progress(&self, _: Stage, _: usize, _: usize) {}

    fn cancelled(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    #[derive(Default)]
    struct Seen(RefCell<Vec<(usize, usize)>>);

    impl Watch for Seen {
        fn progress(&self, _: Stage, done: usize, total: usize) {
            self.0.borrow_mut().push((done, total));
        }

        fn cancelled(&self) -> bool {
            true
        }
    }

    #[test]
    fn parts_add_up() {
        let seen = Seen::default();
        for index in 0..2 {
            let part = Part {
                watch: &seen,
                index,
                of: 2,
            };
            assert!(part.cancelled());
            (1..=3).for_each(|done| part.progress(Stage::Decode, done, 3));
        }
        let expected: Vec<_> = (1..=6).map(|done| (done, 6)).collect();
        assert_eq!(seen.0.into_inner(), expected);
    }
}
