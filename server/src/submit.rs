//! From what a client said to a job in the queue; and, after a restart, from what was kept of it.

use crate::app::{App, Ticket};
use crate::catalog;
use crate::coerce::Seed;
use crate::fields::RawRequest;
use crate::files;
use crate::jobs::{Job, Kept, State};
use crate::multipart::Upload;
use crate::queue;
use crate::raw::Sources;
use crate::reply::{Refused, bad_request, fault};
use crate::resolve::{Caller, Resolved, Work, resolve};
use crate::seeds;
use crate::store::Unfinished;
use engine::Error;
use engine::song::source::check_recording;
use engine::song::task::SourceUse;
use engine::song::{Recording, Stage, Watch};
use hyper::StatusCode;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use tempfile::TempPath;
use uuid::Uuid;

/// How often a job may begin to run: the second time after the process before was cut off.
const TRIES: u32 = 2;

/// What only some clients want to hear of a song.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The audio codes that it was made from.
    pub codes: bool,
}

/// Puts a job at the end of the queue: its identifier, and its position. An upload takes the
/// place of the path, which is then not even checked. Until this returns well, nothing is left
/// of the request.
pub fn submit(
    app: &App,
    mut raw: RawRequest,
    reference: Option<Upload>,
    source: Option<Upload>,
    wanted: Wanted,
) -> Result<(Uuid, usize), Refused> {
    let cwd = working_directory().map_err(bad_request)?;
    for (path, upload) in [
        (&mut raw.reference_audio_path, &reference),
        (&mut raw.src_audio_path, &source),
    ] {
        let file = match upload {
            Some(upload) => Some(upload.path.to_path_buf()),
            None => {
                let said = path.clone().unwrap_or_default();
                files::source_file(&said, &app.source_roots, &cwd).map_err(bad_request)?
            }
        };
        *path = file.map(|file| file.to_string_lossy().into_owned());
    }
    let mut resolved = decide(app, &raw).map_err(bad_request)?;
    look_at(app, &resolved).map_err(bad_request)?;
    resolved.wanted = wanted;
    let uploads: Vec<Upload> = reference.into_iter().chain(source).collect();
    let kept = keep(raw, &resolved, &uploads);
    enqueue(app, resolved, uploads, kept)
}

fn working_directory() -> Result<PathBuf, String> {
    std::env::current_dir()
        .and_then(|dir| dir.canonicalize())
        .map_err(|e| format!("the server's working directory cannot be read: {e}"))
}

/// What the job can be made from again: the seeds are those that were drawn, the key is left out.
fn keep(mut raw: RawRequest, resolved: &Resolved, uploads: &[Upload]) -> Kept {
    raw.ai_token = None;
    raw.use_random_seed = Some(false);
    raw.seed = Some(Seed::List(seeds::text(&resolved.song.seeds)));
    if let Some(retake) = &resolved.song.retake {
        raw.retake_seed = Some(Seed::List(seeds::text(&retake.seeds)));
    }
    Kept {
        request: Value::Object(raw.to_fields()).to_string(),
        uploads: uploads.iter().map(|u| u.path.to_path_buf()).collect(),
    }
}

/// Decodes what the job will work on, so that a client hears at once of a file that is no good.
/// A file that is not there is the job's to report: it may come yet.
fn look_at(app: &App, resolved: &Resolved) -> Result<(), String> {
    let song = &resolved.song;
    let is_analysis = matches!(resolved.work, Work::Codes | Work::Understanding);
    let uses_source = is_analysis || song.task.row().source != SourceUse::Nothing;
    let uses_source = uses_source && song.codes.is_empty();
    let source = song.source.as_ref().filter(|_| uses_source);
    let named = [
        ("source audio", source),
        ("reference audio", song.reference.as_ref()),
    ];
    for (name, recording) in named {
        let Some(Recording::File(path)) = recording else {
            continue;
        };
        if !path.exists() {
            continue;
        }
        // A lock that somebody panicked with holds nothing.
        let _turn = app
            .decoding
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let checked = check_recording(path, &UntilStop(app));
        // Where uploads lie is nobody's business.
        let shown = |e: Error| e.to_string().replace(&path.display().to_string(), name);
        checked.map_err(|e| format!("Invalid audio file: {}", shown(e)))?;
    }
    Ok(())
}

/// Reading stops when the server does.
struct UntilStop<'a>(&'a App);

impl Watch for UntilStop<'_> {
    fn progress(&self, _: Stage, _: usize, _: usize) {}

    fn cancelled(&self) -> bool {
        self.0.is_stopping()
    }
}

/// Chooses the model and resolves every value.
fn decide(app: &App, raw: &RawRequest) -> Result<Resolved, String> {
    let name = catalog::choose(&app.slots(), raw.model.as_deref());
    let facts = catalog::facts(&app.config.checkpoints, &name);
    // The low half of a version 4 identifier holds 32 random bits and more.
    let mut random = || Uuid::new_v4().as_fields().0;
    let mut resolved =
        resolve(raw, &facts, Caller::Http, &mut random).map_err(|refusal| refusal.0)?;
    let asked = raw.model.as_deref().unwrap_or_default().trim();
    let asked = asked.strip_prefix("acestep/").unwrap_or(asked);
    if !asked.is_empty() && asked != name {
        let note = format!("model {asked:?} is not loaded: {name} was used");
        resolved.notes.push(note);
    }
    Ok(resolved)
}

/// Puts the job at the end of the queue; its record appears with it, and outlasts the process
/// before the client hears of it.
fn enqueue(
    app: &App,
    resolved: Resolved,
    uploads: Vec<Upload>,
    kept: Kept,
) -> Result<(Uuid, usize), Refused> {
    let id = Uuid::new_v4();
    for note in &resolved.notes {
        tracing::debug!("job {id}: {note}");
    }
    let record = || app.jobs.insert(Job::queued(id, SystemTime::now()), kept);
    let ticket = Ticket {
        id,
        resolved,
        uploads,
    };
    let position = app.queue.push(ticket, record).map_err(|refused| {
        let (status, why) = match refused {
            queue::Refused::Full => (StatusCode::TOO_MANY_REQUESTS, "Server busy: queue is full"),
            queue::Refused::Closed => (
                StatusCode::SERVICE_UNAVAILABLE,
                "the server is about to end",
            ),
        };
        fault(status, why)
    })?;
    app.jobs.flush();
    Ok((id, position))
}

/// Queues again what the process before did not end, and removes uploads that no job needs.
pub fn restore(app: &App, unfinished: Vec<Unfinished>) {
    let needed: Vec<&PathBuf> = unfinished.iter().flat_map(|u| &u.kept.uploads).collect();
    remove_others(&app.upload_dir, &needed);
    for Unfinished { job, kept } in unfinished {
        if job.state == State::Running && job.tries >= TRIES {
            let why = "the server was cut off twice while it worked on this job";
            app.fail(job.id, why);
            kept.uploads.iter().for_each(|path| remove(path));
            continue;
        }
        app.jobs.update(job.id, &mut Job::wait_again);
        match remake(app, job.id, &kept) {
            Ok(ticket) => {
                tracing::info!("job {} is queued again", job.id);
                // The server has only begun: it is not about to end.
                let _ = app.queue.put_back(ticket);
            }
            Err(why) => {
                app.fail(job.id, &format!("the job was not queued again: {why}"));
                kept.uploads.iter().for_each(|path| remove(path));
            }
        }
    }
}

fn remake(app: &App, id: Uuid, kept: &Kept) -> Result<Ticket, String> {
    let fields = serde_json::from_str(&kept.request)
        .map_err(|e| format!("what was kept of it cannot be read ({e})"))?;
    let raw = RawRequest::read(&Sources::new(fields)).map_err(|refusal| refusal.0)?;
    let resolved = decide(app, &raw)?;
    let upload = |path: &PathBuf| {
        let path = TempPath::try_from_path(path).map_err(|e| e.to_string())?;
        Ok(Upload {
            name: String::new(),
            path,
        })
    };
    Ok(Ticket {
        id,
        resolved,
        uploads: kept
            .uploads
            .iter()
            .map(upload)
            .collect::<Result<_, String>>()?,
    })
}

/// Removes files of requests that never became jobs.
fn remove_others(dir: &Path, needed: &[&PathBuf]) {
    let Ok(files) = std::fs::read_dir(dir) else {
        return;
    };
    for path in files.flatten().map(|file| file.path()) {
        if !needed.contains(&&path) {
            remove(&path);
        }
    }
}

fn remove(path: &Path) {
    if let Err(error) = std::fs::remove_file(path) {
        tracing::warn!("{} was not removed: {error}", path.display());
    }
}
