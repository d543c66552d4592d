//! `POST /create_random_sample`: an example that a client fills its form with.

use super::asked::Asked;
use crate::app::App;
use crate::examples::{self, Kind};
use crate::raw;
use crate::reply::{Refused, Reply, success};
use hyper::Request;
use hyper::body::Incoming;
use serde_json::Value;
use std::sync::Arc;
use uuid::Uuid;

/// Largest body: a choice between two words.
const BODY_LIMIT: usize = 1 << 20;

pub async fn answer(app: &Arc<App>, request: Request<Incoming>) -> Result<Reply, Refused> {
    let asked = Asked::read(app, request, BODY_LIMIT).await?;
    let (fields, _held) = asked.fields(app)?;
    // The low half of a version 4 identifier holds 32 random bits and more.
    let mut random = || Uuid::new_v4().as_fields().0;
    let kind = kind(fields.get("sample_type"));
    Ok(success(examples::pick(kind, &mut random)))
}

/// `simple_mode`, also when nothing is said; everything else means the custom ones.
fn kind(sample_type: Option<&Value>) -> Kind {
    match sample_type {
        None => Kind::Simple,
        Some(value) if raw::is_empty(value) => Kind::Simple,
        Some(value) if value.as_str() == Some("simple_mode") => Kind::Simple,
        Some(_) => Kind::Custom,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn kinds() {
        assert_eq!(kind(None), Kind::Simple);
        for simple in [json!("simple_mode"), json!(""), json!(null), json!(false)] {
            assert_eq!(kind(Some(&simple)), Kind::Simple, "{simple}");
        }
        for custom in [json!("custom_mode"), json!("Simple_mode"), json!(1)] {
            assert_eq!(kind(Some(&custom)), Kind::Custom, "{custom}");
        }
    }
}
