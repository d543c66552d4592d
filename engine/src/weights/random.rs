//! Full-size trees with random weights, to measure speed and memory without the published ones.

use super::bpe::write_tokenizer;
use super::init::{Gauss, Stream};
use super::published::{self, Kind};
use super::torch::Silence;
use super::tree::{TEXT_ENCODER, VAE};
use super::write::{
    Partial, Progress, check_space, checkpoint_bytes, unwritable, write_file, write_json,
    write_weights,
};
use crate::error::{Error, Result};
use crate::models::layout::Named;
use serde_json::Value;
use std::path::Path;

/// Frames of the published silence: ten minutes.
pub const SILENCE_FRAMES: usize = 15_000;
/// Audio codes in a language model's vocabulary.
const AUDIO_CODES: usize = 65_535;

/// A published model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Like {
    /// acestep-v15-turbo.
    Turbo,
    /// acestep-v15-base.
    Base,
    /// acestep-v15-xl-turbo.
    XlTurbo,
    /// acestep-5Hz-lm-0.6B.
    Lm06b,
    /// acestep-5Hz-lm-1.7B.
    Lm17b,
    /// acestep-5Hz-lm-4B.
    Lm4b,
}

impl Like {
    /// Every one.
    pub const ALL: [Like; 6] = [
        Like::Turbo,
        Like::Base,
        Like::XlTurbo,
        Like::Lm06b,
        Like::Lm17b,
        Like::Lm4b,
    ];

    fn component(self) -> Component {
        let (name, kind, config) = match self {
            Like::Turbo => ("acestep-v15-turbo", Kind::Dit, published::dit(true)),
            Like::Base => ("acestep-v15-base", Kind::Dit, published::dit(false)),
            Like::XlTurbo => ("acestep-v15-xl-turbo", Kind::Dit, published::dit_xl()),
            Like::Lm06b => (
                "acestep-5Hz-lm-0.6B",
                Kind::Lm,
                published::lm(1024, 28, 16, 3072),
            ),
            Like::Lm17b => (
                "acestep-5Hz-lm-1.7B",
                Kind::Lm,
                published::lm(2048, 28, 16, 6144),
            ),
            Like::Lm4b => (
                "acestep-5Hz-lm-4B",
                Kind::Lm,
                published::lm(2560, 36, 32, 9728),
            ),
        };
        Component {
            name,
            kind,
            config,
            codes: AUDIO_CODES,
            frames: SILENCE_FRAMES,
        }
    }
}

/// One directory of a tree to be written.
pub struct Component {
    /// Its name.
    pub name: &'static str,
    /// What it holds.
    pub kind: Kind,
    /// Its `config.json`.
    pub config: Value,
    /// Audio codes of a language model's tokenizer.
    pub codes: usize,
    /// Frames of a DiT's silence.
    pub frames: usize,
}

impl Component {
    /// Names and shapes of its weights.
    pub fn tensors(&self) -> Result<Vec<Named>> {
        self.kind.tensors(&self.config)
    }

    /// Writes the whole directory at `dir`, which exists.
    pub fn write(&self, dir: &Path, seed: u64, progress: &mut Progress) -> Result<()> {
        write_json(&dir.join("config.json"), &self.config)?;
        // Two models of one tree must differ even where their tensors have the same names.
        let seed = Stream::new(seed, self.name).key();
        write_weights(dir, self.kind, &self.tensors()?, seed, progress)?;
        match self.kind {
            Kind::Dit => {
                let file = silence(self.frames, seed).to_torch();
                write_file(&dir.join("silence_latent.pt"), &file)
            }
            Kind::Text => write_tokenizer(dir, 0, 0),
            Kind::Lm => {
                let size = self.config.get("vocab_size").and_then(Value::as_u64);
                write_tokenizer(dir, self.codes, size.unwrap_or(0) as usize)
            }
            Kind::Vae => Ok(()),
        }
    }
}

/// A latent that moves slowly around zero, as that of real silence does.
fn silence(frames: usize, seed: u64) -> Silence {
    let channels = 64;
    let mut data = vec![0f32; frames * channels];
    Stream::new(seed, "silence_latent").fill(Gauss::new().quantiles(), 0, &mut data);
    for i in channels..data.len() {
        data[i] = 0.9 * data[i - channels] + 0.43 * data[i];
    }
    Silence {
        frames,
        channels,
        data,
    }
}

/// Writes the directories of these models into `out`, each when it is complete. A DiT brings the
/// autoencoder and the text encoder with it; those are kept when they are there already.
/// `report` is told bytes done and bytes in all.
pub fn random(
    likes: &[Like],
    out: &Path,
    seed: u64,
    report: &mut dyn FnMut(u64, u64),
) -> Result<()> {
    let mut components: Vec<Component> = likes.iter().map(|l| l.component()).collect();
    for component in &components {
        let dir = out.join(component.name);
        if dir.exists() {
            return Err(Error::Output(format!(
                "{} is there already: remove it or choose another directory",
                dir.display()
            )));
        }
    }
    if components.iter().any(|c| c.kind == Kind::Dit) {
        for (name, kind, config) in [
            (VAE, Kind::Vae, published::vae()),
            (TEXT_ENCODER, Kind::Text, published::text()),
        ] {
            if !out.join(name).exists() {
                components.push(Component {
                    name,
                    kind,
                    config,
                    codes: 0,
                    frames: 0,
                });
            }
        }
    }
    let mut weights = 0;
    let mut others = 0;
    for component in &components {
        weights += checkpoint_bytes(&component.tensors()?);
        others += 16 << 20; // tokenizer, silence, directory entries
    }
    check_space(out, weights + others)?;
    std::fs::create_dir_all(out).map_err(|e| unwritable(out, &e))?;
    let mut progress = Progress::new(weights, report);
    for component in &components {
        let partial = Partial::begin(&out.join(component.name))?;
        component.write(partial.path(), seed, &mut progress)?;
        partial.finish()?;
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::inspect::inspect;
    use super::*;
    use serde_json::json;

    /// A language model as small as its vocabulary lets it be.
    fn small(seed: u64, out: &Path) {
        let config = published::changed(
            published::lm(16, 1, 2, 16),
            json!({"vocab_size": super::super::bpe::vocabulary(8), "head_dim": 8,
                   "num_key_value_heads": 1}),
        );
        let name = "acestep-5Hz-lm-0.6B";
        let component = Component {
            name,
            kind: Kind::Lm,
            config,
            codes: 8,
            frames: 0,
        };
        let mut silent = |_, _| {};
        std::fs::create_dir_all(out.join(name)).unwrap();
        component
            .write(&out.join(name), seed, &mut Progress::new(0, &mut silent))
            .unwrap();
    }

    #[test]
    fn a_component_is_complete_and_its_seed_decides() {
        let dir = tempfile::tempdir().unwrap();
        let [a, b, c] = ["a", "b", "c"].map(|n| dir.path().join(n));
        small(1, &a);
        small(1, &b);
        small(2, &c);
        let report = inspect(&a).unwrap();
        assert!(report.components[0].faults.is_empty(), "{report:?}");
        assert_eq!(report.components[0].kind, "lm");
        let read =
            |dir: &Path| std::fs::read(dir.join("acestep-5Hz-lm-0.6B/model.safetensors")).unwrap();
        assert!(read(&a) == read(&b) && read(&a) != read(&c));
    }

    #[test]
    fn what_is_there_is_never_written_over() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("acestep-v15-base")).unwrap();
        let error = random(&[Like::Turbo, Like::Base], dir.path(), 0, &mut |_, _| {}).unwrap_err();
        assert!(matches!(error, Error::Output(_)), "{error}");
        assert!(
            error
                .to_string()
                .contains("acestep-v15-base is there already"),
            "{error}"
        );
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
