//! Products: linears, attention, convolutions.

use super::pointwise::snake;
use super::{Tensor, U, U_BF16, Want, bf16, sum_slack};
use engine::program::{Mask, Math, Op};

/// The result, or `None` when the operation belongs elsewhere.
pub fn evaluate(op: &Op, ins: &[Tensor], math: Math) -> Option<Want> {
    Some(match *op {
        Op::Linear => linear(&ins[0], &ins[1], ins.get(2), math),
        Op::SwiGlu => {
            let gate = linear(&ins[0], &ins[1], None, math);
            let up = linear(&ins[0], &ins[2], None, math);
            let mut want = Want::default();
            for i in 0..gate.data.len() {
                let (g, u) = (gate.data[i], up.data[i]);
                let silu = g / (1.0 + (-g).exp());
                // The slope of silu is below 1.1.
                let slack = 1.1 * gate.slack[i] * u.abs() + up.slack[i] * silu.abs();
                want.push(
                    silu * u,
                    slack + 1.1 * gate.slack[i] * up.slack[i] + 8.0 * U * (silu * u).abs(),
                );
            }
            want
        }
        Op::Attention { mask } => attention(ins, mask, math),
        Op::AttentionWeights { mask, ref heads } => attention_weights(ins, mask, heads, math),
        Op::Conv1d {
            dilation,
            stride,
            pad,
        } => conv(
            &plain(&ins[0]),
            &ins[1],
            ins.get(2),
            Taps {
                dilation,
                stride,
                pad,
            },
            math,
        ),
        Op::SnakeConv1d { dilation, pad } => conv(
            &snaked(ins),
            &ins[3],
            ins.get(4),
            Taps {
                dilation,
                stride: 1,
                pad,
            },
            math,
        ),
        Op::ConvTranspose1d { stride, pad } => {
            conv_transpose(&plain(&ins[0]), &ins[1], ins.get(2), stride, pad, math)
        }
        Op::SnakeConvTranspose1d { stride, pad } => {
            conv_transpose(&snaked(ins), &ins[3], ins.get(4), stride, pad, math)
        }
        _ => return None,
    })
}

/// A product of rows with rows.
fn linear(x: &Tensor, w: &Tensor, bias: Option<&Tensor>, math: Math) -> Want {
    let (n, k) = (w.shape[0], w.shape[1]);
    let (x, w) = (x.operands(math), w.operands(math));
    let mut want = Want::default();
    for x in x.chunks(k) {
        for o in 0..n {
            let bias = bias.map_or(0.0, |b| b.data[o]);
            let terms = x.iter().zip(&w[o * k..]).map(|(x, w)| x * w);
            let (sum, size) = terms.fold((bias, bias.abs()), |(s, m), p| (s + p, m + p.abs()));
            want.push(sum, sum_slack(k, size));
        }
    }
    want
}

/// Queries, keys and what each sees of them.
struct Scores<'a> {
    q: Vec<f64>,
    k: Vec<f64>,
    lengths: Option<&'a Tensor>,
    mask: Mask,
    q_shape: &'a [usize],
    k_shape: &'a [usize],
}

/// The keys that a query sees, each with its weight, and the error that its scores may have.
struct Seen {
    weights: Vec<(usize, f64)>,
    score_slack: f64,
}

impl<'a> Scores<'a> {
    fn new(ins: &'a [Tensor], lengths: Option<&'a Tensor>, mask: Mask, math: Math) -> Self {
        Scores {
            q: ins[0].operands(math),
            k: ins[1].operands(math),
            lengths,
            mask,
            q_shape: &ins[0].shape,
            k_shape: &ins[1].shape,
        }
    }

    /// Where key (and value) `j` of the head begins.
    fn at(&self, item: usize, j: usize, head: usize) -> usize {
        let (s, g, h) = (self.k_shape[1], self.k_shape[2], self.q_shape[2]);
        ((item * s + j) * g + head / (h / g)) * self.q_shape[3]
    }

    fn of(&self, item: usize, i: usize, head: usize) -> Seen {
        let (t, h, d) = (self.q_shape[1], self.q_shape[2], self.q_shape[3]);
        let s = self.k_shape[1];
        let length = self.lengths.map_or(s, |l| l.data[item] as usize);
        let sees = |j: usize| {
            j < length
                && match self.mask {
                    Mask::Full => true,
                    Mask::Causal => j + t <= i + length,
                    Mask::Window(w) => i.abs_diff(j) <= w,
                }
        };
        let q = &self.q[((item * t + i) * h + head) * d..][..d];
        let mut scores = Vec::new();
        let mut score_slack = 0f64;
        for j in (0..s).filter(|&j| sees(j)) {
            let terms = q
                .iter()
                .zip(&self.k[self.at(item, j, head)..])
                .map(|(q, k)| q * k / (d as f64).sqrt());
            let (sum, size) = terms.fold((0.0, 0.0), |(s, m), p: f64| (s + p, m + p.abs()));
            score_slack = score_slack.max(sum_slack(d, size) + 4.0 * U * sum.abs());
            scores.push((j, sum));
        }
        let max = scores.iter().fold(f64::NEG_INFINITY, |m, s| m.max(s.1));
        let total: f64 = scores.iter().map(|s| (s.1 - max).exp()).sum();
        let weights = scores.iter().map(|(j, x)| (*j, (x - max).exp() / total));
        Seen {
            weights: weights.collect(),
            score_slack,
        }
    }
}

fn attention_weights(ins: &[Tensor], mask: Mask, heads: &[usize], math: Math) -> Want {
    let scores = Scores::new(ins, ins.get(2), mask, math);
    let (b, t, s) = (ins[0].shape[0], ins[0].shape[1], ins[1].shape[1]);
    let mut want = Want::default();
    for row in 0..b * heads.len() * t {
        let (item, head, i) = (row / t / heads.len(), row / t % heads.len(), row % t);
        let seen = scores.of(item, i, heads[head]);
        let mut weights = vec![0f64; s];
        for (j, p) in seen.weights {
            weights[j] = p;
        }
        for p in weights {
            // As for the results of attention; tiny weights may vanish.
            let slack = p * (2.0 * seen.score_slack + 8.0 * U) + sum_slack(s, p) + 1e-37;
            want.push(p, slack);
        }
    }
    want
}

fn attention(ins: &[Tensor], mask: Mask, math: Math) -> Want {
    let scores = Scores::new(ins, ins.get(3), mask, math);
    let (b, t, h, d) = match ins[0].shape[..] {
        [b, t, h, d] => (b, t, h, d),
        _ => return Want::default(),
    };
    let v = ins[2].operands(math);
    let mut want = Want::default();
    for r in 0..b * t * h {
        let (item, i, head) = (r / h / t, r / h % t, r % h);
        let seen = scores.of(item, i, head);
        for c in 0..d {
            let terms = seen
                .weights
                .iter()
                .map(|(j, p)| p * v[scores.at(item, *j, head) + c]);
            let (sum, size) = terms.fold((0.0, 0.0), |(s, m), p: f64| (s + p, m + p.abs()));
            // An error e of every score changes every weight by the factor exp(e), and its share
            // of the total as well.
            let weight =
                2.0 * seen.score_slack + 8.0 * U + if math == Math::Bf16 { U_BF16 } else { 0.0 };
            want.push(sum, weight * size + sum_slack(seen.weights.len(), size));
        }
    }
    want
}

/// An input of a convolution, with its own error.
struct Signal {
    shape: Vec<usize>,
    data: Vec<f64>,
    slack: Vec<f64>,
}

fn plain(x: &Tensor) -> Signal {
    Signal {
        shape: x.shape.clone(),
        data: x.data.clone(),
        slack: vec![0.0; x.data.len()],
    }
}

fn snaked(ins: &[Tensor]) -> Signal {
    let c = ins[0].last();
    let (data, slack) = ins[0]
        .data
        .iter()
        .enumerate()
        .map(|(i, &x)| snake(x, ins[1].data[i % c], ins[2].data[i % c]))
        .unzip();
    Signal {
        shape: ins[0].shape.clone(),
        data,
        slack,
    }
}

impl Signal {
    /// As operands of a product. A number with an error may round to either neighbour.
    fn operands(self, math: Math) -> Signal {
        if math == Math::F32 {
            return self;
        }
        let slack = self
            .data
            .iter()
            .zip(&self.slack)
            .map(|(&x, &s)| {
                if s > 0.0 {
                    s.max((bf16(x + s) - bf16(x - s)).abs())
                } else {
                    0.0
                }
            })
            .collect();
        Signal {
            shape: self.shape,
            data: self.data.iter().map(|&x| bf16(x)).collect(),
            slack,
        }
    }
}

struct Taps {
    dilation: usize,
    stride: usize,
    pad: usize,
}

fn conv(x: &Signal, w: &Tensor, bias: Option<&Tensor>, taps: Taps, math: Math) -> Want {
    let (b, t, c) = (x.shape[0], x.shape[1], x.shape[2]);
    let (cout, k) = (w.shape[0], w.shape[1]);
    let x = Signal {
        shape: x.shape.clone(),
        data: x.data.clone(),
        slack: x.slack.clone(),
    }
    .operands(math);
    let w = w.operands(math);
    let out = (t + 2 * taps.pad - taps.dilation * (k - 1) - 1) / taps.stride + 1;
    let mut want = Want::default();
    for r in 0..b * out {
        let (item, row) = (r / out, r % out);
        for o in 0..cout {
            let mut sum = Sum::new(bias, o);
            for tap in 0..k {
                let at = (row * taps.stride + tap * taps.dilation).checked_sub(taps.pad);
                let Some(at) = at.filter(|&at| at < t) else {
                    continue;
                };
                sum.products(&x, (item * t + at) * c, &w[(o * k + tap) * c..][..c]);
            }
            want.push(sum.value, sum_slack(k * c, sum.size) + sum.slack);
        }
    }
    want
}

fn conv_transpose(
    x: &Signal,
    w: &Tensor,
    bias: Option<&Tensor>,
    stride: usize,
    pad: usize,
    math: Math,
) -> Want {
    let (b, t, c) = (x.shape[0], x.shape[1], x.shape[2]);
    let (k, cout) = (w.shape[0], w.shape[1]);
    let x = Signal {
        shape: x.shape.clone(),
        data: x.data.clone(),
        slack: x.slack.clone(),
    }
    .operands(math);
    let w = w.operands(math);
    let out = (t - 1) * stride + k - 2 * pad;
    let mut want = Want::default();
    for r in 0..b * out {
        let (item, row) = (r / out, r % out);
        for o in 0..cout {
            let mut sum = Sum::new(bias, o);
            for i in 0..t {
                let Some(tap) = (row + pad).checked_sub(i * stride).filter(|&tap| tap < k) else {
                    continue;
                };
                sum.products(&x, (item * t + i) * c, &w[(tap * cout + o) * c..][..c]);
            }
            want.push(sum.value, sum_slack(k * c, sum.size) + sum.slack);
        }
    }
    want
}

/// A sum of products with the sizes of its terms.
struct Sum {
    value: f64,
    size: f64,
    slack: f64,
}

impl Sum {
    fn new(bias: Option<&Tensor>, o: usize) -> Self {
        let value = bias.map_or(0.0, |b| b.data[o]);
        Sum {
            value,
            size: value.abs(),
            slack: 0.0,
        }
    }

    fn products(&mut self, x: &Signal, at: usize, w: &[f64]) {
        for (i, w) in w.iter().enumerate() {
            let p = x.data[at + i] * w;
            self.value += p;
            self.size += p.abs();
            self.slack += x.slack[at + i] * w.abs();
        }
    }
}
