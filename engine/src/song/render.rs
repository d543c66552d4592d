//! Latents to PCM: the decoder over overlapping tiles whose cores equal the untiled result, so
//! that memory is bounded by the tile, not by the song.

use crate::backend::{Backend, Region, Weights, prepare};
use crate::error::{Error, Result};
use crate::models::config::VaeConfig;
use crate::models::vae::{decode_overlap, vae_decoder};
use crate::program::{DType, Math};
use crate::song::fit::DecoderFit;
use crate::song::{Stage, Watch};
use std::ops::Range;

/// Latent frames of a tile: 10 s decode in one piece, and longer songs pay 7 % for the overlap.
pub const TILE: usize = 256;
/// Fewest latent frames of a tile on a device with little memory: half of it is overlap.
pub const LEAST_TILE: usize = 32;

/// The audio decoder on a device.
#[derive(Clone, Copy)]
pub struct Decoder<'a> {
    /// The device.
    pub backend: &'a dyn Backend,
    /// Sizes.
    pub config: &'a VaeConfig,
    /// Weights.
    pub weights: &'a dyn Weights,
    /// How products treat their operands.
    pub math: Math,
}

/// One tile: the frames that are decoded and the part of them that is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tile {
    /// Frames that pass through the decoder.
    pub window: Range<usize>,
    /// Frames that are kept; within the window.
    pub core: Range<usize>,
}

/// Covers `frames` with windows of one length: at most `tile` frames each, cores without gap or
/// overlap, and at least `overlap` frames around every core except at the ends of the song.
pub fn tiles(frames: usize, tile: usize, overlap: usize) -> Vec<Tile> {
    let tile = tile.max(2 * overlap + 1);
    if frames <= tile {
        return vec![Tile {
            window: 0..frames,
            core: 0..frames,
        }];
    }
    let mut all = Vec::new();
    let mut start = 0;
    while start < frames {
        let first = start.saturating_sub(overlap).min(frames - tile);
        let window = first..first + tile;
        let end = if window.end == frames {
            frames
        } else {
            window.end - overlap
        };
        all.push(Tile {
            window,
            core: start..end,
        });
        start = end;
    }
    all
}

impl Decoder<'_> {
    /// Decodes `latents` `(T, C)` to interleaved PCM, in tiles of at most `tile` frames with
    /// `overlap` frames around each core.
    pub fn decode(
        &self,
        latents: &[f32],
        tile: usize,
        overlap: usize,
        watch: &dyn Watch,
    ) -> Result<Vec<f32>> {
        let c = self.config.decoder_input_channels;
        let frames = latents.len() / c;
        let step = self.config.hop() * self.config.audio_channels;
        let tiles = tiles(frames, tile, overlap);
        let window = tiles[0].window.len();
        let x = Region::zeros(self.backend, &[1, window, c], DType::F32)?;
        let program = vae_decoder(self.config, self.math, window)?;
        let samples = program.vals[program.outs[0].1.index()].len();
        if samples != window * step {
            return Err(Error::Corrupt(format!(
                "the VAE's config gives {samples} samples for {window} frames instead of {}; its \
                 downsampling ratios must be even",
                window * step
            )));
        }
        let audio = Region::zeros(self.backend, &[samples], DType::F32)?;
        let inputs = [("latents", &x)];
        let outputs = [("audio", &audio)];
        let mut ready = prepare(self.backend, &program, self.weights, &inputs, &outputs)?;
        let mut pcm = vec![0f32; frames * step];
        watch.progress(Stage::Decode, 0, tiles.len());
        for (i, tile) in tiles.iter().enumerate() {
            if watch.cancelled() {
                return Err(Error::Cancelled);
            }
            x.write_f32(
                self.backend,
                &latents[tile.window.start * c..tile.window.end * c],
            )?;
            ready.run(&[])?;
            let from = (tile.core.start - tile.window.start) * step;
            let kept = &mut pcm[tile.core.start * step..tile.core.end * step];
            audio.read_f32_at(self.backend, from, kept)?;
            watch.progress(Stage::Decode, i + 1, tiles.len());
        }
        Ok(pcm)
    }

    /// [`Decoder::decode`] with the overlap of generation, in tiles that the device has room for.
    pub fn decode_song(&self, latents: &[f32], watch: &dyn Watch) -> Result<Vec<f32>> {
        let fit = DecoderFit {
            backend: self.backend,
            vae: self.config,
            math: self.math,
        };
        let tile = fit.tile(latents.len() / self.config.decoder_input_channels)?;
        self.decode(latents, tile, decode_overlap(self.config), watch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_cover_every_frame_once_with_enough_around_them() {
        for overlap in [0, 1, 9] {
            for tile in [1, 19, 20, 28, 64] {
                for frames in 1..200 {
                    let all = tiles(frames, tile, overlap);
                    let mut next = 0;
                    for t in &all {
                        assert_eq!(t.window.len(), all[0].window.len());
                        assert_eq!(t.core.start, next);
                        assert!(t.core.start >= t.window.start && t.core.end <= t.window.end);
                        assert!(t.window.start == 0 || t.core.start - t.window.start >= overlap);
                        assert!(t.window.end == frames || t.window.end - t.core.end >= overlap);
                        assert!(!t.core.is_empty());
                        next = t.core.end;
                    }
                    assert_eq!(next, frames);
                }
            }
        }
    }
}
