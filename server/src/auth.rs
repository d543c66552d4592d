//! The two checks of the API key (upstream `acestep/api/http/auth.py`).

use subtle::ConstantTimeEq;

/// A key that clients must show. Its text never appears in logs.
#[derive(Clone)]
pub struct ApiKey(String);

impl std::fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ApiKey(..)")
    }
}

impl ApiKey {
    /// `None` when blank: then nothing is checked.
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        (!text.is_empty()).then(|| ApiKey(text.to_owned()))
    }

    /// Compares without telling by time where the texts differ.
    fn is(&self, text: &str) -> bool {
        self.0.as_bytes().ct_eq(text.as_bytes()).into()
    }

    /// `Bearer KEY` or the bare key.
    fn is_in_header(&self, header: &str) -> bool {
        const WORD: &str = "Bearer ";
        let key = match header.get(..WORD.len()) {
            Some(word) if word.eq_ignore_ascii_case(WORD) => &header[WORD.len()..],
            _ => header,
        };
        self.is(key)
    }
}

/// Why a request is refused with 401.
pub type Denied = &'static str;

/// The check of routes with a body: a token in the body counts more than the header.
pub fn check_body(
    key: Option<&ApiKey>,
    ai_token: Option<&str>,
    header: Option<&str>,
) -> Result<(), Denied> {
    let Some(key) = key else { return Ok(()) };
    match (ai_token.filter(|t| !t.is_empty()), header) {
        (Some(token), _) if key.is(token) => Ok(()),
        (Some(_), _) => Err("Invalid ai_token"),
        (None, Some(header)) if key.is_in_header(header) => Ok(()),
        (None, Some(_)) => Err("Invalid API key"),
        (None, None) => Err("Missing ai_token or Authorization header"),
    }
}

/// The check of the other routes. `query_token` is the `ai_token` of the query where a route
/// accepts it.
pub fn check_header(
    key: Option<&ApiKey>,
    header: Option<&str>,
    query_token: Option<&str>,
) -> Result<(), Denied> {
    let Some(key) = key else { return Ok(()) };
    match (header, query_token) {
        (Some(header), _) if key.is_in_header(header) => Ok(()),
        (None, Some(token)) if key.is(token) => Ok(()),
        (None, Some(_)) => Err("Invalid ai_token"),
        (Some(_), _) => Err("Invalid API key"),
        (None, None) => Err("Missing Authorization header"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn body_check() {
        let key = ApiKey::new(" k ");
        let key = key.as_ref();
        for (token, header, expected) in [
            (Some("k"), None, Ok(())),
            (Some("k"), Some("Bearer x"), Ok(())),
            (Some("x"), Some("Bearer k"), Err("Invalid ai_token")),
            (Some(""), Some("Bearer k"), Ok(())),
            (None, Some("Bearer k"), Ok(())),
            (None, Some("bearer k"), Ok(())),
            (None, Some("k"), Ok(())),
            (None, Some("Bearer  k"), Err("Invalid API key")),
            (None, Some(""), Err("Invalid API key")),
            (None, Some("Béarer k"), Err("Invalid API key")),
            (None, None, Err("Missing ai_token or Authorization header")),
        ] {
            assert_eq!(
                check_body(key, token, header),
                expected,
                "{token:?} {header:?}"
            );
        }
        assert_eq!(check_body(None, Some("x"), Some("y")), Ok(()));
    }

    #[test]
    fn header_check() {
        let key = ApiKey::new("k");
        let key = key.as_ref();
        for (header, token, expected) in [
            (Some("Bearer k"), None, Ok(())),
            (Some("k"), None, Ok(())),
            (Some("kk"), None, Err("Invalid API key")),
            (Some("Bearer"), None, Err("Invalid API key")),
            (None, Some("k"), Ok(())),
            (None, Some("x"), Err("Invalid ai_token")),
            (None, None, Err("Missing Authorization header")),
        ] {
            assert_eq!(
                check_header(key, header, token),
                expected,
                "{header:?} {token:?}"
            );
        }
        assert_eq!(check_header(None, None, None), Ok(()));
    }

    #[test]
    fn keys_do_not_reach_logs() {
        assert_eq!(format!("{:?}", ApiKey::new("secret")), "Some(ApiKey(..))");
    }
}
