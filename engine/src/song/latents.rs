//! PCM to latents: the encoder over overlapping tiles whose cores equal the untiled result, so
//! that memory is bounded by the tile, not by the recording.

use super::render::{TILE, tiles};
use crate::backend::{Backend, Region, Weights, prepare};
use crate::error::{Error, Result};
use crate::models::config::VaeConfig;
use crate::models::vae_encoder::{encode_overlap, vae_encoder};
use crate::program::{DType, Math};
use crate::song::{Stage, Watch};

/// The audio encoder on a device.
#[derive(Clone, Copy)]
pub struct Encoder<'a> {
    /// The device.
    pub backend: &'a dyn Backend,
    /// Sizes.
    pub config: &'a VaeConfig,
    /// Weights.
    pub weights: &'a dyn Weights,
    /// How products treat their operands.
    pub math: Math,
}

/// What the encoder says of a recording: a normal distribution per latent.
#[derive(Debug, Clone, PartialEq)]
pub struct Posterior {
    /// Means `(T, C)`.
    pub mean: Vec<f32>,
    /// Scales `(T, C)`, before `softplus(scale) + 1e-4` makes standard deviations of them.
    pub scale: Vec<f32>,
}

impl Encoder<'_> {
    /// Encodes interleaved `pcm` of `S` samples per channel to `S / hop` frames, rounded down, in
    /// tiles of at most `tile` frames with `overlap` frames around each core.
    ///
    /// # Errors
    /// [`Error::Request`] when there is not even one frame.
    pub fn encode(
        &self,
        pcm: &[f32],
        tile: usize,
        overlap: usize,
        watch: &dyn Watch,
    ) -> Result<Posterior> {
        let (channels, hop) = (self.config.audio_channels, self.config.hop());
        let samples = pcm.len() / channels;
        let (frames, rest) = (samples / hop, samples % hop);
        if frames == 0 {
            return Err(Error::Request(format!(
                "the audio has {samples} samples, less than one frame of {hop}; send a longer \
                 recording"
            )));
        }
        let tiles = tiles(frames, tile, overlap);
        // What is left behind the last frame still speaks in it. Every window is as much longer,
        // so that one program fits all; the others see more than they need.
        let window = tiles[0].window.len() * hop + rest;
        let width = 2 * self.config.decoder_input_channels;
        let program = vae_encoder(self.config, self.math, window)?;
        let x = Region::zeros(self.backend, &[1, window, channels], DType::F32)?;
        let out = Region::zeros(self.backend, &[1, tiles[0].window.len(), width], DType::F32)?;
        let (inputs, outputs) = ([("audio", &x)], [("posterior", &out)]);
        let mut ready = prepare(self.backend, &program, self.weights, &inputs, &outputs)?;
        let mut rows = vec![0f32; frames * width];
        watch.progress(Stage::Encode, 0, tiles.len());
        for (i, tile) in tiles.iter().enumerate() {
            if watch.cancelled() {
                return Err(Error::Cancelled);
            }
            let from = tile.window.start * hop;
            x.write_f32(
                self.backend,
                &pcm[from * channels..(from + window) * channels],
            )?;
            ready.run(&[])?;
            let from = (tile.core.start - tile.window.start) * width;
            let kept = &mut rows[tile.core.start * width..tile.core.end * width];
            out.read_f32_at(self.backend, from, kept)?;
            watch.progress(Stage::Encode, i + 1, tiles.len());
        }
        let half = |from: usize| {
            let part = |row: &[f32]| row[from..from + width / 2].to_vec();
            rows.chunks_exact(width).flat_map(part).collect()
        };
        Ok(Posterior {
            mean: half(0),
            scale: half(width / 2),
        })
    }

    /// Latents `(T, C)` of a recording: the means, which make the same of the same, where a
    /// sample of the posterior would not.
    ///
    /// # Errors
    /// As [`Encoder::encode`]; [`Error::Device`] when they are not finite.
    pub fn latents(&self, pcm: &[f32], watch: &dyn Watch) -> Result<Vec<f32>> {
        let overlap = encode_overlap(self.config);
        let mean = self.encode(pcm, TILE, overlap, watch)?.mean;
        if mean.iter().all(|x| x.is_finite()) {
            return Ok(mean);
        }
        Err(Error::Device(
            "the encoded audio is not finite; the checkpoint or the device is faulty".into(),
        ))
    }
}
