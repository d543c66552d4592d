//! Broken and hostile files: cut anywhere, flipped bits, headers that claim gigabytes, metadata
//! that unpacks without end, hours of nothing. Whatever comes, the answer is sound or a refusal,
//! within a bounded time and in bounded memory.

use engine::audio::AudioFormat;
use engine::audio::read::{MAX_SECONDS, read, read_bytes};
use engine::song::NoWatch;
use engine::{Error, Result};
use flate2::Compression;
use flate2::write::ZlibEncoder;
use std::fs::File;
use std::io::Write;
use std::time::{Duration, Instant};
use tests::containers::{every, riff, written};
use tests::random::Random;

/// Most memory that the whole process may ever have used, with all tests of this file at once.
const MEMORY_KIB: u64 = 1 << 20;
/// Longest that one file may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Reads a file; what comes of it is sound or a refusal, soon and in little memory.
fn answer(bytes: Vec<u8>, what: &str) -> Result<Vec<f32>> {
    let start = Instant::now();
    let read = read_bytes(bytes, "upload", MAX_SECONDS, &NoWatch);
    settled(&read, what, start);
    read
}

fn settled(read: &Result<Vec<f32>>, what: &str, start: Instant) {
    let took = start.elapsed();
    assert!(took < PATIENCE, "{what}: {took:?}");
    match read {
        Ok(pcm) => assert!(pcm.iter().all(|x| (-1.0..=1.0).contains(x)), "{what}"),
        Err(Error::Request(why)) => {
            assert!(
                why.contains("upload") && why.contains("; "),
                "{what}: {why}"
            );
            assert!(!why.contains("breaks the decoder"), "{what}: {why}");
        }
        Err(other) => panic!("{what}: {other:?}"),
    }
    assert_small(what);
}

/// The most memory that this process has had, as Linux tells it.
fn assert_small(what: &str) {
    let Ok(status) = std::fs::read_to_string("/proc/self/status") else {
        return;
    };
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak = peak.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    let peak: u64 = peak.expect("a number of KiB");
    assert!(peak < MEMORY_KIB, "{what}: {peak} KiB");
}

#[test]
fn cut_at_every_tenth_byte() {
    for (name, bytes) in every() {
        for cut in (0..bytes.len()).step_by(10) {
            let read = answer(bytes[..cut].to_vec(), &format!("{name} cut at {cut}"));
            // Nothing is made up.
            if let Ok(pcm) = read {
                assert!(
                    pcm.len() <= 2 * 48_000,
                    "{name} cut at {cut}: {}",
                    pcm.len()
                );
            }
        }
    }
}

#[test]
fn flipped_bits() {
    let mut random = Random::named("flipped bits");
    for (name, bytes) in every() {
        for round in 0..200 {
            let mut bytes = bytes.clone();
            // Half of the damage is done to the head.
            let within = if round % 2 == 0 {
                bytes.len().min(256)
            } else {
                bytes.len()
            };
            for _ in 0..1 + round % 8 {
                bytes[random.below(within)] ^= 1 << random.below(8);
            }
            drop(answer(bytes, &format!("{name}, round {round}")));
        }
    }
}

/// Wherever in a head a size or a count stands, it once says gigabytes.
#[test]
fn every_field_of_a_head_claims_gigabytes() {
    for (name, bytes) in every() {
        for at in 0..bytes.len().min(700) {
            for claim in [
                &[0xff; 4][..],
                &[0x7f, 0xff, 0xff, 0xff],
                &[0xff, 0xff, 0xff, 0x7f],
            ] {
                let mut bytes = bytes.clone();
                let end = (at + claim.len()).min(bytes.len());
                bytes[at..end].copy_from_slice(&claim[..end - at]);
                drop(answer(bytes, &format!("{name}, {claim:x?} at {at}")));
            }
        }
    }
}

/// A number in seven bits a byte, as ID3 has it.
fn sync_safe(n: usize) -> [u8; 4] {
    [21, 14, 7, 0].map(|shift| (n >> shift & 0x7f) as u8)
}

/// An ID3v2.4 tag that claims `size` bytes and has `content`.
fn id3(size: usize, content: &[u8]) -> Vec<u8> {
    [b"ID3\x04\0\0", &sync_safe(size)[..], content].concat()
}

/// A frame with format flags.
fn frame(id: &[u8; 4], flags: u8, claims: usize, content: &[u8]) -> Vec<u8> {
    [id, &sync_safe(claims)[..], &[0, flags], content].concat()
}

/// A quarter of a gigabyte of text, packed.
fn packed() -> Vec<u8> {
    let mut zip = ZlibEncoder::new(Vec::new(), Compression::best());
    let text = vec![b'a'; 1 << 20];
    for _ in 0..256 {
        zip.write_all(&text).expect("packed");
    }
    zip.finish().expect("packed")
}

#[test]
fn bombs_in_id3() {
    let song: Vec<_> = every();
    let audio = |ending: &str| {
        let found = song.iter().find(|(name, _)| *name == ending);
        found.expect("there is one").1.clone()
    };
    const MOST: usize = (1 << 28) - 1;
    let packed = packed();
    // Packed, with the length that it claims to unpack to in front.
    let long = [&sync_safe(MOST)[..], &packed].concat();
    let bomb = frame(b"TIT2", 0b0000_1001, long.len(), &long);
    let picture = [b"\x03image/png\0\x03\0".as_slice(), &[7; 64]].concat();
    for (what, tag) in [
        ("a tag without end", id3(MOST, b"")),
        (
            "a frame without end",
            id3(40, &frame(b"TIT2", 0, MOST, b"\x03x")),
        ),
        (
            "a picture without end",
            id3(120, &frame(b"APIC", 0, MOST, &picture)),
        ),
        ("packed text", id3(bomb.len(), &bomb)),
        ("a thousand tags", id3(0, b"").repeat(1000)),
        ("a million frames", {
            let frames = frame(b"TXXX", 0, 3, b"\x03a\0").repeat(200_000);
            id3(frames.len(), &frames)
        }),
    ] {
        for ending in ["mp3", "aac", "flac"] {
            let file = [tag.clone(), audio(ending)].concat();
            // Refused or heard, but answered.
            drop(answer(file, &format!("{what} before {ending}")));
        }
        let file = [&b"RIFF\xff\xff\xff\x7fWAVEid3 \xff\xff\xff\x7f"[..], &tag].concat();
        drop(answer(file, &format!("{what} in wav")));
    }
}

#[test]
fn bombs_in_flac() {
    let info = every().into_iter().find(|(name, _)| *name == "flac");
    let (_, flac) = info.expect("there is one");
    // The stream's own block comes first: 4 bytes of magic, 4 of head, 34.
    let (head, rest) = flac.split_at(42);
    let block = |kind: u8, size: u32, content: &[u8]| {
        let size = size.to_be_bytes();
        [&[kind, size[1], size[2], size[3]], content].concat()
    };
    let huge = [0xff; 4];
    let comments = |content: &[u8]| block(4, content.len() as u32, content);
    let picture = |content: &[u8]| block(6, content.len() as u32, content);
    let image = [
        &[0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0],
        &[0xff; 16][..],
        &huge,
    ]
    .concat();
    for (what, bomb) in [
        ("a vendor without end", comments(&huge)),
        (
            "comments without end",
            comments(&[&[0; 4], &huge[..], &[1, 0, 0, 0, b'a']].concat()),
        ),
        (
            "a comment without end",
            comments(&[&[0; 4], &[1, 0, 0, 0], &huge[..]].concat()),
        ),
        ("a picture without end", picture(&image)),
        (
            "a media type without end",
            picture(&[&[0, 0, 0, 3], &huge[..]].concat()),
        ),
        ("a block without end", block(6, 0xff_ffff, b"")),
        ("a seek table without end", block(3, 0xff_fff0, b"")),
        ("ten thousand blocks", block(1, 0, b"").repeat(10_000)),
    ] {
        drop(answer([head, &bomb, rest].concat(), what));
    }
}

/// Bytes of the tag that a file begins with.
fn tag(file: &[u8]) -> usize {
    10 + file[6..10].iter().fold(0, |n, b| n << 7 | usize::from(*b))
}

#[test]
fn an_hour_of_silence() {
    let refused = |bytes: Vec<u8>, what: &str| match answer(bytes, what) {
        Err(Error::Request(why)) => assert!(why.contains("longer than the 600 s"), "{why}"),
        other => panic!("{what}: {:?}", other.map(|pcm| pcm.len())),
    };
    // One whose length is known, and ten minutes that are let in.
    let rate = 8000;
    refused(riff(1, 1, rate, 8, &vec![128; 3600 * 8000]), "wav");
    let most = answer(
        riff(1, 1, rate, 8, &vec![128; 600 * 8000]),
        "ten minutes of wav",
    );
    assert_eq!(most.expect("read").len(), 600 * 48_000 * 2);
    // Streams that say nothing of their length: a second, again and again.
    let second = vec![0.0; 8000 * 2];
    let aac = written(AudioFormat::Aac(64), &second, rate);
    refused(aac[tag(&aac)..].repeat(3600), "aac");
    let second = vec![0.0; 48_000 * 2];
    let mp3 = written(AudioFormat::Mp3(Default::default()), &second, 48_000);
    // Without LAME's first frame, which knows the length: 384 bytes at 128 kbit/s.
    refused(mp3[tag(&mp3) + 384..].repeat(3600), "mp3");
}

/// What is behind the head never ends: a file that is almost all hole.
#[test]
fn files_that_are_almost_all_hole() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("upload");
    for (name, bytes) in every() {
        for length in [3_u64 << 30, 5 << 30] {
            let mut file = File::create(&path).expect("made");
            file.write_all(&bytes).expect("written");
            file.set_len(length).expect("grown");
            let start = Instant::now();
            let read = read(&path, MAX_SECONDS, &NoWatch);
            settled(&read, &format!("{name} of {length} bytes"), start);
        }
    }
}

#[test]
fn wrong_endings() {
    let dir = tempfile::tempdir().expect("a folder");
    let all = every();
    for (index, (ending, bytes)) in all.iter().enumerate() {
        let right = read_bytes(bytes.clone(), ending, MAX_SECONDS, &NoWatch).expect("read");
        let (wrong, _) = &all[(index + 5) % all.len()];
        for name in [format!("song.{wrong}"), "song".into(), "song.txt".into()] {
            let path = dir.path().join(name);
            std::fs::write(&path, bytes).expect("written");
            let read = read(&path, MAX_SECONDS, &NoWatch).expect("read");
            assert!(read == right, "{ending} as {}", path.display());
        }
    }
    // And what is no audio under the name of some.
    for (ending, _) in &all {
        for bytes in [
            &b"<!DOCTYPE html>"[..],
            b"%PDF-1.7",
            b"PK\x03\x04",
            b"\x89PNG\r\n",
        ] {
            let path = dir.path().join(format!("upload.{ending}"));
            std::fs::write(&path, bytes.repeat(99)).expect("written");
            let read = read(&path, MAX_SECONDS, &NoWatch);
            assert!(
                matches!(&read, Err(Error::Request(_))),
                "{ending}: {read:?}"
            );
        }
    }
}
