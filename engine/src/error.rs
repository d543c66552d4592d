//! The one error type of the engine. Variants say *who can fix it*; every variant carries a
//! sentence that names what was wrong, where, and what to do.

use std::fmt;

/// Result of every fallible engine function.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong, by who can fix it.
#[derive(Debug, Clone, PartialEq)]
pub enum Error {
    /// The request asks for something that cannot be done: the client can fix it.
    Request(String),
    /// A file, folder or model is not there: the operator can fix it.
    Missing(String),
    /// A file is there but cannot be trusted (truncated, misshapen, not what its name says).
    Corrupt(String),
    /// It would not fit into memory. The sentence says what it needs, what there is, and what
    /// would fit.
    TooBig {
        /// Bytes the request needs.
        needs: u64,
        /// Bytes that are available.
        have: u64,
        /// What to change so that it fits.
        suggestion: String,
    },
    /// The device or its driver failed, or produced numbers that are not finite.
    Device(String),
    /// The device is gone with all that lay on it. Who holds memory of it must let go; opened anew
    /// it may work again.
    DeviceLost(String),
    /// Writing a result failed (unwritable directory, full disk).
    Output(String),
    /// The caller asked for the work to stop.
    Cancelled,
    /// A fault of the engine itself, for example a program with mismatched shapes.
    Bug(String),
}

impl Error {
    /// The error with `what` before its sentence. Those that are no sentence stay as they are.
    pub fn within(self, what: &str) -> Self {
        let say = |s: String| format!("{what}: {s}");
        match self {
            Error::Request(s) => Error::Request(say(s)),
            Error::Missing(s) => Error::Missing(say(s)),
            Error::Corrupt(s) => Error::Corrupt(say(s)),
            Error::Device(s) => Error::Device(say(s)),
            Error::DeviceLost(s) => Error::DeviceLost(say(s)),
            Error::Output(s) => Error::Output(say(s)),
            Error::Bug(s) => Error::Bug(say(s)),
            Error::TooBig { .. } | Error::Cancelled => self,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Request(s)
            | Error::Missing(s)
            | Error::Corrupt(s)
            | Error::Device(s)
            | Error::DeviceLost(s)
            | Error::Output(s) => f.write_str(s),
            Error::TooBig {
                needs,
                have,
                suggestion,
            } => write!(
                f,
                "will not fit: needs {}, have {}; {suggestion}",
                human_bytes(*needs),
                human_bytes(*have)
            ),
            Error::Cancelled => f.write_str("cancelled"),
            Error::Bug(s) => write!(f, "internal error: {s}"),
        }
    }
}

impl std::error::Error for Error {}

/// `1536` as `1.5 KiB`: for messages and tables, never for parsing.
pub fn human_bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 {
        format!("{bytes} B")
    } else {
        format!("{value:.1} {}", UNITS[unit])
    }
}
