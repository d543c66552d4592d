//! What runs for an operation: which shaders, bound to which operands, with which parameters, on
//! which grid. Pure arithmetic on shapes; nothing here touches a device.

mod attention;
mod elementwise;
mod heads;
mod moving;
pub use moving::copy;
mod norms;
mod products;
mod sampling;
mod split;
pub use split::{Part, Slice, parts};
mod tokens;
mod ways;

use crate::kernels::{self, Const, Piece, Variant};
use engine::program::{DType, Op, Program};
use engine::{Error, Result};

/// A value as an operand.
#[derive(Debug, Clone, Copy)]
pub struct Arg<'a> {
    /// Extent per axis.
    pub shape: &'a [usize],
    /// Element type.
    pub dtype: DType,
    /// Elements between the start of its binding and its own first one.
    pub offset: u32,
    /// Where the memory of a weight is cut, if it lies in pieces.
    pub cut: Option<Cut>,
}

/// Cuts of a weight that is too large for one buffer; always between rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// Bytes from the weight's first one to the first cut.
    pub first: usize,
    /// Bytes from cut to cut.
    pub every: usize,
}

impl Cut {
    /// Bytes from byte `at` of the weight to the next cut.
    pub fn left(&self, at: usize) -> usize {
        match self.first.checked_sub(at) {
            Some(left) if left > 0 => left,
            _ => self.every - (at - self.first) % self.every,
        }
    }
}

impl Arg<'_> {
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Extent of the last axis.
    pub fn width(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }
}

/// One step of a program.
pub struct View<'a> {
    /// What is computed.
    pub op: &'a Op,
    /// Whether products round their operands to bf16.
    pub round: bool,
    /// Inputs in the order of the operation's contract.
    pub ins: Vec<Arg<'a>>,
    /// Output.
    pub out: Arg<'a>,
    /// What the device allows.
    pub room: Room,
}

/// Limits that shapes of launches depend on.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    /// Bytes of one binding.
    pub binding: u64,
    /// Bytes that a workgroup shares.
    pub workgroup: u32,
    /// Threads of a workgroup.
    pub threads: u32,
    /// Whether subgroups have eight threads or more and exchange values.
    pub subgroups: bool,
    /// Whether the processor computes: barriers are dear, and no memory is faster than another.
    pub software: bool,
    /// Workgroups that keep the device busy.
    pub busy: usize,
}

/// What a binding of a shader is bound to.
#[derive(Debug, Clone, PartialEq)]
pub enum Operand {
    /// An input of the step.
    In(usize),
    /// Bytes of an input, counted from the start of its binding, from a multiple of
    /// [`ALIGN`] on.
    Part(usize, std::ops::Range<usize>),
    /// The output of the step.
    Out,
    /// Bytes of the output, counted likewise.
    OutPart(std::ops::Range<usize>),
    /// The scratch space of the step.
    Scratch,
    /// The numbers that change from run to run.
    Scalars,
}

/// Bindings begin at multiples of this, whatever less a device would allow.
pub const ALIGN: usize = 256;

/// One dispatch.
#[derive(Debug, Clone)]
pub struct Launch {
    /// The shader.
    pub variant: Variant,
    /// Its bindings, in order.
    pub operands: Vec<Operand>,
    /// Its parameters, in order.
    pub words: Vec<u32>,
    /// Workgroups per axis.
    pub groups: [u32; 3],
}

/// Workgroups of `n` pieces in one axis, folded into two: x is full unless there is only one row.
pub fn folded(n: usize) -> [u32; 3] {
    const MOST: usize = 32_768;
    let x = n.clamp(1, MOST);
    [x as u32, n.div_ceil(x).max(1) as u32, 1]
}

/// A size as a parameter. Values of more than 2^32 elements do not fit into one binding, which is
/// refused before.
pub fn word(n: usize) -> u32 {
    n as u32
}

/// The dispatches of a step.
///
/// # Errors
/// [`Error::Bug`] when the step does not follow the contract of its operation.
pub fn launches(view: &View) -> Result<Vec<Launch>> {
    match view.op {
        Op::Reshape => Err(Error::Bug("a reshape is no step".into())),
        Op::ConcatChannels
        | Op::ConcatRows
        | Op::SliceRows { .. }
        | Op::PadRows { .. }
        | Op::SelectRow { .. }
        | Op::SelectSlab { .. }
        | Op::PrependRow => Ok(moving::launches(view)),
        Op::Embed | Op::WriteRows | Op::FsqEncode { .. } | Op::FsqDecode { .. } => {
            tokens::launches(view)
        }
        Op::Linear
        | Op::SwiGlu
        | Op::Conv1d { .. }
        | Op::ConvTranspose1d { .. }
        | Op::SnakeConv1d { .. }
        | Op::SnakeConvTranspose1d { .. } => products::launches(view),
        Op::Attention { mask } => attention::launches(view, *mask),
        Op::AttentionWeights { mask, heads } => Ok(vec![attention::weights(view, *mask, heads)]),
        Op::RmsNorm { .. } | Op::RmsNormModulate { .. } | Op::Rope | Op::NormRope { .. } => {
            Ok(norms::launches(view))
        }
        Op::Apg { .. } | Op::Adg { .. } | Op::ClampNorm { .. } | Op::Dcw { .. } => {
            Ok(sampling::launches(view))
        }
        Op::RepeatAdd
        | Op::Add
        | Op::Mul
        | Op::Silu
        | Op::AddVector
        | Op::MulVector
        | Op::MulRows
        | Op::Modulate
        | Op::Combine { .. }
        | Op::SelectByMask
        | Op::TimeSinusoid { .. }
        | Op::Snake
        | Op::GatedAdd => Ok(elementwise::launches(view)),
    }
}

/// Whether there is a shader.
pub fn claims(op: &Op) -> bool {
    !matches!(op, Op::Reshape)
}

/// Bytes that a step takes beside its operands, in whatever parts it runs.
pub fn scratch_bytes(program: &Program, step: usize, room: &Room) -> usize {
    let parts = parts(program, &program.steps[step], room);
    parts
        .iter()
        .map(|part| part_scratch(part, room))
        .max()
        .unwrap_or(0)
}

fn part_scratch(part: &Part, room: &Room) -> usize {
    let shape = |i: usize| part.ins[i].shape.as_slice();
    let floats = |n: usize| n * size_of::<f32>();
    match &part.op {
        // The input behind its snake.
        Op::SnakeConv1d { .. } | Op::SnakeConvTranspose1d { .. } => {
            floats(shape(0).iter().product())
        }
        Op::Attention { mask } => floats(heads::left_elements(room, *mask, shape(0), shape(1))),
        Op::Linear => floats(products::share_elements(part, room)),
        Op::Dcw { dcw, .. } => floats(sampling::band_elements(dcw, shape(0))),
        _ => 0,
    }
}

/// One variant of each kind that launchers make, for checks of the shaders' texts.
pub fn all_variants() -> Vec<Variant> {
    let mut all = Vec::new();
    all.extend(moving::variants());
    all.extend(elementwise::variants());
    all.extend(tokens::variants());
    all.extend(products::variants());
    all.extend(attention::variants());
    all.extend(heads::variants());
    all.extend(norms::variants());
    all.extend(sampling::variants());
    all
}

/// `variant` with a switch.
pub(crate) fn switch(variant: Variant, name: &str, on: bool) -> Variant {
    variant.with(name, Const::Bool(on))
}

/// How the threads of a workgroup add up.
pub(crate) fn sums(subgroups: bool) -> &'static Piece {
    match subgroups {
        true => &kernels::SUMS_BY_SUBGROUP,
        false => &kernels::SUMS_IN_MEMORY,
    }
}
