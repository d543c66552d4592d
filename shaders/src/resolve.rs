//! From a program to dispatches: where every value lies, which launches run in which order, what
//! each is bound to. Pure arithmetic on shapes and limits; no device is touched.

use crate::gpu::PARAMETER_BYTES;
use crate::kernels::Variant;
use crate::launch::{self, ALIGN, Arg, Cut, Launch, Operand, Part, Room, Slice, View};
use crate::work;
use engine::program::{Math, Plan, Program, Val, ValKind, plan};
use engine::{Error, Result};

/// Workgroups that keep a large device busy. No device says how many it runs at a time.
const BUSY: usize = 128;

/// What shapes of launches and places of values depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes that one binding sees.
    pub binding: u64,
    /// Bytes of the largest buffer, a multiple of [`ALIGN`].
    pub piece: usize,
    /// Bytes that a workgroup shares.
    pub workgroup: u32,
    /// Threads of a workgroup.
    pub threads: u32,
    /// Whether subgroups have eight threads or more and exchange values.
    pub subgroups: bool,
    /// Whether the processor computes.
    pub software: bool,
    /// Workgroups that keep the device busy.
    pub busy: usize,
    /// Workgroups in one axis of a grid.
    pub reach: u32,
}

impl Limits {
    /// Those of a device.
    pub fn of(limits: &wgpu::Limits) -> Self {
        let piece = usize::try_from(limits.max_buffer_size).unwrap_or(usize::MAX);
        Limits {
            binding: limits.max_storage_buffer_binding_size / 16 * 16,
            piece: piece / ALIGN * ALIGN,
            workgroup: limits.max_compute_workgroup_storage_size,
            threads: limits.max_compute_invocations_per_workgroup,
            subgroups: false,
            software: false,
            busy: BUSY,
            reach: limits.max_compute_workgroups_per_dimension,
        }
    }

    /// What launchers need of them.
    pub fn room(&self) -> Room {
        Room {
            binding: self.binding,
            workgroup: self.workgroup,
            threads: self.threads,
            subgroups: self.subgroups,
            software: self.software,
            busy: self.busy,
        }
    }

    /// Bytes of the pieces in which a weight of rows of `row_bytes` is stored: a multiple of its
    /// unit. One piece where it fits; `None` where not even a unit does.
    pub fn weight_piece(&self, bytes: usize, row_bytes: usize) -> Option<usize> {
        if bytes <= self.piece {
            return Some(self.piece);
        }
        let unit = weight_unit(row_bytes);
        let piece = self.piece.checked_div(unit)? * unit;
        (piece > 0).then_some(piece)
    }
}

/// Bytes of the fewest rows of `row_bytes` that are a multiple of [`ALIGN`], so that bindings may
/// begin behind them.
pub fn weight_unit(row_bytes: usize) -> usize {
    let odd = row_bytes.trailing_zeros().min(ALIGN.trailing_zeros());
    row_bytes.saturating_mul(ALIGN >> odd)
}

/// Where a value that is not in the arena lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Own {
    /// Which of the buffers that the program was given.
    pub slot: usize,
    /// First byte.
    pub offset: usize,
    /// Bytes of the buffer's pieces.
    pub piece: usize,
}

/// What is bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Memory {
    /// The arena that programs share.
    Arena,
    /// A buffer that the program was given, by its slot.
    Own(usize),
    /// The numbers that change from run to run.
    Scalars,
}

/// One binding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Binding {
    /// What is bound.
    pub memory: Memory,
    /// Which piece of it.
    pub piece: usize,
    /// First byte within the piece.
    pub offset: usize,
    /// Number of bytes.
    pub bytes: usize,
}

/// One dispatch.
#[derive(Debug, Clone)]
pub struct Dispatch {
    /// The shader.
    pub variant: Variant,
    /// Its bindings, in order.
    pub bindings: Vec<Binding>,
    /// Its parameters, in order.
    pub words: Vec<u32>,
    /// Workgroups per axis.
    pub groups: [u32; 3],
    /// Predicted work (see [`crate::work`]).
    pub work: f64,
}

/// A program as dispatches.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// In the order in which they run.
    pub dispatches: Vec<Dispatch>,
    /// Bytes of temporaries and scratch space.
    pub arena_bytes: usize,
    /// Numbers that a run is given.
    pub scalars: usize,
}

/// Bytes of the buffer of scalars.
pub const SCALAR_BYTES: usize = 256;

/// Resolves `program`, whose values that are not in the arena lie as `owns` says, by value;
/// `copies` are made after the last step.
pub fn resolve(
    program: &Program,
    limits: &Limits,
    device: &str,
    owns: &[Option<Own>],
    copies: &[(Val, Own)],
) -> Result<Resolved> {
    let scalars = program.scalars();
    if scalars * size_of::<f32>() > SCALAR_BYTES {
        return Err(Error::Bug(format!(
            "program {} has {scalars} scalars",
            program.name
        )));
    }
    let room = limits.room();
    let scratch = |i: usize| launch::scratch_bytes(program, i, &room);
    let external = |v: Val| owns[v.index()].is_some();
    let resolver = Resolver {
        program,
        limits,
        device,
        owns,
        plan: plan(program, ALIGN, limits.piece, &external, &scratch),
    };
    let mut dispatches = Vec::new();
    for i in 0..program.steps.len() {
        resolver.step(i, scratch(i), &mut dispatches)?;
    }
    for (v, to) in copies {
        dispatches.extend(resolver.copy(*v, *to)?);
    }
    Ok(Resolved {
        dispatches,
        arena_bytes: resolver.plan.arena_bytes,
        scalars,
    })
}

/// A place before it is cut into pieces.
#[derive(Debug, Clone, Copy)]
struct Place {
    memory: Memory,
    offset: usize,
    piece: usize,
}

impl Place {
    fn own(own: Own) -> Self {
        Place {
            memory: Memory::Own(own.slot),
            offset: own.offset,
            piece: own.piece,
        }
    }

    fn plus(self, bytes: usize) -> Self {
        Place {
            offset: self.offset + bytes,
            ..self
        }
    }

    /// The place moved back to where a binding may begin, and by how many bytes.
    fn aligned(self) -> (Self, usize) {
        let before = self.offset % ALIGN;
        let offset = self.offset - before;
        (Place { offset, ..self }, before)
    }
}

/// An operand of a part of a step.
struct Bound {
    place: Place,
    /// Bytes between the start of its binding and its first element.
    before: usize,
    /// Bytes from there on.
    bytes: usize,
}

struct Resolver<'a> {
    program: &'a Program,
    limits: &'a Limits,
    device: &'a str,
    owns: &'a [Option<Own>],
    plan: Plan,
}

impl Resolver<'_> {
    fn place(&self, v: Val) -> Result<Place> {
        let root = self.program.root(v).index();
        match (self.owns[root], self.plan.offsets[root]) {
            (Some(own), _) => Ok(Place::own(own)),
            (None, Some(offset)) => Ok(Place {
                memory: Memory::Arena,
                offset,
                piece: self.limits.piece,
            }),
            (None, None) => Err(Error::Bug(format!(
                "program {}: a value has no place",
                self.program.name
            ))),
        }
    }

    fn arg<'s>(&self, v: Val, slice: &'s Slice) -> Result<(Arg<'s>, Bound)> {
        let root = self.program.root(v).index();
        let dtype = self.program.vals[root].dtype;
        let whole = self.place(v)?.plus(slice.start * dtype.bytes());
        let (place, before) = whole.aligned();
        let weight = matches!(self.program.vals[root].kind, ValKind::Weight(_));
        let arg = Arg {
            shape: &slice.shape,
            dtype,
            offset: launch::word(before / dtype.bytes()),
            cut: weight.then(|| Cut {
                first: whole.piece - whole.offset % whole.piece,
                every: whole.piece,
            }),
        };
        let bytes = arg.len() * dtype.bytes();
        let bound = Bound {
            place,
            before,
            bytes,
        };
        Ok((arg, bound))
    }

    fn step(&self, i: usize, scratch_bytes: usize, to: &mut Vec<Dispatch>) -> Result<()> {
        let step = &self.program.steps[i];
        let scratch = Place {
            memory: Memory::Arena,
            offset: self.plan.scratch[i],
            piece: self.limits.piece,
        };
        for part in launch::parts(self.program, step, &self.limits.room()) {
            self.part(i, &part, (scratch, scratch_bytes), to)?;
        }
        Ok(())
    }

    fn part(
        &self,
        i: usize,
        part: &Part,
        scratch: (Place, usize),
        to: &mut Vec<Dispatch>,
    ) -> Result<()> {
        let step = &self.program.steps[i];
        let pairs = step.ins.iter().zip(&part.ins);
        let ins = pairs
            .map(|(v, slice)| self.arg(*v, slice))
            .collect::<Result<Vec<_>>>()?;
        let out = self.arg(step.out, &part.out)?;
        let view = View {
            op: &part.op,
            round: self.program.math == Math::Bf16,
            ins: ins.iter().map(|(arg, _)| *arg).collect(),
            out: out.0,
            room: self.limits.room(),
        };
        let all = |bound: &Bound| (bound.place, bound.before + bound.bytes);
        let some = |bound: &Bound, bytes: &std::ops::Range<usize>| {
            (bound.place.plus(bytes.start), bytes.len())
        };
        let bind = |operand: &Operand| match operand {
            Operand::In(i) => all(&ins[*i].1),
            Operand::Part(i, bytes) => some(&ins[*i].1, bytes),
            Operand::Out => all(&out.1),
            Operand::OutPart(bytes) => some(&out.1, bytes),
            Operand::Scratch => scratch,
            Operand::Scalars => SCALARS,
        };
        let launches = launch::launches(&view)?;
        let each = work::of(&view) / launches.len().max(1) as f64;
        for launch in launches {
            let bindings = launch.operands.iter().map(bind).collect();
            to.push(self.dispatch(part.op.name(), launch, bindings, each)?);
        }
        Ok(())
    }

    /// A copy of a value to a region after the last step.
    fn copy(&self, v: Val, to: Own) -> Result<Vec<Dispatch>> {
        let (from, before) = self.place(v)?.aligned();
        let (to, behind) = Place::own(to).aligned();
        let root = self.program.root(v).index();
        let info = &self.program.vals[v.index()];
        let bytes = info.len() * self.program.vals[root].dtype.bytes();
        let whole = [before, behind, bytes].iter().all(|n| n.is_multiple_of(4));
        if !whole {
            return Err(Error::Bug(format!(
                "program {}: an output is copied to half a word",
                self.program.name
            )));
        }
        // Multiples of the alignment, so that every piece begins as the whole does.
        let most = usize::try_from(self.limits.binding).unwrap_or(usize::MAX);
        let most = (most.saturating_sub(ALIGN) / ALIGN * ALIGN).max(ALIGN);
        let pieces = (0..bytes).step_by(most).map(|at| {
            let len = most.min(bytes - at);
            let offsets = [before, behind].map(|n| launch::word(n / 4));
            let (variant, words, groups) = launch::copy(len / 4, offsets[0], offsets[1]);
            let launch = Launch {
                variant,
                operands: Vec::new(),
                words,
                groups,
            };
            let bindings = vec![
                (from.plus(at), before + len),
                (to.plus(at), behind + len),
                SCALARS,
            ];
            self.dispatch("copy", launch, bindings, work::of_bytes(2 * len))
        });
        pieces.collect()
    }

    fn dispatch(
        &self,
        op: &str,
        launch: Launch,
        bindings: Vec<(Place, usize)>,
        work: f64,
    ) -> Result<Dispatch> {
        let bindings = bindings
            .into_iter()
            .map(|(place, bytes)| self.binding(op, place, bytes))
            .collect::<Result<Vec<_>>>()?;
        let Launch {
            variant,
            words,
            groups,
            ..
        } = launch;
        let too_wide = groups.iter().any(|n| *n > self.limits.reach);
        if words.len() * 4 > PARAMETER_BYTES as usize || too_wide {
            return Err(Error::Bug(format!(
                "program {}: {op} has {} parameters on a grid of {groups:?}",
                self.program.name,
                words.len()
            )));
        }
        Ok(Dispatch {
            variant,
            bindings,
            words,
            groups,
            work,
        })
    }

    fn binding(&self, op: &str, place: Place, bytes: usize) -> Result<Binding> {
        // Whole vectors: buffers end with one.
        let bytes = bytes.next_multiple_of(16);
        let too_big = |have: u64, what: &str| Error::TooBig {
            needs: bytes as u64,
            have,
            suggestion: format!(
                "{what} of {} is no larger (an operand of {op} in {}); make the song shorter or \
                 the batch smaller, or use --backend cpu",
                self.device, self.program.name
            ),
        };
        if bytes as u64 > self.limits.binding {
            return Err(too_big(self.limits.binding, "what a shader sees at once"));
        }
        let offset = place.offset % place.piece;
        if offset + bytes > place.piece {
            return Err(too_big(place.piece as u64, "a buffer"));
        }
        Ok(Binding {
            memory: place.memory,
            piece: place.offset / place.piece,
            offset,
            bytes,
        })
    }
}

/// The binding of the scalars.
const SCALARS: (Place, usize) = (
    Place {
        memory: Memory::Scalars,
        offset: 0,
        piece: SCALAR_BYTES,
    },
    SCALAR_BYTES,
);
