//! Steps whose operands exceed a binding, in parts that do not: the same operation on fewer rows,
//! or on a stretch of time with what its taps reach. Weights are not cut here (see
//! [`super::tokens::row_blocks`]), nor what only moves (see [`super::moving`]).

use super::{ALIGN, Room};
use engine::program::{DType, Mask, Op, Program, Step, Val};
use std::ops::Range;

/// A part of a value.
#[derive(Debug, Clone, PartialEq)]
pub struct Slice {
    /// Elements before it.
    pub start: usize,
    /// Extent per axis.
    pub shape: Vec<usize>,
}

/// A part of a step, which is a step of its own.
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    /// What is computed.
    pub op: Op,
    /// Parts of the inputs.
    pub ins: Vec<Slice>,
    /// The part of the output.
    pub out: Slice,
}

/// What rows of the output need of an input.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Role {
    /// The same rows `(B, T, ...)`.
    Row,
    /// What belongs to their item `(B, ...)`.
    Item,
    /// What belongs to their time `(T, ...)`.
    Time,
    /// Everything.
    Whole,
}

/// The parts in which a step runs: one where everything fits, or where it cannot be divided.
pub fn parts(program: &Program, step: &Step, room: &Room) -> Vec<Part> {
    let info = |v: Val| {
        let dtype = program.vals[program.root(v).index()].dtype;
        (program.vals[v.index()].shape.clone(), dtype)
    };
    let operands = Operands {
        op: &step.op,
        ins: step.ins.iter().map(|v| info(*v)).collect(),
        out: info(step.out).0,
        most: usize::try_from(room.binding)
            .unwrap_or(usize::MAX)
            .saturating_sub(ALIGN),
    };
    let divided = match operands.fit() {
        true => None,
        false => operands.divided(),
    };
    divided.unwrap_or_else(|| vec![operands.whole()])
}

/// How the output is made of rows.
#[derive(Debug, Clone, Copy)]
struct Frame {
    /// Extent of the first axis.
    items: usize,
    /// Rows of an item.
    rows: usize,
    /// All axes but the last are rows, there is one item.
    flat: bool,
}

struct Operands<'a> {
    op: &'a Op,
    ins: Vec<(Vec<usize>, DType)>,
    out: Vec<usize>,
    /// Bytes of an operand that can be bound at any place.
    most: usize,
}

fn elements(shape: &[usize]) -> usize {
    shape.iter().product()
}

fn everything(shape: &[usize]) -> Slice {
    Slice {
        start: 0,
        shape: shape.to_vec(),
    }
}

impl Operands<'_> {
    fn fit(&self) -> bool {
        let weights = self.op.weight_inputs();
        let ins = self.ins.iter().enumerate();
        let mut ins = ins.filter(|(i, _)| !weights.contains(i));
        ins.all(|(_, (shape, dtype))| elements(shape) * dtype.bytes() <= self.most)
            && elements(&self.out) * size_of::<f32>() <= self.most
    }

    fn whole(&self) -> Part {
        Part {
            op: self.op.clone(),
            ins: self.ins.iter().map(|(s, _)| everything(s)).collect(),
            out: everything(&self.out),
        }
    }

    fn divided(&self) -> Option<Vec<Part>> {
        use Role::{Item, Row, Time, Whole};
        let flat = Frame {
            items: 1,
            rows: elements(&self.out) / self.out.last()?,
            flat: true,
        };
        let framed = Frame {
            items: self.out[0],
            rows: *self.out.get(1).unwrap_or(&1),
            flat: false,
        };
        let n = self.ins.len();
        let first = |others: Role| {
            let mut roles = vec![others; n];
            roles[0] = Row;
            roles
        };
        // Positions of rotations belong to the time, or to every item's own.
        let angles = |i: usize| if self.ins[i].0.len() == 3 { Row } else { Time };
        match *self.op {
            Op::Add | Op::Mul | Op::Silu | Op::Combine { .. } => self.rows(flat, &vec![Row; n]),
            Op::AddVector
            | Op::MulVector
            | Op::Snake
            | Op::RmsNorm { .. }
            | Op::Linear
            | Op::SwiGlu
            | Op::Embed => self.rows(flat, &first(Whole)),
            Op::Modulate | Op::MulRows => self.rows(framed, &first(Item)),
            Op::GatedAdd => self.rows(framed, &[Row, Row, Item]),
            Op::RmsNormModulate { .. } => self.rows(framed, &[Row, Whole, Item, Item]),
            Op::SelectByMask => self.rows(framed, &[Row; 3]),
            Op::RepeatAdd => self.rows(framed, &[Item, Time]),
            Op::Rope => self.rows(framed, &[Row, angles(1), angles(2)]),
            Op::NormRope { .. } => self.rows(framed, &[Row, Whole, angles(2), angles(3)]),
            // Queries of a window or of causal attention must know where they stand.
            Op::Attention { mask: Mask::Full } => self.rows(framed, &first(Item)),
            Op::Attention { .. } => self.items(framed, &first(Item)),
            Op::Conv1d { .. } | Op::SnakeConv1d { .. } => self.convolved(),
            Op::ConvTranspose1d { .. } | Op::SnakeConvTranspose1d { .. } => self.transposed(),
            _ => None,
        }
    }

    /// Bytes that rows and items of the largest operands have: per row, per item.
    fn sizes(&self, frame: Frame, roles: &[Role]) -> (usize, usize) {
        let (b, t) = (frame.items, frame.rows);
        let out = elements(&self.out) * size_of::<f32>();
        let (mut row, mut item) = (out / (b * t), out / b);
        for ((shape, dtype), role) in self.ins.iter().zip(roles) {
            let bytes = elements(shape) * dtype.bytes();
            match role {
                Role::Row => {
                    row = row.max(bytes / (b * t));
                    item = item.max(bytes / b);
                }
                Role::Item => item = item.max(bytes / b),
                Role::Time => row = row.max(bytes / t),
                Role::Whole => {}
            }
        }
        (row.max(1), item.max(1))
    }

    /// Groups of whole items.
    fn items(&self, frame: Frame, roles: &[Role]) -> Option<Vec<Part>> {
        let (_, item) = self.sizes(frame, roles);
        let most = self.most / item;
        (most > 0).then(|| {
            let firsts = (0..frame.items).step_by(most);
            firsts
                .map(|b| b..(b + most).min(frame.items))
                .map(|items| self.part(frame, roles, items, 0..frame.rows))
                .collect()
        })
    }

    /// Groups of whole items, or rows of one item where not even one fits.
    fn rows(&self, frame: Frame, roles: &[Role]) -> Option<Vec<Part>> {
        let (row, item) = self.sizes(frame, roles);
        if self.most / item > 0 {
            return self.items(frame, roles);
        }
        let most = self.most / row;
        (most > 0).then(|| {
            (0..frame.items)
                .flat_map(|b| (0..frame.rows).step_by(most).map(move |t| (b, t)))
                .map(|(b, t)| self.part(frame, roles, b..b + 1, t..(t + most).min(frame.rows)))
                .collect()
        })
    }

    /// Some rows of some items.
    fn part(&self, frame: Frame, roles: &[Role], items: Range<usize>, rows: Range<usize>) -> Part {
        let row = |shape: &[usize]| {
            let each = elements(shape) / (frame.items * frame.rows);
            let shape = match frame.flat {
                true => vec![rows.len(), each],
                false => [&[items.len(), rows.len()], &shape[2..]].concat(),
            };
            Slice {
                start: (items.start * frame.rows + rows.start) * each,
                shape,
            }
        };
        let leading = |shape: &[usize], range: &Range<usize>| Slice {
            start: range.start * (elements(shape) / shape[0]),
            shape: [&[range.len()], &shape[1..]].concat(),
        };
        let ins = self.ins.iter().zip(roles);
        let ins = ins.map(|((shape, _), role)| match role {
            Role::Row => row(shape),
            Role::Item => leading(shape, &items),
            Role::Time => leading(shape, &rows),
            Role::Whole => everything(shape),
        });
        Part {
            op: self.op.clone(),
            ins: ins.collect(),
            out: row(&self.out),
        }
    }

    /// Outputs `out.start..out.end` of item `b` made of inputs `input.start..input.end`.
    fn stretch(&self, op: Op, b: usize, input: Range<usize>, out: Range<usize>) -> Part {
        let slice = |shape: &[usize], range: &Range<usize>| Slice {
            start: (b * shape[1] + range.start) * shape[2],
            shape: vec![1, range.len(), shape[2]],
        };
        let mut ins: Vec<_> = self.ins.iter().map(|(s, _)| everything(s)).collect();
        ins[0] = slice(&self.ins[0].0, &input);
        Part {
            op,
            ins,
            out: slice(&self.out, &out),
        }
    }

    /// Rows of input and output that fit.
    fn fitting(&self) -> (usize, usize) {
        let row = |shape: &[usize]| self.most / (shape[2] * size_of::<f32>()).max(1);
        (row(&self.ins[0].0), row(&self.out))
    }

    fn convolved(&self) -> Option<Vec<Part>> {
        let (weights, dilation, stride, pad) = match *self.op {
            Op::Conv1d {
                dilation,
                stride,
                pad,
            } => (1, dilation, stride, pad),
            Op::SnakeConv1d { dilation, pad } => (3, dilation, 1, pad),
            _ => return None,
        };
        let reach = dilation * (self.ins[weights].0[1] - 1);
        let (tin, tout) = (self.ins[0].0[1], self.out[1]);
        let (most_in, most_out) = self.fitting();
        let most = most_out.min(most_in.checked_sub(reach + 1)? / stride + 1);
        (most > 0).then(|| {
            (0..self.out[0])
                .flat_map(|b| (0..tout).step_by(most).map(move |t| (b, t)))
                .map(|(b, t)| {
                    let end = (t + most).min(tout);
                    let from = (t * stride).saturating_sub(pad);
                    let to = ((end - 1) * stride + reach + 1).saturating_sub(pad);
                    let pad = pad.saturating_sub(t * stride);
                    let op = match self.op {
                        Op::SnakeConv1d { .. } => Op::SnakeConv1d { dilation, pad },
                        _ => Op::Conv1d {
                            dilation,
                            stride,
                            pad,
                        },
                    };
                    self.stretch(op, b, from..to.min(tin).max(from), t..end)
                })
                .collect()
        })
    }

    /// Input rows m make outputs `m stride - pad ..`; a stretch begins where m does.
    fn transposed(&self) -> Option<Vec<Part>> {
        let (weights, stride, pad) = match *self.op {
            Op::ConvTranspose1d { stride, pad } => (1, stride, pad),
            Op::SnakeConvTranspose1d { stride, pad } => (3, stride, pad),
            _ => return None,
        };
        let before = self.ins[weights].0[0].div_ceil(stride) - 1;
        let (tin, tout) = (self.ins[0].0[1], self.out[1]);
        let (most_in, most_out) = self.fitting();
        let most = (most_out / stride).min(most_in.saturating_sub(before));
        let all = (tout - 1 + pad) / stride + 1;
        (most > 0).then(|| {
            (0..self.out[0])
                .flat_map(|b| (0..all).step_by(most).map(move |m| (b, m)))
                .filter_map(|(b, m)| {
                    let from = m.saturating_sub(before);
                    let start = (m * stride).saturating_sub(pad);
                    let end = ((m + most) * stride).saturating_sub(pad).min(tout);
                    let pad = pad + start - from * stride;
                    let op = match self.op {
                        Op::SnakeConvTranspose1d { .. } => Op::SnakeConvTranspose1d { stride, pad },
                        _ => Op::ConvTranspose1d { stride, pad },
                    };
                    let input = from.min(tin)..(m + most).min(tin);
                    (start < end).then(|| self.stretch(op, b, input, start..end))
                })
                .collect()
        })
    }
}
