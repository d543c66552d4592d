//! What a folder of checkpoints holds, and what it lacks.

use super::checkpoint::Checkpoint;
use super::published::Kind;
use super::torch::Silence;
use super::tree::{Checkpoints, REMEDY, TEXT_ENCODER, VAE};
use crate::error::{Error, Result};
use crate::models::config::{DitConfig, LmConfig, TextConfig, VaeConfig};
use crate::models::layout::{self, Named};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// One model directory.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Component {
    /// Name of its directory.
    pub name: String,
    /// Its directory.
    pub path: PathBuf,
    /// dit, text encoder, vae or lm.
    pub kind: &'static str,
    /// Tensors in its files.
    pub tensors: usize,
    /// Elements of all tensors.
    pub parameters: u64,
    /// Bytes of its weight files.
    pub bytes: u64,
    /// Elements by the dtype they are stored in.
    pub dtypes: BTreeMap<String, u64>,
    /// Tensors that no program reads.
    pub unused: Vec<String>,
    /// What is missing, misshapen or damaged; empty when the component is usable.
    pub faults: Vec<String>,
}

/// A folder of checkpoints.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The folder.
    pub path: PathBuf,
    /// Its components, by name.
    pub components: Vec<Component>,
    /// Parts without which no song can be made.
    pub missing: Vec<String>,
}

impl Report {
    /// Whether songs can be made and every component is sound.
    pub fn is_sound(&self) -> bool {
        self.missing.is_empty() && self.components.iter().all(|c| c.faults.is_empty())
    }
}

/// Lists a folder of checkpoints, or a single model directory.
pub fn inspect(dir: &Path) -> Result<Report> {
    let tree = Checkpoints::open(dir)?;
    let mut report = Report {
        path: dir.to_path_buf(),
        components: Vec::new(),
        missing: Vec::new(),
    };
    if let Some(kind) = kind_of(dir) {
        report.components.push(component(&name_of(dir), dir, kind));
        return Ok(report);
    }
    for model in tree.dits() {
        report
            .components
            .push(component(&model.name, &model.path, Kind::Dit));
    }
    for model in tree.lms() {
        report
            .components
            .push(component(&model.name, &model.path, Kind::Lm));
    }
    let known: BTreeSet<PathBuf> = report.components.iter().map(|c| c.path.clone()).collect();
    let mut others: Vec<PathBuf> = std::fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| e.path())
        .collect();
    others.sort();
    for path in others
        .into_iter()
        .filter(|p| p.is_dir() && !known.contains(p))
    {
        if let Some(kind) = kind_of(&path).or_else(|| kind_by_name(&name_of(&path))) {
            report
                .components
                .push(component(&name_of(&path), &path, kind));
        }
    }
    report.components.sort_by(|a, b| a.name.cmp(&b.name));
    let needed = [
        tree.dits()
            .is_empty()
            .then(|| format!("a DiT ({}/acestep-v15-turbo)", dir.display())),
        missing(&tree.vae(), VAE),
        missing(&tree.text_encoder(), TEXT_ENCODER),
    ];
    report.missing.extend(
        needed
            .into_iter()
            .flatten()
            .map(|what| format!("{what}: {REMEDY}")),
    );
    Ok(report)
}

fn missing(part: &Result<PathBuf>, name: &str) -> Option<String> {
    part.is_err().then(|| name.to_string())
}

fn name_of(dir: &Path) -> String {
    let real = dir.canonicalize().unwrap_or_else(|_| dir.to_path_buf());
    real.file_name()
        .unwrap_or(real.as_os_str())
        .to_string_lossy()
        .into_owned()
}

/// What the `config.json` of a directory describes, as far as it says so.
fn kind_of(dir: &Path) -> Option<Kind> {
    let text = std::fs::read(dir.join("config.json")).ok()?;
    let json: serde_json::Value = serde_json::from_slice(&text).ok()?;
    match (
        json.get("model_type").and_then(|m| m.as_str()),
        json.get("_class_name"),
    ) {
        (Some("acestep"), _) => Some(Kind::Dit),
        (Some("qwen3"), _) if name_of(dir).contains("-lm-") => Some(Kind::Lm),
        (Some("qwen3"), _) => Some(Kind::Text),
        (_, Some(class)) if class == "AutoencoderOobleck" => Some(Kind::Vae),
        _ => None,
    }
}

/// What a directory of this name is, however damaged its config.
fn kind_by_name(name: &str) -> Option<Kind> {
    match name {
        VAE => Some(Kind::Vae),
        TEXT_ENCODER => Some(Kind::Text),
        _ => None,
    }
}

fn component(name: &str, dir: &Path, kind: Kind) -> Component {
    let mut out = Component {
        name: name.to_string(),
        path: dir.to_path_buf(),
        kind: kind.name(),
        tensors: 0,
        parameters: 0,
        bytes: 0,
        dtypes: BTreeMap::new(),
        unused: Vec::new(),
        faults: Vec::new(),
    };
    let checkpoint = match Checkpoint::open(dir) {
        Ok(checkpoint) => Some(checkpoint),
        Err(e) => {
            out.faults.push(e.to_string());
            None
        }
    };
    if let Some(checkpoint) = &checkpoint {
        out.bytes = checkpoint.files().map(|(_, bytes)| bytes).sum();
        for (_, tensor) in checkpoint.tensors() {
            out.tensors += 1;
            out.parameters += tensor.len() as u64;
            *out.dtypes
                .entry(format!("{:?}", tensor.stored))
                .or_default() += tensor.len() as u64;
        }
    }
    match wanted(dir, kind, checkpoint.as_ref()) {
        Ok(wanted) => {
            if let Some(checkpoint) = &checkpoint {
                let list = wanted.iter().map(|(n, s)| (n.as_str(), s.as_slice()));
                out.faults.extend(checkpoint.faults(list));
                let names: BTreeSet<&str> = wanted.iter().map(|(n, _)| n.as_str()).collect();
                let unused = checkpoint
                    .tensors()
                    .map(|(n, _)| n)
                    .filter(|n| !names.contains(n));
                out.unused = unused.map(str::to_string).collect();
            }
        }
        Err(e) => out.faults.push(e.to_string()),
    }
    out
}

/// Tensors the directory should hold; also checks the files beside them.
fn wanted(dir: &Path, kind: Kind, checkpoint: Option<&Checkpoint>) -> Result<Vec<Named>> {
    Ok(match kind {
        Kind::Dit => {
            let config = DitConfig::load(dir)?;
            if let Some(checkpoint) = checkpoint {
                Silence::load(dir, checkpoint, config.audio_acoustic_hidden_dim)?;
            }
            let mut tensors = layout::dit_tensors(&config);
            let silence = checkpoint.and_then(|c| c.get("silence_latent"));
            tensors.extend(silence.map(|t| ("silence_latent".to_string(), t.shape.clone())));
            tensors
        }
        Kind::Text => {
            let config = TextConfig::load(dir)?;
            need_tokenizer(dir)?;
            layout::text_tensors(&config)
        }
        Kind::Lm => {
            let config = LmConfig::load(dir)?;
            need_tokenizer(dir)?;
            layout::lm_tensors(&config)
        }
        Kind::Vae => layout::vae_tensors(&VaeConfig::load(dir)?),
    })
}

fn need_tokenizer(dir: &Path) -> Result<()> {
    let beside = dir.join("tokenizer.json");
    // The diffusers layout keeps it in a folder of its own.
    let apart = dir.parent().map(|p| p.join("tokenizer/tokenizer.json"));
    let candidates = [Some(beside.clone()), apart];
    let Some(file) = candidates.into_iter().flatten().find(|p| p.is_file()) else {
        return Err(Error::Missing(format!(
            "{} is missing: download it again",
            beside.display()
        )));
    };
    match tokenizers::Tokenizer::from_file(&file) {
        Ok(_) => Ok(()),
        Err(e) => Err(Error::Corrupt(format!(
            "{} is not a tokenizer ({e}): download it again",
            file.display()
        ))),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::weights::demo::demo;
    use std::fs;

    #[test]
    fn a_sound_tree_has_no_faults_and_a_damaged_one_names_them() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("demo");
        demo(&out).unwrap();
        let report = inspect(&out).unwrap();
        assert!(report.is_sound(), "{report:?}");
        let names: Vec<&str> = report.components.iter().map(|c| c.name.as_str()).collect();
        assert_eq!(
            names,
            [
                "Qwen3-Embedding-0.6B",
                "acestep-5Hz-lm-0.6B",
                "acestep-v15-base",
                "acestep-v15-turbo",
                "vae"
            ]
        );
        for c in &report.components {
            assert!(c.unused.is_empty(), "{:?}", c.unused);
            assert_eq!(c.dtypes.get("BF16"), Some(&c.parameters));
            assert!(c.bytes > 2 * c.parameters);
        }

        let alone = inspect(&out.join("vae")).unwrap();
        assert_eq!((alone.components.len(), alone.is_sound()), (1, true));

        fs::remove_file(out.join("acestep-v15-turbo/silence_latent.pt")).unwrap();
        fs::remove_file(out.join("Qwen3-Embedding-0.6B/tokenizer.json")).unwrap();
        fs::remove_dir_all(out.join("vae")).unwrap();
        let config = out.join("acestep-v15-base/config.json");
        let text = fs::read_to_string(&config).unwrap();
        fs::write(
            &config,
            text.replace("\"text_hidden_dim\": 64", "\"text_hidden_dim\": 32"),
        )
        .unwrap();
        let report = inspect(&out).unwrap();
        assert!(!report.is_sound());
        assert_eq!(report.missing.len(), 1);
        assert!(report.missing[0].starts_with("vae"), "{:?}", report.missing);
        let faults: Vec<&str> = report
            .components
            .iter()
            .flat_map(|c| &c.faults)
            .map(String::as_str)
            .collect();
        assert_eq!(faults.len(), 4, "{faults:?}");
        for part in [
            "tokenizer.json is missing",
            "silence_latent.pt is missing",
            "encoder.text_projector.weight: expected [64, 32], found [64, 64]",
            "encoder.lyric_encoder.embed_tokens.weight: expected [64, 32], found [64, 64]",
        ] {
            assert!(
                faults.iter().any(|f| f.contains(part)),
                "{part} is not in {faults:?}"
            );
        }
    }

    #[test]
    fn damaged_configs_and_tokenizers_are_faults() {
        let dir = tempfile::tempdir().unwrap();
        for (i, file) in [
            "vae/config.json",
            "Qwen3-Embedding-0.6B/config.json",
            "Qwen3-Embedding-0.6B/tokenizer.json",
        ]
        .iter()
        .enumerate()
        {
            let out = dir.path().join(i.to_string());
            demo(&out).unwrap();
            let text = fs::read(out.join(file)).unwrap();
            fs::write(out.join(file), &text[..text.len() / 2]).unwrap();
            let report = inspect(&out).unwrap();
            assert!(!report.is_sound(), "{file}: {report:?}");
            fs::remove_file(out.join(file)).unwrap();
            assert!(!inspect(&out).unwrap().is_sound(), "{file} removed");
        }
    }

    #[test]
    fn an_empty_folder_lacks_everything() {
        let dir = tempfile::tempdir().unwrap();
        let report = inspect(dir.path()).unwrap();
        assert_eq!(report.missing.len(), 3);
        assert!(inspect(&dir.path().join("gone")).is_err());
    }
}
