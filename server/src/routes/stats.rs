//! `GET /v1/stats`.

use crate::app::App;
use crate::reply::{Reply, success};
use serde_json::json;

pub fn answer(app: &App) -> Reply {
    success(json!({
        "jobs": app.jobs.counts(),
        "queue_size": app.queue.len(),
        "queue_maxsize": app.queue.bound(),
        "avg_job_seconds": app.averages.mean(),
    }))
}
