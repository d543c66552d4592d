//! An open device: its queue, what it can do, and its faults as errors.

use crate::adapters::Adapter;
use crate::options::Options;
use crate::resolve::Limits;
use crate::usage::{Counted, Usage};
use engine::{Error, Result};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

/// Bytes of parameters that every shader may have.
pub const PARAMETER_BYTES: u32 = 64;
/// Storage bindings of one shader.
pub const BINDINGS: u32 = 6;
/// Bytes that a workgroup shares at least.
pub const WORKGROUP_BYTES: u32 = 16 << 10;
/// Threads of the largest workgroup.
pub const THREADS: u32 = 256;

/// How long after a fault we wait to be told that the device is gone.
const LOSS_IS_TOLD: Duration = Duration::from_secs(1);

/// What happened on the device since somebody looked.
#[derive(Default)]
struct Faults {
    /// What the driver says of the loss of the device.
    lost: OnceLock<String>,
    text: Mutex<Option<String>>,
}

impl Faults {
    fn note(&self, text: String) {
        let mut kept = self.text.lock().unwrap_or_else(PoisonError::into_inner);
        // The first fault is the cause of the others.
        kept.get_or_insert(text);
    }

    fn take(&self) -> Option<String> {
        let mut kept = self.text.lock().unwrap_or_else(PoisonError::into_inner);
        kept.take()
    }
}

/// A device and its queue.
pub struct Gpu {
    pub device: wgpu::Device,
    pub queue: wgpu::Queue,
    pub limits: Limits,
    pub name: String,
    /// Bytes of its memory; 0 when it is not known.
    pub memory_bytes: u64,
    pub usage: Arc<Usage>,
    /// Whether its memory is the processor's.
    pub unified: bool,
    /// Whether shaders test their indices.
    pub checks: bool,
    faults: Arc<Faults>,
}

const STORAGE: wgpu::BufferUsages = wgpu::BufferUsages::STORAGE
    .union(wgpu::BufferUsages::COPY_SRC)
    .union(wgpu::BufferUsages::COPY_DST);

impl Gpu {
    /// Opens `adapter` with all that it offers of what we can use.
    pub fn open(adapter: &Adapter, options: &Options) -> Result<Self> {
        suits(adapter)?;
        let mut limits = adapter.adapter.limits();
        let at_most = |limit: &mut u64, most: Option<u64>| {
            *limit = most.map_or(*limit, |most| most.min(*limit));
        };
        at_most(
            &mut limits.max_storage_buffer_binding_size,
            options.binding_bytes,
        );
        at_most(&mut limits.max_buffer_size, options.buffer_bytes);
        if let Some(most) = options.workgroup_bytes {
            let limit = &mut limits.max_compute_workgroup_storage_size;
            *limit = most.min(*limit);
        }
        let mut memory_bytes = adapter.memory_bytes();
        if let Some(most) = options.memory_bytes {
            memory_bytes = match memory_bytes {
                0 => most,
                there => there.min(most),
            };
        }
        let offered = adapter.adapter.features();
        let mut wanted = wgpu::Features::IMMEDIATES;
        wanted |= offered & wgpu::Features::PIPELINE_CACHE;
        // Our exchanges are between eight neighbours. Of Metal no sizes are known to wgpu; those of
        // its devices begin with 8.
        let neighbours =
            adapter.info.subgroup_min_size >= 8 || adapter.info.backend == wgpu::Backend::Metal;
        let subgroups =
            offered.contains(wgpu::Features::SUBGROUP) && neighbours && !options.without_subgroups;
        if subgroups {
            wanted |= wgpu::Features::SUBGROUP;
        }
        if adapter.is_unified() {
            wanted |= offered & wgpu::Features::MAPPABLE_PRIMARY_BUFFERS;
        }
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("acestep"),
            required_features: wanted,
            required_limits: limits.clone(),
            experimental_features: wgpu::ExperimentalFeatures::disabled(),
            memory_hints: wgpu::MemoryHints::Performance,
            trace: wgpu::Trace::Off,
        };
        let (device, queue) = pollster::block_on(adapter.adapter.request_device(&descriptor))
            .map_err(|e| Error::Device(format!("{adapter} does not open: {e}")))?;
        let faults = Arc::new(Faults::default());
        let noted = faults.clone();
        // Without a handler of ours a fault would be a panic.
        device.on_uncaptured_error(Arc::new(move |e: wgpu::Error| noted.note(e.to_string())));
        let noted = faults.clone();
        device.set_device_lost_callback(move |_, text| {
            // Told twice it is the same loss.
            let _ = noted.lost.set(text);
        });
        let of_device = Limits::of(&limits);
        Ok(Gpu {
            unified: wanted.contains(wgpu::Features::MAPPABLE_PRIMARY_BUFFERS),
            device,
            queue,
            limits: Limits {
                subgroups,
                software: adapter.is_software() && !options.as_hardware,
                busy: options.busy.unwrap_or(of_device.busy),
                ..of_device
            },
            name: adapter.info.name.clone(),
            memory_bytes,
            usage: Arc::default(),
            checks: options.checks,
            faults,
        })
    }

    /// What went wrong since the last look, if anything did.
    ///
    /// # Errors
    /// [`Error::DeviceLost`] for ever once the device is gone, [`Error::Device`] for other faults.
    pub fn check(&self) -> Result<()> {
        let text = self.faults.take();
        if text.is_some() && self.faults.lost.get().is_none() {
            // What fails on a device that is gone may be told before that it is gone.
            let soon = wgpu::PollType::Wait {
                submission_index: None,
                timeout: Some(LOSS_IS_TOLD),
            };
            // Whatever it returns, the loss is told by its callback.
            let _ = self.device.poll(soon);
        }
        if let Some(why) = self.faults.lost.get() {
            return Err(Error::DeviceLost(format!(
                "{} was lost ({}): its driver was reset or updated, or the card removed; the next \
                 job opens it anew",
                self.name,
                why.trim_end_matches('.')
            )));
        }
        match text {
            None => Ok(()),
            Some(text) => Err(Error::Device(format!("{}: {text}", self.name))),
        }
    }

    /// Waits for a submission, or for all.
    pub fn wait(&self, submission: Option<wgpu::SubmissionIndex>) -> Result<()> {
        let waited = self.device.poll(wgpu::PollType::Wait {
            submission_index: submission,
            timeout: None,
        });
        self.check()?;
        match waited {
            Ok(_) => Ok(()),
            Err(e) => Err(Error::Device(format!("{}: waiting: {e}", self.name))),
        }
    }

    /// A buffer for shaders; contents are zero.
    pub fn buffer(&self, bytes: usize) -> Result<Counted> {
        self.create(bytes, STORAGE, false)
    }

    /// A buffer for shaders with these contents.
    pub fn filled(&self, contents: &[u8]) -> Result<Counted> {
        if !self.unified {
            let buffer = self.buffer(contents.len())?;
            self.fill(&buffer.raw, contents);
            self.check()?;
            return Ok(buffer);
        }
        // The processor writes where the device reads.
        let usage = STORAGE | wgpu::BufferUsages::MAP_WRITE;
        let buffer = self.create(contents.len(), usage, true)?;
        let mapped = buffer.raw.slice(..).get_mapped_range_mut();
        let mut mapped = mapped.map_err(|e| {
            Error::Device(format!(
                "{}: {} bytes of weights cannot be written: {e}",
                self.name,
                contents.len()
            ))
        })?;
        mapped.slice(..contents.len()).copy_from_slice(contents);
        drop(mapped);
        buffer.raw.unmap();
        self.check().map(|()| buffer)
    }

    /// Memory of the processor into which results are copied.
    pub fn staging(&self, size: u64) -> Result<wgpu::Buffer> {
        let staging = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("read back"),
            size,
            usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        self.check().map(|()| staging)
    }

    fn create(&self, bytes: usize, usage: wgpu::BufferUsages, mapped: bool) -> Result<Counted> {
        // Whole vectors of four words.
        let size = (bytes as u64).max(16).next_multiple_of(16);
        let most = self.limits.piece as u64;
        let used = self.usage.now();
        let too_big = |have, what: &str| Error::TooBig {
            needs: size,
            have,
            suggestion: format!(
                "{} gives no more {what}; make the song shorter or the batch smaller, or use \
                 --backend cpu",
                self.name
            ),
        };
        if size > most {
            return Err(too_big(most, "in one piece"));
        }
        let left = self.memory_bytes.saturating_sub(used);
        let beside = format!("beside the {} MiB in use", used >> 20);
        if self.memory_bytes > 0 && size > left {
            return Err(too_big(left, &beside));
        }
        let scope = self.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let buffer = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size,
            usage,
            mapped_at_creation: mapped,
        });
        match pollster::block_on(scope.pop()) {
            // How much is left the driver does not say.
            Some(_) => Err(too_big(0, &beside)),
            None => self
                .check()
                .map(|()| Counted::new(buffer, self.usage.clone())),
        }
    }

    /// Contents of a new buffer, of any length.
    fn fill(&self, buffer: &wgpu::Buffer, contents: &[u8]) {
        // Whole words, and the rest in a word of its own.
        let whole = contents.len() / 4 * 4;
        self.write(buffer, 0, &contents[..whole]);
        if whole < contents.len() {
            let mut last = [0; 4];
            last[..contents.len() - whole].copy_from_slice(&contents[whole..]);
            self.write(buffer, whole as u64, &last);
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
            if piece.len() == PIECE {
                self.queue.submit([]);
            }
        }
    }
}

/// Refuses an adapter that lacks what every program needs.
fn suits(adapter: &Adapter) -> Result<()> {
    match adapter.unusable() {
        None => Ok(()),
        Some(why) => Err(Error::Device(format!(
            "{adapter} cannot be used: {why}; use another device or --backend cpu"
        ))),
    }
}
