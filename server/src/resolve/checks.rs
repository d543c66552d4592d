//! Ranges and choices of the field table, applied as the caller's kind wants it.

use super::Caller;
use crate::fields::{Refusal, field};

/// Applies limits and collects notes on values that were not taken as sent.
pub struct Checks {
    /// Who asks.
    pub caller: Caller,
    /// One sentence per changed value.
    pub notes: Vec<String>,
}

impl Checks {
    /// No notes yet.
    pub fn new(caller: Caller) -> Self {
        Checks {
            caller,
            notes: Vec::new(),
        }
    }

    /// `value` within the range of the table.
    pub fn clamp(&mut self, name: &str, value: f64) -> Result<f64, Refusal> {
        match field(name).range {
            Some((low, high)) => self.clamp_to(name, value, low, high),
            None => Ok(value),
        }
    }

    /// `value` within a range that depends on the model.
    pub fn clamp_to(
        &mut self,
        name: &str,
        value: f64,
        low: f64,
        high: f64,
    ) -> Result<f64, Refusal> {
        let clamped = value.max(low).min(high);
        if clamped != value {
            if self.caller == Caller::CommandLine {
                let flag = flag(name);
                return Err(Refusal(format!(
                    "{flag} must be between {low} and {high}, got {value}"
                )));
            }
            self.notes
                .push(format!("{name} {value} was limited to {clamped}"));
        }
        Ok(clamped)
    }

    /// A whole number within its range, or as if it had not been given.
    pub fn within_or_absent(&mut self, name: &str, value: i64) -> Result<Option<i64>, Refusal> {
        let (low, high) = field(name).range.unwrap_or((f64::MIN, f64::MAX));
        if (low..=high).contains(&(value as f64)) {
            return Ok(Some(value));
        }
        self.fall_back(
            name,
            &value.to_string(),
            "not given",
            &format!("from {low} to {high}"),
        )?;
        Ok(None)
    }

    /// Notes that `value` was read as `instead`, or refuses it.
    pub fn fall_back(
        &mut self,
        name: &str,
        value: &str,
        instead: &str,
        allowed: &str,
    ) -> Result<(), Refusal> {
        if self.caller == Caller::CommandLine {
            return Err(Refusal(format!(
                "{} must be {allowed}, got \"{value}\"",
                flag(name)
            )));
        }
        self.notes.push(format!(
            "{name} \"{}\" was taken as {instead}",
            shorten(value)
        ));
        Ok(())
    }
}

/// The flag of `generate` that sets a field.
pub fn flag(name: &str) -> String {
    let short = match name {
        "inference_steps" => "steps",
        "audio_duration" => "duration",
        "vocal_language" => "language",
        "key_scale" => "key",
        "audio_format" => "format",
        "opus_bitrate" | "aac_bitrate" | "mp3_bitrate" => "bitrate",
        "audio_code_string" => "codes",
        "audio_cover_strength" => "cover-strength",
        "repainting_start" | "repainting_end" => "repaint",
        other => other,
    };
    format!("--{}", short.replace('_', "-"))
}

/// Characters that a text which is kept may have; no song has more to say.
pub const TEXT_LIMIT: usize = 100_000;

/// The text, if there is one, must not be longer than [`TEXT_LIMIT`].
pub fn length(caller: Caller, name: &str, text: Option<&str>) -> Result<(), Refusal> {
    if text.is_none_or(|t| t.len() <= TEXT_LIMIT || t.chars().nth(TEXT_LIMIT).is_none()) {
        return Ok(());
    }
    let name = match caller {
        Caller::Http => name.to_owned(),
        Caller::CommandLine => flag(name),
    };
    Err(Refusal(format!(
        "{name} must have at most {TEXT_LIMIT} characters; shorten it"
    )))
}

/// The text must be one of the field's choices.
pub fn choice(name: &str, value: &str) -> Result<(), Refusal> {
    let choices = field(name).choices;
    if choices.contains(&value) {
        return Ok(());
    }
    Err(Refusal(format!(
        "{name} must be one of {}, got \"{}\"",
        choices.join(", "),
        shorten(value)
    )))
}

/// The beginning of a text that a client chose, for messages.
pub(super) fn shorten(text: &str) -> String {
    const LIMIT: usize = 60;
    match text.char_indices().nth(LIMIT) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}
