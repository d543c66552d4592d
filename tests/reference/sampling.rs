//! Guidance and the wavelet correction.

use super::{Tensor, U, Want};
use engine::program::{Dcw, DcwMode, Op};

/// The result, or `None` when the operation belongs elsewhere.
pub fn evaluate(op: &Op, ins: &[Tensor], scalars: &[f64]) -> Option<Want> {
    Some(match *op {
        Op::Apg {
            scale,
            momentum,
            limit,
            eta,
        } => {
            let [momentum, limit, eta] = [momentum, limit, eta].map(f64::from);
            apg(ins, scalars[scale.0], momentum, limit, eta)
        }
        Op::Adg {
            scale,
            t,
            clip,
            renorm,
        } => adg(ins, scalars[scale.0], scalars[t.0], clip, renorm),
        Op::ClampNorm { limit } => clamp_norm(ins, f64::from(limit)),
        Op::Dcw { ref dcw, t } => correct(ins, dcw, scalars[t.0]),
        _ => return None,
    })
}

/// Every column (one channel of one item along time) of equally shaped tensors through `f`, whose
/// results are put back in place.
fn columns(ins: &[Tensor], mut f: impl FnMut(&[Vec<f64>]) -> Vec<(f64, f64)>) -> Want {
    let shape = &ins[0].shape;
    let (b, t, c) = (shape[0], shape[1], shape[2]);
    let mut want = Want {
        data: vec![0.0; b * t * c],
        slack: vec![0.0; b * t * c],
    };
    for item in 0..b {
        for ch in 0..c {
            let at = |i: usize| (item * t + i) * c + ch;
            let columns: Vec<Vec<f64>> = ins
                .iter()
                .map(|x| (0..t).map(|i| x.data[at(i)]).collect())
                .collect();
            for (i, (value, slack)) in f(&columns).into_iter().enumerate() {
                want.data[at(i)] = value;
                want.slack[at(i)] = slack;
            }
        }
    }
    want
}

fn norm(x: &[f64]) -> f64 {
    x.iter().map(|x| x * x).sum::<f64>().sqrt()
}

fn apg(ins: &[Tensor], g: f64, momentum: f64, limit: f64, eta: f64) -> Want {
    let average = |x: &[Vec<f64>]| -> Vec<(f64, f64)> {
        (0..x[0].len())
            .map(|i| {
                let sizes = x[0][i].abs() + x[1][i].abs() + (momentum * x[2][i]).abs();
                (x[0][i] - x[1][i] + momentum * x[2][i], 3.0 * U * sizes)
            })
            .collect()
    };
    let averages = columns(ins, average);
    let mut want = columns(ins, |x| {
        let c = &x[0];
        let (d, slack): (Vec<f64>, Vec<f64>) = average(x).into_iter().unzip();
        let s = if limit > 0.0 {
            (limit / norm(&d)).min(1.0)
        } else {
            1.0
        };
        let hat = 1.0 / norm(c).max(1e-12);
        let along: f64 = d.iter().zip(c).map(|(d, c)| s * d * c * hat).sum();
        let along_slack: f64 = slack
            .iter()
            .zip(c)
            .map(|(e, c)| s * e * c.abs() * hat)
            .sum();
        (0..c.len())
            .map(|i| {
                let parallel = (1.0 - eta) * along * c[i] * hat;
                let slack = s * slack[i]
                    + along_slack * c[i].abs() * hat
                    + 8.0 * U * ((s * d[i]).abs() + parallel.abs());
                let v = c[i] + (g - 1.0) * (s * d[i] - parallel);
                (
                    v,
                    (g - 1.0).abs() * slack + 4.0 * U * (c[i].abs() + v.abs()),
                )
            })
            .collect()
    });
    want.data.extend(averages.data);
    want.slack.extend(averages.slack);
    want
}

fn adg(ins: &[Tensor], scale: f64, t: f64, clip: bool, renorm: bool) -> Want {
    let (x, c, u) = (&ins[0], &ins[1], &ins[2]);
    let (mut cleans, mut slacks) = (Vec::new(), Vec::new());
    for r in 0..x.rows() {
        let clean = |p: &Tensor| -> Vec<f64> {
            x.row(r)
                .iter()
                .zip(p.row(r))
                .map(|(x, p)| x - t * p)
                .collect()
        };
        let (a, b) = (clean(c), clean(u));
        let dot = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
        let cos = dot(&a, &b) / (norm(&a) * norm(&b));
        let theta = cos.clamp(-1.0 + 1e-6, 1.0 - 1e-6).acos();
        let w = (scale - 1.0).max(0.0) + 1e-3;
        let widest = match (clip, renorm) {
            (false, _) => f64::INFINITY,
            // The reference's own rounded fractions of pi.
            (true, false) => 314.0 / 600.0,
            (true, true) => 314.0 / 300.0,
        };
        let angle = (w * theta).clamp(-widest, widest);
        let d: Vec<f64> = a.iter().zip(&b).map(|(a, b)| a - b).collect();
        let k = dot(&d, &b) / (dot(&b, &b) + 1e-8);
        let f = if theta.sin() > 1e-3 {
            angle.sin() / theta.sin()
        } else {
            w
        };
        cleans.extend((0..a.len()).map(|i| angle.cos() * a[i] + f * (d[i] - k * b[i])));
        // The angle comes from sums of squares over the frame; what it is off by moves both factors.
        let off = 4.0 * U + (8.0 + (a.len() as f64).sqrt()) * U * theta;
        let sine = theta.sin();
        let f_off = off * (w * angle.cos().abs() / sine + angle.sin().abs() / (sine * sine));
        let f_off = if sine > 1e-3 && angle.abs() < widest {
            f_off
        } else {
            off / sine.max(1e-3)
        };
        slacks.extend((0..a.len()).map(|i| {
            let across = d[i].abs() + (k * b[i]).abs();
            let inputs = x.row(r)[i].abs() + t * (c.row(r)[i].abs() + u.row(r)[i].abs());
            8.0 * U * (angle.cos().abs() * a[i].abs() + f.abs() * across)
                + 2.0 * U * (1.0 + f.abs()) * inputs
                + w * off * angle.sin().abs() * a[i].abs()
                + f_off * across
        }));
    }
    let clean = Tensor {
        shape: x.shape.clone(),
        dtype: x.dtype,
        data: cleans,
    };
    let conditional = Tensor {
        shape: x.shape.clone(),
        dtype: x.dtype,
        data: x.data.iter().zip(&c.data).map(|(x, c)| x - t * c).collect(),
    };
    let slack = Tensor {
        shape: x.shape.clone(),
        dtype: x.dtype,
        data: slacks,
    };
    rescaled([x, &clean, &conditional, &slack], t, renorm)
}

/// The velocity towards a clean sample that has, per channel, the norm over time of the conditional
/// one, where `renorm` asks for it. Columns: latent, clean, conditional, error of clean.
fn rescaled(columns_of: [&Tensor; 4], t: f64, renorm: bool) -> Want {
    let columns_of = columns_of.map(|p| Tensor {
        shape: p.shape.clone(),
        dtype: p.dtype,
        data: p.data.clone(),
    });
    columns(&columns_of, |p| {
        let ratio = if renorm {
            norm(&p[2]) / norm(&p[1])
        } else {
            1.0
        };
        (0..p[0].len())
            .map(|i| {
                let clean = ratio * p[1][i];
                (
                    (p[0][i] - clean) / t,
                    (6.0 * U * (p[0][i].abs() + clean.abs()) + ratio * p[3][i]) / t,
                )
            })
            .collect()
    })
}

fn clamp_norm(ins: &[Tensor], limit: f64) -> Want {
    let (v, x) = (&ins[0], &ins[1]);
    let item = v.data.len() / v.shape[0];
    let mut want = Want::default();
    for (v, x) in v.data.chunks(item).zip(x.data.chunks(item)) {
        let f = (limit * (norm(x) + 1e-10) / (norm(v) + 1e-10)).min(1.0);
        v.iter()
            .for_each(|v| want.push(v * f, 4.0 * U * (v * f).abs()));
    }
    want
}

/// Both signals are taken apart and put together again, as the original does.
fn correct(ins: &[Tensor], dcw: &Dcw, t: f64) -> Want {
    let (low, high) = (f64::from(dcw.low), f64::from(dcw.high));
    let filter: Vec<f64> = dcw.filter.iter().map(|&f| f64::from(f)).collect();
    let n = filter.len();
    // Synthesis filters: the low-pass is the analysis filter reversed, the high-pass alternates.
    let rec_low: Vec<f64> = filter.iter().rev().copied().collect();
    let rec_high: Vec<f64> = (0..n)
        .map(|i| if i % 2 == 0 { filter[i] } else { -filter[i] })
        .collect();
    let dec_high: Vec<f64> = rec_high.iter().rev().copied().collect();
    columns(ins, |p| {
        let (x, y) = (&p[0], &p[1]);
        if dcw.mode == DcwMode::Pixel {
            return (0..x.len())
                .map(|i| {
                    (
                        x[i] + low * (x[i] - y[i]),
                        4.0 * U * (x[i].abs() + y[i].abs()),
                    )
                })
                .collect();
        }
        let (mut xl, yl) = (analyse(x, &filter), analyse(y, &filter));
        let (mut xh, yh) = (analyse(x, &dec_high), analyse(y, &dec_high));
        let (l, h) = match dcw.mode {
            DcwMode::Low => (t * low, 0.0),
            DcwMode::High => (0.0, (1.0 - t) * low),
            _ => (t * low, (1.0 - t) * high),
        };
        xl.iter_mut().zip(&yl).for_each(|(x, y)| *x += l * (*x - y));
        xh.iter_mut().zip(&yh).for_each(|(x, y)| *x += h * (*x - y));
        let size = x.iter().chain(y).fold(0f64, |m, v| m.max(v.abs()));
        (0..x.len())
            .map(|i| {
                let value: f64 = (0..xl.len())
                    .filter_map(|k| {
                        let j = (i + n - 2).checked_sub(2 * k).filter(|&j| j < n)?;
                        Some(xl[k] * rec_low[j] + xh[k] * rec_high[j])
                    })
                    .sum();
                // Taps stored as f32 are orthonormal to f32 only.
                (value, (8.0 + n as f64) * U * size)
            })
            .collect()
    })
}

/// Every second sample of the convolution of a signal, continued with zeros, with a filter.
fn analyse(x: &[f64], filter: &[f64]) -> Vec<f64> {
    let padded = x.len() + x.len() % 2;
    (0..(padded + filter.len() - 1) / 2)
        .map(|k| {
            filter
                .iter()
                .enumerate()
                .filter_map(|(j, f)| Some(f * x.get((2 * k + 1).checked_sub(j)?)?))
                .sum()
        })
        .collect()
}
