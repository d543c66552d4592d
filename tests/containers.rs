//! Small files of every container.
//!
//! The files in `samples` hold half a second of two tones, 440 Hz on the left at a height of 0.4
//! and 880 Hz on the right at 0.2: flac and ogg (Vorbis) by SoX at 44.1 kHz, opus at 48 kHz by
//! `ropus`, aac (ADTS) and m4a at 48 kHz by `syom`.

use engine::audio::{AudioFormat, Pcm, Tags, write};
use hound::{SampleFormat, WavSpec, WavWriter};
use std::f32::consts::TAU;
use std::io::Cursor;
use std::path::Path;

/// A file of `samples`.
pub fn sample(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("samples");
    std::fs::read(path.join(name)).expect("the sample is there")
}

/// The tones at a rate, left and right.
pub fn tones(rate: u32, frames: usize) -> Vec<[f32; 2]> {
    let tone = |i: usize, hz: f32| (i as f32 / rate as f32 * hz * TAU).sin();
    (0..frames)
        .map(|i| [0.4 * tone(i, 440.0), 0.2 * tone(i, 880.0)])
        .collect()
}

/// A WAV file, integers or floats from -1 to 1.
pub fn wav(spec: WavSpec, values: &[f32]) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    let mut writer = WavWriter::new(&mut bytes, spec).expect("a writer");
    for x in values {
        match spec.sample_format {
            SampleFormat::Float => writer.write_sample(*x),
            SampleFormat::Int => {
                let height = f64::from(*x) * 2f64.powi(i32::from(spec.bits_per_sample) - 1);
                writer.write_sample(height.round() as i32)
            }
        }
        .expect("written");
    }
    writer.finalize().expect("finished");
    bytes.into_inner()
}

/// Integers.
pub fn spec(channels: u16, rate: u32, bits: u16) -> WavSpec {
    WavSpec {
        channels,
        sample_rate: rate,
        bits_per_sample: bits,
        sample_format: SampleFormat::Int,
    }
}

/// Floats.
pub fn float(channels: u16, rate: u32) -> WavSpec {
    WavSpec {
        sample_format: SampleFormat::Float,
        ..spec(channels, rate, 32)
    }
}

/// A canonical WAV file of what hound does not write.
pub fn riff(tag: u16, channels: u16, rate: u32, bits: u16, data: &[u8]) -> Vec<u8> {
    let block = channels * (bits / 8);
    let mut out = b"RIFF".to_vec();
    out.extend((36 + data.len() as u32).to_le_bytes());
    out.extend(b"WAVEfmt \x10\0\0\0");
    out.extend(tag.to_le_bytes());
    out.extend(channels.to_le_bytes());
    out.extend(rate.to_le_bytes());
    out.extend(rate.wrapping_mul(u32::from(block)).to_le_bytes());
    out.extend(block.to_le_bytes());
    out.extend(bits.to_le_bytes());
    out.extend(b"data");
    out.extend((data.len() as u32).to_le_bytes());
    out.extend(data);
    out
}

/// A file of Apple's interchange format, 16 bits at 48 kHz.
pub fn aiff(frames: &[[f32; 2]]) -> Vec<u8> {
    let data: Vec<u8> = frames
        .iter()
        .flatten()
        .flat_map(|x| ((x * 32_767.0) as i16).to_be_bytes())
        .collect();
    let mut out = b"FORM".to_vec();
    out.extend((46 + data.len() as u32).to_be_bytes());
    out.extend(b"AIFFCOMM\0\0\0\x12\0\x02");
    out.extend((frames.len() as u32).to_be_bytes());
    // 16 bits; 48000 as an 80-bit float.
    out.extend(b"\0\x10\x40\x0e\xbb\x80\0\0\0\0\0\0SSND");
    out.extend((8 + data.len() as u32).to_be_bytes());
    out.extend([0; 8]);
    out.extend(data);
    out
}

/// A file of Apple's core audio format, floats at 48 kHz.
pub fn caf(frames: &[[f32; 2]]) -> Vec<u8> {
    let data: Vec<u8> = frames
        .iter()
        .flatten()
        .flat_map(|x| x.to_be_bytes())
        .collect();
    let mut out = b"caff\0\x01\0\0desc\0\0\0\0\0\0\0\x20".to_vec();
    out.extend(48_000f64.to_be_bytes());
    out.extend(b"lpcm");
    // Floats, big-endian; bytes and frames of a packet, channels, bits.
    for field in [1u32, 8, 1, 2, 32] {
        out.extend(field.to_be_bytes());
    }
    out.extend(b"data");
    out.extend((4 + data.len() as i64).to_be_bytes());
    out.extend([0; 4]);
    out.extend(data);
    out
}

/// A song of the writer's, with tags.
pub fn written(format: AudioFormat, samples: &[f32], rate: u32) -> Vec<u8> {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("song");
    let tags = Tags::new("two tones", "[verse]\nla", 7, "acestep");
    write(&path, Pcm { samples, rate }, format, Some(&tags)).expect("written");
    std::fs::read(&path).expect("read")
}

/// A small file of every container, by its ending: a tenth of a second to half a second of the
/// tones.
pub fn every() -> Vec<(&'static str, Vec<u8>)> {
    let frames = tones(48_000, 4800);
    let flat: Vec<f32> = frames.iter().flatten().copied().collect();
    let mp3 = AudioFormat::Mp3(Default::default());
    let mut all = vec![
        ("wav", wav(spec(2, 48_000, 24), &flat[..4800])),
        ("float.wav", wav(float(2, 44_100), &flat[..4800])),
        (
            "tagged.wav",
            written(AudioFormat::Wav, &flat[..4800], 48_000),
        ),
        ("aiff", aiff(&frames[..2400])),
        ("caf", caf(&frames[..2400])),
        ("mp3", written(mp3, &flat, 48_000)),
        ("tagged.aac", written(AudioFormat::Aac(192), &flat, 48_000)),
    ];
    for ending in ["flac", "ogg", "opus", "m4a", "aac"] {
        all.push((ending, sample(&format!("tones.{ending}"))));
    }
    all
}
