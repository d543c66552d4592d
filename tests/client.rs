//! A client that speaks bytes: one socket, one request, what came back.

use serde_json::Value;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// How long a test waits for a server before it fails.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// What came back.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// Body.
    pub body: Vec<u8>,
}

impl Answer {
    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(n, _)| n == name);
        found.map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }

    /// `data` of the envelope.
    pub fn data(&self) -> Value {
        let json = self.json();
        assert_eq!(
            (self.status, &json["code"]),
            (200, &Value::from(200)),
            "{json}"
        );
        json["data"].clone()
    }

    /// `detail` of an error.
    pub fn detail(&self) -> String {
        self.json()["detail"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }
}

/// An open connection.
pub fn connect(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(addr).expect("the server listens");
    stream
        .set_read_timeout(Some(PATIENCE))
        .expect("a positive timeout");
    stream
        .set_write_timeout(Some(PATIENCE))
        .expect("a positive timeout");
    stream
}

/// Reads one answer; leaves the connection open. `head` has no body whatever its headers say.
pub fn receive(stream: &mut TcpStream, head: bool) -> Answer {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(at) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            break at;
        }
        let mut byte = [0];
        let read = stream.read(&mut byte).expect("an answer in time");
        assert_ne!(
            read,
            0,
            "the connection ended early: {}",
            String::from_utf8_lossy(&bytes)
        );
        bytes.push(byte[0]);
    };
    let text = String::from_utf8(bytes[..end].to_vec()).expect("a head of ASCII");
    let mut lines = text.lines();
    let status = lines
        .next()
        .and_then(|l| l.split(' ').nth(1))
        .and_then(|s| s.parse().ok());
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(n, v)| (n.to_lowercase(), v.trim().to_owned()))
        .collect();
    let mut answer = Answer {
        status: status.expect("a status"),
        headers,
        body: Vec::new(),
    };
    if !head {
        let length = answer
            .header("content-length")
            .and_then(|l| l.parse().ok())
            .unwrap_or(0);
        answer.body = vec![0; length];
        stream.read_exact(&mut answer.body).expect("the whole body");
    }
    answer
}

/// Sends bytes, reads one answer.
pub fn exchange(addr: SocketAddr, bytes: &[u8]) -> Answer {
    let mut stream = connect(addr);
    stream.write_all(bytes).expect("the request is taken");
    receive(&mut stream, bytes.starts_with(b"HEAD"))
}

/// A request with headers and a body.
pub fn send(
    addr: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Answer {
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {addr}\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if !body.is_empty() || method == "POST" {
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    head.push_str("\r\n");
    exchange(addr, &[head.as_bytes(), body].concat())
}

/// A request whose answer is a stream of events: status, and the data of each.
pub fn events(addr: SocketAddr, method: &str, path: &str, body: &[u8]) -> (Answer, Vec<String>) {
    let mut stream = connect(addr);
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\nContent-Type: \
         application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream
        .write_all(&[head.as_bytes(), body].concat())
        .expect("the request is taken");
    let mut answer = receive(&mut stream, true);
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).expect("the whole stream");
    answer.body = match answer.header("transfer-encoding") {
        Some("chunked") => unchunked(&rest),
        _ => rest,
    };
    let text = answer.text();
    let data = text.split("\n\n").filter_map(|e| e.strip_prefix("data: "));
    let data = data.map(str::to_owned).collect();
    (answer, data)
}

/// A body without the lengths of its chunks.
fn unchunked(mut bytes: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let end = bytes
            .windows(2)
            .position(|w| w == b"\r\n")
            .expect("the length of a chunk");
        let length = std::str::from_utf8(&bytes[..end]).expect("a number");
        let length = usize::from_str_radix(length, 16).expect("a number");
        if length == 0 {
            return body;
        }
        body.extend_from_slice(&bytes[end + 2..end + 2 + length]);
        bytes = &bytes[end + 4 + length..];
    }
}

/// GET without headers.
pub fn get(addr: SocketAddr, path: &str) -> Answer {
    send(addr, "GET", path, &[], &[])
}

/// POST of JSON.
pub fn post(addr: SocketAddr, path: &str, body: &Value) -> Answer {
    let json = [("Content-Type", "application/json")];
    send(addr, "POST", path, &json, body.to_string().as_bytes())
}

/// Queues a song and returns its identifier.
pub fn release(addr: SocketAddr, body: &Value) -> String {
    let answer = post(addr, "/release_task", body);
    let id = answer.data()["task_id"].as_str().map(str::to_owned);
    id.unwrap_or_else(|| panic!("no identifier in {}", answer.text()))
}

/// The entry of one job.
pub fn query(addr: SocketAddr, id: &str) -> Value {
    post(
        addr,
        "/query_result",
        &serde_json::json!({ "task_id_list": [id] }),
    )
    .data()[0]
        .clone()
}

/// The items within an entry.
pub fn items(entry: &Value) -> Value {
    let text = entry["result"]
        .as_str()
        .unwrap_or_else(|| panic!("no text in {entry}"));
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

/// Waits until something is there.
pub fn wait<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = std::time::Instant::now();
    while start.elapsed() < PATIENCE {
        if let Some(found) = look() {
            return found;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("waited in vain for {what}");
}

/// Waits until a job ended; its entry.
pub fn finished(addr: SocketAddr, id: &str) -> Value {
    wait("the end of a job", || {
        Some(query(addr, id)).filter(|entry| entry["status"] != 0)
    })
}

/// Bytes of samples in a 16-bit WAV file, as its data chunk says; what is told of the song is
/// behind them.
pub fn wav_data(file: &[u8]) -> usize {
    match file.get(36..44) {
        Some([b'd', b'a', b't', b'a', a, b, c, d]) => u32::from_le_bytes([*a, *b, *c, *d]) as usize,
        _ => panic!("a WAV file starts with its format and its samples"),
    }
}
