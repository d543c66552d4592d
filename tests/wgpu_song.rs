//! Whole stages and a whole song on the WebGPU backend, a software driver in CI.

use engine::backend::Backend;
use engine::backend::cpu::CpuBackend;
use engine::program::Math;
use engine::song::NoWatch;
use server::verify::{Line, Options, verify};
use std::path::Path;
use std::sync::Arc;
use tests::adapter::{self, MATH, signal_to_error};
use tests::engines::engine_on;

fn backend() -> Option<Arc<dyn Backend>> {
    let opened = adapter::open(&shaders::Options::default())?;
    Some(Arc::new(opened))
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

#[test]
fn a_song_is_that_of_the_processor() {
    let Some(gpu) = backend() else { return };
    let (_folder, tree) = adapter::demo_tree();
    let cpu: Arc<dyn Backend> = Arc::new(CpuBackend::new(2, None).expect("the processor opens"));
    let [cpu, gpu] = [cpu, gpu].map(|backend| {
        let mut engine = engine_on(&tree, backend, MATH).expect("the tree opens");
        let song = engine.make(&adapter::short_song(vec![5]), &NoWatch);
        song.expect("a song").items.swap_remove(0)
    });
    let latents = signal_to_error(&cpu.latents, &gpu.latents);
    assert!(latents > 80.0, "{latents} dB");
    let pcm = signal_to_error(&cpu.pcm, &gpu.pcm);
    assert!(pcm > 60.0, "{pcm} dB");
}
