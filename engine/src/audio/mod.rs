//! PCM to files and back: formats, levels, a writer that never leaves half a file behind, and a
//! reader that trusts nothing.

mod aac;
mod edits;
mod flac;
mod guard;
mod id3;
pub mod level;
mod mp3;
mod ogg_opus;
mod opus;
pub mod read;
pub mod resample;
pub mod splice;
mod tags;
#[cfg(test)]
mod test_signal;
mod wav;
mod write;

pub use mp3::Mp3;
pub use tags::Tags;
pub use write::{write, write_whole};

use crate::error::{Error, Result};
use std::ops::RangeInclusive;

/// Decoded audio: stereo samples, left and right alternating, nominally within -1 to 1.
#[derive(Debug, Clone, Copy)]
pub struct Pcm<'a> {
    /// Interleaved stereo.
    pub samples: &'a [f32],
    /// Samples per second and channel.
    pub rate: u32,
}

/// Channels of all audio.
pub const CHANNELS: usize = 2;

/// The sample for encoders that must not see infinities.
fn finite(x: f32) -> f32 {
    if x.is_finite() {
        x.clamp(-1.0, 1.0)
    } else {
        0.0
    }
}

/// Bit rates of stereo Opus in kbit/s.
pub const OPUS_KBPS: RangeInclusive<u16> = 32..=510;
/// Opus is transparent for music in listening tests at this rate.
pub const OPUS_DEFAULT_KBPS: u16 = 128;
/// Bit rates of stereo AAC-LC in kbit/s.
pub const AAC_KBPS: RangeInclusive<u16> = 64..=320;
/// AAC unless something else is asked for.
pub const AAC_DEFAULT_KBPS: u16 = 192;

/// Kilobits per second as requests write them: `192k` or `192`.
pub fn parse_kbps(text: &str) -> Option<u32> {
    let text = text.trim().to_ascii_lowercase();
    text.strip_suffix('k').unwrap_or(&text).parse().ok()
}

/// How a song is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AudioFormat {
    /// PCM of 16 bits.
    Wav,
    /// PCM of 32-bit floats: lossless.
    Wav32,
    /// FLAC of 16 bits.
    Flac,
    /// Opus in Ogg at so many kbit/s on average, within [`OPUS_KBPS`].
    Opus(u16),
    /// AAC-LC in ADTS at so many kbit/s on average, within [`AAC_KBPS`].
    Aac(u16),
    /// MPEG layer III at a constant bit rate.
    Mp3(Mp3),
}

impl AudioFormat {
    /// A format by the name that requests use (any case, blanks around it ignored), with the
    /// default bit rate.
    ///
    /// # Errors
    /// [`Error::Request`] when the name is unknown.
    pub fn parse(name: &str) -> Result<Self> {
        match name.trim().to_ascii_lowercase().as_str() {
            "wav" => Ok(AudioFormat::Wav),
            "wav32" => Ok(AudioFormat::Wav32),
            "mp3" => Ok(AudioFormat::Mp3(Mp3::default())),
            "flac" => Ok(AudioFormat::Flac),
            "opus" => Ok(AudioFormat::Opus(OPUS_DEFAULT_KBPS)),
            "aac" => Ok(AudioFormat::Aac(AAC_DEFAULT_KBPS)),
            other => Err(Error::Request(format!(
                "audio format {other:?} is unknown; use mp3, flac, opus, aac, wav or wav32"
            ))),
        }
    }

    /// Name as requests use it.
    pub fn name(self) -> &'static str {
        match self {
            AudioFormat::Wav => "wav",
            AudioFormat::Wav32 => "wav32",
            AudioFormat::Flac => "flac",
            AudioFormat::Opus(_) => "opus",
            AudioFormat::Aac(_) => "aac",
            AudioFormat::Mp3(_) => "mp3",
        }
    }

    /// Ending of a file's name, without the dot.
    pub fn extension(self) -> &'static str {
        match self {
            AudioFormat::Wav | AudioFormat::Wav32 => "wav",
            AudioFormat::Flac => "flac",
            AudioFormat::Opus(_) => "opus",
            AudioFormat::Aac(_) => "aac",
            AudioFormat::Mp3(_) => "mp3",
        }
    }

    /// Media type for HTTP.
    pub fn mime(self) -> &'static str {
        match self {
            AudioFormat::Wav | AudioFormat::Wav32 => "audio/wav",
            AudioFormat::Flac => "audio/flac",
            AudioFormat::Opus(_) => "audio/ogg",
            AudioFormat::Aac(_) => "audio/aac",
            AudioFormat::Mp3(_) => "audio/mpeg",
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn bit_rates_are_read() {
        assert_eq!(parse_kbps(" 192K "), Some(192));
        assert_eq!(parse_kbps("64"), Some(64));
        assert!(["", "k", "-1", "1.5k", "fast"].map(parse_kbps) == [None; 5]);
    }

    #[test]
    fn formats_by_name() {
        for (name, extension, mime) in [
            ("wav", "wav", "audio/wav"),
            (" WAV32 ", "wav", "audio/wav"),
            ("flac", "flac", "audio/flac"),
            ("opus", "opus", "audio/ogg"),
            ("aac", "aac", "audio/aac"),
            ("Mp3", "mp3", "audio/mpeg"),
        ] {
            let format = AudioFormat::parse(name).unwrap();
            assert_eq!(format.name(), name.trim().to_ascii_lowercase());
            assert_eq!((format.extension(), format.mime()), (extension, mime));
        }
        for (name, why) in [("ogg", "unknown"), ("", "unknown")] {
            let error = AudioFormat::parse(name).unwrap_err();
            assert!(
                matches!(&error, Error::Request(s) if s.contains(why)),
                "{error}"
            );
        }
    }
}
