//! `GET /v1/jobs/{task_id}/events`: the entries of `/query_result` as they change, until the job
//! has ended.

use super::query_result::entry;
use super::{check_header, unanswered};
use crate::app::App;
use crate::jobs::Job;
use crate::reply::{Refused, Reply, event, events, fault};
use hyper::body::Bytes;
use hyper::{Request, StatusCode};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use uuid::Uuid;

/// How often a comment is sent where nothing changes, so that nobody takes the connection for
/// dead.
const ALIVE: Duration = Duration::from_secs(15);
/// How often it is looked whether the server is about to end.
const LOOK: Duration = Duration::from_millis(500);

pub async fn answer<T>(
    app: &Arc<App>,
    request: &Request<T>,
    task_id: &str,
) -> Result<Reply, Refused> {
    check_header(app, request, None)?;
    let not_found = || fault(StatusCode::NOT_FOUND, "Task not found");
    let id = Uuid::parse_str(task_id).map_err(|_| not_found())?;
    let shared = app.clone();
    // The store may have to look into its file.
    let found = tokio::task::spawn_blocking(move || shared.jobs.get(id)).await;
    let job = found.map_err(|_| unanswered())?.ok_or_else(not_found)?;
    let (sender, pieces) = mpsc::channel(4);
    tokio::spawn(tell(app.clone(), job, sender));
    Ok(events(pieces))
}

/// Sends entries until the job has ended, the client has gone, or the server ends.
async fn tell(app: Arc<App>, mut job: Job, sender: mpsc::Sender<Bytes>) {
    let mut changes = app.jobs.changes();
    let id = job.id;
    let mut last = None;
    let mut quiet = Duration::ZERO;
    loop {
        let has_ended = job.state.is_finished();
        let entry = entry(&app, json!(id.to_string()), Some(job));
        if last.as_ref() != Some(&entry) {
            if sender.send(event(&entry)).await.is_err() {
                return;
            }
            last = Some(entry);
            quiet = Duration::ZERO;
        } else if quiet >= ALIVE {
            if sender
                .send(Bytes::from_static(b": waiting\n\n"))
                .await
                .is_err()
            {
                return;
            }
            quiet = Duration::ZERO;
        }
        if has_ended || app.is_stopping() || sender.is_closed() {
            return;
        }
        match tokio::time::timeout(LOOK, changes.changed()).await {
            Ok(Ok(())) => {}
            // The store has gone, and the server with it.
            Ok(Err(_)) => return,
            Err(_) => quiet += LOOK,
        }
        job = match app.jobs.recent(id) {
            Some(job) => job,
            // It was forgotten.
            None => return,
        };
    }
}
