//! Weights of a checkpoint as regions on one device.

use super::checkpoint::Checkpoint;
use super::fold::{Owned, Source, tiled, widened};
use crate::backend::{Backend, HostBytes, Region, Weights};
use crate::error::{Error, Result};
use crate::program::{DType, Math, WeightDecl, WeightForm};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// What makes two regions differ; the shape does not, it is only a view.
#[derive(PartialEq, Eq, Hash)]
struct Key {
    name: String,
    form: WeightForm,
    dtype: DType,
}

/// Resolves what programs declare, each weight once. Belongs to one backend: a weight that was
/// made for it is not made again for another.
pub struct WeightStore {
    checkpoint: Arc<Checkpoint>,
    regions: Mutex<HashMap<Key, Region>>,
}

impl WeightStore {
    /// A store over a checkpoint; nothing is read yet.
    pub fn new(checkpoint: Arc<Checkpoint>) -> Self {
        WeightStore {
            checkpoint,
            regions: Mutex::default(),
        }
    }

    /// The checkpoint behind it.
    pub fn checkpoint(&self) -> &Arc<Checkpoint> {
        &self.checkpoint
    }

    /// Bytes of all regions that have been made so far.
    pub fn resident_bytes(&self) -> u64 {
        let regions = self.regions.lock().unwrap_or_else(PoisonError::into_inner);
        regions.values().map(|r| r.bytes() as u64).sum()
    }

    /// The dtype the region of a declaration has.
    ///
    /// # Errors
    /// [`Error::Missing`] when the checkpoint has no such weight.
    pub fn dtype(&self, decl: &WeightDecl, math: Math) -> Result<DType> {
        match decl.form {
            _ if decl.widen => Ok(DType::F32),
            WeightForm::WeightNorm(_) => Ok(match math {
                Math::F32 => DType::F32,
                Math::Bf16 => DType::BF16,
            }),
            _ => Ok(self.checkpoint.require(&decl.name)?.1),
        }
    }

    fn host_bytes(&self, decl: &WeightDecl, to: DType) -> Result<HostBytes> {
        self.checkpoint.check([decl])?;
        let owned = match decl.form {
            WeightForm::Stored => {
                let (tensor, dtype) = self.checkpoint.require(&decl.name)?;
                let bytes = self.checkpoint.bytes(tensor);
                // A header of odd length would leave elements unaligned in the mapping.
                let aligned = bytes.as_ptr().addr().is_multiple_of(dtype.bytes());
                if dtype == to && aligned {
                    return self.checkpoint.host_bytes(tensor);
                }
                if to == DType::F32 {
                    widened(dtype, bytes, tensor.len())
                } else {
                    tiled(dtype, bytes, tensor.len(), 1, to)
                }
            }
            WeightForm::Tiled(times) => {
                let (tensor, dtype) = self.checkpoint.require(&decl.name)?;
                tiled(
                    dtype,
                    self.checkpoint.bytes(tensor),
                    tensor.len(),
                    times,
                    to,
                )
            }
            WeightForm::Rows { .. } => {
                return Err(Error::Bug("rows are a part of the whole weight".into()));
            }
            WeightForm::Permuted(perm) => self.permuted(decl, &decl.name, perm, None, to)?,
            WeightForm::WeightNorm(perm) => {
                let norms = self
                    .checkpoint
                    .read_f32(&format!("{}.weight_g", decl.name))?;
                let name = format!("{}.weight_v", decl.name);
                self.permuted(decl, &name, perm, Some(&norms), to)?
            }
        };
        let len = owned.as_ref().len();
        HostBytes::new(Arc::new(owned), 0..len)
            .ok_or_else(|| Error::Bug("a folded weight is shorter than itself".into()))
    }

    /// A part of the region of the whole tensor, which is on the device once.
    fn rows(
        &self,
        backend: &dyn Backend,
        decl: &WeightDecl,
        math: Math,
        start: usize,
        len: usize,
    ) -> Result<Region> {
        if decl.stored.first().is_none_or(|rows| start + len > *rows) {
            return Err(Error::Bug(format!(
                "weight {}: rows {start}..{} of a tensor {:?} do not exist",
                decl.name,
                start + len,
                decl.stored
            )));
        }
        let whole = WeightDecl {
            shape: decl.stored.clone(),
            form: WeightForm::Stored,
            ..decl.clone()
        };
        let region = self.region(backend, &whole, math)?;
        Ok(region.items(start, len).reshaped(&decl.shape))
    }

    fn permuted(
        &self,
        decl: &WeightDecl,
        name: &str,
        perm: [usize; 3],
        norms: Option<&[f32]>,
        to: DType,
    ) -> Result<Owned> {
        let mut axes = perm;
        axes.sort_unstable();
        let shape: Option<[usize; 3]> = decl.stored.as_slice().try_into().ok();
        let (Some(shape), [0, 1, 2]) = (shape, axes) else {
            return Err(Error::Bug(format!(
                "weight {name}: axes {perm:?} of a tensor {:?} cannot be reordered",
                decl.stored
            )));
        };
        let (tensor, dtype) = self.checkpoint.require(name)?;
        Ok(Source {
            dtype,
            bytes: self.checkpoint.bytes(tensor),
            shape,
            norms,
        }
        .permuted(perm, to))
    }
}

impl Weights for WeightStore {
    fn region(&self, backend: &dyn Backend, decl: &WeightDecl, math: Math) -> Result<Region> {
        if let WeightForm::Rows { start, len } = decl.form {
            return self.rows(backend, decl, math, start, len);
        }
        let dtype = self.dtype(decl, math)?;
        let key = Key {
            name: decl.name.clone(),
            form: decl.form.clone(),
            dtype,
        };
        let mut regions = self.regions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(region) = regions.get(&key) {
            // A second declaration of the same weight may group its elements otherwise.
            if region.len() == decl.shape.iter().product::<usize>() {
                return Ok(region.reshaped(&decl.shape));
            }
            self.checkpoint.check([decl])?;
        }
        let host = self.host_bytes(decl, dtype)?;
        let rows = decl.shape.first().copied().unwrap_or(1).max(1);
        let row_bytes = host.bytes().len() / rows;
        let buffer = backend.adopt(host, row_bytes)?;
        let region = Region::whole(buffer, &decl.shape, dtype);
        regions.insert(key, region.clone());
        Ok(region)
    }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
