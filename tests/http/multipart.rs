//! Forms with files.

use serde_json::json;
use tests::client::{release, send, wait};
use tests::fake::Fake;

/// A part: name, file name, content.
type Part<'a> = (&'a str, Option<&'a str>, &'a [u8]);

fn body(parts: &[Part]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, file_name, content) in parts {
        let file = file_name
            .map(|f| format!("; filename=\"{f}\""))
            .unwrap_or_default();
        let head =
            format!("--XyZ\r\nContent-Disposition: form-data; name=\"{name}\"{file}\r\n\r\n");
        out.extend_from_slice(head.as_bytes());
        out.extend_from_slice(content);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"--XyZ--\r\n");
    out
}

fn post(fake: &Fake, path: &str, body: &[u8]) -> tests::client::Answer {
    let kind = [("Content-Type", "multipart/form-data; boundary=XyZ")];
    send(fake.addr, "POST", path, &kind, body)
}

#[test]
fn texts_are_fields_and_files_are_not() {
    let fake = Fake::start(&[]);
    let silence = vec![0; 100_000];
    let parts: &[Part] = &[
        ("prompt", None, "été\r\n--XyY".as_bytes()),
        ("batch_size", None, b"1"),
        ("thinking", None, b"false"),
        ("param_obj", None, b"{\"bpm\": \"95\"}"),
        ("track_classes", None, b"drums"),
        ("track_classes", None, b"bass"),
        ("src_audio", Some("silence.wav"), &silence),
        ("lyrics", Some("lyrics.txt"), b"dropped"),
        ("reference_audio", Some(""), b""),
        ("ref_audio", None, b"a text"),
    ];
    assert_eq!(post(&fake, "/release_task", &body(parts)).status, 200);
    let seen = wait("the song", || fake.steering.seen().pop());
    assert_eq!(seen.caption, "été\r\n--XyY");
    assert_eq!((seen.seeds.len(), seen.metas.bpm), (1, Some(95)));
    assert_eq!(seen.lyrics, "[Instrumental]");
}

#[test]
fn an_upload_takes_the_place_of_the_path() {
    let fake = Fake::start(&[]);
    let path: Part = ("src_audio_path", None, b"/etc/passwd");
    assert_eq!(post(&fake, "/release_task", &body(&[path])).status, 400);
    let upload: Part = ("ctx_audio", Some("a.wav"), b"x");
    assert_eq!(
        post(&fake, "/release_task", &body(&[path, upload])).status,
        200
    );
    let untouched: Part = ("ctx_audio", Some(""), b"");
    assert_eq!(
        post(&fake, "/release_task", &body(&[path, untouched])).status,
        400
    );
}

#[test]
fn reference_audio_is_refused_with_a_sentence() {
    let fake = Fake::start(&[]);
    for name in ["ref_audio", "reference_audio"] {
        let answer = post(
            &fake,
            "/release_task",
            &body(&[(name, Some("a.mp3"), b"x")]),
        );
        assert_eq!(answer.status, 400);
        assert!(
            answer.detail().contains("reference audio"),
            "{}",
            answer.detail()
        );
    }
}

#[test]
fn broken_forms() {
    let fake = Fake::start(&[]);
    let no_boundary = [("Content-Type", "multipart/form-data")];
    let answer = send(fake.addr, "POST", "/release_task", &no_boundary, b"x");
    assert_eq!(
        (answer.status, answer.detail().as_str()),
        (400, "Missing boundary in multipart.")
    );
    let whole = body(&[("prompt", None, b"x")]);
    for broken in [
        &b"nonsense"[..],
        &whole[..whole.len() - 12],
        b"--XyZ\r\nbad head\r\n\r\n",
    ] {
        assert_eq!(post(&fake, "/release_task", broken).status, 400);
    }
    let long = vec![b'x'; (1 << 20) + 1];
    let answer = post(&fake, "/release_task", &body(&[("lyrics", None, &long)]));
    assert_eq!(answer.detail(), "Part exceeded maximum size of 1024KB.");
    let much = body(&[("track_name", None, &long[1..])]);
    assert_eq!(post(&fake, "/release_task", &much).status, 200);
}

#[test]
fn results_may_be_asked_for_with_a_form() {
    let fake = Fake::start(&[("ACESTEP_API_KEY", "k")]);
    let id = release(fake.addr, &json!({"ai_token": "k", "batch_size": 1}));
    let list = json!([id]).to_string();
    let parts: &[Part] = &[
        ("task_id_list", None, list.as_bytes()),
        ("ai_token", None, b"k"),
    ];
    let data = wait("the song", || {
        let data = post(&fake, "/query_result", &body(parts)).data();
        (data[0]["status"] == 1).then_some(data)
    });
    assert_eq!(data[0]["task_id"], id.as_str());
    assert_eq!(post(&fake, "/query_result", &body(&parts[..1])).status, 401);
}

#[test]
fn forms_have_limits() {
    let fake = Fake::start(&[]);
    let part: Part = ("x", None, b"y");
    assert_eq!(
        post(&fake, "/release_task", &body(&vec![part; 256])).status,
        200
    );
    let answer = post(&fake, "/release_task", &body(&vec![part; 257]));
    assert_eq!(answer.status, 400);
    assert!(answer.detail().contains("256"), "{}", answer.detail());
    let text = vec![b'x'; 1 << 20];
    let much: Vec<Part> = vec![("track_name", None, &text); 9];
    let answer = post(&fake, "/release_task", &body(&much));
    assert_eq!(answer.status, 413);
    assert!(answer.detail().contains("8 MiB"), "{}", answer.detail());
    // Files are dropped, so they may be larger.
    let file = vec![b'\r'; 9 << 20];
    let file: Part = ("src_audio", Some("a.wav"), &file);
    assert_eq!(post(&fake, "/release_task", &body(&[file])).status, 200);
}

#[test]
fn what_is_no_part_is_not_kept() {
    let fake = Fake::start(&[]);
    let whole = body(&[("prompt", None, b"x")]);
    let preamble = |bytes| [&vec![b'-'; bytes], &b"\r\n"[..], &whole].concat();
    let answer = post(&fake, "/release_task", &preamble(10_000));
    assert_eq!(answer.status, 200, "{}", answer.text());
    let mut head = b"--XyZ\r\nContent-Disposition: form-data; name=\"".to_vec();
    head.resize(16 << 20, b'a');
    for long in [preamble(16 << 20), head] {
        let answer = post(&fake, "/release_task", &long);
        assert_eq!(answer.status, 400);
        assert!(answer.detail().contains("64 KiB"), "{}", answer.detail());
    }
}
