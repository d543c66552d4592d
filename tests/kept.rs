//! Songs of our own that are worked on again: the latents kept beside them take the place of an
//! encoding, as long as they belong to the very file.

use engine::Error;
use engine::audio::read::{MAX_SECONDS, read};
use engine::audio::{AudioFormat, CHANNELS, Pcm, write};
use engine::song::sidecar::{self, Kept};
use engine::song::task::SourceUse;
use engine::song::task::TASKS;
use engine::song::{
    Engine, NoWatch, OwnSong, Recording, Song, SongRequest, Stage, Task, Tracks, Watch,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tests::demo::{MODEL, RATE, engine};
use tests::requests::plain_sampling;

fn request(task: Task, source: Option<Recording>) -> SongRequest {
    let mut request = SongRequest {
        caption: "upbeat pop".into(),
        task,
        instruction: (task.row().instruction)(&Tracks::default()),
        source,
        duration_s: Some(6.0),
        ..SongRequest::new(MODEL, vec![5], plain_sampling(1))
    };
    request.repainting.start_s = 2.0;
    request.repainting.end_s = Some(4.0);
    request
}

/// Counts the tiles that the encoder worked on.
#[derive(Default)]
struct Encodings(AtomicUsize);

impl Watch for Encodings {
    fn progress(&self, stage: Stage, done: usize, _: usize) {
        if stage == Stage::Encode && done > 0 {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    fn cancelled(&self) -> bool {
        false
    }
}

/// Gives up a song once something is to be encoded for it, for that takes its time.
#[derive(Default)]
struct UntilEncoded(AtomicBool);

impl Watch for UntilEncoded {
    fn progress(&self, stage: Stage, _: usize, _: usize) {
        self.0.fetch_or(stage == Stage::Encode, Ordering::Relaxed);
    }
    fn cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Whether something is encoded for a song.
fn encodes(engine: &mut Engine, request: &SongRequest) -> bool {
    let watch = UntilEncoded::default();
    let made = engine.make(request, &watch).map(drop);
    assert_eq!(made == Err(Error::Cancelled), watch.cancelled());
    watch.cancelled()
}

/// Makes a song; also how often the encoder ran.
fn make(engine: &mut Engine, request: &SongRequest) -> (Song, usize) {
    let watch = Encodings::default();
    let song = engine.make(request, &watch).expect("a song");
    let encodings = watch.0.into_inner();
    assert_eq!(song.times.encode_s == 0.0, encodings == 0);
    (song, encodings)
}

/// A song of plain generation and its file.
fn first_song(engine: &mut Engine, dir: &Path) -> (Song, PathBuf) {
    let (song, _) = make(engine, &request(Task::Text2Music, None));
    let path = dir.join("song.wav");
    keep(&song, &path);
    (song, path)
}

fn keep(song: &Song, path: &Path) {
    let item = &song.items[0];
    let pcm = Pcm {
        samples: &item.pcm,
        rate: song.sample_rate,
    };
    write(path, pcm, AudioFormat::Wav, None).expect("written");
    sidecar::write(path, item, song.frames, &song.autoencoder).expect("kept");
}

fn file(path: &Path) -> Option<Recording> {
    Some(Recording::File(path.to_path_buf()))
}

#[test]
fn no_task_encodes_a_song_of_our_own() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut engine = engine(dir.path());
    let (song, path) = first_song(&mut engine, dir.path());
    let given = Recording::Own(Arc::new(OwnSong {
        samples: Arc::new(read(&path, MAX_SECONDS, &NoWatch).expect("read")),
        kept: Kept {
            latents: song.items[0].latents.clone(),
            seed: 5,
            gain: song.items[0].gain,
        },
    }));
    for row in TASKS.iter().filter(|row| row.source != SourceUse::Nothing) {
        let mut of_file = request(row.task, file(&path));
        of_file.seeds = vec![6];
        let mut of_latents = of_file.clone();
        of_latents.source = Some(given.clone());
        let (made, encodings) = make(&mut engine, &of_file);
        assert_eq!(encodings, 0, "{}", row.name);
        assert_eq!(made.composed.notes.len(), 1, "{:?}", made.composed.notes);
        assert_eq!(made.composed.request, of_file_without_length(&of_file));
        assert_eq!(
            made.items,
            make(&mut engine, &of_latents).0.items,
            "{}",
            row.name
        );
    }
    // The comparison can fail: what is encoded is not quite what was decoded.
    let second = &song.items[0].pcm[..RATE * CHANNELS];
    let encoded = engine.encode(second, &NoWatch).expect("encoded");
    assert_ne!(encoded, song.items[0].latents[..encoded.len()]);
    // Nor is it kept from other recordings. A reference is heard, and for that it is encoded.
    let mut part = request(Task::Repaint, file(&path));
    assert!(!encodes(&mut engine, &part));
    part.reference = part.source.clone();
    assert!(encodes(&mut engine, &part));
    part.reference = None;
    part.source = Some(Recording::Samples(Arc::new(song.items[0].pcm.clone())));
    assert!(encodes(&mut engine, &part));
    // Its codes are those of what was decoded.
    let codes = engine.codes_of_audio(MODEL, &path, &NoWatch);
    assert_eq!(codes.expect("codes").len(), 30);
}

/// The request as a song remembers it: the recording's length counts.
fn of_file_without_length(request: &SongRequest) -> SongRequest {
    SongRequest {
        duration_s: None,
        ..request.clone()
    }
}

#[test]
fn what_does_not_belong_to_the_file_is_ignored_and_noted() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut engine = engine(dir.path());
    let (song, path) = first_song(&mut engine, dir.path());
    let kept = sidecar::path_of(&path);
    let whole = std::fs::read(&kept).expect("kept");
    let part = request(Task::Repaint, file(&path));
    std::fs::write(&kept, &whole[..whole.len() - 1]).expect("written");
    assert!(encodes(&mut engine, &part), "damaged");
    sidecar::write(&path, &song.items[0], song.frames, "another").expect("kept");
    assert!(encodes(&mut engine, &part), "another autoencoder");
    sidecar::write(&path, &song.items[0], 2 * song.frames, &song.autoencoder).expect("kept");
    assert!(encodes(&mut engine, &part), "another width");
    // The same song, a little louder, under the same name.
    std::fs::write(&kept, &whole).expect("written");
    assert!(!encodes(&mut engine, &part));
    let mut louder = song.items[0].pcm.clone();
    louder.iter_mut().for_each(|x| *x *= 1.01);
    let (samples, rate) = (&louder, song.sample_rate);
    write(&path, Pcm { samples, rate }, AudioFormat::Wav, None).expect("written");
    let (made, encodings) = make(&mut engine, &part);
    assert!(encodings > 0);
    match &made.composed.notes[..] {
        [note] => assert!(note.contains("changed"), "{note}"),
        notes => panic!("{notes:?}"),
    }
    // Its seed is not known, so none is avoided.
    assert_eq!(made.items[0].seed, 5);
    std::fs::remove_file(&kept).expect("removed");
    assert!(encodes(&mut engine, &part));
}

#[test]
fn a_part_is_not_made_anew_from_the_same_noise() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut engine = engine(dir.path());
    let (_, path) = first_song(&mut engine, dir.path());
    let (song, _) = make(&mut engine, &request(Task::Repaint, file(&path)));
    assert_ne!(song.items[0].seed, 5);
    assert_eq!(song.composed.request.seeds, [song.items[0].seed]);
    assert_eq!(song.composed.notes.len(), 2, "{:?}", song.composed.notes);
    let (again, _) = make(&mut engine, &request(Task::Repaint, file(&path)));
    assert_eq!(song.items, again.items);
    // Other tasks keep it.
    let (cover, _) = make(&mut engine, &request(Task::Cover, file(&path)));
    assert_eq!(cover.items[0].seed, 5);
}

#[test]
fn songs_are_continued_without_encoding() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut engine = engine(dir.path());
    let (song, path) = first_song(&mut engine, dir.path());
    let mut longer = request(Task::Repaint, file(&path));
    let mut made = |start_s: f64, end_s: f64| {
        longer.repainting.start_s = start_s;
        longer.repainting.end_s = Some(end_s);
        make(&mut engine, &longer)
    };
    let kept = &song.items[0].latents;
    // The blend behind the part is 12 frames wide.
    let (before, encodings) = made(-1.0, 0.5);
    assert_eq!((before.frames, encodings), (175, 0));
    let from = (25 + 13 + 12) * 64;
    assert_eq!(before.items[0].latents[from..], kept[25 * 64..]);
    let (behind, encodings) = made(5.0, 8.0);
    assert_eq!((behind.frames, encodings), (200, 0));
    assert_eq!(behind.items[0].latents[..100 * 64], kept[..100 * 64]);
    // What is added in front is whole frames, so that the kept ones stay what they are.
    let (between, encodings) = made(-0.99, 0.5);
    assert_eq!((between.frames, encodings), (175, 0));
    assert_eq!(between.items[0].latents[from..], kept[25 * 64..]);
}

/// The level of a song is known beside its latents: what is made anew is as loud as the rest.
#[test]
fn a_part_made_anew_has_the_level_of_the_song() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut engine = engine(dir.path());
    let mut quiet = request(Task::Text2Music, None);
    quiet.output.normalize_db = Some(-30.0);
    let (song, _) = make(&mut engine, &quiet);
    let path = dir.path().join("quiet.wav");
    keep(&song, &path);
    let gain = song.items[0].gain;
    assert!(gain < 0.5, "{gain}");
    let mut part = request(Task::Repaint, file(&path));
    part.output.normalize_db = None;
    let (made, _) = make(&mut engine, &part);
    assert_eq!(made.items[0].gain, gain);
    let peak = |pcm: &[f32]| pcm.iter().fold(0.0, |peak: f32, x| peak.max(x.abs()));
    let inside = peak(&made.items[0].pcm[2 * 96_000..4 * 96_000]);
    let whole = peak(&song.items[0].pcm);
    assert!(
        inside < 3.0 * whole && inside > whole / 3.0,
        "{inside} beside {whole}"
    );
}
