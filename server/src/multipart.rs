//! Forms with files.

use crate::body::{Fields, Pace, drain, late, too_large};
use crate::budget::{Budget, Held};
use crate::reply::{Refused, bad_request, fault};
use http_body_util::BodyDataStream;
use hyper::body::{Body, Bytes, Frame, Incoming};
use hyper::header::{CONTENT_TYPE, EXPECT};
use hyper::{Request, StatusCode};
use multer::{Field, Multipart};
use serde_json::Value;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, ready};
use tempfile::TempPath;
use tokio::io::AsyncWriteExt;

/// Largest body with files.
pub const LIMIT: usize = 512 << 20;
/// Largest part without a file.
const TEXT_LIMIT: usize = 1 << 20;
/// All texts and names of a form.
const TEXTS_LIMIT: usize = 8 << 20;
/// Parts of a form.
const PARTS_LIMIT: usize = 256;
/// What may lie between two parts: the parser keeps it and searches it again with every piece
/// that arrives.
const HEAD_LIMIT: usize = 64 << 10;

/// What a form holds.
#[derive(Debug, Default)]
pub struct Form {
    /// Texts by key; several of one key make a list.
    pub fields: Fields,
    /// Files, each under a key that may hold one; of several under one key the first.
    pub files: Vec<Upload>,
}

/// A file that was sent. It is removed from the disk when this is dropped.
#[derive(Debug)]
pub struct Upload {
    /// Key of its field.
    pub name: String,
    /// Where it lies.
    pub path: TempPath,
}

impl Upload {
    /// Writes a file that came within another body.
    pub fn store(dir: &Path, name: &str, ending: &str, bytes: &[u8]) -> Result<Self, Refused> {
        let file_name = format!("audio.{ending}");
        let mut file = empty(dir, name, &file_name).map_err(not_stored)?;
        std::io::Write::write_all(&mut file, bytes).map_err(not_stored)?;
        Ok(Upload {
            name: name.to_owned(),
            path: file.into_temp_path(),
        })
    }
}

/// A form while it is read.
struct Reader<'a> {
    form: Form,
    parts: usize,
    text_bytes: usize,
    held: Held,
    source: Arc<Mutex<Source>>,
    /// Folder for files; without one they are dropped.
    dir: Option<&'a Path>,
}

/// Names of the fields that may hold a file; files under other names are dropped.
const UPLOADS: [&str; 4] = ["ref_audio", "reference_audio", "ctx_audio", "src_audio"];

impl Form {
    /// Takes the file under the first of these keys that holds one.
    pub fn take_file(&mut self, names: &[&str]) -> Option<Upload> {
        let has = |name: &&str| self.files.iter().position(|file| file.name == **name);
        let at = names.iter().find_map(has)?;
        Some(self.files.swap_remove(at))
    }
}

/// Reads a form of at most `limit` bytes. Files go to the folder `dir` as they arrive; without a
/// folder they are read to their end and dropped. What is returned beside the form accounts for
/// its texts.
pub async fn read(
    request: Request<Incoming>,
    limit: usize,
    budget: &Budget,
    dir: Option<&Path>,
) -> Result<(Form, Held), Refused> {
    let header = request.headers().get(CONTENT_TYPE);
    let header = header.and_then(|v| v.to_str().ok()).unwrap_or_default();
    let boundary = multer::parse_boundary(header)
        .map_err(|_| bad_request("Missing boundary in multipart."))?;
    let waits = request.headers().contains_key(EXPECT);
    let body = request.into_body();
    if body.size_hint().lower() > limit as u64 {
        if !waits {
            tokio::spawn(drain(body));
        }
        return Err(too_large(limit));
    }
    let source = Arc::new(Mutex::new(Source {
        body,
        limit,
        pace: Pace::start(),
        head: None,
        pauses: false,
        fault: None,
    }));
    let mut reader = Reader {
        form: Form::default(),
        parts: 0,
        text_bytes: 0,
        held: budget.hold(),
        source,
        dir,
    };
    let stream = BodyDataStream::new(Tap(reader.source.clone()));
    let end = reader.read(Multipart::new(stream, boundary)).await;
    let Reader {
        form, held, source, ..
    } = reader;
    if end.is_err()
        && let Some(source) = Arc::into_inner(source)
    {
        // So that the client gets to see the answer.
        tokio::spawn(drain(
            source.into_inner().unwrap_or_else(|e| e.into_inner()).body,
        ));
    }
    end.map(|()| (form, held))
}

impl Reader<'_> {
    async fn read(&mut self, mut parts: Multipart<'_>) -> Result<(), Refused> {
        loop {
            lock(&self.source).head = Some(0);
            let part = self.in_time(parts.next_field()).await?;
            lock(&self.source).head = None;
            let Some(part) = part else { return Ok(()) };
            self.parts += 1;
            if self.parts > PARTS_LIMIT {
                return Err(bad_request(format!(
                    "the form has more than {PARTS_LIMIT} parts"
                )));
            }
            self.add(part).await?;
        }
    }

    async fn add(&mut self, mut part: Field<'_>) -> Result<(), Refused> {
        let name = part.name().unwrap_or_default().to_owned();
        self.keep(name.len())?;
        if let Some(file_name) = part.file_name().map(str::to_owned) {
            return self.add_file(name, &file_name, part).await;
        }
        let mut bytes = Vec::new();
        while let Some(chunk) = self.in_time(part.chunk()).await? {
            self.keep(chunk.len())?;
            bytes.extend_from_slice(&chunk);
            if bytes.len() > TEXT_LIMIT {
                let limit = TEXT_LIMIT >> 10;
                return Err(bad_request(format!(
                    "Part exceeded maximum size of {limit}KB."
                )));
            }
        }
        let text = Value::String(String::from_utf8_lossy(&bytes).into_owned());
        let fields = &mut self.form.fields;
        match fields.get_mut(&name) {
            None => drop(fields.insert(name, text)),
            Some(Value::Array(list)) => list.push(text),
            Some(single) => *single = Value::Array(vec![single.take(), text]),
        }
        Ok(())
    }

    /// Writes a file to the disk, piece by piece.
    async fn add_file(
        &mut self,
        name: String,
        file_name: &str,
        mut part: Field<'_>,
    ) -> Result<(), Refused> {
        let is_known = UPLOADS.contains(&name.as_str());
        let is_first = self.form.files.iter().all(|file| file.name != name);
        let mut file = match self.dir.filter(|_| is_known && is_first) {
            Some(dir) => Some(create(dir, &name, file_name).await?),
            None => None,
        };
        let mut size = 0;
        while let Some(chunk) = self.in_time(part.chunk()).await? {
            size += chunk.len();
            if let Some((file, _)) = &mut file {
                file.write_all(&chunk).await.map_err(not_stored)?;
            }
        }
        // A file input that nobody touched has neither a name nor bytes.
        if let Some((mut file, path)) = file
            && (size > 0 || !file_name.is_empty())
        {
            file.flush().await.map_err(not_stored)?;
            self.form.files.push(Upload { name, path });
        }
        Ok(())
    }

    /// Accounts for bytes that are kept.
    fn keep(&mut self, bytes: usize) -> Result<(), Refused> {
        self.text_bytes += bytes;
        if self.text_bytes > TEXTS_LIMIT {
            let detail = format!("the form's texts are larger than {} MiB", TEXTS_LIMIT >> 20);
            return Err(fault(StatusCode::PAYLOAD_TOO_LARGE, detail));
        }
        self.held.add(bytes)
    }

    /// The next piece of a form, unless the client takes too long or sends nonsense.
    async fn in_time<T>(
        &self,
        next: impl Future<Output = multer::Result<T>>,
    ) -> Result<T, Refused> {
        let deadline = lock(&self.source).pace.deadline();
        let error = match tokio::time::timeout_at(deadline, next).await {
            Ok(Ok(piece)) => return Ok(piece),
            Ok(Err(error)) => error,
            Err(_) => return Err(late()),
        };
        let source = lock(&self.source);
        Err(match source.fault {
            Some(Fault::TooLarge) => too_large(source.limit),
            Some(Fault::LongHead) => bad_request(format!(
                "the form cannot be read: more than {} KiB without a part",
                HEAD_LIMIT >> 10
            )),
            Some(Fault::Broken) => bad_request("the request body broke off"),
            None => bad_request(format!("the form cannot be read: {error}")),
        })
    }
}

/// A new file for an upload; other requests do not wait for the disk.
async fn create(
    dir: &Path,
    name: &str,
    file_name: &str,
) -> Result<(tokio::fs::File, TempPath), Refused> {
    let (dir, name) = (dir.to_path_buf(), name.to_owned());
    let file_name = file_name.to_owned();
    let created = tokio::task::spawn_blocking(move || empty(&dir, &name, &file_name));
    let file = match created.await {
        Ok(file) => file.map_err(not_stored)?,
        Err(broken) => return Err(not_stored(std::io::Error::other(broken))),
    };
    let (file, path) = file.into_parts();
    Ok((tokio::fs::File::from_std(file), path))
}

/// An empty file. Of the client's name only the last ending is taken over, letters and digits of
/// it.
fn empty(dir: &Path, name: &str, file_name: &str) -> std::io::Result<tempfile::NamedTempFile> {
    let prefix = match name {
        "ref_audio" | "reference_audio" => "ref_audio_",
        _ => "ctx_audio_",
    };
    let ending = Path::new(file_name).extension().and_then(|e| e.to_str());
    let plain = |e: &&str| e.len() <= 8 && e.bytes().all(|b| b.is_ascii_alphanumeric());
    let suffix = ending.filter(plain).map(|e| format!(".{e}"));
    tempfile::Builder::new()
        .prefix(prefix)
        .suffix(suffix.as_deref().unwrap_or_default())
        .tempfile_in(dir)
}

/// The disk's fault, not the client's.
fn not_stored(error: std::io::Error) -> Refused {
    tracing::error!("an upload cannot be stored: {error}");
    fault(
        StatusCode::INSUFFICIENT_STORAGE,
        format!(
            "the upload could not be stored on the server's disk ({})",
            error.kind()
        ),
    )
}

/// Where a form comes from. The parser owns one end, the reader looks in from the other.
struct Source {
    body: Incoming,
    limit: usize,
    pace: Pace,
    /// Bytes since the last part ended; `None` within a part.
    head: Option<usize>,
    /// The parser has a piece that it has not looked at.
    pauses: bool,
    fault: Option<Fault>,
}

/// Why a form's body gives no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    TooLarge,
    LongHead,
    Broken,
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Fault::TooLarge => "too large",
            Fault::LongHead => "no part",
            Fault::Broken => "broken off",
        })
    }
}

impl std::error::Error for Fault {}

fn lock(source: &Mutex<Source>) -> MutexGuard<'_, Source> {
    // Every statement leaves a valid state.
    source
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Source {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        if self.head.is_some() && std::mem::take(&mut self.pauses) {
            // The parser takes all it can get before it looks: it is made to look.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if self.head.is_some_and(|bytes| bytes > HEAD_LIMIT) {
            return Poll::Ready(Some(Err(Fault::LongHead)));
        }
        let frame = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            None => return Poll::Ready(None),
            Some(Err(_)) => return Poll::Ready(Some(Err(Fault::Broken))),
            Some(Ok(frame)) => frame,
        };
        let bytes = frame.data_ref().map_or(0, Bytes::len);
        self.pace.add(bytes);
        self.head = self.head.map(|head| head + bytes);
        self.pauses = true;
        if self.pace.received() > self.limit as u64 {
            return Poll::Ready(Some(Err(Fault::TooLarge)));
        }
        Poll::Ready(Some(Ok(frame)))
    }
}

/// The parser's end of a [`Source`].
struct Tap(Arc<Mutex<Source>>);

impl Body for Tap {
    type Data = Bytes;
    type Error = Fault;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        let mut source = lock(&self.0);
        let polled = source.poll(cx);
        if let Poll::Ready(Some(Err(fault))) = &polled {
            source.fault = Some(*fault);
        }
        polled
    }
}
