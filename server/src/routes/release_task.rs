//! `POST /release_task`: reads a request, decides what it means, queues it.

use super::asked::token_text;
use super::{authorization, unanswered};
use crate::app::App;
use crate::auth;
use crate::body::{self, Fields, Payload, Repeated};
use crate::budget::Held;
use crate::fields::RawRequest;
use crate::multipart::{self, Form};
use crate::raw::Sources;
use crate::reply::{Refused, Reply, bad_request, denied, fault, success};
use crate::submit::{self, Wanted};
use hyper::body::Incoming;
use hyper::{Request, StatusCode};
use serde::Serialize;
use std::sync::Arc;

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
    let raw = RawRequest::read(&sources).map_err(|refusal| bad_request(refusal.0))?;
    let (id, queue_position) = submit::submit(app, raw, reference, source, Wanted::default())?;
    Ok(success(Queued {
        task_id: id.to_string(),
        status: "queued",
        queue_position,
    }))
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
