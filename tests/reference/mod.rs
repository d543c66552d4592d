//! The operations once more, as plain loops in f64 straight from their contracts: what every
//! backend is compared with.
//!
//! Beside each number stands the error that an f32 implementation may have: the unit roundoff
//! times the sizes of the terms, with a factor for the number of roundings ([`sum_slack`]).

mod moving;
mod network;
mod pointwise;
mod sampling;

use crate::cases::{Value, round_to};
use engine::program::{DType, Math, Op};

/// Unit roundoff of f32.
pub const U: f64 = 1.0 / (1u64 << 24) as f64;
/// Unit roundoff of bf16.
pub const U_BF16: f64 = 1.0 / 256.0;

/// The result of an operation and the error it may have, per element.
#[derive(Debug, Clone, Default)]
pub struct Want {
    /// Values.
    pub data: Vec<f64>,
    /// Largest absolute error; infinite where rounding decides between two answers.
    pub slack: Vec<f64>,
}

impl Want {
    fn push(&mut self, value: f64, slack: f64) {
        self.data.push(value);
        self.slack.push(slack);
    }

    /// Values that must be met to the bit.
    fn exact(data: Vec<f64>) -> Self {
        let slack = vec![0.0; data.len()];
        Want { data, slack }
    }

    /// The element of `got` that is farthest outside its slack, or the number of undecided
    /// elements when there are more than a few.
    pub fn compare(&self, got: &[f64]) -> Result<(), String> {
        if got.len() != self.data.len() {
            return Err(format!(
                "{} elements instead of {}",
                got.len(),
                self.data.len()
            ));
        }
        let undecided = self.slack.iter().filter(|s| s.is_infinite()).count();
        if undecided * 50 > got.len() {
            return Err(format!(
                "{undecided} of {} elements are undecided",
                got.len()
            ));
        }
        let mut worst: Option<(usize, f64)> = None;
        for (i, (&g, (&w, &s))) in got
            .iter()
            .zip(self.data.iter().zip(&self.slack))
            .enumerate()
        {
            let excess = if g.is_finite() {
                (g - w).abs() - s
            } else {
                f64::INFINITY
            };
            if excess > 0.0 && worst.is_none_or(|(_, e)| excess > e) {
                worst = Some((i, excess));
            }
        }
        match worst {
            None => Ok(()),
            Some((i, _)) => Err(format!(
                "element {i} is {:e}, should be {:e} within {:e}",
                got[i], self.data[i], self.slack[i]
            )),
        }
    }
}

/// Error of an f32 sum of `n` products: random-walk growth with the number of roundings, on the
/// sum of the sizes of the terms, with room for an unlucky walk.
pub fn sum_slack(n: usize, sizes: f64) -> f64 {
    (4.0 + 2.0 * (n as f64).sqrt()) * U * sizes
}

/// An input in f64.
pub struct Tensor {
    /// Extent per axis.
    pub shape: Vec<usize>,
    /// How they are stored.
    pub dtype: DType,
    /// Elements.
    pub data: Vec<f64>,
}

impl Tensor {
    fn last(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    /// Row `r` of the last axis.
    fn row(&self, r: usize) -> &[f64] {
        let c = self.last();
        &self.data[r * c..(r + 1) * c]
    }

    fn rows(&self) -> usize {
        self.data.len() / self.last()
    }

    /// The elements as operands of a product.
    fn operands(&self, math: Math) -> Vec<f64> {
        match math {
            Math::F32 => self.data.clone(),
            Math::Bf16 => self.data.iter().map(|&x| bf16(x)).collect(),
        }
    }
}

/// The nearest bf16.
fn bf16(x: f64) -> f64 {
    f64::from(round_to(x as f32, DType::BF16))
}

/// What `op` gives for these inputs.
pub fn evaluate(op: &Op, ins: &[Value], scalars: &[f32], math: Math) -> Want {
    let ins: Vec<Tensor> = ins
        .iter()
        .map(|v| Tensor {
            shape: v.shape.clone(),
            dtype: v.dtype,
            data: v.data.iter().map(|&x| f64::from(x)).collect(),
        })
        .collect();
    let scalars: Vec<f64> = scalars.iter().map(|&s| f64::from(s)).collect();
    moving::evaluate(op, &ins, &scalars)
        .or_else(|| pointwise::evaluate(op, &ins, &scalars))
        .or_else(|| network::evaluate(op, &ins, math))
        .or_else(|| sampling::evaluate(op, &ins, &scalars))
        .unwrap_or_default()
}
