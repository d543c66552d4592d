//! Change of the sample rate by a sinc kernel under a Hann window: the kernel of
//! `torchaudio.functional.resample` with its defaults, to which the models' inputs were made.
//!
//! With `g = gcd`, `o = from / g`, `n = to / g`, `f = 0.99 min(o, n)`:
//! `y[j] = sum_i x[i] (f/o) sinc(t) cos^2(pi t / 12)`, `t = f (i/o - j/n)`, `|t| < 6`, zeros
//! outside of the signal, `ceil(n len / o)` samples in all. The weights depend on `j mod n` only.

use super::CHANNELS;
use std::f64::consts::PI;

/// Zero crossings of the sinc on either side.
const WIDTH: f64 = 6.0;
/// Cut-off as a share of the lower Nyquist frequency.
const ROLL_OFF: f64 = 0.99;

/// Sums that are computed side by side.
const LANES: usize = 8;

/// One stereo sample.
type Frame = [f32; CHANNELS];

/// Resamples a stereo stream as it comes.
pub struct Resampler {
    /// Periods of input and output that last equally long.
    from: usize,
    to: usize,
    /// Frames under the kernel, and their weights by phase, each once per channel: the sums of
    /// both channels are one product of flat rows.
    taps: usize,
    weights: Vec<f32>,
    /// Input that is still needed. It begins as silence, so that the first output finds what
    /// lies before it at 0 as every other does.
    held: Vec<f32>,
    /// Frames that were held once and are not any more.
    origin: usize,
    /// Frames given and made so far.
    given: usize,
    made: usize,
}

impl Resampler {
    /// A resampler between two rates in samples per second, both positive.
    pub fn new(from: u32, to: u32) -> Self {
        let (from, to) = (from.max(1) as usize, to.max(1) as usize);
        let g = gcd(from, to);
        let (from, to) = (from / g, to / g);
        let (o, n) = (from as f64, to as f64);
        let f = ROLL_OFF * o.min(n);
        let before = (WIDTH * o / f).ceil() as usize;
        let taps = (2 * before + 2).next_multiple_of(LANES / CHANNELS);
        let mut weights = Vec::with_capacity(to * taps * CHANNELS);
        for phase in 0..to {
            let first = (from * phase / to) as f64 - before as f64;
            for i in 0..taps {
                let t = f * ((first + i as f64) / o - phase as f64 / n);
                weights.extend([kernel(t, f / o) as f32; CHANNELS]);
            }
        }
        Resampler {
            from,
            to,
            taps,
            weights,
            held: vec![0.0; before * CHANNELS],
            origin: 0,
            given: 0,
            made: 0,
        }
    }

    /// Takes `frames` and appends what is certain by now to `out`, interleaved.
    pub fn push(&mut self, frames: &[Frame], out: &mut Vec<f32>) {
        self.given += frames.len();
        if self.from == self.to {
            self.made = self.given;
            return out.extend_from_slice(frames.as_flattened());
        }
        self.held.extend_from_slice(frames.as_flattened());
        self.make(usize::MAX, out);
        // Outputs to come start here.
        let next = self.from * (self.made / self.to) + self.from * (self.made % self.to) / self.to;
        let done = (next - self.origin).min(self.held.len() / CHANNELS);
        self.held.drain(..done * CHANNELS);
        self.origin += done;
    }

    /// The end of the stream: appends what is left.
    pub fn finish(mut self, out: &mut Vec<f32>) {
        if self.from == self.to {
            return;
        }
        let whole = self.given / self.from * self.to;
        let total = whole + (self.given % self.from * self.to).div_ceil(self.from);
        let rest = (total - self.made).div_ceil(self.to) * self.from + self.taps;
        self.held.resize(self.held.len() + rest * CHANNELS, 0.0);
        self.make(total, out);
    }

    /// Outputs up to `total` for which all input is there.
    fn make(&mut self, total: usize, out: &mut Vec<f32>) {
        let width = self.taps * CHANNELS;
        // Phase and input of the next output, kept up from output to output.
        let mut phase = self.made % self.to;
        let mut part = self.from * phase;
        let mut at = self.from * (self.made / self.to) + part / self.to - self.origin;
        part %= self.to;
        while self.made < total {
            let Some(window) = self.held.get(at * CHANNELS..at * CHANNELS + width) else {
                break;
            };
            out.extend_from_slice(&dot(window, &self.weights[phase * width..][..width]));
            self.made += 1;
            phase += 1;
            part += self.from;
            at += part / self.to;
            part %= self.to;
            if phase == self.to {
                phase = 0;
            }
        }
    }
}

fn kernel(t: f64, scale: f64) -> f64 {
    let t = t.clamp(-WIDTH, WIDTH);
    let window = (PI * t / WIDTH / 2.0).cos().powi(2);
    let sinc = if t == 0.0 {
        1.0
    } else {
        (PI * t).sin() / (PI * t)
    };
    scale * sinc * window
}

/// Products of flat rows, in as many sums as vectors have lanes; even lanes are the left channel.
fn dot(x: &[f32], weights: &[f32]) -> Frame {
    let mut sums = [0f32; LANES];
    for (x, w) in x.chunks_exact(LANES).zip(weights.chunks_exact(LANES)) {
        for ((sum, x), w) in sums.iter_mut().zip(x).zip(w) {
            *sum += x * w;
        }
    }
    let channel = |c: usize| sums.iter().skip(c).step_by(CHANNELS).sum();
    [channel(0), channel(1)]
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn resampled(x: &[Frame], from: u32, to: u32, piece: usize) -> Vec<f32> {
        let mut r = Resampler::new(from, to);
        let mut out = Vec::new();
        for part in x.chunks(piece.max(1)) {
            r.push(part, &mut out);
        }
        r.finish(&mut out);
        out
    }

    /// The definition, term by term, in f64.
    fn defined(x: &[Frame], from: usize, to: usize) -> Vec<f64> {
        let g = gcd(from, to);
        let (o, n) = (from / g, to / g);
        let f = ROLL_OFF * o.min(n) as f64;
        let w = (6.0 * o as f64 / f).ceil() as i64;
        let mut out = Vec::new();
        for j in 0..(n * x.len()).div_ceil(o) {
            let (block, phase) = ((o * (j / n)) as i64, (j % n) as f64);
            let mut y = [0.0; CHANNELS];
            for i in (block - w).max(0)..(block + w + o as i64).min(x.len() as i64) {
                let at = (i - block) as f64 / o as f64;
                let t = (f * (at - phase / n as f64)).clamp(-6.0, 6.0);
                let sinc = if t == 0.0 {
                    1.0
                } else {
                    (PI * t).sin() / (PI * t)
                };
                let weight = f / o as f64 * sinc * (PI * t / 12.0).cos().powi(2);
                for c in 0..CHANNELS {
                    y[c] += f64::from(x[i as usize][c]) * weight;
                }
            }
            out.extend(y);
        }
        out
    }

    fn noise(n: usize) -> Vec<Frame> {
        let sample = |i: usize| ((i as u32).wrapping_mul(2_654_435_761) >> 8) as f32 / 8e6 - 1.0;
        (0..n).map(|i| [sample(2 * i), sample(2 * i + 1)]).collect()
    }

    #[test]
    fn rates_agree_with_the_definition() {
        for (from, to) in [
            (44_100, 48_000),
            (48_000, 44_100),
            (22_050, 48_000),
            (8_000, 48_000),
            (96_000, 48_000),
            (192_000, 48_000),
            (48_000, 48_001),
            (1_000, 48_000),
        ] {
            for length in [0, 1, 2, 333, 1000] {
                let x = noise(length);
                let want = defined(&x, from, to);
                let ours = resampled(&x, from as u32, to as u32, 97);
                assert_eq!(ours.len(), want.len(), "{from} to {to}, {length}");
                for (i, (a, b)) in ours.iter().zip(&want).enumerate() {
                    let off = (f64::from(*a) - b).abs();
                    assert!(off < 3e-6, "{from} to {to}: sample {i} is {a}, not {b}");
                }
            }
        }
    }

    #[test]
    fn an_equal_rate_changes_nothing() {
        let x = noise(100);
        let flat: Vec<f32> = x.iter().flatten().copied().collect();
        assert_eq!(resampled(&x, 48_000, 48_000, 7), flat);
    }

    /// A tone below both cut-offs keeps its height and phase.
    #[test]
    fn a_tone_stays_itself() {
        let tone = |rate: f64, i: usize| (2.0 * PI * 1000.0 * i as f64 / rate).sin() as f32;
        let x: Vec<Frame> = (0..4410).map(|i| [tone(44_100.0, i); 2]).collect();
        let y = resampled(&x, 44_100, 48_000, 1024);
        assert_eq!(y.len(), 4800 * 2);
        for i in 100..4700 {
            let off = (y[2 * i] - tone(48_000.0, i)).abs();
            assert!(off < 2e-3, "sample {i}: {} off by {off}", y[2 * i]);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn pieces_do_not_matter(
            from in 1u32..=2000, to in 1u32..=300, length in 0usize..600, piece in 1usize..300,
        ) {
            let x = noise(length);
            let whole = resampled(&x, from, to, usize::MAX);
            prop_assert_eq!(whole.len(), 2 * (length * to as usize).div_ceil(from as usize));
            prop_assert_eq!(&resampled(&x, from, to, piece), &whole);
        }
    }
}
