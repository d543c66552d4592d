//! `POST /v1/init`: models exchanged while the server runs.

use engine::Error;
use serde_json::{Value, json};
use tests::client::{finished, get, items, post, release, send, wait};
use tests::fake::Fake;

const PATH: &str = "/v1/init";
const TURBO: &str = "acestep-v15-turbo";
const BASE: &str = "acestep-v15-base";

/// `code` and `error` of an answer with the status of success.
fn failure(fake: &Fake, body: &Value) -> (Value, String) {
    let answer = post(fake.addr, PATH, body);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let json = answer.json();
    assert_eq!(json["data"], json!(null), "{json}");
    let error = json["error"].as_str().unwrap_or_default().to_owned();
    (json["code"].clone(), error)
}

/// Status of a job.
fn job(fake: &Fake, body: &Value) -> Value {
    finished(fake.addr, &release(fake.addr, body))["status"].clone()
}

#[test]
fn the_first_slot_gets_another_model() {
    let fake = Fake::start(&[]);
    assert_eq!(job(&fake, &json!({})), 1);
    let done = post(fake.addr, PATH, &json!({"model": BASE})).data();
    assert_eq!(done["message"], "Model initialization completed");
    assert_eq!(
        (&done["slot"], &done["loaded_model"]),
        (&json!(1), &json!(BASE))
    );
    assert_eq!(done["loaded_lm_model"], json!(null));
    assert_eq!(done["llm_initialized"], false);
    assert_eq!(done["lm_models"], json!([]));
    let named = |list: &Value, name: &str| {
        let models = list["models"].as_array().expect("a list");
        models
            .iter()
            .find(|m| m["name"] == name)
            .cloned()
            .expect("listed")
    };
    assert_eq!(named(&done, BASE)["is_loaded"], true);
    assert_eq!(named(&done, BASE)["is_default"], true);
    assert_eq!(named(&done, TURBO)["is_loaded"], false);
    assert_eq!(get(fake.addr, "/v1/models").data()["default_model"], BASE);
    assert_eq!(get(fake.addr, "/health").data()["loaded_model"], BASE);
    let exchanged = (vec![BASE.to_owned()], vec![TURBO.to_owned()]);
    assert_eq!(fake.steering.exchanged(), exchanged);
    // Requests get it, and the one before is not there any more.
    let entry = finished(fake.addr, &release(fake.addr, &json!({"model": TURBO})));
    assert_eq!(items(&entry)[0]["dit_model"], BASE);
}

#[test]
fn an_empty_body_loads_the_primary_model_anew() {
    let fake = Fake::start(&[]);
    let done = post(fake.addr, PATH, &json!({})).data();
    assert_eq!(done["loaded_model"], TURBO);
    assert_eq!(fake.steering.exchanged(), (vec![TURBO.to_owned()], vec![]));
    assert_eq!(get(fake.addr, "/health").data()["models_initialized"], true);
    // Names may be sent as paths.
    let path = json!({"model": "/models/acestep-v15-base/", "slot": "1"});
    assert_eq!(post(fake.addr, PATH, &path).data()["loaded_model"], BASE);
}

#[test]
fn slots_are_there_when_they_were_at_start() {
    let fake = Fake::start(&[("ACESTEP_CONFIG_PATH2", BASE)]);
    assert_eq!(
        post(fake.addr, PATH, &json!({"slot": 2})).data()["loaded_model"],
        BASE
    );
    let (code, error) = failure(&fake, &json!({"slot": 3, "model": BASE}));
    assert_eq!(code, 400);
    assert_eq!(
        error,
        "Slot 3 is not available because ACESTEP_CONFIG_PATH3 was not set at startup. Restart \
         the API with ACESTEP_CONFIG_PATH3 to enable this slot."
    );
    // A model that another slot has stays loaded.
    post(fake.addr, PATH, &json!({"slot": 2, "model": TURBO})).data();
    assert_eq!(fake.steering.exchanged().1, [BASE]);
    post(fake.addr, PATH, &json!({"slot": 2, "model": BASE})).data();
    assert_eq!(
        fake.steering.exchanged().1,
        [BASE],
        "slot 1 has turbo still"
    );
}

#[test]
fn a_failure_is_said_and_what_was_there_stays() {
    let fake = Fake::start(&[]);
    assert_eq!(job(&fake, &json!({})), 1);
    fake.steering
        .fail_load(Error::Missing("/x is missing".into()));
    let (code, error) = failure(&fake, &json!({"model": "acestep-v15-sft"}));
    assert_eq!(
        (code, error.as_str()),
        (json!(500), "Model initialization failed: /x is missing")
    );
    assert_eq!(get(fake.addr, "/v1/models").data()["default_model"], TURBO);
    assert_eq!(job(&fake, &json!({})), 1);
}

#[test]
fn success_ends_a_remembered_failure() {
    let fake = Fake::start(&[]);
    fake.steering.fail_load(Error::Corrupt("cut off".into()));
    assert_eq!(job(&fake, &json!({})), 2);
    fake.steering.repair();
    assert_eq!(job(&fake, &json!({})), 2, "it is remembered");
    post(fake.addr, PATH, &json!({})).data();
    assert_eq!(job(&fake, &json!({})), 1);
}

#[test]
fn a_language_model_is_loaded_and_the_block_is_lifted() {
    let fake = Fake::start(&[("ACESTEP_INIT_LLM", "false")]);
    fake.add_lm("acestep-5Hz-lm-1.7B");
    assert_eq!(job(&fake, &json!({"thinking": true})), 2);
    // Without the switch the name alone does nothing.
    let done = post(
        fake.addr,
        PATH,
        &json!({"lm_model_path": "acestep-5Hz-lm-1.7B"}),
    )
    .data();
    assert_eq!(done["llm_initialized"], false);
    let body = json!({"init_llm": "yes", "lm_model_path": "x/acestep-5Hz-lm-1.7B"});
    let done = post(fake.addr, PATH, &body).data();
    assert_eq!(done["loaded_lm_model"], "acestep-5Hz-lm-1.7B");
    assert_eq!(done["llm_initialized"], true);
    assert_eq!(
        done["lm_models"],
        json!([{"name": "acestep-5Hz-lm-1.7B", "is_loaded": true}])
    );
    let entry = finished(fake.addr, &release(fake.addr, &json!({"thinking": true})));
    assert_eq!(entry["status"], 1);
    assert_eq!(items(&entry)[0]["lm_model"], "acestep-5Hz-lm-1.7B");
}

#[test]
fn a_language_model_that_failed_is_tried_again() {
    let fake = Fake::start(&[]);
    fake.steering.fail_lm(Error::Corrupt("cut off".into()));
    assert_eq!(job(&fake, &json!({"thinking": true})), 2);
    let (code, error) = failure(&fake, &json!({"init_llm": true}));
    assert_eq!(
        (code, error.as_str()),
        (json!(500), "Model initialization failed: cut off")
    );
    fake.steering.repair();
    post(fake.addr, PATH, &json!({"init_llm": true})).data();
    assert_eq!(job(&fake, &json!({"thinking": true})), 1);
}

#[test]
fn it_waits_for_the_running_job() {
    let fake = Fake::start(&[]);
    fake.steering.hold(true);
    let running = release(fake.addr, &json!({}));
    wait("the job", || {
        (fake.steering.seen().len() == 1).then_some(())
    });
    let addr = fake.addr;
    let init = std::thread::spawn(move || post(addr, PATH, &json!({"model": BASE})).data());
    std::thread::sleep(std::time::Duration::from_millis(200));
    assert!(!init.is_finished());
    assert_eq!(get(addr, "/health").data()["loaded_model"], TURBO);
    fake.steering.hold(false);
    assert_eq!(finished(addr, &running)["status"], 1);
    assert_eq!(init.join().expect("an answer")["loaded_model"], BASE);
}

#[test]
fn bodies_that_do_not_fit() {
    let fake = Fake::start(&[("ACESTEP_API_KEY", "secret")]);
    let ask = |body: &str, key: &str| {
        let headers = [("Content-Type", "application/json"), ("Authorization", key)];
        send(fake.addr, "POST", PATH, &headers, body.as_bytes())
    };
    for (body, kind, field) in [
        ("", "missing", json!(null)),
        ("{", "json_invalid", json!(1)),
        ("[]", "model_attributes_type", json!(null)),
        (r#"{"slot": 0}"#, "greater_than_equal", json!("slot")),
        (r#"{"slot": 4}"#, "less_than_equal", json!("slot")),
        (r#"{"slot": "x"}"#, "int_parsing", json!("slot")),
        (r#"{"model": 1}"#, "string_type", json!("model")),
        (
            r#"{"init_llm": "maybe"}"#,
            "bool_parsing",
            json!("init_llm"),
        ),
    ] {
        assert_eq!(ask(body, "wrong").status, 401, "the key comes first");
        let answer = ask(body, "Bearer secret");
        assert_eq!(answer.status, 422, "{body}");
        let fault = answer.json()["detail"][0].clone();
        assert_eq!(
            (&fault["type"], &fault["loc"][1]),
            (&json!(kind), &field),
            "{fault}"
        );
    }
    assert_eq!(ask("{}", "Bearer secret").status, 200);
    assert_eq!(get(fake.addr, PATH).status, 405);
}
