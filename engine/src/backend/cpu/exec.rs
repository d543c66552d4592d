//! A prepared program: places resolved, then one dispatch per step.
//!
//! The only place where memory becomes slices is [`Frame::args`].

use super::attention::Stored;
use super::dispatch;
use super::memory::{ALIGN, Block, Inner};
use super::tile::Kernel;
use super::weight::Weight;
use super::{Core, conv};
use crate::backend::{Bound, Ready, Region};
use crate::error::{Error, Result};
use crate::program::op::MAX_INS;
use crate::program::{DType, Math, Program, Step, plan};
use std::sync::Arc;

/// Where the elements of a value lie.
#[derive(Clone)]
enum Place {
    /// At an offset of the shared arena.
    Arena(usize),
    /// At an offset of a block of its own.
    Block(Arc<Block>, usize),
}

/// One input of a step.
#[derive(Clone, Copy)]
pub struct In<'a> {
    /// Elements in memory order; none when they lie in the output already.
    pub bytes: Option<&'a [u8]>,
    /// Extent per axis.
    pub shape: &'a [usize],
    /// Element type.
    pub dtype: DType,
}

/// Operands of one step.
pub struct Args<'a> {
    /// Inputs in the order of the operation's contract.
    pub ins: [In<'a>; MAX_INS],
    /// How many of them there are.
    pub count: usize,
    /// Output elements.
    pub out: &'a mut [u8],
    /// Extent of the output per axis.
    pub shape: &'a [usize],
    /// Scratch space of the size that [`dispatch::scratch_bytes`] gave, aligned to [`ALIGN`].
    pub scratch: &'a mut [u8],
    /// How products treat their operands.
    pub math: Math,
    /// The weights of a convolution, if they were packed when the program was prepared.
    pub packed: Option<&'a conv::Packed>,
}

impl<'a> Args<'a> {
    /// Input `i` as f32; empty when it lies in the output.
    pub fn f32(&self, i: usize) -> &'a [f32] {
        bytemuck::cast_slice(self.ins[i].bytes.unwrap_or_default())
    }

    /// The first input as f32, `None` when it lies in the output.
    pub fn first(&self) -> Option<&'a [f32]> {
        self.ins[0].bytes.map(bytemuck::cast_slice)
    }

    /// Input `i` as i32.
    pub fn i32(&self, i: usize) -> &'a [i32] {
        bytemuck::cast_slice(self.ins[i].bytes.unwrap_or_default())
    }

    /// Input `i` as keys, values or rows of a cache.
    pub fn stored(&self, i: usize) -> Stored<'a> {
        Stored::new(self.ins[i].bytes.unwrap_or_default(), self.ins[i].dtype)
    }

    /// Input `i` as stored weights.
    pub fn weight(&self, i: usize) -> Weight<'a> {
        Weight {
            bytes: self.ins[i].bytes.unwrap_or_default(),
            dtype: self.ins[i].dtype,
        }
    }

    /// The output as f32.
    pub fn out_f32(&mut self) -> &mut [f32] {
        bytemuck::cast_slice_mut(self.out)
    }

    /// The output as i32.
    pub fn out_i32(&mut self) -> &mut [i32] {
        bytemuck::cast_slice_mut(self.out)
    }
}

/// A program on this backend's memory.
pub struct Prepared {
    core: Arc<Core>,
    program: Program,
    /// Place per value, by its root.
    places: Vec<Option<Place>>,
    /// Size of the arena in which `places` and `scratch` lie.
    arena_bytes: usize,
    /// Scratch space per step: offset in the arena and size.
    scratch: Vec<(usize, usize)>,
    /// From value to place, bytes.
    copies: Vec<(Place, Place, usize)>,
    /// Packed weights per step; few have them.
    packed: Vec<Option<Arc<conv::Packed>>>,
    scalars: usize,
    /// Keeps the buffers registered.
    _regions: Vec<Region>,
}

impl Prepared {
    /// Plans and resolves `bound`.
    pub fn new(core: Arc<Core>, bound: Bound) -> Result<Prepared> {
        let sizes: Vec<usize> = (0..bound.program.steps.len())
            .map(|i| core.scratch_bytes(&bound.program, i))
            .collect();
        let plan = plan(
            &bound.program,
            ALIGN,
            usize::MAX,
            &|v| bound.is_external(v),
            &|i| sizes[i],
        );
        let mut regions = Vec::new();
        let mut inner = core.memory.lock();
        inner.grow_arena(plan.arena_bytes)?;
        let mut places: Vec<Option<Place>> = vec![None; bound.program.vals.len()];
        for (i, place) in places.iter_mut().enumerate() {
            *place = match (&bound.regions[i], plan.offsets[i]) {
                (Some(region), _) => Some(external(&inner, region)?),
                (None, Some(offset)) => Some(Place::Arena(offset)),
                (None, None) => None,
            };
        }
        let mut copies = Vec::new();
        for (v, region) in &bound.copies {
            let from = places[v.index()]
                .clone()
                .ok_or_else(|| homeless(&bound.program))?;
            copies.push((from, external(&inner, region)?, region.bytes()));
            regions.push(region.clone());
        }
        drop(inner);
        regions.extend(bound.regions.into_iter().flatten());
        let mut prepared = Prepared {
            arena_bytes: plan.arena_bytes,
            scratch: plan.scratch.into_iter().zip(sizes).collect(),
            packed: vec![None; bound.program.steps.len()],
            scalars: bound.program.scalars(),
            program: bound.program,
            places,
            copies,
            core,
            _regions: regions,
        };
        prepared.align()?;
        prepared.pack()?;
        prepared.check()?;
        Ok(prepared)
    }

    /// Copies constants that a file put at odd addresses. Kernels read weights of matrices at any
    /// address, everything else as aligned slices.
    fn align(&mut self) -> Result<()> {
        let _exclusive = self.core.memory.lock();
        for step in &self.program.steps {
            for (i, v) in step.ins.iter().enumerate() {
                let root = self.program.root(*v).index();
                let Some(Place::Block(block, offset)) = &self.places[root] else {
                    continue;
                };
                let address = block.ptr() as usize + offset;
                if step.op.weight_inputs().contains(&i) || address.is_multiple_of(4) {
                    continue;
                }
                let bytes = self.program.vals[root].bytes();
                let copy = Block::zeroed(bytes)?;
                // SAFETY: the region lies inside its block (checked when its place was made), the
                // copy is new memory of that size, and the lock is held.
                unsafe {
                    let from = block.ptr().add(*offset);
                    std::ptr::copy_nonoverlapping(from, copy.ptr(), bytes);
                }
                self.places[root] = Some(Place::Block(Arc::new(copy), 0));
            }
        }
        Ok(())
    }

    /// Packs the weights of convolutions, which serve many runs; they are kept with the weights'
    /// block, so that programs of other lengths share them.
    fn pack(&mut self) -> Result<()> {
        let _exclusive = self.core.memory.lock();
        for (i, step) in self.program.steps.iter().enumerate() {
            let Some(weights) = dispatch::packed_input(&self.program, step) else {
                continue;
            };
            let root = self.program.root(step.ins[weights]).index();
            let Some(Place::Block(block, offset)) = &self.places[root] else {
                continue;
            };
            let dims = dispatch::step_conv_dims(&self.program, step);
            let kernel = Kernel::new(self.core.level, self.program.math);
            let info = &self.program.vals[root];
            self.packed[i] = Some(block.packed(*offset, dims.form(kernel, info.dtype), || {
                // SAFETY: the region lies inside its block (checked when its place was made) and
                // the lock is held, so nobody writes it.
                let bytes =
                    unsafe { std::slice::from_raw_parts(block.ptr().add(*offset), info.bytes()) };
                let weight = Weight {
                    bytes,
                    dtype: info.dtype,
                };
                conv::pack(&self.core.pool, kernel, &dims, weight)
            })?);
        }
        Ok(())
    }

    /// What [`Frame::args`] relies on: every operand has a place, no output overlaps an input or
    /// a mapped file, but for the planned writing over the first input; copies read nothing that
    /// an earlier copy has changed.
    fn check(&self) -> Result<()> {
        for step in &self.program.steps {
            let root = self.program.root(step.out).index();
            let out = self.span(root)?;
            if let Some(Place::Block(block, _)) = &self.places[root]
                && block.is_host()
            {
                return Err(Error::Bug("an output was bound to a mapped file".into()));
            }
            for (j, v) in step.ins.iter().enumerate() {
                let input = self.span(self.program.root(*v).index())?;
                let first = j == 0 && self.in_place(step);
                if overlap(&input, &out) && !first {
                    return Err(Error::Bug(format!(
                        "program {}: the output of {} overlaps its input",
                        self.program.name,
                        step.op.name()
                    )));
                }
            }
        }
        for (i, (from, _, n)) in self.copies.iter().enumerate() {
            let from = span(from, *n);
            if self.copies[..i]
                .iter()
                .any(|(_, to, n)| overlap(&from, &span(to, *n)))
            {
                return Err(Error::Bug(format!(
                    "program {}: an output is copied over what another output reads",
                    self.program.name
                )));
            }
        }
        Ok(())
    }

    fn span(&self, root: usize) -> Result<Span> {
        let place = self.places[root]
            .as_ref()
            .ok_or_else(|| homeless(&self.program))?;
        Ok(span(place, self.program.vals[root].bytes()))
    }

    /// Whether the step writes over its first input.
    fn in_place(&self, step: &Step) -> bool {
        let Some(first) = step.ins.first().map(|v| self.program.root(*v).index()) else {
            return false;
        };
        if step.op.writes_state() {
            return true;
        }
        match (&self.places[first], &self.places[step.out.index()]) {
            (Some(Place::Arena(a)), Some(Place::Arena(b))) => a == b && step.op.may_overwrite(),
            _ => false,
        }
    }
}

impl Ready for Prepared {
    fn run(&mut self, scalars: &[f32]) -> Result<()> {
        if scalars.len() < self.scalars {
            return Err(Error::Bug(format!(
                "program {} wants {} scalars, was given {}",
                self.program.name,
                self.scalars,
                scalars.len()
            )));
        }
        let mut inner = self.core.memory.lock();
        // Nothing to do, unless a larger program has failed to grow the arena meanwhile.
        inner.grow_arena(self.arena_bytes)?;
        let mut frame = Frame {
            prepared: self,
            arena: inner.arena(),
        };
        for i in 0..self.program.steps.len() {
            let op = &self.program.steps[i].op;
            dispatch::step(&self.core.pool, self.core.level, op, scalars, frame.args(i))?;
        }
        frame.copy_out();
        Ok(())
    }
}

/// One run: holds the lock's guard alive through `arena`.
struct Frame<'a> {
    prepared: &'a Prepared,
    arena: &'a Block,
}

impl Frame<'_> {
    fn ptr(&self, place: &Place) -> *mut u8 {
        let (block, offset) = match place {
            Place::Arena(offset) => (self.arena, *offset),
            Place::Block(block, offset) => (&**block, *offset),
        };
        block.ptr().wrapping_add(offset)
    }

    /// The operands of step `i`.
    fn args(&mut self, i: usize) -> Args<'_> {
        let p = self.prepared;
        let step = &p.program.steps[i];
        let in_place = p.in_place(step);
        let empty = In {
            bytes: None,
            shape: &[],
            dtype: DType::F32,
        };
        let mut ins = [empty; MAX_INS];
        for (j, v) in step.ins.iter().enumerate() {
            let info = &p.program.vals[v.index()];
            let root = p.program.root(*v).index();
            let bytes = match &p.places[root] {
                Some(place) if !(in_place && j == 0) => {
                    // SAFETY: the place holds this many bytes (planned, or checked against its
                    // block); nobody writes them while the slice lives: the run holds the lock,
                    // and `check` and the planner keep this step's output and scratch apart from
                    // its inputs.
                    Some(unsafe { std::slice::from_raw_parts(self.ptr(place), info.bytes()) })
                }
                _ => None,
            };
            ins[j] = In {
                bytes,
                shape: &info.shape,
                dtype: info.dtype,
            };
        }
        let info = &p.program.vals[step.out.index()];
        let (offset, room) = p.scratch[i];
        let (out, len) = match &p.places[p.program.root(step.out).index()] {
            Some(place) => (self.ptr(place), info.bytes()),
            None => (std::ptr::NonNull::<u8>::dangling().as_ptr(), 0),
        };
        let scratch = match room {
            0 => std::ptr::NonNull::<u8>::dangling().as_ptr(),
            _ => self.ptr(&Place::Arena(offset)),
        };
        // SAFETY: as above; the output overlaps neither an input (the one it may lie over was not
        // handed out) nor the scratch space, which the planner placed beside all live values.
        // `&mut self` keeps the slices of two steps from living at once.
        let (out, scratch) = unsafe {
            (
                std::slice::from_raw_parts_mut(out, len),
                std::slice::from_raw_parts_mut(scratch, room),
            )
        };
        Args {
            ins,
            count: step.ins.len(),
            out,
            shape: &info.shape,
            scratch,
            math: p.program.math,
            packed: p.packed[i].as_deref(),
        }
    }

    /// Outputs that change after the last step.
    fn copy_out(&mut self) {
        for (from, to, bytes) in &self.prepared.copies {
            // SAFETY: both places hold this many bytes and the lock is held; `copy` allows them
            // to overlap.
            unsafe { std::ptr::copy(self.ptr(from), self.ptr(to), *bytes) };
        }
    }
}

/// Addresses of a value, comparable within one kind of memory: the block's address (0 for the
/// arena) and the bytes in it.
type Span = (usize, std::ops::Range<usize>);

fn span(place: &Place, bytes: usize) -> Span {
    match place {
        Place::Arena(offset) => (0, *offset..*offset + bytes),
        Place::Block(block, offset) => (block.ptr() as usize, *offset..*offset + bytes),
    }
}

fn overlap(a: &Span, b: &Span) -> bool {
    a.0 == b.0 && a.1.start < b.1.end && b.1.start < a.1.end
}

fn external(inner: &Inner, region: &Region) -> Result<Place> {
    let block = inner.block(region.buffer().id())?;
    if region.offset() + region.bytes() > block.bytes() {
        return Err(Error::Bug(format!(
            "a region of {} bytes at {} exceeds its buffer of {} bytes",
            region.bytes(),
            region.offset(),
            block.bytes()
        )));
    }
    Ok(Place::Block(block.clone(), region.offset()))
}

fn homeless(program: &Program) -> Error {
    Error::Bug(format!("program {}: a value has no place", program.name))
}
