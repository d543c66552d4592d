//! WAV: 16-bit integers for players, 32-bit floats for further work. What is told of the song
//! stands behind the samples, where it is in no reader's way.

use super::{CHANNELS, Pcm};
use std::io::{self, Seek, SeekFrom, Write};

/// A sample in 16 bits: one is 32768, as readers have it, so that the 16 bits of a recording come
/// back as they were; halves round away from zero, what exceeds the range is clipped.
pub(super) fn to_i16(x: f32) -> i16 {
    (x * 32768.0).round().clamp(-32768.0, 32767.0) as i16
}

/// Writes 16-bit samples.
pub(super) fn write_i16(mut to: impl Write + Seek, pcm: Pcm, info: &[u8]) -> io::Result<()> {
    let mut writer = writer(&mut to, pcm, 16, hound::SampleFormat::Int)?;
    for &x in pcm.samples {
        writer.write_sample(to_i16(x)).map_err(io_error)?;
    }
    writer.finalize().map_err(io_error)?;
    append(to, info)
}

/// Puts a chunk behind the last one; the size of the whole file stands in its header.
fn append(mut to: impl Write + Seek, chunk: &[u8]) -> io::Result<()> {
    if chunk.is_empty() {
        return Ok(());
    }
    let end = to.seek(SeekFrom::End(0))? + chunk.len() as u64;
    to.write_all(chunk)?;
    to.seek(SeekFrom::Start(4))?;
    let behind_header = u32::try_from(end - 8).map_err(io::Error::other)?;
    to.write_all(&behind_header.to_le_bytes())
}

/// Writes the samples as they are.
pub(super) fn write_f32(mut to: impl Write + Seek, pcm: Pcm, info: &[u8]) -> io::Result<()> {
    let mut writer = writer(&mut to, pcm, 32, hound::SampleFormat::Float)?;
    for &x in pcm.samples {
        writer.write_sample(x).map_err(io_error)?;
    }
    writer.finalize().map_err(io_error)?;
    append(to, info)
}

fn writer<W: Write + Seek>(
    to: W,
    pcm: Pcm,
    bits_per_sample: u16,
    sample_format: hound::SampleFormat,
) -> io::Result<hound::WavWriter<W>> {
    let spec = hound::WavSpec {
        channels: CHANNELS as u16,
        sample_rate: pcm.rate,
        bits_per_sample,
        sample_format,
    };
    hound::WavWriter::new(to, spec).map_err(io_error)
}

fn io_error(e: hound::Error) -> io::Error {
    match e {
        hound::Error::IoError(e) => e,
        other => io::Error::other(other),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::io::Cursor;

    #[test]
    fn integers_round_half_away_and_clip() {
        let half = 0.5 / 32768.0;
        let samples = [0.0, half, -half, 1.0, -1.0, 1.5, -1.5, f32::NAN];
        let mut file = Cursor::new(Vec::new());
        write_i16(
            &mut file,
            Pcm {
                samples: &samples,
                rate: 48_000,
            },
            &[],
        )
        .unwrap();
        file.set_position(0);
        let mut reader = hound::WavReader::new(file).unwrap();
        assert_eq!(reader.spec().sample_rate, 48_000);
        assert_eq!(reader.spec().channels, 2);
        let read: Vec<i16> = reader.samples().map(Result::unwrap).collect();
        assert_eq!(read, [0, 1, -1, 32767, -32768, 32767, -32768, 0]);
    }

    #[test]
    fn every_integer_that_is_read_is_written_as_it_was() {
        for x in i16::MIN..=i16::MAX {
            assert_eq!(to_i16(f32::from(x) / 32768.0), x);
        }
    }

    #[test]
    fn floats_come_back_as_they_were() {
        let samples = [0.1, -0.75, 1.25, 1e-30];
        let mut file = Cursor::new(Vec::new());
        write_f32(
            &mut file,
            Pcm {
                samples: &samples,
                rate: 44_100,
            },
            &[],
        )
        .unwrap();
        file.set_position(0);
        let read: Vec<f32> = hound::WavReader::new(file)
            .unwrap()
            .into_samples()
            .map(Result::unwrap)
            .collect();
        assert_eq!(read, samples);
    }
}
