//! The folder of checkpoints: which models are there, and where their parts lie.

use crate::error::{Error, Result};
use std::path::{Path, PathBuf};

/// How to get a model; the end of every message about a missing one.
pub const REMEDY: &str = "put the published folder there, or make a small demonstration tree with \
                          `acestep checkpoint demo --out DIR`";

/// The DiT that is taken when none is named and it is there.
pub const DEFAULT_DIT: &str = "acestep-v15-turbo";
/// The language model that is taken when none is named and it is there.
pub const DEFAULT_LM: &str = "acestep-5Hz-lm-0.6B";
/// Directory of the text encoder.
pub const TEXT_ENCODER: &str = "Qwen3-Embedding-0.6B";
/// Directory of the audio autoencoder.
pub const VAE: &str = "vae";
const DIT_PREFIX: &str = "acestep-";
const LM_PREFIX: &str = "acestep-5Hz-lm-";

/// One model of the folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Model {
    /// Name of its directory, by which requests choose it.
    pub name: String,
    /// Its directory.
    pub path: PathBuf,
}

/// A folder in the published layout, or one pipeline in the diffusers layout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoints {
    root: PathBuf,
    dits: Vec<Model>,
    lms: Vec<Model>,
}

impl Checkpoints {
    /// Looks which models a folder has. Opens no weights.
    pub fn open(root: &Path) -> Result<Self> {
        let list = std::fs::read_dir(root).map_err(|e| {
            Error::Missing(format!(
                "the checkpoints folder {} cannot be read ({e}): {REMEDY}",
                root.display()
            ))
        })?;
        let mut out = Checkpoints {
            root: root.to_path_buf(),
            dits: Vec::new(),
            lms: Vec::new(),
        };
        for entry in list.flatten() {
            let path = entry.path();
            let Some(name) = entry.file_name().to_str().map(str::to_string) else {
                continue;
            };
            if !path.is_dir() {
                continue;
            }
            if name.starts_with(LM_PREFIX) {
                out.lms.push(Model { name, path });
            } else if name.starts_with(DIT_PREFIX) {
                out.dits.push(Model { name, path });
            }
        }
        if out.is_pipeline() {
            let real = root.canonicalize().unwrap_or_else(|_| root.to_path_buf());
            let name = real
                .file_name()
                .and_then(|n| n.to_str())
                .unwrap_or(DEFAULT_DIT);
            out.dits.push(Model {
                name: name.to_string(),
                path: root.to_path_buf(),
            });
        }
        out.dits.sort_by(|a, b| a.name.cmp(&b.name));
        out.lms.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(out)
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// DiT models, by name.
    pub fn dits(&self) -> &[Model] {
        &self.dits
    }

    /// Language models, by name.
    pub fn lms(&self) -> &[Model] {
        &self.lms
    }

    /// The DiT of this name; without a name the turbo model, else the first there is.
    pub fn dit(&self, name: Option<&str>) -> Result<&Model> {
        let wanted = name.unwrap_or(DEFAULT_DIT);
        let found = self.dits.iter().find(|m| m.name == wanted);
        match (found, name, self.dits.first()) {
            (Some(model), _, _) => Ok(model),
            (None, None, Some(first)) => Ok(first),
            _ => Err(self.absent(wanted, &self.dits)),
        }
    }

    /// The language model of this name; without a name [`DEFAULT_LM`], else the first there is.
    pub fn lm(&self, name: Option<&str>) -> Result<&Model> {
        let named = |wanted: &str| self.lms.iter().find(|m| m.name == wanted);
        let found = match name {
            Some(name) => named(name),
            None => named(DEFAULT_LM).or(self.lms.first()),
        };
        found.ok_or_else(|| {
            let wanted = self.root.join(name.unwrap_or(DEFAULT_LM));
            Error::Missing(format!(
                "5Hz LM model not found at {} ({}): {REMEDY}",
                wanted.display(),
                names(&self.lms)
            ))
        })
    }

    /// The autoencoder's directory.
    pub fn vae(&self) -> Result<PathBuf> {
        self.part(VAE)
    }

    /// The text encoder's directory.
    pub fn text_encoder(&self) -> Result<PathBuf> {
        self.part(if self.is_pipeline() {
            "text_encoder"
        } else {
            TEXT_ENCODER
        })
    }

    /// The file of the text encoder's tokenizer.
    pub fn tokenizer(&self) -> Result<PathBuf> {
        let dir = self.part(if self.is_pipeline() {
            "tokenizer"
        } else {
            TEXT_ENCODER
        })?;
        let file = dir.join("tokenizer.json");
        if file.is_file() {
            return Ok(file);
        }
        Err(Error::Missing(format!(
            "{} is missing: {REMEDY}",
            file.display()
        )))
    }

    fn is_pipeline(&self) -> bool {
        self.root.join("transformer").is_dir() && self.root.join("condition_encoder").is_dir()
    }

    fn part(&self, name: &str) -> Result<PathBuf> {
        let path = self.root.join(name);
        if path.is_dir() {
            return Ok(path);
        }
        Err(Error::Missing(format!(
            "{} is missing: {REMEDY}",
            path.display()
        )))
    }

    fn absent(&self, wanted: &str, there: &[Model]) -> Error {
        Error::Missing(format!(
            "{} is missing ({}): {REMEDY}",
            self.root.join(wanted).display(),
            names(there)
        ))
    }
}

/// Which models there are, for people.
fn names(there: &[Model]) -> String {
    let names: Vec<&str> = there.iter().map(|m| m.name.as_str()).collect();
    match names.as_slice() {
        [] => "no such model is there".to_string(),
        names => format!("there are {}", names.join(", ")),
    }
}

#[cfg(test)]
#[path = "tree_tests.rs"]
mod tests;
