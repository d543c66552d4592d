//! The task: its instruction, the recordings it works on, the part it makes anew.

use super::checks::{Checks, shorten};
use super::{Caller, ModelFacts};
use crate::fields::{RawRequest, Refusal};
use crate::seeds;
use engine::song::task::TRACK_NAMES;
use engine::song::{ChunkMask, Freedom, Recording, Repainting, Retake, SongRequest, Task, Tracks};
use engine::text::codes::CODES_PER_SECOND;
use engine::text::prompt;
use std::path::PathBuf;

/// Widest crossfade in frames, and longest fade in seconds.
const CROSSFADE: f64 = 250.0;
const FADE_S: f64 = 10.0;

/// Fills in what a request says of its task.
pub fn resolve(
    raw: &RawRequest,
    model: &ModelFacts,
    song: SongRequest,
    checks: &mut Checks,
    random: &mut dyn FnMut() -> u32,
) -> Result<SongRequest, Refusal> {
    let task: Task = raw.task_type().parse().map_err(Refusal)?;
    note_length(&song, checks);
    check_tracks(raw, task, checks)?;
    if model.is_turbo && !task.row().suits_turbo {
        let note = format!(
            "{task} was not trained into turbo models such as {}",
            model.name
        );
        tracing::warn!("{note}");
        checks.notes.push(note);
    }
    Ok(SongRequest {
        task,
        instruction: instruction(raw, task),
        source: recording(&raw.src_audio_path()),
        reference: recording(&raw.reference_audio_path()),
        repainting: repainting(raw, checks)?,
        cover_strength: checks.clamp("audio_cover_strength", raw.audio_cover_strength())?,
        cover_noise_strength: checks.clamp("cover_noise_strength", raw.cover_noise_strength())?,
        retake: retake(raw, song.seeds.len(), checks, random)?,
        ..song
    })
}

/// A length that is not that of the codes comes back as it was sent, but not as a surprise.
fn note_length(song: &SongRequest, checks: &mut Checks) {
    let codes = song.codes.iter().map(Vec::len).max().unwrap_or(0);
    let codes_s = codes as f64 / CODES_PER_SECOND as f64;
    if let Some(seconds) = song.duration_s.filter(|_| codes > 0)
        && (seconds - codes_s).abs() >= 1.0 / CODES_PER_SECOND as f64
    {
        checks.notes.push(format!(
            "audio_duration {seconds} was not followed: the audio codes are {codes_s} s of music"
        ));
    }
}

/// Tracks that no model was trained on. The command line refuses them; over HTTP they are asked for
/// all the same, as upstream does, and noted.
fn check_tracks(raw: &RawRequest, task: Task, checks: &mut Checks) -> Result<(), Refusal> {
    let tracks = tracks(raw);
    let named = match task {
        Task::Lego | Task::Extract => tracks.name.as_slice(),
        Task::Complete => &tracks.classes,
        _ => &[],
    };
    for name in named {
        if TRACK_NAMES.contains(&name.trim().to_lowercase().as_str()) {
            continue;
        }
        let (name, known) = (shorten(name), TRACK_NAMES.join(", "));
        if checks.caller == Caller::CommandLine {
            return Err(Refusal(format!(
                "--track {name}: there is no such track; one of {known}"
            )));
        }
        checks.notes.push(format!(
            "no model was trained on a track {name:?}, only on {known}"
        ));
    }
    Ok(())
}

/// The tracks that an instruction may name.
fn tracks(raw: &RawRequest) -> Tracks {
    let mut name = raw.track_name().map(|n| n.trim().to_owned());
    name = name.filter(|n| !n.is_empty());
    let classes = raw.track_classes().map(|c| c.0).unwrap_or_default();
    Tracks { name, classes }
}

/// The client's own instruction, else the task's. The default of plain generation is what clients
/// send without meaning it.
fn instruction(raw: &RawRequest, task: Task) -> String {
    let own = raw.instruction();
    match own.trim() {
        "" | prompt::TEXT2MUSIC => (task.row().instruction)(&tracks(raw)),
        text => text.to_owned(),
    }
}

fn recording(path: &str) -> Option<Recording> {
    match path.trim() {
        "" => None,
        path => Some(Recording::File(PathBuf::from(path))),
    }
}

/// The end of the part that is made anew, `None` for that of the recording. Clients of the HTTP API
/// send 0 when they mean nothing by it; on the command line it is where the recording begins.
fn end_of_part(raw: &RawRequest, checks: &mut Checks) -> Option<f64> {
    let end = raw.repainting_end?;
    if end > 0.0 || checks.caller == Caller::CommandLine {
        return Some(end);
    }
    if end == 0.0 && raw.repainting_start() < 0.0 {
        checks.notes.push(
            "repainting_end 0 was taken as the end of the audio; to make only what comes before \
             it, send a small number such as 0.01"
                .into(),
        );
    }
    None
}

fn repainting(raw: &RawRequest, checks: &mut Checks) -> Result<Repainting, Refusal> {
    let end_s = end_of_part(raw, checks);
    let crossfade = match raw.repaint_latent_crossfade_frames {
        Some(frames) => {
            let name = "repaint_latent_crossfade_frames";
            Some(checks.clamp_to(name, frames as f64, 0.0, CROSSFADE)? as usize)
        }
        None => None,
    };
    let fade_s = match raw.repaint_wav_crossfade_sec {
        Some(seconds) => {
            Some(checks.clamp_to("repaint_wav_crossfade_sec", seconds, 0.0, FADE_S)?)
        }
        None => None,
    };
    Ok(Repainting {
        start_s: checks.clamp_to("repainting_start", raw.repainting_start(), -600.0, 600.0)?,
        end_s: match end_s {
            Some(end) => Some(checks.clamp_to("repainting_end", end, 0.0, 1200.0)?),
            None => None,
        },
        mask: match raw.chunk_mask_mode().as_str() {
            "explicit" => ChunkMask::Explicit,
            _ => ChunkMask::Auto,
        },
        freedom: match raw.repaint_mode().as_str() {
            "conservative" => Freedom::Conservative,
            "aggressive" => Freedom::Aggressive,
            _ => Freedom::Balanced(raw.repaint_strength()),
        },
        crossfade_frames: crossfade,
        fade_s,
    })
}

/// A second noise, when the request wants some of it.
fn retake(
    raw: &RawRequest,
    songs: usize,
    checks: &mut Checks,
    random: &mut dyn FnMut() -> u32,
) -> Result<Option<Retake>, Refusal> {
    let variance = checks.clamp("retake_variance", raw.retake_variance())?;
    if variance <= 0.0 {
        return Ok(None);
    }
    Ok(Some(Retake {
        seeds: seeds::seeds(raw.retake_seed.as_ref(), false, songs, random),
        variance,
    }))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::tests::{cli, http};
    use super::*;
    use serde_json::{Value, json};

    fn song(body: Value) -> SongRequest {
        http(true, body).unwrap().song
    }

    #[test]
    fn instructions_by_task_and_track() {
        for (body, text) in [
            (json!({}), prompt::TEXT2MUSIC),
            (json!({"task_type": "cover-nofsq"}), prompt::COVER),
            (
                json!({"task_type": "lego", "track_name": "drums", "instruction": prompt::TEXT2MUSIC}),
                "Generate the DRUMS track based on the audio context:",
            ),
            (
                json!({"task_type": "complete", "instruments": ["bass", "fx"]}),
                "Complete the input track with BASS | FX:",
            ),
            (
                json!({"task_type": "repaint", "instruction": " mine "}),
                "mine",
            ),
        ] {
            assert_eq!(song(body.clone()).instruction, text, "{body}");
        }
    }

    #[test]
    fn the_whole_song_has_a_caption_of_its_own() {
        let made =
            song(json!({"task_type": "lego", "prompt": "brushes", "globalCaption": "a waltz"}));
        assert_eq!(
            (&*made.caption, &*made.global_caption),
            ("brushes", "a waltz")
        );
    }

    #[test]
    fn tasks_that_turbo_models_did_not_learn_are_noted() {
        let body = json!({"task_type": "extract", "src_audio_path": "a.wav"});
        assert_eq!(http(true, body.clone()).unwrap().notes.len(), 1);
        assert_eq!(http(false, body).unwrap().notes.len(), 0);
    }

    #[test]
    fn recordings_and_strengths() {
        let made = song(json!({
            "task_type": "cover", "ctx_audio_path": " a.wav ", "ref_audio_path": "b.mp3",
            "cover_strength": 0.25, "coverNoiseStrength": 7,
        }));
        let file = |name: &str| Some(Recording::File(name.into()));
        assert_eq!(
            (made.source, made.reference),
            (file("a.wav"), file("b.mp3"))
        );
        assert_eq!(
            (made.cover_strength, made.cover_noise_strength),
            (0.25, 1.0)
        );
        assert_eq!(song(json!({"src_audio_path": " "})).source, None);
    }

    #[test]
    fn the_part_that_is_made_anew() {
        let part = |body| song(body).repainting;
        assert_eq!(part(json!({})), Repainting::default());
        for end in [json!(null), json!(0), json!(-1), json!(-7)] {
            assert_eq!(part(json!({ "repainting_end": end })).end_s, None);
        }
        let made = part(json!({
            "repainting_start": -2, "repainting_end": 30.5, "chunk_mask_mode": "explicit",
            "repaint_mode": "conservative", "repaint_latent_crossfade_frames": 4,
            "repaint_wav_crossfade_sec": 0.1,
        }));
        assert_eq!((made.start_s, made.end_s), (-2.0, Some(30.5)));
        assert_eq!(
            (made.mask, made.freedom),
            (ChunkMask::Explicit, Freedom::Conservative)
        );
        assert_eq!((made.crossfade_frames(), made.fade_s()), (4, Some(0.1)));
        let free = part(json!({"repaint_mode": "aggressive"}));
        assert_eq!((free.crossfade_frames(), free.fade_s()), (0, None));
        let balanced = part(json!({"repaint_strength": 0.6}));
        assert_eq!(
            (balanced.crossfade_frames(), balanced.fade_s()),
            (10, Some(0.05 * 0.4))
        );
        assert!(cli(true, json!({"repainting_start": 9, "repainting_end": 9})).is_err());
    }

    #[test]
    fn a_part_before_the_recording_ends_where_it_begins() {
        let body = json!({"repainting_start": -5, "repainting_end": 0});
        let said = cli(true, body.clone()).unwrap();
        assert_eq!(said.song.repainting.end_s, Some(0.0));
        assert!(cli(true, json!({"repainting_start": -5, "repainting_end": -1})).is_err());
        // Clients send 0 for no end.
        let sent = http(true, body).unwrap();
        assert_eq!(sent.song.repainting.end_s, None);
        assert!(sent.notes[0].contains("0.01"), "{:?}", sent.notes);
        assert!(
            http(true, json!({"repainting_end": 0}))
                .unwrap()
                .notes
                .is_empty()
        );
    }

    #[test]
    fn tracks_of_no_model_are_noted_or_refused() {
        for (body, unknown) in [
            (json!({"task_type": "lego", "track_name": "kazoo"}), 1),
            (json!({"task_type": "extract", "track_name": " Drums "}), 0),
            (json!({"task_type": "extract", "track_name": " "}), 0),
            (
                json!({"task_type": "complete", "track_classes": ["Bass", "kazoo", "oboe"]}),
                2,
            ),
            // Only what the instruction names counts.
            (json!({"task_type": "complete", "track_name": "kazoo"}), 0),
            (json!({"task_type": "cover", "track_name": "kazoo"}), 0),
        ] {
            let notes = http(false, body.clone()).unwrap().notes;
            assert_eq!(notes.len(), unknown, "{body}");
            assert!(notes.iter().all(|note| note.contains("only on woodwinds")));
            let said = cli(false, body.clone());
            match unknown {
                0 => assert!(said.is_ok(), "{body}"),
                _ => assert!(said.is_err_and(|no| no.0.starts_with("--track kazoo: "))),
            }
        }
    }

    #[test]
    fn a_repainted_recording_keeps_its_level() {
        let level = |body| song(body).output.normalize_db;
        assert_eq!(level(json!({"task_type": "cover"})), Some(-1.0));
        assert_eq!(level(json!({"task_type": "repaint"})), None);
        let asked = json!({"task_type": "repaint", "enable_normalization": true});
        assert_eq!(level(asked), Some(-1.0));
    }

    #[test]
    fn a_length_beside_codes_is_noted() {
        let notes = |seconds: f64| {
            let body = json!({"audio_codes": vec!["1"; 51].join(","), "duration": seconds});
            http(true, body).unwrap().notes.len()
        };
        assert_eq!((notes(10.3), notes(30.0)), (0, 1));
    }

    #[test]
    fn a_second_noise() {
        assert_eq!(song(json!({"retake_seed": 5})).retake, None);
        let retake = song(json!({"retake_seed": 5, "retake_variance": 0.5, "batch_size": 2}));
        let seeds = vec![5, 7];
        assert_eq!(
            retake.retake,
            Some(Retake {
                seeds,
                variance: 0.5
            })
        );
    }
}
