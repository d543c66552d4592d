//! Memory handles. A [`Region`] has a shape and a dtype and does no maths.

use super::Backend;
use crate::error::{Error, Result};
use crate::program::DType;
use crate::program::build::ConstData;
use half::bf16;
use std::sync::Arc;

/// Gives memory back to its backend.
pub trait Release: Send + Sync {
    /// Called once, when the last handle of a buffer is dropped.
    fn release(&self, id: u64);
}

struct Handle {
    id: u64,
    bytes: usize,
    owner: Arc<dyn Release>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.owner.release(self.id);
    }
}

/// Memory of a backend; freed when the last clone is dropped.
#[derive(Clone)]
pub struct Buffer(Arc<Handle>);

impl Buffer {
    /// A handle for memory that `owner` knows as `id`.
    pub fn new(id: u64, bytes: usize, owner: Arc<dyn Release>) -> Self {
        Buffer(Arc::new(Handle { id, bytes, owner }))
    }

    /// The backend's own number for it.
    pub fn id(&self) -> u64 {
        self.0.id
    }

    /// Size in bytes.
    pub fn bytes(&self) -> usize {
        self.0.bytes
    }
}

/// A shaped piece of a buffer.
#[derive(Clone)]
pub struct Region {
    buffer: Buffer,
    offset: usize,
    shape: Vec<usize>,
    dtype: DType,
}

impl Region {
    /// Zeroed memory for values of this shape.
    pub fn zeros(backend: &dyn Backend, shape: &[usize], dtype: DType) -> Result<Self> {
        let bytes = shape.iter().product::<usize>() * dtype.bytes();
        Ok(Region {
            buffer: backend.alloc(bytes)?,
            offset: 0,
            shape: shape.to_vec(),
            dtype,
        })
    }

    /// Memory filled with `data`.
    pub fn from_f32(backend: &dyn Backend, shape: &[usize], data: &[f32]) -> Result<Self> {
        let region = Region::zeros(backend, shape, DType::F32)?;
        region.write_f32(backend, data)?;
        Ok(region)
    }

    /// Memory filled with `data`.
    pub fn from_i32(backend: &dyn Backend, shape: &[usize], data: &[i32]) -> Result<Self> {
        let region = Region::zeros(backend, shape, DType::I32)?;
        region.write_i32(backend, data)?;
        Ok(region)
    }

    /// A whole buffer seen as values of this shape.
    pub fn whole(buffer: Buffer, shape: &[usize], dtype: DType) -> Self {
        Region {
            buffer,
            offset: 0,
            shape: shape.to_vec(),
            dtype,
        }
    }

    pub(super) fn constant(
        backend: &dyn Backend,
        shape: &[usize],
        data: &ConstData,
    ) -> Result<Self> {
        match data {
            ConstData::F32(d) => Region::from_f32(backend, shape, d),
            ConstData::I32(d) => Region::from_i32(backend, shape, d),
        }
    }

    /// Copies all elements to the device; where they are bf16 there, rounded.
    pub fn write_f32(&self, backend: &dyn Backend, data: &[f32]) -> Result<()> {
        self.expect_len(data.len())?;
        if self.dtype == DType::BF16 {
            let rounded: Vec<u16> = data.iter().map(|x| bf16::from_f32(*x).to_bits()).collect();
            return backend.write(&self.buffer, self.offset, bytemuck::cast_slice(&rounded));
        }
        backend.write(&self.buffer, self.offset, bytemuck::cast_slice(data))
    }

    /// Copies all elements to the device.
    pub fn write_i32(&self, backend: &dyn Backend, data: &[i32]) -> Result<()> {
        self.expect_len(data.len())?;
        backend.write(&self.buffer, self.offset, bytemuck::cast_slice(data))
    }

    fn expect_len(&self, found: usize) -> Result<()> {
        if found == self.len() {
            return Ok(());
        }
        Err(Error::Bug(format!(
            "{found} elements were written to a region {:?}",
            self.shape
        )))
    }

    /// All elements; bf16 is widened.
    pub fn read_f32(&self, backend: &dyn Backend) -> Result<Vec<f32>> {
        if self.dtype == DType::BF16 {
            let mut bits = vec![0u16; self.len()];
            let bytes = bytemuck::cast_slice_mut(&mut bits);
            backend.read(&self.buffer, self.offset, bytes)?;
            let widened = bits.into_iter().map(|b| bf16::from_bits(b).to_f32());
            return Ok(widened.collect());
        }
        let mut out = vec![0f32; self.len()];
        backend.read(
            &self.buffer,
            self.offset,
            bytemuck::cast_slice_mut(&mut out),
        )?;
        Ok(out)
    }

    /// f32 elements from `start` on, as many as `out` holds.
    pub fn read_f32_at(&self, backend: &dyn Backend, start: usize, out: &mut [f32]) -> Result<()> {
        debug_assert!(start + out.len() <= self.len());
        backend.read(
            &self.buffer,
            self.offset + start * 4,
            bytemuck::cast_slice_mut(out),
        )
    }

    /// All elements.
    pub fn read_i32(&self, backend: &dyn Backend) -> Result<Vec<i32>> {
        let mut out = vec![0i32; self.len()];
        backend.read(
            &self.buffer,
            self.offset,
            bytemuck::cast_slice_mut(&mut out),
        )?;
        Ok(out)
    }

    /// Item `index` of the first axis.
    pub fn slab(&self, index: usize) -> Region {
        let shape = self.shape[1..].to_vec();
        let step = shape.iter().product::<usize>() * self.dtype.bytes();
        Region {
            buffer: self.buffer.clone(),
            offset: self.offset + index * step,
            shape,
            dtype: self.dtype,
        }
    }

    /// The first `count` items of the first axis.
    pub fn first(&self, count: usize) -> Region {
        self.items(0, count)
    }

    /// Items `start..start + count` of the first axis.
    pub fn items(&self, start: usize, count: usize) -> Region {
        debug_assert!(start + count <= self.shape[0]);
        let step = self.shape[1..].iter().product::<usize>() * self.dtype.bytes();
        let mut region = self.clone();
        region.offset += start * step;
        region.shape[0] = count;
        region
    }

    /// The same elements under another shape of equal size.
    pub fn reshaped(&self, shape: &[usize]) -> Region {
        debug_assert_eq!(shape.iter().product::<usize>(), self.len());
        Region {
            shape: shape.to_vec(),
            ..self.clone()
        }
    }

    /// The buffer it lies in.
    pub fn buffer(&self) -> &Buffer {
        &self.buffer
    }

    /// First byte within the buffer.
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// Extent per axis.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether it has no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Size in bytes.
    pub fn bytes(&self) -> usize {
        self.len() * self.dtype.bytes()
    }

    /// Whether two regions share memory.
    pub fn overlaps(&self, other: &Region) -> bool {
        self.buffer.id() == other.buffer.id()
            && self.offset < other.offset + other.bytes()
            && other.offset < self.offset + self.bytes()
    }
}
