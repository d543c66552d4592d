//! Outcome of comparisons, and the limits they are held to.

use super::golden::Array;
use engine::program::Math;
use std::collections::BTreeSet;
use std::fmt;

/// What kind of number is compared; decides the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Encoders, detokenizer, single sub-blocks.
    Block,
    /// The same, computed in f32 whatever the products of the run use.
    BlockF32,
    /// One evaluation of the diffusion transformer.
    Velocity,
    /// Trajectories without guidance.
    Trajectory,
    /// Guided trajectories.
    Guided,
    /// Guided trajectories with fresh noise at every step.
    GuidedSde,
    /// Logits of the language model.
    Logits,
    /// Audio of the VAE and what leads to it.
    Vae,
    /// Latents of a whole song, without guidance.
    Song,
    /// Latents of a whole song, guided.
    GuidedSong,
    /// Waveform of a whole song.
    Wave,
    /// Random normals: sines and logarithms differ in the last bit between libraries.
    Noise,
    /// Logits and probabilities of single tokens, computed on the host.
    Probability,
    /// Normals rounded to bf16, where that last bit may move a value to its neighbour.
    NoiseBf16,
}

/// Largest errors that pass.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Limit {
    /// `||a - b|| / ||b||`, and the largest difference of an element where one is given.
    Within {
        /// Largest relative error.
        relative: f32,
        /// Largest difference.
        max_abs: Option<f32>,
    },
    /// No difference at all.
    Exact,
    /// Shown, not judged: rounding alone moves the result as far as a fault would.
    None,
}

impl Kind {
    /// The limit in this arithmetic. The f32 ones allow about ten times what reordering sums
    /// changes; the bf16 ones are about twice what the reference changes when it runs in bf16
    /// with the time rounded alike. A run keeps its time in f32 in both, so both compare with the
    /// reference's f32 tensors.
    pub fn limit(self, math: Math) -> Limit {
        let within = |relative, max_abs| Limit::Within {
            relative,
            max_abs: Some(max_abs),
        };
        let relative = |relative| Limit::Within {
            relative,
            max_abs: None,
        };
        match (self, math) {
            (Kind::BlockF32, _) | (Kind::Block, Math::F32) => within(1e-5, 1e-4),
            (Kind::Velocity | Kind::Trajectory, Math::F32) => within(3e-5, 3e-4),
            (Kind::Guided, Math::F32) => within(1e-4, 2e-3),
            (Kind::GuidedSde, Math::F32) => within(3e-4, 5e-3),
            (Kind::Logits, Math::F32) => within(1e-5, 2e-4),
            (Kind::Vae, Math::F32) => within(2e-5, 1e-4),
            (Kind::Song, Math::F32) => within(1e-4, 1e-3),
            (Kind::GuidedSong, Math::F32) => within(3e-4, 3e-3),
            (Kind::Wave, Math::F32) => relative(1e-4),
            (Kind::Block | Kind::Velocity, Math::Bf16) => relative(3e-2),
            (Kind::Trajectory, Math::Bf16) => relative(2e-2),
            (Kind::Guided, Math::Bf16) => relative(1e-1),
            (Kind::GuidedSde, Math::Bf16) => Limit::None,
            (Kind::Logits, Math::Bf16) => relative(4e-2),
            (Kind::Vae, Math::Bf16) => relative(8e-2),
            (Kind::Song, Math::Bf16) => relative(6e-2),
            (Kind::GuidedSong, Math::Bf16) => relative(1e-1),
            (Kind::Wave, Math::Bf16) => relative(2e-1),
            (Kind::Noise | Kind::Probability, _) => within(1e-6, 1e-6),
            (Kind::NoiseBf16, _) => within(2e-3, 1.6e-2),
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Limit::Within {
                relative,
                max_abs: Some(abs),
            } => format!("{relative:.0e}/{abs:.0e}"),
            Limit::Within {
                relative,
                max_abs: None,
            } => format!("{relative:.0e}"),
            Limit::Exact => "exact".into(),
            Limit::None => "none".into(),
        };
        f.pad(&text)
    }
}

/// How far two tensors are apart.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Distance {
    /// Largest difference of an element.
    pub max_abs: f64,
    /// `||a - b|| / ||b||` over the whole tensor.
    pub relative: f64,
}

impl Distance {
    /// Distance of equally long tensors; NaN where either holds a NaN.
    pub fn between(ours: &[f32], theirs: &[f32]) -> Self {
        let (mut max_abs, mut difference, mut norm) = (0f64, 0f64, 0f64);
        for (a, b) in ours.iter().zip(theirs) {
            let d = f64::from(*a) - f64::from(*b);
            // `max` would drop a NaN.
            max_abs = if d.abs() > max_abs || d.is_nan() {
                d.abs()
            } else {
                max_abs
            };
            difference += d * d;
            norm += f64::from(*b) * f64::from(*b);
        }
        let relative = match (difference, norm) {
            (0.0, _) => 0.0,
            (d, n) => (d / n).sqrt(),
        };
        Distance { max_abs, relative }
    }

    fn passes(&self, limit: Limit) -> bool {
        match limit {
            Limit::None => true,
            Limit::Exact => self.max_abs == 0.0,
            Limit::Within { relative, max_abs } => {
                self.relative <= f64::from(relative)
                    && max_abs.is_none_or(|m| self.max_abs <= f64::from(m))
            }
        }
    }
}

/// One line of the report.
#[derive(Debug, Clone, PartialEq)]
pub enum Line {
    /// A tensor was compared.
    Compared {
        /// File below `stages`.
        file: String,
        /// Name of the tensor.
        name: String,
        /// How far it is off.
        distance: Distance,
        /// What is allowed.
        limit: Limit,
        /// Whether it is within the limit.
        pass: bool,
    },
    /// A file or tensor could not be compared, which fails it.
    Fault {
        /// File.
        file: String,
        /// Why.
        why: String,
    },
    /// The file belongs to a capability that is still to come.
    NotBuilt {
        /// File.
        file: String,
        /// The capability.
        what: &'static str,
    },
    /// The file holds only inputs of other files.
    Inputs {
        /// File.
        file: String,
    },
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Line::Compared {
                file,
                name,
                distance,
                limit,
                pass,
            } => write!(
                f,
                "{file:<46} {name:<30} {:>9.2e} {:>9.2e} {limit:>11} {}",
                distance.max_abs,
                distance.relative,
                match (limit, pass) {
                    (Limit::None, _) => "shown (no limit)",
                    (_, true) => "PASS",
                    (_, false) => "FAIL",
                }
            ),
            Line::Fault { file, why } => write!(f, "{file:<46} {why} FAIL"),
            Line::NotBuilt { file, what } => write!(f, "{file:<46} not built ({what})"),
            Line::Inputs { file } => write!(f, "{file:<46} inputs of other files"),
        }
    }
}

/// Totals of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Totals {
    /// Tensors within their limit.
    pub passed: usize,
    /// Tensors and files that are not.
    pub failed: usize,
    /// Files of capabilities to come.
    pub not_built: usize,
    /// Operations that ran by definition because the backend has no kernel for them.
    pub by_definition: BTreeSet<&'static str>,
}

/// Judges comparisons and passes each on as a [`Line`].
pub struct Reporter<'a> {
    sink: &'a mut dyn FnMut(&Line),
    math: Math,
    /// File that is being compared.
    file: String,
    /// Lines given so far: a file without one was not looked at.
    lines: usize,
    /// Totals so far.
    pub totals: Totals,
}

impl<'a> Reporter<'a> {
    /// A reporter for a run in this arithmetic.
    pub fn new(math: Math, sink: &'a mut dyn FnMut(&Line)) -> Self {
        Reporter {
            sink,
            math,
            file: String::new(),
            lines: 0,
            totals: Totals::default(),
        }
    }

    /// Number of lines given so far.
    pub fn lines(&self) -> usize {
        self.lines
    }

    /// What follows belongs to this file.
    pub fn file(&mut self, file: &str) {
        self.file = file.to_string();
    }

    /// Compares with a golden tensor.
    pub fn compare(&mut self, name: &str, ours: &[f32], theirs: &Array, kind: Kind) {
        self.compare_slices(name, ours, &theirs.data, kind.limit(self.math));
    }

    /// Compares with a part of a golden tensor.
    pub fn compare_part(&mut self, name: &str, ours: &[f32], theirs: &[f32], kind: Kind) {
        self.compare_slices(name, ours, theirs, kind.limit(self.math));
    }

    /// Demands equality of numbers that are computed alike everywhere.
    pub fn exact_f32(&mut self, name: &str, ours: &[f32], theirs: &[f32]) {
        self.compare_slices(name, ours, theirs, Limit::Exact);
    }

    /// Demands equality of whole numbers.
    pub fn exact(&mut self, name: &str, ours: &[i64], theirs: &[i64]) {
        if ours.len() != theirs.len() {
            return self.lengths_differ(name, ours.len(), theirs.len());
        }
        let off = ours.iter().zip(theirs).filter(|(a, b)| a != b).count();
        let max = ours
            .iter()
            .zip(theirs)
            .map(|(a, b)| a.abs_diff(*b))
            .max()
            .unwrap_or(0);
        let relative = off as f64 / ours.len().max(1) as f64;
        self.judge(
            name,
            Distance {
                max_abs: max as f64,
                relative,
            },
            Limit::Exact,
        );
    }

    /// Demands equality of texts.
    pub fn exact_text(&mut self, name: &str, ours: &str, theirs: &str) {
        let off = f64::from(u8::from(ours != theirs));
        self.judge(
            name,
            Distance {
                max_abs: off,
                relative: off,
            },
            Limit::Exact,
        );
    }

    fn compare_slices(&mut self, name: &str, ours: &[f32], theirs: &[f32], limit: Limit) {
        if ours.len() != theirs.len() {
            return self.lengths_differ(name, ours.len(), theirs.len());
        }
        self.judge(name, Distance::between(ours, theirs), limit);
    }

    fn lengths_differ(&mut self, name: &str, ours: usize, theirs: usize) {
        self.fault(format!(
            "{name}: {ours} elements were computed, {theirs} are expected"
        ));
    }

    fn judge(&mut self, name: &str, distance: Distance, limit: Limit) {
        let pass = distance.passes(limit);
        match (limit, pass) {
            (Limit::None, _) => {}
            (_, true) => self.totals.passed += 1,
            (_, false) => self.totals.failed += 1,
        }
        let (file, name) = (self.file.clone(), name.to_string());
        self.lines += 1;
        (self.sink)(&Line::Compared {
            file,
            name,
            distance,
            limit,
            pass,
        });
    }

    /// Fails the file for this reason.
    pub fn fault(&mut self, why: impl Into<String>) {
        self.totals.failed += 1;
        let why = why.into();
        self.lines += 1;
        (self.sink)(&Line::Fault {
            file: self.file.clone(),
            why,
        });
    }

    /// The file belongs to a capability to come.
    pub fn not_built(&mut self, what: &'static str) {
        self.totals.not_built += 1;
        self.lines += 1;
        (self.sink)(&Line::NotBuilt {
            file: self.file.clone(),
            what,
        });
    }

    /// The file holds inputs only.
    pub fn inputs(&mut self) {
        self.lines += 1;
        (self.sink)(&Line::Inputs {
            file: self.file.clone(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(ours: &[f32], theirs: &[f32], kind: Kind, math: Math) -> Totals {
        let mut sink = |_: &Line| {};
        let mut reporter = Reporter::new(math, &mut sink);
        reporter.compare_part("x", ours, theirs, kind);
        reporter.totals
    }

    #[test]
    fn both_errors_must_be_within_the_limit() {
        let theirs = [1.0, -1.0, 100.0];
        let near = [1.0, -1.0, 100.0001];
        assert_eq!(verdict(&near, &theirs, Kind::Velocity, Math::F32).passed, 1);
        // A relative error of 1e-6, but one element is off by 3.5e-4.
        let one_off = [1.000_35, -1.0, 100.0];
        assert_eq!(
            verdict(&one_off, &theirs, Kind::Velocity, Math::F32).failed,
            1
        );
        assert_eq!(
            verdict(&one_off, &theirs, Kind::Velocity, Math::Bf16).passed,
            1
        );
    }

    #[test]
    fn what_is_no_number_fails() {
        for kind in [Kind::Block, Kind::Velocity, Kind::Vae, Kind::Wave] {
            for math in [Math::F32, Math::Bf16] {
                assert_eq!(verdict(&[f32::NAN, 1.0], &[1.0, 1.0], kind, math).failed, 1);
                assert_eq!(verdict(&[f32::INFINITY], &[1.0], kind, math).failed, 1);
            }
        }
    }

    #[test]
    fn zeros_pass_only_against_zeros() {
        assert_eq!(
            verdict(&[0.0; 3], &[0.0; 3], Kind::Block, Math::F32).passed,
            1
        );
        assert_eq!(
            verdict(&[1e-9; 3], &[0.0; 3], Kind::Block, Math::F32).failed,
            1
        );
    }

    #[test]
    fn other_lengths_fail() {
        assert_eq!(
            verdict(&[1.0], &[1.0, 1.0], Kind::Block, Math::F32).failed,
            1
        );
    }
}
