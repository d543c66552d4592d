//! Reading request bodies: limits, patience, content types.

use crate::budget::{Budget, Held};
use crate::reply::{Refused, bad_request, fault};
use http_body_util::BodyExt;
use hyper::body::{Body, Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, EXPECT};
use hyper::{Request, StatusCode};
use serde_json::{Map, Value};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// Largest body that is kept in memory: long lyrics and base64 audio fit.
pub const JSON_LIMIT: usize = 64 << 20;
/// How long a client may pause within a body, and how long any body may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes per second that a client must send on average beyond [`PATIENCE`].
const SLOWEST: u64 = 64 << 10;
/// How much of a refused body is read away, so that the client gets to see the answer.
const DRAIN_LIMIT: usize = 1 << 30;
/// Values that a body may hold. No request needs more, and each takes many times the bytes in
/// memory that it takes in the body.
const VALUES_LIMIT: usize = 1 << 18;
/// About how much memory a value takes.
const VALUE_BYTES: usize = 64;

/// Fields of a request body.
pub type Fields = Map<String, Value>;

/// A body in memory, accounted for until it is dropped.
#[derive(Debug)]
pub struct Payload {
    /// The body.
    pub bytes: Vec<u8>,
    held: Held,
}

/// How long is waited for a body: a pause may take [`PATIENCE`], and the whole of it that plus
/// its size over [`SLOWEST`].
#[derive(Debug)]
pub struct Pace {
    start: Instant,
    received: u64,
}

impl Pace {
    /// The body begins now.
    pub fn start() -> Self {
        Pace {
            start: Instant::now(),
            received: 0,
        }
    }

    /// Bytes arrived.
    pub fn add(&mut self, bytes: usize) {
        self.received += bytes as u64;
    }

    /// Bytes that have arrived.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Until when the next piece must be there.
    pub fn deadline(&self) -> Instant {
        self.deadline_at(Instant::now())
    }

    fn deadline_at(&self, now: Instant) -> Instant {
        let whole = Duration::from_secs(self.received / SLOWEST);
        (now + PATIENCE).min(self.start + PATIENCE + whole)
    }
}

/// The whole body, at most `limit` bytes.
pub async fn read(
    request: Request<Incoming>,
    limit: usize,
    budget: &Budget,
) -> Result<Payload, Refused> {
    let waits = request.headers().contains_key(EXPECT);
    let mut body = request.into_body();
    if body.size_hint().lower() > limit as u64 {
        // A client that waits for leave to send has not sent anything to read away.
        if !waits {
            tokio::spawn(drain(body));
        }
        return Err(too_large(limit));
    }
    let (mut held, mut pace) = (budget.hold(), Pace::start());
    let mut bytes = Vec::new();
    loop {
        match timeout_at(pace.deadline(), body.frame()).await {
            Err(_) => return Err(late()),
            Ok(None) => return Ok(Payload { bytes, held }),
            Ok(Some(Err(_))) => return Err(bad_request("the request body broke off")),
            Ok(Some(Ok(frame))) => {
                let Ok(data) = frame.into_data() else {
                    continue;
                };
                let room = if bytes.len() + data.len() > limit {
                    Err(too_large(limit))
                } else {
                    held.add(data.len())
                };
                if let Err(refused) = room {
                    tokio::spawn(drain(body));
                    return Err(refused);
                }
                pace.add(data.len());
                bytes.extend_from_slice(&data);
            }
        }
    }
}

/// 400 for a body that comes too slowly.
pub fn late() -> Refused {
    bad_request("the request body did not arrive in time")
}

/// 413 for a body of more than `limit` bytes.
pub fn too_large(limit: usize) -> Refused {
    let detail = format!("the request body is larger than {} MiB", limit >> 20);
    fault(StatusCode::PAYLOAD_TOO_LARGE, detail)
}

/// Reads away what a client still sends, within limits.
pub async fn drain(mut body: Incoming) {
    let mut pace = Pace::start();
    while let Ok(Some(Ok(frame))) = timeout_at(pace.deadline(), body.frame()).await {
        pace.add(frame.data_ref().map_or(0, Bytes::len));
        if pace.received() > DRAIN_LIMIT as u64 {
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

impl Payload {
    /// Drops the bytes, which have been parsed, and keeps account of what was made of them.
    pub fn into_held(self) -> Held {
        self.held
    }

    /// Accounts for the values that parsing will make. `ends` are the bytes that end one or begin
    /// one; those within texts are counted too, which a limit this high can afford.
    fn account(&mut self, ends: &[u8]) -> Result<(), Refused> {
        let values = self.bytes.iter().filter(|b| ends.contains(b)).count();
        if values > VALUES_LIMIT {
            return Err(bad_request(format!(
                "the request body holds more than {VALUES_LIMIT} values"
            )));
        }
        self.held.add(values * VALUE_BYTES)
    }

    /// The JSON object that the body is. Nesting is limited by the parser; deeper documents are
    /// malformed, which is said with the sentence `malformed`.
    pub fn json_object(&mut self, malformed: &'static str) -> Result<Fields, Refused> {
        self.account(b",[{")?;
        match serde_json::from_slice(&self.bytes) {
            Ok(Value::Object(object)) => Ok(object),
            Ok(_) => Err(bad_request("JSON payload must be an object")),
            Err(_) => Err(bad_request(malformed)),
        }
    }

    /// The fields of the urlencoded form that the body is.
    pub fn form(&mut self, repeated: Repeated) -> Result<Fields, Refused> {
        self.account(b"&")?;
        Ok(form(&self.bytes, repeated))
    }
}

/// The sentence on a body that should be JSON and is not.
pub const MALFORMED: &str = "Malformed JSON payload";

/// Which of a repeated key's values counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeated {
    /// The first.
    First,
    /// The last.
    Last,
}

/// Fields of a urlencoded form; blank values are kept.
fn form(bytes: &[u8], repeated: Repeated) -> Fields {
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
    fn a_client_may_pause_but_not_for_ever() {
        let mut pace = Pace::start();
        let start = pace.start;
        assert_eq!(pace.deadline_at(start), start + PATIENCE);
        // Bytes that trickle gain no time.
        pace.add(100);
        let later = start + PATIENCE / 2;
        assert_eq!(pace.deadline_at(later), start + PATIENCE);
        pace.add(100 * SLOWEST as usize);
        assert_eq!(pace.deadline_at(later), later + PATIENCE);
        let end = start + PATIENCE + Duration::from_secs(100);
        assert_eq!(pace.deadline_at(end), end);
    }

    #[test]
    fn bodies_of_many_values_are_refused_before_they_are_parsed() {
        let payload = |text: String| Payload {
            bytes: text.into_bytes(),
            held: Budget::new(crate::budget::IN_FLIGHT).hold(),
        };
        let list = |n| format!("{{\"a\":[{}1]}}", "1,".repeat(n));
        assert!(
            payload(list(VALUES_LIMIT - 2))
                .json_object(MALFORMED)
                .is_ok()
        );
        let many = payload(list(VALUES_LIMIT)).json_object(MALFORMED);
        assert!(many.is_err_and(|r| r.status() == StatusCode::BAD_REQUEST));
        let many = payload("&".repeat(VALUES_LIMIT + 1)).form(Repeated::Last);
        assert!(many.is_err_and(|r| r.status() == StatusCode::BAD_REQUEST));
        let mut no_room = payload(list(1000));
        no_room.held = Budget::new(1000).hold();
        let refused = no_room.json_object(MALFORMED);
        assert!(refused.is_err_and(|r| r.status() == StatusCode::SERVICE_UNAVAILABLE));
    }

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
