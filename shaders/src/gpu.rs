//! An open device: its queue, what it can do, and its faults as errors.

use crate::adapters::Adapter;
use engine::{Error, Result};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes of parameters that every shader may have.
pub const PARAMETER_BYTES: u32 = 64;
/// Storage bindings of one shader.
pub const BINDINGS: u32 = 6;
/// Bytes that a workgroup shares at least.
pub const WORKGROUP_BYTES: u32 = 16 << 10;
/// Threads of the largest workgroup.
pub const THREADS: u32 = 256;

/// What happened on the device since somebody looked.
#[derive(Default)]
struct Faults {
    lost: AtomicBool,
    text: Mutex<Option<String>>,
}

impl Faults {
    fn note(&self, text: String) {
        let mut kept = self.text.lock().unwrap_or_else(PoisonError::into_inner);
        // The first fault is the cause of the others.
        kept.get_or_insert(text);
    }
}

/// A device and its queue.
pub struct Gpu {
    pub device: wgpu::Device,
    pub queue: wgpu::Queue,
    pub limits: wgpu::Limits,
    pub name: String,
    faults: Arc<Faults>,
}

impl Gpu {
    /// Opens `adapter` with all that it offers of what we can use.
    pub fn open(adapter: &Adapter) -> Result<Self> {
        let name = adapter.info.name.clone();
        let offered = adapter.adapter.limits();
        if let Some(why) = adapter.unusable() {
            return Err(Error::Device(format!(
                "{adapter} cannot be used: {why}; use another device or --backend cpu"
            )));
        }
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("acestep"),
            required_features: wgpu::Features::IMMEDIATES,
            required_limits: offered.clone(),
            experimental_features: wgpu::ExperimentalFeatures::disabled(),
            memory_hints: wgpu::MemoryHints::Performance,
            trace: wgpu::Trace::Off,
        };
        let (device, queue) = pollster::block_on(adapter.adapter.request_device(&descriptor))
            .map_err(|e| Error::Device(format!("{adapter} does not open: {e}")))?;
        let faults = Arc::new(Faults::default());
        let noted = faults.clone();
        device.on_uncaptured_error(Arc::new(move |e: wgpu::Error| noted.note(e.to_string())));
        let noted = faults.clone();
        device.set_device_lost_callback(move |reason, text| {
            if reason != wgpu::DeviceLostReason::Destroyed {
                noted.lost.store(true, Ordering::Release);
                noted.note(text);
            }
        });
        Ok(Gpu {
            device,
            queue,
            limits: offered,
            name,
            faults,
        })
    }

    /// What went wrong since the last look, if anything did.
    pub fn check(&self) -> Result<()> {
        let mut kept = self.faults.text.lock();
        let text = match &mut kept {
            Ok(text) => text.take(),
            Err(poisoned) => poisoned.get_mut().take(),
        };
        if self.faults.lost.load(Ordering::Acquire) {
            let why = text.map(|t| format!(" ({t})")).unwrap_or_default();
            return Err(Error::Device(format!(
                "{} was lost{why}; restart, or use another device",
                self.name
            )));
        }
        match text {
            None => Ok(()),
            Some(text) => Err(Error::Device(format!("{}: {text}", self.name))),
        }
    }

    /// A buffer for shaders; contents are zero.
    pub fn buffer(&self, bytes: u64) -> Result<wgpu::Buffer> {
        let size = bytes.max(4).next_multiple_of(4);
        let most = self.limits.max_buffer_size;
        let too_big = |have| Error::TooBig {
            needs: size,
            have,
            suggestion: format!(
                "{} has no more room in one piece; make the song shorter, the batch smaller, or \
                 use --backend cpu",
                self.name
            ),
        };
        if size > most {
            return Err(too_big(most));
        }
        let scope = self.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let buffer = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size,
            usage: wgpu::BufferUsages::STORAGE
                | wgpu::BufferUsages::COPY_SRC
                | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        match pollster::block_on(scope.pop()) {
            Some(_) => Err(too_big(0)),
            None => self.check().map(|()| buffer),
        }
    }

    /// Copies `bytes` (a multiple of 4, as `offset`) into `buffer`, before whatever is submitted
    /// from now on.
    pub fn write(&self, buffer: &wgpu::Buffer, offset: u64, bytes: &[u8]) {
        // In pieces, so that staging memory is given back between them.
        const PIECE: usize = 32 << 20;
        for (i, piece) in bytes.chunks(PIECE).enumerate() {
            let at = offset + (i * PIECE) as u64;
            self.queue.write_buffer(buffer, at, piece);
            if bytes.len() > PIECE {
                self.queue.submit([]);
            }
        }
    }

    /// Copies from `buffer` (`offset` and length are multiples of 4) after all that was submitted.
    pub fn read(&self, buffer: &wgpu::Buffer, offset: u64, bytes: &mut [u8]) -> Result<()> {
        let size = bytes.len() as u64;
        let staging = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("read back"),
            size,
            usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        let mut encoder = self.device.create_command_encoder(&Default::default());
        encoder.copy_buffer_to_buffer(buffer, offset, &staging, 0, size);
        self.queue.submit([encoder.finish()]);
        let (tell, told) = std::sync::mpsc::channel();
        staging
            .slice(..)
            .map_async(wgpu::MapMode::Read, move |result| {
                // Nobody listens when the wait below has failed.
                let _ = tell.send(result);
            });
        let failed = |e: String| Error::Device(format!("{}: reading back: {e}", self.name));
        self.device
            .poll(wgpu::PollType::wait_indefinitely())
            .map_err(|e| failed(e.to_string()))?;
        self.check()?;
        match told.try_recv() {
            Ok(Ok(())) => {}
            Ok(Err(e)) => return Err(failed(e.to_string())),
            Err(_) => return Err(failed("no answer".into())),
        }
        let mapped = staging
            .slice(..)
            .get_mapped_range()
            .map_err(|e| failed(e.to_string()))?;
        bytes.copy_from_slice(&mapped);
        Ok(())
    }
}
