//! Examples of what can be asked for, to fill a client's form with. Their words are our own.

use serde::{Deserialize, Serialize};
use std::sync::LazyLock;

/// Which examples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A description from which the language model makes everything else.
    Simple,
    /// Caption, lyrics and metadata.
    Custom,
}

/// A simple example as its file has it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Simple {
    description: String,
    instrumental: bool,
    vocal_language: String,
    bpm: u32,
    keyscale: String,
    timesignature: String,
    duration: u32,
}

/// A custom example as its file has it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Custom {
    think: bool,
    caption: String,
    lyrics: String,
    bpm: u32,
    duration: u32,
    keyscale: String,
    language: String,
    timesignature: String,
}

/// An example as it is sent. Clients of both generations find the names they know: the key, the
/// time signature and the language each have two.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Example {
    /// What a simple example is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<&'static str>,
    /// Whether a simple example has no lyrics.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instrumental: Option<bool>,
    /// Whether a custom example is meant to be planned by the language model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub think: Option<bool>,
    /// Description of the music.
    pub caption: &'static str,
    /// Lyrics; those of a simple example with a voice are still to be written.
    pub lyrics: &'static str,
    /// Beats per minute.
    pub bpm: u32,
    /// Seconds.
    pub duration: u32,
    /// Key, as the planner writes it.
    pub keyscale: &'static str,
    /// The key again.
    pub key_scale: &'static str,
    /// Code of the language of a custom example's lyrics.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub language: Option<&'static str>,
    /// Code of the lyrics' language.
    pub vocal_language: &'static str,
    /// Beats of a bar.
    pub timesignature: &'static str,
    /// Beats of a bar again.
    pub time_signature: &'static str,
}

/// What lyrics are where nobody sings.
const INSTRUMENTAL: &str = "[Instrumental]";

static SIMPLE: LazyLock<Vec<Simple>> = LazyLock::new(|| {
    let text = include_str!("examples/simple.json");
    serde_json::from_str(text).unwrap_or_else(|e| unreachable!("examples/simple.json: {e}"))
});

static CUSTOM: LazyLock<Vec<Custom>> = LazyLock::new(|| {
    let text = include_str!("examples/custom.json");
    serde_json::from_str(text).unwrap_or_else(|e| unreachable!("examples/custom.json: {e}"))
});

/// One of the examples of a kind. `random` draws 32 bits.
pub fn pick(kind: Kind, random: &mut dyn FnMut() -> u32) -> Example {
    let number = random() as usize;
    match kind {
        Kind::Simple => Example::from(&SIMPLE[number % SIMPLE.len()]),
        Kind::Custom => Example::from(&CUSTOM[number % CUSTOM.len()]),
    }
}

impl From<&'static Simple> for Example {
    fn from(simple: &'static Simple) -> Self {
        Example {
            description: Some(&simple.description),
            instrumental: Some(simple.instrumental),
            think: None,
            caption: &simple.description,
            lyrics: if simple.instrumental {
                INSTRUMENTAL
            } else {
                ""
            },
            bpm: simple.bpm,
            duration: simple.duration,
            keyscale: &simple.keyscale,
            key_scale: &simple.keyscale,
            language: None,
            vocal_language: &simple.vocal_language,
            timesignature: &simple.timesignature,
            time_signature: &simple.timesignature,
        }
    }
}

impl From<&'static Custom> for Example {
    fn from(custom: &'static Custom) -> Self {
        Example {
            description: None,
            instrumental: None,
            think: Some(custom.think),
            caption: &custom.caption,
            lyrics: &custom.lyrics,
            bpm: custom.bpm,
            duration: custom.duration,
            keyscale: &custom.keyscale,
            key_scale: &custom.keyscale,
            language: Some(&custom.language),
            vocal_language: &custom.language,
            timesignature: &custom.timesignature,
            time_signature: &custom.timesignature,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::languages::LANGUAGES;
    use std::collections::HashSet;

    fn all(kind: Kind, count: usize) -> Vec<Example> {
        (0..count as u32).map(|n| pick(kind, &mut || n)).collect()
    }

    #[test]
    fn every_value_is_legal() {
        assert!(SIMPLE.len() >= 60 && CUSTOM.len() >= 60);
        let examples = [
            all(Kind::Simple, SIMPLE.len()),
            all(Kind::Custom, CUSTOM.len()),
        ]
        .concat();
        for example in &examples {
            let (note, mode) = example.keyscale.split_once(' ').unwrap_or_default();
            let (name, accidental) = note.split_at(note.len().min(1));
            assert!("ABCDEFG".contains(name) && !name.is_empty(), "{example:?}");
            assert!(["", "#", "b"].contains(&accidental), "{example:?}");
            assert!(["major", "minor"].contains(&mode), "{example:?}");
            assert!((30..=300).contains(&example.bpm), "{example:?}");
            assert!((10..=600).contains(&example.duration), "{example:?}");
            assert!(
                ["2", "3", "4", "6"].contains(&example.timesignature),
                "{example:?}"
            );
            let language = example.vocal_language;
            assert!(LANGUAGES.contains(&language), "{example:?}");
            assert!((10..=512).contains(&example.caption.len()), "{example:?}");
            // Nobody sings in no language, and the other way round.
            let is_instrumental = example.lyrics == INSTRUMENTAL;
            assert_eq!(is_instrumental, language == "unknown", "{example:?}");
            if let Some(instrumental) = example.instrumental {
                assert_eq!(instrumental, is_instrumental, "{example:?}");
            } else {
                assert!(example.lyrics.starts_with('['), "{example:?}");
                assert!(example.lyrics.len() < 4096, "{example:?}");
            }
        }
        let captions: HashSet<_> = examples.iter().map(|e| e.caption).collect();
        assert_eq!(captions.len(), examples.len(), "an example is there twice");
        let languages: HashSet<_> = examples.iter().map(|e| e.vocal_language).collect();
        assert!(languages.len() >= 25, "{languages:?}");
    }

    #[test]
    fn the_draw_decides() {
        let first = pick(Kind::Custom, &mut || 0);
        assert_eq!(first.caption, CUSTOM[0].caption);
        let last = pick(Kind::Simple, &mut || SIMPLE.len() as u32 - 1);
        let again = pick(Kind::Simple, &mut || 2 * SIMPLE.len() as u32 - 1);
        assert_eq!(last, again);
        assert_ne!(last, pick(Kind::Simple, &mut || 0));
    }
}
