//! Audio codes to the latents they stand for, and back.

use super::loaded::LoadedDit;
use crate::backend::{Backend, HostData, run_once};
use crate::error::{Error, Result};
use crate::models::audio_tokens::{audio_detokenizer, audio_tokenizer};

/// Codes that are decoded at once. They do not depend on each other, so this bounds the memory.
const AT_ONCE: usize = 256;

impl LoadedDit {
    /// Latents `(5 N, 64)` of `N` codes.
    ///
    /// # Errors
    /// [`Error::Request`] for a code that the model does not have.
    pub fn decode_codes(&self, backend: &dyn Backend, codes: &[u32]) -> Result<Vec<f32>> {
        let known: u32 = self.config.fsq_input_levels.iter().product();
        if let Some(code) = codes.iter().find(|c| **c >= known) {
            return Err(Error::Request(format!(
                "audio code {code} is unknown: {} knows 0 to {}",
                self.name,
                known - 1
            )));
        }
        let mut latents = Vec::new();
        for codes in codes.chunks(AT_ONCE) {
            let program = audio_detokenizer(&self.config, codes.len())?;
            // Below the number of codes, far from the largest i32.
            let ids: Vec<i32> = codes.iter().map(|c| *c as i32).collect();
            let inputs = [("codes", HostData::I32(&ids))];
            let mut run = run_once(backend, &program, &self.weights, &inputs, &[])?;
            latents.extend(run.take_f32("latents")?);
        }
        Ok(latents)
    }

    /// Audio codes of latents `(T, C)`, one for every five frames; silence fills the last five.
    pub fn encode_codes(&self, backend: &dyn Backend, latents: &[f32]) -> Result<Vec<u32>> {
        let (pool, width) = (
            self.config.pool_window_size,
            self.config.audio_acoustic_hidden_dim,
        );
        let frames = latents.len() / width;
        let mut padded = latents[..frames * width].to_vec();
        padded.extend(self.silence(frames.next_multiple_of(pool) - frames));
        let mut codes = Vec::new();
        for part in padded.chunks(AT_ONCE * pool * width) {
            let program = audio_tokenizer(&self.config, part.len() / (pool * width))?;
            let inputs = [("latents", HostData::F32(part))];
            let mut run = run_once(backend, &program, &self.weights, &inputs, &[])?;
            // Codes are sums of products of levels: never negative.
            let indices = run.take_i32("indices")?;
            codes.extend(indices.into_iter().map(i32::unsigned_abs));
        }
        Ok(codes)
    }
}
