//! `POST /v1/chat/completions`: a song as an answer, whole and as a stream.

use crate::multipart::tone;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tests::client::{Answer, events, get, post, release, send, wait};
use tests::fake::Fake;

const PATH: &str = "/v1/chat/completions";

fn message(content: Value) -> Value {
    json!([{ "role": "user", "content": content }])
}

/// Bytes of the song within `audio`.
fn song(audio: &Value, media_type: &str) -> Vec<u8> {
    let url = audio[0]["audio_url"]["url"].as_str().expect("a URL");
    assert_eq!(audio[0]["type"], "audio_url");
    let packed = url
        .strip_prefix(&format!("data:{media_type};base64,"))
        .unwrap_or_else(|| panic!("{}", &url[..40]));
    STANDARD.decode(packed).expect("base64")
}

#[test]
fn a_song_is_the_answer() {
    let fake = Fake::start(&[]);
    let body = json!({
        "model": "acestep/acestep-v15-turbo",
        "messages": message(json!("<prompt>pop</prompt><lyrics>[Verse]\nla</lyrics>")),
        "audio_config": {"format": "wav", "bpm": 90, "duration": 20},
        "seed": 7,
    });
    let answer = post(fake.addr, PATH, &body);
    assert_eq!(answer.status, 200);
    let done = answer.json();
    let id = done["id"].as_str().unwrap_or_default();
    assert!(id.starts_with("chatcmpl-") && id.len() == 25, "{id}");
    assert_eq!(
        (&done["object"], &done["model"]),
        (
            &json!("chat.completion"),
            &json!("acestep/acestep-v15-turbo")
        )
    );
    assert!(done["created"].as_u64() > Some(1_700_000_000));
    let choice = &done["choices"][0];
    assert_eq!(
        (&choice["index"], &choice["finish_reason"]),
        (&json!(0), &json!("stop"))
    );
    let reply = &choice["message"];
    assert_eq!(
        (&reply["role"], &reply["audio_codes"]),
        (&json!("assistant"), &json!(null))
    );
    assert_eq!(
        reply["content"],
        "## Metadata\n**Caption:** pop\n**BPM:** 90\n**Duration:** 20.0s\n\n## Lyrics\n[Verse]\nla"
    );
    assert!(song(&reply["audio"], "audio/wav").starts_with(b"RIFF"));
    assert_eq!(
        done["usage"],
        json!({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0})
    );
    let seen = &fake.steering.seen()[0];
    assert_eq!(
        (seen.caption.as_str(), seen.seeds.as_slice()),
        ("pop", &[7][..])
    );
    assert_eq!((seen.metas.bpm, seen.duration_s), (Some(90), Some(20.0)));
}

#[test]
fn codes_come_back_as_they_were_sent() {
    let fake = Fake::start(&[]);
    let codes = "<|audio_code_1|><|audio_code_2|>";
    let body = json!({
        "messages": message(json!("x")), "audio_codes": codes, "lyrics": "mine",
    });
    let done = post(fake.addr, PATH, &body).json();
    let reply = &done["choices"][0]["message"];
    assert_eq!(reply["audio_codes"], codes);
    assert!(song(&reply["audio"], "audio/mpeg").len() > 100);
    assert_eq!(fake.steering.seen()[0].lyrics, "mine");
    assert_eq!(
        done["model"], "acestep/acestep-v15-turbo",
        "the primary one"
    );
}

/// The pieces of a stream, which ends as streams do.
fn pieces(fake: &Fake, body: &Value) -> Vec<Value> {
    let (answer, mut data) = events(fake.addr, "POST", PATH, body.to_string().as_bytes());
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("content-type"), Some("text/event-stream"));
    assert_eq!(data.pop().as_deref(), Some("[DONE]"));
    let pieces: Vec<Value> = data
        .iter()
        .map(|text| serde_json::from_str(text).expect("JSON"))
        .collect();
    for piece in &pieces {
        assert_eq!(piece["object"], "chat.completion.chunk");
        assert_eq!(piece["id"], pieces[0]["id"]);
    }
    pieces
}

fn delta(piece: &Value) -> &Value {
    &piece["choices"][0]["delta"]
}

#[test]
fn a_stream_tells_that_it_waits_and_then_the_song() {
    let fake = Fake::start(&[]);
    fake.steering.hold(true);
    let body = json!({
        "messages": message(json!("pop")), "stream": true, "audio_codes": "<|audio_code_1|>",
    });
    let all = std::thread::scope(|scope| {
        let stream = scope.spawn(|| pieces(&fake, &body));
        std::thread::sleep(std::time::Duration::from_millis(2500));
        fake.steering.hold(false);
        stream.join().expect("a stream")
    });
    assert_eq!(delta(&all[0]), &json!({"role": "assistant", "content": ""}));
    assert_eq!(delta(&all[1]), &json!({"content": "."}));
    let [.., text, audio, codes, end] = &all[..] else {
        panic!("{all:?}");
    };
    let text = delta(text)["content"].as_str().unwrap_or_default();
    assert!(
        text.starts_with("\n\n## Metadata\n**Caption:** pop"),
        "{text}"
    );
    assert!(!song(&delta(audio)["audio"], "audio/mpeg").is_empty());
    assert_eq!(
        delta(codes),
        &json!({"content": "[audio_codes]<|audio_code_1|>[/audio_codes]"})
    );
    assert_eq!(delta(end), &json!({}));
    assert_eq!(end["choices"][0]["finish_reason"], "stop");
}

#[test]
fn a_stream_tells_that_it_failed() {
    let fake = Fake::start(&[]);
    let body = json!({"messages": message(json!("device")), "stream": true});
    let all = pieces(&fake, &body);
    let [_, text, end] = &all[..] else {
        panic!("{all:?}");
    };
    let text = delta(text)["content"].as_str().unwrap_or_default();
    assert!(
        text.starts_with("\n\nError: ") && text.contains("device"),
        "{text}"
    );
    assert_eq!(end["choices"][0]["finish_reason"], "error");
}

#[test]
fn what_is_refused() {
    let fake = Fake::start(&[("ACESTEP_API_KEY", "k"), ("ACESTEP_QUEUE_MAXSIZE", "0")]);
    let ask = |key: &str, body: &str| -> Answer {
        let headers = [("Authorization", key), ("Content-Type", "application/json")];
        send(fake.addr, "POST", PATH, &headers, body.as_bytes())
    };
    let good = json!({ "messages": message(json!("x")) }).to_string();
    assert_eq!(ask("Bearer x", &good).status, 401);
    assert_eq!(ask("Bearer x", "{").status, 401, "the key comes first");
    let no_key = post(fake.addr, PATH, &json!({}));
    assert_eq!(no_key.detail(), "Missing Authorization header");
    for body in [
        "{",
        "[]",
        "{}",
        r#"{"messages": []}"#,
        r#"{"messages": [{"role": "user", "content": "x"}], "temperature": 9}"#,
        r#"{"messages": [{"role": "user", "content": "x"}], "task_type": "dance"}"#,
        r#"{"messages": [{"role": "user", "content": "x"}], "src_audio_path": "/etc/passwd"}"#,
    ] {
        let answer = ask("Bearer k", body);
        assert_eq!(answer.status, 400, "{body}");
        assert!(!answer.detail().is_empty(), "{body}");
    }
    let silent = message(json!([{
        "type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"},
    }]));
    let body = json!({"messages": silent, "task_type": "cover"}).to_string();
    let answer = ask("Bearer k", &body);
    assert_eq!(answer.status, 400);
    assert!(
        answer.detail().contains("Invalid audio file"),
        "{}",
        answer.detail()
    );
    assert_eq!(ask("Bearer k", &good).status, 429);
    assert_eq!(get(fake.addr, PATH).status, 405);
    let uploads = fake.data_dir().join("tmp/uploads");
    assert_eq!(std::fs::read_dir(uploads).map_or(9, Iterator::count), 0);
}

#[test]
fn recordings_within_a_message_reach_the_engine() {
    let fake = Fake::start(&[]);
    let bytes = tone();
    let packed = STANDARD.encode(&bytes);
    let part = json!({
        "type": "input_audio",
        "input_audio": {"data": format!("data:audio/wav;base64,{packed}"), "format": "wav"},
    });
    fake.steering.hold(true);
    let addr = fake.addr;
    let body = json!({
        "messages": message(json!([{"type": "text", "text": "x"}, part])), "task_type": "cover",
    });
    let chat = std::thread::spawn(move || post(addr, PATH, &body));
    let path = wait("the job to run", || {
        let seen = fake.steering.seen();
        match &seen.first()?.source {
            Some(engine::song::Recording::File(path)) => Some(path.clone()),
            other => panic!("{other:?}"),
        }
    });
    assert_eq!(std::fs::read(&path).expect("the upload"), bytes);
    assert!(path.to_string_lossy().ends_with(".wav"));
    fake.steering.hold(false);
    assert_eq!(chat.join().expect("an answer").status, 200);
    wait("the upload to go", || (!path.exists()).then_some(()));
}

#[test]
fn failures_and_the_limit_of_time() {
    let fake = Fake::start(&[("ACESTEP_GENERATION_TIMEOUT", "1")]);
    let failed = post(
        fake.addr,
        PATH,
        &json!({ "messages": message(json!("device")) }),
    );
    assert_eq!(failed.status, 500);
    assert!(
        failed.detail().contains("the device"),
        "{}",
        failed.detail()
    );
    fake.steering.hold(true);
    let late = post(fake.addr, PATH, &json!({ "messages": message(json!("x")) }));
    assert_eq!(
        (late.status, late.detail().as_str()),
        (504, "Generation timeout")
    );
    // The job goes on, and so does the queue.
    fake.steering.hold(false);
    let id = release(fake.addr, &json!({}));
    assert_eq!(tests::client::finished(fake.addr, &id)["status"], 1);
    assert_eq!(get(fake.addr, "/v1/stats").data()["jobs"]["succeeded"], 2);
}

#[test]
fn what_the_clients_of_its_list_send() {
    let fake = Fake::start(&[("ACESTEP_MODELS_FORMAT", "openrouter")]);
    tests::client::finished(fake.addr, &release(fake.addr, &json!({})));
    let list = get(fake.addr, "/v1/models").json();
    let body = json!({
        "model": list["data"][0]["id"], "messages": message(json!("pop")),
        "audio_duration": 15, "audio_format": "flac", "modalities": ["audio"], "stop": null,
    });
    let done = post(fake.addr, PATH, &body).json();
    let audio = &done["choices"][0]["message"]["audio"];
    assert!(song(audio, "audio/flac").starts_with(b"fLaC"));
    assert_eq!(fake.steering.seen()[1].duration_s, Some(15.0));
}
