//! The planner's reasoning: a song's metadata as the YAML block it was trained to write, and that
//! block (or what a model made of it) read back.

use super::codes::{code_matches, parse_codes};
use super::yaml::write_scalar;
use std::fmt;

/// A value that should be a whole number. The model may have written anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Number {
    /// A whole number.
    Whole(i64),
    /// Any other text.
    Text(String),
}

impl Number {
    /// The number in `text`, or the trimmed text.
    pub fn parse(text: &str) -> Self {
        let text = text.trim();
        match text.parse() {
            Ok(n) => Number::Whole(n),
            Err(_) => Number::Text(text.to_owned()),
        }
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Number::Whole(n) => write!(f, "{n}"),
            Number::Text(text) => f.write_str(text),
        }
    }
}

/// Metadata of a song as the planner reads and writes it; `None` where nothing is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Metadata {
    /// Beats per minute.
    pub bpm: Option<Number>,
    /// Description of the music, one line.
    pub caption: Option<String>,
    /// Length in seconds.
    pub duration: Option<Number>,
    /// Genres with commas between them. Read, never written.
    pub genres: Option<String>,
    /// For example `F# minor`.
    pub keyscale: Option<String>,
    /// Language code of the lyrics.
    pub language: Option<String>,
    /// Beats of a bar, for example `4` or `6/8`.
    pub timesignature: Option<String>,
}

impl Metadata {
    /// Beats per minute where a positive number is known.
    pub fn known_bpm(&self) -> Option<u32> {
        match self.bpm {
            Some(Number::Whole(n)) => u32::try_from(n).ok().filter(|n| *n > 0),
            _ => None,
        }
    }

    /// Seconds where a positive number is known; a fraction is accepted.
    pub fn known_duration(&self) -> Option<f64> {
        let seconds: f64 = self.duration.as_ref()?.to_string().parse().ok()?;
        (seconds.is_finite() && seconds > 0.0).then_some(seconds)
    }

    /// A text of this metadata unless it is blank or `N/A`.
    pub fn known(text: &Option<String>) -> Option<&str> {
        text.as_deref()
            .map(str::trim)
            .filter(|t| !t.is_empty() && *t != "N/A")
    }

    /// The block between `<think>` and `</think>`: keys in alphabetical order, those present,
    /// without a line end at either side; empty when nothing is known. Time signatures lose
    /// their `/4`, texts of digits become numbers.
    pub fn to_yaml(&self) -> String {
        let mut out = String::new();
        write_number("bpm", &self.bpm, &mut out);
        write_text("caption", self.caption.as_deref(), &mut out);
        write_number("duration", &self.duration, &mut out);
        write_text("keyscale", self.keyscale.as_deref(), &mut out);
        write_text("language", self.language.as_deref(), &mut out);
        let beats = self
            .timesignature
            .as_deref()
            .map(|t| match t.strip_suffix("/4") {
                Some(beats) => beats.split('/').next().unwrap_or(beats),
                None => t,
            });
        write_text("timesignature", beats, &mut out);
        out.trim().to_owned()
    }

    fn set(&mut self, name: &str, lines: &[&str]) {
        if lines.is_empty() {
            return;
        }
        let text = || unquoted(lines.join("\n").trim());
        match name {
            "bpm" => self.bpm = Some(Number::parse(&text())),
            "duration" => self.duration = Some(Number::parse(&text())),
            "genres" => self.genres = Some(text()),
            "keyscale" => self.keyscale = Some(text()),
            "language" => self.language = Some(text()),
            "timesignature" => self.timesignature = Some(text()),
            "caption" => {
                let lines = lines.iter().map(|l| l.trim()).filter(|l| !l.is_empty());
                self.caption = Some(unquoted(&lines.collect::<Vec<_>>().join(" ")));
            }
            _ => {}
        }
    }
}

fn write_number(name: &str, value: &Option<Number>, out: &mut String) {
    match value {
        Some(Number::Whole(n)) => out.push_str(&format!("{name}: {n}\n")),
        Some(Number::Text(text)) => write_text(name, Some(text), out),
        None => {}
    }
}

/// A line `name: value`; a text of digits is a number and gets no quotes.
fn write_text(name: &str, value: Option<&str>, out: &mut String) {
    let Some(value) = value else { return };
    out.push_str(name);
    out.push(':');
    if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) {
        let significant = value.trim_start_matches('0');
        out.push(' ');
        out.push_str(if significant.is_empty() {
            "0"
        } else {
            significant
        });
    } else {
        write_scalar(value, name.len() + 1, out);
    }
    out.push('\n');
}

/// A value without the quotes YAML put around it.
fn unquoted(text: &str) -> String {
    let within = |quote| text.strip_prefix(quote).and_then(|t| t.strip_suffix(quote));
    if let Some(inner) = within('\'') {
        return inner.replace("''", "'");
    }
    let Some(inner) = within('"') else {
        return text.to_owned();
    };
    let mut out = String::new();
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        match (c, chars.as_str().chars().next()) {
            ('\\', Some(escaped @ ('"' | '\\'))) => {
                out.push(escaped);
                chars.next();
            }
            _ => out.push(c),
        }
    }
    out
}

/// What a completion of the planner holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LmOutput {
    /// The fields of the reasoning.
    pub metadata: Metadata,
    /// Audio codes, in order, each legal.
    pub codes: Vec<u32>,
    /// What follows the reasoning; empty when the reasoning was not closed.
    pub lyrics: String,
}

/// Reads a completion. Nothing in it is an error: fields that are missing stay missing, names
/// that are not known are passed over.
pub fn parse_output(text: &str) -> LmOutput {
    let code_text: String = code_matches(text).map(|(_, whole)| whole).collect();
    LmOutput {
        metadata: parse_metadata(reasoning(text)),
        codes: parse_codes(&code_text).codes,
        lyrics: lyrics(text),
    }
}

/// The reasoning within a completion: between its tags, or everything before the first code when
/// no tag closes it (the first phase ends without one).
fn reasoning(text: &str) -> &str {
    for (open, close) in [("<think>", "</think>"), ("<reasoning>", "</reasoning>")] {
        if let Some(start) = text.find(open) {
            let rest = &text[start + open.len()..];
            if let Some(end) = rest.find(close) {
                return rest[..end].trim();
            }
        }
    }
    let end = text.find(super::lm_vocabulary::CODE_PREFIX);
    text[..end.unwrap_or(text.len())].trim()
}

/// Fields of a block of `name: value` lines; indented lines continue the one before.
fn parse_metadata(block: &str) -> Metadata {
    let mut metadata = Metadata::default();
    let mut field = String::new();
    let mut value: Vec<&str> = Vec::new();
    for line in block.split('\n') {
        if line.trim().starts_with('<') {
            continue;
        }
        let indented = line.starts_with(char::is_whitespace);
        match line.split_once(':') {
            Some((name, rest)) if !indented => {
                metadata.set(&field, &value);
                field = name.trim().to_lowercase();
                value.clear();
                value.extend(Some(rest).filter(|r| !r.trim().is_empty()));
            }
            _ if line.starts_with([' ', '\t']) && !field.is_empty() => value.push(line),
            _ => {}
        }
    }
    metadata.set(&field, &value);
    metadata
}

/// What follows the closed reasoning, without the heading the model puts above lyrics and without
/// the end of the turn.
fn lyrics(text: &str) -> String {
    let Some((_, text)) = text.split_once("</think>") else {
        return String::new();
    };
    let mut text = text.trim();
    for heading in ["language", "lyri"] {
        text = without_section(text, heading);
    }
    for end in ["<|im_end|>", "<|endoftext|>"] {
        text = text.strip_suffix(end).unwrap_or(text).trim_end();
    }
    text.to_owned()
}

/// `text` without a first line that is the heading `# name…`; of a `# Languages` section the line
/// below goes too.
fn without_section<'a>(text: &'a str, name: &str) -> &'a str {
    let first_line = text.lines().next().unwrap_or_default();
    let Some(title) = first_line.strip_prefix('#') else {
        return text;
    };
    let title = title.trim().to_lowercase();
    let known = match name {
        "lyri" => ["lyri", "lyric", "lyri|", "lyris", "lyrics"].contains(&title.as_str()),
        _ => ["language", "languages"].contains(&title.as_str()),
    };
    if !known {
        return text;
    }
    let body = text[first_line.len()..].trim_start();
    match name {
        "lyri" => body,
        _ if body.starts_with('#') => body,
        _ => body
            .split_once('\n')
            .map_or("", |(_, rest)| rest)
            .trim_start(),
    }
}
