//! Where a field's value is looked up: the body, then `param_obj`, then the first metadata
//! object. The first of the three that has any of the field's names with a value wins.

use crate::fields::{FIELDS, names};
use serde_json::{Map, Value};
use std::collections::HashSet;
use std::sync::LazyLock;

/// Names of the metadata object; only the first that is present and not empty is read.
const METAS: [&str; 5] = ["metas", "meta", "metadata", "user_metadata", "userMetadata"];

/// The objects a request's fields come from, in order.
#[derive(Debug, Default)]
pub struct Sources {
    objects: Vec<Map<String, Value>>,
}

impl Sources {
    /// The sources within a request body.
    pub fn new(body: Map<String, Value>) -> Self {
        let nested = body.get("param_obj").and_then(object);
        let metas = METAS
            .iter()
            .filter_map(|name| body.get(*name))
            .find(|v| !is_empty(v))
            .and_then(object);
        let objects = [Some(body), nested, metas].into_iter().flatten().collect();
        Sources { objects }
    }

    /// The first value that is not null under any of the names.
    pub fn find(&self, names: &[String]) -> Option<&Value> {
        self.objects.iter().find_map(|object| {
            names
                .iter()
                .find_map(|name| object.get(name.as_str()).filter(|v| !v.is_null()))
        })
    }

    /// Names in the body that no field has.
    pub fn unknown(&self) -> Vec<&str> {
        static KNOWN: LazyLock<HashSet<&str>> = LazyLock::new(|| {
            let fields = (0..FIELDS.len()).flat_map(names).map(String::as_str);
            fields.chain(METAS).chain(["param_obj"]).collect()
        });
        let body = self.objects.first();
        body.into_iter()
            .flat_map(Map::keys)
            .map(String::as_str)
            .filter(|name| !KNOWN.contains(name))
            .collect()
    }
}

/// An object, or a text that holds one.
fn object(value: &Value) -> Option<Map<String, Value>> {
    match value {
        Value::Object(object) => Some(object.clone()),
        Value::String(text) => match serde_json::from_str(text) {
            Ok(Value::Object(object)) => Some(object),
            _ => None,
        },
        _ => None,
    }
}

/// What counts as not present.
pub fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(object) => object.is_empty(),
        Value::Number(n) => n.as_f64() == Some(0.0),
        Value::Bool(true) => false,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::fields::RawRequest;
    use serde_json::json;

    fn read(body: Value) -> RawRequest {
        RawRequest::read(&Sources::new(body.as_object().unwrap().clone())).unwrap()
    }

    #[test]
    fn the_body_comes_before_param_obj_before_metas() {
        let raw = read(json!({"bpm": 90, "param_obj": {"bpm": 100}, "metas": {"bpm": 110}}));
        assert_eq!(raw.bpm, Some(90));
        let raw = read(json!({"bpm": null, "param_obj": {"bpm": 100}, "metas": {"bpm": 110}}));
        assert_eq!(raw.bpm, Some(100));
        let raw = read(json!({"param_obj": "{\"lyrics\": \"la\"}", "metas": "{\"bpm\": \"110\"}"}));
        assert_eq!((raw.bpm, raw.lyrics), (Some(110), Some("la".into())));
    }

    #[test]
    fn an_empty_text_hides_later_sources() {
        let raw = read(json!({"key_scale": "", "metas": {"keyscale": "C Major"}}));
        assert_eq!(raw.key_scale, Some(String::new()));
        let raw = read(json!({"metas": {"keyscale": "C Major"}}));
        assert_eq!(raw.key_scale, Some("C Major".into()));
    }

    #[test]
    fn only_the_first_metadata_object_is_read() {
        for name in METAS {
            assert_eq!(read(json!({ name: {"bpm": 95} })).bpm, Some(95), "{name}");
        }
        assert_eq!(
            read(json!({"metas": {}, "metadata": {"bpm": 95}})).bpm,
            Some(95)
        );
        assert_eq!(
            read(json!({"metas": "no json", "metadata": {"bpm": 95}})).bpm,
            None
        );
    }

    #[test]
    fn a_name_earlier_in_the_table_wins_within_a_source() {
        assert_eq!(
            read(json!({"caption": "b", "prompt": "a"})).prompt,
            Some("a".into())
        );
        assert_eq!(
            read(json!({"caption": "b", "prompt": null})).prompt,
            Some("b".into())
        );
    }

    #[test]
    fn unknown_names_are_listed_not_refused() {
        let body = json!({"prompt": "x", "title": "t", "metas": {}, "audioDuration": 3});
        let sources = Sources::new(body.as_object().unwrap().clone());
        assert_eq!(sources.unknown(), ["title"]);
    }
}
