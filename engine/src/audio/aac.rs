//! AAC-LC in ADTS frames, as streams have it. The format cannot say what belongs to the song:
//! players hear the encoder's delay of one frame (21 ms) in front, and the last frame filled up.

use super::{CHANNELS, Pcm, finite};
use std::io;
use syom::{EncodeOptions, Encoder};

/// Samples per channel of a frame, and of the delay.
const FRAME: usize = 1024;
/// Bits per second on average.
const BITS: u32 = 192_000;

/// The whole file.
pub(super) fn encode(pcm: Pcm) -> io::Result<Vec<u8>> {
    let options = EncodeOptions::adts()
        .with_bitrate_bps(BITS)
        .with_lookahead(true);
    let mut encoder = Encoder::new(pcm.rate, CHANNELS, &options).map_err(failed)?;
    let mut file = Vec::new();
    let mut planes = [const { Vec::new() }; CHANNELS];
    // The encoder takes no empty song.
    let silence = [0.0; CHANNELS];
    let samples = match pcm.samples {
        [] => &silence[..],
        samples => samples,
    };
    for chunk in samples.chunks(FRAME * 64 * CHANNELS) {
        for (channel, plane) in planes.iter_mut().enumerate() {
            let own = chunk.iter().skip(channel).step_by(CHANNELS);
            plane.clear();
            plane.extend(own.map(|x| finite(*x)));
        }
        encoder
            .feed(&[&planes[0], &planes[1]], |frame| {
                file.extend_from_slice(frame.au);
                Ok(())
            })
            .map_err(failed)?;
    }
    encoder
        .finish(|frame| {
            file.extend_from_slice(frame.au);
            Ok(())
        })
        .map_err(failed)?;
    Ok(file)
}

fn failed(e: impl std::fmt::Display) -> io::Error {
    io::Error::other(format!("AAC: {e}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::audio::read;
    use crate::audio::test_signal::{chord, signal_to_noise};
    use crate::song::NoWatch;

    fn round_trip(samples: &[f32]) -> Vec<f32> {
        let rate = 48_000;
        let file = encode(Pcm { samples, rate }).unwrap();
        read::read_bytes(file, "song", 60.0, &NoWatch).unwrap()
    }

    #[test]
    fn the_song_comes_back_behind_the_delay() {
        for frames in [1, 1024, 1025, 96_000] {
            let samples = chord(frames, 48_000);
            let back = round_trip(&samples);
            let whole = frames.div_ceil(FRAME) + 1;
            assert_eq!(back.len(), whole * FRAME * CHANNELS, "{frames}");
            if frames > 48_000 {
                let song = &back[FRAME * CHANNELS..][..samples.len()];
                let ratio = signal_to_noise(&samples, song);
                assert!(ratio > 20.0, "{ratio} dB");
            }
        }
    }

    #[test]
    fn the_bit_rate_is_that_which_was_asked_for() {
        let samples = chord(48_000 * 5, 48_000);
        let rate = 48_000;
        let file = encode(Pcm {
            samples: &samples,
            rate,
        })
        .unwrap();
        assert_eq!(file[..2], [0xFF, 0xF1], "an ADTS frame without a checksum");
        let kbps = file.len() as f64 * 8.0 / 5.0 / 1000.0;
        assert!((180.0..205.0).contains(&kbps), "{kbps}");
    }

    #[test]
    fn nothing_and_no_numbers_are_encoded_too() {
        assert_eq!(round_trip(&[]).len(), 2 * FRAME * CHANNELS);
        let samples = [f32::NAN, f32::INFINITY, 4.0, -1e30].repeat(3000);
        assert!(round_trip(&samples).len() >= samples.len());
    }
}
