//! The finishing thread: encodes and writes files while the engine is on the next song.

use crate::app::{App, Ticket};
use crate::resolve::{Echo, Resolved};
use crate::seeds;
use engine::audio::{self, Pcm};
use engine::song::{Song, StageTimes};
use engine::{Error, Result};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
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
    pub song: Song,
    /// When the engine began.
    pub started: Instant,
}

/// Writes songs until the engine thread ends.
pub fn run(app: Arc<App>, songs: Receiver<Finished>) {
    for finished in songs {
        let id = finished.ticket.id;
        app.jobs.update(id, &mut |job| {
            job.progress = 0.99;
            job.stage = "Preparing audio data...".into();
        });
        let written = catch_unwind(AssertUnwindSafe(|| write_all(&app.audio_dir, &finished)))
            .unwrap_or_else(|_| Err(Error::Bug("the audio could not be encoded".into())));
        app.averages.add(finished.started.elapsed().as_secs_f64());
        match written {
            Ok(files) => {
                let seconds = finished.started.elapsed().as_secs_f64();
                let create_time = app.jobs.get(id).map_or(0, |job| job.create_time());
                let mut result = result(&app, &finished, &files, create_time, seconds);
                app.jobs.update(id, &mut |job| {
                    job.succeed(std::mem::take(&mut result), SystemTime::now());
                });
                tracing::info!("job {id} succeeded in {seconds:.2} s");
            }
            Err(error) => app.fail(id, &error.to_string()),
        }
    }
}

/// Writes every item; on failure none is left.
fn write_all(dir: &Path, finished: &Finished) -> Result<Vec<PathBuf>> {
    // The folder may have been removed since the start.
    std::fs::create_dir_all(dir)
        .map_err(|e| Error::Output(format!("cannot make the folder {} ({e})", dir.display())))?;
    let format = finished.ticket.resolved.format;
    let mut files = Vec::new();
    for item in &finished.song.items {
        let path = dir.join(format!("{}.{}", Uuid::new_v4(), format.extension()));
        let pcm = Pcm {
            samples: &item.pcm,
            rate: finished.song.sample_rate,
        };
        if let Err(error) = audio::write(&path, pcm, format) {
            files
                .iter()
                .for_each(|file| drop(std::fs::remove_file(file)));
            return Err(error);
        }
        files.push(path);
    }
    Ok(files)
}

/// Everything but letters, digits and `_.-~` is encoded, slashes too.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'_')
    .remove(b'.')
    .remove(b'-')
    .remove(b'~');

/// Where a client gets a file.
pub fn audio_url(path: &Path) -> String {
    let text = path.to_string_lossy();
    format!("/v1/audio?path={}", utf8_percent_encode(&text, ENCODED))
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
}

/// The result of a job as JSON text.
fn result(
    app: &App,
    finished: &Finished,
    files: &[PathBuf],
    create_time: u64,
    seconds: f64,
) -> String {
    let Resolved {
        song: request,
        echo,
        notes,
        ..
    } = &finished.ticket.resolved;
    let made = &finished.song;
    let seeds: Vec<u64> = made.items.iter().map(|item| item.seed).collect();
    let seed_value = seeds::text(&seeds);
    let info = generation_info(&made.times, made.items.len(), seconds, notes);
    let duration = request.duration_s.unwrap_or(made.frames as f64 / 25.0);
    let items: Vec<Item> = files
        .iter()
        .map(|file| Item {
            file: audio_url(file),
            wave: "",
            status: 1,
            create_time,
            env: "development",
            prompt: &request.caption,
            lyrics: &request.lyrics,
            metas: metas(echo, duration),
            generation_info: &info,
            seed_value: &seed_value,
            lm_model: &app.config.lm_model,
            dit_model: &request.model,
            progress: 1.0,
            stage: "succeeded",
        })
        .collect();
    // Plain texts and finite numbers always serialise.
    serde_json::to_string(&items).unwrap_or_else(|_| "[]".into())
}

/// The user's own values; what is not known reads `N/A`.
fn metas(echo: &Echo, duration: f64) -> Value {
    let text = |s: &str| {
        if s.trim().is_empty() {
            "N/A".to_owned()
        } else {
            s.to_owned()
        }
    };
    json!({
        "bpm": echo.bpm.map_or(json!("N/A"), |bpm| json!(bpm)),
        "duration": duration,
        "genres": "N/A",
        "keyscale": text(&echo.key_scale),
        "timesignature": text(&echo.time_signature),
        "prompt": echo.prompt,
        "lyrics": echo.lyrics,
    })
}

/// Where the time went and what was not taken as sent, as Markdown.
pub fn generation_info(times: &StageTimes, songs: usize, seconds: f64, notes: &[String]) -> String {
    let plural = if songs == 1 { "" } else { "s" };
    let mut info = format!(
        "**Total: {seconds:.2}s for {songs} song{plural}**\n\
         - {:.2}s per song\n\
         - Text and conditions: {:.2}s\n\
         - Diffusion: {:.2}s ({} evaluations)\n\
         - Decoding: {:.2}s",
        seconds / songs.max(1) as f64,
        times.text_s + times.condition_s,
        times.diffuse_s,
        times.evaluations,
        times.decode_s
    );
    for note in notes {
        info.push_str("\n- Note: ");
        info.push_str(note);
    }
    info
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_encode_all_but_the_plain_characters() {
        let url = audio_url(Path::new("/tmp/a b/é~x_1-2.mp3"));
        assert_eq!(url, "/v1/audio?path=%2Ftmp%2Fa%20b%2F%C3%A9~x_1-2.mp3");
    }

    #[test]
    fn notes_reach_the_summary() {
        let notes = ["bpm \"9\" was taken as not given".to_owned()];
        let info = generation_info(&StageTimes::default(), 2, 3.0, &notes);
        assert!(info.starts_with("**Total: 3.00s for 2 songs**\n- 1.50s per song"));
        assert!(info.ends_with("\n- Note: bpm \"9\" was taken as not given"));
    }

    #[test]
    fn unknown_values_read_not_available() {
        let echo = Echo {
            bpm: Some(120),
            time_signature: "4/4".into(),
            ..Echo::default()
        };
        let metas = metas(&echo, 12.5);
        assert_eq!(metas["bpm"], 120);
        assert_eq!(metas["duration"], 12.5);
        assert_eq!(metas["timesignature"], "4/4");
        assert_eq!(metas["keyscale"], "N/A");
    }
}
