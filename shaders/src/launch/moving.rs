//! Operations that only move elements: all are runs of words from one place to another.

use super::{ALIGN, Arg, Launch, Operand, View, folded, switch, word};
use crate::kernels::{COPY, Variant};
use engine::program::{Op, Scalar};

/// Runs of words from an operand to the output.
struct Runs {
    from: Operand,
    offset: u32,
    count: usize,
    len: usize,
    in_start: usize,
    in_stride: usize,
    out_start: usize,
    out_stride: usize,
    /// The scalar that chooses among pieces of the input: size and number of the pieces.
    select: Option<(Scalar, usize, usize)>,
    zero: bool,
}

impl Runs {
    /// `count` runs of `len` words from input `i`.
    fn of(view: &View, i: usize, count: usize, len: usize) -> Self {
        Runs {
            from: Operand::In(i),
            offset: view.ins[i].offset,
            count,
            len,
            in_start: 0,
            in_stride: len,
            out_start: 0,
            out_stride: len,
            select: None,
            zero: false,
        }
    }

    /// One launch, or several where an operand exceeds a binding.
    fn launches(self, view: &View) -> Vec<Launch> {
        let most = usize::try_from(view.room.binding).unwrap_or(usize::MAX) / 4;
        // Aligned parts begin before their first word.
        let most = most.saturating_sub(ALIGN / 4);
        let fits = |arg: &Arg| arg.len() + arg.offset as usize <= most;
        if self.select.is_some() || (view.ins.iter().all(fits) && fits(&view.out)) {
            return vec![self.launch(view)];
        }
        let len = self.len.min(most).max(1);
        // As many runs as lie within one binding on either side.
        let within = |stride: usize| {
            (most - len)
                .checked_div(stride)
                .map_or(usize::MAX, |n| n + 1)
        };
        let runs = match self.len > most {
            true => 1,
            false => within(self.in_stride).min(within(self.out_stride)),
        };
        let mut launches = Vec::new();
        for run in (0..self.count).step_by(runs.clamp(1, self.count)) {
            for from in (0..self.len).step_by(len) {
                let count = runs.min(self.count - run);
                launches.push(self.part(view, run, count, from, len.min(self.len - from)));
            }
        }
        launches
    }

    /// Words `from..from + len` of runs `run..run + count`.
    fn part(&self, view: &View, run: usize, count: usize, from: usize, len: usize) -> Launch {
        // The bytes of these words, from a multiple of the alignment on, and the words before.
        let bind = |offset: u32, start: usize, stride: usize| {
            let at = offset as usize + start + run * stride + from;
            let begin = at * 4 / ALIGN * ALIGN;
            let end = (at + (count - 1) * stride + len) * 4;
            (begin..end, word(at - begin / 4))
        };
        let (read, offset) = bind(self.offset, self.in_start, self.in_stride);
        let (written, out) = bind(view.out.offset, self.out_start, self.out_stride);
        let runs = Runs {
            from: match &self.from {
                Operand::In(i) => Operand::Part(*i, read),
                other => other.clone(),
            },
            offset,
            count,
            len,
            in_start: 0,
            in_stride: self.in_stride,
            out_start: 0,
            out_stride: self.out_stride,
            select: None,
            zero: self.zero,
        };
        let mut launch = runs.launch(view);
        launch.operands[1] = Operand::OutPart(written);
        launch.words[1] = out;
        launch
    }

    fn launch(self, view: &View) -> Launch {
        let total = self.count * self.len;
        let (scalar, step, count) = self.select.unwrap_or((Scalar(0), 0, 1));
        Launch {
            variant: variant(self.zero, self.select.is_some()),
            operands: vec![self.from, Operand::Out, Operand::Scalars],
            words: vec![
                self.offset,
                view.out.offset,
                word(total),
                word(self.len),
                word(self.in_start),
                word(self.in_stride),
                word(self.out_start),
                word(self.out_stride),
                word(scalar.0),
                word(step),
                word(count),
            ],
            groups: folded(total.div_ceil(256)),
        }
    }
}

fn variant(zero: bool, select: bool) -> Variant {
    switch(switch(Variant::new(&COPY), "ZERO", zero), "SELECT", select)
}

/// Copies `words` words between operands outside of a step: see [`crate::exec`].
pub fn copy(words: usize, from: u32, to: u32) -> (Variant, Vec<u32>, [u32; 3]) {
    let words_ = word(words);
    (
        variant(false, false),
        vec![from, to, words_, words_, 0, words_, 0, words_, 0, 0, 1],
        folded(words.div_ceil(256)),
    )
}

pub fn launches(view: &View) -> Vec<Launch> {
    let out = view.out;
    // Elements of an item of axis 0.
    let item = |shape: &[usize]| shape[1..].iter().product::<usize>();
    let runs: Vec<Runs> = match *view.op {
        Op::ConcatChannels => joined(view, out.len() / out.width(), |shape| {
            shape.last().copied().unwrap_or(1)
        }),
        Op::ConcatRows => joined(view, out.shape[0], item),
        Op::SliceRows { start, len } => {
            let shape = view.ins[0].shape;
            let mut runs = Runs::of(view, 0, shape[0], len * shape[2]);
            runs.in_start = start * shape[2];
            runs.in_stride = item(shape);
            vec![runs]
        }
        Op::PadRows { rows } => {
            let shape = view.ins[0].shape;
            let mut kept = Runs::of(view, 0, shape[0], item(shape));
            kept.out_stride = item(out.shape);
            let mut zeros = Runs::of(view, 0, shape[0], rows * shape[2]);
            zeros.zero = true;
            // Nothing is read.
            zeros.from = Operand::Scalars;
            zeros.out_start = item(shape);
            zeros.out_stride = item(out.shape);
            vec![kept, zeros]
        }
        Op::SelectRow { index, rows } => {
            let shape = view.ins[0].shape;
            let mut runs = Runs::of(view, 0, rows, shape[1]);
            runs.in_stride = 0;
            runs.select = Some((index, shape[1], shape[0]));
            vec![runs]
        }
        Op::SelectSlab { index } => {
            let mut runs = Runs::of(view, 0, 1, out.len());
            runs.select = Some((index, out.len(), view.ins[0].shape[0]));
            vec![runs]
        }
        // A row in front of every item.
        _ => {
            let shape = view.ins[0].shape;
            let mut token = Runs::of(view, 1, shape[0], shape[2]);
            token.in_stride = 0;
            token.out_stride = item(out.shape);
            let mut rest = Runs::of(view, 0, shape[0], item(shape));
            rest.out_start = shape[2];
            rest.out_stride = item(out.shape);
            vec![token, rest]
        }
    };
    runs.into_iter()
        .filter(|runs| runs.len > 0)
        .flat_map(|runs| runs.launches(view))
        .collect()
}

/// Inputs side by side: `count` runs of each, of the length that `len` gives.
fn joined(view: &View, count: usize, len: impl Fn(&[usize]) -> usize) -> Vec<Runs> {
    let stride = len(view.out.shape);
    let mut at = 0;
    let each = view.ins.iter().enumerate().map(|(i, input)| {
        let own = len(input.shape);
        let mut runs = Runs::of(view, i, count, own);
        runs.out_start = at;
        runs.out_stride = stride;
        at += own;
        runs
    });
    each.collect()
}

pub fn variants() -> Vec<Variant> {
    vec![
        variant(false, false),
        variant(true, false),
        variant(false, true),
    ]
}
