//! What a backend and its prepared programs share, and the order in which the device works: runs
//! are recorded one behind the other and submitted together, by whoever gets its turn.
//!
//! A submission ends where a program comes again (a step of a loop is one submission, of however
//! many programs), where somebody reads or writes memory, and where it would take the device so
//! long that the system's watchdog might think it hung. At most [`IN_FLIGHT`] are under way, so
//! that the host does not run ahead of the device by more than that.

use crate::arena::Arena;
use crate::gpu::Gpu;
use crate::memory::{Memory, Pieces};
use crate::pipelines::Pipelines;
use engine::{Error, Result};
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Seconds that a submission should take at most. Drivers give up after 2 s and more; this also
/// keeps a desktop on the same card alive.
pub const SUBMISSION_SECONDS: f64 = 0.15;
/// Submissions that the host may be ahead of the device.
const IN_FLIGHT: usize = 2;
/// Work per second of a device that has not been measured yet: a weak one.
const FIRST_RATE: f64 = 2e11;
/// Bytes that are read back at a time.
const READ_PIECE: usize = 32 << 20;

/// What has been asked of the device.
#[derive(Default)]
pub struct Counters {
    pub submissions: AtomicU64,
    pub allocations: AtomicU64,
    pub reads: AtomicU64,
    pub dispatches: AtomicU64,
    pub cut_weights: AtomicU64,
}

/// How long a submission may be.
#[derive(Debug, Clone, Copy)]
pub enum Patience {
    /// As long as anybody likes.
    Endless,
    /// So much work.
    Work(f64),
    /// What the device does in [`SUBMISSION_SECONDS`], as measured.
    Measured,
}

/// A submission that the device has not finished, as far as we know.
struct Flight {
    index: wgpu::SubmissionIndex,
    work: f64,
    since: Instant,
}

/// What is recorded and under way.
pub struct Turn {
    encoder: Option<wgpu::CommandEncoder>,
    /// Programs whose last runs are recorded.
    ran: Vec<u64>,
    /// Work that is recorded.
    pub work: f64,
    flights: VecDeque<Flight>,
    /// When the last submission was seen to end.
    ended: Option<Instant>,
    /// Work per second.
    rate: f64,
    /// Where results are read from.
    staging: Option<wgpu::Buffer>,
    pub arena: Arena,
}

/// What a backend and its prepared programs share.
pub struct Core {
    pub gpu: Arc<Gpu>,
    pub memory: Arc<Memory>,
    pub pipelines: Pipelines,
    pub counts: Arc<Counters>,
    patience: Patience,
    turn: Mutex<Turn>,
}

impl Core {
    /// Nothing is recorded yet.
    pub fn new(gpu: Arc<Gpu>, pipelines: Pipelines, patience: Patience) -> Self {
        Core {
            memory: Arc::new(Memory::new(gpu.clone())),
            pipelines,
            counts: Arc::default(),
            patience,
            turn: Mutex::new(Turn {
                encoder: None,
                ran: Vec::new(),
                work: 0.0,
                flights: VecDeque::new(),
                ended: None,
                rate: FIRST_RATE,
                staging: None,
                arena: Arena::default(),
            }),
            gpu,
        }
    }

    /// The device, alone.
    pub fn turn(&self) -> MutexGuard<'_, Turn> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts buffers or sets of bind groups.
    pub fn allocated(&self) {
        self.counts.allocations.fetch_add(1, Ordering::Relaxed);
    }

    /// Work that may be recorded before it is submitted.
    pub fn budget(&self, turn: &Turn) -> f64 {
        match self.patience {
            Patience::Endless => f64::INFINITY,
            Patience::Work(most) => most,
            Patience::Measured => turn.rate * SUBMISSION_SECONDS,
        }
    }

    /// Submits what is recorded, and waits while too much is under way.
    pub fn submit(&self, turn: &mut Turn) -> Result<()> {
        let Some(encoder) = turn.encoder.take() else {
            return Ok(());
        };
        let index = self.gpu.queue.submit([encoder.finish()]);
        if turn.work > 0.0 {
            self.counts.submissions.fetch_add(1, Ordering::Relaxed);
        }
        turn.flights.push_back(Flight {
            index,
            work: std::mem::take(&mut turn.work),
            since: Instant::now(),
        });
        turn.ran.clear();
        while turn.flights.len() > IN_FLIGHT {
            self.land(turn)?;
        }
        self.gpu.check()
    }

    /// Waits for the oldest submission, and learns from it how fast the device is.
    fn land(&self, turn: &mut Turn) -> Result<()> {
        let Some(flight) = turn.flights.pop_front() else {
            return Ok(());
        };
        let waited = Instant::now();
        self.gpu.wait(Some(flight.index))?;
        let now = Instant::now();
        let began = turn.ended.map_or(flight.since, |e| e.max(flight.since));
        turn.ended = Some(now);
        // One that had ended before we looked says nothing of its length.
        let seen = now.duration_since(waited).as_secs_f64() > 1e-3;
        let seconds = now.duration_since(began).as_secs_f64();
        if seen && seconds > 0.0 && flight.work > 0.0 {
            turn.rate = 0.5 * (turn.rate + flight.work / seconds);
        }
        Ok(())
    }

    /// Submits what is recorded and waits for everything.
    pub fn settle(&self, turn: &mut Turn) -> Result<()> {
        self.submit(turn)?;
        while !turn.flights.is_empty() {
            self.land(turn)?;
        }
        self.gpu.wait(None)
    }

    /// Copies bytes to a buffer, behind all runs before and ahead of all later ones.
    pub fn write(&self, id: u64, offset: usize, bytes: &[u8]) -> Result<()> {
        let pieces = self.memory.get(id)?;
        let words = words_around(offset, bytes.len());
        let mut turn = self.turn();
        self.submit(&mut turn)?;
        if words == (offset..offset + bytes.len()) {
            self.put(&pieces, words, bytes)?;
        } else {
            // Words that are shared with what lies beside keep their other half.
            let mut held = vec![0; words.len()];
            self.fetch(&mut turn, &pieces, words.clone(), &mut held)?;
            held[offset - words.start..][..bytes.len()].copy_from_slice(bytes);
            self.put(&pieces, words, &held)?;
        }
        self.gpu.check()
    }

    /// Copies bytes from a buffer, behind all runs before.
    pub fn read(&self, id: u64, offset: usize, bytes: &mut [u8]) -> Result<()> {
        self.counts.reads.fetch_add(1, Ordering::Relaxed);
        let pieces = self.memory.get(id)?;
        let words = words_around(offset, bytes.len());
        let mut turn = self.turn();
        if words == (offset..offset + bytes.len()) {
            return self.fetch(&mut turn, &pieces, words, bytes);
        }
        let mut held = vec![0; words.len()];
        self.fetch(&mut turn, &pieces, words.clone(), &mut held)?;
        bytes.copy_from_slice(&held[offset - words.start..][..bytes.len()]);
        Ok(())
    }

    fn put(&self, pieces: &Pieces, to: Range<usize>, bytes: &[u8]) -> Result<()> {
        let mut left = bytes;
        for (buffer, part) in pieces.within(to)? {
            let (now, later) = left.split_at(part.len());
            self.gpu.write(buffer, part.start as u64, now);
            left = later;
        }
        Ok(())
    }

    fn fetch(
        &self,
        turn: &mut Turn,
        pieces: &Pieces,
        from: Range<usize>,
        bytes: &mut [u8],
    ) -> Result<()> {
        let mut left = bytes;
        for (buffer, part) in pieces.within(from)? {
            for start in part.clone().step_by(READ_PIECE) {
                let len = READ_PIECE.min(part.end - start);
                let (now, later) = left.split_at_mut(len);
                self.fetch_piece(turn, buffer, start as u64, now)?;
                left = later;
            }
        }
        Ok(())
    }

    /// The copy joins what is recorded: a token is one submission with the way back.
    fn fetch_piece(
        &self,
        turn: &mut Turn,
        buffer: &wgpu::Buffer,
        offset: u64,
        bytes: &mut [u8],
    ) -> Result<()> {
        let size = bytes.len() as u64;
        let staging = match turn.staging.take().filter(|s| s.size() >= size) {
            Some(staging) => staging,
            None => {
                self.allocated();
                self.gpu.staging(size.next_power_of_two())?
            }
        };
        let encoder = turn.encoder(&self.gpu);
        encoder.copy_buffer_to_buffer(buffer, offset, &staging, 0, size);
        self.submit(turn)?;
        let mapped = staging.slice(..size);
        let (tell, told) = std::sync::mpsc::channel();
        mapped.map_async(wgpu::MapMode::Read, move |result| {
            // Nobody listens when the wait below has failed.
            let _ = tell.send(result);
        });
        self.settle(turn)?;
        let failed = |e: String| Error::Device(format!("{}: reading back: {e}", self.gpu.name));
        match told.try_recv() {
            Ok(Ok(())) => {}
            Ok(Err(e)) => return Err(failed(e.to_string())),
            Err(_) => return Err(failed("no answer".into())),
        }
        let view = mapped.get_mapped_range();
        bytes.copy_from_slice(&view.map_err(|e| failed(e.to_string()))?);
        staging.unmap();
        turn.staging = Some(staging);
        Ok(())
    }
}

impl Turn {
    /// Where commands are recorded.
    pub fn encoder(&mut self, gpu: &Gpu) -> &mut wgpu::CommandEncoder {
        let make = || gpu.device.create_command_encoder(&Default::default());
        self.encoder.get_or_insert_with(make)
    }

    /// Whether a run of `program` is recorded and not submitted.
    pub fn has(&self, program: u64) -> bool {
        self.ran.contains(&program)
    }

    /// Says that a run of `program` was recorded.
    pub fn ran(&mut self, program: u64) {
        self.ran.push(program);
    }
}

/// The whole words that hold these bytes.
fn words_around(offset: usize, bytes: usize) -> Range<usize> {
    offset / 4 * 4..(offset + bytes).next_multiple_of(4)
}
