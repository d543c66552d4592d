//! Songs as other people's programs see them: `ffprobe`, `ffmpeg`, `flac` and `opusinfo`.

use engine::audio::{AudioFormat, Mp3, Pcm, Tags, write};
use serde_json::Value;
use std::f32::consts::TAU;
use std::path::{Path, PathBuf};
use tests::external::{decoded, has_programs, run, text};

const RATE: u32 = 48_000;
const CHANNELS: usize = 2;

/// Rising tones whose place can be told to the sample, in a swelling chord.
fn music(frames: usize) -> Vec<f32> {
    let tone = |turns: f32| (TAU * turns.fract()).sin();
    (0..frames)
        .flat_map(|i| {
            let t = i as f32 / RATE as f32;
            // From 200 to 5000 Hz, every second anew.
            let s = t.fract();
            let rising = 0.3 * tone(200.0 * s + 2400.0 * s * s);
            let height = 0.15 + 0.1 * tone(t * 2.0);
            [
                rising + height * tone((t * 330.0).fract()),
                rising - height * tone((t * 247.0).fract()),
            ]
        })
        .collect()
}

fn about() -> Tags {
    let prompt = "Dröhnender Bass, \"helle\" Glocken = und; mehr";
    Tags::new(prompt, "[verse]\nHör zu\n", u64::MAX, "acestep-v15-turbo")
}

/// A format, what `ffprobe` calls its codec, samples of a frame, and the least ratio of signal to
/// noise in dB of a lossy one.
type Row = (AudioFormat, &'static str, usize, Option<f64>);

fn rows() -> Vec<Row> {
    let mp3 = |kbps, rate| AudioFormat::Mp3(Mp3::new(kbps, rate).expect("known"));
    vec![
        (AudioFormat::Wav, "pcm_s16le", 1024, None),
        (AudioFormat::Wav32, "pcm_f32le", 1024, None),
        (AudioFormat::Flac, "flac", 4096, None),
        (AudioFormat::Opus(128), "opus", 960, Some(30.0)),
        (AudioFormat::Opus(64), "opus", 960, Some(25.0)),
        (AudioFormat::Aac(192), "aac", 1024, Some(32.0)),
        (AudioFormat::Aac(96), "aac", 1024, Some(25.0)),
        (mp3("128k", 48_000), "mp3", 1152, Some(20.0)),
        (mp3("320k", 48_000), "mp3", 1152, Some(40.0)),
        (mp3("192k", 44_100), "mp3", 1152, Some(25.0)),
    ]
}

fn song(dir: &Path, format: AudioFormat, samples: &[f32]) -> PathBuf {
    let path = dir.join(format!("{}.{}", samples.len(), format.extension()));
    let pcm = Pcm {
        samples,
        rate: RATE,
    };
    write(&path, pcm, format, Some(&about())).expect("written");
    path
}

fn probed(path: &Path) -> Value {
    let args = [
        "-v",
        "warning",
        "-of",
        "json",
        "-show_format",
        "-show_streams",
        "-count_packets",
    ];
    let (out, said) = run("ffprobe", &[&args[..], &[text(path)]].concat());
    // It guesses the length of a stream that has none; ours is measured below.
    let guess = "Estimating duration from bitrate";
    let complaints = said.lines().filter(|l| !l.contains(guess));
    assert_eq!(complaints.collect::<Vec<_>>(), [""; 0], "{path:?}");
    serde_json::from_slice(&out).expect("JSON")
}

fn number(value: &Value) -> f64 {
    let text = value.as_str().expect("a text");
    text.parse().expect("a number")
}

/// Seconds of the file.
fn duration(probe: &Value, format: AudioFormat) -> f64 {
    let stream = &probe["streams"][0];
    match format {
        // What it says is guessed from the bit rate.
        AudioFormat::Aac(_) => {
            number(&stream["nb_read_packets"]) * 1024.0 / number(&stream["sample_rate"])
        }
        _ => number(&probe["format"]["duration"]),
    }
}

/// Samples per channel by which `heard` comes late, within 5 ms, by the largest sum of products.
fn late(wanted: &[f32], heard: &[f32]) -> i64 {
    const MOST: i64 = 240;
    let left = |x: &[f32], at: i64| x.get(at as usize * CHANNELS).copied().unwrap_or(0.0);
    let frames = (wanted.len() / CHANNELS) as i64;
    let likeness = |shift: i64| {
        let products = (MOST..frames - MOST).map(|i| left(wanted, i) * left(heard, i + shift));
        products.map(f64::from).sum::<f64>()
    };
    let shifts = -MOST..=MOST;
    let best = shifts.max_by(|a, b| likeness(*a).total_cmp(&likeness(*b)));
    best.expect("shifts")
}

/// Decibels between a song and what a coder changed of it, without the first 50 ms.
fn signal_to_noise(wanted: &[f32], heard: &[f32]) -> f64 {
    let pairs = wanted.iter().zip(heard).skip(RATE as usize / 20 * CHANNELS);
    let (mut signal, mut noise) = (0.0, 0.0);
    for (w, h) in pairs {
        signal += f64::from(*w).powi(2);
        noise += f64::from(w - h).powi(2);
    }
    10.0 * (signal / noise).log10()
}

#[test]
fn songs_of_awkward_lengths_have_their_length_place_and_sound() {
    if !has_programs(&["ffmpeg", "ffprobe"]) {
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    for (format, codec, frame, least) in rows() {
        let whole = 24_000_usize.next_multiple_of(frame);
        for frames in [whole - 1, whole + 1, 24_000, 480_336] {
            let samples = music(frames);
            let path = song(dir.path(), format, &samples);
            let name = format!("{format:?}, {frames}");
            let probe = probed(&path);
            let stream = &probe["streams"][0];
            let rate = number(&stream["sample_rate"]) as u32;
            let own = if codec == "mp3" { rate } else { RATE };
            assert_eq!(
                (
                    stream["codec_name"].as_str(),
                    rate,
                    stream["channels"].as_u64()
                ),
                (Some(codec), own, Some(2)),
                "{name}"
            );
            let seconds = frames as f64 / f64::from(RATE);
            let off = duration(&probe, format) - seconds;
            let most = match format {
                // What the encoder put in front and behind counts, and is cut by players.
                AudioFormat::Mp3(_) => (1105.0 + 2.0 * 1152.0) / f64::from(rate),
                _ => 0.02,
            };
            assert!(off.abs() < most, "{name}: off by {off} s");
            let heard = decoded(&path, RATE);
            if !matches!(format, AudioFormat::Aac(_)) {
                assert_eq!(heard.len(), samples.len(), "{name}");
            }
            match (format, least) {
                (AudioFormat::Wav32, _) => assert!(heard == samples, "{name}"),
                (_, None) => {
                    let bits = |x: &f32| (x * 32_768.0).round().min(32_767.0) / 32_768.0;
                    assert!(
                        heard == samples.iter().map(bits).collect::<Vec<_>>(),
                        "{name}"
                    );
                }
                (_, Some(least)) => {
                    let ratio = signal_to_noise(&samples, &heard);
                    assert!(ratio >= least, "{name}: {ratio} dB");
                    if frames < 50_000 {
                        assert_eq!(late(&samples, &heard), 0, "{name}");
                    }
                }
            }
        }
    }
}

#[test]
fn flac_and_opus_are_well_formed() {
    if !has_programs(&["flac", "opusinfo"]) {
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    for frames in [1, 15, 4095, 4097, 47_999, 48_001, 480_336] {
        let samples = music(frames);
        let flac = song(dir.path(), AudioFormat::Flac, &samples);
        let (_, said) = run(
            "flac",
            &["--test", "--silent", "--warnings-as-errors", text(&flac)],
        );
        assert_eq!(said, "", "{frames}");
        let opus = song(dir.path(), AudioFormat::Opus(128), &samples);
        let (out, said) = run("opusinfo", &[text(&opus)]);
        let out = String::from_utf8_lossy(&out);
        assert_eq!(said, "", "{frames}");
        assert!(!out.contains("WARNING") && !out.contains("ERROR"), "{out}");
        let length = out.split("Playback length: 0m:").nth(1);
        let length = length.and_then(|rest| rest.split('s').next()?.parse::<f64>().ok());
        let off = length.expect("a length") - frames as f64 / f64::from(RATE);
        // It cuts what is less than a millisecond.
        assert!(off.abs() < 2e-3, "{off} in {out}");
    }
}

#[test]
fn tags_are_read_in_every_format() {
    if !has_programs(&["ffprobe"]) {
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    for (format, codec, ..) in rows() {
        let path = song(dir.path(), format, &music(48_000));
        let probe = probed(&path);
        // Those of Ogg belong to the stream.
        let (of_file, of_stream) = (&probe["format"]["tags"], &probe["streams"][0]["tags"]);
        let tag = |name: &str| {
            let within = |tags: &Value| {
                let tags = tags.as_object()?.iter();
                let mut named = tags.filter(|(key, _)| {
                    let key = key.to_lowercase();
                    key == name || key.starts_with(&format!("{name}-"))
                });
                Some(named.next()?.1.as_str()?.to_owned())
            };
            within(of_file).or(within(of_stream)).unwrap_or_default()
        };
        let want = about();
        assert_eq!(tag("title"), want.title, "{codec}: {probe}");
        if codec.starts_with("pcm") {
            let comment = format!("{}\nseed={}\nmodel={}", want.prompt, want.seed, want.model);
            assert_eq!(tag("comment"), comment, "{codec}");
            continue;
        }
        assert_eq!(tag("comment"), want.prompt, "{codec}: {probe}");
        assert_eq!(tag("lyrics").trim(), want.lyrics.trim(), "{codec}: {probe}");
        assert_eq!(tag("seed"), want.seed.to_string(), "{codec}");
        assert_eq!(tag("model"), want.model, "{codec}");
    }
}
