//! From the logits of a run of the language model to its next token: penalty, guidance, what the
//! grammar allows, one draw.

use crate::error::{Error, Result};
use crate::sample::logits::{Candidates, TokenSampling, guide, penalize};
use crate::sample::noise::Stream;
use crate::text::grammar::Machine;

/// Logits of what follows, from the token `first` on.
#[derive(Debug, Clone, Copy)]
pub struct Logits<'a> {
    /// Token of the first logit.
    pub first: u32,
    /// Behind the prompt.
    pub conditional: &'a [f32],
    /// Behind the prompt without the request, for guidance.
    pub unconditional: Option<&'a [f32]>,
}

/// Chooses the tokens of a run; keeps its buffers from token to token.
pub struct Chooser {
    how: TokenSampling,
    stream: Stream,
    work: Vec<f32>,
    candidates: Candidates,
    /// Tokens written before, as places among the logits.
    places: Vec<u32>,
}

impl Chooser {
    /// A chooser of the run that draws from `stream`.
    pub fn new(how: &TokenSampling, stream: Stream) -> Self {
        Chooser {
            how: *how,
            stream,
            work: Vec::new(),
            candidates: Candidates::default(),
            places: Vec::new(),
        }
    }

    /// The token behind those `written`, one of those that `machine` allows.
    ///
    /// # Errors
    /// [`Error::Bug`] when it allows none that has a logit.
    pub fn next(
        &mut self,
        logits: Logits,
        written: &[u32],
        machine: &mut Machine,
        seed: u64,
    ) -> Result<u32> {
        let Logits {
            first,
            conditional,
            unconditional,
        } = logits;
        self.work.clear();
        self.work.extend_from_slice(conditional);
        // Off by default, and then not worth a walk over all that was written.
        if self.how.repetition_penalty != 1.0 {
            self.places.clear();
            let places = written.iter().map(|id| id.wrapping_sub(first));
            self.places.extend(places);
            penalize(&mut self.work, &self.places, self.how.repetition_penalty);
        }
        if let Some(unconditional) = unconditional {
            guide(&mut self.work, unconditional, self.how.guidance);
        }
        // The grammar looks at what the model itself prefers, and only where it reads text.
        let preferred = if first == 0 { conditional } else { &[] };
        self.candidates.clear();
        let (work, candidates) = (&self.work, &mut self.candidates);
        let allowed = machine.allowed(preferred);
        allowed.for_each_range(|ids| candidates.take(work, first, ids));
        candidates
            .sample(&self.how, self.stream, seed, written.len() as u32)
            .ok_or_else(|| Error::Bug("the grammar allows no token".into()))
    }
}
