//! Parts of the denoising loop alone: how predictions are combined, the wavelet correction.

use super::bench::Bench;
use super::golden::{Array, Golden};
use super::report::{Kind, Reporter};
use super::sampler::dcw_mode;
use engine::backend::{HostData, NoWeights};
use engine::program::{Builder, Dcw, DcwMode, Math, Op, Val};
use engine::sample::update::{Guide, guided, scalars, slot};
use engine::sample::wavelet;
use engine::{Error, Result};
use serde_json::Value;

/// Time of the angle-based cases whose name states none.
const ADG_TIME: f32 = 0.5;
/// Kept parallel share of the case without momentum and limit.
const PLAIN_ETA: f32 = 0.3;

/// How a case combines predictions.
#[derive(Clone, Copy)]
enum How {
    /// As the loop does.
    Loop(Guide),
    /// Projected guidance without running average and limit.
    PlainApg,
    /// Angle-based guidance with the reference's switches.
    Adg { clip: bool, renorm: bool },
}

impl How {
    /// Appends the combination of `[x, c, u, avg]`.
    fn append(self, p: &mut Builder, [x, c, u, avg]: [Val; 4]) -> Val {
        match self {
            How::Loop(kind) => guided(p, kind, x, c, Some(u)),
            How::Adg { clip, renorm } => {
                let (scale, t) = (slot::GUIDE, slot::EVAL_T);
                p.op(
                    Op::Adg {
                        scale,
                        t,
                        clip,
                        renorm,
                    },
                    &[x, c, u],
                )
            }
            How::PlainApg => {
                let shape = p.shape(c).to_vec();
                let rows = shape[0] * shape[1];
                let (scale, eta) = (slot::GUIDE, PLAIN_ETA);
                let op = Op::Apg {
                    scale,
                    momentum: 0.0,
                    limit: 0.0,
                    eta,
                };
                let both = p.op(op, &[c, u, avg]);
                let flat = p.reshape(both, &[1, 2 * rows, shape[2]]);
                let v = p.op(
                    Op::SliceRows {
                        start: 0,
                        len: rows,
                    },
                    &[flat],
                );
                p.reshape(v, &shape)
            }
        }
    }
}

/// One combination of predictions.
#[derive(Clone, Copy)]
struct Combination<'a> {
    how: How,
    x: &'a Array,
    c: &'a [f32],
    u: &'a [f32],
    average: &'a [f32],
    scale: f32,
    t: f32,
}

impl Combination<'_> {
    /// The velocity, and the running average where there is one.
    fn run(&self, b: &Bench) -> Result<(Vec<f32>, Option<Vec<f32>>)> {
        let mut p = Builder::new("guidance", Math::F32);
        let vals = ["x", "c", "u", "given_avg"].map(|name| p.input(name, &self.x.shape));
        let v = self.how.append(&mut p, vals);
        p.output("v", v);
        let mut scalars = scalars(self.scale, 0.0);
        scalars[slot::EVAL_T.0] = self.t;
        let inputs = [
            ("x", HostData::F32(&self.x.data)),
            ("c", HostData::F32(self.c)),
            ("u", HostData::F32(self.u)),
            ("given_avg", HostData::F32(self.average)),
            ("avg", HostData::F32(self.average)),
        ];
        let mut out = b.run(p.finish()?, &NoWeights, &inputs, &scalars)?;
        let average = out.take_f32("avg").ok();
        Ok((out.take_f32("v")?, average))
    }
}

/// Guidance as the loop combines predictions, and with the reference's other switches.
pub fn guidance(b: &Bench, g: &Golden, r: &mut Reporter) -> Result<()> {
    let (c, u, x) = (
        g.array("pred_cond")?,
        g.array("pred_uncond")?,
        g.array("latents")?,
    );
    let [..]: [usize; 3] = x.dims("latents")?;
    if c.shape != u.shape || c.shape != x.shape {
        return Err(Error::Corrupt(
            "predictions and latents differ in shape".into(),
        ));
    }
    let apg = g.number("guidance_scale_apg").unwrap_or(7.0) as f32;
    let adg = g.number("guidance_scale_adg").unwrap_or(4.5) as f32;
    let zeros = vec![0f32; c.data.len()];
    let plain = Combination {
        how: How::Loop(Guide::Apg),
        x: &x,
        c: &c.data,
        u: &u.data,
        average: &zeros,
        scale: apg,
        t: ADG_TIME,
    };
    running_average(b, g, r, plain)?;
    let angle = Combination {
        how: How::Loop(Guide::Adg),
        scale: adg,
        ..plain
    };
    let mut cases = vec![
        (
            "apg_nomomentum_eta",
            Combination {
                how: How::PlainApg,
                ..plain
            },
        ),
        (
            "cfg_plain",
            Combination {
                how: How::Loop(Guide::Cfg),
                ..plain
            },
        ),
        (
            "adg_no_guidance",
            Combination {
                scale: 1.0,
                ..angle
            },
        ),
        (
            "adg_identical",
            Combination {
                u: &c.data,
                ..angle
            },
        ),
    ];
    for (name, clip, renorm) in [("adg_norm", true, true), ("adg_noclip", false, false)] {
        cases.push((
            name,
            Combination {
                how: How::Adg { clip, renorm },
                ..angle
            },
        ));
    }
    for name in g.names().filter(|n| n.starts_with("adg_sigma")) {
        let t = name["adg_sigma".len()..].parse();
        let t = t.map_err(|_| Error::Corrupt(format!("{name}: no time in the name")))?;
        cases.push((name, Combination { t, ..angle }));
    }
    for (name, case) in cases.iter().filter(|(name, _)| g.has(name)) {
        r.compare(name, &case.run(b)?.0, &g.array(name)?, Kind::BlockF32);
    }
    Ok(())
}

/// Consecutive calls that share one running average; call i sees `(1 + 0.1 i)` times the
/// conditional prediction.
fn running_average(b: &Bench, g: &Golden, r: &mut Reporter, plain: Combination) -> Result<()> {
    let mut average = plain.average.to_vec();
    for i in 0.. {
        let name = format!("apg_step{i}");
        if !g.has(&name) {
            break;
        }
        let factor = 1.0 + 0.1 * i as f32;
        let c: Vec<f32> = plain.c.iter().map(|c| c * factor).collect();
        let (v, next) = Combination {
            c: &c,
            average: &average,
            ..plain
        }
        .run(b)?;
        r.compare(&name, &v, &g.array(&name)?, Kind::BlockF32);
        average = next.unwrap_or_default();
        let name = format!("apg_momentum{i}");
        if g.has(&name) {
            r.compare(&name, &average, &g.array(&name)?, Kind::BlockF32);
        }
    }
    Ok(())
}

/// The wavelet correction with recorded strengths: names are `WAVELET_MODE_T*` and `pix_T*`.
pub fn dcw(b: &Bench, g: &Golden, r: &mut Reporter) -> Result<()> {
    let number = |key: &str| g.number(key).unwrap_or(0.3) as f32;
    let double: Vec<f32> = g
        .params
        .get("double")
        .and_then(Value::as_array)
        .map_or_else(
            || vec![0.3, 0.1],
            |list| {
                list.iter()
                    .filter_map(Value::as_f64)
                    .map(|x| x as f32)
                    .collect()
            },
        );
    for name in g.names() {
        let Some((stem, length)) = name.rsplit_once("_T") else {
            continue;
        };
        if ["x", "denoised"].contains(&stem) {
            continue;
        }
        let (base, mode) = stem.rsplit_once('_').unwrap_or(("haar", stem));
        let (Some(mode), Some(filter)) = (dcw_mode(mode), wavelet::filter(base)) else {
            r.fault(format!("{name}: no such correction"));
            continue;
        };
        // The operation scales its bands by t and 1 - t; the file holds plain strengths.
        let (t, low, high) = match mode {
            DcwMode::Low => (1.0, number("low"), 0.0),
            DcwMode::High => (0.0, number("high"), 0.0),
            DcwMode::Pixel => (1.0, number("pix"), 0.0),
            DcwMode::Double => {
                let [low, high] = double[..] else {
                    return Err(Error::Corrupt("parameter double is not a pair".into()));
                };
                (0.5, 2.0 * low, 2.0 * high)
            }
        };
        let x = g.array(&format!("x_T{length}"))?;
        let y = g.array(&format!("denoised_T{length}"))?;
        let mut p = Builder::new("dcw", Math::F32);
        let vals = [p.input("x", &x.shape), p.input("y", &y.shape)];
        let out = p.dcw(
            vals[0],
            vals[1],
            Dcw {
                mode,
                low,
                high,
                filter,
            },
            engine::program::Scalar(0),
        );
        p.output("out", out);
        let inputs = [("x", HostData::F32(&x.data)), ("y", HostData::F32(&y.data))];
        let mut out = b.run(p.finish()?, &NoWeights, &inputs, &[t])?;
        r.compare(name, &out.take_f32("out")?, &g.array(name)?, Kind::BlockF32);
    }
    Ok(())
}
