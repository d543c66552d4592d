//! Guidance, wavelet correction and time embedding of the CPU backend against the reference
//! implementation's own numbers.

use engine::backend::cpu::CpuBackend;
use engine::backend::{NoWeights, Region, prepare};
use engine::program::{Builder, Dcw, DcwMode, Math, Op, Scalar};
use engine::sample::wavelet;
use safetensors::SafeTensors;
use std::path::Path;

struct Golden(Vec<u8>);

impl Golden {
    fn open(name: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("goldens/stages")
            .join(name);
        Golden(std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())))
    }

    fn tensor(&self, name: &str) -> (Vec<usize>, Vec<f32>) {
        let file = SafeTensors::deserialize(&self.0).expect("the file is whole");
        let view = file.tensor(name).expect(name);
        let (chunks, rest) = view.data().as_chunks::<4>();
        assert!(rest.is_empty());
        (
            view.shape().to_vec(),
            chunks.iter().map(|b| f32::from_le_bytes(*b)).collect(),
        )
    }

    fn data(&self, name: &str) -> Vec<f32> {
        self.tensor(name).1
    }
}

/// Runs one operation on equally shaped inputs.
fn run(op: Op, shape: &[usize], ins: &[&[f32]], scalars: &[f32]) -> Vec<f32> {
    let backend = CpuBackend::new(2, None).expect("the processor opens");
    let mut b = Builder::new(op.name(), Math::F32);
    let names: Vec<String> = (0..ins.len()).map(|i| format!("in{i}")).collect();
    let vals: Vec<_> = names.iter().map(|n| b.input(n.as_str(), shape)).collect();
    let out = b.op(op, &vals);
    let out_shape = b.shape(out).to_vec();
    b.output("out", out);
    let program = b.finish().expect("the program is sound");
    let regions: Vec<Region> = ins
        .iter()
        .map(|x| Region::from_f32(&backend, shape, x).expect("memory"))
        .collect();
    let inputs: Vec<(&str, &Region)> = names.iter().map(String::as_str).zip(&regions).collect();
    let out = Region::zeros(&backend, &out_shape, engine::program::DType::F32).expect("memory");
    let mut ready =
        prepare(&backend, &program, &NoWeights, &inputs, &[("out", &out)]).expect("ready");
    ready.run(scalars).expect("runs");
    out.read_f32(&backend).expect("is read")
}

/// Largest difference over the largest value.
fn difference(got: &[f32], want: &[f32]) -> f32 {
    assert_eq!(got.len(), want.len());
    let size = want.iter().fold(0f32, |m, w| m.max(w.abs()));
    let worst = got.iter().zip(want).fold(0f32, |m, (g, w)| {
        let d = (g - w).abs();
        if d.is_nan() { f32::INFINITY } else { m.max(d) }
    });
    worst / size
}

#[test]
fn projected_guidance_over_three_steps() {
    let g = Golden::open("guidance.safetensors");
    let (shape, cond) = g.tensor("pred_cond");
    let uncond = g.data("pred_uncond");
    let op = Op::Apg {
        scale: Scalar(0),
        momentum: -0.75,
        limit: 2.5,
        eta: 0.0,
    };
    let n = cond.len();
    let mut average = vec![0.0; n];
    for step in 0..3 {
        let c: Vec<f32> = cond.iter().map(|c| c * (1.0 + 0.1 * step as f32)).collect();
        let out = run(op.clone(), &shape, &[&c, &uncond, &average], &[7.0]);
        let d = difference(&out[..n], &g.data(&format!("apg_step{step}")));
        assert!(d < 2e-6, "step {step}: {d:e}");
        average = out[n..].to_vec();
    }
    let d = difference(&average, &g.data("apg_momentum2"));
    assert!(d < 1e-6, "running average: {d:e}");
}

#[test]
fn angle_guidance() {
    let g = Golden::open("guidance.safetensors");
    let (shape, cond) = g.tensor("pred_cond");
    let (uncond, x) = (g.data("pred_uncond"), g.data("latents"));
    for (name, scale, t) in [
        ("adg_sigma0.9", 4.5, 0.9),
        ("adg_sigma0.35", 4.5, 0.35),
        ("adg_sigma0.02", 4.5, 0.02),
        ("adg_no_guidance", 1.0, 0.5),
    ] {
        let op = Op::Adg {
            scale: Scalar(0),
            t: Scalar(1),
            clip: true,
            renorm: false,
        };
        let out = run(op, &shape, &[&x, &cond, &uncond], &[scale, t]);
        let d = difference(&out, &g.data(name));
        // The result is a difference divided by t.
        assert!(d < 4e-7 / t, "{name}: {d:e}");
    }
}

#[test]
fn wavelet_correction_in_every_mode() {
    let g = Golden::open("dcw.safetensors");
    let (shape, x) = g.tensor("x_T31");
    let y = g.data("denoised_T31");
    // The strengths of the reference's numbers are 0.3 and 0.1 after the factor of time.
    for (name, mode, wavelet, [low, high, time]) in [
        ("haar_low_T31", DcwMode::Low, "haar", [0.3, 0.0, 1.0]),
        ("haar_high_T31", DcwMode::High, "haar", [0.3, 0.0, 0.0]),
        ("haar_double_T31", DcwMode::Double, "haar", [0.6, 0.2, 0.5]),
        ("pix_T31", DcwMode::Pixel, "haar", [0.3, 0.0, 0.5]),
        ("db4_double_T31", DcwMode::Double, "db4", [0.6, 0.2, 0.5]),
    ] {
        let filter = wavelet::filter(wavelet).expect(wavelet);
        let op = Op::Dcw {
            dcw: Dcw {
                mode,
                low,
                high,
                filter,
            },
            t: Scalar(0),
        };
        let out = run(op, &shape, &[&x, &y], &[time]);
        let d = difference(&out, &g.data(name));
        assert!(d < 5e-7, "{name}: {d:e}");
    }
}

#[test]
fn time_embedding() {
    let g = Golden::open("timestep_sinusoid.safetensors");
    let (shape, t) = g.tensor("t");
    let out = run(Op::TimeSinusoid { dim: 256 }, &shape, &[&t], &[]);
    let d = difference(&out, &g.data("emb_f32"));
    // One unit in the last place of the reference's own exponential at an angle of 1000.
    assert!(d < 3.1e-5, "{d:e}");
}
