//! The grammar of the planner's output: which tokens may come next.
//!
//! A completion first reasons, then writes codes or lyrics:
//!
//! ```text
//! <think>
//! bpm: 120
//! caption: upbeat pop song
//! duration: 30
//! keyscale: C major
//! language: en
//! timesignature: 4
//! </think>
//! ```
//!
//! [`Grammar`] holds what depends on the vocabulary alone: the ids of the fixed texts, a prefix
//! tree of the legal values per field, the sets of caption and lyrics. One [`Machine`] per
//! sequence walks it. A set is found from the state, never by looking at every token, and most
//! tokens of the reasoning are forced: they need no logits at all.
//!
//! Upstream (`acestep/constrained_logits_processor.py`) lets the model leave a caption in ways
//! that lose later fields, or never end. [`Rules`] says which of the two is in force.

mod machine;
mod spans;
mod tables;
mod trace;
mod tree;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod property_tests;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod walk_tests;

pub use machine::Machine;
pub use spans::{Allowed, Spans};
pub use tables::{Grammar, LANGUAGES, MAX_DURATION_S, is_key};
pub use trace::Event;

use std::collections::BTreeMap;
use std::fmt;

/// Fields of the reasoning, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Field {
    /// Beats per minute, 30 to 300.
    Bpm,
    /// Description of the music.
    Caption,
    /// Seconds, 10 to the grammar's limit.
    Duration,
    /// One of 70 keys.
    KeyScale,
    /// One of [`LANGUAGES`].
    Language,
    /// Beats of a bar: 2, 3, 4 or 6.
    TimeSignature,
}

impl Field {
    /// All fields, in their order.
    pub const ALL: [Field; 6] = [
        Field::Bpm,
        Field::Caption,
        Field::Duration,
        Field::KeyScale,
        Field::Language,
        Field::TimeSignature,
    ];

    /// The field's key in the reasoning.
    pub fn name(self) -> &'static str {
        match self {
            Field::Bpm => "bpm",
            Field::Caption => "caption",
            Field::Duration => "duration",
            Field::KeyScale => "keyscale",
            Field::Language => "language",
            Field::TimeSignature => "timesignature",
        }
    }
}

/// What a completion is for; decides what follows the reasoning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Metadata, then codes unless it stops there.
    Cot,
    /// Codes, from a prompt that already holds the reasoning.
    Codes,
    /// Metadata, then lyrics: understanding, inspiration and formatting.
    Understand,
}

/// How the free parts of a completion are bounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Rules {
    /// What the engine generates with. Whatever the logits, every field follows in its order and
    /// the completion parses:
    ///
    /// * caption and lyrics hold no control tokens and no audio codes, a caption no `<` either,
    ///   with which ordinary text could spell a tag;
    /// * a line of the caption that is not indented cannot begin: where the model wants one, the
    ///   next field follows;
    /// * a caption that is cut off is followed by the next field.
    #[default]
    Strict,
    /// Exactly the sets of upstream, for comparison with it. A caption blocks only the backtick
    /// and the legal codes; once the model begins a line that is not indented everything is legal
    /// up to the next colon, and what stands before that colon chooses the field that goes on.
    Upstream,
}

/// What one completion is bound to.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// What it is for.
    pub phase: Phase,
    /// Whether it ends where `</think>` would stand (first phase of generation).
    pub stop_at_reasoning: bool,
    /// Leaves the caption out.
    pub skip_caption: bool,
    /// Leaves the language out.
    pub skip_language: bool,
    /// Values the user gave. They are written as they are, legal or not, on one line.
    pub user: BTreeMap<Field, String>,
    /// Seconds of music the codes are for; unknown lets the model decide when to end.
    pub target_s: Option<f64>,
    /// Bounds of the free parts.
    pub rules: Rules,
    /// Off: everything is legal everywhere, and nothing is injected or counted.
    pub constrained: bool,
    /// Whether to record [`Event`]s. They never change what is legal.
    pub debug: bool,
}

impl Settings {
    /// Settings of a phase: nothing skipped, nothing known, strict.
    pub fn new(phase: Phase) -> Self {
        Settings {
            phase,
            stop_at_reasoning: false,
            skip_caption: false,
            skip_language: false,
            user: BTreeMap::new(),
            target_s: None,
            rules: Rules::default(),
            constrained: true,
            debug: false,
        }
    }
}

/// Where a completion is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// `<think>`.
    ThinkTag,
    /// The line end behind it.
    NewlineAfterThink,
    /// Key and colon of a field.
    Name(Field),
    /// Value of a field and the line end behind it.
    Value(Field),
    /// `</think>`, or the end of the completion.
    ThinkEndTag,
    /// Audio codes.
    Codes,
    /// Lyrics, or nothing more.
    Completed,
    /// Not constrained.
    Off,
}

impl fmt::Display for State {
    /// Upstream's names, as they stand in its logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let field = |field: &Field| match field {
            Field::TimeSignature => "TIMESIG".to_owned(),
            other => other.name().to_uppercase(),
        };
        match self {
            State::ThinkTag => f.write_str("THINK_TAG"),
            State::NewlineAfterThink => f.write_str("NEWLINE_AFTER_THINK"),
            State::Name(name) => write!(f, "{}_NAME", field(name)),
            State::Value(name) => write!(f, "{}_VALUE", field(name)),
            State::ThinkEndTag => f.write_str("THINK_END_TAG"),
            State::Codes => f.write_str("CODES_GENERATION"),
            State::Completed => f.write_str("COMPLETED"),
            State::Off => f.write_str("OFF"),
        }
    }
}
