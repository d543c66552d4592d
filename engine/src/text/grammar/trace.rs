//! What a machine did, for the debug log.

use super::State;
use std::fmt;

/// Tokens of a set that are shown.
pub(super) const PREVIEW: usize = 8;

/// Most events of one sequence that are kept.
const MOST: usize = 2000;

/// Events in their order, of which the first [`MOST`] are kept.
#[derive(Debug, Default)]
pub(super) struct Trace {
    events: Vec<Event>,
    left_out: usize,
}

impl Trace {
    /// Adds an event.
    pub(super) fn push(&mut self, event: Event) {
        match self.events.len() {
            ..MOST => self.events.push(event),
            _ => self.left_out += 1,
        }
    }

    /// The events, and how many are missing.
    pub(super) fn into_events(mut self) -> Vec<Event> {
        if self.left_out > 0 {
            let count = self.left_out;
            self.events.push(Event::LeftOut { count });
        }
        self.events
    }
}

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
    /// Codes were written: the every 50th, and the last.
    Code {
        /// Codes so far.
        count: usize,
        /// Codes in all, where known.
        target: Option<usize>,
    },
    /// More happened than is kept.
    LeftOut {
        /// Events that are missing.
        count: usize,
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
            Event::LeftOut { count } => write!(f, "{count} more events are left out"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_events_are_kept_as_a_log_can_take() {
        for (happened, kept) in [(0, 0), (MOST, MOST), (MOST + 7, MOST + 1)] {
            let mut trace = Trace::default();
            for count in 1..=happened {
                let target = None;
                trace.push(Event::Code { count, target });
            }
            let events = trace.into_events();
            assert_eq!(events.len(), kept);
            if happened > MOST {
                assert_eq!(events.last(), Some(&Event::LeftOut { count: 7 }));
            }
        }
    }
}
