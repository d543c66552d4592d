//! Operations applied to inputs, as data: the conformance suite checks them at awkward sizes
//! ([`crate::conformance`]), the benches time them at those of the model
//! ([`crate::model_cases`]).

use crate::random::Random;
use engine::program::{DType, Mask, Math, Op};

/// What an input is filled with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fill {
    /// Normal numbers of this deviation.
    Normal(f32),
    /// Uniform numbers.
    Uniform(f32, f32),
    /// 0 or 1.
    Mask,
    /// Integers in `0..n`.
    Below(usize),
    /// Integers in `1..=n`, the largest one among them.
    Lengths(usize),
    /// Cosines (or sines) of random angles in halves layout.
    Cos,
    /// The sines that belong to the cosines.
    Sin,
}

/// One input.
#[derive(Debug, Clone, PartialEq)]
pub struct Input {
    /// Extent per axis.
    pub shape: Vec<usize>,
    /// Contents.
    pub fill: Fill,
}

/// One operation with inputs.
#[derive(Debug, Clone)]
pub struct Case {
    /// Operation, sizes, dtypes: unique, and the seed of the contents.
    pub name: String,
    /// The operation.
    pub op: Op,
    /// Its inputs.
    pub ins: Vec<Input>,
    /// Storage of the weight inputs.
    pub weights: DType,
    /// Storage of keys, values and caches.
    pub kept: DType,
    /// How products treat operands.
    pub math: Math,
    /// Run-time scalars.
    pub scalars: Vec<f32>,
}

/// An input with its contents.
#[derive(Debug, Clone)]
pub struct Value {
    /// Extent per axis.
    pub shape: Vec<usize>,
    /// How it is stored.
    pub dtype: DType,
    /// Elements; exactly representable in `dtype`.
    pub data: Vec<f32>,
}

impl Case {
    /// A case with f32 weights and products and no scalars.
    pub fn new(op: Op, ins: &[(&[usize], Fill)]) -> Self {
        let ins: Vec<Input> = ins
            .iter()
            .map(|(s, fill)| Input {
                shape: s.to_vec(),
                fill: *fill,
            })
            .collect();
        let mut case = Case {
            name: String::new(),
            op,
            ins,
            weights: DType::F32,
            kept: DType::F32,
            math: Math::F32,
            scalars: Vec::new(),
        };
        case.rename();
        case
    }

    fn rename(&mut self) {
        let shapes: Vec<String> = self
            .ins
            .iter()
            .map(|i| {
                i.shape
                    .iter()
                    .map(usize::to_string)
                    .collect::<Vec<_>>()
                    .join("x")
            })
            .collect();
        let mut name = format!("{:?} {}", self.op, shapes.join(" "));
        if !self.op.weight_inputs().is_empty() {
            name += &format!(" {:?}", self.weights);
        }
        if self.kept != DType::F32 {
            name += &format!(" kept in {:?}", self.kept);
        }
        if self.has_products() {
            name += &format!(" {:?}", self.math);
        }
        self.name = name;
    }

    /// The same with run-time scalars.
    pub fn scalars(mut self, scalars: &[f32]) -> Self {
        self.scalars = scalars.to_vec();
        self
    }

    /// The same with weights stored as `dtype` and products in `math`.
    pub fn stored(mut self, dtype: DType, math: Math) -> Self {
        self.weights = dtype;
        self.math = math;
        self.rename();
        self
    }

    /// The same with keys, values and caches stored as `dtype`.
    pub fn kept(mut self, dtype: DType) -> Self {
        self.kept = dtype;
        self.rename();
        self
    }

    /// Whether the program's [`Math`] matters.
    pub fn has_products(&self) -> bool {
        matches!(self.op, Op::Attention { .. } | Op::AttentionWeights { .. })
            || (!self.op.weight_inputs().is_empty() && self.op != Op::Embed)
    }

    /// Storage of input `i`.
    pub fn stored_as(&self, i: usize) -> DType {
        match self.ins[i].fill {
            Fill::Below(_) | Fill::Lengths(_) => DType::I32,
            _ if self.op.weight_inputs().contains(&i) => self.weights,
            _ => match (&self.op, i) {
                (Op::Attention { .. }, 1 | 2)
                | (Op::AttentionWeights { .. }, 1)
                | (Op::WriteRows, 0) => self.kept,
                _ => DType::F32,
            },
        }
    }

    /// The inputs with contents.
    pub fn values(&self) -> Vec<Value> {
        let mut random = Random::named(&self.name);
        self.ins
            .iter()
            .enumerate()
            .map(|(i, input)| {
                let dtype = self.stored_as(i);
                let n = input.shape.iter().product();
                let data = fill(&mut random, input.fill, n);
                let data = data.into_iter().map(|x| round_to(x, dtype)).collect();
                Value {
                    shape: input.shape.clone(),
                    dtype,
                    data,
                }
            })
            .collect()
    }

    /// Multiplications and additions of products; other operations count as none.
    pub fn flops(&self) -> f64 {
        let n = |i: usize| self.ins[i].shape.iter().product::<usize>() as f64;
        let last = |i: usize| *self.ins[i].shape.last().unwrap_or(&1) as f64;
        match self.op {
            Op::Linear => 2.0 * n(0) / last(0) * n(1),
            Op::SwiGlu => 4.0 * n(0) / last(0) * n(1),
            Op::Attention { mask } => {
                let (t, s) = (self.ins[0].shape[1], self.ins[1].shape[1]);
                let visible: usize = match mask {
                    Mask::Full => t * s,
                    Mask::Causal => (0..t).map(|i| s - t + i + 1).sum(),
                    Mask::Window(w) => (0..t)
                        .map(|i| (i + w + 1).min(s) - i.saturating_sub(w))
                        .sum(),
                };
                4.0 * visible as f64 * n(0) / t as f64
            }
            Op::Conv1d { stride, .. } => 2.0 * n(0) / last(0) / stride as f64 * n(1),
            Op::SnakeConv1d { .. } => 2.0 * n(0) / last(0) * n(3),
            Op::ConvTranspose1d { .. } => 2.0 * n(0) / last(0) * n(1),
            Op::SnakeConvTranspose1d { .. } => 2.0 * n(0) / last(0) * n(3),
            _ => 0.0,
        }
    }
}

/// Bytes that must pass through memory at least once: every input read, every output written.
pub fn traffic(case: &Case) -> f64 {
    let typed: Vec<_> = case
        .ins
        .iter()
        .enumerate()
        .map(|(i, input)| (input.shape.as_slice(), case.stored_as(i)))
        .collect();
    let bytes = |shape: &[usize], dtype: DType| shape.iter().product::<usize>() * dtype.bytes();
    let read: usize = typed
        .iter()
        .map(|(shape, dtype)| bytes(shape, *dtype))
        .sum();
    let out = case
        .op
        .shape(&typed)
        .map_or(0, |(shape, dtype)| bytes(&shape, dtype));
    (read + out) as f64
}

/// The nearest value that `dtype` stores.
pub fn round_to(x: f32, dtype: DType) -> f32 {
    match dtype {
        DType::F32 | DType::I32 => x,
        DType::BF16 => half::bf16::from_f32(x).to_f32(),
        DType::F16 => half::f16::from_f32(x).to_f32(),
    }
}

fn fill(random: &mut Random, fill: Fill, n: usize) -> Vec<f32> {
    let angle = |i: usize| 0.37 * i as f32 + 0.1;
    (0..n)
        .map(|i| match fill {
            Fill::Normal(deviation) => deviation * random.normal(),
            Fill::Uniform(lo, hi) => random.uniform(lo, hi),
            Fill::Mask => random.below(2) as f32,
            Fill::Below(n) => random.below(n) as f32,
            Fill::Lengths(n) => {
                if i == 0 {
                    n as f32
                } else {
                    1.0 + random.below(n) as f32
                }
            }
            Fill::Cos => angle(i).cos(),
            Fill::Sin => angle(i).sin(),
        })
        .collect()
}
