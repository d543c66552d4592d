//! `GET /health`: answers at once in every state, without a key.

use crate::app::App;
use crate::reply::{Reply, success};
use serde_json::json;

pub fn answer(app: &App) -> Reply {
    let lm = app.lm();
    let mut health = json!({
        "status": "ok",
        "service": "ACE-Step API",
        "version": "1.0",
        "models_initialized": !app.loaded().is_empty(),
        "llm_initialized": lm.loaded.is_some(),
        "loaded_model": app.slots().primary(),
        "loaded_lm_model": lm.loaded,
    });
    if let Some(trouble) = app.trouble() {
        health["error"] = trouble.into();
    }
    success(health)
}
