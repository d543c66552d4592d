//! Jobs that nobody wants any more, and jobs that are followed.

use serde_json::{Value, json};
use tests::client::{events, finished, get, items, post, query, release, send, wait};
use tests::fake::Fake;

/// A server with one job that runs and one that waits.
fn busy() -> (Fake, String, String) {
    let fake = Fake::start(&[]);
    fake.steering.hold(true);
    let running = release(fake.addr, &json!({"prompt": "running"}));
    wait("the first job to run", || {
        (!fake.steering.seen().is_empty()).then_some(())
    });
    let waiting = release(fake.addr, &json!({"prompt": "waiting"}));
    (fake, running, waiting)
}

fn is_cancelled(fake: &Fake, id: &str) {
    let entry = query(fake.addr, id);
    let item = items(&entry)[0].clone();
    assert_eq!(entry["status"], 2);
    assert_eq!(
        (&item["error"], &item["stage"]),
        (&json!("Cancelled by user"), &json!("failed"))
    );
}

#[test]
fn a_job_that_waits_and_one_that_runs() {
    let (fake, running, waiting) = busy();
    for (name, id) in [("job_id", &waiting), ("task_id", &running)] {
        let done = post(fake.addr, "/cancel_task", &json!({ name: id })).data();
        assert_eq!(done, json!({"job_id": id, "status": "cancelled"}));
        is_cancelled(&fake, id);
    }
    // The one that ran has stopped, and the other never began.
    let next = release(fake.addr, &json!({"prompt": "next"}));
    wait("the next job to run", || {
        (fake.steering.seen().len() == 2).then_some(())
    });
    fake.steering.hold(false);
    assert_eq!(finished(fake.addr, &next)["status"], 1);
    assert_eq!(fake.steering.order(), ["song running", "song next"]);
    is_cancelled(&fake, &running);
    let stats = get(fake.addr, "/v1/stats").data();
    assert_eq!(
        (&stats["jobs"]["failed"], &stats["queue_size"]),
        (&json!(2), &json!(0))
    );
}

#[test]
fn a_place_in_the_queue_is_free_again() {
    let fake = Fake::start(&[("ACESTEP_QUEUE_MAXSIZE", "1")]);
    fake.steering.hold(true);
    release(fake.addr, &json!({}));
    wait("the first job to run", || {
        (!fake.steering.seen().is_empty()).then_some(())
    });
    let waiting = release(fake.addr, &json!({}));
    assert_eq!(post(fake.addr, "/release_task", &json!({})).status, 429);
    post(fake.addr, "/cancel_task", &json!({ "task_id": waiting })).data();
    assert_eq!(post(fake.addr, "/release_task", &json!({})).status, 200);
}

#[test]
fn what_has_ended_stays_as_it_is() {
    let fake = Fake::start(&[]);
    let id = release(fake.addr, &json!({"batch_size": 1}));
    let before = finished(fake.addr, &id);
    let done = post(fake.addr, "/cancel_task", &json!({ "task_id": id })).data();
    assert_eq!(done["status"], "succeeded");
    assert_eq!(query(fake.addr, &id), before);
}

#[test]
fn every_job_at_once() {
    let (fake, running, waiting) = busy();
    let done = post(fake.addr, "/cancel_all_tasks", &json!({})).data();
    assert_eq!(
        (&done["status"], &done["cancelled"]),
        (&json!("cancelled"), &json!(2))
    );
    is_cancelled(&fake, &running);
    is_cancelled(&fake, &waiting);
    let none = post(fake.addr, "/cancel_all_tasks", &json!({})).data();
    assert_eq!(none["job_ids"], json!([]));
}

#[test]
fn jobs_are_forgotten() {
    let (fake, running, _) = busy();
    let path = format!("/cleanup/{running}");
    assert_eq!(
        post(fake.addr, &path, &json!({})).data()["task_id"],
        running
    );
    assert_eq!(query(fake.addr, &running)["result"], "[]");
    assert_eq!(post(fake.addr, &path, &json!({})).status, 404);
    assert_eq!(get(fake.addr, "/v1/stats").data()["jobs"]["total"], 1);
}

#[test]
fn what_is_not_there_and_who_may_not() {
    let fake = Fake::start(&[("ACESTEP_API_KEY", "k")]);
    let nobody = "00000000-0000-4000-8000-000000000000";
    for (path, body, status) in [
        ("/cancel_task", json!({"ai_token": "k"}), 400),
        ("/cancel_task", json!({"ai_token": "k", "task_id": 5}), 400),
        (
            "/cancel_task",
            json!({"ai_token": "k", "task_id": "x"}),
            404,
        ),
        (
            "/cancel_task",
            json!({"ai_token": "k", "task_id": nobody}),
            404,
        ),
        ("/cancel_task", json!({"task_id": nobody}), 401),
        ("/cancel_all_tasks", json!({}), 401),
        ("/cleanup/x", json!({}), 401),
    ] {
        assert_eq!(post(fake.addr, path, &body).status, status, "{path} {body}");
    }
    assert_eq!(get(fake.addr, "/v1/jobs/x/events").status, 401);
    let key = [("Authorization", "Bearer k")];
    for path in ["/v1/jobs/x/events", &format!("/v1/jobs/{nobody}/events")] {
        assert_eq!(send(fake.addr, "GET", path, &key, &[]).status, 404);
    }
    assert_eq!(send(fake.addr, "POST", "/cleanup/x", &key, &[]).status, 404);
}

#[test]
fn a_job_is_followed_to_its_end() {
    let (fake, running, waiting) = busy();
    let addr = fake.addr;
    let follow = |id: &str| {
        let path = format!("/v1/jobs/{id}/events");
        std::thread::spawn(move || events(addr, "GET", &path, &[]))
    };
    let (first, second) = (follow(&running), follow(&waiting));
    std::thread::sleep(std::time::Duration::from_millis(200));
    fake.steering.hold(false);
    for (id, thread) in [(running, first), (waiting, second)] {
        let (answer, data) = thread.join().expect("a stream");
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("content-type"), Some("text/event-stream"));
        let entries: Vec<Value> = data
            .iter()
            .map(|text| serde_json::from_str(text).expect("JSON"))
            .collect();
        assert_eq!(entries[0]["status"], 0);
        assert!(entries.iter().all(|entry| entry["task_id"] == id));
        assert_eq!(entries.last(), Some(&query(addr, &id)));
    }
}
