//! The bodies of the small routes, JSON or a form, and the check of the key that follows.

use super::authorization;
use crate::app::App;
use crate::auth;
use crate::body::{self, Fields, Payload, Repeated};
use crate::budget::Held;
use crate::multipart::{self, Form};
use crate::reply::{Refused, denied};
use hyper::Request;
use hyper::body::Incoming;
use serde_json::Value;

/// A request that was read and not parsed yet, unless it is a form with files.
pub struct Asked {
    header: Option<String>,
    body: Body,
}

enum Body {
    Form(Form, Held),
    Json(Payload),
    Other(Payload),
}

impl Asked {
    /// Reads a body of at most `limit` bytes.
    pub async fn read(
        app: &App,
        request: Request<Incoming>,
        limit: usize,
    ) -> Result<Self, Refused> {
        let header = authorization(&request);
        let content_type = body::content_type(&request);
        if content_type.starts_with("multipart/form-data") {
            let (form, held) = multipart::read(request, limit, &app.budget, None).await?;
            let body = Body::Form(form, held);
            return Ok(Asked { header, body });
        }
        let payload = body::read(request, limit, &app.budget).await?;
        let body = match content_type.contains("json") {
            true => Body::Json(payload),
            false => Body::Other(payload),
        };
        Ok(Asked { header, body })
    }

    /// The fields of a body that may be answered, and what accounts for them until the answer is
    /// there. A body that cannot be parsed is refused before a wrong key.
    pub fn fields(self, app: &App) -> Result<(Fields, Held), Refused> {
        let (fields, held) = match self.body {
            Body::Form(form, held) => (form.fields, held),
            Body::Json(mut payload) => (payload.json_object(body::MALFORMED)?, payload.into_held()),
            Body::Other(mut payload) => (payload.form(Repeated::Last)?, payload.into_held()),
        };
        let token = fields.get("ai_token").and_then(token_text);
        let key = app.config.api_key.as_ref();
        auth::check_body(key, token.as_deref(), self.header.as_deref()).map_err(denied)?;
        Ok((fields, held))
    }
}

/// A token of any type but null: a number is compared as its text, and so is wrong.
pub fn token_text(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}
