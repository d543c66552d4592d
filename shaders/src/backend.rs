//! The device as a [`Backend`].

use crate::adapters::{Adapter, adapters};
use crate::exec::Prepared;
use crate::gpu::Gpu;
use crate::kernels::Pipelines;
use crate::launch;
use crate::memory::Memory;
use engine::backend::{Backend, Bound, Buffer, Caps, HostBytes, Ready, Release};
use engine::program::{Op, Program};
use engine::{Error, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What a backend and its prepared programs share.
pub struct Core {
    pub gpu: Arc<Gpu>,
    pub memory: Arc<Memory>,
    pub pipelines: Pipelines,
    pub counts: Counters,
}

/// What has been asked of the device.
#[derive(Default)]
pub struct Counters {
    pub submissions: AtomicU64,
    pub allocations: AtomicU64,
    pub reads: AtomicU64,
}

/// How often the device was used since the backend was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Submissions of programs.
    pub submissions: u64,
    /// Buffers and sets of bind groups that were made.
    pub allocations: u64,
    /// Waits for results.
    pub reads: u64,
}

/// A GPU through WebGPU.
pub struct WgpuBackend {
    caps: Caps,
    core: Arc<Core>,
}

impl WgpuBackend {
    /// Opens adapter number `index`; see [`crate::open`].
    pub fn open(index: usize) -> Result<Self> {
        let mut found = adapters();
        if index < found.len() {
            return Self::on(&found.swap_remove(index));
        }
        let list: Vec<String> = found.iter().map(ToString::to_string).collect();
        Err(Error::Request(if list.is_empty() {
            format!(
                "wgpu:{index} was asked for, but no driver for Vulkan, Metal or DX12 offers a \
                 device; install one, or use --backend cpu"
            )
        } else {
            format!("wgpu:{index} is not there; there are {}", list.join(", "))
        }))
    }

    /// Opens `adapter`.
    pub fn on(adapter: &Adapter) -> Result<Self> {
        let gpu = Arc::new(Gpu::open(adapter)?);
        let caps = Caps {
            name: adapter.to_string(),
            memory_bytes: gpu.limits.max_buffer_size,
            align: gpu.limits.min_storage_buffer_offset_alignment.max(256) as usize,
            native_bf16: false,
        };
        Ok(WgpuBackend {
            caps,
            core: Arc::new(Core {
                memory: Arc::new(Memory::new(gpu.clone())),
                pipelines: Pipelines::new(gpu.clone()),
                counts: Counters::default(),
                gpu,
            }),
        })
    }

    /// What has been asked of the device so far.
    pub fn counts(&self) -> Counts {
        let counts = &self.core.counts;
        let load = |n: &AtomicU64| n.load(Ordering::Relaxed);
        Counts {
            submissions: load(&counts.submissions),
            allocations: load(&counts.allocations),
            reads: load(&counts.reads),
        }
    }

    fn buffer(&self, bytes: usize) -> Result<Buffer> {
        let id = self.core.memory.alloc(bytes)?;
        self.core.counts.allocations.fetch_add(1, Ordering::Relaxed);
        let owner = self.core.memory.clone() as Arc<dyn Release>;
        Ok(Buffer::new(id, bytes, owner))
    }
}

impl Backend for WgpuBackend {
    fn caps(&self) -> &Caps {
        &self.caps
    }

    fn claims(&self, op: &Op) -> bool {
        launch::claims(op)
    }

    fn scratch_bytes(&self, program: &Program, step: usize) -> usize {
        launch::scratch_bytes(program, step)
    }

    fn alloc(&self, bytes: usize) -> Result<Buffer> {
        self.buffer(bytes)
    }

    fn adopt(&self, host: HostBytes) -> Result<Buffer> {
        let bytes = host.bytes();
        let buffer = self.buffer(bytes.len())?;
        // Whole words, and the rest in a word of its own.
        let whole = bytes.len() / 4 * 4;
        let memory = &self.core.memory;
        memory.write(buffer.id(), 0, &bytes[..whole])?;
        if whole < bytes.len() {
            let mut last = [0; 4];
            last[..bytes.len() - whole].copy_from_slice(&bytes[whole..]);
            memory.write(buffer.id(), whole, &last)?;
        }
        Ok(buffer)
    }

    fn write(&self, to: &Buffer, offset: usize, bytes: &[u8]) -> Result<()> {
        self.core.memory.write(to.id(), offset, bytes)
    }

    fn read(&self, from: &Buffer, offset: usize, bytes: &mut [u8]) -> Result<()> {
        self.core.counts.reads.fetch_add(1, Ordering::Relaxed);
        self.core.memory.read(from.id(), offset, bytes)
    }

    fn prepare(&self, bound: Bound) -> Result<Box<dyn Ready>> {
        Ok(Box::new(Prepared::new(self.core.clone(), bound)?))
    }
}
