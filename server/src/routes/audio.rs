//! `GET /v1/audio?path=`: a result file, whole or in part.

use super::check_header;
use crate::app::App;
use crate::files::{self, Unserved};
use crate::reply::{FilePart, Refused, Reply, ReplyBody, bad_request, fault, json, whole};
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Request, Response, StatusCode};
use serde_json::json;
use std::io::{Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

pub async fn answer<T>(app: &Arc<App>, request: &Request<T>) -> Result<Reply, Refused> {
    let query = request.uri().query().unwrap_or_default();
    let last = |key: &str| {
        let values = form_urlencoded::parse(query.as_bytes()).filter(|(k, _)| k == key);
        values.last().map(|(_, value)| value.into_owned())
    };
    check_header(app, request, last("ai_token").as_deref())?;
    let Some(path) = last("path") else {
        let detail = json!({ "detail": [{
            "type": "missing", "loc": ["query", "path"], "msg": "Field required", "input": null,
        }] });
        return Err(json(StatusCode::UNPROCESSABLE_ENTITY, &detail).into());
    };
    let headers = request.headers().clone();
    let app = app.clone();
    let opened = tokio::task::spawn_blocking(move || open(&app.audio_dir, &path, &headers)).await;
    opened.unwrap_or_else(|_| {
        Err(fault(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the file could not be opened",
        ))
    })
}

/// Finds and opens the file and decides which part of it is asked for.
fn open(root: &Path, text: &str, headers: &HeaderMap) -> Result<Reply, Refused> {
    let not_found = || fault(StatusCode::NOT_FOUND, "Audio file not found");
    let path = files::result_file(root, text).map_err(|unserved| match unserved {
        Unserved::Denied => fault(
            StatusCode::FORBIDDEN,
            "Access denied: path outside allowed directory",
        ),
        Unserved::NotFound => not_found(),
    })?;
    let mut file = std::fs::File::open(&path).map_err(|_| not_found())?;
    let metadata = file.metadata().map_err(|_| not_found())?;
    let size = metadata.len();
    let modified = metadata.modified().unwrap_or(UNIX_EPOCH);
    let stamp = modified
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_nanos();
    let etag = format!("\"{stamp:x}-{size:x}\"");
    let modified = httpdate::fmt_http_date(modified);

    let text_of = |name| {
        headers
            .get(name)
            .and_then(|v: &HeaderValue| v.to_str().ok())
    };
    let unchanged = text_of(header::IF_RANGE).is_none_or(|tag| tag == etag || tag == modified);
    let range = match text_of(header::RANGE) {
        Some(range) if unchanged => part(range, size),
        _ => Part::Whole,
    };
    let (start, length, status) = match range {
        Part::Whole => (0, size, StatusCode::OK),
        Part::Range(start, end) => (start, end - start + 1, StatusCode::PARTIAL_CONTENT),
        Part::Malformed => {
            return Err(whole(
                StatusCode::BAD_REQUEST,
                "text/plain; charset=utf-8",
                "Malformed range header.",
            )
            .into());
        }
        Part::Unsatisfiable => {
            let status = StatusCode::RANGE_NOT_SATISFIABLE;
            let mut reply = whole(status, "text/plain; charset=utf-8", "");
            set(
                &mut reply,
                header::CONTENT_RANGE,
                &format!("bytes */{size}"),
            );
            return Err(reply.into());
        }
    };
    file.seek(SeekFrom::Start(start))
        .map_err(|e| bad_request(format!("cannot seek: {e}")))?;
    let body = FilePart::new(tokio::fs::File::from_std(file), length);
    let mut reply = Response::new(ReplyBody::File(body));
    *reply.status_mut() = status;
    set(&mut reply, header::CONTENT_TYPE, media_type(&path));
    set(&mut reply, header::ACCEPT_RANGES, "bytes");
    set(&mut reply, header::ETAG, &etag);
    set(&mut reply, header::LAST_MODIFIED, &modified);
    if status == StatusCode::PARTIAL_CONTENT {
        let end = start + length - 1;
        set(
            &mut reply,
            header::CONTENT_RANGE,
            &format!("bytes {start}-{end}/{size}"),
        );
    }
    Ok(reply)
}

fn set(reply: &mut Reply, name: header::HeaderName, value: &str) {
    // Numbers, dates and tags of our own are always valid header values.
    if let Ok(value) = HeaderValue::from_str(value) {
        reply.headers_mut().insert(name, value);
    }
}

fn media_type(path: &Path) -> &'static str {
    match path.extension().and_then(|e| e.to_str()) {
        Some("wav") => "audio/wav",
        Some("flac") => "audio/flac",
        Some("ogg" | "opus") => "audio/ogg",
        Some("aac") => "audio/aac",
        _ => "audio/mpeg",
    }
}

/// Which part of a file a Range header asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Whole,
    /// First and last byte.
    Range(u64, u64),
    /// Not a range of bytes.
    Malformed,
    /// Begins behind the end.
    Unsatisfiable,
}

/// Reads a Range header. Several ranges are answered with the whole file.
fn part(text: &str, size: u64) -> Part {
    let Some((unit, ranges)) = text.split_once('=') else {
        return Part::Malformed;
    };
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return Part::Malformed;
    }
    if ranges.contains(',') {
        return Part::Whole;
    }
    let Some((first, last)) = ranges.trim().split_once('-') else {
        return Part::Malformed;
    };
    let is_number = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if !is_number(first) || !is_number(last) || (first.is_empty() && last.is_empty()) {
        return Part::Malformed;
    }
    // Numbers too long to be a place in a file are past every end.
    let number = |s: &str| s.parse().unwrap_or(u64::MAX);
    let (start, end) = match (first.is_empty(), last.is_empty()) {
        (true, _) => (size.saturating_sub(number(last)), size.saturating_sub(1)),
        (false, true) => (number(first), size.saturating_sub(1)),
        (false, false) => (number(first), number(last)),
    };
    if !first.is_empty() && !last.is_empty() && start > end {
        return Part::Malformed;
    }
    if start >= size {
        return Part::Unsatisfiable;
    }
    Part::Range(start, end.min(size - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        for (text, size, expected) in [
            ("bytes=0-0", 10, Part::Range(0, 0)),
            ("bytes=2-5", 10, Part::Range(2, 5)),
            ("bytes=2-", 10, Part::Range(2, 9)),
            ("bytes=2-99", 10, Part::Range(2, 9)),
            ("bytes=-3", 10, Part::Range(7, 9)),
            ("bytes=-30", 10, Part::Range(0, 9)),
            ("Bytes = 1-2", 10, Part::Range(1, 2)),
            ("bytes=0-1,4-5", 10, Part::Whole),
            ("bytes=10-", 10, Part::Unsatisfiable),
            ("bytes=10-12", 10, Part::Unsatisfiable),
            ("bytes=-0", 10, Part::Unsatisfiable),
            ("bytes=0-", 0, Part::Unsatisfiable),
            ("bytes=99999999999999999999999-", 10, Part::Unsatisfiable),
            ("bytes=5-2", 10, Part::Malformed),
            ("bytes=-", 10, Part::Malformed),
            ("bytes=a-b", 10, Part::Malformed),
            ("bytes=--1", 10, Part::Malformed),
            ("bytes=1", 10, Part::Malformed),
            ("items=0-1", 10, Part::Malformed),
            ("bytes", 10, Part::Malformed),
        ] {
            assert_eq!(part(text, size), expected, "{text} of {size}");
        }
    }
}
