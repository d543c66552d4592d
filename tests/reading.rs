//! Audio files of every format, whole, damaged and hostile.

use engine::audio::read::{MAX_SECONDS, read_bytes};
use engine::song::{NoWatch, Stage, Watch};
use engine::{Error, Result};
use proptest::prelude::*;
use tests::containers::{aiff, caf, every, float, riff, sample, spec, tones, wav};

fn read(bytes: &[u8], name: &str) -> Result<Vec<f32>> {
    read_bytes(bytes.to_vec(), name, MAX_SECONDS, &NoWatch)
}

fn refusal(bytes: &[u8]) -> String {
    match read(bytes, "upload.wav") {
        Err(Error::Request(why)) => why,
        other => panic!("{:?}", other.map(|pcm| pcm.len())),
    }
}

/// Largest distance from the tones, without the ends.
fn distance(pcm: &[f32], tones: &[[f32; 2]]) -> f32 {
    let pairs = pcm.chunks_exact(2).zip(tones);
    let off = |(a, b): (&[f32], &[f32; 2])| (a[0] - b[0]).abs().max((a[1] - b[1]).abs());
    let middle = tones.len().saturating_sub(4000);
    pairs.skip(2000).take(middle).map(off).fold(0.0, f32::max)
}

#[test]
fn uncompressed_formats() {
    let frames = tones(48_000, 9600);
    let flat: Vec<f32> = frames.iter().flatten().copied().collect();
    let doubles: Vec<u8> = flat
        .iter()
        .flat_map(|x| f64::from(*x).to_le_bytes())
        .collect();
    let cases = [
        ("8 bits", wav(spec(2, 48_000, 8), &flat), 1.0 / 128.0),
        ("16 bits", wav(spec(2, 48_000, 16), &flat), 1.0 / 32_768.0),
        ("24 bits", wav(spec(2, 48_000, 24), &flat), 1.0 / 8e6),
        ("32 bits", wav(spec(2, 48_000, 32), &flat), 1e-7),
        ("floats", wav(float(2, 48_000), &flat), 1e-9),
        ("doubles", riff(3, 2, 48_000, 64, &doubles), 1e-9),
        ("aiff", aiff(&frames), 2.0 / 32_768.0),
        ("caf", caf(&frames), 1e-9),
    ];
    for (name, bytes, limit) in cases {
        let pcm = read(&bytes, name).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(pcm.len(), flat.len(), "{name}");
        let off = distance(&pcm, &frames);
        assert!(off <= limit, "{name}: off by {off}");
    }
}

#[test]
fn compressed_formats() {
    let frames = tones(48_000, 24_000);
    for (name, limit) in [
        ("tones.flac", 1e-3),
        ("tones.ogg", 0.05),
        ("tones.opus", 0.03),
        ("tones.m4a", 0.02),
    ] {
        let pcm = read(&sample(name), name).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(pcm.len(), 48_000, "{name}: delay and padding are cut");
        let off = distance(&pcm, &frames);
        assert!(off <= limit, "{name}: off by {off}");
    }
    // A bare stream does not say how much its encoder added.
    let pcm = read(&sample("tones.aac"), "tones.aac").expect("read");
    assert!((48_000..=48_000 + 2 * 4096).contains(&pcm.len()));
    let off = distance(&pcm[2 * 1024..], &frames);
    assert!(off <= 0.02, "aac: off by {off}");
}

#[test]
fn channels_and_rates() {
    let frames = tones(44_100, 22_050);
    let left: Vec<f32> = frames.iter().map(|f| f[0]).collect();
    let mono = read(&wav(float(1, 44_100), &left), "mono").expect("read");
    assert_eq!(mono.len(), 2 * 24_000);
    assert!(mono.chunks_exact(2).all(|f| f[0] == f[1]));
    let want: Vec<_> = tones(48_000, 24_000).iter().map(|f| [f[0]; 2]).collect();
    assert!(distance(&mono, &want) < 1e-3);

    let six: Vec<f32> = frames
        .iter()
        .flat_map(|f| [f[0], f[1], 1.0, -1.0, 1.0, -1.0])
        .collect();
    let six = read(&wav(float(6, 44_100), &six), "six").expect("read");
    assert!(distance(&six, &tones(48_000, 24_000)) < 1e-3);

    let loud: Vec<f32> = frames.iter().flatten().map(|x| x * 10.0).collect();
    let loud = read(&wav(float(2, 44_100), &loud), "loud").expect("read");
    assert!(loud.iter().all(|x| (-1.0..=1.0).contains(x)));
    assert!(loud.contains(&1.0) && loud.contains(&-1.0));
}

#[test]
fn the_name_does_not_matter() {
    let pcm = read(&sample("tones.flac"), "tones.flac").expect("read");
    assert_eq!(read(&sample("tones.flac"), "tones.mp3").expect("read"), pcm);
}

#[test]
fn refusals_say_what_is_wrong() {
    let flat: Vec<f32> = tones(48_000, 48_000).into_iter().flatten().collect();
    let whole = wav(spec(2, 48_000, 16), &flat);
    let with = |x: f32| {
        let mut flat = flat.clone();
        flat[777] = x;
        wav(float(2, 48_000), &flat)
    };
    // Frames of a packet.
    let mut hungry = caf(&tones(48_000, 100));
    hungry[40..44].fill(0xff);
    let html = b"<!DOCTYPE html><title>404</title>".repeat(40);
    for (bytes, part) in [
        (Vec::new(), "is empty"),
        (html, "is not an audio file"),
        (vec![0; 5000], "is not an audio file"),
        (
            whole[..whole.len() / 2].to_vec(),
            "is cut off: it declares 1.00 s",
        ),
        (whole[..44].to_vec(), ""),
        (whole[..30].to_vec(), ""),
        (with(f32::NAN), "not finite"),
        (with(f32::INFINITY), "not finite"),
        (riff(1, 0, 48_000, 16, &[0; 400]), ""),
        (riff(1, 2, 0, 16, &[0; 400]), ""),
        (riff(1, 2, u32::MAX, 16, &[0; 400]), "samples per second"),
        (riff(1, 2, 48_000, 16, &[]), ""),
        (hungry, "samples at once"),
        (riff(0x55, 2, 48_000, 16, &[0; 400]), ""),
    ] {
        let why = refusal(&bytes);
        assert!(
            why.starts_with("upload.wav ") && why.contains(part),
            "{why}"
        );
        assert!(why.contains("; "), "no remedy: {why}");
    }
}

#[test]
fn a_pipe_s_header_does_not_know_the_length() {
    let flat: Vec<f32> = tones(48_000, 48_000).into_iter().flatten().collect();
    let mut bytes = wav(spec(2, 48_000, 16), &flat);
    let data = bytes
        .windows(4)
        .position(|w| w == b"data")
        .expect("a chunk");
    bytes[4..8].fill(0xff);
    bytes[data + 4..data + 8].fill(0xff);
    assert_eq!(read(&bytes, "piped").expect("read").len(), flat.len());
}

#[test]
fn the_limit_is_a_length() {
    let flat: Vec<f32> = tones(8_000, 16_000).into_iter().flatten().collect();
    let two = wav(spec(2, 8_000, 16), &flat);
    let limited = |s: f64| read_bytes(two.clone(), "two", s, &NoWatch);
    assert_eq!(limited(2.0).expect("read").len(), 2 * 96_000);
    let Err(Error::Request(why)) = limited(1.0) else {
        panic!("two seconds are longer than one");
    };
    assert!(
        why.contains("longer than the 1 s") && why.contains("(2.0 s)"),
        "{why}"
    );
    // A format without a length is stopped while it is decoded.
    let Err(Error::Request(why)) = read_bytes(sample("tones.aac"), "aac", -0.4, &NoWatch) else {
        panic!("half a second is longer than a tenth");
    };
    assert!(why.contains("longer than"), "{why}");
}

#[test]
fn reading_can_be_stopped() {
    struct Stopped;
    impl Watch for Stopped {
        fn progress(&self, _: Stage, _: usize, _: usize) {}
        fn cancelled(&self) -> bool {
            true
        }
    }
    let read = read_bytes(sample("tones.ogg"), "ogg", MAX_SECONDS, &Stopped);
    assert_eq!(read, Err(Error::Cancelled));
}

/// Whatever comes in, what comes out is sound or a refusal of the request.
fn assert_sound(read: Result<Vec<f32>>) {
    match read {
        Ok(pcm) => assert!(pcm.iter().all(|x| (-1.0..=1.0).contains(x))),
        Err(Error::Request(why)) => assert!(why.starts_with("upload "), "{why}"),
        Err(other) => panic!("{other:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn random_bytes(bytes in prop::collection::vec(any::<u8>(), 0..4000)) {
        assert_sound(read(&bytes, "upload"));
    }

    #[test]
    fn damaged_files(
        index in 0usize..12,
        // Headers are short: half of the damage is done there. Their fields are up to 8 bytes long.
        hits in prop::collection::vec(
            (any::<bool>(), 0f64..1.0, prop_oneof![Just(0), Just(0x7f), Just(0xff), any::<u8>()], 1usize..=8),
            1..8,
        ),
    ) {
        let (_, mut bytes) = every().swap_remove(index);
        for (early, at, value, run) in hits {
            let within = if early { bytes.len().min(120) } else { bytes.len() };
            let at = (within as f64 * at) as usize;
            let end = (at + run).min(bytes.len());
            bytes[at..end].fill(value);
        }
        assert_sound(read(&bytes, "upload"));
    }
}
