//! Buffers of the device: those that handles name, and the arena that prepared programs share.

use crate::gpu::Gpu;
use engine::backend::Release;
use engine::{Error, Result};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What is allocated.
#[derive(Default)]
pub struct Inner {
    buffers: HashMap<u64, wgpu::Buffer>,
    next: u64,
    arena: Option<wgpu::Buffer>,
    /// Changes whenever another buffer becomes the arena.
    generation: u64,
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

    /// Exclusive use.
    pub fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A buffer of zeros.
    pub fn alloc(&self, bytes: usize) -> Result<u64> {
        let buffer = self.gpu.buffer(bytes as u64)?;
        let mut inner = self.lock();
        inner.next += 1;
        let id = inner.next;
        inner.buffers.insert(id, buffer);
        Ok(id)
    }

    /// The buffer behind a handle.
    pub fn buffer(&self, id: u64) -> Result<wgpu::Buffer> {
        let inner = self.lock();
        let buffer = inner.buffers.get(&id).cloned();
        buffer.ok_or_else(|| Error::Bug(format!("buffer {id} is not on this device")))
    }

    /// Bytes into a buffer, at any offset.
    pub fn write(&self, id: u64, offset: usize, bytes: &[u8]) -> Result<()> {
        let buffer = self.buffer(id)?;
        within(&buffer, offset, bytes.len())?;
        let (start, end) = words_around(offset, bytes.len());
        if (start, end) == (offset, offset + bytes.len()) {
            self.gpu.write(&buffer, start as u64, bytes);
        } else {
            // Words that are shared with what lies beside keep their other half.
            let mut words = vec![0; end - start];
            self.gpu.read(&buffer, start as u64, &mut words)?;
            words[offset - start..][..bytes.len()].copy_from_slice(bytes);
            self.gpu.write(&buffer, start as u64, &words);
        }
        self.gpu.check()
    }

    /// Bytes from a buffer, at any offset.
    pub fn read(&self, id: u64, offset: usize, bytes: &mut [u8]) -> Result<()> {
        let buffer = self.buffer(id)?;
        within(&buffer, offset, bytes.len())?;
        let (start, end) = words_around(offset, bytes.len());
        if (start, end) == (offset, offset + bytes.len()) {
            return self.gpu.read(&buffer, start as u64, bytes);
        }
        let mut words = vec![0; end - start];
        self.gpu.read(&buffer, start as u64, &mut words)?;
        bytes.copy_from_slice(&words[offset - start..][..bytes.len()]);
        Ok(())
    }

    /// The arena, of at least this size, and its generation. When it grows, programs that were
    /// prepared on the smaller one bind anew as they run.
    pub fn arena(&self, bytes: usize) -> Result<(wgpu::Buffer, u64)> {
        let mut inner = self.lock();
        if let Some(arena) = inner.arena.as_ref().filter(|a| a.size() >= bytes as u64) {
            return Ok((arena.clone(), inner.generation));
        }
        // The old one goes first: the two need not fit side by side.
        inner.arena = None;
        let arena = self.gpu.buffer(bytes as u64)?;
        inner.arena = Some(arena.clone());
        inner.generation += 1;
        Ok((arena, inner.generation))
    }
}

impl Release for Memory {
    fn release(&self, id: u64) {
        self.lock().buffers.remove(&id);
    }
}

fn within(buffer: &wgpu::Buffer, offset: usize, bytes: usize) -> Result<()> {
    if (offset + bytes) as u64 > buffer.size() {
        return Err(Error::Bug(format!(
            "{bytes} bytes at {offset} exceed a buffer of {}",
            buffer.size()
        )));
    }
    Ok(())
}

/// The whole words that hold these bytes.
fn words_around(offset: usize, bytes: usize) -> (usize, usize) {
    (offset / 4 * 4, (offset + bytes).next_multiple_of(4))
}
