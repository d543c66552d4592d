//! `POST /format_input` and `POST /v1/create_sample`: answers, errors, and the lane they run on.

use engine::Error;
use engine::song::{Subject, Wish};
use serde_json::{Value, json};
use std::io::Write;
use std::time::{Duration, Instant};
use tests::client::{connect, finished, get, post, release, send, wait};
use tests::fake::Fake;

const FORMAT: &str = "/format_input";
const SAMPLE: &str = "/v1/create_sample";

#[test]
fn texts_come_back_rewritten_and_what_was_said_stays() {
    let fake = Fake::start(&[]);
    let body = json!({
        "prompt": "pop", "lyrics": "[Verse]\nla", "temperature": 0,
        "param_obj": {"bpm": 120, "time_signature": "4/4", "language": "de"},
    });
    assert_eq!(
        post(fake.addr, FORMAT, &body).data(),
        json!({
            "caption": "pop indeed", "lyrics": "la la la", "bpm": 120, "key_scale": "D minor",
            "time_signature": "4/4", "duration": 42.0, "vocal_language": "de",
        })
    );
    let asked = &fake.steering.described()[0];
    assert_eq!(
        asked.subject,
        Subject::Texts {
            caption: "pop".into(),
            lyrics: "[Verse]\nla".into()
        }
    );
    assert_eq!(asked.known.metas.time_signature.as_deref(), Some("4"));
    assert_eq!(
        (asked.sampling.temperature, asked.sampling.top_p),
        (0.0, 0.0)
    );
    assert_eq!(fake.steering.loads(), 0, "no other model is needed");
    let health = get(fake.addr, "/health").data();
    assert_eq!(
        (&health["llm_initialized"], &health["models_initialized"]),
        (&json!(true), &json!(false))
    );
}

#[test]
fn what_nobody_knows_is_null_or_unknown() {
    let fake = Fake::start(&[]);
    let body = json!({"prompt": "nothing", "lyrics": "la", "param_obj": "no json"});
    assert_eq!(
        post(fake.addr, FORMAT, &body).data(),
        json!({
            "caption": "nothing", "lyrics": "la", "bpm": null, "key_scale": "",
            "time_signature": "", "duration": null, "vocal_language": "unknown",
        })
    );
}

#[test]
fn songs_are_invented_from_a_wish() {
    let fake = Fake::start(&[]);
    let body = json!({"query": "jazz", "vocal_language": "ja"});
    assert_eq!(
        post(fake.addr, SAMPLE, &body).data(),
        json!({
            "caption": "jazz indeed", "lyrics": "la la la", "bpm": 99, "keyscale": "D minor",
            "duration": 42.0, "timesignature": "3", "vocal_language": "ja",
        })
    );
    let form = [("Content-Type", "application/x-www-form-urlencoded")];
    let answer = send(
        fake.addr,
        "POST",
        SAMPLE,
        &form,
        b"query=&instrumental=true",
    );
    assert_eq!(answer.data()["lyrics"], "[Instrumental]");
    let asked = &fake.steering.described()[1];
    let wish = Wish {
        query: String::new(),
        instrumental: true,
    };
    assert_eq!(asked.subject, Subject::Wish(wish));
    assert_eq!(asked.known.language, None);
}

/// `code` and `error` of an answer with the status of success.
fn failure(answer: &Value) -> (Value, String) {
    assert_eq!(answer["data"], json!(null), "{answer}");
    let error = answer["error"].as_str().unwrap_or_default().to_owned();
    (answer["code"].clone(), error)
}

#[test]
fn failures_have_their_documented_forms() {
    let fake = Fake::start(&[]);
    for (path, field, text, expected) in [
        (
            FORMAT,
            "prompt",
            "device",
            "format_sample failed: the device is gone",
        ),
        (
            FORMAT,
            "prompt",
            "panic",
            "format_sample failed: internal error: the engine stopped",
        ),
        (
            SAMPLE,
            "query",
            "device",
            "create_sample error: the device is gone",
        ),
        (
            SAMPLE,
            "query",
            "nothing",
            "create_sample error: the language model described no song",
        ),
    ] {
        let answer = post(fake.addr, path, &json!({ field: text }));
        assert_eq!(answer.status, 200);
        let (code, error) = failure(&answer.json());
        assert_eq!(code, 500);
        assert!(error.starts_with(expected), "{error}");
    }
    // The engine that a panic brought down starts anew.
    assert_eq!(post(fake.addr, SAMPLE, &json!({})).status, 200);
    assert_eq!(fake.steering.lm_loads().len(), 2);
}

#[test]
fn a_language_model_that_does_not_load_is_said_and_remembered() {
    let fake = Fake::start(&[]);
    fake.steering
        .fail_lm(Error::Missing("5Hz LM model not found at /x".into()));
    for _ in 0..2 {
        let answer = post(fake.addr, FORMAT, &json!({}));
        assert_eq!(answer.status, 500);
        assert_eq!(
            answer.detail(),
            "LLM init failed: 5Hz LM model not found at /x"
        );
    }
    assert_eq!(fake.steering.lm_loads().len(), 1);
}

#[test]
fn bodies_that_are_refused() {
    let fake = Fake::start(&[("ACESTEP_API_KEY", "secret")]);
    let header = [("Content-Type", "application/json")];
    for path in [FORMAT, SAMPLE] {
        let status = |body: &str| send(fake.addr, "POST", path, &header, body.as_bytes()).status;
        assert_eq!(status("{"), 400);
        assert_eq!(status("{}"), 401);
        assert_eq!(status(r#"{"ai_token": "secret"}"#), 200);
        let long = format!(
            r#"{{"ai_token": "secret", "prompt": "{0}", "query": "{0}"}}"#,
            "x".repeat(100_001)
        );
        assert_eq!(status(&long), 400);
        assert_eq!(get(fake.addr, path).status, 405);
        assert_eq!(
            send(fake.addr, "POST", &format!("/api{path}"), &header, b"{").status,
            400
        );
    }
}

/// A request that is sent and not waited for.
fn call(fake: &Fake, path: &str) -> std::net::TcpStream {
    let mut stream = connect(fake.addr);
    let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n");
    let request = format!("{head}Content-Length: 2\r\n\r\n{{}}");
    stream.write_all(request.as_bytes()).expect("sent");
    stream
}

#[test]
fn calls_run_before_the_jobs_that_wait() {
    let fake = Fake::start(&[]);
    fake.steering.hold(true);
    let running = release(fake.addr, &json!({"prompt": "first"}));
    wait("the first job", || {
        (fake.steering.seen().len() == 1).then_some(())
    });
    let waiting = release(fake.addr, &json!({"prompt": "second"}));
    let mut stream = call(&fake, FORMAT);
    // Every other route answers meanwhile.
    let start = Instant::now();
    assert_eq!(get(fake.addr, "/health").status, 200);
    assert_eq!(get(fake.addr, "/v1/stats").data()["queue_size"], 1);
    assert!(start.elapsed() < Duration::from_secs(2));
    std::thread::sleep(Duration::from_millis(200));
    fake.steering.hold(false);
    assert_eq!(tests::client::receive(&mut stream, false).status, 200);
    assert_eq!(finished(fake.addr, &running)["status"], 1);
    assert_eq!(finished(fake.addr, &waiting)["status"], 1);
    let order = fake.steering.order();
    assert_eq!(order, ["song first", "description", "song second"]);
}

#[test]
fn a_client_that_goes_away_ends_its_call() {
    let fake = Fake::start(&[]);
    fake.steering.hold(true);
    let stream = call(&fake, FORMAT);
    wait("the call", || {
        (fake.steering.described().len() == 1).then_some(())
    });
    drop(stream);
    wait("its end", || (fake.steering.given_up() == 1).then_some(()));
    fake.steering.hold(false);
    assert_eq!(post(fake.addr, FORMAT, &json!({})).status, 200);
}

#[test]
fn calls_are_bounded() {
    let fake = Fake::start(&[]);
    fake.steering.hold(true);
    let running = call(&fake, FORMAT);
    wait("the call", || {
        (fake.steering.described().len() == 1).then_some(())
    });
    let mut streams: Vec<_> = (0..=server::queue::CALLS)
        .map(|_| call(&fake, SAMPLE))
        .collect();
    // One of them is refused at once, whichever came last.
    wait("a refusal", || {
        let has_answer = |stream: &std::net::TcpStream| {
            let patience = Some(Duration::from_millis(10));
            stream.set_read_timeout(patience).expect("a timeout");
            let answered = stream.peek(&mut [0]).is_ok();
            let patience = Some(tests::client::PATIENCE);
            stream.set_read_timeout(patience).expect("a timeout");
            answered
        };
        streams.iter().any(has_answer).then_some(())
    });
    fake.steering.hold(false);
    streams.push(running);
    let mut statuses: Vec<u16> = streams
        .iter_mut()
        .map(|stream| tests::client::receive(stream, false).status)
        .collect();
    statuses.sort_unstable();
    assert_eq!(statuses.pop(), Some(429));
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
}

#[test]
fn the_end_of_the_server_ends_calls() {
    let fake = Fake::start(&[]);
    fake.steering.hold(true);
    let mut running = call(&fake, FORMAT);
    wait("the call", || {
        (fake.steering.described().len() == 1).then_some(())
    });
    let mut waiting = call(&fake, SAMPLE);
    std::thread::sleep(Duration::from_millis(200));
    let took = fake.stop();
    assert!(took < Duration::from_secs(5), "{took:?}");
    for stream in [&mut running, &mut waiting] {
        let answer = tests::client::receive(stream, false);
        assert_eq!(
            (answer.status, answer.detail().as_str()),
            (503, "the server is about to end")
        );
    }
}
