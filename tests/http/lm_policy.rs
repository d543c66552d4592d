//! When the language model is loaded, which one, and what happens when there is none.

use engine::Error;
use serde_json::{Value, json};
use std::sync::Arc;
use tests::client::{finished, get, items, post, query, release, wait};
use tests::fake::{Fake, Steering};

const LM: &str = "acestep-5Hz-lm-0.6B";
const BLOCKED: &str = "LLM not initialized. Set ACESTEP_INIT_LLM=true in .env to enable.";

/// Status and error of a job.
fn ended(fake: &Fake, body: &Value) -> (Value, String) {
    let entry = finished(fake.addr, &release(fake.addr, body));
    let error = items(&entry)[0]["error"].clone();
    let error = error.as_str().unwrap_or_default().to_owned();
    (entry["status"].clone(), error)
}

/// `generation_info` of a job that succeeds.
fn info(fake: &Fake, body: &Value) -> String {
    let entry = finished(fake.addr, &release(fake.addr, body));
    assert_eq!(entry["status"], 1, "{entry}");
    let info = items(&entry)[0]["generation_info"]
        .as_str()
        .map(str::to_owned);
    info.expect("a text")
}

fn asked(name: &str) -> Vec<Option<String>> {
    vec![Some(name.to_owned())]
}

#[test]
fn it_loads_when_a_request_says_so_and_not_before() {
    let fake = Fake::start(&[]);
    // Both flags are on by default, which is not the same as asking.
    assert_eq!(ended(&fake, &json!({})).0, 1);
    assert_eq!(fake.steering.lm_loads(), []);
    assert_eq!(ended(&fake, &json!({"use_cot_caption": true})).0, 1);
    assert_eq!(fake.steering.lm_loads(), [None]);
    let health = get(fake.addr, "/health").data();
    assert_eq!(
        (&health["llm_initialized"], &health["loaded_lm_model"]),
        (&json!(true), &json!(LM))
    );
    let other = json!({"thinking": true, "lm_model_path": "acestep-5Hz-lm-4B"});
    assert_eq!(ended(&fake, &other).0, 1);
    assert_eq!(fake.steering.lm_loads().len(), 1, "one is there already");
}

#[test]
fn a_request_names_the_first_one_unless_it_is_configured() {
    let fake = Fake::start(&[]);
    ended(
        &fake,
        &json!({"thinking": true, "lm_model_path": "/x/acestep-5Hz-lm-4B/"}),
    );
    assert_eq!(fake.steering.lm_loads(), asked("acestep-5Hz-lm-4B"));
    let fake = Fake::start(&[("ACESTEP_LM_MODEL_PATH", "/x/acestep-5Hz-lm-1.7B")]);
    let entry = finished(fake.addr, &release(fake.addr, &json!({"thinking": true})));
    assert_eq!(fake.steering.lm_loads(), asked("acestep-5Hz-lm-1.7B"));
    assert_eq!(items(&entry)[0]["lm_model"], "acestep-5Hz-lm-1.7B");
}

#[test]
fn auto_loads_it_with_the_models_when_it_is_there() {
    let fake = Fake::start(&[]);
    fake.add_lm(LM);
    assert_eq!(ended(&fake, &json!({})).0, 1);
    assert_eq!(fake.steering.lm_loads(), [None]);
    let models = get(fake.addr, "/v1/models").data();
    assert_eq!(
        models["lm_models"],
        json!([{"name": LM, "is_loaded": true}])
    );
    assert_eq!(models["loaded_lm_model"], LM);
    assert_eq!(models["llm_initialized"], true);
}

#[test]
fn auto_goes_on_without_one_that_does_not_fit() {
    let fake = Fake::start(&[]);
    fake.add_lm(LM);
    fake.steering.fail_lm(Error::TooBig {
        needs: 8 << 30,
        have: 4 << 30,
        suggestion: "choose a smaller language model".into(),
    });
    assert_eq!(ended(&fake, &json!({})).0, 1);
    assert_eq!(get(fake.addr, "/health").data()["llm_initialized"], false);
    for _ in 0..2 {
        let (status, error) = ended(&fake, &json!({"thinking": true}));
        assert_eq!(status, 2);
        assert_eq!(
            error,
            "5Hz LM init failed: will not fit: needs 8.0 GiB, have 4.0 GiB; choose a smaller \
             language model"
        );
    }
    assert_eq!(fake.steering.lm_loads().len(), 1, "it is not tried again");
}

#[test]
fn always_loads_it_at_start_and_a_failure_does_not_end_the_server() {
    let variables = [("ACESTEP_INIT_LLM", "true"), ("ACESTEP_NO_INIT", "false")];
    let fake = Fake::start(&variables);
    wait("the language model", || {
        (get(fake.addr, "/health").data()["loaded_lm_model"] == LM).then_some(())
    });
    let steering = Arc::new(Steering::default());
    steering.fail_lm(Error::Corrupt("model.safetensors is cut off".into()));
    let fake = Fake::start_with(&variables, steering).expect("the server starts");
    assert_eq!(ended(&fake, &json!({})).0, 1);
    let (status, error) = ended(&fake, &json!({"use_format": true, "prompt": "x"}));
    assert_eq!(
        (status, error.as_str()),
        (json!(2), "5Hz LM init failed: model.safetensors is cut off")
    );
    assert_eq!(fake.steering.lm_loads().len(), 1);
}

#[test]
fn never_blocks_requests_too() {
    let fake = Fake::start(&[("ACESTEP_INIT_LLM", "false")]);
    fake.add_lm(LM);
    assert_eq!(
        ended(&fake, &json!({"sample_mode": true})),
        (json!(2), format!("5Hz LM init failed: {BLOCKED}"))
    );
    let info = info(&fake, &json!({"use_cot_language": true}));
    assert!(info.contains(&format!(
        "Note: the request was not completed by a language model: {BLOCKED}"
    )));
    for path in ["/format_input", "/v1/create_sample"] {
        let answer = post(fake.addr, path, &json!({}));
        assert_eq!((answer.status, answer.detail().as_str()), (503, BLOCKED));
    }
    assert_eq!(fake.steering.lm_loads(), []);
    let models = get(fake.addr, "/v1/models").data();
    assert_eq!(
        models["lm_models"],
        json!([{"name": LM, "is_loaded": false}])
    );
    assert_eq!(models["loaded_lm_model"], json!(null));
}

#[test]
fn what_is_only_wanted_is_gone_without() {
    let fake = Fake::start(&[]);
    fake.steering
        .fail_lm(Error::Missing("5Hz LM model not found at /x".into()));
    let info = info(&fake, &json!({"use_cot_caption": true}));
    assert!(info.contains("5Hz LM model not found at /x"), "{info}");
}

#[test]
fn a_mistyped_name_does_not_spoil_it_for_others() {
    let fake = Fake::start(&[]);
    fake.steering
        .fail_lm(Error::Missing("5Hz LM model not found at /x".into()));
    let typo = json!({"thinking": true, "lm_model_path": "acestep-5Hz-lm-0,6B"});
    assert_eq!(ended(&fake, &typo).0, 2);
    fake.steering.repair();
    assert_eq!(ended(&fake, &json!({"thinking": true})).0, 1);
}

#[test]
fn a_panic_while_it_loads_costs_the_engine_not_the_server() {
    let fake = Fake::start(&[]);
    assert_eq!(ended(&fake, &json!({})).0, 1);
    fake.steering.panic_lm(true);
    let (status, error) = ended(&fake, &json!({"thinking": true}));
    assert_eq!(status, 2);
    assert!(
        error.starts_with("5Hz LM init failed: internal error"),
        "{error}"
    );
    assert_eq!(
        get(fake.addr, "/health").data()["models_initialized"],
        false
    );
    fake.steering.panic_lm(false);
    assert_eq!(ended(&fake, &json!({"thinking": true})).0, 1);
    assert_eq!(fake.steering.loads(), 2);
}

#[test]
fn the_job_that_waits_for_it_is_queued_and_the_server_can_stop() {
    let fake = Fake::start(&[]);
    assert_eq!(ended(&fake, &json!({})).0, 1);
    fake.steering.hold_load(true);
    let id = release(fake.addr, &json!({"thinking": true}));
    let entry = wait("loading", || {
        Some(query(fake.addr, &id)).filter(|e| items(e)[0]["stage"] == "loading model")
    });
    assert_eq!(entry["status"], 0);
    let took = fake.stop();
    assert!(took.as_secs() < 5, "{took:?}");
}

#[test]
fn an_analysis_is_an_item_without_a_file() {
    let fake = Fake::start(&[]);
    let body = json!({
        "analysis_only": true, "thinking": true, "prompt": "x", "bpm": 77, "seed": 5,
        "use_random_seed": false, "batch_size": 1,
    });
    let entry = finished(fake.addr, &release(fake.addr, &body));
    assert_eq!(entry["status"], 1, "{entry}");
    let list = items(&entry);
    assert_eq!(list.as_array().map(Vec::len), Some(1));
    let item = &list[0];
    for (key, expected) in [
        ("file", json!("")),
        ("status", json!(1)),
        ("prompt", json!("x")),
        ("generation_info", json!("Analysis Only Mode Complete")),
        ("dit_model", json!("None (Analysis Only)")),
        ("lm_model", json!(LM)),
        ("seed_value", json!("5")),
        ("progress", json!(1.0)),
        ("stage", json!("succeeded")),
    ] {
        assert_eq!(item[key], expected, "{key}");
    }
    let metas = &item["metas"];
    assert_eq!(
        (&metas["bpm"], &metas["keyscale"], &metas["duration"]),
        (&json!(77), &json!("D minor"), &json!(42.0))
    );
    let planning = fake.steering.seen()[0].planning.clone();
    assert!(planning.is_some_and(|p| !p.codes && p.metadata));
}
