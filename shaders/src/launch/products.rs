//! Linears, convolutions, transposed convolutions, gated pairs of linears: one product (see
//! `product.wgsl`), in one of several ways (see [`super::ways`]).

use super::elementwise::snake_into_scratch;
use super::tokens::{Block, row_block, row_blocks};
use super::ways::{Size, Way, way};
use super::{Launch, Operand, Part, Room, View, folded, switch, word};
use crate::kernels::{self, Const, Piece, Shader, Variant};
use engine::program::{DType, Op};
use engine::{Error, Result};

/// One product.
#[derive(Clone)]
struct Product {
    /// Left operand and its offset.
    left: (Operand, u32),
    /// Weights among the inputs.
    weights: usize,
    bias: Option<usize>,
    /// The second matrix of a gated pair among the inputs.
    second: Option<usize>,
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
            let pair = Product {
                second: Some(2),
                ..linear(view, 1, None)
            };
            Ok(pair.launches(view))
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
        second: None,
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

/// Floats of scratch space that a linear takes: one output per share of its summands.
pub fn share_elements(part: &Part, room: &Room) -> usize {
    let cin = part.ins[0].shape.last().copied().unwrap_or(1);
    let rows = part.ins[0].shape.iter().product::<usize>() / cin;
    let size = Size::linear(rows, part.ins[1].shape[0], cin);
    match way(&size, room) {
        Way::Tiled(tile) if tile.splits > 1 => tile.splits * size.rows * size.columns,
        _ => 0,
    }
}

impl Product {
    /// One launch, or one per block of columns where the weights exceed a binding, and the sum of
    /// shares.
    fn launches(self, view: &View) -> Vec<Launch> {
        let weights = view.ins[self.weights];
        let way = way(&self.size(view), &view.room);
        let mut launches = match self.second {
            // Of transposed weights columns do not lie together; these are small.
            None if self.transposed => {
                let block = Block {
                    first: 0,
                    rows: self.n,
                    bytes: 0..0,
                    offset: weights.offset,
                };
                vec![self.launch(view, &way, &block, Operand::In(self.weights), None)]
            }
            None => row_blocks(&weights, view.room.binding)
                .iter()
                .map(|block| {
                    let part = Operand::Part(self.weights, block.bytes.clone());
                    self.launch(view, &way, block, part, None)
                })
                .collect(),
            Some(second) => self.pair(view, &way, second),
        };
        if let Way::Tiled(tile) = way
            && tile.splits > 1
        {
            launches.push(self.sum(view, tile.splits));
        }
        launches
    }

    fn size(&self, view: &View) -> Size {
        // Its shares have scratch space by the same size: see `share_elements`.
        if *view.op == Op::Linear {
            return Size::linear(self.rows, self.n, self.cin);
        }
        Size {
            items: self.items,
            phases: self.phases,
            taps: self.taps,
            rows: self.rows,
            columns: self.n,
            depth: self.taps.div_ceil(self.phases) * self.cin,
            pair: self.second.is_some(),
            splits: false,
        }
    }

    /// The launches of both matrices, cut at the same rows.
    fn pair(&self, view: &View, way: &Way, second: usize) -> Vec<Launch> {
        let (a, b) = (view.ins[self.weights], view.ins[second]);
        let mut launches = Vec::new();
        let mut first = 0;
        while first < self.n {
            let most = row_block(&a, view.room.binding, first, usize::MAX).rows;
            let other = row_block(&b, view.room.binding, first, most);
            let block = row_block(&a, view.room.binding, first, other.rows);
            let part = Operand::Part(self.weights, block.bytes.clone());
            first += block.rows;
            launches.push(self.launch(view, way, &block, part, Some((second, other))));
        }
        launches
    }

    /// The columns of which `block` are the rows of the weights.
    fn launch(
        &self,
        view: &View,
        way: &Way,
        block: &Block,
        weights: Operand,
        second: Option<(usize, Block)>,
    ) -> Launch {
        let (first, n) = (block.first, block.rows);
        let stored = view.ins[self.weights].dtype;
        let bias = self.bias.map(|i| view.ins[i]);
        let shares = matches!(way, Way::Tiled(tile) if tile.splits > 1);
        let (out, oo) = match shares {
            true => (Operand::Scratch, 0),
            false => (Operand::Out, view.out.offset),
        };
        let other = second.as_ref().map_or(0, |(_, block)| block.offset);
        let form = Form {
            stored,
            read: self.reading(way, stored, [block.offset, other]),
            quads_out: [n, self.n, oo as usize + first].iter().all(quadruple),
            one_tap: self.taps == 1,
            transposed: self.transposed,
            bias: bias.is_some() && !shares,
            round: view.round,
            pair: second.is_some(),
            subgroups: view.room.subgroups,
        };
        let (third, ob) = match second {
            Some((i, block)) => (Operand::Part(i, block.bytes), block.offset),
            None => (
                self.bias.map_or(Operand::In(0), Operand::In),
                bias.map_or(0, |b| b.offset) + word(first),
            ),
        };
        Launch {
            variant: form.variant(way),
            operands: vec![self.left.0.clone(), weights, third, Operand::In(0), out],
            words: vec![
                self.left.1,
                block.offset,
                ob,
                oo + word(first),
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
            groups: way.groups(&self.size(view), n),
        }
    }

    /// How operands can be read, for weights that begin at these elements of their bindings.
    fn reading(&self, way: &Way, stored: DType, weights: [u32; 2]) -> Reading {
        let pieces = 16 / stored.bytes();
        let all = |of: usize| {
            let sizes = [self.cin, weights[0] as usize, weights[1] as usize];
            (self.left.1 as usize).is_multiple_of(4) && sizes.iter().all(|n| n.is_multiple_of(of))
        };
        match way {
            Way::Few(_) if all(pieces) => Reading::Pieces,
            Way::Few(_) => Reading::PiecesOfWords,
            _ if all(4) => Reading::Quads,
            _ => Reading::Words,
        }
    }

    /// The sum of the shares that lie in scratch space.
    fn sum(&self, view: &View, splits: usize) -> Launch {
        let bias = self.bias.map(|i| view.ins[i]);
        Launch {
            variant: sum_variant(splits, bias.is_some()),
            operands: vec![
                Operand::Scratch,
                self.bias.map_or(Operand::In(0), Operand::In),
                Operand::Out,
            ],
            words: vec![
                bias.map_or(0, |b| b.offset),
                view.out.offset,
                word(self.rows * self.n),
                word(self.n),
            ],
            groups: folded((self.rows * self.n).div_ceil(256)),
        }
    }
}

fn quadruple(n: &usize) -> bool {
    n.is_multiple_of(4)
}

fn sum_variant(splits: usize, bias: bool) -> Variant {
    let variant = Variant::new(&kernels::PRODUCT_SUM).with("SPLITS", Const::U32(word(splits)));
    switch(variant, "BIAS", bias)
}

/// How operands are read.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Reading {
    Quads,
    Words,
    Pieces,
    PiecesOfWords,
}

/// What a product's text depends on beside its way.
#[derive(Debug, Clone, Copy)]
struct Form {
    stored: DType,
    read: Reading,
    quads_out: bool,
    one_tap: bool,
    transposed: bool,
    bias: bool,
    round: bool,
    pair: bool,
    subgroups: bool,
}

impl Form {
    fn variant(&self, way: &Way) -> Variant {
        let (shader, sizes) = self.shader(way);
        let switches = [
            ("ONE_TAP", self.one_tap),
            ("TRANSPOSED", self.transposed),
            ("ROUND", self.round),
            ("STORED_BF16", self.stored == DType::BF16),
            ("BIAS", self.bias),
        ];
        let few = matches!(way, Way::Few(_));
        let mut variant = Variant::new(shader).stored(self.stored);
        for (name, on) in switches {
            variant = switch(variant, name, on);
        }
        for (name, n) in sizes {
            variant = variant.with(name, Const::U32(word(n)));
        }
        for piece in self.pieces(few, matches!(way, Way::Few(_) | Way::Narrow(_))) {
            variant = variant.including(piece);
        }
        variant
    }

    fn shader(&self, way: &Way) -> (&'static Shader, Vec<(&'static str, usize)>) {
        let either = |one, two| if self.pair { two } else { one };
        match *way {
            Way::Tiled(tile) => (
                either(&kernels::PRODUCT_TILED, &kernels::PAIR_TILED),
                vec![
                    ("BM", tile.rows),
                    ("BN", tile.columns),
                    ("TX", tile.side),
                    ("SPLITS", tile.splits),
                ],
            ),
            Way::Direct => (
                either(&kernels::PRODUCT_DIRECT, &kernels::PAIR_DIRECT),
                Vec::new(),
            ),
            Way::Lanes => (
                either(&kernels::PRODUCT_LANES, &kernels::PAIR_LANES),
                Vec::new(),
            ),
            Way::Few(rows) => (
                either(&kernels::PRODUCT_FEW, &kernels::PAIR_FEW),
                vec![("ROWS", rows)],
            ),
            Way::Narrow(columns) => (&kernels::PRODUCT_NARROW, vec![("COLUMNS", columns)]),
        }
    }

    fn pieces(&self, few: bool, sums: bool) -> Vec<&'static Piece> {
        let mut pieces: Vec<&'static Piece> = match self.read {
            Reading::Quads => vec![&kernels::QUADS],
            Reading::Words => vec![&kernels::WORDS],
            Reading::Pieces => vec![&kernels::PIECES],
            Reading::PiecesOfWords => vec![&kernels::WORDS, &kernels::PIECES_OF_WORDS],
        };
        pieces.push(if self.pair {
            &kernels::PAIR
        } else {
            &kernels::SINGLE
        });
        pieces.push(if self.quads_out && !few {
            &kernels::OUT_QUADS
        } else {
            &kernels::OUT_WORDS
        });
        if sums {
            pieces.push(super::sums(self.subgroups));
        }
        pieces
    }
}

pub fn variants() -> Vec<Variant> {
    let mut all = vec![sum_variant(4, true), sum_variant(2, false)];
    for stored in [DType::F32, DType::BF16, DType::F16] {
        for way in super::ways::examples() {
            for (i, pair) in [false, true, false].into_iter().enumerate() {
                let few = matches!(way, Way::Few(_));
                let narrow = matches!(way, Way::Narrow(_));
                if narrow && pair {
                    continue;
                }
                let form = Form {
                    stored,
                    read: match (few, i) {
                        (true, 0) => Reading::PiecesOfWords,
                        (true, _) => Reading::Pieces,
                        (false, 0) => Reading::Words,
                        (false, _) => Reading::Quads,
                    },
                    quads_out: i > 0,
                    one_tap: few || pair,
                    transposed: !few && i == 2,
                    bias: i == 0,
                    round: i == 1,
                    pair,
                    subgroups: i < 2,
                };
                all.push(form.variant(&way));
            }
        }
    }
    all
}
