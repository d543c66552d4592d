//! Whether a session of the language model fits into memory, and how many songs it can plan at
//! once, by arithmetic on its programs.

use super::fit::{arena_bytes, constants, f32s};
use super::language_model::CHUNK;
use crate::backend::Backend;
use crate::error::{Error, Result};
use crate::models::config::LmConfig;
use crate::models::language_model::{Head, LmShape, cache_bytes, forward};
use crate::program::Math;
use crate::text::codes::code_count;

/// Programs of a session that are large and ready at once: chunks of a prompt, its rest, a step.
const PROGRAMS: u64 = 3;
/// Copies of the logits of a step: the device's, the session's, the planner's, and the one that is
/// worked on.
const LOGITS: u64 = 4;

/// A language model on a device, by its sizes alone.
#[derive(Clone, Copy)]
pub struct PlannerFit<'a> {
    /// The device.
    pub backend: &'a dyn Backend,
    /// Sizes.
    pub config: &'a LmConfig,
    /// How products treat their operands.
    pub math: Math,
}

/// What of a request decides the memory its codes take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CodeShape {
    /// Rows of each song: two with guidance.
    pub rows: usize,
    /// Tokens of the longest prompt.
    pub prompt: usize,
    /// Codes of a song.
    pub codes: usize,
    /// Which logits are wanted.
    pub head: Head,
    /// Bytes that are held meanwhile: those of the reasoning.
    pub beside: u64,
}

impl PlannerFit<'_> {
    /// Bytes that a session takes: its keys and values, the arena of its largest program, tables
    /// of positions and logits. Weights are read where their file is mapped and not counted: the
    /// system can drop them.
    pub fn needs(&self, rows: usize, capacity: usize, head: Head) -> Result<u64> {
        let shape = |rows, tokens, head| LmShape {
            rows,
            tokens,
            capacity,
            head,
        };
        let prompt = shape(1, CHUNK.min(capacity), head);
        let (mut arena, mut tables) = (0, 0);
        for shape in [prompt, shape(rows, 1, head)] {
            let program = forward(self.config, self.math, shape)?;
            arena = arena.max(arena_bytes(self.backend, &program)?);
            tables = constants(&program);
        }
        let cache = cache_bytes(self.config, self.math) as u64;
        let cache = cache.saturating_mul(rows as u64 * capacity as u64);
        let logits = LOGITS * f32s(&[rows, head.len(self.config.vocab_size)]);
        Ok((arena + PROGRAMS * tables + logits).saturating_add(cache))
    }

    /// How many of `songs` have their codes written at once in `have` bytes. 0 bytes means that
    /// the device's memory is not known.
    ///
    /// # Errors
    /// [`Error::TooBig`] with what would fit, when not even one does.
    pub fn songs_at_once(&self, songs: usize, shape: &CodeShape, have: u64) -> Result<usize> {
        for n in (1..=songs.max(1)).rev() {
            if have == 0 || self.needs_codes(n, shape)? <= have {
                return Ok(n);
            }
        }
        Err(Error::TooBig {
            needs: self.needs_codes(1, shape)?,
            have,
            suggestion: self.suggestion(shape, have)?,
        })
    }

    fn needs_codes(&self, songs: usize, s: &CodeShape) -> Result<u64> {
        let session = self.needs(songs * s.rows, s.prompt + s.codes, s.head)?;
        Ok(session.saturating_add(s.beside))
    }

    /// The longest song of whole seconds that fits.
    fn suggestion(&self, shape: &CodeShape, have: u64) -> Result<String> {
        let (mut fits, mut fails) = (0, shape.codes);
        while fits + 1 < fails {
            let seconds = fits.midpoint(fails);
            let codes = code_count(seconds as f64);
            match codes < shape.codes
                && self.needs_codes(1, &CodeShape { codes, ..*shape })? <= have
            {
                true => fits = seconds,
                false => fails = seconds,
            }
        }
        Ok(match fits {
            0 => "choose a smaller language model or a machine with more memory".into(),
            _ => format!("try {fits} seconds"),
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::backend::cpu::CpuBackend;
    use crate::weights::published;
    use std::path::Path;

    /// A song of two minutes with guidance.
    const SHAPE: CodeShape = CodeShape {
        rows: 2,
        prompt: 500,
        codes: 600,
        head: Head::Rows {
            start: 151_669,
            len: 64_000,
        },
        beside: 1 << 20,
    };

    fn with_small_model(math: Math, test: impl Fn(PlannerFit)) {
        let config = published::lm(1024, 28, 16, 3072).to_string();
        test(PlannerFit {
            backend: &CpuBackend::new(1, None).unwrap(),
            config: &LmConfig::parse(&config, Path::new("config.json")).unwrap(),
            math,
        });
    }

    #[test]
    fn needs_are_the_cache_and_a_little_more() {
        // 2 x 28 layers x 8 heads x 128 elements per position.
        for (math, position) in [(Math::Bf16, 114_688), (Math::F32, 229_376)] {
            with_small_model(math, |fit| {
                let cache = 2 * 1100 * position;
                let needs = fit.needs_codes(1, &SHAPE).unwrap();
                assert!(
                    (cache + (1 << 20)..cache + (100 << 20)).contains(&needs),
                    "{needs}"
                );
                let twice = fit.needs_codes(2, &SHAPE).unwrap();
                assert!(twice - needs >= cache, "{twice}");
            });
        }
    }

    #[test]
    fn fewer_songs_at_once_or_shorter_ones() {
        with_small_model(Math::Bf16, |fit| {
            let needs = |songs| fit.needs_codes(songs, &SHAPE).unwrap();
            let at_once = |have| fit.songs_at_once(4, &SHAPE, have);
            assert_eq!((at_once(0), at_once(needs(4))), (Ok(4), Ok(4)));
            assert_eq!(at_once(needs(4) - 1), Ok(3));
            assert_eq!((at_once(needs(2)), at_once(needs(1))), (Ok(2), Ok(1)));
            let refused = |have| match at_once(have) {
                Err(Error::TooBig {
                    needs,
                    have: h,
                    suggestion,
                }) if h == have => (needs, suggestion),
                other => panic!("{other:?}"),
            };
            let advice = "try 119 seconds".to_string();
            assert_eq!(refused(needs(1) - 1), (needs(1), advice));
            assert!(refused(1 << 20).1.contains("smaller language model"));
        });
    }
}
