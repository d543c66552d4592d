//! Models that are forgotten and loaded again.

use engine::Error;
use serde_json::json;
use tests::client::{finished, get, post, release, send};
use tests::fake::Fake;

#[test]
fn what_is_missing_is_loaded() {
    let fake = Fake::start(&[]);
    let load = || post(fake.addr, "/v1/reinitialize", &json!({})).data();
    let first = load();
    assert_eq!(first["reloaded"], json!(["acestep-v15-turbo"]));
    assert_eq!(
        first["message"],
        "\u{2705} Service reinitialized\n\u{1f504} Reloaded: acestep-v15-turbo"
    );
    assert_eq!(get(fake.addr, "/health").data()["models_initialized"], true);
    let again = load();
    assert_eq!(again["message"], "\u{2705} Service reinitialized");
    assert_eq!(again["reloaded"], json!([]));
    // No body, no content type.
    assert_eq!(
        send(fake.addr, "POST", "/v1/reinitialize", &[], &[]).status,
        200
    );
}

#[test]
fn a_remembered_failure_is_tried_again() {
    let fake = Fake::start(&[]);
    fake.steering.fail_load(Error::Corrupt("cut off".into()));
    let id = release(fake.addr, &json!({}));
    assert_eq!(finished(fake.addr, &id)["status"], 2);
    let failed = post(fake.addr, "/v1/reinitialize", &json!({})).json();
    assert_eq!(
        (&failed["code"], &failed["error"]),
        (&json!(500), &json!("Reinitialization failed: cut off"))
    );
    fake.steering.repair();
    post(fake.addr, "/v1/reinitialize", &json!({})).data();
    let id = release(fake.addr, &json!({}));
    assert_eq!(finished(fake.addr, &id)["status"], 1);
}

#[test]
fn memory_is_freed_and_the_next_job_loads_again() {
    let fake = Fake::start(&[]);
    fake.add_lm("acestep-5Hz-lm-0.6B");
    let song = || finished(fake.addr, &release(fake.addr, &json!({"thinking": true})));
    assert_eq!(song()["status"], 1);
    let unload = |body| post(fake.addr, "/v1/unload", &body);
    let state = |body| {
        let data = unload(body).data();
        (
            data["models_initialized"].as_bool(),
            data["llm_initialized"].as_bool(),
        )
    };
    let (yes, no) = (Some(true), Some(false));
    assert_eq!(state(json!({"dit": false, "llm": "true"})), (yes, no));
    assert_eq!(state(json!({"dit": 1})), (no, no));
    assert_eq!(fake.steering.exchanged().1, ["lm", "all"]);
    assert_eq!(song()["status"], 1);
    assert_eq!(state(json!({})), (no, no));
    assert_eq!(unload(json!({"dit": "maybe"})).status, 422);
    let reloaded = post(fake.addr, "/v1/reinitialize", &json!({})).data()["reloaded"].clone();
    assert_eq!(
        reloaded,
        json!(["acestep-v15-turbo", "acestep-5Hz-lm-0.6B"])
    );
}

#[test]
fn they_need_the_key() {
    let fake = Fake::start(&[("ACESTEP_API_KEY", "k")]);
    for path in ["/v1/reinitialize", "/v1/unload"] {
        assert_eq!(post(fake.addr, path, &json!({})).status, 401);
    }
}
