//! Jobs that outlast the process: what has ended, what waits, what was cut off.

use crate::multipart::tone;
use serde_json::json;
use std::sync::Arc;
use tests::client::{finished, get, items, post, query, release, send, wait};
use tests::fake::{Fake, Steering};

fn again(fake: Fake) -> Fake {
    let dir = fake.dir();
    fake.stop();
    Fake::start_in(&[], Arc::default(), dir).expect("the server starts again")
}

#[test]
fn results_and_waiting_jobs_are_there_after_a_restart() {
    let fake = Fake::start(&[]);
    let done = release(fake.addr, &json!({"batch_size": 1, "prompt": "done"}));
    let before = finished(fake.addr, &done);
    let failed = release(fake.addr, &json!({"prompt": "device"}));
    let failure = finished(fake.addr, &failed);
    fake.steering.hold(true);
    let running = release(fake.addr, &json!({"prompt": "runs", "ai_token": "secret"}));
    wait("the job to run", || {
        (fake.steering.seen().len() == 3).then_some(())
    });
    let waiting = release(
        fake.addr,
        &json!({"prompt": "waits", "bpm": 77, "batch_size": 3}),
    );
    let seeds = fake.steering.seen()[2].seeds.clone();
    let database = fake.data_dir().join("tmp/jobs.sqlite3");
    let _dir = fake.dir();
    let fake = again(fake);
    assert_eq!(query(fake.addr, &done), before);
    assert_eq!(query(fake.addr, &failed)["result"], failure["result"]);
    let file = items(&before)[0]["file"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    assert_eq!(get(fake.addr, &file).status, 200);
    for id in [&running, &waiting] {
        assert_eq!(finished(fake.addr, id)["status"], 1);
    }
    let seen = fake.steering.seen();
    assert_eq!(seen[0].caption, "runs", "in the order in which they came");
    assert_eq!(seen[0].seeds, seeds, "with the seeds that were drawn");
    assert_eq!((seen[1].metas.bpm, seen[1].seeds.len()), (Some(77), 3));
    let stats = get(fake.addr, "/v1/stats").data();
    assert_eq!(
        stats["jobs"],
        json!({"total": 4, "queued": 0, "running": 0, "succeeded": 3, "failed": 1})
    );
    fake.stop();
    let stored = std::fs::read(database).expect("the file of jobs");
    assert!(
        !stored.windows(6).any(|w| w == b"secret"),
        "keys are not kept"
    );
}

/// A form with a recording.
fn form(tone: &[u8]) -> Vec<u8> {
    let mut body = b"--b\r\nContent-Disposition: form-data; name=\"task_type\"\r\n\r\ncover\r\n\
        --b\r\nContent-Disposition: form-data; name=\"src_audio\"; filename=\"a.wav\"\r\n\r\n"
        .to_vec();
    body.extend_from_slice(tone);
    body.extend_from_slice(b"\r\n--b--\r\n");
    body
}

#[test]
fn uploads_stay_with_jobs_that_wait_and_no_longer() {
    let fake = Fake::start(&[]);
    fake.steering.hold(true);
    release(fake.addr, &json!({}));
    let kind = [("Content-Type", "multipart/form-data; boundary=b")];
    let body = form(&tone());
    let answer = send(fake.addr, "POST", "/release_task", &kind, &body);
    let id = answer.data()["task_id"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let folder = fake.data_dir().join("tmp/uploads");
    let uploads = || std::fs::read_dir(&folder).map_or(0, Iterator::count);
    assert_eq!(uploads(), 1);
    // What no job needs, as a request leaves it that was cut off.
    std::fs::write(folder.join("ctx_audio_x.wav"), "x").expect("written");
    let dir = fake.dir();
    fake.stop();
    assert_eq!(uploads(), 2);
    let steering = Arc::new(Steering::default());
    steering.hold(true);
    let fake = Fake::start_in(&[], steering, dir).expect("the server starts again");
    assert_eq!(uploads(), 1);
    fake.steering.hold(false);
    assert_eq!(finished(fake.addr, &id)["status"], 1);
    wait("the upload to go", || (uploads() == 0).then_some(()));
}

#[test]
fn a_refused_job_leaves_nothing_behind() {
    let fake = Fake::start(&[("ACESTEP_QUEUE_MAXSIZE", "0")]);
    assert_eq!(post(fake.addr, "/release_task", &json!({})).status, 429);
    let kind = [("Content-Type", "multipart/form-data; boundary=b")];
    let body = form(&tone());
    assert_eq!(
        send(fake.addr, "POST", "/release_task", &kind, &body).status,
        429
    );
    let folder = fake.data_dir().join("tmp/uploads");
    assert_eq!(std::fs::read_dir(folder).map_or(9, Iterator::count), 0);
    let fake = again(fake);
    assert_eq!(get(fake.addr, "/v1/stats").data()["jobs"]["total"], 0);
}

#[test]
fn two_servers_do_not_share_a_folder() {
    let fake = Fake::start(&[]);
    let second = Fake::start_in(&[], Arc::default(), fake.dir());
    let error = second.err().expect("the folder is in use").to_string();
    assert!(error.contains("another server uses them"), "{error}");
}

#[test]
fn old_songs_are_removed_where_that_is_asked_for() {
    let fake = Fake::start(&[]);
    let id = release(fake.addr, &json!({"batch_size": 1}));
    let entry = finished(fake.addr, &id);
    let file = items(&entry)[0]["file"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let song = std::fs::read_dir(fake.audio_dir())
        .expect("a folder")
        .flatten()
        .map(|file| file.path())
        .find(|path| path.extension().is_some_and(|e| e == "mp3"))
        .expect("a song");
    let dir = fake.dir();
    fake.stop();
    let old = std::time::SystemTime::now() - std::time::Duration::from_secs(7200);
    let opened = std::fs::File::options().write(true).open(&song);
    opened.and_then(|f| f.set_modified(old)).expect("a time");
    for (hours, status) in [("3", 200), ("1", 404)] {
        let age = [("ACESTEP_AUDIO_MAX_AGE_HOURS", hours)];
        let fake = Fake::start_in(&age, Arc::default(), dir.clone()).expect("it starts");
        if status == 404 {
            wait("the song to go", || (!song.exists()).then_some(()));
        }
        assert_eq!(get(fake.addr, &file).status, status, "{hours} hours");
        assert_eq!(query(fake.addr, &id)["status"], 1, "the result stays");
        fake.stop();
    }
}
