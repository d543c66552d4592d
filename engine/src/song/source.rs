//! Recordings as music to work on: a file to PCM, to latents, to audio codes.

use super::Watch;
use super::engine::Engine;
use super::loaded::LoadedDit;
use crate::audio::{Pcm, read};
use crate::backend::{Backend, HostData, run_once};
use crate::error::{Error, Result};
use crate::models::audio_tokens::audio_tokenizer;
use std::path::Path;

/// Codes that are computed at once. They do not depend on each other, so this bounds the memory.
const AT_ONCE: usize = 256;

/// A recording and what the autoencoder makes of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Source {
    /// Interleaved stereo at 48 kHz.
    pub pcm: Vec<f32>,
    /// Latents `(T, C)`, 25 frames per second.
    pub latents: Vec<f32>,
}

impl LoadedDit {
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

impl Engine {
    /// Reads a file of at most [`read::MAX_SECONDS`] and encodes it. The autoencoder must be
    /// loaded ([`Engine::load`]).
    ///
    /// # Errors
    /// [`Error::Request`] for a file that cannot be read, is silent or shorter than a frame;
    /// [`Error::Missing`] when the checkpoint has no encoder; [`Error::Cancelled`].
    pub fn read_source(&self, path: &Path, watch: &dyn Watch) -> Result<Source> {
        let samples = read::read(path, read::MAX_SECONDS, watch)?;
        let pcm = Pcm {
            samples: &samples,
            rate: read::RATE,
        };
        if read::is_silent(&pcm) {
            return Err(Error::Request(format!(
                "{} is silent; send a recording with music in it",
                path.display()
            )));
        }
        let encoder = self.vae()?.encoder(self.backend(), self.math())?;
        let latents = encoder.latents(&samples, watch)?;
        Ok(Source {
            pcm: samples,
            latents,
        })
    }

    /// Audio codes of a file, five per second, as the diffusion model `model` understands them;
    /// loads what that needs.
    ///
    /// # Errors
    /// Those of [`Engine::load`] and [`Engine::read_source`].
    pub fn codes_of_audio(
        &mut self,
        model: &str,
        path: &Path,
        watch: &dyn Watch,
    ) -> Result<Vec<u32>> {
        self.load(model, watch)?;
        let source = self.read_source(path, watch)?;
        let (dit, _) = self.dit(model)?;
        dit.encode_codes(self.backend(), &source.latents)
    }
}
