//! Buffers of the device that handles name. A weight that is larger than the device's largest
//! buffer lies in several.

use crate::gpu::Gpu;
use crate::resolve::weight_unit;
use crate::usage::Counted;
use engine::backend::Release;
use engine::{Error, Result};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a handle names: bytes, cut into pieces of equal size but for the last.
pub struct Pieces {
    /// The pieces, in order.
    pub buffers: Vec<Counted>,
    /// Bytes of a piece.
    pub piece: usize,
    /// Bytes in all.
    pub bytes: usize,
}

impl Pieces {
    /// The pieces that hold `bytes`: for each its buffer and the bytes within.
    pub fn within(&self, bytes: Range<usize>) -> Result<Vec<(&wgpu::Buffer, Range<usize>)>> {
        if bytes.end > self.bytes.next_multiple_of(4) {
            return Err(Error::Bug(format!(
                "bytes {bytes:?} exceed a buffer of {}",
                self.bytes
            )));
        }
        let mut parts = Vec::new();
        let mut at = bytes.start;
        while at < bytes.end {
            let start = at % self.piece;
            let len = (self.piece - start).min(bytes.end - at);
            parts.push((&self.buffers[at / self.piece].raw, start..start + len));
            at += len;
        }
        Ok(parts)
    }
}

#[derive(Default)]
struct Inner {
    buffers: HashMap<u64, Arc<Pieces>>,
    next: u64,
}

/// The buffers of a device.
pub struct Memory {
    gpu: Arc<Gpu>,
    inner: Mutex<Inner>,
}

impl Memory {
    /// No buffers yet.
    pub fn new(gpu: Arc<Gpu>) -> Self {
        Memory {
            gpu,
            inner: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, pieces: Pieces) -> u64 {
        let mut inner = self.lock();
        inner.next += 1;
        let id = inner.next;
        inner.buffers.insert(id, Arc::new(pieces));
        id
    }

    /// A buffer of zeros.
    pub fn alloc(&self, bytes: usize) -> Result<u64> {
        Ok(self.keep(Pieces {
            buffers: vec![self.gpu.buffer(bytes)?],
            piece: self.gpu.limits.piece,
            bytes,
        }))
    }

    /// A buffer, or several, with the contents of a weight of rows of `row_bytes`.
    pub fn adopt(&self, contents: &[u8], row_bytes: usize) -> Result<u64> {
        let limits = &self.gpu.limits;
        let bytes = contents.len();
        let piece = limits
            .weight_piece(bytes, row_bytes)
            .ok_or_else(|| Error::TooBig {
                needs: weight_unit(row_bytes) as u64,
                have: limits.piece as u64,
                suggestion: format!(
                    "the rows between two places where a weight may be cut do not fit into the \
                     largest buffer of {}; use another device or --backend cpu",
                    self.gpu.name
                ),
            })?;
        let buffers = match contents.is_empty() {
            true => vec![self.gpu.buffer(0)?],
            false => contents
                .chunks(piece)
                .map(|part| self.gpu.filled(part))
                .collect::<Result<_>>()?,
        };
        Ok(self.keep(Pieces {
            buffers,
            piece,
            bytes,
        }))
    }

    /// What a handle names.
    pub fn get(&self, id: u64) -> Result<Arc<Pieces>> {
        let found = self.lock().buffers.get(&id).cloned();
        found.ok_or_else(|| Error::Bug(format!("buffer {id} is not on this device")))
    }
}

impl Release for Memory {
    fn release(&self, id: u64) {
        // Dropped behind the lock.
        let released = self.lock().buffers.remove(&id);
        drop(released);
    }
}
