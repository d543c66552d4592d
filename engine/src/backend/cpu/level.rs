//! Instruction sets. Chosen once when the backend is made; kernels match on [`Level`].

use crate::error::{Error, Result};
use std::fmt;
use std::str::FromStr;

/// What the kernels may use, in rising order; each level includes those below.
///
/// Code of this crate makes a level above [`Level::Portable`] only through [`Level::detect`] and
/// [`Level::up_to`], so holding one is the proof that the processor has the instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Plain Rust: every processor, and the oracle of the other levels.
    Portable,
    /// `avx2`, `fma`, `f16c`.
    Avx2,
    /// `avx512f`, `avx512bw`, `avx512dq`, `avx512vl`.
    Avx512,
    /// `avx512bf16`.
    Avx512Bf16,
}

impl Level {
    /// Every level, lowest first.
    pub const ALL: [Level; 4] = [
        Level::Portable,
        Level::Avx2,
        Level::Avx512,
        Level::Avx512Bf16,
    ];

    /// The highest level of this processor.
    pub fn detect() -> Level {
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("fma")
                && is_x86_feature_detected!("f16c");
            let avx512 = avx2
                && is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl");
            if avx512 && is_x86_feature_detected!("avx512bf16") {
                return Level::Avx512Bf16;
            }
            if avx512 {
                return Level::Avx512;
            }
            if avx2 {
                return Level::Avx2;
            }
        }
        Level::Portable
    }

    /// Levels of this processor, lowest first.
    pub fn available() -> &'static [Level] {
        let highest = Level::detect();
        let n = Level::ALL.iter().filter(|l| **l <= highest).count();
        &Level::ALL[..n]
    }

    /// The level asked for, or the highest one; an error when the processor lacks it.
    pub fn up_to(wanted: Option<Level>) -> Result<Level> {
        let highest = Level::detect();
        match wanted {
            Some(level) if level > highest => Err(Error::Request(format!(
                "this processor has no {level}; its highest level is {highest}, choose that or a \
                 lower one"
            ))),
            Some(level) => Ok(level),
            None => Ok(highest),
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Level::Portable => "portable",
            Level::Avx2 => "avx2",
            Level::Avx512 => "avx512",
            Level::Avx512Bf16 => "avx512bf16",
        })
    }
}

impl FromStr for Level {
    type Err = String;

    fn from_str(s: &str) -> std::result::Result<Self, String> {
        Level::ALL
            .into_iter()
            .find(|l| l.to_string() == s)
            .ok_or_else(|| {
                format!("unknown processor level {s:?}: portable, avx2, avx512 or avx512bf16")
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for level in Level::ALL {
            assert_eq!(level.to_string().parse::<Level>(), Ok(level));
        }
        assert!("sse".parse::<Level>().is_err());
    }

    #[test]
    fn available_levels_end_with_the_detected_one() {
        assert_eq!(Level::available().last(), Some(&Level::detect()));
        assert_eq!(Level::up_to(None), Ok(Level::detect()));
        for level in Level::ALL {
            assert_eq!(Level::up_to(Some(level)).is_ok(), level <= Level::detect());
        }
    }
}
