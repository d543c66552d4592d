//! Whether a song fits into memory, by arithmetic on its programs: an answer before the work
//! starts, not a crash in its third minute.

use super::engine::{FRAMES_PER_SECOND, MIN_FRAMES};
use super::render::{LEAST_TILE, TILE, tiles};
use crate::backend::Backend;
use crate::error::{Error, Result};
use crate::models::config::{DitConfig, VaeConfig};
use crate::models::dit::{self, TimeFrom, VelocityShape};
use crate::models::vae::{decode_overlap, vae_decoder};
use crate::program::{Math, Program, ValInfo, ValKind, lower, plan};

/// Tensors of the latents' shape that the denoising loop keeps on the device.
const STATE_TENSORS: u64 = 8;

/// Models on a device, by their sizes alone.
#[derive(Clone, Copy)]
pub struct Fit<'a> {
    /// The device.
    pub backend: &'a dyn Backend,
    /// Diffusion model.
    pub dit: &'a DitConfig,
    /// Audio decoder.
    pub vae: &'a VaeConfig,
    /// How products treat their operands.
    pub math: Math,
}

/// What of a request decides its memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JobShape {
    /// Songs that are asked for.
    pub items: usize,
    /// Latent frames of each.
    pub frames: usize,
    /// Rows of the packed condition.
    pub rows: usize,
    /// Denoising steps.
    pub steps: usize,
    /// Whether the unconditional branch runs beside the conditional one.
    pub guided: bool,
    /// Whether every step has noise of its own.
    pub step_noise: bool,
}

impl Fit<'_> {
    /// Bytes that the job takes when `at_once` of its items are denoised together: the arena of
    /// the largest program, what the loop keeps, finished songs, and the weights that are made
    /// anew. Weights that are read where their file is mapped are not counted: the system can
    /// drop them.
    pub fn needs(&self, job: &JobShape, at_once: usize) -> Result<u64> {
        let velocity = VelocityShape {
            batch: at_once,
            frames: job.frames,
            condition_rows: job.rows,
            guided: job.guided,
            time: TimeFrom::Table(job.steps + 1),
        };
        let decoder = self.decoder();
        let tile = decoder.tile(job.frames)?;
        let decoder = decoder.program(job.frames, tile)?;
        let keys = dit::cross_kv(self.dit, self.math, velocity.items(), job.rows)?;
        let network = dit::velocity(self.dit, self.math, velocity)?;
        let mut arena = 0;
        for program in [&decoder, &keys, &network] {
            arena = arena.max(arena_bytes(self.backend, program)?);
        }
        let loops = self.loop_bytes(job, at_once) + outputs_bytes(&keys) + constants(&network);
        let tile = outputs_bytes(&decoder);
        let weights = own_weights(&decoder, self.math);
        Ok(arena + loops.max(tile) + self.songs_bytes(job) + weights)
    }

    fn decoder(&self) -> DecoderFit<'_> {
        DecoderFit {
            backend: self.backend,
            vae: self.vae,
            math: self.math,
        }
    }

    /// How many items are denoised together in `have` bytes: all, or one after another when only
    /// that fits. 0 bytes means that the device's memory is not known.
    ///
    /// # Errors
    /// [`Error::TooBig`] with what would fit.
    pub fn items_at_once(&self, job: &JobShape, have: u64) -> Result<usize> {
        if have == 0 || self.needs(job, job.items)? <= have {
            return Ok(job.items);
        }
        let needs = self.needs(job, 1)?;
        if needs <= have {
            return Ok(1);
        }
        Err(Error::TooBig {
            needs,
            have,
            suggestion: self.suggestion(job, have)?,
        })
    }

    fn suggestion(&self, job: &JobShape, have: u64) -> Result<String> {
        let mut ways = Vec::new();
        if job.items > 1 && self.needs(&JobShape { items: 1, ..*job }, 1)? <= have {
            ways.push("batch 1".to_string());
        }
        // The longest song of whole seconds that fits: needs grow with the length.
        let shortest = MIN_FRAMES.div_ceil(FRAMES_PER_SECOND);
        let (mut fits, mut fails) = (shortest - 1, job.frames.div_ceil(FRAMES_PER_SECOND));
        while fits + 1 < fails {
            let seconds = fits.midpoint(fails);
            let frames = seconds * FRAMES_PER_SECOND;
            if self.needs(&JobShape { frames, ..*job }, 1)? <= have {
                fits = seconds;
            } else {
                fails = seconds;
            }
        }
        if fits >= shortest {
            ways.push(format!("{fits} seconds"));
        }
        Ok(match ways.is_empty() {
            true => "choose a smaller model or a machine with more memory".into(),
            false => format!("try {}", ways.join(", or ")),
        })
    }

    /// State of the denoising loop and the host's copies of what goes into it and comes out.
    fn loop_bytes(&self, job: &JobShape, at_once: usize) -> u64 {
        let c = self.dit;
        let frames = f32s(&[at_once, job.frames]);
        let latents = frames * c.audio_acoustic_hidden_dim as u64;
        let context = frames * (c.in_channels - c.audio_acoustic_hidden_dim) as u64;
        let branches = if job.guided { 2 } else { 1 };
        let packed = f32s(&[branches, at_once, job.rows, c.encoder_hidden_size]);
        let noise = if job.step_noise { job.steps as u64 } else { 0 };
        let times = f32s(&[job.steps + 1, 7, c.hidden_size]);
        (STATE_TENSORS + noise + 1) * latents + 2 * context + 3 * packed + times
    }

    /// Initial noise, latents and audio of all items.
    fn songs_bytes(&self, job: &JobShape) -> u64 {
        let audio = self.vae.hop() * self.vae.audio_channels;
        f32s(&[
            job.items,
            job.frames,
            2 * self.dit.audio_acoustic_hidden_dim + audio,
        ])
    }
}

/// The audio decoder on a device, by its sizes alone.
#[derive(Clone, Copy)]
pub(super) struct DecoderFit<'a> {
    /// The device.
    pub backend: &'a dyn Backend,
    /// Sizes.
    pub vae: &'a VaeConfig,
    /// How products treat their operands.
    pub math: Math,
}

impl DecoderFit<'_> {
    /// Latent frames of the tiles in which a song of `frames` is decoded: [`TILE`], or half of
    /// that as often as it takes to fit into the device, down to [`LEAST_TILE`]. The song is the
    /// same; smaller tiles only spend more time on their overlaps.
    pub fn tile(&self, frames: usize) -> Result<usize> {
        let caps = self.backend.caps();
        self.tile_within(frames, caps.memory_bytes, caps.piece_bytes)
    }

    /// As [`DecoderFit::tile`], in `memory` bytes (0: nobody knows) of pieces of `piece`.
    fn tile_within(&self, frames: usize, memory: u64, piece: usize) -> Result<usize> {
        let mut tile = TILE;
        while tile > LEAST_TILE {
            let program = self.program(frames, tile)?;
            let lies_in_pieces = largest_temporary(&program) <= piece;
            if lies_in_pieces && (memory == 0 || self.needs(&program, frames)? <= memory) {
                break;
            }
            tile /= 2;
        }
        Ok(tile)
    }

    /// What decodes one tile.
    pub fn program(&self, frames: usize, tile: usize) -> Result<Program> {
        let tiles = tiles(frames, tile, decode_overlap(self.vae));
        vae_decoder(self.vae, self.math, tiles[0].window.len())
    }

    /// Bytes for decoding a song of `frames` with `program` for its tiles.
    fn needs(&self, program: &Program, frames: usize) -> Result<u64> {
        let audio = self.vae.hop() * self.vae.audio_channels;
        Ok(arena_bytes(self.backend, program)?
            + outputs_bytes(program)
            + own_weights(program, self.math)
            + f32s(&[frames, audio]))
    }
}

/// Bytes of the largest value that is computed. Weights are not asked for: a backend cuts them.
fn largest_temporary(program: &Program) -> usize {
    let temporary = |info: &&ValInfo| matches!(info.kind, ValKind::Temp);
    let sizes = program.vals.iter().filter(temporary).map(|v| v.bytes());
    sizes.max().unwrap_or(0)
}

/// Weights of the decoder: their norms are folded, and a backend packs the result.
fn own_weights(decoder: &Program, math: Math) -> u64 {
    let elements: usize = decoder
        .weights()
        .map(|w| w.shape.iter().product::<usize>())
        .sum();
    let bytes = if math == Math::F32 { 4 } else { 2 };
    2 * bytes * elements as u64
}

/// Temporaries and scratch spaces of a program.
pub(super) fn arena_bytes(backend: &dyn Backend, program: &Program) -> Result<u64> {
    let (program, _) = lower(program, &|op| backend.claims(op))?;
    // Results are written straight to regions of their own.
    let outs: Vec<_> = program.outs.iter().map(|(_, v)| program.root(*v)).collect();
    let scratch = |i| backend.scratch_bytes(&program, i);
    let (align, piece) = (backend.caps().align, backend.caps().piece_bytes);
    let external = |v| outs.contains(&v);
    Ok(plan(&program, align, piece, &external, &scratch).arena_bytes as u64)
}

/// Bytes of f32 elements.
pub(super) fn f32s(shape: &[usize]) -> u64 {
    shape
        .iter()
        .fold(4, |n: u64, d| n.saturating_mul(*d as u64))
}

/// Results of a program.
pub(super) fn outputs_bytes(program: &Program) -> u64 {
    let bytes = |v: &(_, crate::program::Val)| program.vals[v.1.index()].bytes() as u64;
    program.outs.iter().map(bytes).sum()
}

/// Tables that a program brings with it (rotations).
pub(super) fn constants(program: &Program) -> u64 {
    let constants = program
        .vals
        .iter()
        .filter(|v| matches!(v.kind, ValKind::Const(_)));
    constants.map(|v| v.bytes() as u64).sum()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::backend::cpu::CpuBackend;
    use crate::weights::published;
    use std::path::Path;

    const SMALL: JobShape = JobShape {
        items: 1,
        frames: 250,
        rows: 200,
        steps: 8,
        guided: false,
        step_noise: false,
    };

    fn with_full_size(test: impl Fn(Fit)) {
        let path = Path::new("config.json");
        let backend = CpuBackend::new(1, None).unwrap();
        test(Fit {
            backend: &backend,
            dit: &DitConfig::parse(&published::dit(false).to_string(), path).unwrap(),
            vae: &VaeConfig::parse(&published::vae().to_string(), path).unwrap(),
            math: Math::Bf16,
        });
    }

    #[test]
    fn needs_grow_with_the_request() {
        with_full_size(|fit| {
            let small = fit.needs(&SMALL, 1).unwrap();
            assert!((200 << 20..3 << 30).contains(&small), "{small}");
            for (more, at_once) in [
                (JobShape { items: 2, ..SMALL }, 1),
                (JobShape { items: 2, ..SMALL }, 2),
                (
                    JobShape {
                        rows: 900,
                        frames: 15_000,
                        ..SMALL
                    },
                    1,
                ),
                (
                    JobShape {
                        frames: 15_000,
                        ..SMALL
                    },
                    1,
                ),
            ] {
                assert!(fit.needs(&more, at_once).unwrap() > small, "{more:?}");
            }
            // Ten minutes, eight songs, a hundred steps of noise: legal, and absurd.
            let absurd = JobShape {
                items: 8,
                frames: 15_000,
                rows: 2000,
                steps: 100,
                guided: true,
                step_noise: true,
            };
            let noise = 100 * 8 * 15_000 * 64 * 4;
            let needs = fit.needs(&absurd, 8).unwrap();
            assert!(needs > 8 << 30 && needs > noise, "{needs}");
        });
    }

    #[test]
    fn tiles_shrink_until_they_fit() {
        with_full_size(|fit| {
            let (decoder, frames) = (fit.decoder(), 3000);
            let tile = |memory, piece| decoder.tile_within(frames, memory, piece).unwrap();
            assert_eq!(tile(0, usize::MAX), TILE);
            for size in [TILE, TILE / 2] {
                let program = decoder.program(frames, size).unwrap();
                let needs = decoder.needs(&program, frames).unwrap();
                assert_eq!(tile(needs, usize::MAX), size);
                assert_eq!(tile(needs - 1, usize::MAX), size / 2);
                let largest = largest_temporary(&program);
                assert_eq!(tile(0, largest), size);
                assert_eq!(tile(0, largest - 1), size / 2);
            }
            assert_eq!((tile(1, usize::MAX), tile(0, 1)), (LEAST_TILE, LEAST_TILE));
        });
    }

    #[test]
    fn what_does_not_fit_together_runs_in_turns_or_is_refused_with_advice() {
        with_full_size(|fit| {
            let job = JobShape {
                items: 4,
                frames: 3000,
                ..SMALL
            };
            let all = fit.needs(&job, 4).unwrap();
            let one = fit.needs(&job, 1).unwrap();
            assert_eq!(fit.items_at_once(&job, 0), Ok(4));
            assert_eq!(fit.items_at_once(&job, all), Ok(4));
            assert_eq!(fit.items_at_once(&job, all - 1), Ok(1));
            assert_eq!(fit.items_at_once(&job, one), Ok(1));
            let refused = |have| match fit.items_at_once(&job, have) {
                Err(Error::TooBig {
                    needs,
                    have: h,
                    suggestion,
                }) => {
                    assert_eq!((needs, h), (one, have));
                    suggestion
                }
                other => panic!("{other:?}"),
            };
            let advice = refused(one - 1);
            assert_eq!(advice, "try batch 1, or 119 seconds");
            assert!(refused(1).contains("smaller model"));
        });
    }
}
