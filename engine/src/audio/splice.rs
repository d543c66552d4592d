//! The recording around a part that was made anew. Decoding changes a recording a little; outside
//! of the part, and of a short fade on each side of it, the recording itself is put back.
//! Upstream: `acestep/core/generation/handler/repaint_waveform_splice.py`.

use super::CHANNELS;
use crate::song::engine::SAMPLING_RATE;
use crate::song::request::Repainting;
use std::ops::Range;
use std::sync::Arc;

/// A recording and the part of it that is not kept.
#[derive(Debug, Clone, PartialEq)]
pub struct Splice {
    /// Interleaved stereo.
    pub pcm: Arc<Vec<f32>>,
    /// Samples per channel that were made anew.
    pub part: Range<usize>,
    /// Samples per channel of the fade on each side, outside of the part.
    pub fade: usize,
    /// Factor that brings what is decoded to the level of `pcm`: songs are made louder after
    /// decoding, and their latents do not know. 1 where the latents were encoded from `pcm`.
    pub gain: f32,
}

impl Splice {
    /// Keeps `pcm` outside of `start_s..end_s`; `None` when the part is made so freely that
    /// nothing is put back.
    pub fn new(
        pcm: Arc<Vec<f32>>,
        start_s: f64,
        end_s: f64,
        repainting: &Repainting,
        gain: f32,
    ) -> Option<Self> {
        let samples = |seconds: f64| (seconds.max(0.0) * SAMPLING_RATE as f64) as usize;
        Some(Splice {
            pcm,
            part: samples(start_s)..samples(end_s),
            fade: samples(repainting.fade_s()?),
            gain,
        })
    }

    /// Puts the recording back into `made`, which may be longer: what lies behind the recording
    /// stays as it was made.
    pub fn apply(&self, made: &mut [f32]) {
        let samples = (made.len() / CHANNELS).min(self.pcm.len() / CHANNELS);
        let start = self.part.start.min(samples);
        let end = self.part.end.clamp(start, samples);
        if start == 0 && end >= samples {
            return;
        }
        let (before, behind) = (self.fade.min(start), self.fade.min(samples - end));
        // Rising before the part, falling behind it; the ends 0 and 1 lie outside of the ramps.
        let weight = |at: usize| {
            if at < start {
                let j = (at + before).checked_sub(start);
                j.map_or(0.0, |j| (j + 1) as f32 / (before + 1) as f32)
            } else if at < end {
                1.0
            } else {
                let j = at - end;
                match j < behind {
                    true => 1.0 - (j + 1) as f32 / (behind + 1) as f32,
                    false => 0.0,
                }
            }
        };
        let pairs = made
            .chunks_exact_mut(CHANNELS)
            .zip(self.pcm.chunks_exact(CHANNELS));
        for (at, (made, kept)) in pairs.take(samples).enumerate() {
            let w = weight(at);
            if w == 1.0 {
                continue;
            }
            for (made, kept) in made.iter_mut().zip(kept) {
                *made = if w == 0.0 {
                    *kept
                } else {
                    w * *made + (1.0 - w) * kept
                };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spliced(part: Range<usize>, fade: usize, kept: usize, made: usize) -> Vec<f32> {
        let splice = Splice {
            pcm: Arc::new(vec![0.0; kept * CHANNELS]),
            part,
            fade,
            gain: 1.0,
        };
        let mut made = vec![1.0; made * CHANNELS];
        splice.apply(&mut made);
        made.into_iter().step_by(CHANNELS).collect()
    }

    #[test]
    fn the_recording_comes_back_around_the_part() {
        assert_eq!(spliced(2..4, 0, 6, 6), [0., 0., 1., 1., 0., 0.]);
        assert_eq!(spliced(3..4, 1, 6, 7), [0., 0., 0.5, 1., 0.5, 0., 1.]);
        // A fade is as long as there is room.
        assert_eq!(
            spliced(1..3, 9, 5, 5),
            [0.5, 1., 1., 1. - 1. / 3., 1. - 2. / 3.]
        );
        // Nothing of it is kept where all is new.
        assert_eq!(spliced(0..9, 3, 4, 4), [1.0; 4]);
    }
}
