//! `POST /v1/reinitialize` and `/v1/unload`: models are loaded that are missing, or forgotten.

use super::describe::{busy, stopping};
use super::{authorization, check_header, check_header_text};
use crate::app::App;
use crate::body;
use crate::calls::{self, Call, Unable, Unload};
use crate::reply::{Refused, Reply, failure, success};
use crate::typed::Typed;
use hyper::Request;
use hyper::body::Incoming;
use serde_json::json;
use std::sync::Arc;

/// Largest body: two switches.
const BODY_LIMIT: usize = 1 << 20;

/// Loads what is missing. A body is not looked at.
pub async fn reinitialize<T>(app: &Arc<App>, request: &Request<T>) -> Result<Reply, Refused> {
    check_header(app, request, None)?;
    let done = calls::ask(app, Call::Reinitialize).await;
    let reloaded = done.map_err(|unable| unable_to("Reinitialization failed", unable))?;
    let mut message = "\u{2705} Service reinitialized".to_owned();
    if !reloaded.is_empty() {
        message.push_str("\n\u{1f504} Reloaded: ");
        message.push_str(&reloaded.join(", "));
    }
    Ok(success(json!({ "message": message, "reloaded": reloaded })))
}

/// Forgets models: those that the body names, all without one.
pub async fn unload(app: &Arc<App>, request: Request<Incoming>) -> Result<Reply, Refused> {
    let header = authorization(&request);
    let payload = body::read(request, BODY_LIMIT, &app.budget).await?;
    check_header_text(app, header.as_deref(), None)?;
    let what = match payload.bytes.trim_ascii() {
        b"" | b"{}" => Unload {
            dit: true,
            lm: true,
        },
        bytes => {
            let mut typed = Typed::parse(bytes)?;
            let what = Unload {
                dit: typed.switch("dit"),
                lm: typed.switch("llm"),
            };
            typed.finish()?;
            what
        }
    };
    let done = calls::ask(app, |answer| Call::Unload(what, answer)).await;
    done.map_err(|unable| unable_to("Unloading failed", unable))?;
    Ok(success(json!({
        "message": "Models unloaded; the next job loads what it needs",
        "models_initialized": !app.loaded().is_empty(),
        "llm_initialized": app.lm().loaded.is_some(),
    })))
}

fn unable_to(what: &str, unable: Unable) -> Refused {
    match unable {
        Unable::Failed(error) => failure(format!("{what}: {error}")),
        Unable::NoLm(why) => failure(format!("{what}: {why}")),
        Unable::Busy => busy(),
        Unable::Stopping => stopping(),
    }
}
