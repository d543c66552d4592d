//! What a machine did, for the debug log.

use super::State;
use std::fmt;

/// Tokens of a set that are shown.
pub(super) const PREVIEW: usize = 8;

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The state changed.
    Entered {
        /// Before.
        from: State,
        /// After.
        to: State,
    },
    /// A value of the user is written instead of one of the model.
    Injected {
        /// State it is written in.
        state: State,
        /// Its text.
        text: String,
    },
    /// Tokens were ruled out.
    Masked {
        /// State.
        state: State,
        /// How many tokens are legal.
        legal: usize,
        /// Texts of the first of them.
        preview: Vec<String>,
    },
    /// A code was written.
    Code {
        /// Codes so far.
        count: usize,
        /// Codes in all, where known.
        target: Option<usize>,
    },
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::Entered { from, to } => write!(f, "{from} -> {to}"),
            Event::Injected { state, text } => write!(f, "{state}: writes {text:?}"),
            Event::Masked {
                state,
                legal,
                preview,
            } => write!(f, "{state}: {legal} legal, first {preview:?}"),
            Event::Code { count, target } => match target {
                Some(target) => write!(f, "code {count} of {target}"),
                None => write!(f, "code {count}"),
            },
        }
    }
}
