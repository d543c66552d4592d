//! From logits to one token.
//!
//! The order of one step: the repetition penalty on the conditional logits, guidance, the set of
//! legal tokens, then (unless the choice is greedy) temperature, top-k, top-p, softmax and one
//! draw. Upstream's two backends order these differently; the primitives are exported so that
//! both orders can be composed.
//!
//! The draw of step `n` of a run is a function of the seed, the run and `n` alone: it depends
//! neither on the batch nor on how many tokens were forced before.

mod passes;

use super::noise::Stream;
use crate::backend::cpu::Level;
use passes::{bin, divide, exclude, exp, largest, sum, weigh};
use std::ops::Range;

/// Below this temperature the most probable token is as good as certain, and the quotient of a
/// logit could overflow.
const COLDEST: f32 = 1e-5;

/// How tokens are drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TokenSampling {
    /// Divides the logits; 0 (less than 1e-5) takes the most probable token.
    pub temperature: f32,
    /// Keeps this many of the most probable tokens, ties with the last included; 0 is off.
    pub top_k: usize,
    /// Keeps the most probable tokens until they hold this share; 0 or at least 1 is off.
    pub top_p: f32,
    /// Divides positive logits of tokens that were written before and multiplies negative ones;
    /// 1 is off.
    pub repetition_penalty: f32,
    /// Weight of the conditional logits against the unconditional ones; at most 1 is off.
    pub guidance: f32,
}

impl Default for TokenSampling {
    /// The defaults of the HTTP interface.
    fn default() -> Self {
        TokenSampling {
            temperature: 0.85,
            top_k: 0,
            top_p: 0.9,
            repetition_penalty: 1.0,
            guidance: 2.5,
        }
    }
}

/// Divides the positive and multiplies the negative logits of `tokens` by `penalty`, each token
/// once however often it is listed. Tokens beyond the logits are passed over.
pub fn penalize(logits: &mut [f32], tokens: &[u32], penalty: f32) {
    if penalty == 1.0 {
        return;
    }
    let mut distinct = tokens.to_vec();
    distinct.sort_unstable();
    distinct.dedup();
    for id in distinct {
        if let Some(logit) = logits.get_mut(id as usize) {
            *logit = if *logit > 0.0 {
                *logit / penalty
            } else {
                *logit * penalty
            };
        }
    }
}

/// Classifier-free guidance: `u + scale (c - u)` in place of the conditional `c`; nothing when
/// `scale` is at most 1.
pub fn guide(conditional: &mut [f32], unconditional: &[f32], scale: f32) {
    if scale <= 1.0 {
        return;
    }
    for (c, u) in conditional.iter_mut().zip(unconditional) {
        *c = u + scale * (*c - u);
    }
}

/// Tokens that may be drawn, with their logits; those that are ruled out are not in it.
///
/// The buffers are kept between steps: fill with [`Candidates::clear`] and [`Candidates::take`].
#[derive(Debug, Clone)]
pub struct Candidates {
    level: Level,
    ids: Vec<u32>,
    logits: Vec<f32>,
    /// For thresholds and weights; kept, as are those below, to reuse its memory.
    scratch: Vec<f32>,
    /// Logits of the bin in which a nucleus ends.
    inside: Vec<f32>,
    /// Mass of every [`PART`] tokens.
    sums: Vec<f64>,
}

impl Default for Candidates {
    fn default() -> Self {
        Candidates {
            level: Level::detect(),
            ids: Vec::new(),
            logits: Vec::new(),
            scratch: Vec::new(),
            inside: Vec::new(),
            sums: Vec::new(),
        }
    }
}

/// Bins of the distance to the largest logit.
const BINS: usize = 1024;
/// Bins per unit: what lies further than 32 below the largest logit is at most e^-32 of it and
/// shares the last bin.
const BINS_PER_UNIT: f32 = 32.0;
/// Tokens that are looked at together.
const PART: usize = 1024;

/// The most probable tokens up to a share of the mass.
#[derive(Debug, Clone, Copy)]
struct Nucleus {
    /// Their smallest logit.
    threshold: f32,
    /// How many tokens of that logit are among them: those added first.
    ties: usize,
    /// Whether there are more.
    cuts: bool,
}

impl Nucleus {
    /// Whether the next token is among them, in the order they were added.
    fn takes(&mut self, logit: f32) -> bool {
        let tie = logit == self.threshold && self.ties > 0;
        self.ties -= usize::from(tie);
        logit > self.threshold || tie
    }
}

impl Candidates {
    /// All of these logits; the id of a token is its place.
    pub fn all(logits: &[f32]) -> Self {
        let mut candidates = Candidates::default();
        candidates.take(logits, 0, 0..logits.len() as u32);
        candidates
    }

    /// Removes all tokens.
    pub fn clear(&mut self) {
        self.ids.clear();
        self.logits.clear();
    }

    /// Adds the tokens `ids`. `logits` starts at the token `first`, so that a head may be computed
    /// for a part of the vocabulary. Tokens without a logit, and those whose logit is NaN, are
    /// left out: they cannot be drawn.
    pub fn take(&mut self, logits: &[f32], first: u32, ids: Range<u32>) {
        let from = ids.start.saturating_sub(first) as usize;
        let to = (ids.end.saturating_sub(first) as usize).min(logits.len());
        let Some(part) = logits.get(from..to) else {
            return;
        };
        let start = self.ids.len();
        self.ids.extend((first + from as u32..).take(part.len()));
        self.logits.extend_from_slice(part);
        // No early end, so that the loop becomes vector code.
        if part.iter().fold(false, |any, l| any | l.is_nan()) {
            let mut at = start;
            for i in start..self.logits.len() {
                if !self.logits[i].is_nan() {
                    self.logits[at] = self.logits[i];
                    self.ids[at] = self.ids[i];
                    at += 1;
                }
            }
            self.ids.truncate(at);
            self.logits.truncate(at);
        }
    }

    /// Tokens and logits, in the order they were added.
    pub fn iter(&self) -> impl Iterator<Item = (u32, f32)> + '_ {
        self.ids.iter().copied().zip(self.logits.iter().copied())
    }

    /// Number of tokens.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// The token of the largest logit, the first added among equals; `None` when there is none.
    pub fn best(&self) -> Option<u32> {
        let largest = self.largest()?;
        let at = self.logits.iter().position(|l| *l == largest)?;
        self.ids.get(at).copied()
    }

    fn largest(&self) -> Option<f32> {
        (!self.is_empty()).then(|| largest(self.level, &self.logits))
    }

    /// Divides the logits by a positive temperature.
    pub fn temper(&mut self, temperature: f32) {
        if temperature > 0.0 && temperature != 1.0 {
            divide(self.level, &mut self.logits, temperature);
        }
    }

    /// Keeps the `k` largest logits and those equal to the smallest of them; 0 keeps all.
    pub fn top_k(&mut self, k: usize) {
        if k == 0 || k >= self.len() {
            return;
        }
        self.scratch.clear();
        self.scratch.extend_from_slice(&self.logits);
        let (_, threshold, _) = self
            .scratch
            .select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a));
        let threshold = *threshold;
        self.keep(|logit| logit >= threshold);
    }

    /// Keeps a token if those more probable hold less than `p` of the mass; the most probable is
    /// always kept. Among equal logits those added first count as more probable. 0 and at least 1
    /// keep all.
    pub fn top_p(&mut self, p: f32) {
        if let Some(mut nucleus) = self.nucleus(p) {
            self.keep(|logit| nucleus.takes(logit));
        }
    }

    /// What [`Candidates::top_p`] keeps; `None` for everything. Leaves the weights of all tokens
    /// in the scratch buffer.
    ///
    /// Only the tokens around the limit are sorted: the mass is first counted in bins of the
    /// distance to the largest logit.
    fn nucleus(&mut self, p: f32) -> Option<Nucleus> {
        let largest = self.largest()?;
        if p <= 0.0 || p >= 1.0 || !largest.is_finite() {
            return None;
        }
        self.weigh(largest);
        let mut bins = [0u32; PART];
        // Two counts, so that neighbours in one bin do not wait for each other.
        let mut counts = [[0f64; BINS]; 2];
        for (logits, weights) in self.logits.chunks(PART).zip(self.scratch.chunks(PART)) {
            bin(self.level, logits, largest, &mut bins);
            for (pair, weights) in bins.chunks(2).zip(weights.chunks(2)) {
                for ((bin, weight), counts) in pair.iter().zip(weights).zip(&mut counts) {
                    counts[*bin as usize] += f64::from(*weight);
                }
            }
        }
        let mass: [f64; BINS] = std::array::from_fn(|i| counts[0][i] + counts[1][i]);
        let limit = f64::from(p) * mass.iter().sum::<f64>();
        let mut before = 0.0;
        let mut last = 0;
        while last + 1 < BINS && before + mass[last] < limit {
            before += mass[last];
            last += 1;
        }
        // The bin in which the limit is reached, most probable tokens first.
        let inside = &mut self.inside;
        inside.clear();
        for logits in self.logits.chunks(PART) {
            bin(self.level, logits, largest, &mut bins);
            let of_last = logits
                .iter()
                .zip(bins)
                .filter(|(_, bin)| *bin as usize == last);
            inside.extend(of_last.map(|(logit, _)| *logit));
        }
        inside.sort_unstable_by(|a, b| b.total_cmp(a));
        let mut kept = 0;
        while kept < inside.len() && before < limit {
            before += f64::from(exp(inside[kept] - largest));
            kept += 1;
        }
        let threshold = *inside.get(kept.checked_sub(1)?)?;
        let ties = inside[..kept].iter().filter(|l| **l == threshold).count();
        Some(Nucleus {
            threshold,
            ties,
            cuts: inside.get(kept) == Some(&threshold),
        })
    }

    /// Unnormalised probabilities of all tokens, into the scratch buffer.
    fn weigh(&mut self, largest: f32) {
        self.scratch.clear();
        self.scratch.extend_from_slice(&self.logits);
        weigh(self.level, &mut self.scratch, largest);
    }

    fn keep(&mut self, mut keep: impl FnMut(f32) -> bool) {
        let mut at = 0;
        for i in 0..self.len() {
            if keep(self.logits[i]) {
                self.ids[at] = self.ids[i];
                self.logits[at] = self.logits[i];
                at += 1;
            }
        }
        self.ids.truncate(at);
        self.logits.truncate(at);
    }

    /// Softmax of the logits, token by token.
    pub fn probabilities(&self) -> Vec<f32> {
        let largest = self.largest().unwrap_or(0.0);
        let mut weights = self.logits.clone();
        weigh(self.level, &mut weights, largest);
        let sum: f64 = weights.iter().map(|w| f64::from(*w)).sum();
        weights
            .into_iter()
            .map(|w| (f64::from(w) / sum) as f32)
            .collect()
    }

    /// The token at share `uniform` (in `[0, 1)`) of the probability mass, in the order they were
    /// added; `None` when there is none.
    pub fn draw(&mut self, uniform: f64) -> Option<u32> {
        let largest = self.largest()?;
        self.weigh(largest);
        self.draw_weighed(uniform)
    }

    /// As [`Candidates::draw`], by the weights in the scratch buffer.
    fn draw_weighed(&mut self, uniform: f64) -> Option<u32> {
        self.sums.clear();
        let parts = self.scratch.chunks(PART);
        self.sums.extend(parts.map(|part| sum(self.level, part)));
        let aim = uniform * self.sums.iter().sum::<f64>();
        let mut before = 0.0;
        for (n, total) in self.sums.iter().enumerate() {
            if before + total > aim {
                let start = n * PART;
                let mut within = before;
                for (id, w) in self.ids[start..].iter().zip(&self.scratch[start..]) {
                    within += f64::from(*w);
                    if *w > 0.0 && within > aim {
                        return Some(*id);
                    }
                }
            }
            before += total;
        }
        // Rounding put the aim behind the end of the mass.
        let last = self.scratch.iter().rposition(|w| *w > 0.0)?;
        self.ids.get(last).copied()
    }

    /// The token of step `step` of `stream`: greedy, or filtered and drawn. `None` when there is
    /// no candidate.
    pub fn sample(
        &mut self,
        how: &TokenSampling,
        stream: Stream,
        seed: u64,
        step: u32,
    ) -> Option<u32> {
        if how.temperature < COLDEST || self.len() == 1 {
            return self.best();
        }
        let uniform = stream.uniform(seed, step);
        self.temper(how.temperature);
        self.top_k(how.top_k);
        // As filtering and drawing, but what is ruled out stays in place and weighs nothing.
        let Some(mut nucleus) = self.nucleus(how.top_p) else {
            return self.draw(uniform);
        };
        exclude(
            self.level,
            &mut self.scratch,
            &self.logits,
            nucleus.threshold,
        );
        if nucleus.cuts {
            for (logit, weight) in self.logits.iter().zip(&mut self.scratch) {
                if !nucleus.takes(*logit) {
                    *weight = 0.0;
                }
            }
        }
        self.draw_weighed(uniform)
    }

    /// Temperature, top-k and top-p, in this order.
    pub fn filter(&mut self, how: &TokenSampling) {
        self.temper(how.temperature);
        self.top_k(how.top_k);
        self.top_p(how.top_p);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const L: [f32; 7] = [2.0, 1.5, 1.0, 0.5, 0.0, -1.0, -3.0];

    fn kept(logits: &[f32], temperature: f32, k: usize, p: f32) -> Vec<u32> {
        let mut candidates = Candidates::all(logits);
        candidates.temper(temperature);
        candidates.top_k(k);
        candidates.top_p(p);
        candidates.iter().map(|(id, _)| id).collect()
    }

    #[test]
    fn filters_keep_what_they_should() {
        assert_eq!(kept(&L, 1.0, 0, 0.9), [0, 1, 2, 3]);
        assert_eq!(kept(&L, 1.0, 0, 0.5), [0, 1]);
        assert_eq!(kept(&L, 0.3, 0, 0.9), [0, 1]);
        assert_eq!(kept(&L, 0.85, 3, 0.9), [0, 1, 2]);
        assert_eq!(kept(&[1.0, 1.0, 1.0, 0.0], 1.0, 2, 1.0), [0, 1, 2]);
        for off in [0.0, 1.0, 2.0, -1.0] {
            assert_eq!(kept(&L, 1.0, 0, off).len(), 7);
        }
        assert_eq!(kept(&L, 1.0, 99, 1e-9), [0]);
    }

    #[test]
    fn guidance_and_penalty() {
        let mut c = [1.0, -2.0, 0.5];
        guide(&mut c, &[0.5, -1.0, 0.5], 2.5);
        assert_eq!(c, [1.75, -3.5, 0.5]);
        let before = c;
        guide(&mut c, &[9.0; 3], 1.0);
        assert_eq!(c, before);
        let mut same = L;
        guide(&mut same, &L, 7.0);
        assert_eq!(same, L);
        let mut c = [1.0, -2.0, 0.5];
        penalize(&mut c, &[1, 0, 0, 1, 77], 1.2);
        assert_eq!(c, [1.0 / 1.2, -2.4, 0.5]);
    }

    #[test]
    fn a_part_of_the_vocabulary_keeps_its_ids() {
        let mut candidates = Candidates::default();
        candidates.take(&[1.0, f32::NAN, 3.0], 100, 100..200);
        candidates.take(&L, 0, 5..9);
        let all: Vec<_> = candidates.iter().collect();
        assert_eq!(all, [(100, 1.0), (102, 3.0), (5, -1.0), (6, -3.0)]);
        assert_eq!(candidates.best(), Some(102));
        candidates.clear();
        assert_eq!((candidates.best(), candidates.draw(0.5)), (None, None));
    }

    #[test]
    fn greedy_takes_the_first_of_equals() {
        for temperature in [0.0, -1.0, 1e-38] {
            let greedy = TokenSampling {
                temperature,
                ..TokenSampling::default()
            };
            let mut candidates = Candidates::all(&[0.0, 5.0, 5.0]);
            assert_eq!(candidates.sample(&greedy, Stream::tokens(0), 1, 1), Some(1));
        }
    }

    #[test]
    fn draws_follow_the_probabilities() {
        let candidates = Candidates::all(&L);
        let want = candidates.probabilities();
        let mut counts = [0u32; 7];
        let n = 40_000;
        let how = TokenSampling {
            temperature: 1.0,
            top_p: 1.0,
            ..TokenSampling::default()
        };
        for step in 0..n {
            let id = candidates
                .clone()
                .sample(&how, Stream::tokens(1), 42, step)
                .unwrap();
            counts[id as usize] += 1;
        }
        for (count, p) in counts.iter().zip(want) {
            let (mean, n) = (f64::from(n) * f64::from(p), f64::from(n));
            let deviation = (mean * (1.0 - mean / n)).sqrt();
            assert!((f64::from(*count) - mean).abs() < 5.0 * deviation + 1.0);
        }
    }

    /// A draw without moving anything is the draw from what is kept.
    #[test]
    fn sampling_is_filtering_and_drawing() {
        let stream = Stream::tokens(1);
        for (n, spread) in [(1, 1.0), (7, 3.0), (5000, 0.5), (5000, 20.0)] {
            // Few distinct values, so that ties are common.
            let logit = |i: u64| stream.uniform(i, 7) * spread;
            let logits: Vec<f32> = (0..n)
                .map(|i| (logit(i) * 64.0).round() as f32 / 64.0)
                .collect();
            for (step, top_k) in (0..200).zip([0, 3, 500].into_iter().cycle()) {
                let how = TokenSampling {
                    top_k,
                    top_p: [0.1, 0.5, 0.9, 1.0][step as usize % 4],
                    ..TokenSampling::default()
                };
                let mut kept = Candidates::all(&logits);
                kept.filter(&how);
                let want = kept.draw(stream.uniform(42, step));
                let got = Candidates::all(&logits).sample(&how, stream, 42, step);
                assert_eq!(got, want, "{n} {spread} {how:?}");
            }
        }
    }

    #[test]
    fn infinities_do_not_break_a_draw() {
        let mut candidates = Candidates::all(&[1.0, f32::INFINITY, f32::NEG_INFINITY]);
        assert_eq!(candidates.draw(0.7), Some(1));
        let mut candidates = Candidates::all(&[f32::NEG_INFINITY, 0.0]);
        candidates.top_p(0.9);
        assert_eq!(candidates.draw(0.999), Some(1));
        assert!(Candidates::all(&[f32::NEG_INFINITY; 2]).draw(0.5).is_some());
    }

    proptest! {
        /// Against the definition: sort everything, add up the mass.
        #[test]
        fn top_p_is_its_definition(
            logits in proptest::collection::vec(-40f32..10.0, 1..300),
            p in 0.01f32..0.999,
        ) {
            let mut candidates = Candidates::all(&logits);
            let probabilities = candidates.probabilities();
            let mut order: Vec<usize> = (0..logits.len()).collect();
            order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]));
            let mut before = 0.0;
            let mut want = Vec::new();
            let mut near_tie = false;
            for i in order {
                near_tie |= (before - f64::from(p)).abs() < 1e-5;
                if before < f64::from(p) {
                    want.push(i as u32);
                }
                before += f64::from(probabilities[i]);
            }
            want.sort_unstable();
            candidates.top_p(p);
            let ours: Vec<u32> = candidates.iter().map(|(id, _)| id).collect();
            prop_assert!(near_tie || ours == want, "{ours:?} {want:?}");
            prop_assert!(!ours.is_empty());
        }
    }
}
