//! A prepared program: every step's launches with their pipelines, parameters and bind groups, made
//! once. A run records them behind what was recorded before; see [`crate::core`] for when that is
//! submitted.

use crate::arena::{self, Groups};
use crate::core::{Core, Turn};
use crate::memory::Pieces;
use crate::pipelines::Pipeline;
use crate::resolve::{Binding, Dispatch, Memory, Own, SCALAR_BYTES, resolve};
use crate::usage::Counted;
use engine::backend::{Bound, Ready, Region};
use engine::{Error, Result};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// A program on this device.
pub struct Prepared {
    core: Arc<Core>,
    name: String,
    /// Tells it from all others.
    id: u64,
    dispatches: Vec<(Dispatch, Arc<Pipeline>)>,
    groups: Arc<Mutex<Groups>>,
    arena_bytes: usize,
    scalars: usize,
    scalar_buffer: Counted,
    /// Buffers that dispatches name by slot.
    slots: Vec<Arc<Pieces>>,
    /// Keeps the buffers registered.
    _regions: Vec<Region>,
}

impl Prepared {
    /// Plans and resolves `bound`.
    pub fn new(core: Arc<Core>, bound: Bound) -> Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let program = &bound.program;
        let mut slots = Vec::new();
        let mut own = |region: &Region| own(&core, region, &mut slots);
        let owns = bound.regions.iter().map(|region| {
            let region = region.as_ref();
            region.map(&mut own).transpose()
        });
        let owns = owns.collect::<Result<Vec<_>>>()?;
        let copies = bound.copies.iter();
        let copies = copies.map(|(v, region)| Ok((*v, own(region)?)));
        let copies = copies.collect::<Result<Vec<_>>>()?;
        let resolved = resolve(program, &core.gpu.limits, &core.gpu.name, &owns, &copies)?;
        core.pipelines
            .make(resolved.dispatches.iter().map(|d| &d.variant))?;
        let dispatches = resolved.dispatches.into_iter().map(|dispatch| {
            let pipeline = core.pipelines.get(&dispatch.variant)?;
            Ok((dispatch, pipeline))
        });
        let dispatches = dispatches.collect::<Result<_>>()?;
        let scalar_buffer = core.gpu.buffer(SCALAR_BYTES)?;
        core.allocated();
        let copied = bound.copies.iter().map(|(_, region)| region.clone());
        let regions = bound.regions.iter().flatten().cloned().chain(copied);
        let prepared = Prepared {
            name: program.name.clone(),
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            dispatches,
            groups: Arc::default(),
            arena_bytes: resolved.arena_bytes,
            scalars: resolved.scalars,
            scalar_buffer,
            slots,
            _regions: regions.collect(),
            core: core.clone(),
        };
        let mut turn = core.turn();
        turn.arena.register(&prepared.groups);
        arena::reserve(&core, &mut turn, prepared.arena_bytes)?;
        prepared.bind(&turn, &mut prepared.lock())?;
        drop(turn);
        Ok(prepared)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Groups> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the bind groups, unless they are there.
    fn bind(&self, turn: &Turn, groups: &mut Groups) -> Result<()> {
        if groups.made.len() == self.dispatches.len() {
            return Ok(());
        }
        groups.made.clear();
        for (dispatch, pipeline) in &self.dispatches {
            let entries = dispatch.bindings.iter().enumerate().map(|(i, binding)| {
                Ok(wgpu::BindGroupEntry {
                    binding: i as u32,
                    resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                        buffer: self.buffer(turn, binding)?,
                        offset: binding.offset as u64,
                        size: std::num::NonZeroU64::new(binding.bytes as u64),
                    }),
                })
            });
            let entries = entries.collect::<Result<Vec<_>>>()?;
            let device = &self.core.gpu.device;
            groups
                .made
                .push(device.create_bind_group(&wgpu::BindGroupDescriptor {
                    label: None,
                    layout: &pipeline.group,
                    entries: &entries,
                }));
        }
        self.core.allocated();
        self.core.gpu.check()
    }

    fn buffer<'a>(&'a self, turn: &'a Turn, binding: &Binding) -> Result<&'a wgpu::Buffer> {
        let found = match binding.memory {
            Memory::Scalars => Some(&self.scalar_buffer.raw),
            Memory::Arena => turn.arena.piece(binding.piece),
            Memory::Own(slot) => {
                let pieces = self.slots.get(slot);
                let piece = pieces.and_then(|p| p.buffers.get(binding.piece));
                piece.map(|buffer| &buffer.raw)
            }
        };
        let missing = || Error::Bug(format!("program {}: {binding:?} is nowhere", self.name));
        found.ok_or_else(missing)
    }

    /// Records all dispatches, and submits whenever that is as much as the device should be given
    /// at once.
    fn record(&self, turn: &mut Turn, groups: &[wgpu::BindGroup]) -> Result<()> {
        let mut next = 0;
        while next < self.dispatches.len() {
            let budget = self.core.budget(turn);
            let mut work = turn.work;
            if work > 0.0 && work + self.dispatches[next].0.work > budget {
                self.core.submit(turn)?;
                continue;
            }
            let encoder = turn.encoder(&self.core.gpu);
            let mut pass = encoder.begin_compute_pass(&Default::default());
            for (dispatch, pipeline) in &self.dispatches[next..] {
                if work > 0.0 && work + dispatch.work > budget {
                    break;
                }
                pass.set_pipeline(&pipeline.compute);
                pass.set_bind_group(0, &groups[next], &[]);
                pass.set_immediates(0, bytemuck::cast_slice(&dispatch.words));
                let [x, y, z] = dispatch.groups;
                pass.dispatch_workgroups(x, y, z);
                work += dispatch.work;
                next += 1;
            }
            drop(pass);
            turn.work = work;
        }
        Ok(())
    }
}

impl Ready for Prepared {
    fn run(&mut self, scalars: &[f32]) -> Result<()> {
        if scalars.len() < self.scalars {
            return Err(Error::Bug(format!(
                "program {} wants {} scalars, was given {}",
                self.name,
                self.scalars,
                scalars.len()
            )));
        }
        let core = &self.core;
        let mut turn = core.turn();
        // Its numbers are written ahead of the submission, so there is one run in each.
        if turn.has(self.id) {
            core.submit(&mut turn)?;
        }
        arena::reserve(core, &mut turn, self.arena_bytes)?;
        let mut groups = self.lock();
        self.bind(&turn, &mut groups)?;
        if self.scalars > 0 {
            let bytes = bytemuck::cast_slice(&scalars[..self.scalars]);
            core.gpu
                .queue
                .write_buffer(&self.scalar_buffer.raw, 0, bytes);
        }
        self.record(&mut turn, &groups.made)?;
        turn.ran(self.id);
        let dispatches = self.dispatches.len() as u64;
        let counted = &core.counts.dispatches;
        counted.fetch_add(dispatches, Ordering::Relaxed);
        core.gpu.check()
    }
}

/// The place of a region, whose buffer gets a slot.
fn own(core: &Core, region: &Region, slots: &mut Vec<Arc<Pieces>>) -> Result<Own> {
    let pieces = core.memory.get(region.buffer().id())?;
    if region.offset() + region.bytes() > pieces.bytes {
        return Err(Error::Bug(format!(
            "a region of {} bytes at {} exceeds its buffer of {} bytes",
            region.bytes(),
            region.offset(),
            pieces.bytes
        )));
    }
    let piece = pieces.piece;
    slots.push(pieces);
    Ok(Own {
        slot: slots.len() - 1,
        offset: region.offset(),
        piece,
    })
}
