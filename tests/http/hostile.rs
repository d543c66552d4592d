//! Clients that mean harm, or are broken: whatever they send, the next good request succeeds.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;
use tests::client::{connect, get, post};
use tests::fake::Fake;
use tests::random::Random;

/// Requests that are good, each with all it needs.
fn seeds() -> Vec<Vec<u8>> {
    let post = |path: &str, kind: &str, body: &str| {
        format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: {kind}\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .into_bytes()
    };
    let get = |path: &str| {
        format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nRange: bytes=0-9\r\n\r\n")
            .into_bytes()
    };
    const JSON: &str = "application/json";
    const SONG: &str = r#"{"prompt": "a", "bpm": 90, "seed": "1,2", "timesteps": "0.9,0.5",
        "param_obj": "{\"key\": \"C\"}", "metas": {"duration": 3}, "task_type": "text2music",
        "track_classes": ["a"], "repainting_end": -1, "src_audio_path": "a/../b.wav"}"#;
    const FORM: &str = "--b\r\nContent-Disposition: form-data; name=\"prompt\"\r\n\r\na\r\n\
        --b\r\nContent-Disposition: form-data; name=\"src_audio\"; filename=\"a.wav\"\r\n\
        Content-Type: audio/wav\r\n\r\nRIFF\r\n--b--\r\n";
    const CHAT: &str = r#"{"messages": [{"role": "user", "content": [{"type": "text",
        "text": "<prompt>a</prompt>"}, {"type": "input_audio", "input_audio": {"data": "AAEC"}}]}],
        "top_k": 1, "audio_config": {"bpm": 90}}"#;
    vec![
        post("/release_task", JSON, SONG),
        post("/release_task", "multipart/form-data; boundary=b", FORM),
        post(
            "/release_task",
            "application/x-www-form-urlencoded",
            "prompt=a&bpm=90&seed=%31",
        ),
        post("/release_task", "text/plain", "prompt=a&metas=%7B%7D"),
        post("/query_result", JSON, r#"{"task_id_list": "[\"a\", 1]"}"#),
        post("/v1/chat/completions", JSON, CHAT),
        post(
            "/cancel_task",
            JSON,
            r#"{"task_id": "00000000-0000-4000-8000-000000000000"}"#,
        ),
        post(
            "/create_random_sample",
            JSON,
            r#"{"sample_type": "custom_mode"}"#,
        ),
        post("/v1/init", JSON, r#"{"slot": 9, "init_llm": "maybe"}"#),
        get("/v1/audio?path=%2Ftmp%2Fx%00.mp3&ai_token=a"),
        get("/v1/jobs/00000000-0000-4000-8000-000000000000/events"),
        get("/api/v1/models?x=%ff"),
    ]
}

/// Changes a request in one of the ways in which bytes go wrong.
fn mutate(bytes: &mut Vec<u8>, random: &mut Random) {
    const SPLICES: [&[u8]; 16] = [
        b"\0",
        b"\"",
        b"{",
        b"[[[[[[[[",
        b"%",
        b"\r\n",
        b"\r\n\r\n",
        b"1e999",
        b"-1",
        b"null",
        b"\xff\xfe",
        b"\\u0000",
        b"../",
        b"99999999999999999999",
        b"\xf0\x9f\x8e\xb5",
        b"--b",
    ];
    for _ in 0..=random.below(3) {
        let at = random.below(bytes.len().max(1)).min(bytes.len());
        match random.below(5) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            1 => bytes.truncate(at),
            2 => {
                let splice = SPLICES[random.below(SPLICES.len())];
                bytes.splice(at..at, splice.iter().copied());
            }
            3 => {
                let end = (at + random.below(20)).min(bytes.len());
                bytes.drain(at..end);
            }
            _ => {
                let end = (at + random.below(40)).min(bytes.len());
                let copy = bytes[at..end].to_vec();
                bytes.splice(at..at, copy);
            }
        }
    }
}

/// Sends bytes; how the answer begins. Where nothing comes for a while, the server waits for
/// more, and is told that there is none.
fn answer(addr: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = connect(addr);
    // A server that has answered may close before it has read everything.
    let _ = stream.write_all(bytes);
    let short = stream.set_read_timeout(Some(Duration::from_millis(50)));
    short.expect("a positive timeout");
    if stream.peek(&mut [0]).is_err() {
        let _ = stream.shutdown(Shutdown::Write);
    }
    let long = stream.set_read_timeout(Some(tests::client::PATIENCE));
    long.expect("a positive timeout");
    let mut answer = vec![0; 4096];
    let read = stream.read(&mut answer).unwrap_or(0);
    answer.truncate(read);
    answer
}

#[test]
fn mutated_requests_never_bring_it_down() {
    // Nothing is queued, so nothing is made.
    let fake = Fake::start(&[("ACESTEP_QUEUE_MAXSIZE", "0")]);
    let seeds = seeds();
    let mut random = Random::named("mutated requests");
    let mut answered = 0;
    for round in 0..1500 {
        let mut bytes = seeds[round % seeds.len()].clone();
        mutate(&mut bytes, &mut random);
        let answer = answer(fake.addr, &bytes);
        let status = answer.get(9..12).map(String::from_utf8_lossy);
        answered += usize::from(status.is_some());
        let is_fault = status.is_some_and(|s| s.starts_with('5') && s != "503");
        assert!(
            !is_fault,
            "{}\n\n{}",
            String::from_utf8_lossy(&bytes),
            String::from_utf8_lossy(&answer)
        );
        if round % 100 == 0 {
            assert_eq!(get(fake.addr, "/health").status, 200);
        }
    }
    assert!(answered > 500, "{answered} were answered");
    let stats = get(fake.addr, "/v1/stats").data();
    assert_eq!(stats["jobs"]["total"], 0, "nothing is left of any of them");
    let uploads = fake.data_dir().join("tmp/uploads");
    assert_eq!(std::fs::read_dir(uploads).map_or(9, Iterator::count), 0);
}

#[test]
fn good_requests_are_good_before_they_are_mutated() {
    let fake = Fake::start(&[("ACESTEP_QUEUE_MAXSIZE", "0")]);
    for bytes in seeds() {
        let answer = answer(fake.addr, &bytes);
        let text = String::from_utf8_lossy(&answer);
        assert!(
            text.starts_with("HTTP/1.1 ") && !text.starts_with("HTTP/1.1 5"),
            "{text}"
        );
    }
}

#[test]
fn clients_that_stop_reading_hold_up_nobody() {
    let fake = Fake::start(&[]);
    fake.steering.hold(true);
    let id = tests::client::release(fake.addr, &serde_json::json!({}));
    let followers: Vec<_> = (0..40)
        .map(|_| {
            let mut stream = connect(fake.addr);
            let head = format!("GET /v1/jobs/{id}/events HTTP/1.1\r\nHost: x\r\n\r\n");
            stream.write_all(head.as_bytes()).expect("open");
            stream
        })
        .collect();
    std::thread::sleep(Duration::from_millis(100));
    let start = std::time::Instant::now();
    for _ in 0..20 {
        assert_eq!(get(fake.addr, "/health").status, 200);
        let list = serde_json::json!({ "task_id_list": [id] });
        assert_eq!(post(fake.addr, "/query_result", &list).status, 200);
    }
    assert!(start.elapsed() < Duration::from_secs(5));
    fake.steering.hold(false);
    drop(followers);
    assert!(fake.stop() < Duration::from_secs(12));
}
