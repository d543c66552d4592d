//! Start, loading, model lists, the end.

use engine::Error;
use serde_json::json;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tests::client::{connect, finished, get, items, post, query, release, wait};
use tests::fake::{Fake, Steering};

const EAGER: &[(&str, &str)] = &[("ACESTEP_NO_INIT", "false")];

#[test]
fn lazy_start_loads_with_the_first_job() {
    let fake = Fake::start(&[("ACESTEP_CONFIG_PATH2", "acestep-v15-base")]);
    let health = get(fake.addr, "/health").data();
    assert_eq!(
        health,
        json!({
            "status": "ok", "service": "ACE-Step API", "version": "1.0",
            "models_initialized": false, "llm_initialized": false,
            "loaded_model": "acestep-v15-turbo", "loaded_lm_model": null,
        })
    );
    assert_eq!(fake.steering.loads(), 0);
    fake.steering.hold_load(true);
    let id = release(fake.addr, &json!({}));
    let entry = wait("loading", || {
        Some(query(fake.addr, &id)).filter(|e| items(e)[0]["stage"] == "loading model")
    });
    assert_eq!(entry["status"], 0);
    assert_eq!(get(fake.addr, "/v1/stats").data()["jobs"]["queued"], 1);
    // Everything else is answered meanwhile.
    let start = Instant::now();
    assert_eq!(
        get(fake.addr, "/health").data()["models_initialized"],
        false
    );
    let other = release(fake.addr, &json!({}));
    assert!(start.elapsed() < Duration::from_secs(2));
    fake.steering.hold_load(false);
    assert_eq!(finished(fake.addr, &other)["status"], 1);
    assert_eq!(fake.steering.loads(), 2);
    assert_eq!(get(fake.addr, "/health").data()["models_initialized"], true);
}

#[test]
fn eager_start_answers_before_it_has_loaded() {
    let steering = Arc::new(Steering::default());
    steering.hold_load(true);
    let fake = Fake::start_with(EAGER, steering).expect("the server starts");
    assert_eq!(
        get(fake.addr, "/health").data()["models_initialized"],
        false
    );
    let id = release(fake.addr, &json!({}));
    fake.steering.hold_load(false);
    assert_eq!(finished(fake.addr, &id)["status"], 1);
    assert_eq!(fake.steering.loads(), 1);
}

#[test]
fn eager_start_ends_when_the_primary_model_does_not_load() {
    let steering = Arc::new(Steering::default());
    steering.fail_load(Error::Corrupt("model.safetensors is cut off".into()));
    let mut fake = Fake::start_with(EAGER, steering).expect("the port opens");
    let server = fake.take().expect("not taken yet");
    assert_eq!(
        server.run(|_| ()),
        Err(Error::Corrupt("model.safetensors is cut off".into()))
    );
}

#[test]
fn a_failed_load_is_remembered() {
    let fake = Fake::start(&[]);
    fake.steering
        .fail_load(Error::Corrupt("model.safetensors is cut off".into()));
    for _ in 0..2 {
        let entry = finished(fake.addr, &release(fake.addr, &json!({})));
        assert_eq!(items(&entry)[0]["error"], "model.safetensors is cut off");
    }
    assert_eq!(fake.steering.loads(), 1);
    assert_eq!(
        get(fake.addr, "/health").data()["models_initialized"],
        false
    );
}

#[test]
fn a_panic_brings_up_a_new_engine() {
    let fake = Fake::start(&[]);
    finished(fake.addr, &release(fake.addr, &json!({"prompt": "panic"})));
    assert_eq!(
        finished(fake.addr, &release(fake.addr, &json!({})))["status"],
        1
    );
    assert_eq!(fake.steering.loads(), 2);
}

#[test]
fn a_lost_device_is_opened_anew_once() {
    let fake = Fake::start(&[]);
    let lose = || {
        let lost = finished(fake.addr, &release(fake.addr, &json!({"prompt": "lost"})));
        assert_eq!(items(&lost)[0]["error"], "the card was lost");
        let health = get(fake.addr, "/health").data();
        assert_eq!(
            (&health["status"], &health["models_initialized"]),
            (&json!("ok"), &json!(false))
        );
        assert_eq!(health["error"], "the card was lost");
    };
    let song = || finished(fake.addr, &release(fake.addr, &json!({})));
    lose();
    assert_eq!(song()["status"], 1);
    assert_eq!(fake.steering.loads(), 2);
    let health = get(fake.addr, "/health").data();
    assert_eq!(
        (&health["models_initialized"], health.get("error")),
        (&json!(true), None)
    );
    // Again within a minute: somebody has to look at the machine first.
    lose();
    assert_eq!(items(&song())[0]["error"], "the card was lost");
    assert_eq!(fake.steering.loads(), 2);
    let init = json!({"slot": 1});
    assert_eq!(post(fake.addr, "/v1/init", &init).status, 200);
    assert_eq!(get(fake.addr, "/health").data().get("error"), None);
    assert_eq!(song()["status"], 1);
}

#[test]
fn model_lists() {
    let fake = Fake::start(&[("ACESTEP_CONFIG_PATH", "acestep-v15-turbo")]);
    let turbo = ["text2music", "repaint", "cover", "cover-nofsq"];
    let base = [&turbo[..], &["extract", "lego", "complete"]].concat();
    let expected = |is_loaded: bool| {
        json!({
            "models": [
                {"name": "acestep-v15-turbo", "is_default": true, "is_loaded": is_loaded,
                 "supported_task_types": turbo},
                {"name": "acestep-v15-base", "is_default": false, "is_loaded": false,
                 "supported_task_types": base},
            ],
            "default_model": "acestep-v15-turbo",
            "lm_models": [],
            "loaded_lm_model": null,
            "llm_initialized": false,
        })
    };
    assert_eq!(get(fake.addr, "/v1/models").data(), expected(false));
    let openrouter = get(fake.addr, "/api/v1/models").json();
    assert_eq!(openrouter, json!({"object": "list", "data": []}));
    finished(fake.addr, &release(fake.addr, &json!({})));
    assert_eq!(get(fake.addr, "/v1/models").data(), expected(true));
    assert_eq!(get(fake.addr, "/v1/model_inventory").data(), expected(true));
    let openrouter = get(fake.addr, "/api/v1/models").json();
    assert_eq!(openrouter["data"][0]["id"], "acestep/acestep-v15-turbo");
    assert_eq!(openrouter["data"][0]["pricing"]["prompt"], "0");
}

#[test]
fn the_list_in_the_other_form() {
    let fake = Fake::start(&[("ACESTEP_MODELS_FORMAT", "openrouter")]);
    assert_eq!(
        get(fake.addr, "/v1/models").json(),
        json!({"object": "list", "data": []})
    );
    assert_eq!(
        get(fake.addr, "/v1/model_inventory").data()["lm_models"],
        json!([])
    );
}

#[test]
fn the_end_is_bounded_whatever_goes_on() {
    let fake = Fake::start(&[]);
    fake.steering.hold(true);
    release(fake.addr, &json!({}));
    release(fake.addr, &json!({}));
    wait("the first job to run", || {
        (!fake.steering.seen().is_empty()).then_some(())
    });
    let addr = fake.addr;
    // One connection that says nothing, and one in the middle of a request.
    let idle = connect(addr);
    let mut half = connect(addr);
    std::io::Write::write_all(&mut half, b"GET /hea").expect("open");
    let took = fake.stop();
    assert!(took < Duration::from_secs(12), "{took:?}");
    assert!(
        std::net::TcpStream::connect(addr).is_err(),
        "the port is closed"
    );
    drop((idle, half));
}

#[test]
fn the_end_is_quick_when_nothing_goes_on() {
    let fake = Fake::start(&[]);
    get(fake.addr, "/health");
    let took = fake.stop();
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[test]
fn a_port_in_use_is_said() {
    let fake = Fake::start(&[]);
    let flags = server::config::Flags {
        port: Some(fake.addr.port()),
        ..Default::default()
    };
    let env = server::env::Env::default();
    let config = server::config::Config::new(&flags, &env).expect("a configuration");
    let started = server::run::Server::start(config, Box::new(|| Err(Error::Cancelled)));
    let error = started.err().expect("the port is taken").to_string();
    assert!(
        error.contains("in use") && error.contains("--port"),
        "{error}"
    );
}
