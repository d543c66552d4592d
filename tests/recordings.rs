//! Real recordings, a game's music and a desktop's sounds, in every container through the tasks
//! that work on recordings, on the demonstration tree.

use engine::audio::CHANNELS;
use engine::audio::read::{MAX_SECONDS, read};
use engine::song::engine::MIN_FRAMES;
use engine::song::{
    DescribeRequest, Engine, Facts, NoWatch, Recording, Repainting, SongRequest, Subject, Task,
};
use std::path::{Path, PathBuf};
use tests::demo::{MODEL, RATE, engine};
use tests::external::{Recorded, decoded, has_programs, run, text};

/// A container's ending, how `ffmpeg` is told to write it, and the least likeness to the original.
const CONTAINERS: [(&str, &[&str], f64); 11] = [
    ("16.wav", &["-c:a", "pcm_s16le"], 0.9999),
    ("24.wav", &["-c:a", "pcm_s24le"], 0.9999),
    ("32.wav", &["-c:a", "pcm_f32le"], 0.9999),
    ("flac", &["-c:a", "flac"], 0.9999),
    ("aiff", &["-c:a", "pcm_s16be"], 0.9999),
    ("mp3", &["-c:a", "libmp3lame", "-b:a", "192k"], 0.99),
    ("ogg", &["-c:a", "libvorbis", "-q:a", "6"], 0.99),
    ("opus", &["-c:a", "libopus", "-b:a", "128k"], 0.99),
    ("m4a", &["-c:a", "aac", "-b:a", "192k"], 0.99),
    ("alac.m4a", &["-c:a", "alac"], 0.9999),
    // A bare stream: what the encoder put in front is heard, and moves the music.
    ("aac", &["-c:a", "aac", "-b:a", "192k"], -1.0),
];

/// A recording, or `None` where something for it is not installed.
fn recorded(which: Recorded) -> Option<PathBuf> {
    match has_programs(&["ffmpeg"]) {
        true => which.file(),
        false => None,
    }
}

/// `seconds` of a recording in a container, stereo.
fn piece(dir: &Path, source: &Path, seconds: &str, ending: &str, how: &[&str]) -> PathBuf {
    // By way of plain samples, for cut packets would bring their old times along.
    let cut = dir.join("cut.wav");
    let range = ["-v", "error", "-y", "-ss", "0.5", "-t", seconds];
    let rest = ["-i", text(source), "-ac", "2", text(&cut)];
    run("ffmpeg", &[range.as_slice(), &rest].concat());
    let file = dir.join(format!("piece.{ending}"));
    let from = ["-v", "error", "-y", "-i", text(&cut)];
    run("ffmpeg", &[&from, how, &[text(&file)]].concat());
    file
}

fn request(task: Task, file: &Path) -> SongRequest {
    tests::demo::request(task, Recording::File(file.to_path_buf()))
}

/// Cosine of the angle between two recordings, over their common length.
fn likeness(a: &[f32], b: &[f32]) -> f64 {
    let product = |a: &[f32], b: &[f32]| -> f64 {
        let pairs = a.iter().zip(b);
        pairs.map(|(x, y)| f64::from(*x) * f64::from(*y)).sum()
    };
    let most = a.len().min(b.len());
    let (a, b) = (&a[..most], &b[..most]);
    product(a, b) / (product(a, a) * product(b, b)).sqrt()
}

#[test]
fn every_container_is_read_as_another_program_reads_it() {
    let dir = tempfile::tempdir().expect("a folder");
    for (which, seconds) in [(Recorded::Music, "8"), (Recorded::Sound, "0.9")] {
        let Some(source) = recorded(which) else {
            return;
        };
        let own = read(&source, MAX_SECONDS, &NoWatch).expect("the package's own file");
        let theirs = decoded(&source, RATE as u32);
        let off = own.len().abs_diff(theirs.len()) / CHANNELS;
        assert!(off <= 64, "{which:?}: {off} samples");
        assert!(likeness(&own, &theirs) > 0.99, "{which:?}");
        let mut original = Vec::new();
        for (ending, how, least) in CONTAINERS {
            let file = piece(dir.path(), &source, seconds, ending, how);
            let pcm = read(&file, MAX_SECONDS, &NoWatch).unwrap_or_else(|e| panic!("{e}"));
            if original.is_empty() {
                original.clone_from(&pcm);
            }
            let off = (pcm.len() as f64 - original.len() as f64) / CHANNELS as f64;
            let most = match ending {
                // A bare stream keeps what the encoder added.
                "aac" => 3072.0,
                _ => 1.0,
            };
            assert!(off.abs() <= most, "{ending}: {off} samples");
            let alike = likeness(&pcm, &original);
            assert!(alike >= least, "{ending}: {alike}");
            // Another program hears the same in it, if not always to the sample at the end.
            let theirs = decoded(&file, RATE as u32);
            let off = pcm.len().abs_diff(theirs.len()) / CHANNELS;
            assert!(off <= 1024, "{ending}: {off} samples");
            let alike = likeness(&pcm, &theirs);
            assert!(alike > 0.999, "{ending}: {alike} like what ffmpeg hears");
        }
    }
}

#[test]
fn every_container_goes_through_the_tasks() {
    let Some(source) = recorded(Recorded::Music) else {
        return;
    };
    let dir = tempfile::tempdir().expect("a folder");
    let mut engine = engine(dir.path());
    for (ending, how, _) in CONTAINERS {
        // One is long enough that its length is the song's; the others are so short, for the sake
        // of time, that the shortest song there is comes of them.
        let seconds = if ending == "m4a" { "5.3" } else { "0.8" };
        let file = piece(dir.path(), &source, seconds, ending, how);
        let pcm = read(&file, MAX_SECONDS, &NoWatch).expect("read");
        let frames = pcm.len() / CHANNELS / 1920;
        let make = |engine: &mut Engine, request: &SongRequest| {
            let song = engine.make(request, &NoWatch);
            let song = song.unwrap_or_else(|e| panic!("{ending}: {e}"));
            assert_eq!(song.frames, frames.max(MIN_FRAMES), "{ending}");
            song.items.into_iter().next().expect("a song").pcm
        };
        make(&mut engine, &request(Task::Cover, &file));
        let mut part = request(Task::Repaint, &file);
        part.repainting = Repainting {
            start_s: 0.3,
            end_s: Some(0.5),
            ..Repainting::default()
        };
        let fade = (part.repainting.fade_s().expect("balanced") * RATE as f64) as usize;
        let song = make(&mut engine, &part);
        let start = (RATE * 3 / 10 - fade) * CHANNELS;
        let end = (RATE / 2 + fade) * CHANNELS;
        let common = song.len().min(pcm.len());
        assert!(song[..start] == pcm[..start], "{ending}: before");
        assert!(song[end..common] == pcm[end..common], "{ending}: behind");
        assert!(song[start..end] != pcm[start..end], "{ending}: within");

        let codes = engine.codes_of_audio(MODEL, &file, &NoWatch);
        let codes = codes.unwrap_or_else(|e| panic!("{ending}: {e}"));
        assert_eq!(codes.len(), frames.div_ceil(5), "{ending}");
    }
}

#[test]
fn a_recording_is_described() {
    let Some(source) = recorded(Recorded::Sound) else {
        return;
    };
    let dir = tempfile::tempdir().expect("a folder");
    let mut engine = engine(dir.path());
    let codes = engine.codes_of_audio(MODEL, &source, &NoWatch);
    let codes = codes.expect("codes of the package's own file");
    assert_eq!(codes.len(), 8);
    engine.load_lm(None, &NoWatch).expect("loaded");
    let described = engine.describe(
        &DescribeRequest {
            subject: Subject::Codes(codes),
            known: Facts::default(),
            sampling: Default::default(),
            seed: 3,
            constrained: true,
            debug: false,
        },
        &NoWatch,
    );
    let facts = described.expect("words").facts;
    assert!(facts.metas.bpm.is_some_and(|bpm| (30..=300).contains(&bpm)));
    assert!(facts.duration_s.is_some() && facts.metas.key_scale.is_some());
}
