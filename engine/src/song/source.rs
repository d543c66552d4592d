//! Recordings as music to work on: a file to PCM, to latents, to audio codes.

use super::Watch;
use super::engine::Engine;
use super::request::{Recording, SongRequest};
use crate::audio::{Pcm, read};
use crate::error::{Error, Result};
use std::path::Path;
use std::sync::Arc;

/// Reads a file as [`Engine::read_recording`] will, and drops it: what is wrong with it is known
/// before its turn has come.
///
/// # Errors
/// Those of [`Engine::read_recording`].
pub fn check_recording(path: &Path, watch: &dyn Watch) -> Result<()> {
    samples(&Recording::File(path.to_path_buf()), watch).map(drop)
}

/// Samples of a recording: interleaved stereo at 48 kHz.
fn samples(recording: &Recording, watch: &dyn Watch) -> Result<Arc<Vec<f32>>> {
    let (samples, name) = match recording {
        Recording::Samples(samples) => (samples.clone(), "the recording".to_owned()),
        Recording::File(path) => {
            let samples = read::read(path, read::MAX_SECONDS, watch)?;
            (Arc::new(samples), path.display().to_string())
        }
    };
    let pcm = Pcm {
        samples: &samples,
        rate: read::RATE,
    };
    if read::is_silent(&pcm) {
        return Err(Error::Request(format!(
            "{name} is silent; send a recording with music in it"
        )));
    }
    Ok(samples)
}

impl Engine {
    /// Samples of a recording: interleaved stereo at 48 kHz, at most [`read::MAX_SECONDS`].
    ///
    /// # Errors
    /// [`Error::Request`] for a recording that cannot be read or is silent; [`Error::Cancelled`].
    pub fn read_recording(
        &self,
        recording: &Recording,
        watch: &dyn Watch,
    ) -> Result<Arc<Vec<f32>>> {
        samples(recording, watch)
    }

    /// Audio codes of a request's source: those that it brings, else those of its recording.
    ///
    /// # Errors
    /// [`Error::Request`] when it has neither, and those of [`Engine::codes_of_audio`].
    pub fn codes_of(&mut self, request: &SongRequest, watch: &dyn Watch) -> Result<Vec<u32>> {
        if let Some(codes) = request.codes.first() {
            return Ok(codes.clone());
        }
        let Some(recording) = &request.source else {
            return Err(Error::Request(
                "an analysis requires source audio: name a file with src_audio_path, or upload \
                 one as src_audio"
                    .into(),
            ));
        };
        self.codes_of_recording(&request.model, recording, watch)
    }

    /// Latents `(T, C)` of interleaved `pcm`, 25 frames per second. The autoencoder must be loaded
    /// ([`Engine::load`]).
    ///
    /// # Errors
    /// [`Error::Request`] for a recording that is shorter than a frame; [`Error::Missing`] when
    /// the checkpoint has no encoder.
    pub fn encode(&self, pcm: &[f32], watch: &dyn Watch) -> Result<Vec<f32>> {
        let encoder = self.vae()?.encoder(self.backend(), self.math())?;
        encoder.latents(pcm, watch)
    }

    /// Audio codes of a file, five per second, as the diffusion model `model` understands them;
    /// loads what that needs.
    ///
    /// # Errors
    /// Those of [`Engine::load`], [`Engine::read_recording`] and [`Engine::encode`].
    pub fn codes_of_audio(
        &mut self,
        model: &str,
        path: &Path,
        watch: &dyn Watch,
    ) -> Result<Vec<u32>> {
        self.codes_of_recording(model, &Recording::File(path.to_path_buf()), watch)
    }

    fn codes_of_recording(
        &mut self,
        model: &str,
        recording: &Recording,
        watch: &dyn Watch,
    ) -> Result<Vec<u32>> {
        self.load(model, watch)?;
        let pcm = self.read_recording(recording, watch)?;
        let latents = self.encode(&pcm, watch)?;
        let (dit, _) = self.dit(model)?;
        dit.encode_codes(self.backend(), &latents)
    }
}
