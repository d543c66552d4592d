//! What a request gives the denoising to work on: the source latents that the network sees, those
//! that are known, the part that is made anew, and the recording to splice back in.

use super::Watch;
use super::engine::{Engine, FRAMES_PER_SECOND, MIN_FRAMES, SAMPLING_RATE};
use super::loaded::LoadedDit;
use super::prepare::frames_of;
use super::request::{ChunkMask, Recording, Repainting, SongRequest, StageTimes};
use super::task::SourceUse;
use crate::audio::CHANNELS;
use crate::audio::splice::Splice;
use crate::error::Result;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

/// Samples per channel of a latent frame.
const HOP: usize = SAMPLING_RATE / FRAMES_PER_SECOND;

/// The material of all items. Lists hold one entry for all items, or one for each.
pub(super) struct Material {
    /// Latent frames `T`.
    pub frames: usize,
    /// Seconds that the prompt names.
    pub duration_s: Option<f64>,
    /// Whether there is a source at all; everything else is silence without one.
    pub has_source: bool,
    /// What the network sees `(T, 64)`.
    pub shown: Vec<Vec<f32>>,
    /// The source's own latents `(T, 64)`.
    pub clean: Vec<Vec<f32>>,
    /// 1 where the music is to be new, as the network is told, `(T)`.
    pub mask: Vec<f32>,
    /// Frames that are made anew; all of them without a region.
    pub region: Option<Range<usize>>,
    /// The recording around the region.
    pub splice: Option<Splice>,
}

/// The part of a recording that is made anew, with what is added before and behind it.
#[derive(Debug, Clone, PartialEq)]
struct Region {
    /// Samples per channel of silence before the recording and behind it.
    pad: (usize, usize),
    /// Seconds of the padded recording.
    start_s: f64,
    end_s: f64,
}

impl Region {
    /// The part `repainting` names of a recording of `length_s` seconds. What lies outside of it
    /// is added to it as silence.
    fn of(repainting: &Repainting, length_s: f64) -> Self {
        let end_s = repainting.end_s.unwrap_or(length_s);
        let left_s = (-repainting.start_s).max(0.0);
        let right_s = (end_s - length_s).max(0.0);
        let samples = |seconds: f64| (seconds * SAMPLING_RATE as f64) as usize;
        Region {
            pad: (samples(left_s), samples(right_s)),
            start_s: repainting.start_s + left_s,
            end_s: end_s + left_s,
        }
    }

    /// The same part with as much more in front as fills a frame: frames that are known stay frames
    /// then, and need not be encoded anew to be moved by a part of one.
    fn on_frames(self) -> Self {
        let (left, right) = self.pad;
        let whole = left.next_multiple_of(HOP);
        Region {
            pad: (whole, right),
            end_s: self.end_s + (whole - left) as f64 / SAMPLING_RATE as f64,
            ..self
        }
    }

    /// Its frames among `frames`, at least one.
    fn frames(&self, frames: usize) -> Range<usize> {
        let frame = |seconds: f64| (seconds * SAMPLING_RATE as f64 / HOP as f64) as usize;
        let start = frame(self.start_s).min(frames - 1);
        start..frame(self.end_s).clamp(start + 1, frames)
    }

    fn pad(&self, pcm: Arc<Vec<f32>>) -> Arc<Vec<f32>> {
        let (left, right) = self.pad;
        if (left, right) == (0, 0) {
            return pcm;
        }
        let silence = |samples: usize| std::iter::repeat_n(0.0, samples * CHANNELS);
        let padded = silence(left).chain(pcm.iter().copied());
        Arc::new(padded.chain(silence(right)).collect())
    }
}

impl Engine {
    /// Reads and encodes what the request brings.
    ///
    /// # Errors
    /// [`Error::Request`] when the task lacks its source, or the source is silent.
    pub(super) fn material(
        &self,
        dit: &LoadedDit,
        request: &SongRequest,
        times: &mut StageTimes,
        watch: &dyn Watch,
    ) -> Result<Material> {
        request.check_source()?;
        if !request.codes.is_empty() {
            return self.material_of_codes(dit, request);
        }
        match &request.source {
            Some(recording) if request.works_on_recording() => {
                self.material_of_recording(dit, request, recording, times, watch)
            }
            _ => {
                let frames = frames_of(request.duration_s);
                let silence = dit.silence(frames);
                Ok(Material {
                    frames,
                    duration_s: request.duration_s,
                    has_source: false,
                    shown: vec![silence.clone()],
                    clean: vec![silence],
                    mask: vec![1.0; frames],
                    region: None,
                    splice: None,
                })
            }
        }
    }

    /// Codes are the source of whatever task it is.
    fn material_of_codes(&self, dit: &LoadedDit, request: &SongRequest) -> Result<Material> {
        let decode = |codes: &Vec<u32>| dit.decode_codes(self.backend(), codes);
        let latents: Vec<Vec<f32>> = request.codes.iter().map(decode).collect::<Result<_>>()?;
        let width = dit.config.audio_acoustic_hidden_dim;
        let longest = latents.iter().map(|l| l.len() / width).max().unwrap_or(0);
        let frames = longest.max(MIN_FRAMES);
        let region = request.task.row().has_region.then(|| {
            let region = Region::of(
                &request.repainting,
                frames as f64 / FRAMES_PER_SECOND as f64,
            );
            region.frames(frames)
        });
        let clean = latents.into_iter().map(|l| filled(dit, l, frames));
        let clean: Vec<_> = clean.collect();
        Ok(Material {
            frames,
            duration_s: request.duration_s,
            has_source: true,
            shown: clean
                .iter()
                .map(|l| with_hole(dit, request, l, &region))
                .collect(),
            clean,
            mask: chunk_mask(request, frames, &region),
            region,
            splice: None,
        })
    }

    fn material_of_recording(
        &self,
        dit: &LoadedDit,
        request: &SongRequest,
        recording: &Recording,
        times: &mut StageTimes,
        watch: &dyn Watch,
    ) -> Result<Material> {
        let row = request.task.row();
        let mut pcm = self.read_timed(recording, times, watch)?;
        let unpadded = pcm.len() / CHANNELS / HOP;
        let seconds = (pcm.len() / CHANNELS) as f64 / SAMPLING_RATE as f64;
        let part = row.has_region.then(|| {
            let part = Region::of(&request.repainting, seconds);
            match recording {
                Recording::Own(_) => part.on_frames(),
                _ => part,
            }
        });
        if let Some(part) = &part {
            pcm = part.pad(pcm);
        }
        let pad = part.as_ref().map_or(0, |part| part.pad.0);
        let (latents, gain) = match recording {
            Recording::Own(song) => {
                let mut latents = dit.silence(pad / HOP);
                latents.extend(filled(dit, song.kept.latents.clone(), unpadded));
                (latents, song.kept.gain)
            }
            _ => (self.encode_timed(&pcm, times, watch)?, 1.0),
        };
        let frames = (pcm.len() / CHANNELS / HOP).max(MIN_FRAMES);
        let region = part.as_ref().map(|part| part.frames(frames));
        let shown = match row.source {
            SourceUse::Codes => {
                let codes = dit.encode_codes(self.backend(), &latents)?;
                filled(dit, dit.decode_codes(self.backend(), &codes)?, frames)
            }
            _ => filled(dit, latents.clone(), frames),
        };
        let clean = filled(dit, latents, frames);
        Ok(Material {
            frames,
            duration_s: Some(seconds),
            has_source: true,
            shown: vec![with_hole(dit, request, &shown, &region)],
            clean: vec![clean],
            mask: chunk_mask(request, frames, &region),
            splice: part.and_then(|part| {
                let (start_s, end_s) = (part.start_s, part.end_s);
                Splice::new(pcm, start_s, end_s, &request.repainting, gain)
            }),
            region,
        })
    }

    /// The timbre embedding of the request's reference, of silence when it has none.
    ///
    /// # Errors
    /// [`Error::Request`] when the reference is silent or cannot be read.
    pub(super) fn timbre(
        &self,
        dit: &LoadedDit,
        silence: &[f32],
        request: &SongRequest,
        times: &mut StageTimes,
        watch: &dyn Watch,
    ) -> Result<Vec<f32>> {
        let Some(reference) = &request.reference else {
            return Ok(silence.to_vec());
        };
        let mut clip = self.read_timed(reference, times, watch)?;
        if matches!(reference, Recording::File(_)) {
            clip = Arc::new(reference_clip(&clip, dit.config.timbre_fix_frame * HOP));
        }
        let latents = self.encode_timed(&clip, times, watch)?;
        let frames = latents.len() / dit.config.timbre_hidden_dim;
        let encoder = dit.encoder(self.backend(), self.math());
        encoder.timbre(&latents, frames)
    }
}

impl Engine {
    fn read_timed(
        &self,
        recording: &Recording,
        times: &mut StageTimes,
        watch: &dyn Watch,
    ) -> Result<Arc<Vec<f32>>> {
        let start = Instant::now();
        let pcm = self.read_recording(recording, watch);
        times.read_s += start.elapsed().as_secs_f64();
        pcm
    }

    fn encode_timed(
        &self,
        pcm: &[f32],
        times: &mut StageTimes,
        watch: &dyn Watch,
    ) -> Result<Vec<f32>> {
        let start = Instant::now();
        let latents = self.encode(pcm, watch);
        times.encode_s += start.elapsed().as_secs_f64();
        latents
    }
}

/// `latents` cut or filled with silence to `frames`.
fn filled(dit: &LoadedDit, mut latents: Vec<f32>, frames: usize) -> Vec<f32> {
    let width = dit.config.audio_acoustic_hidden_dim;
    latents.truncate(frames * width);
    latents.extend(dit.silence(frames - latents.len() / width));
    latents
}

/// What the network sees of `latents`: silence where the task leaves a hole.
fn with_hole(
    dit: &LoadedDit,
    request: &SongRequest,
    latents: &[f32],
    region: &Option<Range<usize>>,
) -> Vec<f32> {
    let mut shown = latents.to_vec();
    if let (SourceUse::Hole, Some(region)) = (request.task.row().source, region) {
        let width = dit.config.audio_acoustic_hidden_dim;
        let silence = dit.silence(region.end);
        let hole = region.start * width..region.end * width;
        shown[hole.clone()].copy_from_slice(&silence[hole]);
    }
    shown
}

/// What the network is told to make: everything, unless the request wants the part marked.
fn chunk_mask(request: &SongRequest, frames: usize, region: &Option<Range<usize>>) -> Vec<f32> {
    match (request.repainting.mask, region) {
        (ChunkMask::Explicit, Some(region)) => (0..frames)
            .map(|t| if region.contains(&t) { 1.0 } else { 0.0 })
            .collect(),
        _ => vec![1.0; frames],
    }
}

/// `samples` per channel of a reference: repeated until it is long enough, then a third from its
/// beginning, its middle and its end. Upstream takes random places within each third.
fn reference_clip(pcm: &[f32], samples: usize) -> Vec<f32> {
    let have = pcm.len() / CHANNELS;
    let times = samples.div_ceil(have.max(1)).max(1);
    let pcm = pcm.repeat(times);
    let total = have * times;
    let part = samples / 3;
    let starts = [0, total / 3, total - part];
    let piece = |start: usize| &pcm[start * CHANNELS..(start + part) * CHANNELS];
    starts.into_iter().flat_map(piece).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(start_s: f64, end_s: Option<f64>) -> Region {
        let repainting = Repainting {
            start_s,
            end_s,
            ..Repainting::default()
        };
        Region::of(&repainting, 10.0)
    }

    #[test]
    fn regions_within_and_beyond_the_recording() {
        let inside = region(1.5, Some(3.6));
        assert_eq!((inside.pad, inside.frames(250)), ((0, 0), 37..90));
        let all = region(0.0, None);
        assert_eq!((all.pad, all.frames(250)), ((0, 0), 0..250));
        let before = region(-2.0, Some(3.0));
        assert_eq!(before.pad, (96_000, 0));
        assert_eq!((before.start_s, before.end_s), (0.0, 5.0));
        assert_eq!(before.frames(300), 0..125);
        let behind = region(9.0, Some(12.0));
        assert_eq!((behind.pad, behind.frames(300)), ((0, 96_000), 225..300));
        // Never empty, never outside.
        assert_eq!(region(3.0, Some(3.0)).frames(250), 75..76);
        assert_eq!(region(30.0, None).frames(250), 249..250);
    }

    #[test]
    fn what_comes_before_known_frames_is_whole_frames() {
        let part = region(-2.51, Some(3.0)).on_frames();
        assert_eq!(part.pad, (63 * HOP, 0));
        assert_eq!(part.start_s, 0.0);
        // Seconds become whole samples by cutting off, so the end may be one of them late.
        assert!((part.end_s - 5.52).abs() < 1.5 / SAMPLING_RATE as f64);
        for part in [region(-2.0, Some(3.0)), region(1.01, Some(12.0))] {
            assert_eq!(part.clone().on_frames(), part);
        }
    }

    #[test]
    fn padding_is_silence_on_both_sides() {
        let part = Region {
            pad: (1, 2),
            start_s: 0.0,
            end_s: 1.0,
        };
        let padded = part.pad(Arc::new(vec![1.0, 2.0]));
        assert_eq!(*padded, [0.0, 0.0, 1.0, 2.0, 0.0, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn references_are_repeated_and_cut_to_three_parts() {
        let ramp =
            |n: usize| -> Vec<f32> { (0..n).flat_map(|i| [i as f32, -(i as f32)]).collect() };
        let left = |clip: Vec<f32>| -> Vec<f32> { clip.into_iter().step_by(CHANNELS).collect() };
        assert_eq!(left(reference_clip(&ramp(6), 6)), [0., 1., 2., 3., 4., 5.]);
        assert_eq!(left(reference_clip(&ramp(4), 6)), [0., 1., 2., 3., 2., 3.]);
        assert_eq!(
            left(reference_clip(&ramp(12), 6)),
            [0., 1., 4., 5., 10., 11.]
        );
    }
}
