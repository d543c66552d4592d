//! The finishing thread: encodes and writes files while the engine is on the next song.

use crate::app::{App, Ticket};
use crate::files::audio_url;
use crate::resolve::{Echo, Resolved};
use crate::seeds;
use engine::audio::{self, AudioFormat, Pcm, Tags};
use engine::song::{Composed, Description, Facts, Song, sidecar};
use engine::text::codes::CODES_PER_SECOND;
use engine::text::grammar::Event;
use engine::text::print_codes;
use engine::{Error, Result};
use serde::Serialize;
use serde_json::{Value, json};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Instant, SystemTime};
use uuid::Uuid;

/// A song that waits to be written.
pub struct Finished {
    /// The job.
    pub ticket: Ticket,
    /// What the engine made.
    pub made: Made,
    /// When the engine began.
    pub started: Instant,
}

/// What the engine made of a job.
pub enum Made {
    /// Music.
    Song(Box<Song>),
    /// Only what the language model says of it.
    Analysis(Box<Composed>),
    /// What a recording is.
    Understood(Box<Understood>),
}

/// A recording as audio codes and, where it was asked for, in words.
pub struct Understood {
    /// Five per second.
    pub codes: Vec<u32>,
    /// What the language model says of them.
    pub description: Option<Description>,
}

impl Made {
    fn notes(&self) -> &[String] {
        match self {
            Made::Song(song) => &song.composed.notes,
            Made::Analysis(composed) => &composed.notes,
            Made::Understood(_) => &[],
        }
    }

    fn events(&self) -> &[Event] {
        match self {
            Made::Song(song) => &song.composed.events,
            Made::Analysis(composed) => &composed.events,
            Made::Understood(understood) => {
                let description = understood.description.as_ref();
                description.map_or(&[], |d| &d.events)
            }
        }
    }
}

/// Writes songs until the engine thread ends.
pub fn run(app: Arc<App>, songs: Receiver<Finished>) {
    for finished in songs {
        let id = finished.ticket.id;
        app.jobs.update(id, &mut |job| {
            job.progress = 0.99;
            job.stage = "Preparing audio data...".into();
        });
        let written = catch_unwind(AssertUnwindSafe(|| write(&app.audio_dir, &finished)))
            .unwrap_or_else(|_| Err(Error::Bug("the audio could not be encoded".into())));
        app.averages.add(finished.started.elapsed().as_secs_f64());
        match written {
            Ok(files) => {
                let seconds = finished.started.elapsed().as_secs_f64();
                let create_time = app.jobs.get(id).map_or(0, |job| job.create_time());
                let mut result = result(&app, &finished, &files, create_time, seconds);
                let is_wanted = app.jobs.update(id, &mut |job| {
                    job.succeed(std::mem::take(&mut result), SystemTime::now());
                });
                if !is_wanted {
                    // It was cancelled meanwhile, and nobody hears of its files.
                    files.iter().for_each(|file| sidecar::remove_song(file));
                    continue;
                }
                for event in finished.made.events() {
                    tracing::info!("job {id}: grammar: {event}");
                }
                for note in finished.made.notes() {
                    tracing::info!("job {id}: {note}");
                }
                tracing::info!("job {id} succeeded in {seconds:.2} s");
            }
            Err(error) => app.fail(id, &error.to_string()),
        }
    }
}

fn write(dir: &Path, finished: &Finished) -> Result<Vec<PathBuf>> {
    match &finished.made {
        Made::Song(song) => write_all(dir, song, finished.ticket.resolved.format),
        Made::Analysis(_) | Made::Understood(_) => Ok(Vec::new()),
    }
}

/// Writes every item; on failure none is left.
fn write_all(dir: &Path, song: &Song, format: AudioFormat) -> Result<Vec<PathBuf>> {
    // The folder may have been removed since the start.
    std::fs::create_dir_all(dir)
        .map_err(|e| Error::Output(format!("cannot make the folder {} ({e})", dir.display())))?;
    let mut files = Vec::new();
    for item in &song.items {
        let path = dir.join(format!("{}.{}", Uuid::new_v4(), format.extension()));
        let pcm = Pcm {
            samples: &item.pcm,
            rate: song.sample_rate,
        };
        let request = &song.composed.request;
        let tags = Tags::new(&request.caption, &request.lyrics, item.seed, &request.model);
        if let Err(error) = audio::write(&path, pcm, format, Some(&tags)) {
            files
                .iter()
                .for_each(|file: &PathBuf| sidecar::remove_song(file));
            return Err(error);
        }
        // A song without its latents is still a song.
        if let Err(error) = sidecar::write(&path, item, song.frames, &song.autoencoder) {
            tracing::warn!("the latents of a song were not kept: {error}");
        }
        files.push(path);
    }
    Ok(files)
}

/// One item of a result, in the order of its keys on the wire.
#[derive(Serialize)]
struct Item<'a> {
    file: String,
    wave: &'a str,
    status: u8,
    create_time: u64,
    env: &'a str,
    prompt: &'a str,
    lyrics: &'a str,
    metas: Value,
    generation_info: &'a str,
    seed_value: &'a str,
    lm_model: &'a str,
    dit_model: &'a str,
    progress: f64,
    stage: &'a str,
    /// Only where it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    lrc: Option<&'a str>,
    /// Only where it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    audio_codes: Option<String>,
}

/// The result of a job as JSON text.
fn result(
    app: &App,
    finished: &Finished,
    files: &[PathBuf],
    create_time: u64,
    seconds: f64,
) -> String {
    let Resolved { echo, notes, .. } = &finished.ticket.resolved;
    let composed = match &finished.made {
        Made::Song(song) => &song.composed,
        Made::Analysis(composed) => composed,
        Made::Understood(understood) => {
            return json!([analysis(understood, create_time)]).to_string();
        }
    };
    let request = &composed.request;
    let seed_value = seeds::text(&request.seeds);
    let (urls, info, length_s, model): (Vec<String>, _, _, _) = match &finished.made {
        Made::Song(song) => (
            files.iter().map(|file| audio_url(file)).collect(),
            generation_info(song, seconds, notes),
            Some(song.frames as f64 / 25.0),
            request.model.as_str(),
        ),
        Made::Analysis(_) | Made::Understood(_) => (
            vec![String::new()],
            "Analysis Only Mode Complete".to_owned(),
            None,
            "None (Analysis Only)",
        ),
    };
    let metas = metas(echo, composed, length_s);
    let lm_model = app.lm_model();
    let lrc = |index: usize| match &finished.made {
        Made::Song(song) => song.items.get(index).and_then(|item| item.lrc.as_deref()),
        Made::Analysis(_) | Made::Understood(_) => None,
    };
    // One run of codes may stand for all songs.
    let codes = |index: usize| {
        let codes = request.codes.get(index).or(request.codes.first());
        codes
            .filter(|_| finished.ticket.resolved.wanted.codes)
            .map(|codes| print_codes(codes))
    };
    let items: Vec<Item> = urls
        .into_iter()
        .enumerate()
        .map(|(index, file)| Item {
            file,
            lrc: lrc(index),
            audio_codes: codes(index),
            wave: "",
            status: 1,
            create_time,
            env: "development",
            prompt: &request.caption,
            lyrics: &request.lyrics,
            metas: metas.clone(),
            generation_info: &info,
            seed_value: &seed_value,
            lm_model: &lm_model,
            dit_model: model,
            progress: 1.0,
            stage: "succeeded",
        })
        .collect();
    // Plain texts and finite numbers always serialise.
    serde_json::to_string(&items).unwrap_or_else(|_| "[]".into())
}

/// What a recording is, in the form that clients of the analyses read, with the keys of every
/// result.
fn analysis(understood: &Understood, create_time: u64) -> Value {
    let mut item = json!({
        "file": "",
        "wave": "",
        "status": 1,
        "create_time": create_time,
        "env": "development",
        "status_message": "Audio Codes Extraction Success",
        "audio_codes": print_codes(&understood.codes),
        "audio_paths": [],
        "raw_audio_paths": [],
        "first_audio_path": null,
        "metas": {},
        "progress": 1.0,
        "stage": "succeeded",
    });
    let Some(description) = &understood.description else {
        return item;
    };
    let Facts {
        metas,
        duration_s,
        language,
    } = &description.facts;
    let text = |text: &Option<String>| json!(text.as_deref().unwrap_or("N/A"));
    let length_s = understood.codes.len() as f64 / CODES_PER_SECOND as f64;
    let fields = [
        ("bpm", metas.bpm.map_or(json!("N/A"), |bpm| json!(bpm))),
        ("keyscale", text(&metas.key_scale)),
        ("timesignature", text(&metas.time_signature)),
        ("duration", json!(duration_s.unwrap_or(length_s))),
        ("genres", json!("N/A")),
        ("language", text(language)),
        (
            "caption",
            json!(description.caption.as_deref().unwrap_or_default()),
        ),
        (
            "lyrics",
            json!(description.lyrics.as_deref().unwrap_or_default()),
        ),
    ];
    item["status_message"] = json!("Full Hardware Analysis Success");
    for (name, value) in fields {
        let shown = match name {
            "genres" => "genre",
            "caption" => "prompt",
            other => other,
        };
        item["metas"][name] = value.clone();
        item[shown] = value;
    }
    item
}

/// The user's own values, else those of the language model; what is not known reads `N/A`.
/// `length_s` is how long the music is, if there is some.
fn metas(echo: &Echo, composed: &Composed, length_s: Option<f64>) -> Value {
    let Composed {
        request, planned, ..
    } = composed;
    let known = &request.metas;
    let text = |own: &str, known: &Option<String>| match (own.trim(), known) {
        ("", Some(known)) => known.clone(),
        ("", None) => "N/A".to_owned(),
        _ => own.to_owned(),
    };
    let duration = request.duration_s.or(length_s);
    let bpm = echo.bpm.or(known.bpm.map(i64::from));
    let mut metas = json!({
        "bpm": bpm.map_or(json!("N/A"), |bpm| json!(bpm)),
        "duration": duration.map_or(json!("N/A"), |s| json!(s)),
        "genres": "N/A",
        "keyscale": text(&echo.key_scale, &known.key_scale),
        "timesignature": text(&echo.time_signature, &known.time_signature),
        "prompt": echo.prompt,
        "lyrics": echo.lyrics,
    });
    if *planned {
        metas["caption"] = json!(request.caption);
        metas["language"] = json!(request.language);
    }
    metas
}

/// Where the time went and what was not taken as sent, as Markdown.
pub fn generation_info(made: &Song, seconds: f64, notes: &[String]) -> String {
    let (times, songs) = (&made.times, made.items.len());
    let plural = if songs == 1 { "" } else { "s" };
    let mut info = format!(
        "**Total: {seconds:.2}s for {songs} song{plural}**\n- {:.2}s per song\n",
        seconds / songs.max(1) as f64,
    );
    if made.composed.planned {
        // Codes that the user brought are not the model's.
        let written = made.composed.request.codes.iter().map(Vec::len).max();
        let codes = written.filter(|_| times.codes_s > 0.0);
        info.push_str(&format!(
            "- Language model: {:.2}s for texts and metadata, {:.2}s for codes ({} per song)\n",
            times.reason_s,
            times.codes_s,
            codes.unwrap_or(0)
        ));
    }
    if times.read_s + times.encode_s > 0.01 {
        info.push_str(&format!(
            "- Recordings: {:.2}s to read, {:.2}s to encode\n",
            times.read_s, times.encode_s
        ));
    }
    info.push_str(&format!(
        "- Text and conditions: {:.2}s\n- Diffusion: {:.2}s ({} evaluations)\n- Decoding: {:.2}s",
        times.text_s + times.condition_s,
        times.diffuse_s,
        times.evaluations,
        times.decode_s
    ));
    if times.align_s > 0.0 {
        info.push_str(&format!("\n- Timing of the lyrics: {:.2}s", times.align_s));
    }
    if !made.composed.events.is_empty() {
        info.push_str(&format!(
            "\n- Grammar: {} steps, in the server's log",
            made.composed.events.len()
        ));
    }
    for note in notes.iter().chain(&made.composed.notes) {
        info.push_str("\n- Note: ");
        info.push_str(note);
    }
    info
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::song::{Metas, SongRequest, StageTimes};

    fn made(planned: bool) -> Song {
        let request = SongRequest {
            caption: "a rewritten caption".into(),
            metas: Metas {
                bpm: Some(99),
                key_scale: Some("D minor".into()),
                time_signature: None,
            },
            codes: vec![vec![1; 50]],
            ..crate::resolve::example()
        };
        let mut composed = Composed::unplanned(&request);
        composed.planned = planned;
        composed.notes.push("the texts were not rewritten".into());
        Song {
            composed,
            items: Vec::new(),
            sample_rate: 48_000,
            frames: 250,
            autoencoder: String::new(),
            times: StageTimes::default(),
        }
    }

    #[test]
    fn notes_and_codes_reach_the_summary() {
        let notes = ["bpm \"9\" was taken as not given".to_owned()];
        let mut song = made(true);
        let brought = generation_info(&song, 3.0, &notes);
        assert!(brought.contains("(0 per song)"), "{brought}");
        song.times.codes_s = 1.5;
        let info = generation_info(&song, 3.0, &notes);
        assert!(info.starts_with("**Total: 3.00s for 0 songs**\n- 3.00s per song\n- Language"));
        assert!(info.contains("(50 per song)"), "{info}");
        assert!(info.ends_with(
            "\n- Note: bpm \"9\" was taken as not given\n- Note: the texts were not rewritten"
        ));
        assert!(!generation_info(&made(false), 3.0, &notes).contains("Language model"));
    }

    #[test]
    fn the_users_own_values_come_first() {
        let echo = Echo {
            bpm: Some(120),
            prompt: "my caption".into(),
            ..Echo::default()
        };
        let unheard = metas(&echo, &made(true).composed, None);
        assert_eq!(unheard["duration"], "N/A");
        let metas = metas(&echo, &made(true).composed, Some(10.0));
        assert_eq!(metas["bpm"], 120);
        assert_eq!(metas["keyscale"], "D minor");
        assert_eq!(metas["timesignature"], "N/A");
        assert_eq!(metas["duration"], 10.0);
        assert_eq!(
            (&metas["prompt"], &metas["caption"]),
            (&json!("my caption"), &json!("a rewritten caption"))
        );
    }
}
