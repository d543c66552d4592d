//! A prepared program: every step's launches with their pipelines, parameters and bind groups, made
//! once. A run writes the scalars, encodes one pass and submits it.

use crate::backend::Core;
use crate::gpu::PARAMETER_BYTES;
use crate::kernels::{Pipeline, Variant};
use crate::launch::{self, Arg, Launch, Operand, Room, View};
use engine::backend::{Bound, Ready, Region};
use engine::program::{Math, Program, Val, plan};
use engine::{Error, Result};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Where a value, or scratch space, lies.
#[derive(Clone)]
enum Place {
    /// At an offset of the shared arena.
    Arena(usize),
    /// At an offset of a buffer of its own.
    Own(wgpu::Buffer, usize),
}

/// One dispatch with all that it needs, but for bind groups of an arena that moved.
struct Dispatch {
    pipeline: Arc<Pipeline>,
    /// Place and bytes of each binding.
    bindings: Vec<(Place, usize)>,
    words: Vec<u32>,
    groups: [u32; 3],
}

/// A program on this device.
pub struct Prepared {
    core: Arc<Core>,
    name: String,
    dispatches: Vec<Dispatch>,
    bound: Vec<wgpu::BindGroup>,
    /// The arena to which `bound` refers.
    generation: u64,
    arena_bytes: usize,
    scalars: usize,
    scalar_buffer: wgpu::Buffer,
    /// Keeps the buffers alive.
    _regions: Vec<Region>,
}

/// Bytes of the buffer of scalars.
const SCALAR_BYTES: usize = 256;

impl Prepared {
    /// Plans and resolves `bound`.
    pub fn new(core: Arc<Core>, bound: Bound) -> Result<Self> {
        let program = &bound.program;
        let scalars = program.scalars();
        if scalars * size_of::<f32>() > SCALAR_BYTES {
            return Err(Error::Bug(format!(
                "program {} has {scalars} scalars",
                program.name
            )));
        }
        let sizes: Vec<usize> = (0..program.steps.len())
            .map(|i| launch::scratch_bytes(program, i))
            .collect();
        let align = core.gpu.limits.min_storage_buffer_offset_alignment.max(256) as usize;
        let plan = plan(program, align, &|v| bound.is_external(v), &|i| sizes[i]);
        let mut places: Vec<Option<Place>> = vec![None; program.vals.len()];
        for (i, place) in places.iter_mut().enumerate() {
            *place = match (&bound.regions[i], plan.offsets[i]) {
                (Some(region), _) => Some(core.place(region)?),
                (None, Some(offset)) => Some(Place::Arena(offset)),
                (None, None) => None,
            };
        }
        let scalar_buffer = core.gpu.buffer(SCALAR_BYTES as u64)?;
        let resolver = Resolver {
            core: &core,
            program,
            places: &places,
            scalars: &scalar_buffer,
        };
        let mut dispatches = Vec::new();
        for (i, size) in sizes.iter().enumerate() {
            dispatches.extend(resolver.step(i, plan.scratch[i], *size)?);
        }
        for (v, region) in &bound.copies {
            dispatches.push(resolver.copy(*v, region)?);
        }
        let copied = bound.copies.iter().map(|(_, region)| region.clone());
        let regions = bound.regions.iter().flatten().cloned().chain(copied);
        let mut prepared = Prepared {
            name: program.name.clone(),
            dispatches,
            bound: Vec::new(),
            generation: 0,
            arena_bytes: plan.arena_bytes,
            scalars,
            scalar_buffer,
            _regions: regions.collect(),
            core: core.clone(),
        };
        prepared.bind()?;
        Ok(prepared)
    }

    /// Makes the bind groups, unless they refer to the arena of today.
    fn bind(&mut self) -> Result<()> {
        let (arena, generation) = self.core.memory.arena(self.arena_bytes)?;
        if generation == self.generation {
            return Ok(());
        }
        let device = &self.core.gpu.device;
        let groups = self.dispatches.iter().map(|dispatch| {
            let entries: Vec<_> = dispatch
                .bindings
                .iter()
                .enumerate()
                .map(|(i, (place, bytes))| {
                    let (buffer, offset) = match place {
                        Place::Arena(offset) => (&arena, *offset),
                        Place::Own(buffer, offset) => (buffer, *offset),
                    };
                    wgpu::BindGroupEntry {
                        binding: i as u32,
                        resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                            buffer,
                            offset: offset as u64,
                            size: std::num::NonZeroU64::new(*bytes as u64),
                        }),
                    }
                })
                .collect();
            device.create_bind_group(&wgpu::BindGroupDescriptor {
                label: None,
                layout: &dispatch.pipeline.group,
                entries: &entries,
            })
        });
        self.bound = groups.collect();
        self.generation = generation;
        self.core.counts.allocations.fetch_add(1, Ordering::Relaxed);
        self.core.gpu.check()
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
        self.bind()?;
        let gpu = &self.core.gpu;
        if self.scalars > 0 {
            let bytes = bytemuck::cast_slice(&scalars[..self.scalars]);
            gpu.queue.write_buffer(&self.scalar_buffer, 0, bytes);
        }
        let mut encoder = gpu.device.create_command_encoder(&Default::default());
        {
            let mut pass = encoder.begin_compute_pass(&Default::default());
            for (dispatch, group) in self.dispatches.iter().zip(&self.bound) {
                pass.set_pipeline(&dispatch.pipeline.compute);
                pass.set_bind_group(0, group, &[]);
                pass.set_immediates(0, bytemuck::cast_slice(&dispatch.words));
                let [x, y, z] = dispatch.groups;
                pass.dispatch_workgroups(x, y, z);
            }
        }
        gpu.queue.submit([encoder.finish()]);
        self.core.counts.submissions.fetch_add(1, Ordering::Relaxed);
        gpu.check()
    }
}

/// Turns steps into dispatches.
struct Resolver<'a> {
    core: &'a Core,
    program: &'a Program,
    places: &'a [Option<Place>],
    scalars: &'a wgpu::Buffer,
}

impl Resolver<'_> {
    /// The place of a value: its binding's first byte, and the bytes from there to the value.
    fn place(&self, v: Val) -> Result<(Place, usize)> {
        let root = self.program.root(v).index();
        let place = self.places[root].clone().ok_or_else(|| {
            Error::Bug(format!(
                "program {}: a value has no place",
                self.program.name
            ))
        })?;
        Ok(self.aligned(place))
    }

    /// The place moved back to where a binding may begin, and by how many bytes.
    fn aligned(&self, place: Place) -> (Place, usize) {
        let align = self.core.gpu.limits.min_storage_buffer_offset_alignment as usize;
        match place {
            Place::Arena(offset) => (Place::Arena(offset / align * align), offset % align),
            Place::Own(buffer, offset) => {
                (Place::Own(buffer, offset / align * align), offset % align)
            }
        }
    }

    fn arg(&self, v: Val) -> Result<(Arg<'_>, Place, usize)> {
        let info = &self.program.vals[v.index()];
        let dtype = self.program.vals[self.program.root(v).index()].dtype;
        let (place, before) = self.place(v)?;
        let arg = Arg {
            shape: &info.shape,
            dtype,
            offset: launch::word(before / dtype.bytes()),
        };
        Ok((arg, place, before))
    }

    fn step(&self, i: usize, scratch: usize, scratch_bytes: usize) -> Result<Vec<Dispatch>> {
        let step = &self.program.steps[i];
        let ins = step
            .ins
            .iter()
            .map(|v| self.arg(*v))
            .collect::<Result<Vec<_>>>()?;
        let out = self.arg(step.out)?;
        let limits = &self.core.gpu.limits;
        let view = View {
            op: &step.op,
            round: self.program.math == Math::Bf16,
            ins: ins.iter().map(|(arg, ..)| *arg).collect(),
            out: out.0,
            room: Room {
                binding: limits.max_storage_buffer_binding_size,
                workgroup: limits.max_compute_workgroup_storage_size,
            },
        };
        let bytes = |v: Val, before: usize| before + self.program.vals[v.index()].bytes();
        let bind = |operand: &Operand| match operand {
            Operand::In(i) => (ins[*i].1.clone(), bytes(step.ins[*i], ins[*i].2)),
            Operand::Part(i, part) => {
                let (_, place, before) = &ins[*i];
                let place = match place.clone() {
                    Place::Arena(offset) => Place::Arena(offset + part.start),
                    Place::Own(buffer, offset) => Place::Own(buffer, offset + part.start),
                };
                (place, before + part.len())
            }
            Operand::Out => (out.1.clone(), bytes(step.out, out.2)),
            Operand::Scratch => (Place::Arena(scratch), scratch_bytes),
            Operand::Scalars => (Place::Own(self.scalars.clone(), 0), SCALAR_BYTES),
        };
        launch::launches(&view)?
            .into_iter()
            .map(|launch| {
                let bindings = launch.operands.iter().map(bind).collect();
                let Launch {
                    variant,
                    words,
                    groups,
                    ..
                } = launch;
                self.dispatch(step.op.name(), &variant, bindings, words, groups)
            })
            .collect()
    }

    /// A copy of a value to a region after the last step.
    fn copy(&self, v: Val, region: &Region) -> Result<Dispatch> {
        let (from, before) = self.place(v)?;
        let (to, behind) = self.aligned(self.core.place(region)?);
        let bytes = region.bytes();
        let whole = [before, behind, bytes].iter().all(|n| n.is_multiple_of(4));
        if !whole {
            return Err(Error::Bug(format!(
                "program {}: an output is copied to half a word",
                self.program.name
            )));
        }
        let (variant, words, groups) = launch::copy(
            bytes / 4,
            launch::word(before / 4),
            launch::word(behind / 4),
        );
        let scalars = (Place::Own(self.scalars.clone(), 0), SCALAR_BYTES);
        let bindings = vec![(from, before + bytes), (to, behind + bytes), scalars];
        self.dispatch("copy", &variant, bindings, words, groups)
    }

    fn dispatch(
        &self,
        op: &str,
        variant: &Variant,
        bindings: Vec<(Place, usize)>,
        words: Vec<u32>,
        groups: [u32; 3],
    ) -> Result<Dispatch> {
        let limits = &self.core.gpu.limits;
        let bindings: Vec<_> = bindings
            .into_iter()
            .map(|(place, bytes)| (place, bytes.next_multiple_of(4)))
            .collect();
        let most = limits.max_storage_buffer_binding_size;
        if let Some((_, bytes)) = bindings.iter().find(|(_, bytes)| *bytes as u64 > most) {
            return Err(Error::TooBig {
                needs: *bytes as u64,
                have: most,
                suggestion: format!(
                    "a shader of {} sees no more at once (an operand of {op} in {}); make the \
                     song shorter or the batch smaller, or use --backend cpu",
                    self.core.gpu.name, self.program.name
                ),
            });
        }
        let reach = limits.max_compute_workgroups_per_dimension;
        if words.len() * 4 > PARAMETER_BYTES as usize || groups.iter().any(|n| *n > reach) {
            return Err(Error::Bug(format!(
                "program {}: {op} has {} parameters on a grid of {groups:?}",
                self.program.name,
                words.len()
            )));
        }
        Ok(Dispatch {
            pipeline: self.core.pipelines.get(variant)?,
            bindings,
            words,
            groups,
        })
    }
}

impl Core {
    fn place(&self, region: &Region) -> Result<Place> {
        let buffer = self.memory.buffer(region.buffer().id())?;
        if (region.offset() + region.bytes()).next_multiple_of(4) as u64 > buffer.size() {
            return Err(Error::Bug(format!(
                "a region of {} bytes at {} exceeds its buffer of {} bytes",
                region.bytes(),
                region.offset(),
                buffer.size()
            )));
        }
        Ok(Place::Own(buffer, region.offset()))
    }
}
