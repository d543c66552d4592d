//! Levels of decoded audio, in the order the reference applies them: protection against
//! clipping, peak normalisation, fades.

use super::CHANNELS;
use super::splice::Splice;
use crate::song::Output;

/// Audio with a smaller peak counts as silence and is not normalised.
const SILENCE: f32 = 1e-6;

/// Everything that happens to the audio of one item after decoding. Returns how much louder it
/// is than it was decoded.
pub fn finish(samples: &mut [f32], rate: u32, output: &Output, splice: Option<&Splice>) -> f32 {
    let mut gain = splice.map_or(1.0, |splice| splice.gain);
    if gain != 1.0 {
        samples.iter_mut().for_each(|x| *x *= gain);
    }
    gain *= protect_peak(samples);
    if let Some(splice) = splice {
        splice.apply(samples);
    }
    if let Some(db) = output.normalize_db {
        gain *= normalize_peak(samples, db);
    }
    fade(samples, rate, output.fade_in_s, output.fade_out_s);
    gain
}

/// Largest magnitude.
pub fn peak(samples: &[f32]) -> f32 {
    samples.iter().fold(0.0, |peak, x| peak.max(x.abs()))
}

/// Divides by the peak when it exceeds 1. Returns the factor.
pub fn protect_peak(samples: &mut [f32]) -> f32 {
    let peak = peak(samples);
    if peak <= 1.0 || peak.is_nan() {
        return 1.0;
    }
    samples.iter_mut().for_each(|x| *x /= peak);
    1.0 / peak
}

/// Scales so that the peak is at `db` decibels of full scale. Silence stays, and so does
/// everything when `db` is above 0. Returns the factor.
pub fn normalize_peak(samples: &mut [f32], db: f32) -> f32 {
    let peak = peak(samples);
    if peak < SILENCE || !peak.is_finite() || db.is_nan() || db > 0.0 {
        return 1.0;
    }
    let gain = 10f32.powf(db / 20.0) / peak;
    samples.iter_mut().for_each(|x| *x *= gain);
    gain
}

/// Straight ramps from 0 over the first `in_s` and to 0 over the last `out_s` seconds, ends
/// included; at most the whole length each.
pub fn fade(samples: &mut [f32], rate: u32, in_s: f64, out_s: f64) {
    let total = samples.len() / CHANNELS;
    let frames =
        |seconds: f64| ((seconds * f64::from(rate)).round_ties_even().max(0.0) as usize).min(total);
    let n = frames(in_s);
    for (i, frame) in samples.chunks_exact_mut(CHANNELS).take(n).enumerate() {
        let gain = ramp(i, n, 0.0);
        frame.iter_mut().for_each(|x| *x *= gain);
    }
    let n = frames(out_s);
    for (i, frame) in samples
        .chunks_exact_mut(CHANNELS)
        .skip(total - n)
        .enumerate()
    {
        let gain = ramp(i, n, 1.0);
        frame.iter_mut().for_each(|x| *x *= gain);
    }
}

/// Element `i` of `n` evenly spaced numbers from `start` (0 or 1) to the other; a single number
/// is the start.
fn ramp(i: usize, n: usize, start: f32) -> f32 {
    let way = i as f32 / (n - 1).max(1) as f32;
    if start == 0.0 { way } else { 1.0 - way }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn loud_audio_is_scaled_to_full_scale() {
        let mut x = [0.5, -2.0, 1.0, 0.0];
        protect_peak(&mut x);
        assert_eq!(x, [0.25, -1.0, 0.5, 0.0]);
        protect_peak(&mut x);
        assert_eq!(x, [0.25, -1.0, 0.5, 0.0]);
    }

    #[test]
    fn normalised_to_minus_one_decibel() {
        let mut x = [0.1, -0.2];
        normalize_peak(&mut x, -1.0);
        assert!((x[1] + 0.891_250_9).abs() < 1e-6 && (x[0] - 0.445_625_45).abs() < 1e-6);
    }

    #[test]
    fn silence_and_positive_levels_are_left_alone() {
        for (mut x, db) in [([0.0, 5e-7], -1.0), ([0.5, 0.25], 1.0)] {
            let before = x;
            normalize_peak(&mut x, db);
            assert_eq!(x, before);
        }
    }

    #[test]
    fn the_whole_gain_is_told() {
        let splice = Splice {
            pcm: std::sync::Arc::new(vec![0.25; 8]),
            part: 1..3,
            fade: 0,
            gain: 4.0,
        };
        let mut x = [0.125, -0.125, 0.25, 0.5, 0.125, 0.0, 0.5, 0.5];
        let output = Output {
            normalize_db: Some(-6.0),
            ..Output::default()
        };
        let gain = finish(&mut x, 100, &output, Some(&splice));
        // 4 from the splice, a half against clipping, and -6 dB below the new peak of 1.
        let level = 10f32.powf(-0.3);
        assert_eq!(gain, 4.0 * 0.5 * level);
        assert_eq!(x[..4], [0.25, 0.25, 0.5, 1.0].map(|x| x * level));
    }

    #[test]
    fn fades_are_straight_and_include_their_ends() {
        let mut x = [1.0; 2 * 8];
        // 4 samples in and 2 out at a rate of 4.
        fade(&mut x, 4, 1.0, 0.5);
        let left: Vec<f32> = x.iter().step_by(2).copied().collect();
        assert_eq!(left, [0.0, 1.0 / 3.0, 2.0 / 3.0, 1.0, 1.0, 1.0, 1.0, 0.0]);
        assert!(x.chunks(2).all(|f| f[0] == f[1]));
    }

    proptest! {
        #[test]
        fn finish_never_panics_and_stays_within_full_scale(
            mut x in prop::collection::vec(-3f32..3.0, 0..200),
            db in -60f32..6.0,
            fade_in_s in -1f64..1e9,
            fade_out_s in -1f64..1e9,
        ) {
            let output =
                Output { normalize_db: Some(db), fade_in_s, fade_out_s, ..Output::default() };
            finish(&mut x, 100, &output, None);
            prop_assert!(x.iter().all(|v| v.abs() <= 1.0 + 1e-6));
        }
    }
}
