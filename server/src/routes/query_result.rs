//! `POST /query_result`: state and results of jobs.

use super::authorization;
use crate::app::App;
use crate::auth;
use crate::body::{self, Fields, JsonFault, Repeated};
use crate::jobs::{Job, State};
use crate::multipart;
use crate::reply::{Refused, Reply, bad_request, denied, success};
use hyper::Request;
use hyper::body::Incoming;
use serde::Serialize;
use serde_json::{Value, json};
use std::sync::Arc;
use uuid::Uuid;

/// One entry, in the order of its keys on the wire.
#[derive(Debug, Serialize, PartialEq)]
struct Entry {
    task_id: Value,
    result: String,
    status: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    progress_text: Option<String>,
}

pub async fn answer(app: &Arc<App>, request: Request<Incoming>) -> Result<Reply, Refused> {
    let header = authorization(&request);
    let fields = read(request).await?;
    let token = fields.get("ai_token").and_then(token_text);
    auth::check_body(
        app.config.api_key.as_ref(),
        token.as_deref(),
        header.as_deref(),
    )
    .map_err(denied)?;
    let ids = task_ids(fields.get("task_id_list"));
    Ok(success(
        ids.into_iter().map(|id| entry(app, id)).collect::<Vec<_>>(),
    ))
}

/// A token of any type but null: a number is compared as its text, and so is wrong.
pub(super) fn token_text(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

async fn read(request: Request<Incoming>) -> Result<Fields, Refused> {
    let content_type = body::content_type(&request);
    if content_type.starts_with("multipart/form-data") {
        return Ok(multipart::read(request).await?.fields);
    }
    let bytes = body::read(request, body::JSON_LIMIT).await?;
    if !content_type.contains("json") {
        return Ok(body::form(&bytes, Repeated::Last));
    }
    body::json_object(bytes).await.map_err(|fault| {
        bad_request(match fault {
            JsonFault::Malformed => "Malformed JSON payload",
            JsonFault::NoObject => "JSON payload must be an object",
        })
    })
}

/// A list, or a text that holds one; anything else is an empty list.
fn task_ids(value: Option<&Value>) -> Vec<Value> {
    match value {
        Some(Value::Array(list)) => list.clone(),
        Some(Value::String(text)) => match serde_json::from_str(text) {
            Ok(Value::Array(list)) => list,
            _ => Vec::new(),
        },
        _ => Vec::new(),
    }
}

fn entry(app: &App, task_id: Value) -> Entry {
    let id = task_id.as_str().and_then(|text| Uuid::parse_str(text).ok());
    match id.and_then(|id| app.jobs.get(id)) {
        None => Entry {
            task_id,
            result: "[]".into(),
            status: 0,
            progress_text: None,
        },
        Some(job) => Entry {
            task_id,
            result: match &job.result {
                Some(text) => text.to_string(),
                None => unfinished(&job).to_string(),
            },
            status: job.state.code(),
            progress_text: Some(progress_text(&job)),
        },
    }
}

/// The one item of a job without results.
fn unfinished(job: &Job) -> Value {
    json!([{
        "file": "",
        "wave": "",
        "status": job.state.code(),
        "create_time": job.create_time(),
        "env": "development",
        "prompt": "",
        "lyrics": "",
        "metas": {},
        "progress": job.progress,
        "stage": &*job.stage,
        "error": job.error.as_deref(),
    }])
}

fn progress_text(job: &Job) -> String {
    match job.state {
        State::Running => format!("{:.0}% {}", job.progress * 100.0, job.stage),
        State::Queued | State::Succeeded | State::Failed => job.stage.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_ids() {
        let both = vec![json!("a"), json!(1)];
        assert_eq!(task_ids(Some(&json!(["a", 1]))), both);
        assert_eq!(task_ids(Some(&json!("[\"a\", 1]"))), both);
        for empty in [
            json!(null),
            json!(""),
            json!("abc"),
            json!("\"abc\""),
            json!(5),
            json!({}),
        ] {
            assert_eq!(task_ids(Some(&empty)), Vec::<Value>::new(), "{empty}");
        }
        assert_eq!(task_ids(None), Vec::<Value>::new());
    }

    #[test]
    fn a_waiting_job_has_every_key() {
        let job = Job::queued(Uuid::nil(), std::time::UNIX_EPOCH);
        assert_eq!(
            unfinished(&job),
            json!([{
                "file": "", "wave": "", "status": 0, "create_time": 0, "env": "development",
                "prompt": "", "lyrics": "", "metas": {}, "progress": 0.0, "stage": "queued",
                "error": null,
            }])
        );
    }
}
