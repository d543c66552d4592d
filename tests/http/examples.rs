//! `POST /create_random_sample`: examples in every spelling, from JSON and forms.

use serde_json::{Value, json};
use std::collections::HashSet;
use tests::client::{get, post, send};
use tests::fake::Fake;

const PATH: &str = "/create_random_sample";

fn keys(example: &Value) -> Vec<&str> {
    let object = example.as_object().expect("an object");
    object.keys().map(String::as_str).collect()
}

/// The example of a body with this content type.
fn ask(fake: &Fake, content_type: &str, body: &str) -> Value {
    let header = [("Content-Type", content_type)];
    send(fake.addr, "POST", PATH, &header, body.as_bytes()).data()
}

#[test]
fn simple_examples_are_the_default() {
    let fake = Fake::start(&[]);
    for body in [
        json!({}),
        json!({"sample_type": "simple_mode"}),
        json!({"sample_type": ""}),
        json!({"sample_type": null, "more": [1]}),
    ] {
        let example = post(fake.addr, PATH, &body).data();
        for key in ["description", "caption", "lyrics", "vocal_language"] {
            assert!(example[key].is_string(), "{key} of {example}");
        }
        assert_eq!(example["caption"], example["description"]);
        assert!(example["instrumental"].is_boolean(), "{example}");
        assert!(example["bpm"].is_u64() && example["duration"].is_u64());
        assert!(!keys(&example).contains(&"think"), "{example}");
    }
}

#[test]
fn custom_examples_have_both_spellings() {
    let fake = Fake::start(&[]);
    let custom = json!({"sample_type": "custom_mode"});
    let example = post(fake.addr, PATH, &custom).data();
    let mut found = keys(&example);
    found.sort_unstable();
    let expected = [
        "bpm",
        "caption",
        "duration",
        "key_scale",
        "keyscale",
        "language",
        "lyrics",
        "think",
        "time_signature",
        "timesignature",
        "vocal_language",
    ];
    assert_eq!(found, expected);
    for (one, other) in [
        ("keyscale", "key_scale"),
        ("timesignature", "time_signature"),
        ("language", "vocal_language"),
    ] {
        assert!(example[one].is_string());
        assert_eq!(example[one], example[other]);
    }
    assert!(example["think"].is_boolean());
    // What comes out can go in again.
    assert_eq!(post(fake.addr, "/release_task", &example).status, 200);
}

#[test]
fn examples_vary() {
    let fake = Fake::start(&[]);
    let captions: HashSet<String> = (0..40)
        .map(|_| post(fake.addr, PATH, &json!({})).data()["caption"].to_string())
        .collect();
    // Forty draws of more than sixty: fewer than ten different ones do not happen.
    assert!(captions.len() >= 10, "{captions:?}");
}

#[test]
fn every_kind_of_body_is_read() {
    let fake = Fake::start(&[]);
    let form = "application/x-www-form-urlencoded";
    assert!(ask(&fake, form, "sample_type=custom")["think"].is_boolean());
    assert!(ask(&fake, form, "")["description"].is_string());
    assert!(ask(&fake, "application/x+json", r#"{"sample_type":5}"#)["think"].is_boolean());
    let multipart = "--b\r\nContent-Disposition: form-data; name=\"sample_type\"\r\n\r\n\
        custom_mode\r\n--b--\r\n";
    let example = ask(&fake, "multipart/form-data; boundary=b", multipart);
    assert!(example["think"].is_boolean());
}

#[test]
fn what_is_refused() {
    let fake = Fake::start(&[("ACESTEP_API_KEY", "secret")]);
    let header = [("Content-Type", "application/json")];
    let detail = |body: &str| {
        let answer = send(fake.addr, "POST", PATH, &header, body.as_bytes());
        (answer.status, answer.detail())
    };
    // A broken body comes before the key.
    assert_eq!(detail("{"), (400, "Malformed JSON payload".into()));
    assert_eq!(detail(""), (400, "Malformed JSON payload".into()));
    assert_eq!(detail("[]"), (400, "JSON payload must be an object".into()));
    assert_eq!(detail("{}").0, 401);
    assert_eq!(detail(r#"{"ai_token": "secret"}"#).0, 200);
    assert_eq!(get(fake.addr, PATH).status, 405);
    assert_eq!(
        post(fake.addr, "/v1/create_random_sample", &json!({})).status,
        404
    );
}
