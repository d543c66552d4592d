//! AAC-LC in ADTS frames, as streams have it. A frame is 1024 samples, and the format cannot say
//! which of them belong to the song, so the file itself has to be as long as the song and to start
//! with it: the encoder's first frame, which only leads into the song, is left out, and at the end
//! as many frames are kept as come closest to its length without losing anything audible.
//!
//! The price is paid in the first 21 ms. A frame overlaps with the one before it; without that one
//! a decoder lets the song rise there as the frame's window does.

use super::{AAC_KBPS, CHANNELS, Pcm, finite};
use std::borrow::Cow;
use std::io;
use syom::{EncodeOptions, Encoder};

/// Samples per channel of a frame, and of the encoder's delay.
const FRAME: usize = 1024;
/// Samples that may be missing at the end rather than that a frame is added for them: 1.3 ms, which
/// keeps the file within 20 ms of the song at 48 kHz.
const CUT: usize = 64;

/// Readers know the format by two frames in a row.
const LEAST: usize = 2;

/// Frames of a song of so many samples per channel.
fn frames(samples: usize) -> usize {
    (samples + FRAME - 1 - CUT.min(samples)) / FRAME
}

/// The whole file at `kbps` on average.
pub(super) fn encode(pcm: Pcm, kbps: u16) -> io::Result<Vec<u8>> {
    if !AAC_KBPS.contains(&kbps) {
        return Err(failed(format!("no bit rate {kbps}")));
    }
    let options = EncodeOptions::adts()
        .with_bitrate_bps(u32::from(kbps) * 1000)
        .with_lookahead(true);
    let mut encoder = Encoder::new(pcm.rate, CHANNELS, &options).map_err(failed)?;
    let mut samples = Cow::Borrowed(pcm.samples);
    if samples.len() < LEAST * FRAME * CHANNELS {
        samples.to_mut().resize(LEAST * FRAME * CHANNELS, 0.0);
    }
    let wanted = 1..=frames(samples.len() / CHANNELS);
    let (mut file, mut made) = (Vec::new(), 0);
    let mut keep = |unit: &[u8]| {
        if wanted.contains(&made) {
            file.extend_from_slice(unit);
        }
        made += 1;
        Ok(())
    };
    let mut planes = [const { Vec::new() }; CHANNELS];
    for chunk in samples.chunks(FRAME * 64 * CHANNELS) {
        for (channel, plane) in planes.iter_mut().enumerate() {
            let own = chunk.iter().skip(channel).step_by(CHANNELS);
            plane.clear();
            plane.extend(own.map(|x| finite(*x)));
        }
        encoder
            .feed(&[&planes[0], &planes[1]], |frame| keep(frame.au))
            .map_err(failed)?;
    }
    encoder.finish(|frame| keep(frame.au)).map_err(failed)?;
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

    const RATE: u32 = 48_000;

    fn round_trip(samples: &[f32]) -> Vec<f32> {
        let pcm = Pcm {
            samples,
            rate: RATE,
        };
        read::read_bytes(encode(pcm, 192).unwrap(), "song", 60.0, &NoWatch).unwrap()
    }

    #[test]
    fn the_song_comes_back_in_its_place_and_nearly_in_its_length() {
        for length in [1, 1025, 2048, 2112, 2113, 96_000, 96_255, 96_321] {
            let samples = chord(length, RATE);
            let back = round_trip(&samples);
            let off = (back.len() / CHANNELS) as f64 - length as f64;
            if length >= LEAST * FRAME {
                assert!((-64.0..960.0).contains(&off), "{length}: {off}");
            }
            if length > 48_000 {
                let mut back = back;
                back.resize(samples.len(), 0.0);
                let ratio = signal_to_noise(&samples, &back);
                assert!(ratio > 20.0, "{ratio} dB");
                // Only the first frame rises.
                let second = FRAME * CHANNELS..2 * FRAME * CHANNELS;
                let pairs = samples[second.clone()].iter().zip(&back[second]);
                let off = pairs.fold(0f32, |most, (x, y)| most.max((x - y).abs()));
                assert!(off < 0.03, "{off}");
            }
        }
    }

    #[test]
    fn the_bit_rate_is_that_which_was_asked_for() {
        let samples = chord(48_000 * 5, RATE);
        let pcm = Pcm {
            samples: &samples,
            rate: RATE,
        };
        for wanted in [64, 192, 320] {
            let file = encode(pcm, wanted).unwrap();
            assert_eq!(file[..2], [0xFF, 0xF1], "an ADTS frame without a checksum");
            let kbps = file.len() as f64 * 8.0 / 5.0 / 1000.0;
            let share = kbps / f64::from(wanted);
            assert!((0.9..1.1).contains(&share), "{kbps} of {wanted}");
        }
        assert!(encode(pcm, 1000).is_err());
    }

    #[test]
    fn nothing_and_no_numbers_are_encoded_too() {
        assert_eq!(round_trip(&[]).len(), LEAST * FRAME * CHANNELS);
        let samples = [f32::NAN, f32::INFINITY, 4.0, -1e30].repeat(3000);
        let off = round_trip(&samples).len() as f64 - samples.len() as f64;
        assert!(off.abs() < 1920.0, "{off}");
    }
}
