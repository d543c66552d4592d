//! `POST /cancel_task`, `/cancel_all_tasks` and `/cleanup/{task_id}`: jobs that nobody wants any
//! more.

use super::asked::Asked;
use super::{check_header, unanswered};
use crate::app::App;
use crate::reply::{Refused, Reply, fault, success};
use hyper::body::Incoming;
use hyper::{Request, StatusCode};
use serde_json::{Value, json};
use std::sync::Arc;
use uuid::Uuid;

/// Largest body: an identifier.
const BODY_LIMIT: usize = 1 << 20;

fn not_found() -> Refused {
    fault(StatusCode::NOT_FOUND, "Task not found")
}

/// Ends one job. One that has ended already is said to be what it is.
pub async fn one(app: &Arc<App>, request: Request<Incoming>) -> Result<Reply, Refused> {
    let asked = Asked::read(app, request, BODY_LIMIT).await?;
    in_background(app, move |app| {
        let (fields, _held) = asked.fields(app)?;
        let named = ["task_id", "job_id"].iter().find_map(|name| {
            let text = fields.get(*name).and_then(Value::as_str)?.trim();
            Some(text).filter(|text| !text.is_empty())
        });
        let Some(named) = named else {
            return Err(fault(StatusCode::BAD_REQUEST, "task_id is missing"));
        };
        let id = Uuid::parse_str(named).map_err(|_| not_found())?;
        let status = match app.cancel(id) {
            true => "cancelled",
            false => app.jobs.get(id).ok_or_else(not_found)?.state.name(),
        };
        app.jobs.flush();
        Ok(success(
            json!({ "job_id": id.to_string(), "status": status }),
        ))
    })
    .await
}

/// Ends every job.
pub async fn all(app: &Arc<App>, request: Request<Incoming>) -> Result<Reply, Refused> {
    let asked = Asked::read(app, request, BODY_LIMIT).await?;
    in_background(app, move |app| {
        let (_fields, _held) = asked.fields(app)?;
        let ids: Vec<String> = app.cancel_all().iter().map(Uuid::to_string).collect();
        app.jobs.flush();
        Ok(success(json!({
            "status": "cancelled", "cancelled": ids.len(), "job_ids": ids,
        })))
    })
    .await
}

/// Forgets a job; one that waits or runs ends first.
pub async fn forget<T>(
    app: &Arc<App>,
    request: &Request<T>,
    task_id: &str,
) -> Result<Reply, Refused> {
    check_header(app, request, None)?;
    let id = Uuid::parse_str(task_id).map_err(|_| not_found())?;
    in_background(app, move |app| {
        app.cancel(id);
        let was_there = app.jobs.forget(id);
        app.jobs.flush();
        match was_there {
            true => Ok(success(json!({
                "task_id": id.to_string(), "message": "Task forgotten",
            }))),
            false => Err(not_found()),
        }
    })
    .await
}

/// The store may wait for the disk.
async fn in_background(
    app: &Arc<App>,
    work: impl FnOnce(&App) -> Result<Reply, Refused> + Send + 'static,
) -> Result<Reply, Refused> {
    let app = app.clone();
    let done = tokio::task::spawn_blocking(move || work(&app)).await;
    done.unwrap_or_else(|_| Err(unanswered()))
}
