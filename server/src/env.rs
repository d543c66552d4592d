//! The environment: the process's variables over those of a `.env` file in the working directory.

use engine::{Error, Result};
use std::collections::HashMap;
use std::path::Path;

/// Variables by name.
#[derive(Debug, Clone, Default)]
pub struct Env {
    variables: HashMap<String, String>,
}

impl Env {
    /// The variables of the process, and those of `.env` that the process does not have.
    pub fn of_process() -> Self {
        let mut variables = read_file(Path::new(".env"));
        // Variables that are not Unicode cannot be ours.
        let own = std::env::vars_os()
            .filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)));
        variables.extend(own);
        Env { variables }
    }

    /// Exactly these variables.
    pub fn of(pairs: &[(&str, &str)]) -> Self {
        let variables = pairs
            .iter()
            .map(|(k, v)| (k.to_string(), v.to_string()))
            .collect();
        Env { variables }
    }

    /// The text of a variable; blank is as good as unset.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.variables
            .get(name)
            .map(|v| v.trim())
            .filter(|v| !v.is_empty())
    }

    /// A number or another type that is read from text. `what` says what it must be.
    pub fn parsed<T: std::str::FromStr>(&self, name: &str, what: &str) -> Result<Option<T>> {
        let parse = |text: &str| {
            text.parse().map_err(|_| {
                Error::Request(format!(
                    "{name} must be {what}, got \"{text}\"; correct it or unset it"
                ))
            })
        };
        self.text(name).map(parse).transpose()
    }

    /// True for 1, true, yes, y, on in any case; any other text is false.
    pub fn switch(&self, name: &str) -> Option<bool> {
        let is_on = |text: &str| {
            matches!(
                text.to_lowercase().as_str(),
                "1" | "true" | "yes" | "y" | "on"
            )
        };
        self.text(name).map(is_on)
    }

    /// Items separated by commas.
    pub fn list(&self, name: &str) -> Vec<String> {
        let items = self
            .text(name)
            .unwrap_or_default()
            .split(',')
            .map(str::trim);
        items
            .filter(|item| !item.is_empty())
            .map(str::to_owned)
            .collect()
    }
}

fn read_file(path: &Path) -> HashMap<String, String> {
    match std::fs::read_to_string(path) {
        Ok(text) => parse(&text),
        Err(_) => HashMap::new(),
    }
}

/// `NAME=value` per line, optionally behind `export`, quoted or followed by a comment.
fn parse(text: &str) -> HashMap<String, String> {
    text.lines().filter_map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<(String, String)> {
    let line = line.trim();
    let line = line.strip_prefix("export ").unwrap_or(line);
    let (name, value) = line.split_once('=')?;
    let name = name.trim();
    if name.is_empty() || name.starts_with('#') {
        return None;
    }
    let value = value.trim();
    let value = match value.chars().next() {
        Some(quote @ ('"' | '\'')) => value[1..].split(quote).next().unwrap_or_default(),
        _ => value.split(" #").next().unwrap_or_default().trim_end(),
    };
    Some((name.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_file() {
        let got = parse(
            "# comment\nA=1\nexport B = two words # why\nC=\"x # y\"\nD='q'\n\nE\nF=\n =g\nG=a#b\n",
        );
        for (name, value) in [
            ("A", "1"),
            ("B", "two words"),
            ("C", "x # y"),
            ("D", "q"),
            ("F", ""),
            ("G", "a#b"),
        ] {
            assert_eq!(got.get(name).map(String::as_str), Some(value), "{name}");
        }
        assert_eq!(got.len(), 6);
    }

    #[test]
    fn blank_is_unset_and_switches_are_lenient() {
        let env = Env::of(&[("A", "  "), ("B", "YES"), ("C", "banana"), ("D", "a, ,b")]);
        assert_eq!(env.text("A"), None);
        assert_eq!(
            (env.switch("A"), env.switch("B"), env.switch("C")),
            (None, Some(true), Some(false))
        );
        assert_eq!(env.list("D"), ["a", "b"]);
    }

    #[test]
    fn numbers_that_do_not_parse_name_the_variable() {
        let env = Env::of(&[("PORT", "80a")]);
        let error = env
            .parsed::<u16>("PORT", "a port")
            .map_err(|e| e.to_string());
        assert!(error.is_err_and(|e| e.contains("PORT") && e.contains("80a")));
        assert_eq!(env.parsed::<u16>("OTHER", "a port"), Ok(None));
    }
}
