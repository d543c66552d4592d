//! Cross-origin rules: pages of this machine may call, and those the operator names.

/// Methods a preflight may ask for.
const METHODS: [&str; 3] = ["GET", "POST", "OPTIONS"];
/// Headers a preflight may ask for.
const HEADERS: [&str; 5] = [
    "accept",
    "accept-language",
    "authorization",
    "content-language",
    "content-type",
];

/// `Access-Control-Allow-Methods`.
pub const ALLOW_METHODS: &str = "GET, POST, OPTIONS";
/// `Access-Control-Allow-Headers`.
pub const ALLOW_HEADERS: &str =
    "Accept, Accept-Language, Authorization, Content-Language, Content-Type";

/// Whether pages of `origin` may call. `more` are the operator's origins.
pub fn is_allowed(origin: &str, more: &[String]) -> bool {
    if origin == "null" || more.iter().any(|o| o == origin) {
        return true;
    }
    let Some(rest) = origin
        .strip_prefix("http://")
        .or_else(|| origin.strip_prefix("https://"))
    else {
        return false;
    };
    let (host, port) = rest.split_once(':').unwrap_or((rest, "0"));
    let is_port = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    (host == "localhost" || host == "127.0.0.1") && is_port
}

/// What is wrong with a preflight; empty when nothing is.
pub fn preflight_faults(
    origin: &str,
    method: &str,
    headers: Option<&str>,
    more: &[String],
) -> Vec<&'static str> {
    let mut faults = Vec::new();
    if !is_allowed(origin, more) {
        faults.push("origin");
    }
    if !METHODS.contains(&method) {
        faults.push("method");
    }
    let asked = headers
        .unwrap_or_default()
        .split(',')
        .map(str::trim)
        .filter(|h| !h.is_empty());
    if asked
        .map(str::to_lowercase)
        .any(|h| !HEADERS.contains(&h.as_str()))
    {
        faults.push("headers");
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins() {
        let more = ["https://music.example".to_owned()];
        for yes in [
            "null",
            "http://localhost",
            "https://localhost:3000",
            "http://127.0.0.1:1",
            "https://music.example",
        ] {
            assert!(is_allowed(yes, &more), "{yes}");
        }
        for no in [
            "http://localhost.evil.com",
            "http://127.0.0.1.evil.com",
            "http://localhost:",
            "http://localhost:80/x",
            "http://localhost:80@evil.com",
            "ftp://localhost",
            "http://music.example",
            "",
            "*",
        ] {
            assert!(!is_allowed(no, &more), "{no}");
        }
    }

    #[test]
    fn preflights() {
        let ok = preflight_faults("null", "POST", Some("Content-Type, authorization"), &[]);
        assert!(ok.is_empty());
        let bad = preflight_faults("http://evil.com", "DELETE", Some("x-secret"), &[]);
        assert_eq!(bad, ["origin", "method", "headers"]);
    }
}
