//! The passes over all logits of a step, compiled for every instruction set. None of them uses
//! fused operations: what is drawn does not depend on the processor.

use super::{BINS, BINS_PER_UNIT, PART};
use crate::backend::cpu::vecmath::{fold, leveled};

/// Lanes of the reductions.
const LANES: usize = 16;

#[inline(always)]
fn largest_body<const FMA: bool>(logits: &[f32]) -> f32 {
    // Not `f32::max`: a comparison is one instruction, and there are no NaN.
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let mut most = [f32::NEG_INFINITY; LANES];
    let (blocks, rest) = logits.as_chunks::<LANES>();
    for block in blocks {
        for (most, logit) in most.iter_mut().zip(block) {
            *most = larger(*most, *logit);
        }
    }
    rest.iter().fold(fold(most, larger), |a, b| larger(a, *b))
}

#[inline(always)]
fn divide_body<const FMA: bool>(logits: &mut [f32], by: f32) {
    logits.iter_mut().for_each(|l| *l /= by);
}

#[inline(always)]
fn weigh_body<const FMA: bool>(logits: &mut [f32], largest: f32) {
    for l in logits {
        // A largest logit of infinity takes all of the mass; the difference would be NaN.
        *l = if *l == largest {
            1.0
        } else {
            exp(*l - largest)
        };
    }
}

#[inline(always)]
fn bin_body<const FMA: bool>(logits: &[f32], largest: f32, bins: &mut [u32; PART]) {
    const LAST: f32 = (BINS - 1) as f32;
    for (bin, logit) in bins.iter_mut().zip(logits) {
        let distance = (largest - logit) * BINS_PER_UNIT;
        let distance = if distance < LAST { distance } else { LAST };
        let distance = if distance > 0.0 { distance } else { 0.0 };
        // SAFETY: between 0 and the last bin (two comparisons are vector code, a cast with all its
        // checks is not).
        *bin = unsafe { distance.to_int_unchecked::<i32>() } as u32;
    }
}

#[inline(always)]
fn exclude_body<const FMA: bool>(weights: &mut [f32], logits: &[f32], threshold: f32) {
    for (weight, logit) in weights.iter_mut().zip(logits) {
        *weight = if *logit < threshold { 0.0 } else { *weight };
    }
}

#[inline(always)]
fn sum_body<const FMA: bool>(weights: &[f32]) -> f64 {
    let mut sums = [0f64; LANES];
    let (blocks, rest) = weights.as_chunks::<LANES>();
    for block in blocks {
        for (sum, weight) in sums.iter_mut().zip(block) {
            *sum += f64::from(*weight);
        }
    }
    let sum: f64 = sums.into_iter().sum();
    rest.iter().fold(sum, |sum, w| sum + f64::from(*w))
}

leveled! {
    /// The largest; there is at least one and none is NaN.
    pub fn largest(logits: &[f32]) -> f32 = largest_body
}
leveled! {
    /// Every logit divided.
    pub fn divide(logits: &mut [f32], by: f32) = divide_body
}
leveled! {
    /// Logits become their exponentials as multiples of that of the largest.
    pub fn weigh(logits: &mut [f32], largest: f32) = weigh_body
}
leveled! {
    /// The bins of at most [`PART`] logits. `largest` is finite and above or equal to them all.
    pub fn bin(logits: &[f32], largest: f32, bins: &mut [u32; PART]) = bin_body
}
leveled! {
    /// Weights of logits below the threshold become 0.
    pub fn exclude(weights: &mut [f32], logits: &[f32], threshold: f32) = exclude_body
}
leveled! {
    /// The sum of the weights.
    pub fn sum(weights: &[f32]) -> f64 = sum_body
}

/// `e^x` for `x` at most 0, without branches, so that a loop over it becomes vector code: `x` is
/// split into a power of two and a rest of at most ln(2)/2, whose exponential is its Taylor
/// polynomial of degree 7. Below -87 the result is 0.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    /// Added to a small number, it leaves that number rounded in the low bits.
    const ROUND: f32 = 12_582_912.0;
    // ln(2) in two parts, of which the first has few enough bits that its multiples are exact.
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    let clamped = if x > -87.0 { x } else { -87.0 };
    let shifted = clamped * std::f32::consts::LOG2_E + ROUND;
    let power = shifted - ROUND;
    let r = clamped - power * LN_2_HIGH - power * LN_2_LOW;
    let mut sum = 1.0 / 5040.0;
    for factor in [
        1.0 / 720.0,
        1.0 / 120.0,
        1.0 / 24.0,
        1.0 / 6.0,
        0.5,
        1.0,
        1.0,
    ] {
        sum = sum * r + factor;
    }
    let exponent = shifted.to_bits().wrapping_sub(ROUND.to_bits());
    let scale = f32::from_bits(exponent.wrapping_add(127) << 23);
    if x < -87.0 { 0.0 } else { sum * scale }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cpu::Level;

    #[test]
    fn exponentials_are_right_to_the_last_bits() {
        for i in 0..87_000 {
            let x = -i as f32 / 1000.0;
            let (ours, exact) = (f64::from(exp(x)), f64::from(x).exp());
            assert!((ours / exact - 1.0).abs() < 3e-7, "{x}: {ours} {exact}");
        }
        assert_eq!(
            (exp(0.0), exp(-88.0), exp(f32::NEG_INFINITY)),
            (1.0, 0.0, 0.0)
        );
    }

    #[test]
    fn every_level_gives_the_same_bits() {
        let logits: Vec<f32> = (0..1000)
            .map(|i| -((i * 7919 % 1000) as f32) / 9.0)
            .collect();
        let passes = |level: Level| {
            let (mut divided, mut bins) = (logits.clone(), [0; PART]);
            divide(level, &mut divided, 0.85);
            let most = largest(level, &divided);
            bin(level, &divided, most, &mut bins);
            let mut weights = divided.clone();
            weigh(level, &mut weights, most);
            exclude(level, &mut weights, &divided, -20.0);
            let total = sum(level, &weights);
            (divided, most, bins, weights, total)
        };
        let want = passes(Level::Portable);
        assert_eq!((want.1, want.2[0], want.3[0]), (0.0, 0, 1.0));
        for level in Level::available() {
            assert!(passes(*level) == want, "{level}");
        }
    }
}
