//! Answers: the envelope of success, the shape of errors, and bodies.

use hyper::body::{Body, Bytes, Frame, SizeHint};
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Serialize;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::mpsc;

/// A complete answer.
pub type Reply = Response<ReplyBody>;

/// An answer that says no; boxed, for results carry it far.
pub type Refused = Box<Reply>;

/// The body of an answer.
pub enum ReplyBody {
    /// Bytes in memory.
    Whole(Option<Bytes>),
    /// A part of a file.
    File(FilePart),
    /// What is sent piece by piece as it comes, until the sender is dropped.
    Stream(mpsc::Receiver<Bytes>),
}

/// What is left to send of a file.
pub struct FilePart {
    file: tokio::fs::File,
    left: u64,
    buffer: Vec<u8>,
}

impl FilePart {
    /// `left` bytes from where the file stands.
    pub fn new(file: tokio::fs::File, left: u64) -> Self {
        FilePart {
            file,
            left,
            buffer: vec![0; 128 << 10],
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<std::io::Result<Frame<Bytes>>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let want = usize::try_from(self.left)
            .unwrap_or(usize::MAX)
            .min(self.buffer.len());
        let mut read = ReadBuf::new(&mut self.buffer[..want]);
        if let Err(error) = ready!(Pin::new(&mut self.file).poll_read(cx, &mut read)) {
            return Poll::Ready(Some(Err(error)));
        }
        let filled = read.filled();
        if filled.is_empty() {
            // The length is promised already, so the connection has to break off.
            let error = std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
            return Poll::Ready(Some(Err(error)));
        }
        self.left -= filled.len() as u64;
        Poll::Ready(Some(Ok(Frame::data(Bytes::copy_from_slice(filled)))))
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        match self.get_mut() {
            ReplyBody::Whole(bytes) => Poll::Ready(bytes.take().map(|b| Ok(Frame::data(b)))),
            ReplyBody::File(part) => part.poll(cx),
            ReplyBody::Stream(pieces) => {
                pieces.poll_recv(cx).map(|p| p.map(|p| Ok(Frame::data(p))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            ReplyBody::Whole(bytes) => bytes.is_none(),
            ReplyBody::File(part) => part.left == 0,
            ReplyBody::Stream(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            ReplyBody::Whole(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64))
            }
            ReplyBody::File(part) => SizeHint::with_exact(part.left),
            ReplyBody::Stream(_) => SizeHint::default(),
        }
    }
}

/// An answer with a body in memory.
pub fn whole(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Reply {
    let body: Bytes = body.into();
    let mut reply = Response::new(ReplyBody::Whole(Some(body).filter(|b| !b.is_empty())));
    *reply.status_mut() = status;
    reply
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    reply
}

/// Server-sent events; each piece is one event.
pub fn events(pieces: mpsc::Receiver<Bytes>) -> Reply {
    let mut reply = Response::new(ReplyBody::Stream(pieces));
    let headers = reply.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    reply
}

/// An event with JSON as its data.
pub fn event(data: &impl Serialize) -> Bytes {
    // Plain values always serialise.
    let text = serde_json::to_string(data).unwrap_or_default();
    Bytes::from(format!("data: {text}\n\n"))
}

/// An answer in JSON.
pub fn json(status: StatusCode, value: &impl Serialize) -> Reply {
    match serde_json::to_vec(value) {
        Ok(bytes) => whole(status, "application/json", bytes),
        Err(_) => whole(
            StatusCode::INTERNAL_SERVER_ERROR,
            "application/json",
            "{\"detail\":\"the answer could not be written as JSON\"}",
        ),
    }
}

/// The envelope, in the order of its keys on the wire.
#[derive(Serialize)]
struct Envelope<T> {
    data: T,
    code: u16,
    error: Option<String>,
    timestamp: u64,
    extra: Option<()>,
}

/// Success in the envelope.
pub fn success(data: impl Serialize) -> Reply {
    envelope(200, data, None)
}

/// An error in the envelope, with the status of success; some clients look only there.
pub fn envelope_error(code: u16, error: String) -> Refused {
    Box::new(envelope(code, (), Some(error)))
}

/// Work that was begun and failed.
pub fn failure(error: String) -> Refused {
    envelope_error(500, error)
}

fn envelope(code: u16, data: impl Serialize, error: Option<String>) -> Reply {
    let timestamp = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_millis();
    let timestamp = u64::try_from(timestamp).unwrap_or(u64::MAX);
    json(
        StatusCode::OK,
        &Envelope {
            data,
            code,
            error,
            timestamp,
            extra: None,
        },
    )
}

/// An error with its text under `detail`.
pub fn fault(status: StatusCode, detail: impl Into<String>) -> Refused {
    Box::new(json(
        status,
        &serde_json::json!({ "detail": detail.into() }),
    ))
}

/// 400 with its text under `detail`.
pub fn bad_request(detail: impl Into<String>) -> Refused {
    fault(StatusCode::BAD_REQUEST, detail)
}

/// 401.
pub fn denied(detail: &str) -> Refused {
    fault(StatusCode::UNAUTHORIZED, detail)
}
