//! Which stage a file of a golden tree belongs to, by its path.

use super::grammar::Vocabulary;

/// How the files of one stage are compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stage {
    /// Caption encoder.
    TextEncoder,
    /// Texts to ids and back.
    Tokenizer,
    /// Times of steps.
    Schedules,
    /// Random numbers.
    Random,
    /// Combination of two predictions.
    Guidance,
    /// Wavelet correction.
    Dcw,
    /// Operations of repainting.
    Repaint,
    /// Sinusoid of a time.
    Sinusoid,
    /// Packing of conditions.
    Packing,
    /// A stage of a diffusion model.
    Model {
        /// Its folder in the tree.
        model: String,
        /// Which.
        stage: ModelStage,
    },
    /// The decoder of an autoencoder.
    VaeDecode {
        /// Directory of the autoencoder.
        vae: String,
    },
    /// The encoder of an autoencoder.
    VaeEncode {
        /// Directory of the autoencoder.
        vae: String,
    },
    /// The decoder over tiles.
    VaeTiled {
        /// Directory of the autoencoder.
        vae: String,
    },
    /// Folded weights.
    VaeWeightNorm {
        /// Directory of the autoencoder.
        vae: String,
    },
    /// A prompt of the language model and its continuation.
    LmPrompt,
    /// A guided pair of rows of the language model.
    LmPair,
    /// Constrained decoding of the planner.
    Grammar(Vocabulary),
    /// Choice of tokens.
    TokenSampling,
    /// A request to audio.
    EndToEnd,
    /// Inputs of other files.
    Inputs,
    /// A capability that is still to come.
    NotBuilt(&'static str),
}

/// Stages of a diffusion model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelStage {
    /// Lyric encoder.
    Lyric,
    /// Timbre encoder.
    Timbre,
    /// Condition encoder.
    Condition,
    /// Audio tokenizer and detokenizer.
    AudioTokenizer,
    /// One evaluation of the transformer.
    Forward,
    /// Conditions of the trajectories.
    TrajectoryConditions,
    /// A denoising loop.
    Trajectory,
}

/// Adapter training.
pub const TRAINING: &str = "training";

/// The stage of a file by its path below `stages`; `None` when the path is unknown.
pub fn classify(path: &str) -> Option<Stage> {
    let (folder, file) = path.rsplit_once('/').unwrap_or(("", path));
    if folder.contains('/') {
        return None;
    }
    if let Some(stem) = file.strip_suffix(".json") {
        return match (folder, stem) {
            ("", "schedules") => Some(Stage::Schedules),
            ("", "tokenizer_cases") => Some(Stage::Tokenizer),
            ("lm", "fsm_tiny") => Some(Stage::Grammar(Vocabulary::Tree)),
            ("lm", "fsm_real") => Some(Stage::Grammar(Vocabulary::Published)),
            _ => None,
        };
    }
    let stem = file.strip_suffix(".safetensors")?;
    match folder {
        "" => top(stem),
        "lm" => match stem {
            "lm_forward" => Some(Stage::LmPrompt),
            "lm_cfg_pair" => Some(Stage::LmPair),
            "sampling" => Some(Stage::TokenSampling),
            _ => None,
        },
        "vae" => vae(stem),
        "e2e" if stem == "source_audio" => Some(Stage::Inputs),
        "e2e" => Some(Stage::EndToEnd),
        model => of_model(model, stem),
    }
}

fn top(stem: &str) -> Option<Stage> {
    Some(match stem {
        "text_encoder" => Stage::TextEncoder,
        "rng" => Stage::Random,
        "guidance" => Stage::Guidance,
        "dcw" => Stage::Dcw,
        "timestep_sinusoid" => Stage::Sinusoid,
        "pack_sequences" => Stage::Packing,
        "repaint_ops" => Stage::Repaint,
        _ => return None,
    })
}

fn vae(stem: &str) -> Option<Stage> {
    if let Some((vae, _)) = stem.split_once("_decode_T") {
        return Some(Stage::VaeDecode { vae: vae.into() });
    }
    if let Some((vae, _)) = stem.split_once("_tiled_T") {
        return Some(Stage::VaeTiled { vae: vae.into() });
    }
    if let Some(vae) = stem.strip_suffix("_weightnorm") {
        return Some(Stage::VaeWeightNorm { vae: vae.into() });
    }
    let vae = stem.strip_suffix("_encode")?;
    Some(Stage::VaeEncode { vae: vae.into() })
}

fn of_model(model: &str, stem: &str) -> Option<Stage> {
    let stage = match stem {
        "lyric_encoder" => ModelStage::Lyric,
        "timbre_encoder" => ModelStage::Timbre,
        "condition_encoder" => ModelStage::Condition,
        "audio_tokenizer" => ModelStage::AudioTokenizer,
        "traj_inputs" => return Some(Stage::Inputs),
        "traj_conditions" => ModelStage::TrajectoryConditions,
        "train_step" => return Some(Stage::NotBuilt(TRAINING)),
        _ if stem.starts_with("dit_forward_") => ModelStage::Forward,
        _ if stem.starts_with("traj_") => ModelStage::Trajectory,
        _ => return None,
    };
    Some(Stage::Model {
        model: model.into(),
        stage,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_the_format_are_known_and_others_are_not() {
        assert_eq!(classify("rng.safetensors"), Some(Stage::Random));
        assert_eq!(
            classify("vae/vae-pyramid_decode_T17.safetensors"),
            Some(Stage::VaeDecode {
                vae: "vae-pyramid".into()
            })
        );
        let stage = ModelStage::Trajectory;
        assert_eq!(
            classify("other/traj_ode_new.safetensors"),
            Some(Stage::Model {
                model: "other".into(),
                stage
            })
        );
        for path in [
            "rng.bin",
            "surprise.safetensors",
            "turbo/surprise.safetensors",
            "vae/surprise.safetensors",
            "turbo/deep/traj_ode.safetensors",
            "e2e/x.json",
        ] {
            assert_eq!(classify(path), None, "{path}");
        }
    }
}
