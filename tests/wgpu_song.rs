//! Whole stages and a whole song on the WebGPU backend, a software driver in CI.

use engine::backend::cpu::CpuBackend;
use engine::backend::{Backend, Device};
use engine::program::Math;
use engine::sample::noise::NoiseKind;
use engine::song::{Engine, EngineOptions, NoWatch, SongRequest};
use server::verify::{Line, Options, verify};
use shaders::WgpuBackend;
use std::path::Path;
use std::sync::Arc;
use tests::requests::plain_sampling;

/// The first device, which must be there where CI is set.
fn backend() -> Option<Arc<dyn Backend>> {
    match WgpuBackend::open(0) {
        Ok(backend) => Some(Arc::new(backend)),
        Err(error) => {
            assert!(std::env::var_os("CI").is_none(), "{error}");
            eprintln!("skipped: no adapter: {error}");
            None
        }
    }
}

/// Parts of names of golden files, one or more of every network; all of them take minutes on a
/// software driver: `acestep verify --goldens tests/goldens --built-only --backend wgpu`.
const STAGES: [&str; 12] = [
    "text_encoder",
    "turbo/condition_encoder",
    "turbo/lyric_encoder",
    "turbo/timbre_encoder",
    "tokenizer",
    "dit_forward",
    "traj_ode_adg",
    "traj_heun",
    "traj_sde",
    "dcw",
    "lm/lm_",
    "vae",
];

#[test]
fn every_network_agrees_with_the_reference_tensors() {
    let Some(backend) = backend() else { return };
    for (math, stages) in [(Math::F32, &STAGES[..]), (Math::Bf16, &STAGES[5..6])] {
        for stage in stages {
            let options = Options {
                goldens: Path::new(env!("CARGO_MANIFEST_DIR")).join("goldens"),
                backend: backend.clone(),
                math,
                filter: Some((*stage).to_owned()),
                built_only: true,
            };
            let mut bad = Vec::new();
            let mut see = |line: &Line| {
                if matches!(line, Line::Compared { pass: false, .. }) {
                    bad.push(line.to_string());
                }
            };
            let totals = verify(&options, &mut see).expect("there is a tree");
            assert!(totals.passed > 0, "{stage}");
            assert_eq!(totals.failed, 0, "{stage} {math:?}: {}", bad.join("\n"));
            assert!(totals.by_definition.is_empty(), "{stage}: {totals:?}");
        }
    }
}

/// How far `read` is below `wanted`, in decibels.
fn signal_to_error(wanted: &[f32], read: &[f32]) -> f64 {
    assert_eq!(wanted.len(), read.len());
    let power = |x: f32| f64::from(x) * f64::from(x);
    let signal: f64 = wanted.iter().map(|x| power(*x)).sum();
    let error: f64 = wanted.iter().zip(read).map(|(x, y)| power(x - y)).sum();
    10.0 * (signal / error.max(f64::MIN_POSITIVE)).log10()
}

#[test]
fn a_song_is_that_of_the_processor() {
    let Some(gpu) = backend() else { return };
    let dir = tempfile::tempdir().expect("a folder");
    let tree = dir.path().join("demo");
    engine::weights::demo::demo(&tree).expect("written");
    let cpu: Arc<dyn Backend> = Arc::new(CpuBackend::new(2, None).expect("the processor opens"));
    let [cpu, gpu] = [cpu, gpu].map(|backend| {
        let mut engine = Engine::open(EngineOptions {
            checkpoints: tree.clone(),
            device: Device {
                backend,
                math: Math::F32,
            },
            lm_device: None,
            noise: NoiseKind::default(),
        })
        .expect("the tree opens");
        let request = SongRequest {
            caption: "upbeat pop".into(),
            lyrics: "[verse]\nla la".into(),
            duration_s: Some(5.2),
            ..SongRequest::new("acestep-v15-turbo", vec![5], plain_sampling(2))
        };
        let mut song = engine.make(&request, &NoWatch).expect("a song");
        song.items.swap_remove(0)
    });
    let latents = signal_to_error(&cpu.latents, &gpu.latents);
    assert!(latents > 80.0, "{latents} dB");
    let pcm = signal_to_error(&cpu.pcm, &gpu.pcm);
    assert!(pcm > 60.0, "{pcm} dB");
}
