//! The key: both checks and their place in the order of checks.

use serde_json::json;
use tests::client::{get, post, send};
use tests::fake::Fake;

const KEY: &[(&str, &str)] = &[("ACESTEP_API_KEY", "secret")];
const JSON: (&str, &str) = ("Content-Type", "application/json");

#[test]
fn a_blank_key_switches_the_check_off() {
    let fake = Fake::start(&[("ACESTEP_API_KEY", "  ")]);
    assert_eq!(get(fake.addr, "/v1/stats").status, 200);
    assert_eq!(post(fake.addr, "/query_result", &json!({})).status, 200);
}

#[test]
fn what_needs_no_key() {
    let fake = Fake::start(KEY);
    for path in ["/health", "/docs", "/openapi.json", "/api/health"] {
        assert_eq!(get(fake.addr, path).status, 200, "{path}");
    }
    assert_eq!(get(fake.addr, "/nothing").status, 404);
    assert_eq!(get(fake.addr, "/release_task").status, 405);
}

#[test]
fn the_header_check() {
    let fake = Fake::start(KEY);
    for path in [
        "/v1/stats",
        "/v1/models",
        "/v1/model_inventory",
        "/api/v1/models",
        "/v1/audio",
    ] {
        let answer = get(fake.addr, path);
        assert_eq!(answer.status, 401, "{path}");
        assert_eq!(answer.detail(), "Missing Authorization header");
        for wrong in [
            "Bearer wrong",
            "secre",
            "Bearer",
            "Basic secret",
            "Bearer  secret",
        ] {
            let answer = send(fake.addr, "GET", path, &[("Authorization", wrong)], &[]);
            assert_eq!(
                (answer.status, answer.detail().as_str()),
                (401, "Invalid API key")
            );
        }
        for right in ["Bearer secret", "secret"] {
            let answer = send(fake.addr, "GET", path, &[("Authorization", right)], &[]);
            // The key comes before what is wrong with the request.
            assert_eq!(
                answer.status,
                if path == "/v1/audio" { 422 } else { 200 },
                "{path}"
            );
        }
    }
}

#[test]
fn players_may_put_the_key_into_the_query() {
    let fake = Fake::start(KEY);
    let path = "/v1/audio?path=%2Fetc%2Fpasswd";
    assert_eq!(get(fake.addr, path).status, 401);
    assert_eq!(
        get(fake.addr, &format!("{path}&ai_token=wrong")).status,
        401
    );
    assert_eq!(
        get(fake.addr, &format!("{path}&ai_token=secret")).status,
        403
    );
    // Nowhere else.
    assert_eq!(get(fake.addr, "/v1/stats?ai_token=secret").status, 401);
}

#[test]
fn the_body_check() {
    let fake = Fake::start(KEY);
    let bearer = ("Authorization", "Bearer secret");
    for path in ["/release_task", "/query_result", "/create_random_sample"] {
        let ask = |body: serde_json::Value, headers: &[(&str, &str)]| {
            let headers = [&[JSON], headers].concat();
            let answer = send(
                fake.addr,
                "POST",
                path,
                &headers,
                body.to_string().as_bytes(),
            );
            (
                answer.status,
                answer.json()["detail"]
                    .as_str()
                    .unwrap_or_default()
                    .to_owned(),
            )
        };
        let denied = |detail: &str| (401, detail.to_owned());
        let missing = "Missing ai_token or Authorization header";
        assert_eq!(ask(json!({}), &[]), denied(missing));
        assert_eq!(ask(json!({"ai_token": ""}), &[]), denied(missing));
        assert_eq!(ask(json!({"ai_token": null}), &[]), denied(missing));
        assert_eq!(
            ask(json!({"ai_token": "x"}), &[]),
            denied("Invalid ai_token")
        );
        assert_eq!(ask(json!({"ai_token": 5}), &[]), denied("Invalid ai_token"));
        // A right header does not help a wrong token.
        assert_eq!(
            ask(json!({"ai_token": "x"}), &[bearer]),
            denied("Invalid ai_token")
        );
        let wrong = ("Authorization", "Bearer x");
        assert_eq!(ask(json!({}), &[wrong]), denied("Invalid API key"));
        for (body, headers) in [
            (json!({"ai_token": "secret"}), &[][..]),
            (json!({"ai_token": "secret"}), &[wrong][..]),
            (json!({"ai_token": ""}), &[bearer][..]),
            (json!({}), &[bearer][..]),
            (json!({}), &[("Authorization", "secret")][..]),
        ] {
            assert_eq!(ask(body, headers).0, 200);
        }
    }
}

#[test]
fn the_body_is_read_before_the_key_and_checked_after_it() {
    let fake = Fake::start(KEY);
    let status = |headers: &[(&str, &str)], body: &str| {
        send(fake.addr, "POST", "/release_task", headers, body.as_bytes()).status
    };
    assert_eq!(status(&[JSON], "{"), 400);
    assert_eq!(status(&[("Content-Type", "text/plain")], "x"), 415);
    // Everything else comes after the key.
    for body in [
        r#"{"seed": 1.5}"#,
        r#"{"lm_backend": "x"}"#,
        r#"{"src_audio_path": "/etc/passwd"}"#,
    ] {
        assert_eq!(status(&[JSON], body), 401);
        assert_eq!(status(&[JSON, ("Authorization", "secret")], body), 400);
    }
    assert_eq!(get(fake.addr, "/v1/audio").status, 401);
}

#[test]
fn forms_carry_the_token_too() {
    let fake = Fake::start(KEY);
    let form = [("Content-Type", "application/x-www-form-urlencoded")];
    let send = |body: &str| send(fake.addr, "POST", "/release_task", &form, body.as_bytes());
    assert_eq!(send("prompt=x&ai_token=secret").status, 200);
    assert_eq!(send("prompt=x&ai_token=other").detail(), "Invalid ai_token");
}
