//! FLAC of 16 bits: what the 16-bit WAV holds, in about half the space.

use super::wav::to_i16;
use super::{CHANNELS, Pcm};
use flacenc::bitsink::ByteSink;
use flacenc::component::{BitRepr, MetadataBlockData};
use flacenc::config;
use flacenc::error::{SourceError, Verify};
use flacenc::source::{Fill, Source};
use std::io;

const BITS: usize = 16;
/// Samples per channel of a frame; the last one may be shorter.
const BLOCK: usize = 4096;

/// Kind of the metadata block that holds Vorbis comments.
const COMMENTS: u8 = 4;

/// The whole file; `comments` is a block of Vorbis comments.
pub(super) fn encode(pcm: Pcm, comments: &[u8]) -> io::Result<Vec<u8>> {
    let config = config::Encoder::default()
        .into_verified()
        .map_err(|(_, e)| failed(e))?;
    let samples = Samples {
        rate: pcm.rate as usize,
        left: pcm.samples,
    };
    let mut stream =
        flacenc::encode_with_fixed_block_size(&config, samples, BLOCK).map_err(failed)?;
    // The encoder counts the last frame among the smallest, which the format excludes; strict
    // readers then take the stream for one of variable blocks.
    stream
        .stream_info_mut()
        .set_block_sizes(BLOCK, BLOCK)
        .map_err(failed)?;
    let comments = MetadataBlockData::new_unknown(COMMENTS, comments).map_err(failed)?;
    stream.add_metadata_block(comments);
    let mut file = ByteSink::with_capacity(stream.count_bits());
    stream.write(&mut file).map_err(failed)?;
    Ok(file.into_inner())
}

fn failed(e: impl std::fmt::Display) -> io::Error {
    io::Error::other(format!("FLAC: {e}"))
}

/// Samples that are not encoded yet.
struct Samples<'a> {
    rate: usize,
    left: &'a [f32],
}

impl Source for Samples<'_> {
    fn channels(&self) -> usize {
        CHANNELS
    }

    fn bits_per_sample(&self) -> usize {
        BITS
    }

    fn sample_rate(&self) -> usize {
        self.rate
    }

    fn read_samples<F: Fill>(&mut self, block: usize, to: &mut F) -> Result<usize, SourceError> {
        let count = (block * CHANNELS).min(self.left.len() / CHANNELS * CHANNELS);
        let (now, later) = self.left.split_at(count);
        self.left = later;
        let integers: Vec<i32> = now.iter().map(|&x| to_i16(x).into()).collect();
        to.fill_interleaved(&integers)?;
        Ok(count / CHANNELS)
    }

    fn len_hint(&self) -> Option<usize> {
        Some(self.left.len() / CHANNELS)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::audio::read;
    use crate::audio::tags::vorbis_comments;
    use crate::song::NoWatch;

    fn song(frames: usize) -> Vec<f32> {
        let wave = |i: usize, step: f32| (i as f32 * step).sin() * 0.6;
        let noise = |i: usize| (i.wrapping_mul(2_654_435_761) % 1000) as f32 * 1e-4;
        (0..frames)
            .flat_map(|i| [wave(i, 0.05) + noise(i), wave(i, 0.031) - noise(i + 7)])
            .collect()
    }

    #[test]
    fn every_sample_of_16_bits_comes_back() {
        // Frames of every awkward size: none, one, fewer than a predictor needs, one too many.
        for frames in [1, 2, 15, 16, 31, 33, 4095, 4096, 4097, 8192, 100_000] {
            let samples = song(frames);
            let pcm = Pcm {
                samples: &samples,
                rate: 48_000,
            };
            let file = encode(pcm, &vorbis_comments(None)).unwrap();
            let back = read::read_bytes(file, "song", 60.0, &NoWatch).unwrap();
            assert_eq!(back.len(), samples.len(), "{frames}");
            for (x, y) in samples.iter().zip(&back) {
                assert_eq!(f32::from(to_i16(*x)), y * 32768.0, "{frames}");
            }
        }
    }

    #[test]
    fn the_header_says_what_it_is() {
        let samples = song(10_000);
        let pcm = Pcm {
            samples: &samples,
            rate: 44_100,
        };
        let file = encode(pcm, &vorbis_comments(None)).unwrap();
        assert_eq!(&file[..4], b"fLaC");
        let info = &file[8..8 + 34];
        assert_eq!(&info[..4], [16, 0, 16, 0], "smallest and largest block");
        // 20 bits of rate, 3 of channels less one, 5 of depth less one, 36 of length.
        let packed = u64::from_be_bytes(info[10..18].try_into().unwrap());
        assert_eq!(packed >> 44, 44_100);
        assert_eq!(packed >> 41 & 7, 1);
        assert_eq!(packed >> 36 & 31, 15);
        assert_eq!(packed & ((1 << 36) - 1), 10_000);
    }

    #[test]
    fn nothing_and_no_numbers_are_encoded_too() {
        for samples in [&[][..], &[f32::NAN, f32::INFINITY, -9.0, 1.0][..]] {
            let pcm = Pcm {
                samples,
                rate: 48_000,
            };
            assert_eq!(&encode(pcm, &vorbis_comments(None)).unwrap()[..4], b"fLaC");
        }
    }
}
