//! Bodies of the routes that check every field before they do anything: what does not fit is
//! answered with 422 and one object per fault, as FastAPI's clients know it.

use crate::body::Fields;
use crate::reply::{Refused, json};
use hyper::StatusCode;
use serde_json::{Value, json};
use std::ops::RangeInclusive;

/// The fields of a body while they are read.
#[derive(Debug)]
pub struct Typed {
    fields: Fields,
    faults: Vec<Value>,
}

impl Typed {
    /// A body of JSON; it must be there and hold an object.
    pub fn parse(bytes: &[u8]) -> Result<Self, Refused> {
        if bytes.trim_ascii().is_empty() {
            return Err(refused(&[json!({
                "type": "missing", "loc": ["body"], "msg": "Field required", "input": null,
            })]));
        }
        match serde_json::from_slice(bytes) {
            Ok(Value::Object(fields)) => Ok(Typed {
                fields,
                faults: Vec::new(),
            }),
            Ok(other) => Err(refused(&[json!({
                "type": "model_attributes_type",
                "loc": ["body"],
                "msg": "Input should be a valid dictionary or object to extract fields from",
                "input": other,
            })])),
            Err(error) => Err(refused(&[json!({
                "type": "json_invalid",
                "loc": ["body", error.column()],
                "msg": "JSON decode error",
                "input": {},
                "ctx": { "error": error.to_string() },
            })])),
        }
    }

    /// A text or nothing.
    pub fn text(&mut self, name: &str) -> Option<String> {
        match self.fields.get(name) {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) => Some(text.clone()),
            Some(_) => {
                self.fault(name, "string_type", "Input should be a valid string", None);
                None
            }
        }
    }

    /// A switch, off when it is not there.
    pub fn switch(&mut self, name: &str) -> bool {
        const WORDS: &str = "Input should be a valid boolean, unable to interpret input";
        let word = match self.fields.get(name) {
            None => return false,
            Some(Value::Bool(switch)) => return *switch,
            Some(Value::Number(n)) => n.to_string(),
            Some(Value::String(text)) => text.to_lowercase(),
            Some(_) => {
                self.fault(name, "bool_type", "Input should be a valid boolean", None);
                return false;
            }
        };
        match word.as_str() {
            "true" | "yes" | "on" | "t" | "y" | "1" | "1.0" => true,
            "false" | "no" | "off" | "f" | "n" | "0" | "0.0" => false,
            _ => {
                self.fault(name, "bool_parsing", WORDS, None);
                false
            }
        }
    }

    /// A whole number within limits, or nothing.
    pub fn int(&mut self, name: &str, range: RangeInclusive<i64>) -> Option<i64> {
        let (number, fault, why) = match self.fields.get(name) {
            None | Some(Value::Null) => return None,
            Some(Value::Number(n)) => (
                n.as_i64().or_else(|| n.as_f64().and_then(whole)),
                "int_from_float",
                "Input should be a valid integer, got a number with a fractional part",
            ),
            Some(Value::String(text)) => (
                text.trim().parse().ok(),
                "int_parsing",
                "Input should be a valid integer, unable to parse string as an integer",
            ),
            Some(_) => (None, "int_type", "Input should be a valid integer"),
        };
        let Some(number) = number else {
            self.fault(name, fault, why, None);
            return None;
        };
        let (low, high) = range.into_inner();
        if number < low {
            let why = format!("Input should be greater than or equal to {low}");
            self.fault(name, "greater_than_equal", &why, Some(json!({ "ge": low })));
        } else if number > high {
            let why = format!("Input should be less than or equal to {high}");
            self.fault(name, "less_than_equal", &why, Some(json!({ "le": high })));
        }
        Some(number)
    }

    /// Whether every field was what it should be.
    pub fn finish(self) -> Result<(), Refused> {
        match self.faults.as_slice() {
            [] => Ok(()),
            faults => Err(refused(faults)),
        }
    }

    fn fault(&mut self, name: &str, kind: &str, why: &str, context: Option<Value>) {
        let mut fault = json!({
            "type": kind, "loc": ["body", name], "msg": why, "input": self.fields.get(name),
        });
        if let Some(context) = context {
            fault["ctx"] = context;
        }
        self.faults.push(fault);
    }
}

/// `2.0` as 2.
fn whole(x: f64) -> Option<i64> {
    (x.fract() == 0.0 && x.abs() <= 9_007_199_254_740_992.0).then_some(x as i64)
}

fn refused(faults: &[Value]) -> Refused {
    let detail = json!({ "detail": faults });
    Box::new(json(StatusCode::UNPROCESSABLE_ENTITY, &detail))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn typed(value: Value) -> Typed {
        Typed::parse(value.to_string().as_bytes()).ok().unwrap()
    }

    /// Type and place of each fault.
    fn faults(typed: &Typed) -> Vec<(&str, &str)> {
        typed
            .faults
            .iter()
            .filter_map(|fault| Some((fault["type"].as_str()?, fault["loc"][1].as_str()?)))
            .collect()
    }

    #[test]
    fn values_are_understood_in_several_forms() {
        for (value, expected) in [
            (json!(2), Some(2)),
            (json!("2"), Some(2)),
            (json!(2.0), Some(2)),
            (json!(null), None),
        ] {
            let mut typed = typed(json!({ "n": value }));
            assert_eq!(typed.int("n", 1..=3), expected);
            assert!(typed.finish().is_ok());
        }
        for (value, expected) in [
            (json!("Yes"), true),
            (json!(1), true),
            (json!("t"), true),
            (json!("OFF"), false),
            (json!(0), false),
        ] {
            let mut typed = typed(json!({ "b": value }));
            assert_eq!(typed.switch("b"), expected);
            assert!(typed.finish().is_ok());
        }
        let mut empty = typed(json!({"more": []}));
        assert_eq!(
            (empty.int("n", 1..=3), empty.text("t"), empty.switch("b")),
            (None, None, false)
        );
        assert!(empty.finish().is_ok());
    }

    #[test]
    fn every_fault_is_named() {
        let mut wrong = typed(json!({
            "n": 2.5, "s": "x", "low": 0, "high": "4", "list": [], "t": 1, "b": "banana",
            "nothing": null,
        }));
        for name in ["n", "s", "low", "high", "list"] {
            wrong.int(name, 1..=3);
        }
        wrong.text("t");
        wrong.switch("b");
        wrong.switch("nothing");
        assert_eq!(
            faults(&wrong),
            [
                ("int_from_float", "n"),
                ("int_parsing", "s"),
                ("greater_than_equal", "low"),
                ("less_than_equal", "high"),
                ("int_type", "list"),
                ("string_type", "t"),
                ("bool_parsing", "b"),
                ("bool_type", "nothing"),
            ]
        );
        let refused = wrong.finish().unwrap_err();
        assert_eq!(refused.status(), StatusCode::UNPROCESSABLE_ENTITY);
    }

    #[test]
    fn bodies_that_are_no_object() {
        for body in ["", " ", "{", "[]", "null", "5"] {
            let refused = Typed::parse(body.as_bytes()).unwrap_err();
            assert_eq!(refused.status(), StatusCode::UNPROCESSABLE_ENTITY, "{body}");
        }
    }
}
