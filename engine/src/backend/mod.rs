//! The seam between programs and hardware: six functions a backend must have, and [`prepare`],
//! which binds a program to memory the same way for all of them.

pub mod cpu;
mod once;
mod region;

pub use once::{HostData, HostVec, Outputs, run_once};
pub use region::{Buffer, Region, Release};

use crate::error::{Error, Result};
use crate::program::{Math, Op, Program, Val, ValKind, WeightDecl, lower};
use std::collections::BTreeSet;
use std::sync::Arc;

/// What a device offers.
#[derive(Debug, Clone, PartialEq)]
pub struct Caps {
    /// Name for people: "cpu (avx512bf16, 2 threads)".
    pub name: String,
    /// Bytes of memory the device has.
    pub memory_bytes: u64,
    /// Alignment of every place in the arena.
    pub align: usize,
    /// Largest piece of memory that the device gives at once, a multiple of `align`: no place of
    /// the arena crosses a multiple of it. `usize::MAX` where memory is all of one piece.
    pub piece_bytes: usize,
    /// Whether products of bf16 operands run natively; decides the default of `--dtype`.
    pub native_bf16: bool,
}

/// A device, and how products on it treat their operands.
#[derive(Clone)]
pub struct Device {
    /// Runs programs.
    pub backend: Arc<dyn Backend>,
    /// Arithmetic of the products.
    pub math: Math,
}

/// Elements of a weight in host memory. The owner keeps the bytes alive (a mapped file).
#[derive(Clone)]
pub struct HostBytes {
    owner: Arc<dyn AsRef<[u8]> + Send + Sync>,
    range: std::ops::Range<usize>,
}

impl HostBytes {
    /// Bytes `range` of `owner`, or `None` when out of bounds.
    pub fn new(
        owner: Arc<dyn AsRef<[u8]> + Send + Sync>,
        range: std::ops::Range<usize>,
    ) -> Option<Self> {
        ((*owner).as_ref().get(range.clone()))?;
        Some(HostBytes { owner, range })
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &(*self.owner).as_ref()[self.range.clone()]
    }
}

/// A device that can hold memory and run programs.
pub trait Backend: Send + Sync {
    /// What the device offers.
    fn caps(&self) -> &Caps;
    /// Whether there is a kernel for the operation. Primitives must be claimed.
    fn claims(&self, op: &Op) -> bool;
    /// Bytes that step `step` of `program` takes beside its operands while it runs.
    fn scratch_bytes(&self, _program: &Program, _step: usize) -> usize {
        0
    }
    /// Zeroed memory.
    fn alloc(&self, bytes: usize) -> Result<Buffer>;
    /// Memory with the contents of a weight. A backend that computes where the file is mapped
    /// keeps the mapping instead of copying; one that must store the weight in pieces cuts it
    /// between rows of `row_bytes`.
    fn adopt(&self, host: HostBytes, row_bytes: usize) -> Result<Buffer>;
    /// Copies bytes to the device.
    fn write(&self, to: &Buffer, offset: usize, bytes: &[u8]) -> Result<()>;
    /// Copies bytes from the device, after everything that was run before.
    fn read(&self, from: &Buffer, offset: usize, bytes: &mut [u8]) -> Result<()>;
    /// Bytes per second at which the device's threads read its memory, measured by reading a
    /// gibibyte a few times: the limit of a program that reads every weight once. `None` where
    /// the backend has no such measurement.
    fn read_rate(&self) -> Result<Option<f64>> {
        Ok(None)
    }
    /// Resolves kernels, plans memory, makes the program ready to run.
    fn prepare(&self, bound: Bound) -> Result<Box<dyn Ready>>;
}

/// A prepared program. A run allocates nothing.
pub trait Ready: Send {
    /// Runs once with the numbers that change from run to run.
    fn run(&mut self, scalars: &[f32]) -> Result<()>;
}

/// Where a program's weights come from.
pub trait Weights {
    /// The region of a weight, made on first use. `math` decides the dtype of folded weights.
    fn region(&self, backend: &dyn Backend, decl: &WeightDecl, math: Math) -> Result<Region>;
}

/// No weights: for programs that have none.
pub struct NoWeights;

impl Weights for NoWeights {
    fn region(&self, _: &dyn Backend, decl: &WeightDecl, _: Math) -> Result<Region> {
        Err(Error::Bug(format!(
            "no weights were given, {} is wanted",
            decl.name
        )))
    }
}

/// A lowered program with memory for every value that does not live in the arena.
pub struct Bound {
    /// The program, containing only operations that the backend claims. Weights have the dtype
    /// of their region.
    pub program: Program,
    /// Region of inputs, states, weights, constants, and of outputs that are written straight to their
    /// region; indexed by value.
    pub regions: Vec<Option<Region>>,
    /// Results that are copied to their region after the last step, because the region is also
    /// an input, or the value is (a part of) something else.
    pub copies: Vec<(Val, Region)>,
}

impl Bound {
    /// Whether a computed value lives outside the arena.
    pub fn is_external(&self, v: Val) -> bool {
        self.regions[v.index()].is_some()
    }
}

/// Binds `program` to named regions and makes it ready.
///
/// Every input, state and output must be given a region of its shape and dtype; `inputs` names
/// both inputs and states. A region may serve as input and output at once: it then changes after
/// the last step, while a state changes where the program says so.
pub fn prepare(
    backend: &dyn Backend,
    program: &Program,
    weights: &dyn Weights,
    inputs: &[(&str, &Region)],
    outputs: &[(&str, &Region)],
) -> Result<Box<dyn Ready>> {
    backend.prepare(bind(backend, program, weights, inputs, outputs)?)
}

/// Names of the operations of `program` that would run by definition for want of a kernel.
pub fn by_definition(backend: &dyn Backend, program: &Program) -> Result<BTreeSet<&'static str>> {
    Ok(lower(program, &|op| backend.claims(op))?.1)
}

fn bind(
    backend: &dyn Backend,
    program: &Program,
    weights: &dyn Weights,
    inputs: &[(&str, &Region)],
    outputs: &[(&str, &Region)],
) -> Result<Bound> {
    let (mut program, _) = lower(program, &|op| backend.claims(op))?;
    let mut regions: Vec<Option<Region>> = vec![None; program.vals.len()];
    #[allow(clippy::needless_range_loop)] // the loop also changes the values
    for i in 0..program.vals.len() {
        let info = &program.vals[i];
        let region = match &info.kind {
            ValKind::Input(name) | ValKind::State(name) => {
                let (_, region) = inputs.iter().find(|(n, _)| n == name).ok_or_else(|| {
                    Error::Bug(format!(
                        "program {}: input {name} is not bound",
                        program.name
                    ))
                })?;
                Some((*region).clone())
            }
            ValKind::Weight(decl) => Some(weights.region(backend, decl, program.math)?),
            ValKind::Const(data) => Some(Region::constant(backend, &info.shape, data)?),
            ValKind::Temp | ValKind::Alias(_) => None,
        };
        if let Some(region) = &region {
            if matches!(info.kind, ValKind::Weight(_)) {
                program.vals[i].dtype = region.dtype();
            }
            check(&program, i, region)?;
        }
        regions[i] = region;
    }
    let mut copies = Vec::new();
    for (name, v) in &program.outs {
        let (_, region) = outputs.iter().find(|(n, _)| n == name).ok_or_else(|| {
            Error::Bug(format!(
                "program {}: output {name} is not bound",
                program.name
            ))
        })?;
        check(&program, v.index(), region)?;
        let root = program.root(*v);
        let shared = inputs.iter().any(|(_, r)| r.overlaps(region));
        let computed = matches!(program.vals[root.index()].kind, ValKind::Temp);
        if computed && !shared && regions[root.index()].is_none() {
            regions[root.index()] = Some((*region).clone());
        } else {
            copies.push((root, (*region).clone()));
        }
    }
    Ok(Bound {
        program,
        regions,
        copies,
    })
}

fn check(program: &Program, index: usize, region: &Region) -> Result<()> {
    let info = &program.vals[index];
    if region.len() != info.len() || region.dtype() != info.dtype {
        return Err(Error::Bug(format!(
            "program {}: a value {:?} {:?} was bound to a region {:?} {:?}",
            program.name,
            info.shape,
            info.dtype,
            region.shape(),
            region.dtype()
        )));
    }
    Ok(())
}
