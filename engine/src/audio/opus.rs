//! Opus packets to PCM: the header of RFC 7845 and what it asks of a player (pre-skip, gain).

use super::CHANNELS;
use ropus::{Channels, DecodeMode, Decoder};

/// Samples per second of everything that is decoded here.
const RATE: u32 = 48_000;
/// Samples per channel of the longest packet, 120 ms.
const LONGEST: usize = 5760;

/// A stream of one or two channels.
pub(super) struct Opus {
    decoder: Decoder,
    /// Samples at the start that only warm the decoder up.
    skip: usize,
    gain: f32,
}

impl Opus {
    /// A decoder for the stream that starts with the header `head`.
    ///
    /// # Errors
    /// What is wrong with the header, or what of it is not supported.
    pub(super) fn new(head: &[u8]) -> Result<Self, String> {
        let field = |at: usize| head.get(at).copied().map(u16::from);
        let word = |at: usize| Some(field(at)? | field(at + 1)? << 8);
        let (Some(channels), Some(skip), Some(gain), Some(family)) =
            (field(9), word(10), word(16), field(18))
        else {
            return Err("its Opus header is too short".into());
        };
        if family != 0 || !(1..=2).contains(&channels) {
            return Err(format!(
                "it has {channels} Opus channels, at most 2 are supported"
            ));
        }
        // The decoder doubles a mono stream itself.
        let decoder = Decoder::new(RATE, Channels::Stereo).map_err(|e| e.to_string())?;
        let decibels = f32::from(gain as i16) / 256.0;
        Ok(Opus {
            decoder,
            skip: skip.into(),
            gain: 10f32.powf(decibels / 20.0),
        })
    }

    /// Decodes a packet to interleaved stereo of which the last `trim` samples are padding.
    ///
    /// # Errors
    /// A packet that is not one; the next one can still be decoded.
    pub(super) fn decode(
        &mut self,
        packet: &[u8],
        trim: usize,
        out: &mut Vec<f32>,
    ) -> Result<(), String> {
        out.clear();
        // An empty packet is a lost one, which the format does not have.
        if packet.is_empty() {
            return Err("an Opus packet is empty".into());
        }
        out.resize(LONGEST * CHANNELS, 0.0);
        let decoded = self.decoder.decode_float(packet, out, DecodeMode::Normal);
        let frames = decoded
            .inspect_err(|_| out.clear())
            .map_err(|e| e.to_string())?;
        let skip = self.skip.min(frames);
        self.skip -= skip;
        out.truncate(frames.saturating_sub(trim).max(skip) * CHANNELS);
        out.drain(..skip * CHANNELS);
        out.iter_mut().for_each(|x| *x *= self.gain);
        Ok(())
    }
}
