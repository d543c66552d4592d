//! `GET /v1/models` and `/v1/model_inventory` in the documented form, `/api/v1/models` in
//! OpenRouter's.

use crate::app::App;
use crate::catalog;
use crate::reply::{Reply, fault, json, success};
use hyper::StatusCode;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

pub async fn documented(app: &Arc<App>) -> Reply {
    let app = app.clone();
    // Reads folders and small files.
    match tokio::task::spawn_blocking(move || catalog::documented(&app)).await {
        Ok(list) => success(list),
        Err(_) => *fault(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the model list could not be read",
        ),
    }
}

pub fn openrouter(app: &App) -> Reply {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    json(StatusCode::OK, &catalog::openrouter(app, now.as_secs()))
}
