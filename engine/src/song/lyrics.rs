//! When the lyrics of a finished song are sung: one more look of the network at it, cut short
//! behind the layers whose cross-attention follows the words. Upstream:
//! `acestep/core/generation/handler/lyric_timestamp.py`.

use super::engine::{Engine, FRAMES_PER_SECOND};
use super::fit;
use super::prepare::Prepared;
use super::request::SongRequest;
use super::{Stage, Watch};
use crate::backend::{Backend, HostData, run_once};
use crate::error::{Error, Result};
use crate::models::config::DitConfig;
use crate::models::dit::{cross_weights, weights_name};
use crate::program::Program;
use crate::text::{lrc, prompt};
use std::ops::Range;

/// Seed of the noise that the network sees the song through.
const SEED: u64 = 42;

/// Heads, by layer, that follow the words: upstream's `_DEFAULT_LAYERS_CONFIG`.
const HEADS: [(usize, &[usize]); 5] = [
    (2, &[6]),
    (3, &[10, 11]),
    (4, &[3]),
    (5, &[8, 9]),
    (6, &[8]),
];
/// Those of the XL models, as their configurations have them.
const HEADS_XL: [(usize, &[usize]); 5] = [
    (3, &[18, 27]),
    (4, &[22]),
    (5, &[5, 6, 7]),
    (6, &[2, 12, 13]),
    (7, &[20, 21]),
];

/// The heads that a model's configuration names, else those known for its family. A model too
/// small to have any of these is asked all heads of its last layer.
pub fn heads(c: &DitConfig) -> Vec<(usize, Vec<usize>)> {
    let known: Vec<(usize, Vec<usize>)> = match &c.lyric_alignment_layers_config {
        Some(map) if !map.is_empty() => map.iter().map(|(l, h)| (*l, h.clone())).collect(),
        _ => {
            let known = if c.has_encoder_config {
                HEADS_XL
            } else {
                HEADS
            };
            known.map(|(layer, heads)| (layer, heads.to_vec())).to_vec()
        }
    };
    let exists = |head: &usize| *head < c.num_attention_heads;
    let there = known
        .into_iter()
        .filter(|(layer, _)| *layer < c.num_hidden_layers)
        .map(|(layer, heads)| (layer, heads.into_iter().filter(exists).collect::<Vec<_>>()))
        .filter(|(_, heads)| !heads.is_empty());
    let there: Vec<_> = there.collect();
    match there.is_empty() {
        true => vec![(
            c.num_hidden_layers - 1,
            (0..c.num_attention_heads).collect(),
        )],
        false => there,
    }
}

impl Engine {
    /// Lines of LRC for item `index` of a song, `latents` `(T, 64)` being what was decoded; empty
    /// when nothing is sung.
    ///
    /// # Errors
    /// [`Error::TooBig`] when the look does not fit into memory, [`Error::Cancelled`], and what
    /// the device reports.
    pub fn lyric_times(
        &self,
        request: &SongRequest,
        prepared: &Prepared,
        index: usize,
        latents: &[f32],
        watch: &dyn Watch,
    ) -> Result<String> {
        let (dit, _) = self.dit(&request.model)?;
        let tokenizer = &self.text()?.tokenizer;
        let header = tokenizer.encode_plain(&prompt::lyric_header(&request.language))?;
        let ids = &prepared.lyric_ids;
        let end = ids.iter().position(|id| *id == tokenizer.end_of_text());
        let sung = header.len()..end.unwrap_or(ids.len());
        if sung.is_empty() || prompt::is_instrumental(&request.lyrics) {
            return Ok(String::new());
        }
        let maps = heads(&dit.config);
        let condition = &prepared.conditions[0];
        let program = cross_weights(
            &dit.config,
            self.math(),
            prepared.frames,
            condition.rows,
            &maps,
        )?;
        check_room(self.backend(), &program)?;
        watch.progress(Stage::Align, 0, 1);
        if watch.cancelled() {
            return Err(Error::Cancelled);
        }
        let items = request.seeds.len();
        let context = condition.context.len() / items;
        let t = 1.0 / steps(request) as f32;
        let seen = self.through_noise(latents, t);
        let inputs = [
            ("x", HostData::F32(&seen)),
            (
                "context",
                HostData::F32(&condition.context[index * context..][..context]),
            ),
            ("t", HostData::F32(&[t])),
            ("dt", HostData::F32(&[0.0])),
            ("condition", HostData::F32(&condition.packed)),
        ];
        let mut run = run_once(self.backend(), &program, &dit.weights, &inputs, &[])?;
        let tokens = prepared.frames.div_ceil(dit.config.patch_size);
        let mut of_words = Vec::new();
        for (layer, heads) in &maps {
            let weights = run.take_f32(&weights_name(*layer))?;
            for map in weights.chunks_exact(weights.len() / heads.len()) {
                of_words.push(turned(map, tokens, condition.rows, &sung));
            }
        }
        if of_words.iter().flatten().any(|x| !x.is_finite()) {
            return Err(Error::Device(
                "the weights of attention are not finite".into(),
            ));
        }
        let spans = lrc::spans(&lrc::affinity(of_words, tokens), tokens);
        let seconds = prepared.frames as f64 / FRAMES_PER_SECOND as f64 / tokens as f64;
        let decode = |ids: &[u32]| tokenizer.decode(ids, false);
        let text = lrc::lines(&ids[sung], &spans, seconds, &decode)?;
        watch.progress(Stage::Align, 1, 1);
        Ok(text)
    }

    /// `latents` with the noise of time `t`.
    fn through_noise(&self, latents: &[f32], t: f32) -> Vec<f32> {
        let mut noise = vec![0f32; latents.len()];
        self.noise().fill(SEED, &mut noise);
        let mixed = noise.iter().zip(latents);
        mixed.map(|(noise, x)| t * noise + (1.0 - t) * x).collect()
    }
}

/// Steps of the request's own schedule.
fn steps(request: &SongRequest) -> usize {
    let sampling = &request.sampling;
    let times = sampling.timesteps.as_ref();
    let times = times.map(|times| times.iter().filter(|t| **t > 0.0).count());
    times.unwrap_or(sampling.steps).max(1)
}

/// The keys `sung` of `map` `(frames, keys)`, by key: `(sung, frames)`.
fn turned(map: &[f32], frames: usize, keys: usize, sung: &Range<usize>) -> Vec<f32> {
    let by_key = sung
        .clone()
        .flat_map(|key| (0..frames).map(move |frame| map[frame * keys + key]));
    by_key.collect()
}

/// Refuses what would not fit: the program's memory and its results, here and on the device.
fn check_room(backend: &dyn Backend, program: &Program) -> Result<()> {
    let have = backend.caps().memory_bytes;
    let results: u64 = fit::outputs_bytes(program);
    let needs = fit::arena_bytes(backend, program)? + fit::constants(program) + 3 * results;
    if have == 0 || needs <= have {
        return Ok(());
    }
    Err(Error::TooBig {
        needs,
        have,
        suggestion: "make the song shorter, or its lyrics".into(),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::weights::published;
    use std::path::Path;

    fn config(is_xl: bool) -> DitConfig {
        let text = match is_xl {
            true => published::dit_xl(),
            false => published::dit(true),
        };
        let text = text.to_string();
        DitConfig::parse(&text, Path::new("config.json")).unwrap()
    }

    #[test]
    fn heads_are_those_that_follow_the_words() {
        let flat = |c: &DitConfig| -> Vec<(usize, usize)> {
            let each = heads(c).into_iter();
            each.flat_map(|(l, heads)| heads.into_iter().map(move |h| (l, h)))
                .collect()
        };
        let two = [(2, 6), (3, 10), (3, 11), (4, 3), (5, 8), (5, 9), (6, 8)];
        assert_eq!(flat(&config(false)), two);
        let xl = flat(&config(true));
        assert_eq!((xl.len(), xl[0], xl[10]), (11, (3, 18), (7, 21)));
        // The configuration's own come first.
        let mut own = config(false);
        own.lyric_alignment_layers_config = Some([(9, vec![1, 0])].into());
        assert_eq!(flat(&own), [(9, 1), (9, 0)]);
        // Of those that are known a small model has some, or none.
        let mut small = config(false);
        (small.num_hidden_layers, small.num_attention_heads) = (4, 11);
        assert_eq!(flat(&small), [(2, 6), (3, 10)]);
        (small.num_hidden_layers, small.num_attention_heads) = (2, 3);
        assert_eq!(flat(&small), [(1, 0), (1, 1), (1, 2)]);
    }

    #[test]
    fn maps_are_turned_to_the_words() {
        let map = [0., 1., 2., 3., 10., 11., 12., 13.];
        assert_eq!(turned(&map, 2, 4, &(1..3)), [1., 11., 2., 12.]);
    }
}
