//! Element-wise operations, norms and rotations.

use super::{Tensor, U, Want};
use engine::program::Op;

/// The result, or `None` when the operation belongs elsewhere.
pub fn evaluate(op: &Op, ins: &[Tensor], scalars: &[f64]) -> Option<Want> {
    match *op {
        Op::RmsNorm { .. } | Op::RmsNormModulate { .. } => return Some(norm(op, ins)),
        Op::Rope | Op::NormRope { .. } => return Some(rotate(op, ins)),
        Op::TimeSinusoid { dim } => return Some(sinusoid(&ins[0], dim)),
        Op::FsqEncode { ref levels } => return Some(encode(&ins[0], levels)),
        _ => {}
    }
    let x = &ins[0];
    let c = x.last();
    let t = if x.shape.len() == 3 { x.shape[1] } else { 1 };
    let mut want = Want::default();
    for (i, &a) in x.data.iter().enumerate() {
        let same = |n: usize| ins[n].data[i];
        let channel = |n: usize| ins[n].data[i % c];
        let item = |n: usize| ins[n].data[i / c / t * c + i % c];
        let (value, slack) = match *op {
            Op::Add => (a + same(1), U * (a + same(1)).abs()),
            Op::Mul => (a * same(1), U * (a * same(1)).abs()),
            Op::AddVector => (a + channel(1), U * (a + channel(1)).abs()),
            Op::MulVector => (a * channel(1), U * (a * channel(1)).abs()),
            Op::MulRows => (a * item(1), U * (a * item(1)).abs()),
            Op::Silu => {
                let y = a / (1.0 + (-a).exp());
                // Below -87 the exponential may saturate.
                (y, 6.0 * U * y.abs() + 1e-35)
            }
            Op::Modulate => {
                let (s, shift) = (1.0 + item(1), item(2));
                (a * s + shift, 3.0 * U * ((a * s).abs() + shift.abs()))
            }
            Op::Combine { a: fx, b: fy } => {
                let (x, y) = (scalars[fx.0] * a, scalars[fy.0] * same(1));
                (x + y, 2.0 * U * (x.abs() + y.abs()))
            }
            Op::GatedAdd => {
                let g = same(1) * item(2);
                (a + g, 2.0 * U * (a.abs() + g.abs()))
            }
            Op::Snake => snake(a, channel(1), channel(2)),
            _ => return None,
        };
        want.push(value, slack);
    }
    Some(want)
}

/// Snake and its error: the angle is rounded twice before the sine sees it.
pub fn snake(x: f64, alpha: f64, beta: f64) -> (f64, f64) {
    let z = alpha.exp() * x;
    let factor = 1.0 / (beta.exp() + 1e-9);
    let y = x + z.sin().powi(2) * factor;
    (
        y,
        factor * (3.0 * U * z.abs() + 8.0 * U) + 2.0 * U * (x.abs() + y.abs()),
    )
}

fn norm(op: &Op, ins: &[Tensor]) -> Want {
    let (Op::RmsNorm { eps } | Op::RmsNormModulate { eps }) = *op else {
        return Want::default();
    };
    let (x, w) = (&ins[0], &ins[1].data);
    let c = x.last();
    let mut want = Want::default();
    for r in 0..x.rows() {
        let row = x.row(r);
        let f = factor(row, eps);
        let roundings = 6.0 + (c as f64).sqrt();
        for (i, &x) in row.iter().enumerate() {
            let y = x * f * w[i];
            let slack = roundings * U * y.abs();
            if ins.len() == 2 {
                want.push(y, slack);
                continue;
            }
            let at = r / ins[0].shape[1] * c + i;
            let (scale, shift) = (1.0 + ins[2].data[at], ins[3].data[at]);
            let size = (y * scale).abs();
            want.push(
                y * scale + shift,
                slack * scale.abs() + 3.0 * U * (size + shift.abs()),
            );
        }
    }
    want
}

/// `rsqrt(mean square + eps)`.
fn factor(row: &[f64], eps: f32) -> f64 {
    let mean = row.iter().map(|x| x * x).sum::<f64>() / row.len() as f64;
    1.0 / (mean + f64::from(eps)).sqrt()
}

fn rotate(op: &Op, ins: &[Tensor]) -> Want {
    let x = &ins[0];
    let (heads, d) = (x.shape[2], x.shape[3]);
    let h = d / 2;
    let (cos, sin) = (&ins[ins.len() - 2], &ins[ins.len() - 1]);
    let mut want = Want::default();
    for r in 0..x.rows() {
        let mut head = x.row(r).to_vec();
        let mut roundings = 3.0;
        if let Op::NormRope { eps } = *op {
            let f = factor(&head, eps);
            head.iter_mut()
                .zip(&ins[1].data)
                .for_each(|(x, w)| *x *= f * w);
            roundings += 6.0 + (d as f64).sqrt();
        }
        // One table for all items, or one each.
        let at = r / heads % cos.rows();
        for k in 0..d {
            let (c, s) = (cos.row(at)[k % h], sin.row(at)[k % h]);
            let (own, other) = if k < h {
                (head[k] * c, -head[k + h] * s)
            } else {
                (head[k] * c, head[k - h] * s)
            };
            want.push(own + other, roundings * U * (own.abs() + other.abs()));
        }
    }
    want
}

fn sinusoid(t: &Tensor, dim: usize) -> Want {
    let half = dim / 2;
    let mut want = Want::default();
    for &t in &t.data {
        let angle = |i: usize| 1000.0 * t * (-(10_000f64.ln()) * i as f64 / half as f64).exp();
        // Slope, exponent, exponential and two products are each rounded, and a relative error of
        // the exponent counts as often as it is large.
        let slack = |a: f64| 2.0 * U + a.abs() * U * (4.0 + 3.0 * 10_000f64.ln());
        (0..half).for_each(|i| want.push(angle(i).cos(), slack(angle(i))));
        (0..half).for_each(|i| want.push(angle(i).sin(), slack(angle(i))));
    }
    want
}

fn encode(x: &Tensor, levels: &[u32]) -> Want {
    let mut want = Want::default();
    for r in 0..x.rows() {
        let (mut code, mut basis, mut decided) = (0f64, 1f64, true);
        for (&x, &levels) in x.row(r).iter().zip(levels) {
            let top = f64::from(levels - 1);
            let c = 1.0 + 1.0 / top;
            let z = (c * (x / c).tanh()).clamp(-1.0, 1.0);
            let place = top * (z + 1.0) / 2.0 + 0.5;
            // Too close to an edge for f32 to decide.
            decided &= (place - place.round()).abs() > 1e-6 * f64::from(levels);
            code += place.floor() * basis;
            basis *= f64::from(levels);
        }
        want.push(code, if decided { 0.0 } else { f64::INFINITY });
    }
    want
}
