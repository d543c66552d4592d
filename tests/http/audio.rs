//! `GET /v1/audio`: which files are served, whole and in part.

use engine::audio::read::{MAX_SECONDS, read_bytes};
use engine::song::{NoWatch, sidecar};
use serde_json::json;
use std::os::unix::fs::symlink;
use std::path::Path;
use tests::client::{Answer, finished, get, items, release, send};
use tests::fake::Fake;

fn encoded(path: &Path) -> String {
    server::files::audio_url(path)
}

fn with_range(fake: &Fake, path: &Path, range: &str) -> Answer {
    send(fake.addr, "GET", &encoded(path), &[("Range", range)], &[])
}

#[test]
fn a_song_in_every_format() {
    let fake = Fake::start(&[]);
    let mut lengths = Vec::new();
    for (format, media_type, magic) in [
        ("mp3", "audio/mpeg", &b"ID3\x04"[..]),
        ("wav", "audio/wav", b"RIFF"),
        ("wav32", "audio/wav", b"RIFF"),
        ("flac", "audio/flac", b"fLaC"),
        ("opus", "audio/ogg", b"OggS"),
        ("aac", "audio/aac", b"ID3\x04"),
    ] {
        let body = json!({"audio_format": format, "batch_size": 1});
        let items = items(&finished(fake.addr, &release(fake.addr, &body)));
        let answer = get(fake.addr, items[0]["file"].as_str().expect("an address"));
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("content-type"), Some(media_type));
        assert_eq!(answer.header("accept-ranges"), Some("bytes"));
        assert_eq!(answer.header("content-disposition"), None);
        assert!(answer.header("etag").is_some() && answer.header("last-modified").is_some());
        assert!(answer.body.starts_with(magic), "{format}");
        let song = read_bytes(answer.body, format, MAX_SECONDS, &NoWatch).expect("audio");
        lengths.push(song.len());
    }
    // Equally long, but for AAC, which comes in whole frames of 1024 samples.
    let (aac, others) = lengths.split_last().expect("formats");
    assert!(
        others.iter().all(|n| *n > 0 && *n == others[0]),
        "{lengths:?}"
    );
    let most = 960.0 * 2.0;
    let off = *aac as f64 - others[0] as f64;
    assert!(off.abs() < most, "{lengths:?}");
}

#[test]
fn latents_are_kept_beside_songs_and_not_served() {
    let fake = Fake::start(&[]);
    finished(fake.addr, &release(fake.addr, &json!({"batch_size": 2})));
    let files: Vec<_> = std::fs::read_dir(fake.audio_dir())
        .expect("a folder")
        .map(|entry| entry.expect("a file").path())
        .collect();
    assert_eq!(files.len(), 4, "{files:?}");
    for song in files
        .iter()
        .filter(|file| file.extension() == Some("mp3".as_ref()))
    {
        let kept = sidecar::read(song, 64, "fake").expect("valid");
        assert_eq!(kept.map(|kept| kept.latents), Some(vec![0.5; 250 * 64]));
        assert_eq!(get(fake.addr, &encoded(song)).status, 200);
        assert_eq!(
            get(fake.addr, &encoded(&sidecar::path_of(song))).status,
            404
        );
    }
}

#[test]
fn which_paths_are_served() {
    let fake = Fake::start(&[]);
    let dir = fake.audio_dir();
    std::fs::write(dir.join("a b.mp3"), "song").expect("written");
    std::fs::create_dir(dir.join("sub")).expect("made");
    std::fs::write(fake.data_dir().join("secret.txt"), "secret").expect("written");
    symlink(fake.data_dir().join("secret.txt"), dir.join("link.mp3")).expect("linked");
    let d = dir.to_str().expect("a text");
    let ask = |query: &str| {
        let answer = get(fake.addr, &format!("/v1/audio?{query}"));
        (answer.status, answer.text())
    };
    for good in [
        encoded(&dir.join("a b.mp3")).replace("/v1/audio?", ""),
        format!("path={d}/a+b.mp3"),
        format!("path=/etc/passwd&path={d}/a%20b.mp3"),
        format!("x=1&path={d}/sub/../a+b.mp3"),
    ] {
        assert_eq!(ask(&good), (200, "song".into()), "{good}");
    }
    let denied = (
        403,
        "{\"detail\":\"Access denied: path outside allowed directory\"}".to_owned(),
    );
    for bad in [
        "path=".to_owned(),
        "path=a.mp3".into(),
        "path=/etc/passwd".into(),
        "path=http://x/a.mp3".into(),
        format!("path={d}/../../secret.txt"),
        format!("path={d}/link.mp3"),
        format!("path={d}_evil/a.mp3"),
        format!("path={d}/a%20b.mp3%00"),
        encoded(&dir.join("a b.mp3"))
            .replace("/v1/audio?", "")
            .replace('%', "%25"),
    ] {
        assert_eq!(ask(&bad), denied, "{bad}");
    }
    let missing = (404, "{\"detail\":\"Audio file not found\"}".to_owned());
    for none in [
        format!("path={d}/none.mp3"),
        format!("path={d}"),
        format!("path={d}/sub"),
    ] {
        assert_eq!(ask(&none), missing, "{none}");
    }
    let answer = get(fake.addr, "/v1/audio");
    assert_eq!(answer.status, 422);
    let fault = &answer.json()["detail"][0];
    assert_eq!(
        (&fault["type"], &fault["loc"]),
        (&json!("missing"), &json!(["query", "path"]))
    );
}

#[test]
fn media_types_by_ending() {
    let fake = Fake::start(&[]);
    for (ending, media_type) in [
        ("mp3", "audio/mpeg"),
        ("wav", "audio/wav"),
        ("flac", "audio/flac"),
        ("ogg", "audio/ogg"),
        ("opus", "audio/ogg"),
        ("aac", "audio/aac"),
        ("xyz", "audio/mpeg"),
    ] {
        let path = fake.audio_dir().join(format!("x.{ending}"));
        std::fs::write(&path, "song").expect("written");
        assert_eq!(
            get(fake.addr, &encoded(&path)).header("content-type"),
            Some(media_type)
        );
    }
}

#[test]
fn parts_of_a_file() {
    let fake = Fake::start(&[]);
    let path = fake.audio_dir().join("x.mp3");
    let content: Vec<u8> = (0..300_000u32).map(|i| (i % 251) as u8).collect();
    std::fs::write(&path, &content).expect("written");
    assert_eq!(get(fake.addr, &encoded(&path)).body, content);
    for (range, first, last) in [
        ("bytes=0-0", 0, 0),
        ("bytes=1000-200000", 1000, 200_000),
        ("bytes=299000-", 299_000, 299_999),
        ("bytes=-10", 299_990, 299_999),
        ("bytes=5-9999999", 5, 299_999),
    ] {
        let answer = with_range(&fake, &path, range);
        assert_eq!(answer.status, 206, "{range}");
        assert_eq!(answer.body, content[first..=last], "{range}");
        let expected = format!("bytes {first}-{last}/300000");
        assert_eq!(answer.header("content-range"), Some(expected.as_str()));
    }
    let past = with_range(&fake, &path, "bytes=300000-");
    assert_eq!(
        (past.status, past.header("content-range")),
        (416, Some("bytes */300000"))
    );
    for malformed in ["bytes=5-2", "items=0-1", "bytes=x"] {
        assert_eq!(
            with_range(&fake, &path, malformed).status,
            400,
            "{malformed}"
        );
    }
    assert_eq!(with_range(&fake, &path, "bytes=0-1,5-6").body, content);
}

#[test]
fn a_range_of_another_version_is_the_whole_file() {
    let fake = Fake::start(&[]);
    let path = fake.audio_dir().join("x.mp3");
    std::fs::write(&path, "0123456789").expect("written");
    let whole = get(fake.addr, &encoded(&path));
    let etag = whole.header("etag").expect("a tag");
    let modified = whole.header("last-modified").expect("a date");
    for (tag, status) in [(etag, 206), (modified, 206), ("\"other\"", 200)] {
        let headers = [("Range", "bytes=2-3"), ("If-Range", tag)];
        let answer = send(fake.addr, "GET", &encoded(&path), &headers, &[]);
        assert_eq!(answer.status, status, "{tag}");
    }
}

#[test]
fn head_of_a_file() {
    let fake = Fake::start(&[]);
    let path = fake.audio_dir().join("x.mp3");
    std::fs::write(&path, "0123456789").expect("written");
    let head = send(fake.addr, "HEAD", &encoded(&path), &[], &[]);
    assert_eq!(
        (head.status, head.header("content-length")),
        (200, Some("10"))
    );
    std::fs::write(&path, "").expect("written");
    let empty = get(fake.addr, &encoded(&path));
    assert_eq!(
        (empty.status, empty.header("content-length")),
        (200, Some("0"))
    );
}
