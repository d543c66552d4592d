//! Every number of the sampler and of what follows it is heard: changed alone, it changes the song.

use engine::program::{Dcw, DcwMode};
use engine::song::{
    Engine, Guidance, Method, NoWatch, Retake, Sampling, Solver, SongItem, SongRequest,
};
use tests::engines::{on_processor, tiny};
use tests::requests::plain_sampling;

fn engine() -> Engine {
    on_processor(&tiny()).expect("the tiny tree opens")
}

fn dcw(mode: DcwMode) -> Dcw {
    Dcw {
        mode,
        low: 0.05,
        high: 0.02,
        filter: vec![std::f32::consts::FRAC_1_SQRT_2; 2],
    }
}

fn request() -> SongRequest {
    let sampling = Sampling {
        guidance_scale: 4.0,
        dcw: Some(dcw(DcwMode::Double)),
        ..plain_sampling(4)
    };
    SongRequest {
        caption: "calm piano".into(),
        duration_s: Some(5.3),
        ..SongRequest::new("acestep-v15-base", vec![5], sampling)
    }
}

fn make(engine: &mut Engine, request: &SongRequest) -> SongItem {
    engine
        .make(request, &NoWatch)
        .expect("a song")
        .items
        .remove(0)
}

type Change = (&'static str, fn(&mut SongRequest));

#[test]
fn every_number_of_the_sampler_changes_the_latents() {
    let changes: [Change; 16] = [
        ("steps", |r| r.sampling.steps = 5),
        ("shift", |r| r.sampling.shift = 2.0),
        ("timesteps", |r| {
            r.sampling.timesteps = Some(vec![1.0, 0.4, 0.0])
        }),
        ("method", |r| r.sampling.method = Method::Sde),
        ("solver", |r| r.sampling.solver = Solver::Heun),
        ("guidance_scale", |r| r.sampling.guidance_scale = 5.0),
        ("guidance", |r| r.sampling.guidance = Guidance::Adg),
        ("interval start", |r| r.sampling.guidance_interval.0 = 0.8),
        ("interval end", |r| r.sampling.guidance_interval.1 = 0.8),
        ("dcw", |r| r.sampling.dcw = None),
        ("dcw mode", |r| r.sampling.dcw = Some(dcw(DcwMode::Pixel))),
        ("dcw filter", |r| {
            let filter = engine::sample::wavelet::filter("db4").expect("a filter");
            r.sampling.dcw = Some(Dcw {
                filter,
                ..dcw(DcwMode::Double)
            });
        }),
        ("norm threshold", |r| {
            r.sampling.velocity_norm_threshold = 0.3
        }),
        ("ema factor", |r| r.sampling.velocity_ema_factor = 0.2),
        ("seed", |r| r.seeds = vec![6]),
        ("retake", |r| {
            let seeds = vec![9];
            let variance = 0.2;
            r.retake = Some(Retake { seeds, variance });
        }),
    ];
    let mut engine = engine();
    let before = make(&mut engine, &request());
    for (name, change) in changes {
        let mut after = request();
        change(&mut after);
        assert_ne!(before.latents, make(&mut engine, &after).latents, "{name}");
    }
}

#[test]
fn what_follows_the_sampler_changes_the_audio() {
    let mut engine = engine();
    let before = make(&mut engine, &request());
    let mut made = |change: fn(&mut SongRequest)| {
        let mut after = request();
        change(&mut after);
        make(&mut engine, &after)
    };
    let peak = |pcm: &[f32]| pcm.iter().fold(0.0, |peak: f32, x| peak.max(x.abs()));
    let shifted = made(|r| r.output.latent_shift = 0.5);
    let scaled = made(|r| r.output.latent_rescale = 0.5);
    for (i, x) in before.latents.iter().enumerate() {
        assert_eq!(shifted.latents[i], x + 0.5);
        assert_eq!(scaled.latents[i], x * 0.5);
    }
    assert_ne!(shifted.pcm, before.pcm);
    assert_ne!(scaled.pcm, before.pcm);
    let level = |db: f32| 10f32.powf(db / 20.0);
    assert!((peak(&before.pcm) - level(-1.0)).abs() < 1e-5);
    let quiet = made(|r| r.output.normalize_db = Some(-12.0));
    assert!((peak(&quiet.pcm) - level(-12.0)).abs() < 1e-5);
    let plain = made(|r| r.output.normalize_db = None);
    let factor = before.gain / plain.gain;
    assert!(
        plain
            .pcm
            .iter()
            .zip(&before.pcm)
            .all(|(a, b)| (a * factor - b).abs() < 1e-5)
    );
    let faded = made(|r| {
        r.output.fade_in_s = 1.0;
        r.output.fade_out_s = 2.0;
    });
    let (n, end) = (before.pcm.len(), before.pcm.len() - 2 * 2 * 48_000);
    assert_eq!(faded.pcm[2 * 48_000..end], before.pcm[2 * 48_000..end]);
    assert_eq!((faded.pcm[0], faded.pcm[n - 1]), (0.0, 0.0));
    assert_ne!(faded.pcm[..48_000], before.pcm[..48_000]);
    assert_ne!(faded.pcm[n - 48_000..], before.pcm[n - 48_000..]);
}
