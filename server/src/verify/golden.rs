//! Files of a golden tree: reading them without trusting them.

use engine::{Error, Result};
use safetensors::{Dtype, SafeTensors};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::Path;

/// A tensor of numbers, widened to f32.
#[derive(Debug, Clone, PartialEq)]
pub struct Array {
    /// Extent per axis, row-major.
    pub shape: Vec<usize>,
    /// Elements.
    pub data: Vec<f32>,
}

impl Array {
    /// The shape when it has `N` axes.
    pub fn dims<const N: usize>(&self, name: &str) -> Result<[usize; N]> {
        match self.shape.as_slice().try_into() {
            Ok(dims) if !self.data.is_empty() => Ok(dims),
            _ => Err(Error::Corrupt(format!(
                "tensor {name} has shape {:?}, {N} axes with elements are expected",
                self.shape
            ))),
        }
    }

    /// Elements of item `i` of the first axis.
    pub fn item(&self, i: usize) -> &[f32] {
        let step = self.shape[1..].iter().product::<usize>();
        &self.data[i * step..(i + 1) * step]
    }
}

#[derive(Debug)]
struct Stored {
    shape: Vec<usize>,
    dtype: Dtype,
    bytes: std::ops::Range<usize>,
}

/// One safetensors file of the tree, read whole (they are small).
#[derive(Debug)]
pub struct Golden {
    bytes: Vec<u8>,
    tensors: BTreeMap<String, Stored>,
    /// Parameters of the case: the header's metadata, every value parsed as JSON (texts that are
    /// not JSON stay texts).
    pub params: Map<String, Value>,
}

impl Golden {
    /// Reads a file.
    ///
    /// # Errors
    /// [`Error::Missing`] or [`Error::Corrupt`] with the reason; messages do not name the file,
    /// which the report does.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes =
            std::fs::read(path).map_err(|e| Error::Missing(format!("cannot be read: {e}")))?;
        Golden::parse(bytes)
    }

    fn parse(bytes: Vec<u8>) -> Result<Self> {
        let corrupt = |e| Error::Corrupt(format!("is not a safetensors file: {e}"));
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(corrupt)?;
        let params = header.metadata().iter().flatten().map(|(key, text)| {
            let value = serde_json::from_str(text).unwrap_or_else(|_| Value::from(text.as_str()));
            (key.clone(), value)
        });
        let params = params.collect();
        let file = SafeTensors::deserialize(&bytes).map_err(corrupt)?;
        let start = bytes.as_ptr().addr();
        let tensors = file.iter().map(|(name, view)| {
            let at = view.data().as_ptr().addr() - start;
            let stored = Stored {
                shape: view.shape().to_vec(),
                dtype: view.dtype(),
                bytes: at..at + view.data().len(),
            };
            (name.to_string(), stored)
        });
        let tensors = tensors.collect();
        Ok(Golden {
            bytes,
            tensors,
            params,
        })
    }

    /// Names of all tensors.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Whether there is a tensor of this name.
    pub fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// Shape of a tensor.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(|t| t.shape.as_slice())
    }

    fn stored(&self, name: &str) -> Result<(&Stored, &[u8])> {
        let stored = self
            .tensors
            .get(name)
            .ok_or_else(|| Error::Corrupt(format!("tensor {name} is missing")))?;
        Ok((stored, &self.bytes[stored.bytes.clone()]))
    }

    /// A tensor of floats (or of small integers) as f32.
    pub fn array(&self, name: &str) -> Result<Array> {
        let (stored, bytes) = self.stored(name)?;
        let data: Vec<f32> = match stored.dtype {
            Dtype::F32 => each(bytes, f32::from_le_bytes),
            Dtype::F64 => each(bytes, |b| f64::from_le_bytes(b) as f32),
            Dtype::BF16 => each(bytes, |b| half::bf16::from_le_bytes(b).to_f32()),
            Dtype::F16 => each(bytes, |b| half::f16::from_le_bytes(b).to_f32()),
            _ => self.integers(name)?.iter().map(|&i| i as f32).collect(),
        };
        match data.iter().position(|x| !x.is_finite()) {
            Some(i) => Err(Error::Corrupt(format!(
                "tensor {name}: element {i} is not finite"
            ))),
            None => Ok(Array {
                shape: stored.shape.clone(),
                data,
            }),
        }
    }

    /// Elements of an f32 tensor in which −∞ stands for what is ruled out.
    pub fn masked(&self, name: &str) -> Result<Vec<f32>> {
        let (stored, bytes) = self.stored(name)?;
        let data: Vec<f32> = each(bytes, f32::from_le_bytes);
        let wrong = |x: &f32| !x.is_finite() && *x != f32::NEG_INFINITY;
        if stored.dtype != Dtype::F32 || data.iter().any(wrong) {
            let what = format!("tensor {name} is not f32 with finite elements and −∞");
            return Err(Error::Corrupt(what));
        }
        Ok(data)
    }

    /// A tensor of whole numbers.
    pub fn integers(&self, name: &str) -> Result<Vec<i64>> {
        let (stored, bytes) = self.stored(name)?;
        Ok(match stored.dtype {
            Dtype::I64 => each(bytes, i64::from_le_bytes),
            Dtype::I32 => each(bytes, |b| i64::from(i32::from_le_bytes(b))),
            Dtype::I16 => each(bytes, |b| i64::from(i16::from_le_bytes(b))),
            Dtype::U8 | Dtype::BOOL => bytes.iter().map(|&b| i64::from(b)).collect(),
            Dtype::F32 => each(bytes, |b| f32::from_le_bytes(b) as i64),
            other => {
                let what = format!("tensor {name} is {other:?}, whole numbers are expected");
                return Err(Error::Corrupt(what));
            }
        })
    }

    /// Rows of a `(B, T)` mask that are valid, per item.
    pub fn valid_rows(&self, name: &str) -> Result<Vec<Vec<bool>>> {
        let values = self.integers(name)?;
        match self.shape(name) {
            Some([_, t]) if *t > 0 => Ok(values
                .chunks(*t)
                .map(|row| row.iter().map(|v| *v != 0).collect())
                .collect()),
            _ => Err(Error::Corrupt(format!("mask {name} is not (B, T)"))),
        }
    }

    /// Length of the valid rows of each item of a mask whose valid rows come first.
    pub fn lengths(&self, name: &str) -> Result<Vec<usize>> {
        let mut lengths = Vec::new();
        for row in self.valid_rows(name)? {
            let n = row.iter().take_while(|v| **v).count();
            if row[n..].iter().any(|v| *v) {
                return Err(Error::Corrupt(format!(
                    "mask {name}: a valid row follows padding"
                )));
            }
            lengths.push(n);
        }
        Ok(lengths)
    }

    /// A number among the parameters.
    pub fn number(&self, key: &str) -> Option<f64> {
        self.params.get(key).and_then(Value::as_f64)
    }
}

fn each<const N: usize, T>(bytes: &[u8], read: impl Fn([u8; N]) -> T) -> Vec<T> {
    bytes.as_chunks::<N>().0.iter().map(|b| read(*b)).collect()
}

/// The JSON of a file.
pub fn json(path: &Path) -> Result<Value> {
    let bytes = std::fs::read(path).map_err(|e| Error::Missing(format!("cannot be read: {e}")))?;
    serde_json::from_slice(&bytes).map_err(|e| Error::Corrupt(format!("is not JSON: {e}")))
}
