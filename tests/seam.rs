//! What an ear would notice where a part that was made anew meets the recording: jumps of energy, of
//! phase, of the spectrum. Each measure is also shown a hard cut, which it must find.

use engine::audio::CHANNELS;
use engine::audio::splice::Splice;
use engine::song::{NoWatch, Recording, Repainting, SongRequest, Task};
use std::f64::consts::TAU;
use std::ops::Range;
use std::sync::Arc;
use tests::demo::{RATE, engine, request};

/// Samples of a millisecond.
const MS: usize = RATE / 1000;

/// A tone on the left, and one a fifth above it on the right.
fn tone(frames: usize, height: f64, phase: f64) -> Vec<f32> {
    let sine = |i: usize, hz: f64| (TAU * hz * i as f64 / RATE as f64 + phase).sin() * height;
    (0..frames)
        .flat_map(|i| [sine(i, 1000.0) as f32, sine(i, 1500.0) as f32])
        .collect()
}

fn left(pcm: &[f32]) -> Vec<f64> {
    pcm.iter()
        .step_by(CHANNELS)
        .map(|x| f64::from(*x))
        .collect()
}

/// A complex number as height and phase.
type Polar = (f64, f64);

/// Height and phase of the tone of `hz` around sample `at`, over `width` samples under a Hann
/// window.
fn demodulated(x: &[f64], at: usize, hz: f64, width: usize) -> Polar {
    let (mut re, mut im) = (0.0, 0.0);
    for (j, x) in x[at - width / 2..][..width].iter().enumerate() {
        let turn = TAU * hz * (at - width / 2 + j) as f64 / RATE as f64;
        let weight = 1.0 - (TAU * (j as f64 + 0.5) / width as f64).cos();
        re += weight * x * turn.cos();
        im -= weight * x * turn.sin();
    }
    let height = 2.0 * re.hypot(im) / width as f64;
    (height, im.atan2(re))
}

/// The fastest change of height, as a share of the largest one, and of phase in radians, per
/// millisecond.
fn speeds(x: &[f64], range: Range<usize>) -> (f64, f64) {
    const STEP: usize = MS / 4;
    let track = range
        .step_by(STEP)
        .map(|at| demodulated(x, at, 1000.0, 2 * MS));
    let track: Vec<Polar> = track.collect();
    let most = track.iter().map(|p| p.0).fold(0.0, f64::max);
    let pairs = || track.windows(2).map(|w| (w[0], w[1]));
    let fastest = |of: &dyn Fn(Polar, Polar) -> f64| {
        let all = pairs().map(|(a, b)| of(a, b) * (MS / STEP) as f64);
        all.fold(0.0, f64::max)
    };
    let turn = |a: f64, b: f64| {
        let d = (b - a).rem_euclid(TAU);
        d.min(TAU - d)
    };
    let height = fastest(&|a, b| (a.0 - b.0).abs() / most);
    (height, fastest(&|a, b| turn(a.1, b.1)))
}

/// How much the spectrum grows from one frame of 4 ms to the next, a quarter of it later, at its
/// most within a range, as a share of its size.
fn flux(x: &[f64], range: Range<usize>) -> f64 {
    const WIDTH: usize = 4 * MS;
    let spectrum = |at: usize| -> Vec<f64> {
        let bands = (1..=20).map(|band| 500.0 * f64::from(band));
        bands.map(|hz| demodulated(x, at, hz, WIDTH).0).collect()
    };
    let spectra: Vec<_> = range.step_by(WIDTH / 4).map(spectrum).collect();
    let growth = spectra.windows(2).map(|pair| {
        let (before, now) = (&pair[0], &pair[1]);
        let grown = before.iter().zip(now).map(|(a, b)| (b - a).max(0.0));
        grown.sum::<f64>() / before.iter().chain(now).sum::<f64>().max(1e-9)
    });
    growth.fold(0.0, f64::max)
}

#[test]
fn energy_and_phase_go_over_gently() {
    let frames = RATE / 2;
    let part = RATE / 5..RATE * 3 / 10;
    let spliced = |made: &[f32], fade: usize| {
        let splice = Splice {
            pcm: Arc::new(tone(frames, 0.5, 0.0)),
            part: part.clone(),
            fade,
            gain: 1.0,
        };
        let mut made = made.to_vec();
        splice.apply(&mut made);
        left(&made)
    };
    for (height, phase) in [(0.5, 1.0), (0.2, 1.0), (0.5, 2.0), (0.8, -2.0)] {
        let made = tone(frames, height, phase);
        let song = spliced(&made, 25 * MS);
        let cut = spliced(&made, 0);
        for border in [part.start, part.end] {
            let around = border - 40 * MS..border + 40 * MS;
            let (energy, turn) = speeds(&song, around.clone());
            assert!(
                energy < 0.1,
                "{height}, {phase}: energy by {energy} in 1 ms"
            );
            assert!(turn < 0.25, "{height}, {phase}: phase by {turn} in 1 ms");
            let grown = flux(&song, around.clone());
            let (cut_energy, cut_turn) = speeds(&cut, around.clone());
            let cut_grown = flux(&cut, around);
            assert!(grown < 0.06, "{height}, {phase}: spectrum by {grown}");
            let found = cut_energy > 0.15 && cut_turn > 1.0 && cut_grown > 0.12;
            assert!(found, "a cut is {cut_energy}, {cut_turn}, {cut_grown}");
        }
    }
}

#[test]
fn a_repainted_song_has_no_seam() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut engine = engine(dir.path());
    let source = Arc::new(tone(6 * RATE, 0.3, 0.0));
    let mut repaint = |fade_s: Option<f64>| {
        let request = SongRequest {
            repainting: Repainting {
                start_s: 2.0,
                end_s: Some(3.5),
                fade_s,
                ..Repainting::default()
            },
            ..request(Task::Repaint, Recording::Samples(source.clone()))
        };
        let song = engine.make(&request, &NoWatch).expect("a song");
        left(&song.items[0].pcm)
    };
    let (song, cut) = (repaint(None), repaint(Some(0.0)));
    for border in [2 * RATE, RATE * 7 / 2] {
        let around = border - 30 * MS..border + 30 * MS;
        let [gentle, hard] = [&song, &cut].map(|x| {
            let inside = harshness(x, RATE * 5 / 2..RATE * 3);
            let shares = around.clone().step_by(MS);
            let shares = shares.map(|at| harshness(x, at..at + MS) / inside);
            shares.filter(|share| (0.05..0.7).contains(share)).count()
        });
        // The part itself is not always above the limit.
        assert!(
            gentle >= hard + 12,
            "the fade lasts {gentle} ms, a cut {hard} ms"
        );
    }
}

/// How much there is of the highest frequencies, of which the tones have nothing: the root mean
/// square of fourth differences.
fn harshness(x: &[f64], range: Range<usize>) -> f64 {
    let count = range.len() as f64;
    let fourth = |i: usize| x[i - 2] - 4.0 * x[i - 1] + 6.0 * x[i] - 4.0 * x[i + 1] + x[i + 2];
    (range.map(|i| fourth(i).powi(2)).sum::<f64>() / count).sqrt()
}
