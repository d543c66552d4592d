//! Networks of a checkpoint tree, mapped and checked.

use crate::backend::{Backend, Weights};
use crate::error::{Error, Result};
use crate::models::condition::{self, PackShape};
use crate::models::config::{DitConfig, TextConfig, VaeConfig};
use crate::models::dit::{self, TimeFrom, VelocityShape};
use crate::models::{audio_tokens, text_encoder, vae, vae_encoder};
use crate::program::{Math, Program};
use crate::song::encode::{ConditionEncoder, TextEncoder};
use crate::song::latents::Encoder;
use crate::song::render::Decoder;
use crate::text::tokenizer::Tokenizer;
use crate::weights::{Checkpoint, Checkpoints, Silence, WeightStore};
use sha2::{Digest, Sha256};
use std::path::Path;
use std::sync::Arc;

/// The text encoder with its tokenizer.
pub struct LoadedText {
    /// Sizes.
    pub config: TextConfig,
    /// Weights.
    pub weights: WeightStore,
    /// Tokenizer of the same folder.
    pub tokenizer: Tokenizer,
}

/// The audio autoencoder.
pub struct LoadedVae {
    /// Sizes.
    pub config: VaeConfig,
    /// Weights.
    pub weights: WeightStore,
}

/// A diffusion model with its condition encoders.
pub struct LoadedDit {
    /// Name of its directory.
    pub name: String,
    /// Sizes.
    pub config: DitConfig,
    /// Weights.
    pub weights: WeightStore,
    /// The latent of silence.
    pub silence: Silence,
}

/// A small shape: the weights a program declares do not depend on it.
pub(super) const PROBE: usize = 2;

pub(super) fn checked(dir: &Path, programs: &[Program]) -> Result<WeightStore> {
    let checkpoint = Checkpoint::open(dir)?;
    checkpoint.check(programs.iter().flat_map(Program::weights))?;
    Ok(WeightStore::new(Arc::new(checkpoint)))
}

impl LoadedText {
    /// Maps and checks the text encoder of `tree`.
    pub fn open(tree: &Checkpoints, math: Math) -> Result<Self> {
        let dir = tree.text_encoder()?;
        let config = TextConfig::load(&dir)?;
        let program = text_encoder::text_encoder(&config, math, 1, PROBE)?;
        let weights = checked(&dir, &[program])?;
        let file = tree.tokenizer()?;
        let tokenizer = Tokenizer::load(file.parent().unwrap_or(&file))?;
        if tokenizer.vocabulary() > config.vocab_size {
            return Err(Error::Corrupt(format!(
                "{}: the tokenizer has {} tokens, the model only {} embedding rows: the files do \
                 not belong together, download both again",
                dir.display(),
                tokenizer.vocabulary(),
                config.vocab_size
            )));
        }
        Ok(LoadedText {
            config,
            weights,
            tokenizer,
        })
    }

    /// The encoder on a device.
    pub fn on<'a>(&'a self, backend: &'a dyn Backend, math: Math) -> TextEncoder<'a> {
        TextEncoder {
            backend,
            config: &self.config,
            weights: &self.weights,
            math,
        }
    }
}

impl LoadedVae {
    /// Maps and checks the decoder half of an autoencoder's directory.
    pub fn open(dir: &Path, math: Math) -> Result<Self> {
        let config = VaeConfig::load(dir)?;
        let weights = checked(dir, &[vae::vae_decoder(&config, math, PROBE)?])?;
        Ok(LoadedVae { config, weights })
    }

    /// Folds the weight norms now instead of at the first song.
    pub fn fold(&self, backend: &dyn Backend, math: Math) -> Result<()> {
        let program = vae::vae_decoder(&self.config, math, PROBE)?;
        for decl in program.weights() {
            self.weights.region(backend, decl, math)?;
        }
        Ok(())
    }

    /// Tells autoencoders apart: latents of one mean nothing to another. A digest of the
    /// decoder's first convolution, which is small and differs wherever one was trained on.
    pub fn fingerprint(&self) -> String {
        let checkpoint = self.weights.checkpoint();
        let mut hash = Sha256::new();
        for (name, tensor) in checkpoint.tensors() {
            if name.starts_with("decoder.conv1.") {
                hash.update(name);
                hash.update(checkpoint.bytes(tensor));
            }
        }
        format!("{:x}", hash.finalize())
    }

    /// The encoder on a device. A directory without that half still decodes.
    ///
    /// # Errors
    /// [`Error::Missing`] or [`Error::Corrupt`] when the encoder's weights are not all there.
    pub fn encoder<'a>(&'a self, backend: &'a dyn Backend, math: Math) -> Result<Encoder<'a>> {
        // Shorter audio than this has no frame.
        let samples = PROBE * self.config.hop();
        let program = vae_encoder::vae_encoder(&self.config, math, samples)?;
        let checkpoint = self.weights.checkpoint();
        checkpoint.check(program.weights())?;
        Ok(Encoder {
            backend,
            config: &self.config,
            weights: &self.weights,
            math,
        })
    }

    /// The decoder on a device.
    pub fn on<'a>(&'a self, backend: &'a dyn Backend, math: Math) -> Decoder<'a> {
        Decoder {
            backend,
            config: &self.config,
            weights: &self.weights,
            math,
        }
    }
}

impl LoadedDit {
    /// Maps and checks a diffusion model's directory.
    pub fn open(name: &str, dir: &Path, math: Math) -> Result<Self> {
        let c = DitConfig::load(dir)?;
        let velocity = VelocityShape {
            batch: 1,
            frames: PROBE,
            condition_rows: PROBE,
            guided: false,
            time: TimeFrom::Items,
        };
        let programs = [
            condition::lyric_encoder(&c, math, 1, PROBE)?,
            condition::timbre_encoder(&c, math, 1, PROBE)?,
            condition::pack(
                &c,
                math,
                PackShape {
                    lyric: 1,
                    timbre: 1,
                    text: 1,
                },
            )?,
            condition::null_condition(&c, math)?,
            audio_tokens::audio_tokenizer(&c, 1)?,
            audio_tokens::audio_detokenizer(&c, 1)?,
            dit::time_table(&c, math, 1)?,
            dit::cross_kv(&c, math, 1, PROBE)?,
            dit::velocity(&c, math, velocity)?,
        ];
        let weights = checked(dir, &programs)?;
        let channels = c.audio_acoustic_hidden_dim;
        let silence = Silence::load(dir, weights.checkpoint(), channels)?;
        Ok(LoadedDit {
            name: name.to_string(),
            config: c,
            weights,
            silence,
        })
    }

    /// The condition encoders on a device.
    pub fn encoder<'a>(&'a self, backend: &'a dyn Backend, math: Math) -> ConditionEncoder<'a> {
        ConditionEncoder {
            backend,
            config: &self.config,
            weights: &self.weights,
            math,
        }
    }

    /// Latents of `frames` frames of silence `(frames, C)`, repeated where the file is shorter.
    pub fn silence(&self, frames: usize) -> Vec<f32> {
        let all = &self.silence.data;
        all.iter()
            .copied()
            .cycle()
            .take(frames * self.silence.channels)
            .collect()
    }
}
