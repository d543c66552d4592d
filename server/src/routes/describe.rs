//! `POST /format_input` and `POST /v1/create_sample`: the language model alone, answered when it
//! is done.

use super::asked::Asked;
use super::unanswered;
use crate::app::App;
use crate::calls::{self, Call, Unable};
use crate::lm::NoLm;
use crate::reply::{Refused, Reply, bad_request, failure, fault, success};
use crate::resolve::Echo;
use crate::resolve::describe::{self, Asked as Wanted};
use engine::song::{DescribeRequest, Description, Metas, Subject};
use hyper::body::Incoming;
use hyper::{Request, StatusCode};
use serde_json::{Value, json};
use std::sync::Arc;
use uuid::Uuid;

/// Largest body: two long texts.
const BODY_LIMIT: usize = 4 << 20;

/// Rewrites caption and lyrics.
pub async fn format_input(app: &Arc<App>, request: Request<Incoming>) -> Result<Reply, Refused> {
    let Wanted { request, echo } = read(app, request, describe::format).await?;
    let description = ask(app, request, "format_sample failed").await?;
    Ok(success(formatted(&echo, description)))
}

/// Invents a song.
pub async fn create_sample(app: &Arc<App>, request: Request<Incoming>) -> Result<Reply, Refused> {
    let wanted = read(app, request, describe::sample).await?;
    let is_instrumental = match &wanted.request.subject {
        Subject::Wish(wish) => wish.instrumental,
        _ => false,
    };
    const FAILED: &str = "create_sample error";
    let description = ask(app, wanted.request, FAILED).await?;
    if description.caption.is_none() && description.lyrics.is_none() {
        let why = "the language model described no song; say more in query";
        return Err(failure(format!("{FAILED}: {why}")));
    }
    Ok(success(invented(is_instrumental, description)))
}

/// How a body becomes what is asked of the language model.
type Resolve = fn(
    serde_json::Map<String, Value>,
    &mut dyn FnMut() -> u32,
) -> Result<Wanted, crate::fields::Refusal>;

async fn read(
    app: &Arc<App>,
    request: Request<Incoming>,
    resolve: Resolve,
) -> Result<Wanted, Refused> {
    let asked = Asked::read(app, request, BODY_LIMIT).await?;
    let app = app.clone();
    let resolved = tokio::task::spawn_blocking(move || {
        let (fields, _held) = asked.fields(&app)?;
        // The low half of a version 4 identifier holds 32 random bits and more.
        let mut random = || Uuid::new_v4().as_fields().0;
        resolve(fields, &mut random).map_err(|refusal| bad_request(refusal.0))
    });
    resolved.await.unwrap_or_else(|_| Err(unanswered()))
}

/// Asks the language model; `failed` goes before the reason when it fails.
async fn ask(app: &App, request: DescribeRequest, failed: &str) -> Result<Description, Refused> {
    let described = calls::ask(app, |answer| Call::Describe(Box::new(request), answer));
    described.await.map_err(|unable| match unable {
        Unable::NoLm(why @ NoLm::Blocked) => {
            fault(StatusCode::SERVICE_UNAVAILABLE, why.to_string())
        }
        Unable::NoLm(NoLm::Failed(error)) => fault(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("LLM init failed: {error}"),
        ),
        Unable::Failed(error) => failure(format!("{failed}: {error}")),
        Unable::Busy => busy(),
        Unable::Stopping => stopping(),
    })
}

/// 429: as many calls wait as may.
pub fn busy() -> Refused {
    fault(StatusCode::TOO_MANY_REQUESTS, "Server busy: queue is full")
}

/// 503: the server ends.
pub fn stopping() -> Refused {
    fault(
        StatusCode::SERVICE_UNAVAILABLE,
        "the server is about to end",
    )
}

/// The user's own text, else the language model's.
fn either(own: &str, theirs: Option<String>) -> String {
    match own.trim() {
        "" => theirs.unwrap_or_default(),
        _ => own.to_owned(),
    }
}

fn formatted(echo: &Echo, description: Description) -> Value {
    let facts = description.facts;
    let Metas {
        bpm,
        key_scale,
        time_signature,
    } = facts.metas;
    json!({
        "caption": description.caption.as_ref().unwrap_or(&echo.prompt),
        "lyrics": description.lyrics.as_ref().unwrap_or(&echo.lyrics),
        "bpm": bpm,
        "key_scale": either(&echo.key_scale, key_scale),
        "time_signature": either(&echo.time_signature, time_signature),
        "duration": facts.duration_s,
        "vocal_language": facts.language.as_deref().unwrap_or("unknown"),
    })
}

fn invented(is_instrumental: bool, description: Description) -> Value {
    let facts = description.facts;
    let lyrics = match description.lyrics {
        Some(lyrics) if !is_instrumental => lyrics,
        _ => "[Instrumental]".to_owned(),
    };
    json!({
        "caption": description.caption.unwrap_or_default(),
        "lyrics": lyrics,
        "bpm": facts.metas.bpm,
        "keyscale": facts.metas.key_scale.unwrap_or_default(),
        "duration": facts.duration_s,
        "timesignature": facts.metas.time_signature.unwrap_or_default(),
        "vocal_language": facts.language.as_deref().unwrap_or("unknown"),
    })
}
