//! Music to test lossy formats with.

use std::f32::consts::TAU;

/// A stereo chord of four tones at half of full scale, for `frames` samples per channel.
pub(super) fn chord(frames: usize, rate: u32) -> Vec<f32> {
    let tone = |i: usize, hz: f32| (TAU * hz * i as f32 / rate as f32).sin() * 0.25;
    (0..frames)
        .flat_map(|i| {
            [
                tone(i, 261.6) + tone(i, 392.0),
                tone(i, 329.6) + tone(i, 523.3),
            ]
        })
        .collect()
}

/// How far `read` is below `wanted`, in decibels, without the edges, where codecs settle.
pub(super) fn signal_to_noise(wanted: &[f32], read: &[f32]) -> f64 {
    const EDGE: usize = 9_600;
    let inner = |x: &[f32]| x[EDGE..wanted.len() - EDGE].to_vec();
    let (wanted, read) = (inner(wanted), inner(read));
    let power = |x: f32| f64::from(x) * f64::from(x);
    let signal: f64 = wanted.iter().map(|x| power(*x)).sum();
    let noise = wanted.iter().zip(&read).map(|(x, y)| power(x - y));
    10.0 * (signal / noise.sum::<f64>()).log10()
}
