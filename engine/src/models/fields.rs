//! Strict reading of a JSON object: every refusal names file, key, what was found and what was
//! expected, because these files are edited by hand and downloaded half.

use crate::error::{Error, Result};
use serde_json::{Map, Value};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

/// Largest `config.json` that is read; the published ones have about 2 KiB.
const MAX_BYTES: u64 = 1 << 20;

/// A JSON object with the file it came from.
pub struct Fields {
    path: PathBuf,
    map: Map<String, Value>,
}

impl Fields {
    /// Reads a file that holds one object.
    pub fn read(path: &Path) -> Result<Self> {
        let size = match std::fs::metadata(path) {
            Ok(meta) if meta.is_file() => meta.len(),
            Ok(_) => return Err(Error::Corrupt(format!("{} is not a file", path.display()))),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                return Err(Error::Missing(format!(
                    "{} is missing: put the whole published folder there",
                    path.display()
                )));
            }
            Err(e) => return Err(unreadable(path, &e)),
        };
        if size > MAX_BYTES {
            return Err(Error::Corrupt(format!(
                "{} has {size} bytes, a configuration has at most {MAX_BYTES}: \
                 download the file again",
                path.display()
            )));
        }
        let text = std::fs::read(path).map_err(|e| unreadable(path, &e))?;
        Fields::parse(&text, path)
    }

    /// Parses the text of `path`.
    pub fn parse(text: &[u8], path: &Path) -> Result<Self> {
        match serde_json::from_slice(text) {
            Ok(Value::Object(map)) => Ok(Fields {
                path: path.to_path_buf(),
                map,
            }),
            Ok(other) => Err(Error::Corrupt(format!(
                "{}: expected a JSON object, found {}",
                path.display(),
                kind(&other)
            ))),
            Err(e) => Err(Error::Corrupt(format!(
                "{}: not valid JSON ({e}): download the file again",
                path.display()
            ))),
        }
    }

    /// The refusal of a key: what is wrong, then what would be right.
    pub fn refuse(&self, key: &str, found: &str, expected: &str) -> Error {
        Error::Corrupt(format!(
            "{}: {key} is {found}, expected {expected}",
            self.path.display()
        ))
    }

    /// The value of a key; null counts as absent.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.map.get(key).filter(|v| !v.is_null())
    }

    /// Sets a key (to assemble one configuration from several files).
    pub fn set(&mut self, key: &str, value: Option<Value>) {
        match value {
            Some(value) => self.map.insert(key.to_string(), value),
            None => self.map.remove(key),
        };
    }

    fn missing(&self, key: &str) -> Error {
        Error::Corrupt(format!(
            "{}: {key} is missing: download the file again",
            self.path.display()
        ))
    }

    /// A whole number within `range`; `default` when absent, an error when there is none.
    pub fn whole(
        &self,
        key: &str,
        default: Option<usize>,
        range: RangeInclusive<usize>,
    ) -> Result<usize> {
        let Some(value) = self.get(key) else {
            return default.ok_or_else(|| self.missing(key));
        };
        value
            .as_u64()
            .and_then(|n| usize::try_from(n).ok())
            .filter(|n| range.contains(n))
            .ok_or_else(|| {
                let expected = format!("a whole number from {} to {}", range.start(), range.end());
                self.refuse(key, &brief(value), &expected)
            })
    }

    /// A size: 1 to a million.
    pub fn size(&self, key: &str, default: Option<usize>) -> Result<usize> {
        self.whole(key, default, 1..=1_000_000)
    }

    /// A number within `range`.
    pub fn number(&self, key: &str, default: f64, range: RangeInclusive<f64>) -> Result<f64> {
        let Some(value) = self.get(key) else {
            return Ok(default);
        };
        value.as_f64().filter(|x| range.contains(x)).ok_or_else(|| {
            let expected = format!("a number from {} to {}", range.start(), range.end());
            self.refuse(key, &brief(value), &expected)
        })
    }

    /// True or false; `default` when absent, an error when there is none.
    pub fn flag(&self, key: &str, default: Option<bool>) -> Result<bool> {
        let Some(value) = self.get(key) else {
            return default.ok_or_else(|| self.missing(key));
        };
        value
            .as_bool()
            .ok_or_else(|| self.refuse(key, &brief(value), "true or false"))
    }

    /// A string, or `None` when absent.
    pub fn text(&self, key: &str) -> Result<Option<&str>> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        value
            .as_str()
            .map(Some)
            .ok_or_else(|| self.refuse(key, &brief(value), "a string"))
    }

    /// A list of whole numbers within `range`, 1 to 64 of them.
    pub fn wholes(
        &self,
        key: &str,
        default: Option<&[usize]>,
        range: RangeInclusive<usize>,
    ) -> Result<Vec<usize>> {
        let Some(value) = self.get(key) else {
            return default
                .map(<[usize]>::to_vec)
                .ok_or_else(|| self.missing(key));
        };
        whole_list(value, &range)
            .filter(|l| (1..=64).contains(&l.len()))
            .ok_or_else(|| {
                let expected = format!(
                    "a list of whole numbers from {} to {}",
                    range.start(),
                    range.end()
                );
                self.refuse(key, &brief(value), &expected)
            })
    }

    /// Fails unless the key is absent or equal to the one value that is supported.
    pub fn only(&self, key: &str, supported: &Value) -> Result<()> {
        match self.get(key) {
            Some(value) if value != supported => Err(self.refuse(
                key,
                &brief(value),
                &format!("{supported} (nothing else is supported)"),
            )),
            _ => Ok(()),
        }
    }
}

/// A JSON list of whole numbers within `range`.
pub fn whole_list(value: &Value, range: &RangeInclusive<usize>) -> Option<Vec<usize>> {
    value
        .as_array()?
        .iter()
        .map(|v| {
            v.as_u64()
                .and_then(|n| usize::try_from(n).ok())
                .filter(|n| range.contains(n))
        })
        .collect()
}

/// A value as it is shown in a message: never longer than a line.
pub fn brief(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() <= 60 {
        return text;
    }
    let head: String = text.chars().take(57).collect();
    format!("{head}...")
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

fn unreadable(path: &Path, e: &std::io::Error) -> Error {
    Error::Missing(format!("{} cannot be read: {e}", path.display()))
}
