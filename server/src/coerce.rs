//! What a JSON value means for each kind of field. A wrong type never fails a request, it reads
//! as "not given"; the two kinds that may refuse ([`Seed`], [`Texts`]) say so.

use serde_json::Value;

/// Free text.
pub type Text = String;
/// A whole number.
pub type Int = i64;
/// A finite number.
pub type Float = f64;
/// A switch.
pub type Bool = bool;

/// A list of texts: one text, a list, or a text that holds a JSON list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Texts(pub Vec<String>);

/// Seeds as the client wrote them; [`crate::seeds`] says what they mean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seed {
    /// One whole number.
    Number(i128),
    /// Numbers separated by commas.
    List(String),
}

/// The kinds, for tables and documentation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Kind {
    Text,
    Int,
    Float,
    Bool,
    Texts,
    Seed,
}

impl Kind {
    /// Name for documentation.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Text => "string",
            Kind::Int => "integer",
            Kind::Float => "number",
            Kind::Bool => "boolean",
            Kind::Texts => "list of strings",
            Kind::Seed => "integer or string",
        }
    }
}

/// Reads a kind from a JSON value that is not null.
pub trait Coerce: Sized {
    /// The kind this type stands for.
    const KIND: Kind;

    /// `Ok(None)`: reads as not given. `Err`: a sentence that goes behind the field's name.
    fn coerce(value: &Value) -> Result<Option<Self>, &'static str>;

    /// The value that reads as this one.
    fn to_json(&self) -> Value;
}

/// The text of a value, as Python's `str` writes the simple ones.
fn text_of(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(s) => s.clone(),
        Value::Bool(true) => "True".into(),
        Value::Bool(false) => "False".into(),
        other => other.to_string(),
    }
}

impl Coerce for Text {
    const KIND: Kind = Kind::Text;

    fn coerce(value: &Value) -> Result<Option<Self>, &'static str> {
        Ok(Some(text_of(value)))
    }

    fn to_json(&self) -> Value {
        Value::String(self.clone())
    }
}

/// `120.0` as 120; fractions and numbers beyond 2^53 are not whole numbers.
fn whole(x: f64) -> Option<i64> {
    (x.fract() == 0.0 && x.abs() <= 9_007_199_254_740_992.0).then_some(x as i64)
}

impl Coerce for Int {
    const KIND: Kind = Kind::Int;

    fn coerce(value: &Value) -> Result<Option<Self>, &'static str> {
        Ok(match value {
            Value::Bool(b) => Some(i64::from(*b)),
            Value::Number(n) => n.as_i64().or_else(|| n.as_f64().and_then(whole)),
            Value::String(s) => {
                let s = s.trim();
                s.parse().ok().or_else(|| s.parse().ok().and_then(whole))
            }
            _ => None,
        })
    }

    fn to_json(&self) -> Value {
        Value::from(*self)
    }
}

impl Coerce for Float {
    const KIND: Kind = Kind::Float;

    fn coerce(value: &Value) -> Result<Option<Self>, &'static str> {
        let number = match value {
            Value::Bool(b) => Some(f64::from(u8::from(*b))),
            Value::Number(n) => n.as_f64(),
            Value::String(s) => s.trim().parse().ok(),
            _ => None,
        };
        Ok(number.filter(|x: &f64| x.is_finite()))
    }

    fn to_json(&self) -> Value {
        Value::from(*self)
    }
}

impl Coerce for Bool {
    const KIND: Kind = Kind::Bool;

    fn coerce(value: &Value) -> Result<Option<Self>, &'static str> {
        let text = match value {
            Value::Bool(b) => return Ok(Some(*b)),
            other => text_of(other).trim().to_lowercase(),
        };
        if text.is_empty() {
            return Ok(None);
        }
        Ok(Some(matches!(
            text.as_str(),
            "1" | "true" | "yes" | "y" | "on"
        )))
    }

    fn to_json(&self) -> Value {
        Value::from(*self)
    }
}

impl Coerce for Texts {
    const KIND: Kind = Kind::Texts;

    fn coerce(value: &Value) -> Result<Option<Self>, &'static str> {
        let list = match value {
            Value::String(s) => match serde_json::from_str(s) {
                Ok(Value::Array(list)) => list,
                _ if s.trim().is_empty() => return Ok(None),
                _ => return Ok(Some(Texts(vec![s.clone()]))),
            },
            Value::Array(list) => list.clone(),
            _ => return Err("must be a string or a list of strings"),
        };
        let texts: Option<Vec<String>> = list
            .into_iter()
            .map(|v| v.as_str().map(str::to_owned))
            .collect();
        texts
            .map(|t| Some(Texts(t)))
            .ok_or("must hold strings only")
    }

    fn to_json(&self) -> Value {
        Value::from(self.0.clone())
    }
}

impl Coerce for Seed {
    const KIND: Kind = Kind::Seed;

    fn coerce(value: &Value) -> Result<Option<Self>, &'static str> {
        const WRONG: &str = "must be a whole number or a string";
        match value {
            Value::String(s) => Ok(Some(Seed::List(s.clone()))),
            Value::Number(n) => {
                let whole_number = n
                    .as_i128()
                    .or_else(|| n.as_f64().and_then(whole).map(i128::from));
                whole_number.map(|n| Some(Seed::Number(n))).ok_or(WRONG)
            }
            _ => Err(WRONG),
        }
    }

    fn to_json(&self) -> Value {
        match self {
            Seed::List(text) => Value::String(text.clone()),
            Seed::Number(n) => match serde_json::Number::from_i128(*n) {
                Some(number) => Value::Number(number),
                None => Value::String(n.to_string()),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn texts_of_values() {
        for (value, text) in [
            (json!("x"), "x"),
            (json!(4), "4"),
            (json!(4.5), "4.5"),
            (json!(4.0), "4.0"),
            (json!(true), "True"),
            (json!(""), ""),
        ] {
            assert_eq!(Text::coerce(&value), Ok(Some(text.to_owned())), "{value}");
        }
    }

    #[test]
    fn whole_numbers() {
        for (value, int) in [
            (json!(7), Some(7)),
            (json!(-7), Some(-7)),
            (json!(120.0), Some(120)),
            (json!(120.5), None),
            (json!(" 12 "), Some(12)),
            (json!("120.0"), Some(120)),
            (json!("1e2"), Some(100)),
            (json!(""), None),
            (json!("abc"), None),
            (json!("nan"), None),
            (json!(1e300), None),
            (json!([1]), None),
            (json!({}), None),
        ] {
            assert_eq!(Int::coerce(&value), Ok(int), "{value}");
        }
    }

    #[test]
    fn finite_numbers() {
        for (value, float) in [
            (json!(7), Some(7.0)),
            (json!("0.5 "), Some(0.5)),
            (json!("inf"), None),
            (json!("NaN"), None),
            (json!("-Infinity"), None),
            (json!("1e999"), None),
            (json!(""), None),
            (json!("12 s"), None),
            (json!([]), None),
        ] {
            assert_eq!(Float::coerce(&value), Ok(float), "{value}");
        }
    }

    #[test]
    fn switches() {
        for (value, switch) in [
            (json!(true), Some(true)),
            (json!(false), Some(false)),
            (json!(1), Some(true)),
            (json!(0), Some(false)),
            (json!(2), Some(false)),
            (json!(" YES "), Some(true)),
            (json!("y"), Some(true)),
            (json!("On"), Some(true)),
            (json!("true"), Some(true)),
            (json!("no"), Some(false)),
            (json!("banana"), Some(false)),
            (json!(""), None),
            (json!("  "), None),
        ] {
            assert_eq!(Bool::coerce(&value), Ok(switch), "{value}");
        }
    }

    #[test]
    fn lists_of_texts() {
        let texts = |t: &[&str]| Some(Texts(t.iter().map(|s| s.to_string()).collect()));
        assert_eq!(Texts::coerce(&json!("drums")), Ok(texts(&["drums"])));
        assert_eq!(Texts::coerce(&json!(["a", "b"])), Ok(texts(&["a", "b"])));
        assert_eq!(
            Texts::coerce(&json!("[\"a\",\"b\"]")),
            Ok(texts(&["a", "b"]))
        );
        assert_eq!(Texts::coerce(&json!("")), Ok(None));
        assert!(Texts::coerce(&json!([1])).is_err());
        assert!(Texts::coerce(&json!("[1]")).is_err());
        assert!(Texts::coerce(&json!(5)).is_err());
    }

    #[test]
    fn seeds_are_whole_numbers_or_texts() {
        assert_eq!(Seed::coerce(&json!(42)), Ok(Some(Seed::Number(42))));
        assert_eq!(Seed::coerce(&json!(42.0)), Ok(Some(Seed::Number(42))));
        assert_eq!(Seed::coerce(&json!(-1)), Ok(Some(Seed::Number(-1))));
        assert_eq!(
            Seed::coerce(&json!("1,2")),
            Ok(Some(Seed::List("1,2".into())))
        );
        for wrong in [json!(1.5), json!([1]), json!({}), json!(true)] {
            assert!(Seed::coerce(&wrong).is_err(), "{wrong}");
        }
    }
}
