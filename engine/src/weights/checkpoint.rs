//! One checkpoint directory as a set of named tensors in mapped files.

use super::names::{DIFFUSERS_PARTS, canonical};
use crate::backend::HostBytes;
use crate::error::{Error, Result};
use crate::program::{DType, WeightDecl, WeightForm};
use memmap2::Mmap;
use safetensors::tensor::{Dtype, SafeTensorError, SafeTensors};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs::File;
use std::io::ErrorKind;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Stems of weight files, in order of preference.
const STEMS: [&str; 2] = ["model", "diffusion_pytorch_model"];
/// Largest index file that is read; XL's has about 100 KiB.
const MAX_INDEX_BYTES: u64 = 64 << 20;
/// Most lines of one report about tensors; more than any published model has tensors.
const MAX_LISTED: usize = 1000;

/// A tensor of a checkpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// Element type as the file names it.
    pub stored: Dtype,
    /// Extent per axis, row-major.
    pub shape: Vec<usize>,
    file: usize,
    range: Range<usize>,
}

impl Tensor {
    /// The element type, when the engine can compute with it.
    pub fn dtype(&self) -> Option<DType> {
        match self.stored {
            Dtype::F32 => Some(DType::F32),
            Dtype::BF16 => Some(DType::BF16),
            Dtype::F16 => Some(DType::F16),
            _ => None,
        }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Size in the file.
    pub fn bytes(&self) -> usize {
        self.range.len()
    }
}

struct Mapped {
    path: PathBuf,
    map: Arc<Mmap>,
}

/// The mapped weight files of one model and what they hold, by upstream's names.
pub struct Checkpoint {
    /// The file, index or directory that was opened, for messages.
    source: PathBuf,
    files: Vec<Mapped>,
    tensors: BTreeMap<String, Tensor>,
}

impl Checkpoint {
    /// Opens a directory (one safetensors file, or an index with shards, or the diffusers
    /// layout of a DiT), or a single safetensors file.
    pub fn open(path: &Path) -> Result<Self> {
        let mut out = Checkpoint {
            source: path.to_path_buf(),
            files: Vec::new(),
            tensors: BTreeMap::new(),
        };
        if path.is_file() {
            out.add_file(path, "")?;
            return Ok(out);
        }
        if out.add_dir(path, "")? {
            return Ok(out);
        }
        if path.join("transformer").is_dir() {
            for (part, prefix) in DIFFUSERS_PARTS {
                let dir = path.join(part);
                if !out.add_dir(&dir, prefix)? {
                    return Err(no_weights(&dir));
                }
            }
            out.source = path.to_path_buf();
            return Ok(out);
        }
        Err(no_weights(path))
    }

    /// The tensor of this name, with or without a leading `model.`.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.tensors
            .get(name)
            .or_else(|| self.tensors.get(name.strip_prefix("model.")?))
    }

    /// All tensors by name, in order of name.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.tensors
            .iter()
            .map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// The file, index or directory this was opened from.
    pub fn source(&self) -> &Path {
        &self.source
    }

    /// The file a tensor lies in.
    pub fn file(&self, tensor: &Tensor) -> &Path {
        &self.files[tensor.file].path
    }

    /// Weight files with their sizes in bytes.
    pub fn files(&self) -> impl Iterator<Item = (&Path, u64)> {
        self.files
            .iter()
            .map(|f| (f.path.as_path(), f.map.len() as u64))
    }

    /// The bytes of a tensor, in the file's mapping.
    pub fn bytes(&self, tensor: &Tensor) -> &[u8] {
        &self.files[tensor.file].map[tensor.range.clone()]
    }

    /// The bytes of a tensor together with the mapping that keeps them alive.
    pub fn host_bytes(&self, tensor: &Tensor) -> Result<HostBytes> {
        let map = Arc::clone(&self.files[tensor.file].map);
        HostBytes::new(map, tensor.range.clone())
            .ok_or_else(|| Error::Bug("a tensor lies outside its mapped file".into()))
    }

    /// The tensor of this name with the dtype to read it as, or an error that names it.
    pub fn require(&self, name: &str) -> Result<(&Tensor, DType)> {
        let tensor = self.get(name).ok_or_else(|| {
            Error::Corrupt(format!(
                "{}: tensor {name} is missing: download the file again",
                self.source.display()
            ))
        })?;
        let dtype = tensor.dtype().ok_or_else(|| {
            Error::Corrupt(format!(
                "{}: tensor {name} is {:?}, expected BF16, F16 or F32",
                self.file(tensor).display(),
                tensor.stored
            ))
        })?;
        Ok((tensor, dtype))
    }

    /// All elements of a tensor, widened.
    pub fn read_f32(&self, name: &str) -> Result<Vec<f32>> {
        let (tensor, dtype) = self.require(name)?;
        let mut out = vec![0f32; tensor.len()];
        super::fold::decode(dtype, self.bytes(tensor), &mut out);
        Ok(out)
    }

    /// Fails with one error that lists every declared tensor that is missing, has another shape
    /// or a dtype that cannot be computed with.
    pub fn check<'a>(&self, decls: impl IntoIterator<Item = &'a WeightDecl>) -> Result<()> {
        let mut wanted = BTreeMap::new();
        for decl in decls {
            for (name, shape) in stored_tensors(decl) {
                wanted.insert(name, shape);
            }
        }
        self.check_shapes(
            wanted
                .iter()
                .map(|(name, shape)| (name.as_str(), shape.as_slice())),
        )
    }

    /// As [`Checkpoint::check`], for plain names and shapes.
    pub fn check_shapes<'a>(
        &self,
        wanted: impl IntoIterator<Item = (&'a str, &'a [usize])>,
    ) -> Result<()> {
        let faults = self.faults(wanted);
        if faults.is_empty() {
            return Ok(());
        }
        let mut text = format!(
            "{}: {} tensors are missing or not as config.json says: download the folder again",
            self.source.display(),
            faults.len()
        );
        for fault in faults.iter().take(MAX_LISTED) {
            let _ = write!(text, "\n  {fault}");
        }
        if faults.len() > MAX_LISTED {
            let _ = write!(text, "\n  and {} more", faults.len() - MAX_LISTED);
        }
        Err(Error::Corrupt(text))
    }

    /// One line for each wanted tensor that is missing, misshapen or of an unusable dtype.
    pub fn faults<'a>(
        &self,
        wanted: impl IntoIterator<Item = (&'a str, &'a [usize])>,
    ) -> Vec<String> {
        let mut faults = Vec::new();
        for (name, shape) in wanted {
            let Some(tensor) = self.get(name) else {
                let source = self.source.display();
                faults.push(format!(
                    "{source}: {name}: expected {shape:?}, found nothing"
                ));
                continue;
            };
            let file = self.file(tensor).display();
            if tensor.shape != shape {
                let found = &tensor.shape;
                faults.push(format!(
                    "{file}: {name}: expected {shape:?}, found {found:?}"
                ));
            } else if tensor.dtype().is_none() {
                let found = tensor.stored;
                faults.push(format!(
                    "{file}: {name}: expected BF16, F16 or F32, found {found:?}"
                ));
            }
        }
        faults
    }

    /// Adds the weights of a directory; false when it has none.
    fn add_dir(&mut self, dir: &Path, prefix: &str) -> Result<bool> {
        for stem in STEMS {
            let single = dir.join(format!("{stem}.safetensors"));
            if single.is_file() {
                self.add_file(&single, prefix)?;
                return Ok(true);
            }
            let index = dir.join(format!("{stem}.safetensors.index.json"));
            if index.is_file() {
                self.add_shards(&index, prefix)?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn add_shards(&mut self, index: &Path, prefix: &str) -> Result<()> {
        let weight_map = read_index(index)?;
        let dir = index.parent().unwrap_or(Path::new("."));
        let shards: BTreeSet<&String> = weight_map.values().collect();
        let missing: Vec<&str> = shards
            .iter()
            .filter(|s| !dir.join(s).is_file())
            .map(|s| s.as_str())
            .collect();
        if !missing.is_empty() {
            return Err(Error::Missing(format!(
                "{} names files that are not there: {}: download them",
                index.display(),
                missing.join(", ")
            )));
        }
        for shard in shards {
            self.add_file(&dir.join(shard), prefix)?;
        }
        for (name, shard) in &weight_map {
            let found = self.tensors.get(&canonical(prefix, name));
            if found.is_none_or(|t| self.files[t.file].path != dir.join(shard)) {
                return Err(Error::Corrupt(format!(
                    "{} says that {name} is in {shard}, where it is not: \
                     download both files again",
                    index.display()
                )));
            }
        }
        self.source = index.to_path_buf();
        Ok(())
    }

    fn add_file(&mut self, path: &Path, prefix: &str) -> Result<()> {
        let map = map_file(path)?;
        let (header, metadata) = SafeTensors::read_metadata(&map)
            .map_err(|e| Error::Corrupt(broken_header(path, &map, &e)))?;
        let data = 8 + header;
        let file = self.files.len();
        for (found, info) in metadata.tensors() {
            let name = canonical(prefix, &found);
            let range = data + info.data_offsets.0..data + info.data_offsets.1;
            // The crate has checked the same; indexing with these ranges must never panic.
            if range.start > range.end || range.end > map.len() {
                return Err(Error::Corrupt(format!(
                    "{}: tensor {found} lies outside the file: download the file again",
                    path.display()
                )));
            }
            let tensor = Tensor {
                stored: info.dtype,
                shape: info.shape.clone(),
                file,
                range,
            };
            if self.tensors.insert(name.clone(), tensor).is_some() {
                return Err(Error::Corrupt(format!(
                    "{}: tensor {name} is there twice: remove the other copy",
                    path.display()
                )));
            }
        }
        self.files.push(Mapped {
            path: path.to_path_buf(),
            map: Arc::new(map),
        });
        self.source = path.to_path_buf();
        Ok(())
    }
}

/// Names and shapes in the file of what a declaration is made from.
pub fn stored_tensors(decl: &WeightDecl) -> Vec<(String, Vec<usize>)> {
    match decl.form {
        WeightForm::WeightNorm(_) => {
            let mut g = vec![1; decl.stored.len()];
            if let (Some(g), Some(rows)) = (g.first_mut(), decl.stored.first()) {
                *g = *rows;
            }
            vec![
                (format!("{}.weight_v", decl.name), decl.stored.clone()),
                (format!("{}.weight_g", decl.name), g),
            ]
        }
        _ => vec![(decl.name.clone(), decl.stored.clone())],
    }
}

fn no_weights(dir: &Path) -> Error {
    Error::Missing(format!(
        "{}: there is no model.safetensors, model.safetensors.index.json or \
         diffusion_pytorch_model.safetensors: {}",
        dir.display(),
        super::tree::REMEDY
    ))
}

fn map_file(path: &Path) -> Result<Mmap> {
    let unreadable = |e: std::io::Error| match e.kind() {
        ErrorKind::NotFound => Error::Missing(format!("{} is missing", path.display())),
        _ => Error::Missing(format!("{} cannot be read: {e}", path.display())),
    };
    let file = File::open(path).map_err(unreadable)?;
    // SAFETY: the mapping is read-only and nothing writes through it. Another process could still truncate or
    // rewrite the file, which no reader of a mapping can rule out; checkpoints are not
    // written while they are served, and our own writers rename finished files into place.
    unsafe { Mmap::map(&file) }.map_err(unreadable)
}

/// `weight_map` of an index: shard by tensor.
fn read_index(path: &Path) -> Result<BTreeMap<String, String>> {
    let corrupt = |what: String| {
        Error::Corrupt(format!(
            "{}: {what}: download the file again",
            path.display()
        ))
    };
    let size = std::fs::metadata(path)
        .map_err(|e| corrupt(e.to_string()))?
        .len();
    if size > MAX_INDEX_BYTES {
        return Err(corrupt(format!("an index of {size} bytes")));
    }
    let text = std::fs::read(path).map_err(|e| corrupt(e.to_string()))?;
    let json: serde_json::Value =
        serde_json::from_slice(&text).map_err(|e| corrupt(format!("not valid JSON ({e})")))?;
    let map = json
        .get("weight_map")
        .and_then(|m| m.as_object())
        .filter(|m| !m.is_empty())
        .ok_or_else(|| {
            corrupt("weight_map, an object of file names by tensor, is missing".into())
        })?;
    map.iter()
        .map(|(name, shard)| {
            let shard = shard.as_str().filter(|s| is_plain_name(s)).ok_or_else(|| {
                corrupt(format!("the file of {name} is {shard}, not a file name"))
            })?;
            Ok((name.clone(), shard.to_string()))
        })
        .collect()
}

/// Whether a name from a file stays within its directory.
fn is_plain_name(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    matches!(
        (parts.next(), parts.next()),
        (Some(std::path::Component::Normal(part)), None) if part == name
    )
}

/// Says where a safetensors file is broken.
fn broken_header(path: &Path, map: &[u8], error: &SafeTensorError) -> String {
    let size = map.len();
    let claimed = map.get(..8).map(|b| {
        let mut le = [0u8; 8];
        le.copy_from_slice(b);
        u64::from_le_bytes(le)
    });
    let place = match (error, claimed) {
        (SafeTensorError::HeaderTooSmall, _) | (_, None) => {
            format!("the file has {size} bytes, too few for a header")
        }
        (SafeTensorError::HeaderTooLarge | SafeTensorError::InvalidHeaderLength, Some(n)) => {
            format!("the header at byte 8 should have {n} bytes, the file has {size}")
        }
        (SafeTensorError::MetadataIncompleteBuffer, Some(n)) => incomplete(map, n),
        (e, Some(n)) => format!("the header (bytes 8 to {}): {e}", n.saturating_add(8)),
    };
    format!("{}: {place}: download the file again", path.display())
}

/// The header is sound but the file ends elsewhere: which tensor is the first one cut off.
fn incomplete(map: &[u8], header: u64) -> String {
    let size = map.len();
    let data = usize::try_from(header)
        .unwrap_or(usize::MAX)
        .saturating_add(8);
    let json: serde_json::Value = map
        .get(8..data)
        .and_then(|h| serde_json::from_slice(h).ok())
        .unwrap_or_default();
    let mut ends: Vec<(usize, &str)> = Vec::new();
    for (name, info) in json.as_object().into_iter().flatten() {
        let end = info
            .get("data_offsets")
            .and_then(|o| o.get(1))
            .and_then(|e| e.as_u64());
        if let Some(end) = end.and_then(|e| usize::try_from(e).ok()) {
            ends.push((data.saturating_add(end), name));
        }
    }
    ends.sort_unstable();
    let whole = ends.last().map_or(data, |(end, _)| *end);
    match ends.iter().find(|(end, _)| *end > size) {
        Some((_, name)) => {
            format!("cut off within {name}: the file has {size} bytes of {whole}")
        }
        None => format!(
            "{} bytes too many behind the last tensor",
            size.saturating_sub(whole)
        ),
    }
}

#[cfg(test)]
#[path = "checkpoint_tests.rs"]
mod tests;
