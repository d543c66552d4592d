//! Whole songs on the tiny tree: what a seed, a batch and a thread count may and may not change.

use engine::backend::cpu::CpuBackend;
use engine::program::{Dcw, DcwMode, Math};
use engine::sample::noise::NoiseKind;
use engine::song::{
    Engine, EngineOptions, Guidance, Metas, Method, NoWatch, Output, Sampling, Solver, Song,
    SongRequest, Stage, Watch,
};
use engine::text::prompt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

fn engine(threads: usize, math: Math) -> Engine {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("goldens/tiny");
    let backend = CpuBackend::new(threads, None).expect("the CPU backend opens");
    Engine::open(EngineOptions {
        checkpoints: root,
        backend: Arc::new(backend),
        math,
        noise: NoiseKind::default(),
    })
    .expect("the tiny tree opens")
}

fn request(model: &str, seeds: &[u64]) -> SongRequest {
    SongRequest {
        model: model.into(),
        caption: "upbeat pop rock with driving guitars".into(),
        lyrics: "[Verse]\nwalking down the silver road".into(),
        language: "en".into(),
        instruction: prompt::TEXT2MUSIC.into(),
        metas: Metas {
            bpm: Some(120),
            key_scale: None,
            time_signature: Some("4".into()),
        },
        duration_s: Some(5.3),
        seeds: seeds.to_vec(),
        sampling: Sampling {
            steps: 4,
            shift: 3.0,
            timesteps: None,
            method: Method::Ode,
            solver: Solver::Euler,
            guidance_scale: 7.0,
            guidance: Guidance::Apg,
            guidance_interval: (0.0, 1.0),
            dcw: Some(Dcw {
                mode: DcwMode::Double,
                low: 0.05,
                high: 0.02,
                filter: vec![std::f32::consts::FRAC_1_SQRT_2; 2],
            }),
            velocity_norm_threshold: 0.0,
            velocity_ema_factor: 0.0,
        },
        output: Output::default(),
    }
}

fn make(threads: usize, math: Math, request: &SongRequest) -> Song {
    engine(threads, math)
        .make(request, &NoWatch)
        .expect("a song is made")
}

#[test]
fn a_seed_is_a_song_whatever_the_threads() {
    for math in [Math::F32, Math::Bf16] {
        let request = request("acestep-v15-turbo", &[42]);
        let one = make(1, math, &request);
        assert_eq!(one.items[0].pcm.len(), 132 * 1920 * 2);
        for threads in [2, 3, 5] {
            assert_eq!(
                make(threads, math, &request).items,
                one.items,
                "{threads} threads"
            );
        }
    }
}

#[test]
fn another_seed_is_another_song() {
    let a = make(2, Math::F32, &request("acestep-v15-turbo", &[1]));
    let b = make(2, Math::F32, &request("acestep-v15-turbo", &[2]));
    assert_ne!(a.items[0].pcm, b.items[0].pcm);
}

#[test]
fn an_item_of_a_batch_equals_the_single_song_of_its_seed() {
    for (model, method) in [
        ("acestep-v15-turbo", Method::Ode),
        ("acestep-v15-turbo", Method::Sde),
        ("acestep-v15-base", Method::Ode),
        ("acestep-v15-xl-turbo", Method::Ode),
    ] {
        let with = |seeds: &[u64]| {
            let mut r = request(model, seeds);
            r.sampling.method = method;
            r
        };
        let mut engine = engine(2, Math::F32);
        let seeds = [7, 8, 9];
        let batch = engine
            .make(&with(&seeds), &NoWatch)
            .expect("a batch is made");
        for (item, seed) in batch.items.iter().zip(seeds) {
            let single = engine
                .make(&with(&[seed]), &NoWatch)
                .expect("a song is made");
            assert_eq!(*item, single.items[0], "{model} {method:?} seed {seed}");
        }
    }
}

/// Cancels after a number of denoising steps.
struct StopAfter(usize, AtomicUsize);

impl Watch for StopAfter {
    fn progress(&self, stage: Stage, done: usize, _: usize) {
        if stage == Stage::Diffuse {
            self.1.store(done, Ordering::SeqCst);
        }
    }

    fn cancelled(&self) -> bool {
        self.1.load(Ordering::SeqCst) >= self.0
    }
}

#[test]
fn a_job_stops_between_steps_and_the_engine_goes_on() {
    let mut engine = engine(2, Math::F32);
    let request = request("acestep-v15-turbo", &[1]);
    let watch = StopAfter(2, AtomicUsize::new(0));
    assert_eq!(engine.make(&request, &watch), Err(engine::Error::Cancelled));
    assert_eq!(watch.1.load(Ordering::SeqCst), 2);
    assert!(engine.make(&request, &NoWatch).is_ok());
}
