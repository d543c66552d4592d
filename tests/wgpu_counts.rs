//! How often the device is asked for something in a step: one submission, and nothing allocated
//! or read back but sampled tokens.

use engine::backend::{Backend, Device};
use engine::models::language_model::Head;
use engine::sample::denoise::{Condition, Job, Network, denoise};
use engine::sample::noise::StepNoise;
use engine::song::language_model::LanguageModel;
use engine::song::loaded::LoadedDit;
use engine::song::{Guidance, NoWatch, Sampling, Solver};
use engine::weights::Checkpoints;
use shaders::{Counts, Options, WgpuBackend};
use std::path::Path;
use std::sync::Arc;
use tests::adapter::{self, MATH};
use tests::random::Random;
use tests::requests::plain_sampling;

fn since(before: Counts, now: Counts) -> Counts {
    Counts {
        submissions: now.submissions - before.submissions,
        allocations: now.allocations - before.allocations,
        reads: now.reads - before.reads,
        dispatches: now.dispatches - before.dispatches,
        cut_weights: now.cut_weights - before.cut_weights,
    }
}

fn normal(name: &str, n: usize) -> Vec<f32> {
    let mut random = Random::named(name);
    (0..n).map(|_| random.normal()).collect()
}

/// Counts before every evaluation of the network, and behind the loop.
fn counted(backend: &WgpuBackend, tree: &Path, model: &str, sampling: &Sampling) -> Vec<Counts> {
    let (frames, rows) = (40, 12);
    let dit = LoadedDit::open(model, &tree.join(model), MATH).expect("the model opens");
    let c = &dit.config;
    let latents = normal("start", frames * c.audio_acoustic_hidden_dim);
    let context = frames * (c.in_channels - c.audio_acoustic_hidden_dim);
    let condition = Condition {
        packed: &normal("condition", rows * c.encoder_hidden_size),
        rows,
        lengths: &[rows as i32],
        context: &normal("context", context),
    };
    let schedule: Vec<f32> = (0..sampling.steps)
        .map(|i| 1.0 - i as f32 / sampling.steps as f32)
        .collect();
    let job = Job {
        batch: 1,
        frames,
        schedule: &schedule,
        sampling,
        start: &latents,
        noise: &latents,
        step_noise: StepNoise::Given(&[]),
        conditions: &[condition],
        switch_step: usize::MAX,
        repaint: None,
    };
    let net = Network {
        backend,
        config: c,
        weights: &dit.weights,
        math: MATH,
    };
    let mut seen = Vec::new();
    let mut see = |_: usize, _: f32, _: &engine::backend::Region| {
        seen.push(backend.counts());
        Ok(())
    };
    denoise(net, &job, &NoWatch, Some(&mut see)).expect("latents");
    seen.push(backend.counts());
    seen
}

#[test]
fn a_step_is_one_submission_without_allocation_or_read() {
    let Some(backend) = adapter::open(&Options::default()) else {
        return;
    };
    let (_folder, tree) = adapter::demo_tree();
    let steps = 8;
    let plain = plain_sampling(steps);
    let guided = Sampling {
        guidance_scale: 5.0,
        velocity_ema_factor: 0.1,
        ..plain.clone()
    };
    let angles = Sampling {
        guidance: Guidance::Adg,
        ..guided.clone()
    };
    let heun = Sampling {
        solver: Solver::Heun,
        ..plain.clone()
    };
    for (name, model, sampling) in [
        ("turbo", "acestep-v15-turbo", plain),
        ("guided", "acestep-v15-base", guided),
        ("angles", "acestep-v15-base", angles),
        ("Heun", "acestep-v15-base", heun),
    ] {
        let seen = counted(&backend, &tree, model, &sampling);
        let evaluations = seen.len() - 1;
        assert!(evaluations >= steps, "{name}");
        // What the loop recorded last goes to the device with the copy of its result.
        let whole = since(seen[0], seen[evaluations]);
        println!("{name}: {steps} steps, {evaluations} evaluations of the network: {whole:?}");
        assert_eq!(whole.submissions, steps as u64, "{name}");
        assert_eq!(whole.reads, 1, "{name}: the latents, once");
        let inside = since(seen[0], seen[evaluations - 1]);
        assert_eq!((inside.allocations, inside.reads), (0, 0), "{name}");
        if evaluations > steps {
            continue;
        }
        // A step is submitted when the next one begins.
        for step in 1..evaluations - 1 {
            let one = since(seen[step], seen[step + 1]);
            let [submissions, allocations, reads] = [one.submissions, one.allocations, one.reads];
            println!(
                "{name}, step {step}: {submissions} submissions, {allocations} allocations, {reads} reads"
            );
            assert_eq!(
                (submissions, allocations, reads),
                (1, 0, 0),
                "{name}, step {step}"
            );
        }
    }
}

#[test]
fn a_token_is_one_submission_and_one_read() {
    let Some(backend) = adapter::open(&Options::default()) else {
        return;
    };
    let backend = Arc::new(backend);
    let tree = Path::new(env!("CARGO_MANIFEST_DIR")).join("goldens/tiny");
    let tree = Checkpoints::open(&tree).expect("there is a tree");
    let device = Device {
        backend: backend.clone() as Arc<dyn Backend>,
        math: MATH,
    };
    let lm = LanguageModel::open(&tree, None, device).expect("the model opens");
    let mut session = lm.session(2, 64).expect("memory");
    for row in 0..2 {
        let fed = session.feed(row, &[1, 2, 3][row..], Head::None, &NoWatch);
        fed.expect("is read");
    }
    session.step(0, &[4, 5], Head::Full).expect("steps");
    for token in 6..16 {
        let before = backend.counts();
        session.step(0, &[token, token], Head::Full).expect("steps");
        let one = since(before, backend.counts());
        println!("token {token} of two rows: {one:?}");
        assert_eq!((one.submissions, one.allocations, one.reads), (1, 0, 1));
    }
}
