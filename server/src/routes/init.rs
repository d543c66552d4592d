//! `POST /v1/init`: another model in a slot, a language model, or the same ones anew.

use super::describe::{busy, stopping};
use super::{check_header_text, unanswered};
use crate::app::App;
use crate::body;
use crate::calls::{self, Call, Init, Unable};
use crate::catalog;
use crate::reply::{Refused, Reply, envelope_error, failure, success};
use crate::slots::SLOTS;
use crate::typed::Typed;
use hyper::Request;
use hyper::body::Incoming;
use std::path::Path;
use std::sync::Arc;

/// Largest body: a few names.
const BODY_LIMIT: usize = 1 << 20;

pub async fn answer(app: &Arc<App>, request: Request<Incoming>) -> Result<Reply, Refused> {
    let header = super::authorization(&request);
    let payload = body::read(request, BODY_LIMIT, &app.budget).await?;
    check_header_text(app, header.as_deref(), None)?;
    let mut typed = Typed::parse(&payload.bytes)?;
    let model = typed.text("model");
    let slot = typed.int("slot", 1..=SLOTS as i64).unwrap_or(1);
    let with_lm = typed.switch("init_llm");
    let lm = typed.text("lm_model_path");
    typed.finish()?;
    let slot = usize::try_from(slot).unwrap_or(1);
    if app.slots().get(slot).is_none() {
        return Err(envelope_error(
            400,
            format!(
                "Slot {slot} is not available because ACESTEP_CONFIG_PATH{slot} was not set at \
                 startup. Restart the API with ACESTEP_CONFIG_PATH{slot} to enable this slot."
            ),
        ));
    }
    let init = Init {
        slot,
        model: model.as_deref().and_then(name),
        lm: with_lm.then(|| lm.as_deref().and_then(name)),
    };
    let done = calls::ask(app, |answer| Call::Init(init, answer)).await;
    done.map_err(|unable| match unable {
        Unable::Failed(error) => failure(format!("Model initialization failed: {error}")),
        Unable::NoLm(why) => failure(format!("Model initialization failed: {why}")),
        Unable::Busy => busy(),
        Unable::Stopping => stopping(),
    })?;
    let app = app.clone();
    // Reads folders and small files.
    let listed = tokio::task::spawn_blocking(move || {
        let list = catalog::documented(&app);
        serde_json::json!({
            "message": "Model initialization completed",
            "slot": slot,
            "loaded_model": app.slots().get(slot),
            "loaded_lm_model": with_lm.then(|| app.lm().loaded).flatten(),
            "models": list["models"],
            "lm_models": list["lm_models"],
            "llm_initialized": list["llm_initialized"],
        })
    });
    listed.await.map(success).map_err(|_| unanswered())
}

/// The name of a model folder, of which a client may send the path; nothing for a blank one.
fn name(path: &str) -> Option<String> {
    let name = Path::new(path.trim()).file_name()?;
    name.to_str().map(str::to_owned)
}
