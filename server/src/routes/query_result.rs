//! `POST /query_result`: state and results of jobs.

use super::asked::Asked;
use super::unanswered;
use crate::app::App;
use crate::jobs::{Job, State};
use crate::reply::{Refused, Reply, bad_request, success};
use hyper::Request;
use hyper::body::Incoming;
use serde::Serialize;
use serde_json::{Value, json};
use std::sync::Arc;
use uuid::Uuid;

/// One entry, in the order of its keys on the wire.
#[derive(Debug, Serialize, PartialEq)]
pub struct Entry {
    task_id: Value,
    result: String,
    status: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    progress_text: Option<String>,
}

/// Largest body: the identifiers of [`IDS_LIMIT`] jobs and more.
const BODY_LIMIT: usize = 1 << 20;
/// Jobs that may be asked for at a time.
const IDS_LIMIT: usize = 1000;
/// Results that may be asked for at a time, in bytes: long lyrics come back with every song.
const RESULTS_LIMIT: usize = 64 << 20;

pub async fn answer(app: &Arc<App>, request: Request<Incoming>) -> Result<Reply, Refused> {
    let asked = Asked::read(app, request, BODY_LIMIT).await?;
    let app = app.clone();
    // Large answers take their time.
    let answered = tokio::task::spawn_blocking(move || reply(&app, asked)).await;
    answered.unwrap_or_else(|_| Err(unanswered()))
}

fn reply(app: &App, asked: Asked) -> Result<Reply, Refused> {
    let (fields, _held) = asked.fields(app)?;
    let ids = task_ids(fields.get("task_id_list"));
    if ids.len() > IDS_LIMIT {
        return Err(bad_request(format!(
            "task_id_list has {} items; ask for at most {IDS_LIMIT} at a time",
            ids.len()
        )));
    }
    let jobs: Vec<Option<Job>> = ids.iter().map(|id| job(app, id)).collect();
    let bytes: usize = jobs.iter().flatten().map(result_len).sum();
    if bytes > RESULTS_LIMIT {
        return Err(bad_request(format!(
            "the results of task_id_list are larger than {} MiB together; ask for fewer at a time",
            RESULTS_LIMIT >> 20
        )));
    }
    let entries = ids
        .into_iter()
        .zip(jobs)
        .map(|(id, job)| entry(app, id, job));
    Ok(success(entries.collect::<Vec<_>>()))
}

fn result_len(job: &Job) -> usize {
    job.result.as_ref().map_or(0, |text| text.len())
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

fn job(app: &App, task_id: &Value) -> Option<Job> {
    let id = task_id.as_str().and_then(|text| Uuid::parse_str(text).ok());
    id.and_then(|id| app.jobs.get(id))
}

/// What is said of a job, `None` for one that is not known.
pub fn entry(app: &App, task_id: Value, job: Option<Job>) -> Entry {
    match job {
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
            progress_text: Some(progress_text(app, &job)),
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

fn progress_text(app: &App, job: &Job) -> String {
    match job.state {
        State::Running => format!("{:.0}% {}", job.progress * 100.0, job.stage),
        State::Queued => match app.queue.position(|ticket| ticket.id == job.id) {
            Some(position) => format!("{}, position {position}", job.stage),
            // It was taken out just now, and waits for a model.
            None => job.stage.to_string(),
        },
        State::Succeeded | State::Failed => job.stage.to_string(),
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
