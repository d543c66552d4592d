//! Networks with hashed weights and inputs, and the comparison with what was recorded of them.

use engine::backend::cpu::CpuBackend;
use engine::backend::{HostData, run_once};
use engine::models::config::DitConfig;
use engine::models::dit::{self, TimeFrom, VelocityShape};
use engine::models::{audio_tokens, condition};
use engine::program::{Math, Program};
use engine::song::encode::ConditionEncoder;
use engine::weights::checkpoint::stored_tensors;
use engine::weights::{Checkpoint, WeightStore};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// Limit for one pass, as a share of the largest magnitude.
pub const PASS: f64 = 2e-5;
/// Limit for a denoising loop.
pub const LOOP: f64 = 1e-4;

fn u(name: &str, i: usize) -> f64 {
    let h = name.bytes().fold(0x811c_9dc5u32, |h, b| {
        (h ^ u32::from(b)).wrapping_mul(0x0100_0193)
    });
    let mut x = (i as u32).wrapping_mul(0x9E37_79B1).wrapping_add(h);
    x = (x ^ (x >> 16)).wrapping_mul(0x7feb_352d);
    x = (x ^ (x >> 15)).wrapping_mul(0x846c_a68b);
    x ^= x >> 16;
    f64::from(x) / 4_294_967_296.0 * 2.0 - 1.0
}

pub fn hashed(name: &str, n: usize, scale: f64) -> Vec<f32> {
    (0..n).map(|i| (u(name, i) * scale) as f32).collect()
}

/// Element `i` of a weight of the diffusion models and the text encoder.
pub fn weight(name: &str, axes: usize, i: usize) -> f32 {
    let u = u(name, i);
    match axes {
        1 if name.contains("norm") => 1.0 + 0.3 * u as f32,
        1 => (u * 0.1) as f32,
        _ => (u * 0.2) as f32,
    }
}

/// Element `i` of a weight of the autoencoder.
pub fn vae_weight(name: &str, _: usize, i: usize) -> f32 {
    let u = u(name, i);
    match name.rsplit('.').next() {
        Some("weight_v") => u as f32,
        Some("weight_g") => 0.55 + 0.15 * u as f32,
        Some("bias") => (u * 0.1) as f32,
        _ => (u * 0.3) as f32,
    }
}

/// A checkpoint with every weight the programs declare.
pub fn store(programs: &[Program], value: fn(&str, usize, usize) -> f32) -> WeightStore {
    let mut wanted = BTreeMap::new();
    for decl in programs.iter().flat_map(Program::weights) {
        wanted.extend(stored_tensors(decl));
    }
    let data: Vec<(String, Vec<usize>, Vec<u8>)> = wanted
        .into_iter()
        .map(|(name, shape)| {
            let n: usize = shape.iter().product();
            let values = (0..n).flat_map(|i| value(&name, shape.len(), i).to_le_bytes());
            let bytes = values.collect();
            (name, shape, bytes)
        })
        .collect();
    let views = data.iter().map(|(name, shape, bytes)| {
        let view = TensorView::new(Dtype::F32, shape.clone(), bytes).expect("sizes agree");
        (name.as_str(), view)
    });
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("model.safetensors");
    safetensors::serialize_to_file(views, None, &path).expect("the checkpoint is written");
    // The mapping outlives the directory's entry.
    WeightStore::new(Arc::new(
        Checkpoint::open(&path).expect("the checkpoint opens"),
    ))
}

pub fn backend() -> CpuBackend {
    CpuBackend::new(2, None).expect("the CPU backend opens")
}

pub fn recorded(file: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("goldens/hash")
        .join(file);
    let bytes = std::fs::read(path).expect("the file is read");
    serde_json::from_slice(&bytes).expect("the file is JSON")
}

pub fn numbers(v: &Value) -> Vec<f64> {
    v.as_array()
        .expect("a list")
        .iter()
        .map(|x| x.as_f64().expect("a number"))
        .collect()
}

/// Compares with values that carry about seven digits, relative to the largest magnitude.
pub fn close(what: &str, ours: &[f32], theirs: &[f64], absmax: f64, limit: f64) {
    assert_eq!(ours.len(), theirs.len(), "{what}");
    for (i, (a, b)) in ours.iter().zip(theirs).enumerate() {
        let off = (f64::from(*a) - b).abs();
        assert!(
            off <= limit * absmax,
            "{what}: element {i} is {a}, expected {b}"
        );
    }
}

pub fn close_to(what: &str, ours: &[f32], golden: &Value, limit: f64) {
    let absmax = golden["absmax"].as_f64().expect("a number");
    close(what, ours, &numbers(&golden["data"]), absmax, limit);
}

pub fn run(
    backend: &CpuBackend,
    program: &Program,
    weights: &WeightStore,
    inputs: &[(&str, HostData)],
    out: &str,
) -> Vec<f32> {
    let mut all = run_once(backend, program, weights, inputs, &[]).expect("the program runs");
    all.take_f32(out).expect("the output is there")
}

/// A diffusion model with hashed weights.
pub struct Model {
    pub backend: CpuBackend,
    pub config: DitConfig,
    pub weights: WeightStore,
}

impl Model {
    pub fn new(config: &Value, is_turbo: bool) -> Self {
        let mut keys = config.clone();
        keys["is_turbo"] = json!(is_turbo);
        let c = DitConfig::parse(&keys.to_string(), Path::new("config.json")).expect("a config");
        let math = Math::F32;
        let velocity = Model::shape(1, 2, 2);
        let shape = condition::PackShape {
            lyric: 1,
            timbre: 1,
            text: 1,
        };
        let programs = [
            condition::lyric_encoder(&c, math, 1, 2),
            condition::timbre_encoder(&c, math, 1, 2),
            condition::pack(&c, math, shape),
            condition::null_condition(&c, math),
            audio_tokens::audio_tokenizer(&c, 1),
            audio_tokens::audio_detokenizer(&c, 1),
            dit::time_table(&c, math, 1),
            dit::cross_kv(&c, math, 1, 2),
            dit::velocity(&c, math, velocity),
        ]
        .map(|p| p.expect("the program is written"));
        let weights = store(&programs, weight);
        Model {
            backend: backend(),
            config: c,
            weights,
        }
    }

    pub fn shape(batch: usize, frames: usize, rows: usize) -> VelocityShape {
        let time = TimeFrom::Items;
        VelocityShape {
            batch,
            frames,
            condition_rows: rows,
            guided: false,
            time,
        }
    }

    pub fn times(&self, t: &[f32]) -> (Vec<f32>, Vec<f32>) {
        let program = dit::time_table(&self.config, Math::F32, t.len()).expect("a program");
        let dt = vec![0f32; t.len()];
        let inputs = [("t", HostData::F32(t)), ("dt", HostData::F32(&dt))];
        let mut out = run_once(&self.backend, &program, &self.weights, &inputs, &[]).expect("runs");
        let mut take = |name| out.take_f32(name).expect("the output is there");
        (take("temb"), take("proj"))
    }

    /// Velocity of hashed inputs.
    pub fn velocity(&self, t: &[f32], frames: usize, rows: usize) -> Vec<f32> {
        let (c, batch) = (&self.config, t.len());
        let x = hashed("input.x", batch * frames * 64, 1.0);
        let context = hashed("input.ctx", batch * frames * 128, 1.0);
        let condition = hashed("input.enc", batch * rows * c.encoder_hidden_size, 1.0);
        let (temb, proj) = self.times(t);
        let program = dit::cross_kv(c, Math::F32, batch, rows).expect("a program");
        let inputs = [("condition", HostData::F32(&condition))];
        let mut cross =
            run_once(&self.backend, &program, &self.weights, &inputs, &[]).expect("runs");
        let kv: Vec<(String, Vec<f32>)> = (0..c.num_hidden_layers)
            .flat_map(|i| <[String; 2]>::from(dit::kv_names(i)))
            .map(|name| {
                let data = cross.take_f32(&name).expect("the output is there");
                (name, data)
            })
            .collect();
        let lengths = vec![rows as i32; batch];
        let mut inputs = vec![
            ("x", HostData::F32(&x)),
            ("context", HostData::F32(&context)),
            ("temb", HostData::F32(&temb)),
            ("proj", HostData::F32(&proj)),
            ("lengths", HostData::I32(&lengths)),
        ];
        inputs.extend(
            kv.iter()
                .map(|(name, data)| (name.as_str(), HostData::F32(data))),
        );
        let shape = Model::shape(batch, frames, rows);
        let program = dit::velocity(c, Math::F32, shape).expect("a program");
        run(&self.backend, &program, &self.weights, &inputs, "velocity")
    }

    /// The condition of item `i` from the inputs `text` and `input.lyric`, `lyrics` rows of it.
    pub fn condition(&self, text: &str, i: usize, lyrics: usize) -> Vec<f32> {
        let encoder = ConditionEncoder {
            backend: &self.backend,
            config: &self.config,
            weights: &self.weights,
            math: Math::F32,
        };
        let item = |name: &str, rows: usize, width: usize| {
            let all = hashed(name, 2 * rows * width, 1.0);
            all[i * rows * width..(i + 1) * rows * width].to_vec()
        };
        let lyric = item("input.lyric", 9, 32);
        let lyric = encoder
            .lyric(&lyric[..lyrics * 32])
            .expect("lyrics are encoded");
        let timbre = encoder
            .timbre(&item("input.ref", 12, 64), 12)
            .expect("timbre is encoded");
        encoder
            .pack(&lyric, &timbre, &item(text, 6, 32))
            .expect("the condition is packed")
    }

    pub fn codes(&self, latents: &[f32], frames: usize) -> Vec<i32> {
        let missing = frames.next_multiple_of(5) - frames;
        let silence = hashed("input.silence", 40 * 64, 1.0);
        let padded = [latents, &silence[..missing * 64]].concat();
        let groups = padded.len() / (5 * 64);
        let program = audio_tokens::audio_tokenizer(&self.config, groups).expect("a program");
        let inputs = [("latents", HostData::F32(&padded))];
        run_once(&self.backend, &program, &self.weights, &inputs, &[])
            .and_then(|mut out| out.take_i32("indices"))
            .expect("the latents are tokenised")
    }

    pub fn hints(&self, codes: &[i32], out: &str) -> Vec<f32> {
        let program =
            audio_tokens::audio_detokenizer(&self.config, codes.len()).expect("a program");
        let inputs = [("codes", HostData::I32(codes))];
        run(&self.backend, &program, &self.weights, &inputs, out)
    }
}
