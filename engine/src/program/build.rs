//! Writing programs: [`Builder`] appends steps, checks shapes as it goes and remembers the first
//! fault, so that model code reads like the paper and `finish` reports what went wrong where.

use super::op::{DType, Dcw, Mask, Math, Op, Scalar};
use crate::error::{Error, Result};
use std::sync::Arc;

/// A value of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Val(pub u32);

impl Val {
    /// Position in [`Program::vals`].
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// How a weight is made from what the checkpoint stores.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum WeightForm {
    /// As stored; only the shape may be regrouped. Read in place where the backend can.
    Stored,
    /// Stored axes reordered: output axis i is stored axis `perm[i]`.
    Permuted([usize; 3]),
    /// A vector repeated end to end.
    Tiled(usize),
    /// Weight normalisation folded, `g v / ||v||` with the norm over all axes but the first
    /// (`NAME.weight_v`, `NAME.weight_g`), then the axes reordered.
    WeightNorm([usize; 3]),
    /// Rows `start..start + len` of the first stored axis, where the whole tensor lies.
    Rows {
        /// First row.
        start: usize,
        /// Number of rows.
        len: usize,
    },
}

impl WeightForm {
    /// Number of elements that this form makes of a tensor of shape `stored`; `None` when the
    /// tensor does not have what is asked for.
    fn elements(&self, stored: &[usize]) -> Option<usize> {
        let all: usize = stored.iter().product();
        match *self {
            WeightForm::Tiled(n) => Some(all * n),
            WeightForm::Rows { start, len } => {
                let rows = *stored.first().filter(|rows| start + len <= **rows)?;
                Some(all / rows * len)
            }
            _ => Some(all),
        }
    }
}

/// What a program wants of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct WeightDecl {
    /// The checkpoint's own name (without `.weight_v`/`.weight_g` for folded weights).
    pub name: String,
    /// Shape in the file (of `weight_v` for folded weights).
    pub stored: Vec<usize>,
    /// Shape as the operation sees it: the elements after `form`.
    pub shape: Vec<usize>,
    /// How the one becomes the other.
    pub form: WeightForm,
    /// Vectors (norms, biases, tables added to activations) are widened to f32 at load;
    /// matrices keep the dtype of the file (folded ones follow the program's [`Math`]).
    pub widen: bool,
}

/// Contents of a constant.
#[derive(Debug, Clone, PartialEq)]
pub enum ConstData {
    /// f32 elements.
    F32(Arc<[f32]>),
    /// i32 elements.
    I32(Arc<[i32]>),
}

/// Where a value lives.
#[derive(Debug, Clone, PartialEq)]
pub enum ValKind {
    /// Bound by name when the program is prepared; only read.
    Input(String),
    /// Bound by name like an input, but kept and changed by the program: what one run writes the
    /// next one finds.
    State(String),
    /// Resolved from the checkpoint when the program is prepared.
    Weight(WeightDecl),
    /// Known when the program is written (rotary tables); uploaded once.
    Const(ConstData),
    /// Computed; lives in the arena or, for an output, in the bound region.
    Temp,
    /// Shares the memory of another value.
    Alias(Val),
}

/// Shape, dtype and place of a value.
#[derive(Debug, Clone, PartialEq)]
pub struct ValInfo {
    /// Extent per axis, row-major.
    pub shape: Vec<usize>,
    /// Element type.
    pub dtype: DType,
    /// Where it lives.
    pub kind: ValKind,
}

impl ValInfo {
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether there are no elements (never true in a finished program).
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of all elements.
    pub fn bytes(&self) -> usize {
        self.len() * self.dtype.bytes()
    }
}

/// One operation applied to values.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// What is computed.
    pub op: Op,
    /// Inputs, in the order of the operation's contract.
    pub ins: Vec<Val>,
    /// Output.
    pub out: Val,
}

/// A finished, shape-checked list of steps.
#[derive(Debug, Clone, PartialEq)]
pub struct Program {
    /// What it computes, for messages.
    pub name: String,
    /// How products treat their operands.
    pub math: Math,
    /// All values; [`Val`] indexes here.
    pub vals: Vec<ValInfo>,
    /// Steps in the order they run.
    pub steps: Vec<Step>,
    /// Named results, bound when the program is prepared.
    pub outs: Vec<(String, Val)>,
    /// Named intermediates, for comparison with references; see [`Program::expose`].
    pub taps: Vec<(String, Val)>,
}

impl Program {
    /// The value behind aliases.
    pub fn root(&self, mut v: Val) -> Val {
        while let ValKind::Alias(of) = self.vals[v.index()].kind {
            v = of;
        }
        v
    }

    /// Weights the program needs, each once, in order of first use.
    pub fn weights(&self) -> impl Iterator<Item = &WeightDecl> {
        self.vals.iter().filter_map(|v| match &v.kind {
            ValKind::Weight(decl) => Some(decl),
            _ => None,
        })
    }

    fn has_effect(&self) -> bool {
        !self.outs.is_empty() || self.steps.iter().any(|s| s.op.writes_state())
    }

    /// Makes every tap an output as well, so that a comparison can read it.
    pub fn expose(&mut self) {
        for (name, val) in self.taps.clone() {
            if !self.outs.iter().any(|(n, _)| *n == name) {
                self.outs.push((name, val));
            }
        }
    }

    /// Number of scalars a run must be given.
    pub fn scalars(&self) -> usize {
        let mut n = 0;
        for step in &self.steps {
            let mut see = |s: Scalar| n = n.max(s.0 + 1);
            match step.op {
                Op::SelectRow { index, .. } | Op::SelectSlab { index } => see(index),
                Op::Combine { a, b } => {
                    see(a);
                    see(b);
                }
                Op::Apg { scale, .. } => see(scale),
                Op::Adg { scale, t, .. } => {
                    see(scale);
                    see(t);
                }
                Op::Dcw { t, .. } => see(t),
                _ => {}
            }
        }
        n
    }
}

/// Appends steps to a program. Methods return the output value; after the first fault they
/// return a placeholder and [`Builder::finish`] reports the fault.
pub struct Builder {
    program: Program,
    fault: Option<String>,
}

impl Builder {
    /// An empty program.
    pub fn new(name: impl Into<String>, math: Math) -> Self {
        Builder {
            program: Program {
                name: name.into(),
                math,
                vals: Vec::new(),
                steps: Vec::new(),
                outs: Vec::new(),
                taps: Vec::new(),
            },
            fault: None,
        }
    }

    /// The program, or the first fault with the step it happened in.
    pub fn finish(self) -> Result<Program> {
        match self.fault {
            None if !self.program.has_effect() => Err(Error::Bug(format!(
                "program {} has no output and changes no state",
                self.program.name
            ))),
            None => Ok(self.program),
            Some(fault) => {
                let text = self.program.to_string();
                let tail: Vec<&str> = text.lines().rev().take(8).collect();
                let tail: Vec<&str> = tail.into_iter().rev().collect();
                Err(Error::Bug(format!(
                    "{fault}\nlast steps:\n{}",
                    tail.join("\n")
                )))
            }
        }
    }

    fn blame(&mut self, fault: String) {
        if self.fault.is_none() {
            self.fault = Some(format!("program {}: {fault}", self.program.name));
        }
    }

    fn push(&mut self, shape: Vec<usize>, dtype: DType, kind: ValKind) -> Val {
        self.program.vals.push(ValInfo { shape, dtype, kind });
        Val((self.program.vals.len() - 1) as u32)
    }

    /// Appends a value as it is, for passes that rewrite programs.
    pub(super) fn place(&mut self, shape: Vec<usize>, dtype: DType, kind: ValKind) -> Val {
        self.push(shape, dtype, kind)
    }

    /// Shape of a value.
    pub fn shape(&self, v: Val) -> &[usize] {
        &self.program.vals[v.index()].shape
    }

    /// An f32 input, bound by name when the program is prepared.
    pub fn input(&mut self, name: impl Into<String>, shape: &[usize]) -> Val {
        self.push(shape.to_vec(), DType::F32, ValKind::Input(name.into()))
    }

    /// An i32 input (ids, codes, lengths).
    pub fn input_i32(&mut self, name: impl Into<String>, shape: &[usize]) -> Val {
        self.push(shape.to_vec(), DType::I32, ValKind::Input(name.into()))
    }

    /// An input of another dtype: rows of a cache.
    pub fn input_of(&mut self, name: impl Into<String>, shape: &[usize], dtype: DType) -> Val {
        self.push(shape.to_vec(), dtype, ValKind::Input(name.into()))
    }

    /// A state, f32 or bf16, bound by name when the program is prepared and changed by
    /// [`Op::WriteRows`].
    pub fn state(&mut self, name: impl Into<String>, shape: &[usize], dtype: DType) -> Val {
        self.push(shape.to_vec(), dtype, ValKind::State(name.into()))
    }

    /// An f32 constant.
    pub fn constant(&mut self, shape: &[usize], data: Vec<f32>) -> Val {
        if data.len() != shape.iter().product::<usize>() {
            self.blame(format!(
                "constant of {} elements is not {shape:?}",
                data.len()
            ));
        }
        self.push(
            shape.to_vec(),
            DType::F32,
            ValKind::Const(ConstData::F32(data.into())),
        )
    }

    /// An i32 constant.
    pub fn constant_i32(&mut self, shape: &[usize], data: Vec<i32>) -> Val {
        if data.len() != shape.iter().product::<usize>() {
            self.blame(format!(
                "constant of {} elements is not {shape:?}",
                data.len()
            ));
        }
        self.push(
            shape.to_vec(),
            DType::I32,
            ValKind::Const(ConstData::I32(data.into())),
        )
    }

    /// A weight by declaration. The same declaration gives the same value.
    pub fn weight_decl(&mut self, decl: WeightDecl) -> Val {
        if decl.form.elements(&decl.stored) != Some(decl.shape.iter().product()) {
            self.blame(format!(
                "weight {} stored as {:?} cannot be seen as {:?}",
                decl.name, decl.stored, decl.shape
            ));
        }
        let known = self.program.vals.iter().position(|v| match &v.kind {
            ValKind::Weight(d) => *d == decl,
            _ => false,
        });
        match known {
            Some(i) => Val(i as u32),
            None => {
                // Matrices are given the dtype of the file when the program is prepared.
                self.push(decl.shape.clone(), DType::F32, ValKind::Weight(decl))
            }
        }
    }

    /// A matrix, used as stored.
    pub fn matrix(&mut self, name: impl Into<String>, shape: &[usize]) -> Val {
        self.weight_decl(WeightDecl {
            name: name.into(),
            stored: shape.to_vec(),
            shape: shape.to_vec(),
            form: WeightForm::Stored,
            widen: false,
        })
    }

    /// A vector or small table, widened to f32 and seen as `shape`.
    pub fn vector(&mut self, name: impl Into<String>, stored: &[usize], shape: &[usize]) -> Val {
        self.weight_decl(WeightDecl {
            name: name.into(),
            stored: stored.to_vec(),
            shape: shape.to_vec(),
            form: WeightForm::Stored,
            widen: true,
        })
    }

    /// Appends a step.
    pub fn op(&mut self, op: Op, ins: &[Val]) -> Val {
        let typed: Vec<_> = ins
            .iter()
            .map(|v| {
                let info = &self.program.vals[v.index()];
                (info.shape.as_slice(), info.dtype)
            })
            .collect();
        match op.shape(&typed) {
            Ok((shape, dtype)) => {
                let kind = match ins.first() {
                    Some(state) if op.writes_state() => {
                        self.check_state(&op, *state);
                        ValKind::Alias(*state)
                    }
                    _ => ValKind::Temp,
                };
                let out = self.push(shape, dtype, kind);
                self.program.steps.push(Step {
                    op,
                    ins: ins.to_vec(),
                    out,
                });
                out
            }
            Err(fault) => {
                self.blame(format!(
                    "step {} {}: {fault}",
                    self.program.steps.len(),
                    op.name()
                ));
                self.push(vec![1], DType::F32, ValKind::Temp)
            }
        }
    }

    fn check_state(&mut self, op: &Op, v: Val) {
        let root = self.program.root(v);
        if !matches!(self.program.vals[root.index()].kind, ValKind::State(_)) {
            let step = self.program.steps.len();
            self.blame(format!(
                "step {step} {}: changes what is no state",
                op.name()
            ));
        }
    }

    /// The same elements under another shape; free.
    pub fn reshape(&mut self, x: Val, shape: &[usize]) -> Val {
        let info = &self.program.vals[x.index()];
        let dtype = info.dtype;
        if info.len() != shape.iter().product::<usize>() {
            let fault = format!("{:?} cannot be reshaped to {shape:?}", info.shape);
            self.blame(fault);
        }
        self.push(shape.to_vec(), dtype, ValKind::Alias(x))
    }

    /// Declares a result.
    pub fn output(&mut self, name: impl Into<String>, v: Val) {
        self.program.outs.push((name.into(), v));
    }

    /// Names an intermediate so that it can be compared with a reference.
    pub fn tap(&mut self, name: impl Into<String>, v: Val) -> Val {
        self.program.taps.push((name.into(), v));
        v
    }

    /// Embedding rows, [`Op::Embed`].
    pub fn embed(&mut self, ids: Val, table: Val) -> Val {
        self.op(Op::Embed, &[ids, table])
    }

    /// `x W^T`, [`Op::Linear`].
    pub fn linear(&mut self, x: Val, w: Val) -> Val {
        self.op(Op::Linear, &[x, w])
    }

    /// `x W^T + b`, [`Op::Linear`].
    pub fn linear_bias(&mut self, x: Val, w: Val, b: Val) -> Val {
        self.op(Op::Linear, &[x, w, b])
    }

    /// `cache` with rows changed, [`Op::WriteRows`].
    pub fn write_rows(&mut self, cache: Val, rows: Val, at: Val) -> Val {
        self.op(Op::WriteRows, &[cache, rows, at])
    }

    /// [`Op::RmsNorm`].
    pub fn rms_norm(&mut self, x: Val, w: Val, eps: f32) -> Val {
        self.op(Op::RmsNorm { eps }, &[x, w])
    }

    /// [`Op::Attention`] over all keys of each row.
    pub fn attention(&mut self, q: Val, k: Val, v: Val, mask: Mask) -> Val {
        self.op(Op::Attention { mask }, &[q, k, v])
    }

    /// [`Op::Add`].
    pub fn add(&mut self, a: Val, b: Val) -> Val {
        self.op(Op::Add, &[a, b])
    }

    /// [`Op::Silu`].
    pub fn silu(&mut self, x: Val) -> Val {
        self.op(Op::Silu, &[x])
    }

    /// [`Op::SwiGlu`].
    pub fn swiglu(&mut self, x: Val, gate: Val, up: Val) -> Val {
        self.op(Op::SwiGlu, &[x, gate, up])
    }

    /// [`Op::Combine`].
    pub fn combine(&mut self, a: Scalar, x: Val, b: Scalar, y: Val) -> Val {
        self.op(Op::Combine { a, b }, &[x, y])
    }

    /// [`Op::Dcw`].
    pub fn dcw(&mut self, x: Val, y: Val, dcw: Dcw, t: Scalar) -> Val {
        self.op(Op::Dcw { dcw, t }, &[x, y])
    }
}
