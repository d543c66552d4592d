//! Audio codes to the latents they stand for.

use super::loaded::LoadedDit;
use crate::backend::{Backend, HostData, run_once};
use crate::error::{Error, Result};
use crate::models::audio_tokens::audio_detokenizer;

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
}
