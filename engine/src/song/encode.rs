//! Prompts to the packed condition: the text encoder and the condition encoders, one item at a
//! time, each with its own lengths.

use crate::backend::{Backend, HostData, Weights, run_once};
use crate::error::Result;
use crate::models::condition::{self, PackShape};
use crate::models::config::{DitConfig, TextConfig};
use crate::models::text_encoder;
use crate::program::Math;

/// The caption encoder on a device.
#[derive(Clone, Copy)]
pub struct TextEncoder<'a> {
    /// The device.
    pub backend: &'a dyn Backend,
    /// Sizes.
    pub config: &'a TextConfig,
    /// Weights.
    pub weights: &'a dyn Weights,
    /// How products treat their operands.
    pub math: Math,
}

impl TextEncoder<'_> {
    /// Last hidden states `(T, C)` of one prompt.
    pub fn hidden_states(&self, ids: &[u32]) -> Result<Vec<f32>> {
        let program = text_encoder::text_encoder(self.config, self.math, 1, ids.len())?;
        self.run(&program, ids, "last_hidden_state")
    }

    /// Rows of the embedding table `(T, C)`: all that lyrics use of the text encoder.
    pub fn embeddings(&self, ids: &[u32]) -> Result<Vec<f32>> {
        let program = text_encoder::token_embedding(self.config, self.math, 1, ids.len())?;
        self.run(&program, ids, "embed")
    }

    fn run(&self, program: &crate::program::Program, ids: &[u32], out: &str) -> Result<Vec<f32>> {
        let ids: Vec<i32> = ids.iter().map(|i| *i as i32).collect();
        let inputs = [("ids", HostData::I32(&ids))];
        run_once(self.backend, program, self.weights, &inputs, &[])?.take_f32(out)
    }
}

/// The condition encoders of a diffusion checkpoint on a device.
#[derive(Clone, Copy)]
pub struct ConditionEncoder<'a> {
    /// The device.
    pub backend: &'a dyn Backend,
    /// Sizes.
    pub config: &'a DitConfig,
    /// Weights.
    pub weights: &'a dyn Weights,
    /// How products treat their operands.
    pub math: Math,
}

impl ConditionEncoder<'_> {
    /// Lyric states `(T, He)` from embedding rows `(T, text width)`.
    pub fn lyric(&self, embeds: &[f32]) -> Result<Vec<f32>> {
        let t = embeds.len() / self.config.text_hidden_dim;
        let program = condition::lyric_encoder(self.config, self.math, 1, t)?;
        let inputs = [("inputs_embeds", HostData::F32(embeds))];
        run_once(self.backend, &program, self.weights, &inputs, &[])?.take_f32("out")
    }

    /// Timbre embeddings `(clips, He)` from latents `(clips, frames, 64)`.
    pub fn timbre(&self, latents: &[f32], frames: usize) -> Result<Vec<f32>> {
        let clips = latents.len() / (frames * self.config.timbre_hidden_dim);
        let program = condition::timbre_encoder(self.config, self.math, clips, frames)?;
        let inputs = [("latents", HostData::F32(latents))];
        run_once(self.backend, &program, self.weights, &inputs, &[])?.take_f32("timbre")
    }

    /// The packed condition `(L, He)`: lyrics, timbre, caption.
    pub fn pack(&self, lyric: &[f32], timbre: &[f32], text: &[f32]) -> Result<Vec<f32>> {
        let he = self.config.encoder_hidden_size;
        let shape = PackShape {
            lyric: lyric.len() / he,
            timbre: timbre.len() / he,
            text: text.len() / self.config.text_hidden_dim,
        };
        let program = condition::pack(self.config, self.math, shape)?;
        let inputs = [
            ("lyric", HostData::F32(lyric)),
            ("timbre", HostData::F32(timbre)),
            ("text", HostData::F32(text)),
        ];
        run_once(self.backend, &program, self.weights, &inputs, &[])?.take_f32("packed")
    }
}
