//! Opus in Ogg (RFC 6716, RFC 7845).

use super::resample::Resampler;
use super::{CHANNELS, Pcm, finite};
use ogg::writing::{PacketWriteEndInfo, PacketWriter};
use ropus::{Application, Bitrate, Channels, Encoder};
use std::io;

/// Samples per second of everything that Opus decodes to.
const RATE: u32 = 48_000;
/// Samples per channel of a packet, 20 ms.
const FRAME: usize = 960;
/// Packets of a page: one second, the most that RFC 7845 recommends.
const PAGE: usize = 50;
/// Largest packet of 20 ms.
const PACKET: usize = 1275;
/// Tells the streams of a file apart; there is one.
const SERIAL: u32 = 1;

/// The whole file at `kbps` on average; `comments` is a block of Vorbis comments.
pub(super) fn encode(pcm: Pcm, kbps: u16, comments: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = Encoder::builder(RATE, Channels::Stereo, Application::Audio)
        .bitrate(Bitrate::Bits(u32::from(kbps) * 1000))
        .vbr(true)
        .complexity(10)
        .build()
        .map_err(failed)?;
    let delay = encoder.lookahead() as usize;
    let mut file = PacketWriter::new(Vec::new());
    let head = head(delay as u16, pcm.rate);
    file.write_packet(head, SERIAL, PacketWriteEndInfo::EndPage, 0)?;
    let tags = [b"OpusTags", comments].concat();
    file.write_packet(tags, SERIAL, PacketWriteEndInfo::EndPage, 0)?;

    let resampled = at_48_khz(pcm);
    let samples = resampled.as_deref().unwrap_or(pcm.samples);
    // Positions count what players drop at the start; the last one also says where the song ends.
    let end = samples.len() / CHANNELS + delay;
    let packets = end.div_ceil(FRAME);
    let mut frame = [0.0; FRAME * CHANNELS];
    let mut packet = [0; PACKET];
    for number in 0..packets {
        let from = (number * frame.len()).min(samples.len());
        let now = &samples[from..(from + frame.len()).min(samples.len())];
        frame.fill(0.0);
        frame
            .iter_mut()
            .zip(now)
            .for_each(|(to, x)| *to = finite(*x));
        let bytes = encoder.encode_float(&frame, &mut packet).map_err(failed)?;
        let how = match number + 1 {
            last if last == packets => PacketWriteEndInfo::EndStream,
            full if full % PAGE == 0 => PacketWriteEndInfo::EndPage,
            _ => PacketWriteEndInfo::NormalPacket,
        };
        let position = ((number + 1) * FRAME).min(end);
        file.write_packet(packet[..bytes].to_vec(), SERIAL, how, position as u64)?;
    }
    Ok(file.into_inner())
}

/// The identification header: version 1, no gain, one stereo stream.
fn head(delay: u16, rate: u32) -> Vec<u8> {
    let mut head = b"OpusHead\x01\x02".to_vec();
    head.extend(delay.to_le_bytes());
    head.extend(rate.to_le_bytes());
    head.extend([0, 0, 0]);
    head
}

/// The samples at [`RATE`] if they are not yet.
fn at_48_khz(pcm: Pcm) -> Option<Vec<f32>> {
    if pcm.rate == RATE {
        return None;
    }
    let frames = pcm.samples.chunks_exact(CHANNELS);
    let frames: Vec<_> = frames.map(|f| [f[0], f[1]]).collect();
    let mut resampler = Resampler::new(pcm.rate, RATE);
    let mut out = Vec::new();
    resampler.push(&frames, &mut out);
    resampler.finish(&mut out);
    Some(out)
}

fn failed(e: impl std::fmt::Display) -> io::Error {
    io::Error::other(format!("Opus: {e}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::audio::read;
    use crate::audio::tags::vorbis_comments;
    use crate::audio::test_signal::{chord, signal_to_noise};
    use crate::song::NoWatch;

    fn round_trip(samples: &[f32], rate: u32) -> Vec<f32> {
        let file = encode(Pcm { samples, rate }, 128, &vorbis_comments(None)).unwrap();
        read::read_bytes(file, "song", 60.0, &NoWatch).unwrap()
    }

    #[test]
    fn the_song_comes_back_in_its_length_and_place() {
        for frames in [1, 648, 649, 960, 96_000, 123_457] {
            let samples = chord(frames, 48_000);
            let back = round_trip(&samples, 48_000);
            assert_eq!(back.len(), samples.len(), "{frames}");
            if frames > 48_000 {
                let ratio = signal_to_noise(&samples, &back);
                assert!(ratio > 20.0, "{ratio} dB");
            }
        }
    }

    #[test]
    fn other_rates_are_resampled() {
        let back = round_trip(&chord(44_100, 44_100), 44_100);
        let wanted = chord(48_000, 48_000);
        assert_eq!(back.len(), wanted.len());
        assert!(signal_to_noise(&wanted, &back) > 20.0);
    }

    #[test]
    fn numbers_that_are_none_do_not_reach_the_encoder() {
        let samples = [f32::NAN, f32::INFINITY, 4.0, -1e30].repeat(3000);
        assert_eq!(round_trip(&samples, 48_000).len(), samples.len());
    }

    #[test]
    fn pages_hold_at_most_a_second() {
        let samples = chord(48_000 * 3, 48_000);
        let pcm = Pcm {
            samples: &samples,
            rate: 48_000,
        };
        let file = encode(pcm, 128, &vorbis_comments(None)).unwrap();
        let pages = file.windows(4).enumerate().filter(|(_, w)| *w == b"OggS");
        let positions: Vec<u64> = pages
            .map(|(at, _)| u64::from_le_bytes(file[at + 6..at + 14].try_into().unwrap()))
            .collect();
        let end = 3 * 48_000 + 312;
        assert_eq!(positions, [0, 0, 48_000, 96_000, 144_000, end]);
    }

    #[test]
    fn the_bit_rate_is_about_that_which_was_asked_for() {
        let samples = chord(48_000 * 3, 48_000);
        let pcm = Pcm {
            samples: &samples,
            rate: 48_000,
        };
        for wanted in [32, 128, 510] {
            let file = encode(pcm, wanted, &vorbis_comments(None)).unwrap();
            let kbps = file.len() as f64 * 8.0 / 3.0 / 1000.0;
            let share = kbps / f64::from(wanted);
            assert!((0.7..1.35).contains(&share), "{kbps} of {wanted}");
        }
    }
}
