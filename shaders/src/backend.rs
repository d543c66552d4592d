//! The device as a [`Backend`].

use crate::adapters::{Adapter, adapters};
use crate::core::{Core, Patience};
use crate::disk::Disk;
use crate::exec::Prepared;
use crate::gpu::Gpu;
use crate::launch;
use crate::options::Options;
use crate::pipelines::Pipelines;
use engine::backend::{Backend, Bound, Buffer, Caps, HostBytes, Ready, Release};
use engine::program::{Op, Program};
use engine::{Error, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How often the device was used since the backend was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Submissions of programs.
    pub submissions: u64,
    /// Buffers and sets of bind groups that were made.
    pub allocations: u64,
    /// Waits for results.
    pub reads: u64,
    /// Dispatches that were recorded. An operation whose operands exceed a binding takes several.
    pub dispatches: u64,
    /// Weights that lie in several buffers, because they exceed the largest there is.
    pub cut_weights: u64,
}

/// A GPU through WebGPU.
pub struct WgpuBackend {
    caps: Caps,
    core: Arc<Core>,
}

impl WgpuBackend {
    /// Opens adapter number `index`; see [`crate::open`].
    pub fn open(index: usize) -> Result<Self> {
        Self::open_with(index, &Options::of_users())
    }

    /// As [`Self::open`], with options.
    pub fn open_with(index: usize, options: &Options) -> Result<Self> {
        let mut found = adapters();
        if index < found.len() {
            return Self::on(&found.swap_remove(index), options);
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
    pub fn on(adapter: &Adapter, options: &Options) -> Result<Self> {
        let gpu = Arc::new(Gpu::open(adapter, options)?);
        let caps = Caps {
            name: adapter.to_string(),
            memory_bytes: gpu.memory_bytes,
            align: launch::ALIGN,
            piece_bytes: gpu.limits.piece,
            native_bf16: false,
        };
        let patience = match options.submission_work {
            Some(most) => Patience::Work(most),
            None if adapter.is_software() => Patience::Endless,
            None => Patience::Measured,
        };
        let disk = Disk::open(&gpu.device, &adapter.info, options.cache.as_deref());
        let pipelines = Pipelines::new(gpu.clone(), disk);
        Ok(WgpuBackend {
            caps,
            core: Arc::new(Core::new(gpu, pipelines, patience)),
        })
    }

    /// Bytes of the device's memory that are in use, and that were at most.
    pub fn memory_in_use(&self) -> (u64, u64) {
        let usage = &self.core.gpu.usage;
        (usage.now(), usage.peak())
    }

    /// Gives the device up as a driver does that is reset: everything on it is gone. For tests of
    /// what happens then.
    pub fn lose(&self) {
        self.core.gpu.device.destroy();
    }

    /// What has been asked of the device so far.
    pub fn counts(&self) -> Counts {
        let counts = &self.core.counts;
        let load = |n: &AtomicU64| n.load(Ordering::Relaxed);
        Counts {
            submissions: load(&counts.submissions),
            allocations: load(&counts.allocations),
            reads: load(&counts.reads),
            dispatches: load(&counts.dispatches),
            cut_weights: load(&counts.cut_weights),
        }
    }

    fn handle(&self, id: u64, bytes: usize) -> Buffer {
        self.core.allocated();
        let owner = self.core.memory.clone() as Arc<dyn Release>;
        Buffer::new(id, bytes, owner)
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
        launch::scratch_bytes(program, step, &self.core.gpu.limits.room())
    }

    fn alloc(&self, bytes: usize) -> Result<Buffer> {
        Ok(self.handle(self.core.memory.alloc(bytes)?, bytes))
    }

    fn adopt(&self, host: HostBytes, row_bytes: usize) -> Result<Buffer> {
        let bytes = host.bytes();
        let id = self.core.memory.adopt(bytes, row_bytes)?;
        if self.core.memory.get(id)?.buffers.len() > 1 {
            let cut = &self.core.counts.cut_weights;
            cut.fetch_add(1, Ordering::Relaxed);
        }
        Ok(self.handle(id, bytes.len()))
    }

    fn write(&self, to: &Buffer, offset: usize, bytes: &[u8]) -> Result<()> {
        self.core.write(to.id(), offset, bytes)
    }

    fn read(&self, from: &Buffer, offset: usize, bytes: &mut [u8]) -> Result<()> {
        self.core.read(from.id(), offset, bytes)
    }

    fn prepare(&self, bound: Bound) -> Result<Box<dyn Ready>> {
        Ok(Box::new(Prepared::new(self.core.clone(), bound)?))
    }
}
