//! `POST /release_task`: reads a request, decides what it means, queues it.

use super::asked::token_text;
use super::{authorization, unanswered};
use crate::app::{App, Ticket};
use crate::auth;
use crate::body::{self, Fields, Payload, Repeated};
use crate::budget::Held;
use crate::catalog;
use crate::fields::RawRequest;
use crate::files;
use crate::jobs::Job;
use crate::multipart::{self, Form, Upload};
use crate::queue;
use crate::raw::Sources;
use crate::reply::{Refused, Reply, bad_request, denied, fault, success};
use crate::resolve::{Caller, Resolved, Work, resolve};
use engine::Error;
use engine::song::source::check_recording;
use engine::song::task::SourceUse;
use engine::song::{Recording, Stage, Watch};
use hyper::body::Incoming;
use hyper::{Request, StatusCode};
use serde::Serialize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;
use uuid::Uuid;

#[derive(Serialize)]
struct Queued {
    task_id: String,
    status: &'static str,
    queue_position: usize,
}

pub async fn answer(app: &Arc<App>, request: Request<Incoming>) -> Result<Reply, Refused> {
    let header = authorization(&request);
    let body = read(app, request).await?;
    let app = app.clone();
    // Bodies may be large; and paths and the model's configuration are looked at.
    let answered = tokio::task::spawn_blocking(move || reply(&app, header, body)).await;
    answered.unwrap_or_else(|_| Err(unanswered()))
}

fn reply(app: &App, header: Option<String>, body: Received) -> Result<Reply, Refused> {
    // Keeps account of the body until the answer is there.
    let (mut form, _held) = body.form()?;
    let reference = form.take_file(&["ref_audio", "reference_audio"]);
    let source = form.take_file(&["ctx_audio", "src_audio"]);
    let sources = Sources::new(form.fields);
    let token = sources.find(&["ai_token".to_owned()]).and_then(token_text);
    auth::check_body(
        app.config.api_key.as_ref(),
        token.as_deref(),
        header.as_deref(),
    )
    .map_err(denied)?;
    if tracing::enabled!(tracing::Level::DEBUG) {
        let unknown = sources.unknown();
        if !unknown.is_empty() {
            tracing::debug!("fields without a meaning: {}", unknown.join(", "));
        }
    }
    let mut raw = RawRequest::read(&sources).map_err(|refusal| bad_request(refusal.0))?;
    // An upload takes the place of the path, which is not even checked.
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
    let resolved = decide(app, &raw).map_err(bad_request)?;
    look_at(app, &resolved).map_err(bad_request)?;
    enqueue(app, resolved, reference.into_iter().chain(source).collect())
}

fn working_directory() -> Result<PathBuf, String> {
    std::env::current_dir()
        .and_then(|dir| dir.canonicalize())
        .map_err(|e| format!("the server's working directory cannot be read: {e}"))
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

/// Puts the job at the end of the queue; its record appears with it.
fn enqueue(app: &App, resolved: Resolved, uploads: Vec<Upload>) -> Result<Reply, Refused> {
    let id = Uuid::new_v4();
    for note in &resolved.notes {
        tracing::debug!("job {id}: {note}");
    }
    let record = || app.jobs.insert(Job::queued(id, SystemTime::now()));
    let ticket = Ticket {
        id,
        resolved,
        uploads,
    };
    match app.queue.push(ticket, record) {
        Ok(queue_position) => Ok(success(Queued {
            task_id: id.to_string(),
            status: "queued",
            queue_position,
        })),
        Err(queue::Refused::Full) => Err(fault(
            StatusCode::TOO_MANY_REQUESTS,
            "Server busy: queue is full",
        )),
        Err(queue::Refused::Closed) => Err(fault(
            StatusCode::SERVICE_UNAVAILABLE,
            "the server is about to end",
        )),
    }
}

/// A body, not parsed yet unless it is a form with files.
enum Received {
    Form(Form, Held),
    Bytes {
        content_type: String,
        payload: Payload,
    },
}

async fn read(app: &App, request: Request<Incoming>) -> Result<Received, Refused> {
    let content_type = body::content_type(&request);
    if content_type.starts_with("multipart/form-data") {
        let (form, held) = multipart::read(
            request,
            multipart::LIMIT,
            &app.budget,
            Some(&app.upload_dir),
        )
        .await?;
        return Ok(Received::Form(form, held));
    }
    let payload = body::read(request, body::JSON_LIMIT, &app.budget).await?;
    Ok(Received::Bytes {
        content_type,
        payload,
    })
}

impl Received {
    /// The fields, and what accounts for them.
    fn form(self) -> Result<(Form, Held), Refused> {
        let (content_type, mut payload) = match self {
            Received::Form(form, held) => return Ok((form, held)),
            Received::Bytes {
                content_type,
                payload,
            } => (content_type, payload),
        };
        let form = Form {
            fields: fields(&content_type, &mut payload)?,
            files: Vec::new(),
        };
        Ok((form, payload.into_held()))
    }
}

/// The fields of a body by its content type or, without a known one, by how it begins.
fn fields(content_type: &str, payload: &mut Payload) -> Result<Fields, Refused> {
    const HINT: &str = "Invalid JSON body (hint: set 'Content-Type: application/json')";
    let media_type = content_type
        .split(';')
        .next()
        .unwrap_or_default()
        .trim_end();
    if content_type.starts_with("application/json") || media_type.ends_with("+json") {
        return payload.json_object(body::MALFORMED);
    }
    if content_type.starts_with("application/x-www-form-urlencoded") {
        return payload.form(Repeated::Last);
    }
    match payload.bytes.trim_ascii_start().first() {
        Some(b'{' | b'[') => payload.json_object(HINT),
        Some(_) if payload.bytes.contains(&b'=') => payload.form(Repeated::First),
        _ => {
            let shown = if content_type.is_empty() {
                "(missing)"
            } else {
                content_type
            };
            let detail = format!(
                "Unsupported Content-Type: {shown}; use application/json, \
                 application/x-www-form-urlencoded, or multipart/form-data"
            );
            Err(fault(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail))
        }
    }
}
