//! `POST /v1/chat/completions`: a song as the answer to a message, in OpenRouter's form.

use super::{authorization, check_header_text, unanswered};
use crate::app::App;
use crate::body;
use crate::chat::{self, Chat, Recording, content, data_url};
use crate::files;
use crate::jobs::{Job, State};
use crate::multipart::Upload;
use crate::reply::{Refused, Reply, bad_request, event, events, fault, json};
use crate::submit::{Wanted, submit};
use hyper::body::{Bytes, Incoming};
use hyper::{Request, StatusCode};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc;
use tokio::time::Instant;
use uuid::Uuid;

/// How often a client that waits for a stream hears that it still does.
const DOT: Duration = Duration::from_secs(2);

/// A job that a chat waits for, and how its answer is labelled.
struct Asked {
    job: Uuid,
    id: String,
    model: String,
    created: u64,
    format: String,
    stream: bool,
}

/// The song as the answer shows it.
struct Answer {
    content: String,
    /// The first song as a data URL.
    url: Option<String>,
    codes: Option<String>,
}

pub async fn answer(app: &Arc<App>, request: Request<Incoming>) -> Result<Reply, Refused> {
    let header = authorization(&request);
    let mut payload = body::read(request, body::JSON_LIMIT, &app.budget).await?;
    check_header_text(app, header.as_deref(), None)?;
    let shared = app.clone();
    let asked = tokio::task::spawn_blocking(move || {
        let fields = payload.json_object("Invalid request format: the body is not JSON")?;
        // Keeps account of the body until the job is queued.
        let _held = payload.into_held();
        ask(&shared, chat::read(fields).map_err(bad_request)?)
    });
    let asked = asked.await.unwrap_or_else(|_| Err(unanswered()))?;
    if asked.stream {
        let (sender, pieces) = mpsc::channel(4);
        tokio::spawn(tell(app.clone(), asked, sender));
        return Ok(events(pieces));
    }
    let job = match tokio::time::timeout(app.config.generation_timeout, ended(app, asked.job)).await
    {
        Ok(job) => job,
        Err(_) => return Err(fault(StatusCode::GATEWAY_TIMEOUT, "Generation timeout")),
    };
    match made(app, &asked, job).await {
        Ok(answer) => Ok(json(StatusCode::OK, &completion(&asked, answer))),
        Err(reason) => Err(fault(StatusCode::INTERNAL_SERVER_ERROR, reason)),
    }
}

/// Queues the job.
fn ask(app: &App, chat: Chat) -> Result<Asked, Refused> {
    let Chat {
        raw,
        model,
        stream,
        source,
        reference,
    } = chat;
    let format = raw.audio_format();
    let upload = |name: &str, recording: Option<Recording>| {
        let stored = recording.map(|r| Upload::store(&app.upload_dir, name, &r.format, &r.bytes));
        stored.transpose()
    };
    let reference = upload("ref_audio", reference)?;
    let source = upload("src_audio", source)?;
    let (job, _) = submit(app, raw, reference, source, Wanted { codes: true })?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    Ok(Asked {
        job,
        // 16 digits of what is random in it.
        id: format!("chatcmpl-{:016x}", Uuid::new_v4().as_u64_pair().1),
        model: model.unwrap_or_else(|| format!("acestep/{}", app.slots().primary())),
        created: now.unwrap_or_default().as_secs(),
        format,
        stream,
    })
}

/// Waits for the end of a job; `None` when it is not known any more.
async fn ended(app: &App, id: Uuid) -> Option<Job> {
    let mut changes = app.jobs.changes();
    loop {
        let job = app.jobs.recent(id)?;
        if job.state.is_finished() {
            return Some(job);
        }
        changes.changed().await.ok()?;
    }
}

/// The answer of a job that has ended, or why there is none.
async fn made(app: &Arc<App>, asked: &Asked, job: Option<Job>) -> Result<Answer, String> {
    let job = job.ok_or("the job was forgotten")?;
    let text = match (job.state, &job.result) {
        (State::Succeeded, Some(text)) => text.clone(),
        _ => return Err(job.error.as_deref().unwrap_or("the job failed").to_owned()),
    };
    let (app, format) = (app.clone(), asked.format.clone());
    let read = tokio::task::spawn_blocking(move || {
        let items: Value = serde_json::from_str(&text).map_err(|e| e.to_string())?;
        let item = &items[0];
        Ok(Answer {
            content: content(item),
            url: audio(&app, item, &format)?,
            codes: item["audio_codes"]
                .as_str()
                .filter(|codes| !codes.is_empty())
                .map(str::to_owned),
        })
    });
    let broken = |_| Err("the answer could not be written".to_owned());
    read.await.unwrap_or_else(broken)
}

/// The file of an item as a data URL.
fn audio(app: &App, item: &Value, format: &str) -> Result<Option<String>, String> {
    let Some(path) = files::path_in_url(item["file"].as_str().unwrap_or_default()) else {
        return Ok(None);
    };
    let gone = "the song's file is not there any more";
    let path = files::result_file(&app.audio_dir, &path).map_err(|_| gone)?;
    let bytes = std::fs::read(path).map_err(|e| format!("{gone} ({e})"))?;
    Ok(Some(data_url(&bytes, format)))
}

fn audio_list(url: Option<String>) -> Value {
    match url {
        Some(url) => json!([{ "type": "audio_url", "audio_url": { "url": url } }]),
        None => Value::Null,
    }
}

fn completion(asked: &Asked, answer: Answer) -> Value {
    json!({
        "id": asked.id,
        "object": "chat.completion",
        "created": asked.created,
        "model": asked.model,
        "choices": [{
            "index": 0,
            "message": {
                "role": "assistant",
                "content": answer.content,
                "audio": audio_list(answer.url),
                "audio_codes": answer.codes,
            },
            "finish_reason": "stop",
        }],
        "usage": { "prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0 },
    })
}

fn chunk(asked: &Asked, delta: Value, finish_reason: Option<&str>) -> Bytes {
    event(&json!({
        "id": asked.id,
        "object": "chat.completion.chunk",
        "created": asked.created,
        "model": asked.model,
        "choices": [{ "index": 0, "delta": delta, "finish_reason": finish_reason }],
    }))
}

/// Sends the answer piece by piece. A client that hangs up does not stop the job.
async fn tell(app: Arc<App>, asked: Asked, sender: mpsc::Sender<Bytes>) {
    let first = chunk(&asked, json!({ "role": "assistant", "content": "" }), None);
    let answer = match send(&sender, first).await {
        Ok(()) => wait(&app, &asked, &sender).await,
        Err(gone) => Err(gone),
    };
    let (deltas, reason) = match answer {
        Ok(Ok(answer)) => {
            let mut deltas = vec![json!({ "content": format!("\n\n{}", answer.content) })];
            if answer.url.is_some() {
                deltas.push(json!({ "audio": audio_list(answer.url) }));
            }
            if let Some(codes) = answer.codes {
                let text = format!("[audio_codes]{codes}[/audio_codes]");
                deltas.push(json!({ "content": text }));
            }
            (deltas, "stop")
        }
        Ok(Err(reason)) => {
            let text = format!("\n\nError: {reason}");
            (vec![json!({ "content": text })], "error")
        }
        Err(Gone) => return,
    };
    let pieces = deltas
        .into_iter()
        .map(|delta| chunk(&asked, delta, None))
        .chain([
            chunk(&asked, json!({}), Some(reason)),
            Bytes::from_static(b"data: [DONE]\n\n"),
        ]);
    for piece in pieces {
        if send(&sender, piece).await.is_err() {
            return;
        }
    }
}

/// The client hung up.
struct Gone;

async fn send(sender: &mpsc::Sender<Bytes>, piece: Bytes) -> Result<(), Gone> {
    sender.send(piece).await.map_err(|_| Gone)
}

/// Waits for the answer and sends dots meanwhile.
async fn wait(
    app: &Arc<App>,
    asked: &Asked,
    sender: &mpsc::Sender<Bytes>,
) -> Result<Result<Answer, String>, Gone> {
    let deadline = Instant::now() + app.config.generation_timeout;
    loop {
        let dot = (Instant::now() + DOT).min(deadline);
        if let Ok(job) = tokio::time::timeout_at(dot, ended(app, asked.job)).await {
            return Ok(made(app, asked, job).await);
        }
        if Instant::now() >= deadline {
            return Ok(Err("Generation timeout".to_owned()));
        }
        if app.is_stopping() {
            return Ok(Err("the server is about to end".to_owned()));
        }
        send(sender, chunk(asked, json!({ "content": "." }), None)).await?;
    }
}
