//! Forms with files.

use serde_json::json;
use tests::client::{get, release, send, wait};
use tests::containers::{riff, sample};
use tests::fake::Fake;

/// A part: name, file name, content.
pub type Part<'a> = (&'a str, Option<&'a str>, &'a [u8]);

pub fn body(parts: &[Part]) -> Vec<u8> {
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

/// A tone of a quarter of a second, as a file.
pub fn tone() -> Vec<u8> {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("tone.wav");
    let samples: Vec<f32> = (0..24_000).map(|i| (i as f32 * 0.02).sin() * 0.4).collect();
    let pcm = engine::audio::Pcm {
        samples: &samples,
        rate: 48_000,
    };
    engine::audio::write(&path, pcm, engine::audio::AudioFormat::Wav, None).expect("written");
    std::fs::read(path).expect("read")
}

/// Files of uploads that lie in the server's folder.
fn uploads(fake: &Fake) -> usize {
    let list = std::fs::read_dir(fake.data_dir().join("tmp/uploads")).expect("a folder");
    let is_upload = |name: &str| name.starts_with("ref_audio_") || name.starts_with("ctx_audio_");
    let names = list
        .flatten()
        .map(|e| e.file_name().to_string_lossy().into_owned());
    names.filter(|name| is_upload(name)).count()
}

#[test]
fn uploads_reach_the_engine_and_go_with_the_job() {
    let fake = Fake::start(&[]);
    fake.steering.hold(true);
    let tone = tone();
    let parts: &[Part] = &[
        ("task_type", None, b"cover"),
        (
            "src_audio",
            Some("later.wav"),
            b"not looked at: ctx_audio comes first",
        ),
        ("ctx_audio", Some("../../a song.WAV"), &tone),
        ("reference_audio", Some("b.wav"), &tone),
    ];
    let answer = post(&fake, "/release_task", &body(parts));
    assert_eq!(answer.status, 200, "{}", answer.detail());
    let seen = wait("the song", || fake.steering.seen().pop());
    for (recording, prefix) in [(seen.source, "ctx_audio_"), (seen.reference, "ref_audio_")] {
        let Some(engine::song::Recording::File(path)) = recording else {
            panic!("{recording:?}")
        };
        let name = path.file_name().expect("a name").to_string_lossy();
        assert!(name.starts_with(prefix), "{name}");
        assert_eq!(std::fs::read(&path).expect("it is there"), tone);
    }
    assert_eq!(uploads(&fake), 2);
    fake.steering.hold(false);
    wait("the end", || (uploads(&fake) == 0).then_some(()));
}

#[test]
fn uploads_that_are_no_music_are_refused_and_leave_nothing() {
    let fake = Fake::start(&[]);
    let silence = vec![0; 100_000];
    let tone = tone();
    for bad in [&b"x"[..], b"", &silence, &tone[..40]] {
        for (task, name) in [("cover", "src_audio"), ("text2music", "ref_audio")] {
            let parts: &[Part] = &[
                ("task_type", None, task.as_bytes()),
                (name, Some("a.mp3"), bad),
            ];
            let answer = post(&fake, "/release_task", &body(parts));
            assert_eq!(answer.status, 400, "{name} {}", bad.len());
            let detail = answer.detail();
            assert!(detail.starts_with("Invalid audio file: "), "{detail}");
            assert!(!detail.contains("tmp"), "{detail}");
        }
    }
    assert_eq!(uploads(&fake), 0);
    assert!(fake.steering.seen().is_empty());
}

/// One of each kind of broken file; all its ways to be broken are in `broken.rs`.
#[test]
fn broken_recordings_are_refused_with_the_reason_and_the_server_goes_on() {
    let fake = Fake::start(&[]);
    let upload = |name: &str, bytes: &[u8]| {
        let parts: &[Part] = &[
            ("task_type", None, b"cover"),
            ("src_audio", Some(name), bytes),
        ];
        post(&fake, "/release_task", &body(parts))
    };
    let m4a = sample("tones.m4a");
    let flac = sample("tones.flac");
    // A tag that claims a quarter of a gigabyte, and a picture that does not end.
    let tag = [b"ID3\x04\0\0\x7f\x7f\x7f\x7f", &flac[..]].concat();
    let picture = [&flac[..42], b"\x86\xff\xff\xff", &[0xff; 64]].concat();
    let mut claims = m4a.clone();
    claims[..4].copy_from_slice(b"\x7f\xff\xff\xff");
    for (name, bytes, why) in [
        ("cut.m4a", &m4a[..m4a.len() / 2], ""),
        ("cut.flac", &flac[..flac.len() / 2], "is cut off"),
        (
            "page.mp3",
            &b"<!DOCTYPE html>".repeat(50),
            "is not an audio file",
        ),
        ("tag.mp3", &tag, ""),
        ("picture.flac", &picture, ""),
        ("claims.m4a", &claims, ""),
        (
            "hour.wav",
            &riff(1, 1, 8000, 8, &vec![128; 3600 * 8000]),
            "longer than the 600 s",
        ),
        (
            "silence.wav",
            &riff(1, 1, 8000, 8, &[128; 8000]),
            "is silent",
        ),
        ("empty.ogg", b"", "is empty"),
    ] {
        let answer = upload(name, bytes);
        let detail = answer.detail();
        assert_eq!(answer.status, 400, "{name}: {detail}");
        assert!(
            detail.starts_with("Invalid audio file: "),
            "{name}: {detail}"
        );
        assert!(detail.contains(why), "{name}: {detail}");
        assert_eq!(get(fake.addr, "/health").status, 200, "{name}");
    }
    assert_eq!(uploads(&fake), 0);
    assert_eq!(upload("misnamed.mp3", &m4a).status, 200);
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
