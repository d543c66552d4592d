//! MP3 at a constant bit rate, by LAME. The first frame is LAME's info tag, which tells players
//! how many samples the encoder added at both ends: without it a song would not loop or join
//! without a gap, and would come back longer than it was.

use super::{CHANNELS, Pcm, finite, parse_kbps};
use crate::error::{Error, Result};
use mp3lame_encoder::{Bitrate, Builder, DualPcm, Encoder, FlushGap, Mode, Quality};
use std::io;
use std::num::NonZeroU32;

/// Parameters of an MP3 file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mp3 {
    kbps: u16,
    rate: u32,
}

impl Default for Mp3 {
    /// 128 kbit/s at 48 kHz, upstream's default.
    fn default() -> Self {
        Mp3 {
            kbps: 128,
            rate: 48_000,
        }
    }
}

impl Mp3 {
    /// Bit rate as requests write it (`128k`, `192k`, `256k`, `320k` and the steps of MPEG-1
    /// between, `k` optional) and samples per second (48000, 44100 or 32000).
    ///
    /// # Errors
    /// [`Error::Request`] when MPEG-1 layer III has no such rate.
    pub fn new(bitrate: &str, rate: u32) -> Result<Self> {
        let kbps = parse_kbps(bitrate).and_then(|k| u16::try_from(k).ok());
        let kbps = kbps.unwrap_or(0);
        if lame_bitrate(kbps).is_none() {
            return Err(Error::Request(format!(
                "mp3 bit rate {bitrate:?} does not exist; use 128k, 160k, 192k, 224k, 256k or 320k"
            )));
        }
        if ![48_000, 44_100, 32_000].contains(&rate) {
            return Err(Error::Request(format!(
                "mp3 sample rate {rate} does not exist; use 48000, 44100 or 32000"
            )));
        }
        Ok(Mp3 { kbps, rate })
    }

    /// Kilobits per second.
    pub fn kbps(self) -> u16 {
        self.kbps
    }
}

fn lame_bitrate(kbps: u16) -> Option<Bitrate> {
    Some(match kbps {
        128 => Bitrate::Kbps128,
        160 => Bitrate::Kbps160,
        192 => Bitrate::Kbps192,
        224 => Bitrate::Kbps224,
        256 => Bitrate::Kbps256,
        320 => Bitrate::Kbps320,
        _ => return None,
    })
}

/// The whole file.
pub(super) fn encode(pcm: Pcm, mp3: Mp3) -> io::Result<Vec<u8>> {
    /// Samples per channel that are handed over at a time.
    const CHUNK: usize = 1152 * 64;
    let mut encoder = encoder(pcm.rate, mp3)?;
    let mut file = Vec::new();
    let (mut left, mut right) = (Vec::with_capacity(CHUNK), Vec::with_capacity(CHUNK));
    for chunk in pcm.samples.chunks(CHUNK * CHANNELS) {
        left.clear();
        right.clear();
        for frame in chunk.chunks_exact(CHANNELS) {
            left.push(finite(frame[0]));
            right.push(finite(frame[1]));
        }
        file.reserve(mp3lame_encoder::max_required_buffer_size(left.len()));
        encoder
            .encode_to_vec(
                DualPcm {
                    left: &left,
                    right: &right,
                },
                &mut file,
            )
            .map_err(|e| io::Error::other(format!("LAME: {e}")))?;
    }
    file.reserve(mp3lame_encoder::max_required_buffer_size(0));
    encoder
        .flush_to_vec::<FlushGap>(&mut file)
        .map_err(|e| io::Error::other(format!("LAME: {e}")))?;

    // LAME left the first frame blank behind its header for the tag, which it can only fill in now.
    let mut tag = Vec::with_capacity(encoder.lame_tag_size());
    encoder
        .lame_tag_encode_to_vec(&mut tag)
        .ok_or_else(|| io::Error::other("LAME wrote no info tag"))?;
    match file.get_mut(..tag.len()) {
        Some(blank) if blank.iter().skip(4).all(|b| *b == 0) => blank.copy_from_slice(&tag),
        _ => return Err(io::Error::other("LAME left no place for its info tag")),
    }
    Ok(file)
}

fn encoder(rate: u32, mp3: Mp3) -> io::Result<Encoder> {
    let failed = |e: mp3lame_encoder::BuildError| io::Error::other(format!("LAME: {e}"));
    let bitrate = lame_bitrate(mp3.kbps)
        .ok_or_else(|| io::Error::other(format!("LAME: no bit rate {}", mp3.kbps)))?;
    Builder::new()
        .ok_or_else(|| io::Error::other("LAME: out of memory"))?
        .with_num_channels(CHANNELS as u8)
        .and_then(|b| b.with_sample_rate(rate))
        .and_then(|b| b.with_output_sample_rate(NonZeroU32::new(mp3.rate)))
        .and_then(|b| b.with_brate(bitrate))
        .and_then(|b| b.with_mode(Mode::JointStereo))
        .and_then(|b| b.with_quality(Quality::NearBest))
        .and_then(|b| b.with_to_write_vbr_tag(true))
        .and_then(Builder::build)
        .map_err(failed)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Frame headers from the start to the end of the file; panics when one is out of place.
    fn frames(file: &[u8]) -> Vec<usize> {
        const KBPS: [usize; 15] = [
            0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320,
        ];
        const RATE: [usize; 3] = [44_100, 48_000, 32_000];
        let (mut at, mut starts) = (0, Vec::new());
        while at < file.len() {
            assert_eq!(file[at], 0xFF, "no frame at {at}");
            assert_eq!(file[at + 1] & 0xFE, 0xFA, "not MPEG-1 layer III at {at}");
            let kbps = KBPS[usize::from(file[at + 2] >> 4)];
            let rate = RATE[usize::from(file[at + 2] >> 2 & 3)];
            let padding = usize::from(file[at + 2] >> 1 & 1);
            starts.push(at);
            at += 144_000 * kbps / rate + padding;
        }
        assert_eq!(at, file.len(), "the last frame is cut");
        starts
    }

    fn sine(seconds: f64) -> Vec<f32> {
        let n = (seconds * 48_000.0) as usize;
        (0..n)
            .flat_map(|i| [(i as f32 * 0.05).sin() * 0.5, (i as f32 * 0.03).sin() * 0.5])
            .collect()
    }

    #[test]
    fn the_tag_makes_the_length_exact() {
        for (seconds, kbps) in [
            (0.0, "128k"),
            (0.013, "128k"),
            (1.0, "192"),
            (2.345, "320k"),
        ] {
            let samples = sine(seconds);
            let mp3 = Mp3::new(kbps, 48_000).unwrap();
            let file = encode(
                Pcm {
                    samples: &samples,
                    rate: 48_000,
                },
                mp3,
            )
            .unwrap();
            let starts = frames(&file);
            let tag = &file[..starts[1]];
            let at = tag.windows(4).position(|w| w == b"Info").unwrap();
            let count = u32::from_be_bytes(tag[at + 8..at + 12].try_into().unwrap()) as usize;
            assert_eq!(count, starts.len() - 1);
            // Magic, flags, frames, bytes, table of contents, quality; then LAME's own part.
            let lame = &tag[at + 120..];
            assert_eq!(&lame[..4], b"LAME");
            let [a, b, c] = [lame[21], lame[22], lame[23]].map(usize::from);
            let (delay, padding) = (a << 4 | b >> 4, (b & 15) << 8 | c);
            assert_eq!(
                count * 1152 - delay - padding,
                samples.len() / 2,
                "{seconds} s"
            );
        }
    }

    #[test]
    fn other_sample_rates_are_resampled() {
        let samples = sine(1.0);
        let mp3 = Mp3::new("128k", 44_100).unwrap();
        let file = encode(
            Pcm {
                samples: &samples,
                rate: 48_000,
            },
            mp3,
        )
        .unwrap();
        let played = (frames(&file).len() - 1) * 1152;
        assert!((44_100..44_100 + 4 * 1152).contains(&played), "{played}");
    }

    #[test]
    fn numbers_that_are_none_do_not_reach_the_encoder() {
        let samples = [f32::NAN, f32::INFINITY, 4.0, -1e30].repeat(3000);
        let file = encode(
            Pcm {
                samples: &samples,
                rate: 48_000,
            },
            Mp3::default(),
        )
        .unwrap();
        assert!(frames(&file).len() > 5);
    }

    #[test]
    fn rates_that_do_not_exist_are_refused() {
        for (bitrate, rate) in [
            ("", 48_000),
            ("129k", 48_000),
            ("-1", 48_000),
            ("128k", 8000),
        ] {
            assert!(
                matches!(Mp3::new(bitrate, rate), Err(Error::Request(_))),
                "{bitrate} {rate}"
            );
        }
        assert_eq!(Mp3::new(" 192K ", 44_100).unwrap().kbps(), 192);
    }
}
