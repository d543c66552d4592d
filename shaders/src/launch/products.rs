//! Linears, convolutions, transposed convolutions: one product (see `product.wgsl`).

use super::elementwise::snake_into_scratch;
use super::tokens::{Block, row_blocks};
use super::{Launch, Operand, View, folded, switch, word};
use crate::kernels::{PRODUCT_FEW, PRODUCT_TILED, Shader, Variant};
use engine::program::{DType, Op};
use engine::{Error, Result};

/// Most rows for which weights are read once for four rows, without tiles.
const FEW: usize = 16;

/// One product.
#[derive(Clone)]
struct Product {
    /// Left operand and its offset.
    left: (Operand, u32),
    /// Weights among the inputs.
    weights: usize,
    bias: Option<usize>,
    /// Multiplied with the silu of what lies in scratch space.
    gated: bool,
    out: (Operand, u32),
    transposed: bool,
    items: usize,
    cin: usize,
    taps: usize,
    n: usize,
    tin: usize,
    rows: usize,
    step: i32,
    dil: i32,
    off: i32,
    phases: usize,
    pad: usize,
    tout: usize,
}

pub fn launches(view: &View) -> Result<Vec<Launch>> {
    let own = (Operand::In(0), view.ins[0].offset);
    let snaked = (Operand::Scratch, 0);
    match *view.op {
        Op::Linear => {
            let bias = (view.ins.len() > 2).then_some(2);
            Ok(linear(view, 1, bias).launches(view))
        }
        Op::SwiGlu => {
            let mut gate = linear(view, 1, None);
            gate.out = (Operand::Scratch, 0);
            let mut up = linear(view, 2, None);
            up.gated = true;
            Ok([gate.launches(view), up.launches(view)].concat())
        }
        Op::Conv1d {
            dilation,
            stride,
            pad,
        } => {
            let bias = (view.ins.len() > 2).then_some(2);
            Ok(conv(view, own, 1, bias, [dilation, stride, pad]).launches(view))
        }
        Op::SnakeConv1d { dilation, pad } => {
            let bias = (view.ins.len() > 4).then_some(4);
            let product = conv(view, snaked, 3, bias, [dilation, 1, pad]);
            Ok([vec![snake_into_scratch(view)], product.launches(view)].concat())
        }
        Op::ConvTranspose1d { stride, pad } => {
            Ok(transposed(view, own, 1, stride, pad).launches(view))
        }
        Op::SnakeConvTranspose1d { stride, pad } => {
            let product = transposed(view, snaked, 3, stride, pad);
            Ok([vec![snake_into_scratch(view)], product.launches(view)].concat())
        }
        ref other => Err(Error::Bug(format!("{} is no product", other.name()))),
    }
}

fn linear(view: &View, weights: usize, bias: Option<usize>) -> Product {
    let cin = view.ins[0].width();
    let rows = view.ins[0].len() / cin;
    Product {
        left: (Operand::In(0), view.ins[0].offset),
        weights,
        bias,
        gated: false,
        out: (Operand::Out, view.out.offset),
        transposed: false,
        items: 1,
        cin,
        taps: 1,
        n: view.ins[weights].shape[0],
        tin: rows,
        rows,
        step: 1,
        dil: 0,
        off: 0,
        phases: 1,
        pad: 0,
        tout: rows,
    }
}

fn conv(
    view: &View,
    left: (Operand, u32),
    weights: usize,
    bias: Option<usize>,
    [dilation, stride, pad]: [usize; 3],
) -> Product {
    let (x, w) = (view.ins[0].shape, view.ins[weights].shape);
    let tout = view.out.shape[1];
    Product {
        left,
        items: x[0],
        cin: x[2],
        taps: w[1],
        n: w[0],
        tin: x[1],
        rows: tout,
        step: stride as i32,
        dil: dilation as i32,
        off: -(pad as i32),
        tout,
        ..linear(view, weights, bias)
    }
}

fn transposed(
    view: &View,
    left: (Operand, u32),
    weights: usize,
    stride: usize,
    pad: usize,
) -> Product {
    let (x, w) = (view.ins[0].shape, view.ins[weights].shape);
    let tout = view.out.shape[1];
    Product {
        left,
        transposed: true,
        items: x[0],
        cin: x[2],
        taps: w[0],
        n: w[1],
        tin: x[1],
        // Outputs t = m stride + r - pad.
        rows: (tout - 1 + pad) / stride + 1,
        dil: -1,
        phases: stride,
        pad,
        tout,
        ..linear(view, weights, Some(weights + 1))
    }
}

impl Product {
    /// One launch, or one per block of columns where the weights exceed a binding.
    fn launches(self, view: &View) -> Vec<Launch> {
        let weights = view.ins[self.weights];
        // Of transposed weights columns do not lie together; these are small.
        if self.transposed {
            let n = self.n;
            let block = Block {
                first: 0,
                rows: n,
                bytes: 0..0,
                offset: weights.offset,
            };
            return vec![self.launch(view, &block, Operand::In(self.weights))];
        }
        row_blocks(&weights, view.room.binding)
            .iter()
            .map(|block| {
                let part = Operand::Part(self.weights, block.bytes.clone());
                self.launch(view, block, part)
            })
            .collect()
    }

    /// The columns of which `block` are the rows of the weights.
    fn launch(&self, view: &View, block: &Block, weights: Operand) -> Launch {
        let (first, n) = (block.first, block.rows);
        let stored = view.ins[self.weights];
        let few = self.items == 1 && self.phases == 1 && self.rows <= FEW && self.taps == 1;
        let bias = self.bias.map(|i| view.ins[i]);
        let vector = [self.cin, self.left.1 as usize, block.offset as usize]
            .iter()
            .all(|x| x.is_multiple_of(4));
        let shader = if few { &PRODUCT_FEW } else { &PRODUCT_TILED };
        let switches = [
            vector,
            bias.is_some(),
            self.gated,
            self.transposed,
            view.round,
        ];
        let groups = if few {
            let mut groups = folded(n.div_ceil(4));
            groups[2] = word(self.rows.div_ceil(4));
            groups
        } else {
            [
                word(n.div_ceil(64)),
                word(self.rows.div_ceil(64)),
                word(self.items * self.phases),
            ]
        };
        Launch {
            variant: variant(shader, switches, stored.dtype),
            operands: vec![
                self.left.0.clone(),
                weights,
                self.bias.map_or(Operand::In(0), Operand::In),
                if self.gated {
                    Operand::Scratch
                } else {
                    Operand::In(0)
                },
                self.out.0.clone(),
            ],
            words: vec![
                self.left.1,
                block.offset,
                bias.map_or(0, |b| b.offset) + word(first),
                self.out.1 + word(first),
                word(self.cin),
                word(self.taps),
                word(n),
                word(self.tin),
                word(self.rows),
                self.step as u32,
                self.dil as u32,
                self.off as u32,
                word(self.phases),
                word(self.pad),
                word(self.tout),
                word(self.n),
            ],
            groups,
        }
    }
}

/// Switches: whole vectors, bias, gate, transposed, rounded operands.
fn variant(shader: &'static Shader, switches: [bool; 5], stored: DType) -> Variant {
    let names = ["VECTOR", "BIAS", "GATE", "TRANSPOSED", "ROUND"];
    names
        .into_iter()
        .zip(switches)
        .fold(Variant::new(shader).stored(stored), |v, (name, on)| {
            switch(v, name, on)
        })
}

pub fn variants() -> Vec<Variant> {
    let mut all = Vec::new();
    for shader in [&PRODUCT_TILED, &PRODUCT_FEW] {
        for dtype in [DType::F32, DType::BF16, DType::F16] {
            for switches in [
                [true, true, false, false, true],
                [false, false, true, false, false],
                [true, true, false, true, false],
            ] {
                all.push(variant(shader, switches, dtype));
            }
        }
    }
    all
}
