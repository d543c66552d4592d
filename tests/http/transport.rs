//! Paths, methods, limits, slow clients, the envelope.

use serde_json::json;
use std::io::Write;
use std::net::TcpStream;
use std::time::Instant;
use tests::client::{connect, exchange, get, post, receive, send, wait};
use tests::fake::Fake;

#[test]
fn the_envelope() {
    let fake = Fake::start(&[]);
    let answer = get(fake.addr, "/health");
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let text = answer.text();
    // Keys in their order, compact, nothing else.
    let places: Vec<_> = [
        "{\"data\":",
        ",\"code\":200",
        ",\"error\":null",
        ",\"timestamp\":1",
    ]
    .iter()
    .map(|key| text.find(key).unwrap_or_else(|| panic!("{key} in {text}")))
    .collect();
    assert!(
        places.is_sorted() && text.ends_with(",\"extra\":null}"),
        "{text}"
    );
    let json = answer.json();
    assert!(
        json["timestamp"]
            .as_u64()
            .is_some_and(|ms| ms > 1_700_000_000_000)
    );
    assert_eq!(json.as_object().map(|o| o.len()), Some(5));
}

#[test]
fn texts_are_not_escaped() {
    let fake = Fake::start(&[]);
    let answer = post(
        fake.addr,
        "/query_result",
        &json!({ "task_id_list": ["zażółć 音楽"] }),
    );
    assert!(answer.text().contains("zażółć 音楽"), "{}", answer.text());
}

#[test]
fn unknown_paths_and_wrong_methods() {
    let fake = Fake::start(&[]);
    for path in [
        "/",
        "/nothing",
        "/Health",
        "/health/x",
        "/api",
        "/v1",
        "/release_task2",
    ] {
        let answer = get(fake.addr, path);
        assert_eq!(
            (answer.status, answer.detail().as_str()),
            (404, "Not Found"),
            "{path}"
        );
    }
    for (method, path, allow) in [
        ("POST", "/health", "GET"),
        ("DELETE", "/v1/audio", "GET"),
        ("GET", "/release_task", "POST"),
        ("HEAD", "/release_task", "POST"),
        ("PUT", "/query_result", "POST"),
        ("OPTIONS", "/health", "GET"),
    ] {
        let answer = send(fake.addr, method, path, &[], &[]);
        assert_eq!(
            (answer.status, answer.header("allow")),
            (405, Some(allow)),
            "{method} {path}"
        );
        if method != "HEAD" {
            assert_eq!(answer.detail(), "Method Not Allowed");
        }
    }
}

#[test]
fn a_slash_too_many_is_redirected() {
    let fake = Fake::start(&[]);
    let answer = get(fake.addr, "/health/?a=1");
    assert_eq!(
        (answer.status, answer.header("location")),
        (307, Some("/health?a=1"))
    );
    assert_eq!(
        get(fake.addr, "/api/v1/stats/").header("location"),
        Some("/api/v1/stats")
    );
}

#[test]
fn every_route_is_there_under_the_prefix_too() {
    let fake = Fake::start(&[]);
    for path in [
        "/health",
        "/v1/stats",
        "/v1/model_inventory",
        "/docs",
        "/openapi.json",
    ] {
        assert_eq!(get(fake.addr, &format!("/api{path}")).status, 200, "{path}");
    }
    assert_eq!(post(fake.addr, "/api/release_task", &json!({})).status, 200);
    assert_eq!(
        post(fake.addr, "/api/query_result", &json!({})).data(),
        json!([])
    );
    assert_eq!(get(fake.addr, "/api/v1/audio").status, 422);
}

#[test]
fn docs_name_every_field() {
    let fake = Fake::start(&[("ACESTEP_API_KEY", "k")]);
    let page = get(fake.addr, "/docs");
    assert_eq!(
        page.header("content-type"),
        Some("text/html; charset=utf-8")
    );
    let schema = get(fake.addr, "/openapi.json").json();
    for field in server::fields::FIELDS {
        assert!(page.text().contains(field.name));
        let content = &schema["paths"]["/release_task"]["post"]["requestBody"]["content"];
        let properties = &content["application/json"]["schema"]["properties"];
        assert!(
            properties[field.name]["description"].is_string(),
            "{}",
            field.name
        );
    }
}

#[test]
fn every_route_of_the_table_is_documented_guarded_and_there() {
    let fake = Fake::start(&[("ACESTEP_API_KEY", "k")]);
    let schema = get(fake.addr, "/openapi.json").json();
    let page = get(fake.addr, "/docs").text();
    for row in server::routes::ROUTES {
        let (method, other) = match row.method.as_str() {
            "GET" => ("GET", "POST"),
            method => (method, "GET"),
        };
        let operation = &schema["paths"][row.path][method.to_lowercase()];
        assert_eq!(operation["summary"], row.help, "{}", row.path);
        assert!(page.contains(row.path) && page.contains(row.help));
        let is_open = row.guard == server::routes::Guard::Open;
        assert_eq!(operation["security"].is_null(), is_open, "{}", row.path);
        assert_eq!(operation["responses"]["401"].is_null(), is_open);
        let path = row.path.replace("{task_id}", "x");
        let json = [("Content-Type", "application/json")];
        for path in [format!("/api{path}"), path] {
            let answer = send(fake.addr, method, &path, &json, b"{}");
            assert_eq!(answer.status, if is_open { 200 } else { 401 }, "{path}");
            let wrong = send(fake.addr, other, &path, &json, &[]);
            assert_eq!(
                (wrong.status, wrong.header("allow")),
                (405, Some(method)),
                "{path}"
            );
            let slash = send(fake.addr, method, &format!("{path}/"), &[], &[]);
            assert_eq!(slash.header("location"), Some(path.as_str()));
        }
    }
}

#[test]
fn head_is_answered_like_get_without_a_body() {
    let fake = Fake::start(&[]);
    let length = get(fake.addr, "/docs").body.len().to_string();
    let head = send(fake.addr, "HEAD", "/docs", &[], &[]);
    assert_eq!(
        (head.status, head.header("content-length")),
        (200, Some(length.as_str()))
    );
}

#[test]
fn a_connection_serves_many_requests() {
    let fake = Fake::start(&[]);
    let mut stream = connect(fake.addr);
    for _ in 0..3 {
        stream
            .write_all(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            .expect("open");
        assert_eq!(receive(&mut stream, false).status, 200);
    }
    // An error does not end it either.
    stream
        .write_all(b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n")
        .expect("open");
    assert_eq!(receive(&mut stream, false).status, 404);
    stream
        .write_all(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        .expect("open");
    assert_eq!(receive(&mut stream, false).status, 200);
}

#[test]
fn a_client_may_wait_for_leave_to_send() {
    let fake = Fake::start(&[]);
    let mut stream = connect(fake.addr);
    let head = "POST /query_result HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
                Content-Length: 2\r\nExpect: 100-continue\r\n\r\n";
    stream.write_all(head.as_bytes()).expect("open");
    assert_eq!(receive(&mut stream, true).status, 100);
    stream.write_all(b"{}").expect("open");
    assert_eq!(receive(&mut stream, false).data(), json!([]));
}

#[test]
fn chunked_bodies_are_read() {
    let fake = Fake::start(&[]);
    let answer = exchange(
        fake.addr,
        b"POST /query_result HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
          Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n1\r\n}\r\n0\r\n\r\n",
    );
    assert_eq!(answer.data(), json!([]));
}

#[test]
fn half_sent_requests_hold_up_nobody() {
    let fake = Fake::start(&[]);
    let halves: Vec<_> = (0..50)
        .map(|i| {
            let mut stream = connect(fake.addr);
            let part: &[u8] = match i % 3 {
                0 => b"GET /hea",
                1 => b"POST /release_task HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{\"pro",
                _ => b"",
            };
            stream.write_all(part).expect("open");
            stream
        })
        .collect();
    let start = Instant::now();
    for _ in 0..20 {
        assert_eq!(get(fake.addr, "/health").status, 200);
    }
    assert!(start.elapsed().as_secs() < 5);
    drop(halves);
    // Requests that broke off leave nothing behind.
    assert_eq!(get(fake.addr, "/v1/stats").data()["jobs"]["total"], 0);
}

#[test]
fn nonsense_is_no_request() {
    let fake = Fake::start(&[]);
    assert_eq!(exchange(fake.addr, b"nonsense\r\n\r\n").status, 400);
    assert_eq!(get(fake.addr, "/health").status, 200);
}

#[test]
fn bodies_over_the_limit_are_refused() {
    let fake = Fake::start(&[]);
    // By its length, before anything is sent.
    let head = format!(
        "POST /release_task HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
         Expect: 100-continue\r\nContent-Length: {}\r\n\r\n",
        (64 << 20) + 1
    );
    let answer = exchange(fake.addr, head.as_bytes());
    assert_eq!(answer.status, 413);
    assert!(answer.detail().contains("64 MiB"), "{}", answer.detail());
    // A client that sends it all gets to see the answer too.
    let big = vec![b' '; (64 << 20) + 1];
    let json = [("Content-Type", "application/json")];
    assert_eq!(
        send(fake.addr, "POST", "/release_task", &json, &big).status,
        413
    );
    // Just below the limit is read, and found to be no JSON.
    assert_eq!(
        send(fake.addr, "POST", "/release_task", &json, &big[1..]).status,
        400
    );
}

#[test]
fn deep_nesting_is_bad_json() {
    let fake = Fake::start(&[]);
    let json = [("Content-Type", "application/json")];
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let inner = if open == "[" { "" } else { "1" };
        let text = [open.repeat(100_000).as_str(), inner, &close.repeat(100_000)].concat();
        for path in ["/release_task", "/query_result"] {
            let answer = send(fake.addr, "POST", path, &json, text.as_bytes());
            assert_eq!(answer.status, 400);
            assert_eq!(answer.detail(), "Malformed JSON payload");
        }
        // The same within a text that may hold JSON is as if nothing was there.
        let body = json!({ "task_id_list": text });
        assert_eq!(post(fake.addr, "/query_result", &body).data(), json!([]));
        let body = json!({ "param_obj": text });
        assert_eq!(post(fake.addr, "/release_task", &body).status, 200);
    }
}

#[test]
fn bodies_in_flight_share_a_limit() {
    let fake = Fake::start(&[]);
    let head = "POST /release_task HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
                Content-Length: 67108864\r\n\r\n";
    // There is room for four, so one of five is refused.
    let most = vec![b' '; (64 << 20) - 1];
    let begin = || {
        let mut stream = connect(fake.addr);
        stream.write_all(head.as_bytes()).expect("open");
        stream.write_all(&most).expect("open");
        stream
    };
    let mut streams: Vec<_> = (0..5).map(|_| begin()).collect();
    let is_answered = |stream: &TcpStream| {
        stream.set_nonblocking(true).expect("a socket");
        let is_answered = stream.peek(&mut [0]).is_ok_and(|bytes| bytes > 0);
        stream.set_nonblocking(false).expect("a socket");
        is_answered
    };
    let refused = wait("a refusal", || streams.iter().position(is_answered));
    let answer = receive(&mut streams.remove(refused), false);
    assert_eq!(answer.status, 503);
    assert!(
        answer.detail().contains("again later"),
        "{}",
        answer.detail()
    );
    // The others are read to their end and give back what they held.
    for mut stream in streams.into_iter().chain(std::iter::once_with(begin)) {
        stream.write_all(b" ").expect("open");
        assert_eq!(receive(&mut stream, false).status, 400);
    }
}
