//! Reading request bodies: limits, patience, content types.

use crate::reply::{Refused, bad_request, fault};
use http_body_util::BodyExt;
use hyper::body::{Body, Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, EXPECT};
use hyper::{Request, StatusCode};
use serde_json::{Map, Value};
use std::time::Duration;

/// Largest body that is kept in memory: long lyrics and base64 audio fit.
pub const JSON_LIMIT: usize = 64 << 20;
/// How long a client may pause within a body.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Bodies from this size on are parsed on a thread that may block.
const LARGE: usize = 256 << 10;
/// How much of a refused body is read away, so that the client gets to see the answer.
const DRAIN_LIMIT: usize = 1 << 30;

/// Fields of a request body.
pub type Fields = Map<String, Value>;

/// The whole body, at most `limit` bytes.
pub async fn read(request: Request<Incoming>, limit: usize) -> Result<Bytes, Refused> {
    let waits = request.headers().contains_key(EXPECT);
    let mut body = request.into_body();
    if body.size_hint().lower() > limit as u64 {
        // A client that waits for leave to send has not sent anything to read away.
        if !waits {
            tokio::spawn(drain(body));
        }
        return Err(too_large(limit));
    }
    let mut bytes = Vec::new();
    loop {
        match tokio::time::timeout(PATIENCE, body.frame()).await {
            Err(_) => return Err(bad_request("the request body did not arrive in time")),
            Ok(None) => return Ok(bytes.into()),
            Ok(Some(Err(_))) => return Err(bad_request("the request body broke off")),
            Ok(Some(Ok(frame))) => {
                let Ok(data) = frame.into_data() else {
                    continue;
                };
                if bytes.len() + data.len() > limit {
                    tokio::spawn(drain(body));
                    return Err(too_large(limit));
                }
                bytes.extend_from_slice(&data);
            }
        }
    }
}

/// 413 for a body of more than `limit` bytes.
pub fn too_large(limit: usize) -> Refused {
    let detail = format!("the request body is larger than {} MiB", limit >> 20);
    fault(StatusCode::PAYLOAD_TOO_LARGE, detail)
}

/// Reads away what a client still sends, within limits.
async fn drain(mut body: Incoming) {
    let mut left = DRAIN_LIMIT;
    while let Ok(Some(Ok(frame))) = tokio::time::timeout(PATIENCE, body.frame()).await {
        left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
        if left == 0 {
            return;
        }
    }
}

/// The content type in lower case, empty when there is none.
pub fn content_type<T>(request: &Request<T>) -> String {
    let header = request.headers().get(CONTENT_TYPE);
    header
        .and_then(|v| v.to_str().ok())
        .unwrap_or_default()
        .trim()
        .to_lowercase()
}

/// Why JSON was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JsonFault {
    /// No JSON, or nested too deeply.
    Malformed,
    /// JSON, but no object.
    NoObject,
}

/// A JSON object. Nesting is limited by the parser; deeper documents are malformed.
pub async fn json_object(bytes: Bytes) -> Result<Fields, JsonFault> {
    if bytes.len() < LARGE {
        return parse(&bytes);
    }
    let parsed = tokio::task::spawn_blocking(move || parse(&bytes)).await;
    parsed.unwrap_or(Err(JsonFault::Malformed))
}

fn parse(bytes: &[u8]) -> Result<Fields, JsonFault> {
    match serde_json::from_slice(bytes) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(JsonFault::NoObject),
        Err(_) => Err(JsonFault::Malformed),
    }
}

/// Which of a repeated key's values counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeated {
    /// The first.
    First,
    /// The last.
    Last,
}

/// Fields of a urlencoded form; blank values are kept.
pub fn form(bytes: &[u8], repeated: Repeated) -> Fields {
    let mut fields = Fields::new();
    for (key, value) in form_urlencoded::parse(bytes) {
        if repeated == Repeated::First && fields.contains_key(key.as_ref()) {
            continue;
        }
        fields.insert(key.into_owned(), Value::String(value.into_owned()));
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        let bytes = b"a=1&b=&a=2&c=x+y%C3%A9";
        let first = form(bytes, Repeated::First);
        assert_eq!(
            (first["a"].as_str(), first["b"].as_str()),
            (Some("1"), Some(""))
        );
        let last = form(bytes, Repeated::Last);
        assert_eq!(
            (last["a"].as_str(), last["c"].as_str()),
            (Some("2"), Some("x yé"))
        );
    }
}
