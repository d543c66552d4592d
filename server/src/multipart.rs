//! Forms with files.

use crate::body::{Fields, PATIENCE, too_large};
use crate::reply::{Refused, bad_request};
use http_body_util::BodyDataStream;
use hyper::Request;
use hyper::body::{Body, Incoming};
use hyper::header::CONTENT_TYPE;
use multer::{Constraints, Field, Multipart, SizeLimit};
use serde_json::Value;

/// Largest body with files.
const LIMIT: usize = 512 << 20;
/// Largest part without a file.
const TEXT_LIMIT: usize = 1 << 20;

/// What a form holds.
#[derive(Debug, Default)]
pub struct Form {
    /// Texts by key; several of one key make a list.
    pub fields: Fields,
    /// Keys of the upload fields that hold a file.
    pub files: Vec<String>,
}

/// Names of the fields that may hold a file; files under other names are dropped.
const UPLOADS: [&str; 4] = ["ref_audio", "reference_audio", "ctx_audio", "src_audio"];

impl Form {
    /// Whether reference audio was sent.
    pub fn has_reference(&self) -> bool {
        self.files
            .iter()
            .any(|name| name == "ref_audio" || name == "reference_audio")
    }

    /// Whether source audio was sent.
    pub fn has_source(&self) -> bool {
        self.files
            .iter()
            .any(|name| name == "ctx_audio" || name == "src_audio")
    }
}

/// Reads a form. Files are read to their end and dropped: no task of this version works on audio.
pub async fn read(request: Request<Incoming>) -> Result<Form, Refused> {
    let header = request
        .headers()
        .get(CONTENT_TYPE)
        .and_then(|v| v.to_str().ok());
    let boundary = multer::parse_boundary(header.unwrap_or_default())
        .map_err(|_| bad_request("Missing boundary in multipart."))?;
    let body = request.into_body();
    if body.size_hint().lower() > LIMIT as u64 {
        return Err(too_large(LIMIT));
    }
    let limits = SizeLimit::new().whole_stream(LIMIT as u64);
    let constraints = Constraints::new().size_limit(limits);
    let stream = BodyDataStream::new(body);
    let mut parts = Multipart::with_constraints(stream, boundary, constraints);
    let mut form = Form::default();
    while let Some(part) = in_time(parts.next_field()).await? {
        add(&mut form, part).await?;
    }
    Ok(form)
}

async fn add(form: &mut Form, mut part: Field<'_>) -> Result<(), Refused> {
    let name = part.name().unwrap_or_default().to_owned();
    if let Some(file_name) = part.file_name().map(str::to_owned) {
        let mut size = 0;
        while let Some(chunk) = in_time(part.chunk()).await? {
            size += chunk.len();
        }
        // A file input that nobody touched has neither a name nor bytes.
        let is_there = size > 0 || !file_name.is_empty();
        if is_there && UPLOADS.contains(&name.as_str()) {
            form.files.push(name);
        }
        return Ok(());
    }
    let mut bytes = Vec::new();
    while let Some(chunk) = in_time(part.chunk()).await? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > TEXT_LIMIT {
            let limit = TEXT_LIMIT >> 10;
            return Err(bad_request(format!(
                "Part exceeded maximum size of {limit}KB."
            )));
        }
    }
    let text = Value::String(String::from_utf8_lossy(&bytes).into_owned());
    match form.fields.get_mut(&name) {
        None => drop(form.fields.insert(name, text)),
        Some(Value::Array(list)) => list.push(text),
        Some(single) => *single = Value::Array(vec![single.take(), text]),
    }
    Ok(())
}

/// The next piece of a form, unless the client takes too long or sends nonsense.
async fn in_time<T>(next: impl Future<Output = multer::Result<T>>) -> Result<T, Refused> {
    match tokio::time::timeout(PATIENCE, next).await {
        Ok(Ok(piece)) => Ok(piece),
        Ok(Err(multer::Error::StreamSizeExceeded { .. })) => Err(too_large(LIMIT)),
        Ok(Err(error)) => Err(bad_request(format!("the form cannot be read: {error}"))),
        Err(_) => Err(bad_request("the request body did not arrive in time")),
    }
}
