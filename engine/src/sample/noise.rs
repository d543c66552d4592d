//! Random normals from a seed.
//!
//! A seed gives the same noise on every backend and machine: numbers are made on the host, with
//! logarithms and sines in f64 and one rounding at the end.
//!
//! Torch draws differently per device, and both streams can be had. Its CUDA stream depends on
//! the number of threads `G` of a launch, hence on the card, for all elements beyond `G`; with
//! `G` unbounded it is the same everywhere, and that is the default. Its CPU stream is MT19937.
//!
//! Noise that the reference draws without a seed (the SDE sampler's) comes from [`Stream`]s that
//! are derived from the item's seed.

use crate::error::{Error, Result};
use std::f64::consts::TAU;
use std::fmt;
use std::str::FromStr;

/// Environment variable that names the kind.
pub const NOISE_VARIABLE: &str = "ACESTEP_NOISE";

/// How a seed becomes the initial noise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoiseKind {
    /// Philox4x32-10, torch's generator on CUDA.
    Philox {
        /// Threads `G` of a launch on the card whose noise is wanted (270336 on one with 132
        /// processors of 2048 threads); `None` is unbounded.
        grid: Option<u64>,
    },
    /// MT19937, torch's generator on a CPU. It uses the low 32 bits of the seed.
    Mt19937,
}

impl Default for NoiseKind {
    fn default() -> Self {
        NoiseKind::Philox { grid: None }
    }
}

impl FromStr for NoiseKind {
    type Err = Error;

    /// `philox`, `philox:G` or `mt19937`.
    fn from_str(text: &str) -> Result<Self> {
        let text = text.trim().to_ascii_lowercase();
        match text.split_once(':') {
            None if text == "philox" => return Ok(NoiseKind::default()),
            None if text == "mt19937" => return Ok(NoiseKind::Mt19937),
            Some(("philox", grid)) => match grid.parse::<u64>() {
                Ok(g) if g > 0 => return Ok(NoiseKind::Philox { grid: Some(g) }),
                _ => {}
            },
            _ => {}
        }
        Err(Error::Request(format!(
            "{NOISE_VARIABLE} is {text:?}; it must be philox, philox:G (G = threads of a launch, \
             for example philox:270336) or mt19937"
        )))
    }
}

impl fmt::Display for NoiseKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NoiseKind::Philox { grid: None } => f.write_str("philox"),
            NoiseKind::Philox { grid: Some(g) } => write!(f, "philox:{g}"),
            NoiseKind::Mt19937 => f.write_str("mt19937"),
        }
    }
}

impl NoiseKind {
    /// The kind that `ACESTEP_NOISE` names, or the default when it is unset or blank.
    ///
    /// # Errors
    /// [`Error::Request`] when the variable holds something else.
    pub fn from_env() -> Result<Self> {
        match std::env::var(NOISE_VARIABLE) {
            Ok(text) if !text.trim().is_empty() => text.parse(),
            _ => Ok(NoiseKind::default()),
        }
    }

    /// Fills `out` with the normals of `seed`, in row-major order of the tensor.
    pub fn fill(self, seed: u64, out: &mut [f32]) {
        match self {
            NoiseKind::Philox { grid } => philox_normals(seed, 0, grid, out),
            NoiseKind::Mt19937 => mt19937_normals(seed as u32, out),
        }
    }
}

/// A further stream of a seed, the same for every [`NoiseKind`].
///
/// Philox numbers are a pure function of key and counter. The key is the seed; the initial noise
/// counts its calls in the first counter word and leaves the second 0, for it would take 2^32
/// calls to carry into it. A derived stream puts its number, never 0, into that second word: it
/// shares no counter with the initial noise or with another stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stream(u32);

impl Stream {
    /// Fresh noise of the SDE sampler after step `step` (counted from 0).
    pub fn sde(step: usize) -> Self {
        Stream(1 + step as u32)
    }

    /// Draws of the language model in one of its runs for a seed; runs are numbered by the
    /// caller. The upper half of the streams is theirs.
    pub fn tokens(run: u32) -> Self {
        Stream(1 << 31 | run)
    }

    /// The number at place `at` of this stream of `seed`: uniform in `[0, 1)`, 53 bits.
    pub fn uniform(self, seed: u64, at: u32) -> f64 {
        let [high, low, ..] = philox4x32([at, self.0, 0, 0], [seed as u32, (seed >> 32) as u32]);
        let bits = u64::from(high) << 32 | u64::from(low);
        (bits >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Fills `out` with the normals of this stream of `seed`.
    pub fn fill(self, seed: u64, out: &mut [f32]) {
        philox_normals(seed, self.0, None, out);
    }
}

/// Fresh noise for every step of a run over several items.
#[derive(Debug, Clone, Copy)]
pub enum StepNoise<'a> {
    /// Streams of these seeds, one seed per item: see [`Stream::sde`].
    Seeds(&'a [u64]),
    /// Numbers that are given, `(steps, B, T, C)`; none where no step wants any.
    Given(&'a [f32]),
}

/// One block of Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3",
/// 2011).
pub fn philox4x32(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let a = u64::from(counter[0]) * 0xD251_1F53;
        let b = u64::from(counter[2]) * 0xCD9E_8D57;
        counter = [
            (b >> 32) as u32 ^ counter[1] ^ key[0],
            b as u32,
            (a >> 32) as u32 ^ counter[3] ^ key[1],
            a as u32,
        ];
        key = [
            key[0].wrapping_add(0x9E37_79B9),
            key[1].wrapping_add(0xBB67_AE85),
        ];
    }
    counter
}

/// Normals as torch draws them on CUDA: element `k` is component `(k / G) mod 4` of call
/// `k / 4G` of subsequence `k mod G`.
fn philox_normals(seed: u64, stream: u32, grid: Option<u64>, out: &mut [f32]) {
    let key = [seed as u32, (seed >> 32) as u32];
    let grid = grid.unwrap_or(u64::MAX);
    for (k, x) in out.iter_mut().enumerate() {
        let k = k as u64;
        let (round, subsequence) = (k / grid, k % grid);
        let counter = [
            (round / 4) as u32,
            stream,
            subsequence as u32,
            (subsequence >> 32) as u32,
        ];
        let words = philox4x32(counter, key);
        let component = (round % 4) as usize;
        let pair = component & 2;
        *x = box_muller_sine_first(words[pair], words[pair + 1])[component & 1];
    }
}

/// cuRAND's Box-Muller: sine, then cosine. Radius and angle come from words as f32 with one
/// rounding, as the device's fused multiply-add does.
fn box_muller_sine_first(r0: u32, r1: u32) -> [f32; 2] {
    const TO_UNIT: f32 = 1.0 / 4_294_967_296.0;
    const TO_ANGLE: f32 = TO_UNIT * std::f32::consts::TAU;
    let scaled = |word: u32, by: f32| {
        let by = f64::from(by);
        (f64::from(word as f32) * by + by / 2.0) as f32
    };
    let radius = (-2.0 * f64::from(scaled(r0, TO_UNIT)).ln()).sqrt();
    let (sin, cos) = f64::from(scaled(r1, TO_ANGLE)).sin_cos();
    [(radius * sin) as f32, (radius * cos) as f32]
}

/// The 32-bit Mersenne Twister (Matsumoto and Nishimura, 1998).
pub struct Mt19937 {
    state: [u32; 624],
    next: usize,
}

impl Mt19937 {
    /// State of `seed`.
    pub fn new(seed: u32) -> Self {
        let mut state = [seed; 624];
        for i in 1..624 {
            let last = state[i - 1];
            state[i] = (last ^ (last >> 30))
                .wrapping_mul(1_812_433_253)
                .wrapping_add(i as u32);
        }
        Mt19937 { state, next: 624 }
    }

    /// The next 32 bits.
    pub fn word(&mut self) -> u32 {
        if self.next == 624 {
            self.renew();
        }
        let mut y = self.state[self.next];
        self.next += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9D2C_5680;
        y ^= (y << 15) & 0xEFC6_0000;
        y ^ (y >> 18)
    }

    fn renew(&mut self) {
        for i in 0..624 {
            let y = (self.state[i] & 0x8000_0000) | (self.state[(i + 1) % 624] & 0x7FFF_FFFF);
            let twist = if y & 1 == 1 { 0x9908_B0DF } else { 0 };
            self.state[i] = self.state[(i + 397) % 624] ^ (y >> 1) ^ twist;
        }
        self.next = 0;
    }

    /// A uniform of 24 bits in `[0, 1)`.
    fn uniform24(&mut self) -> f64 {
        f64::from(self.word() & 0x00FF_FFFF) / 16_777_216.0
    }

    /// A uniform of 53 bits in `[0, 1)`.
    fn uniform53(&mut self) -> f64 {
        let high = u64::from(self.word());
        let bits = (high << 32 | u64::from(self.word())) & ((1 << 53) - 1);
        bits as f64 / (1u64 << 53) as f64
    }
}

/// Normals as torch draws them on a CPU. From 16 elements on: all uniforms first, then blocks of
/// 16 in which places `j` and `j + 8` make a pair; an incomplete last block is made good by
/// drawing the last 16 elements anew.
fn mt19937_normals(seed: u32, out: &mut [f32]) {
    let mut random = Mt19937::new(seed);
    if out.len() < 16 {
        return few_normals(&mut random, out);
    }
    for x in out.iter_mut() {
        *x = random.uniform24() as f32;
    }
    for block in out.chunks_exact_mut(16) {
        box_muller_block(block);
    }
    if !out.len().is_multiple_of(16) {
        let at = out.len() - 16;
        for x in &mut out[at..] {
            *x = random.uniform24() as f32;
        }
        box_muller_block(&mut out[at..]);
    }
}

/// Uniforms to normals, in place, 16 at a time.
fn box_muller_block(block: &mut [f32]) {
    for j in 0..8 {
        // Rounded to f32 where torch rounds; 1 - u is exact, and never 0.
        let radius = (-2.0 * f64::from(1.0 - block[j]).ln() as f32).sqrt();
        let (sin, cos) = f64::from(std::f32::consts::TAU * block[j + 8]).sin_cos();
        block[j] = radius * cos as f32;
        block[j + 8] = radius * sin as f32;
    }
}

/// Fewer than 16 elements are drawn one pair at a time in f64.
fn few_normals(random: &mut Mt19937, out: &mut [f32]) {
    for pair in out.chunks_mut(2) {
        let angle = TAU * random.uniform53();
        let radius = (-2.0 * (1.0 - random.uniform53()).ln()).sqrt();
        let (sin, cos) = angle.sin_cos();
        pair[0] = (radius * cos) as f32;
        if let Some(second) = pair.get_mut(1) {
            *second = (radius * sin) as f32;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use safetensors::SafeTensors;

    const SEEDS: [u64; 6] = [0, 1, 42, 1234, 2_147_483_647, 4_294_967_295];

    fn recorded() -> Vec<u8> {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../tests/goldens/stages/rng.safetensors"
        );
        std::fs::read(path).unwrap()
    }

    fn cast<T: bytemuck::AnyBitPattern>(bytes: &[u8]) -> Vec<T> {
        bytes
            .chunks_exact(size_of::<T>())
            .map(bytemuck::pod_read_unaligned)
            .collect()
    }

    fn floats(file: &SafeTensors, name: &str) -> Vec<f32> {
        cast(file.tensor(name).unwrap().data())
    }

    fn longs(file: &SafeTensors, name: &str) -> Vec<i64> {
        cast(file.tensor(name).unwrap().data())
    }

    fn close(ours: &[f32], theirs: &[f32], limit: f32) {
        assert_eq!(ours.len(), theirs.len());
        for (i, (a, b)) in ours.iter().zip(theirs).enumerate() {
            assert!((a - b).abs() <= limit, "element {i}: {a} is not {b}");
        }
    }

    fn normals(kind: NoiseKind, seed: u64, n: usize) -> Vec<f32> {
        let mut out = vec![0.0; n];
        kind.fill(seed, &mut out);
        out
    }

    #[test]
    fn words_are_those_recorded() {
        let bytes = recorded();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        for seed in SEEDS {
            let mut twister = Mt19937::new(seed as u32);
            for word in longs(&file, &format!("cpu_mt19937_raw_seed{seed}")) {
                assert_eq!(i64::from(twister.word()), word);
            }
            for (s, words) in longs(&file, &format!("philox_raw_seed{seed}"))
                .chunks(4)
                .enumerate()
            {
                let ours = philox4x32([0, 0, s as u32, 0], [seed as u32, 0]);
                assert_eq!(ours.map(i64::from).as_slice(), words);
            }
        }
    }

    #[test]
    fn normals_are_those_of_torch() {
        let bytes = recorded();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        for seed in SEEDS {
            for (n, infix) in [(64, ""), (70, "n70_"), (10, "n10_")] {
                let want = floats(&file, &format!("cpu_f32_{infix}seed{seed}"));
                close(&normals(NoiseKind::Mt19937, seed, n), &want, 5e-7);
            }
            let want = floats(&file, &format!("cuda_f32_seed{seed}"));
            close(&normals(NoiseKind::default(), seed, 64), &want, 1e-6);
        }
    }

    #[test]
    fn beyond_the_launch_the_card_shows() {
        let bytes = recorded();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let n = longs(&file, "cuda_large_n")[0] as usize;
        let at = longs(&file, "cuda_large_probe_index");
        for (grid, name) in [
            (132 * 2048, "cuda_large_probe_h100_132sm_2048"),
            (128 * 1536, "cuda_large_probe_rtx4090_128sm_1536"),
        ] {
            let ours = normals(NoiseKind::Philox { grid: Some(grid) }, 2_147_483_647, n);
            let probes: Vec<f32> = at.iter().map(|&i| ours[i as usize]).collect();
            close(&probes, &floats(&file, name), 1e-6);
        }
    }

    #[test]
    fn derived_streams_differ_from_each_other_and_from_the_initial_noise() {
        let mut seen = vec![normals(NoiseKind::default(), 42, 64)];
        // As if the initial noise ran on a card with very few threads: later calls, same key.
        seen.push(normals(NoiseKind::Philox { grid: Some(1) }, 42, 64));
        for step in 0..20 {
            let mut out = vec![0.0; 64];
            Stream::sde(step).fill(42, &mut out);
            seen.push(out);
        }
        for (i, a) in seen.iter().enumerate() {
            for b in &seen[..i] {
                assert!(a.iter().zip(b).filter(|(x, y)| x == y).count() <= 1);
            }
        }
    }

    #[test]
    fn uniforms_are_spread_and_differ_by_seed_stream_and_place() {
        let draw = |seed, run, at| Stream::tokens(run).uniform(seed, at);
        let mean = (0..10_000).map(|at| draw(7, 0, at)).sum::<f64>() / 10_000.0;
        assert!((mean - 0.5).abs() < 0.02, "{mean}");
        assert!((0..1000).all(|at| (0.0..1.0).contains(&draw(1 << 40, 1, at))));
        let one = draw(7, 0, 3);
        assert_eq!(one, draw(7, 0, 3));
        for other in [
            draw(8, 0, 3),
            draw(7, 1, 3),
            draw(7, 0, 4),
            draw(7 << 32, 0, 3),
        ] {
            assert_ne!(one, other);
        }
    }

    #[test]
    fn normals_are_standard() {
        for kind in [NoiseKind::default(), NoiseKind::Mt19937] {
            let x = normals(kind, 7, 1 << 16);
            let mean = x.iter().sum::<f32>() / x.len() as f32;
            let variance = x.iter().map(|v| v * v).sum::<f32>() / x.len() as f32;
            assert!(
                mean.abs() < 0.02 && (variance - 1.0).abs() < 0.03,
                "{mean} {variance}"
            );
        }
    }

    #[test]
    fn kinds_are_read_and_printed() {
        for text in ["philox", "philox:43008", "mt19937"] {
            assert_eq!(text.parse::<NoiseKind>().unwrap().to_string(), text);
        }
        for text in ["", "philox:", "philox:0", "philox:-1", "mt", "mt19937:3"] {
            assert!(
                text.parse::<NoiseKind>()
                    .unwrap_err()
                    .to_string()
                    .contains("ACESTEP_NOISE")
            );
        }
    }
}
