//! Tasks on audio over the demonstration tree: what each takes from a recording, what of it stays.

use engine::audio::CHANNELS;
use engine::song::task::TASKS;
use engine::song::{
    ChunkMask, Engine, Freedom, NoWatch, Recording, Repainting, Retake, Song, SongRequest,
    StageTimes, Task,
};
use engine::{Error, Result};
use std::sync::Arc;
use tests::demo::{RATE, chord, engine, known, latents, request};

fn make(engine: &mut Engine, request: &SongRequest) -> Song {
    engine.make(request, &NoWatch).expect("a song")
}

/// What is encoded comes where the latents of a song of our own do: the other tests use those.
#[test]
fn recordings_are_worked_on_as_their_latents() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut engine = engine(dir.path());
    let source = chord(1.0);
    let mut encoded = request(Task::Repaint, Recording::Samples(source.clone()));
    encoded.repainting.start_s = 0.5;
    let song = make(&mut engine, &encoded);
    let Recording::Own(mut own) = known(&source) else {
        panic!("not our own");
    };
    let kept = &mut Arc::get_mut(&mut own).expect("one").kept;
    kept.latents = engine.encode(&source, &NoWatch).expect("encoded");
    let given = request(Task::Repaint, Recording::Own(own));
    let given = SongRequest {
        repainting: encoded.repainting,
        ..given
    };
    assert_eq!(song.items, make(&mut engine, &given).items);
    assert!(song.times.encode_s > 0.0);
}

#[test]
fn every_task_has_its_way_with_a_recording() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut engine = engine(dir.path());
    let source = known(&chord(6.0));
    let songs: Vec<Vec<f32>> = TASKS
        .iter()
        .map(|row| {
            let mut request = request(row.task, source.clone());
            request.duration_s = Some(6.0);
            request.repainting.start_s = 2.0;
            request.repainting.end_s = Some(4.0);
            let (latents, frames) = latents(&mut engine, &request);
            assert_eq!(frames, 150, "{}", row.name);
            latents
        })
        .collect();
    for (i, one) in songs.iter().enumerate() {
        for (j, other) in songs.iter().enumerate().skip(i + 1) {
            assert_ne!(one, other, "{} and {}", TASKS[i].name, TASKS[j].name);
        }
    }
}

#[test]
fn without_a_recording_tasks_that_need_one_fail_and_codes_take_its_place() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut engine = engine(dir.path());
    for row in &TASKS {
        let mut request = request(row.task, known(&chord(6.0)));
        request.source = None;
        request.duration_s = Some(6.0);
        match row.needs_source {
            true => {
                let made = engine.make(&request, &NoWatch);
                let wanted = format!("Task '{}' requires source audio", row.name);
                assert!(made.is_err_and(|e| e.to_string().contains(&wanted)));
            }
            false => assert_eq!(latents(&mut engine, &request).1, 150),
        }
        request.codes = vec![vec![7; 30]];
        assert_eq!(latents(&mut engine, &request).1, 150, "{}", row.name);
    }
}

#[test]
fn silent_recordings_are_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut engine = engine(dir.path());
    let silence = Recording::Samples(Arc::new(vec![0.0; 6 * RATE * CHANNELS]));
    let source = engine.make(&request(Task::Cover, silence.clone()), &NoWatch);
    let mut plain = request(Task::Text2Music, silence);
    plain.duration_s = Some(6.0);
    // Plain generation does not look at a source, but at a reference.
    latents(&mut engine, &plain);
    plain.reference = plain.source.clone();
    let reference = engine.make(&plain, &NoWatch);
    for refused in [source, reference] {
        let refused: Result<()> = refused.map(drop);
        match refused {
            Err(Error::Request(text)) => assert!(text.contains("silent"), "{text}"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn repainting_keeps_every_sample_outside_of_the_fade() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut engine = engine(dir.path());
    let source = chord(8.0);
    let mut part = request(Task::Repaint, known(&source));
    part.repainting = Repainting {
        start_s: 3.0,
        end_s: Some(5.0),
        ..Repainting::default()
    };
    let fade = (part.repainting.fade_s().expect("balanced") * RATE as f64) as usize;
    assert_eq!(fade, 1200);
    let pcm = make(&mut engine, &part).items.remove(0).pcm;
    assert_eq!(pcm.len(), source.len());
    let (start, end) = (3 * RATE - fade, 5 * RATE + fade);
    assert_eq!(pcm[..start * CHANNELS], source[..start * CHANNELS]);
    assert_eq!(pcm[end * CHANNELS..], source[end * CHANNELS..]);
    // The fade holds some of both, and the part nothing of the recording.
    for fade in [start..3 * RATE, 5 * RATE..end] {
        let fade = fade.start * CHANNELS..fade.end * CHANNELS;
        assert_ne!(pcm[fade.clone()], source[fade]);
    }
    let inside = 3 * RATE * CHANNELS..5 * RATE * CHANNELS;
    assert_ne!(pcm[inside.clone()], source[inside]);
    no_seam(
        &pcm,
        &source,
        [3 * RATE - fade, 3 * RATE, 5 * RATE, 5 * RATE + fade],
    );
    // Freely repainted, nothing is put back.
    part.repainting.freedom = Freedom::Aggressive;
    let free = make(&mut engine, &part).items.remove(0).pcm;
    assert_ne!(free[..RATE], source[..RATE]);
}

/// No step at a border is larger than the steps that the two sides make anyway.
fn no_seam(pcm: &[f32], source: &[f32], borders: [usize; 4]) {
    let step = |x: &[f32], at: usize| -> f32 {
        let frame = |i: usize| &x[i * CHANNELS..][..CHANNELS];
        let pairs = frame(at - 1).iter().zip(frame(at));
        pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
    };
    let largest = |x: &[f32], at: usize| {
        let around = at - 480..at + 480;
        around
            .filter(|i| *i != at)
            .map(|i| step(x, i))
            .fold(0.0, f32::max)
    };
    for at in borders {
        let usual = largest(pcm, at).max(largest(source, at));
        assert!(
            step(pcm, at) <= 1.5 * usual,
            "{at}: {} of {usual}",
            step(pcm, at)
        );
    }
}

#[test]
fn a_part_outside_of_the_recording_makes_it_longer() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut engine = engine(dir.path());
    // Encoded with what is added, which need not be whole frames.
    let source = chord(5.2);
    let mut outside = request(Task::Repaint, Recording::Samples(source.clone()));
    outside.repainting.start_s = -0.51;
    outside.repainting.end_s = Some(0.5);
    let song = make(&mut engine, &outside);
    assert_eq!(song.frames, 142);
    let (kept, added) = (2 * RATE * CHANNELS, RATE * 51 / 100 * CHANNELS);
    let whole = song.items[0].pcm.len();
    assert_eq!(
        song.items[0].pcm[kept..],
        source[kept - added..whole - added]
    );
    let source = chord(6.0);
    outside.source = Some(known(&source));
    outside.repainting.start_s = 5.0;
    outside.repainting.end_s = Some(8.0);
    let song = make(&mut engine, &outside);
    assert_eq!(song.frames, 200);
    assert_eq!(
        song.items[0].pcm[..4 * RATE * CHANNELS],
        source[..4 * RATE * CHANNELS]
    );
}

#[test]
fn every_parameter_has_an_effect() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut engine = engine(dir.path());
    let source = known(&chord(6.0));
    type Change = (&'static str, Task, fn(&mut SongRequest));
    let changes: [Change; 9] = [
        ("cover_strength", Task::Cover, |r| r.cover_strength = 0.5),
        ("cover_noise_strength", Task::Cover, |r| {
            r.cover_noise_strength = 0.4
        }),
        ("reference", Task::Cover, |r| {
            r.reference = Some(Recording::Samples(chord(1.0)));
        }),
        ("instruction", Task::Cover, |r| {
            r.instruction = "Do it:".into()
        }),
        ("retake", Task::Cover, |r| {
            let seeds = vec![9];
            r.retake = Some(Retake {
                seeds,
                variance: 0.3,
            });
        }),
        ("mask", Task::Repaint, |r| {
            r.repainting.mask = ChunkMask::Explicit
        }),
        ("freedom", Task::Repaint, |r| {
            r.repainting.freedom = Freedom::Conservative;
        }),
        ("crossfade", Task::Repaint, |r| {
            r.repainting.crossfade_frames = Some(2)
        }),
        ("part", Task::Lego, |r| r.repainting.end_s = Some(5.0)),
    ];
    for (name, task, change) in changes {
        let mut before = request(task, source.clone());
        before.repainting.start_s = 2.0;
        before.repainting.end_s = Some(4.0);
        let mut after = before.clone();
        change(&mut after);
        let [before, after] = [before, after].map(|r| latents(&mut engine, &r).0);
        assert_ne!(before, after, "{name}");
    }
    // The fade is heard, not seen in the latents.
    let mut faded = request(Task::Repaint, source);
    faded.repainting.start_s = 2.0;
    faded.repainting.end_s = Some(4.0);
    let before = make(&mut engine, &faded).items;
    faded.repainting.fade_s = Some(0.2);
    let after = make(&mut engine, &faded).items;
    assert_eq!(before[0].latents, after[0].latents);
    assert_ne!(before[0].pcm, after[0].pcm);
}

#[test]
fn models_of_stems_are_told_of_the_whole_song() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut engine = engine(dir.path());
    let mut stem = request(Task::Lego, known(&chord(1.0)));
    stem.global_caption = "a waltz".into();
    stem.codes = vec![vec![7; 30]];
    stem.cover_strength = 0.5;
    let caption = |engine: &mut Engine| {
        engine.load(&stem.model, &NoWatch).expect("it loads");
        let prepared = engine.prepare(&stem, &mut StageTimes::default(), &NoWatch);
        let prompt = prepared.expect("prepared").prompts[0].clone();
        let (_, caption) = prompt.split_once("# Caption\n").expect("a caption");
        caption.split_once("\n\n").expect("an end").0.to_owned()
    };
    assert_eq!(caption(&mut engine), "upbeat pop");
    let config = dir.path().join("demo/acestep-v15-turbo/config.json");
    let text = std::fs::read_to_string(&config).expect("read");
    let text = text.replacen('{', "{\"is_lego_sft\": true,", 1);
    std::fs::write(&config, text).expect("written");
    engine.unload("acestep-v15-turbo");
    assert_eq!(
        caption(&mut engine),
        "Global: a waltz\nLocal: upbeat pop\nMask Control: false"
    );
}

#[test]
fn a_song_of_a_batch_is_the_song_alone() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut engine = engine(dir.path());
    let mut both = request(Task::Repaint, known(&chord(6.0)));
    both.repainting.start_s = 2.0;
    both.seeds = vec![5, 6];
    let batch = make(&mut engine, &both).items;
    both.seeds = vec![6];
    assert_eq!(make(&mut engine, &both).items[0], batch[1]);
}
