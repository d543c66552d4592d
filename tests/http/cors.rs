//! Calls from pages of other origins.

use tests::client::{get, send};
use tests::fake::Fake;

#[test]
fn pages_of_this_machine_may_call() {
    let fake = Fake::start(&[]);
    for (origin, allowed) in [
        ("http://localhost:3000", true),
        ("https://127.0.0.1", true),
        ("null", true),
        ("http://evil.example", false),
        ("http://localhost.evil.example", false),
    ] {
        for path in ["/health", "/nothing"] {
            let answer = send(fake.addr, "GET", path, &[("Origin", origin)], &[]);
            let expected = allowed.then_some(origin);
            assert_eq!(
                answer.header("access-control-allow-origin"),
                expected,
                "{origin}"
            );
            assert_eq!(answer.header("vary"), Some("Origin"));
            assert_eq!(answer.header("access-control-allow-credentials"), None);
        }
    }
    let without = get(fake.addr, "/health");
    assert_eq!(without.header("vary"), Some("Origin"));
    assert_eq!(without.header("access-control-allow-origin"), None);
}

#[test]
fn preflights() {
    let fake = Fake::start(&[
        ("ACESTEP_API_KEY", "k"),
        ("ACESTEP_CORS_ORIGINS", "https://music.example"),
    ]);
    let ask = |origin: &str, method: &str, headers: &str| {
        let headers = [
            ("Origin", origin),
            ("Access-Control-Request-Method", method),
            ("Access-Control-Request-Headers", headers),
        ];
        send(fake.addr, "OPTIONS", "/release_task", &headers, &[])
    };
    for origin in ["http://localhost:5173", "https://music.example"] {
        let answer = ask(origin, "POST", "authorization, content-type");
        assert_eq!((answer.status, answer.text().as_str()), (200, "OK"));
        assert_eq!(answer.header("access-control-allow-origin"), Some(origin));
        assert_eq!(
            answer.header("access-control-allow-methods"),
            Some("GET, POST, OPTIONS")
        );
        assert_eq!(answer.header("access-control-max-age"), Some("600"));
        let headers = answer
            .header("access-control-allow-headers")
            .unwrap_or_default();
        assert!(headers.contains("Authorization") && headers.contains("Content-Type"));
    }
    let bad = ask("http://evil.example", "POST", "content-type");
    assert_eq!(
        (bad.status, bad.text().as_str()),
        (400, "Disallowed CORS origin")
    );
    assert_eq!(bad.header("access-control-allow-origin"), None);
    assert_eq!(ask("null", "DELETE", "accept").status, 400);
    assert_eq!(ask("null", "GET", "x-other").status, 400);
}
