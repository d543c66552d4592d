//! How much of the device's memory is in use.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes in use, now and at most.
#[derive(Default)]
pub struct Usage {
    now: AtomicU64,
    peak: AtomicU64,
}

impl Usage {
    /// Bytes in use.
    pub fn now(&self) -> u64 {
        self.now.load(Ordering::Relaxed)
    }

    /// Most bytes that were in use at once.
    pub fn peak(&self) -> u64 {
        self.peak.load(Ordering::Relaxed)
    }

    fn add(&self, bytes: u64) {
        let now = self.now.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.peak.fetch_max(now, Ordering::Relaxed);
    }
}

/// A buffer that counts as used until it is dropped.
pub struct Counted {
    /// The buffer.
    pub raw: wgpu::Buffer,
    usage: Arc<Usage>,
}

impl Counted {
    /// Counts `raw`.
    pub fn new(raw: wgpu::Buffer, usage: Arc<Usage>) -> Self {
        usage.add(raw.size());
        Counted { raw, usage }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.usage.now.fetch_sub(self.raw.size(), Ordering::Relaxed);
    }
}
