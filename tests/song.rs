//! Whole songs on the tiny tree: what a seed, a batch and a thread count may and may not change.

use engine::backend::cpu::CpuBackend;
use engine::backend::{Backend, Bound, Buffer, Caps, HostBytes, Ready};
use engine::program::{Dcw, DcwMode, Math, Op, Program};
use engine::song::{
    Engine, Metas, Method, NoWatch, Sampling, Song, SongRequest, Stage, StageTimes, Watch,
};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tests::engines::{engine_on, tiny};
use tests::requests::plain_sampling;

fn engine(threads: usize, math: Math) -> Engine {
    let backend = CpuBackend::new(threads, None).expect("the CPU backend opens");
    tiny_on(Arc::new(backend), math)
}

fn tiny_on(backend: Arc<dyn Backend>, math: Math) -> Engine {
    engine_on(&tiny(), backend, math).expect("the tiny tree opens")
}

fn request(model: &str, seeds: &[u64]) -> SongRequest {
    SongRequest {
        caption: "upbeat pop rock with driving guitars".into(),
        lyrics: "[Verse]\nwalking down the silver road".into(),
        language: "en".into(),
        metas: Metas {
            bpm: Some(120),
            key_scale: None,
            time_signature: Some("4".into()),
        },
        duration_s: Some(5.3),
        ..SongRequest::new(
            model,
            seeds.to_vec(),
            Sampling {
                guidance_scale: 7.0,
                dcw: Some(Dcw {
                    mode: DcwMode::Double,
                    low: 0.05,
                    high: 0.02,
                    filter: vec![std::f32::consts::FRAC_1_SQRT_2; 2],
                }),
                ..plain_sampling(4)
            },
        )
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

/// A CPU that claims to have less memory than it has.
struct Small(CpuBackend, Caps);

impl Small {
    fn with(memory_bytes: u64) -> Arc<dyn Backend> {
        let cpu = CpuBackend::new(2, None).expect("the CPU backend opens");
        let caps = Caps {
            memory_bytes,
            ..cpu.caps().clone()
        };
        Arc::new(Small(cpu, caps))
    }
}

impl Backend for Small {
    fn caps(&self) -> &Caps {
        &self.1
    }
    fn claims(&self, op: &Op) -> bool {
        self.0.claims(op)
    }
    fn scratch_bytes(&self, program: &Program, step: usize) -> usize {
        self.0.scratch_bytes(program, step)
    }
    fn alloc(&self, bytes: usize) -> engine::Result<Buffer> {
        self.0.alloc(bytes)
    }
    fn adopt(&self, host: HostBytes, row_bytes: usize) -> engine::Result<Buffer> {
        self.0.adopt(host, row_bytes)
    }
    fn write(&self, to: &Buffer, offset: usize, bytes: &[u8]) -> engine::Result<()> {
        self.0.write(to, offset, bytes)
    }
    fn read(&self, from: &Buffer, offset: usize, bytes: &mut [u8]) -> engine::Result<()> {
        self.0.read(from, offset, bytes)
    }
    fn prepare(&self, bound: Bound) -> engine::Result<Box<dyn Ready>> {
        self.0.prepare(bound)
    }
}

/// Records what is reported of denoising.
struct Steps(std::sync::Mutex<Vec<(usize, usize)>>);

impl Watch for Steps {
    fn progress(&self, stage: Stage, done: usize, total: usize) {
        if stage == Stage::Diffuse {
            self.0.lock().expect("no panic").push((done, total));
        }
    }

    fn cancelled(&self) -> bool {
        false
    }
}

#[test]
fn a_batch_that_does_not_fit_is_made_one_by_one_or_refused() {
    let mut request = request("acestep-v15-turbo", &[7, 8, 9]);
    request.sampling.method = Method::Sde;
    let mut large = engine(2, Math::F32);
    let want = large.make(&request, &NoWatch).expect("a batch is made");
    let prepared = large
        .prepare(&request, &mut StageTimes::default(), &NoWatch)
        .expect("prompts are encoded");
    let needs = |at_once| {
        let needs = large.needs(&request, &prepared, at_once);
        needs.expect("the programs are sound")
    };

    let watch = Steps(std::sync::Mutex::default());
    let song = tiny_on(Small::with(needs(3) - 1), Math::F32)
        .make(&request, &watch)
        .expect("one at a time fits");
    assert_eq!(song.items, want.items);
    assert_eq!(song.times.evaluations, 3 * want.times.evaluations);
    let steps = watch.0.into_inner().expect("no panic");
    assert_eq!((steps[0], steps[steps.len() - 1]), ((0, 12), (12, 12)));
    assert!(steps.windows(2).all(|w| w[0].0 <= w[1].0), "{steps:?}");

    let refused = tiny_on(Small::with(needs(1) - 1), Math::F32).make(&request, &NoWatch);
    let Err(engine::Error::TooBig {
        needs: said,
        suggestion,
        ..
    }) = refused
    else {
        panic!("{refused:?}")
    };
    assert_eq!(said, needs(1));
    assert!(suggestion.starts_with("try batch 1"), "{suggestion}");
}

/// A VAE of another rate would make songs of a wrong length and pitch.
#[cfg(unix)]
#[test]
fn a_vae_of_another_rate_is_refused() {
    use std::os::unix::fs::symlink;
    let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("goldens/tiny");
    let config = std::fs::read_to_string(tiny.join("vae/config.json")).expect("read");
    let changed = config.replace("48000", "44100");
    assert_ne!(changed, config);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let link = |from: &Path, to: &Path| {
        for entry in std::fs::read_dir(from).expect("listed").flatten() {
            let name = entry.file_name();
            if name != "vae" && (name != "config.json" || !to.ends_with("vae")) {
                symlink(entry.path(), to.join(name)).expect("linked");
            }
        }
    };
    let vae = dir.path().join("vae");
    std::fs::create_dir(&vae).expect("made");
    link(&tiny, dir.path());
    link(&tiny.join("vae"), &vae);
    std::fs::write(vae.join("config.json"), changed).expect("written");
    let mut engine = engine_on(dir.path(), Small::with(0), Math::F32).expect("the tree opens");
    let error = engine.load("acestep-v15-turbo", &NoWatch);
    let Err(engine::Error::Corrupt(text)) = error else {
        panic!("{error:?}")
    };
    assert!(text.contains("sampling_rate"), "{text}");
}

/// Stops a job while it loads.
struct StopLoad;

impl Watch for StopLoad {
    fn progress(&self, stage: Stage, done: usize, _: usize) {
        assert!(stage == Stage::Load && done == 0, "{stage:?} {done}");
    }

    fn cancelled(&self) -> bool {
        true
    }
}

#[test]
fn a_job_stops_between_the_parts_that_it_loads() {
    let request = request("acestep-v15-turbo", &[1]);
    let stopped = engine(1, Math::F32).make(&request, &StopLoad);
    assert_eq!(stopped, Err(engine::Error::Cancelled));
}
