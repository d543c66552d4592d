//! Songs in words: what the language model makes of a wish, of a user's caption and lyrics, or
//! of audio codes.

use super::Watch;
use super::plan::{COMPLETION_TOKENS, Completion, Planner, Run};
use super::request::{Metas, Wish};
use crate::error::Result;
use crate::sample::logits::TokenSampling;
use crate::text::grammar::{Event, Field, Phase, Settings, is_key};
use crate::text::{LANGUAGES, LmPrompt, Metadata, Number};
use std::collections::BTreeMap;

/// What is described.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// A song that is to be invented.
    Wish(Wish),
    /// A user's caption and lyrics.
    Texts {
        /// Description of the music.
        caption: String,
        /// Lyrics.
        lyrics: String,
    },
    /// Music as audio codes.
    Codes(Vec<u32>),
}

/// Musical facts of a song; `None` where nothing is known.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Facts {
    /// Beats, key and time signature.
    pub metas: Metas,
    /// Length in seconds.
    pub duration_s: Option<f64>,
    /// Language code of the lyrics.
    pub language: Option<String>,
}

/// A song to describe.
#[derive(Debug, Clone, PartialEq)]
pub struct DescribeRequest {
    /// What is described.
    pub subject: Subject,
    /// What is known: it stays, and the model writes the rest to it.
    pub known: Facts,
    /// How tokens are drawn. Guidance has no effect.
    pub sampling: TokenSampling,
    /// Seed of the draws.
    pub seed: u64,
    /// Whether the grammar is kept.
    pub constrained: bool,
    /// Whether the grammar records what it does.
    pub debug: bool,
}

/// A song in words; `None` where the model wrote nothing that can be used.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Description {
    /// Description of the music.
    pub caption: Option<String>,
    /// Lyrics.
    pub lyrics: Option<String>,
    /// What was known, and what the model wrote.
    pub facts: Facts,
    /// Whether the lyrics went on where the limit of tokens ended them.
    pub is_cut_off: bool,
    /// What the grammar did, when asked for.
    pub events: Vec<Event>,
}

/// Seconds that metadata may say.
const DURATIONS_S: std::ops::RangeInclusive<f64> = 10.0..=600.0;

impl Facts {
    /// The values of `metadata` that are legal. Without the grammar a model may write anything,
    /// and the user's own values are not looked up here.
    pub fn legal(metadata: &Metadata) -> Self {
        let text = |text: &Option<String>, is_legal: &dyn Fn(&str) -> bool| {
            let known = Metadata::known(text).filter(|t| is_legal(t));
            known.map(str::to_owned)
        };
        let beats = |t: &str| ["2", "3", "4", "6"].contains(&t);
        Facts {
            metas: Metas {
                bpm: metadata.known_bpm().filter(|b| (30..=300).contains(b)),
                key_scale: text(&metadata.keyscale, &is_key),
                time_signature: text(&metadata.timesignature, &beats),
            },
            duration_s: metadata
                .known_duration()
                .filter(|s| DURATIONS_S.contains(s)),
            language: text(&metadata.language, &|l| {
                l != UNKNOWN && LANGUAGES.contains(&l)
            }),
        }
    }

    /// These facts, and `others` where there are none.
    pub fn or(self, others: Facts) -> Self {
        let (ours, theirs) = (self.metas, others.metas);
        Facts {
            metas: Metas {
                bpm: ours.bpm.or(theirs.bpm),
                key_scale: ours.key_scale.or(theirs.key_scale),
                time_signature: ours.time_signature.or(theirs.time_signature),
            },
            duration_s: self.duration_s.or(others.duration_s),
            language: self.language.or(others.language),
        }
    }

    /// As the language model reads and writes them: whole seconds.
    pub fn metadata(&self) -> Metadata {
        Metadata {
            bpm: self.metas.bpm.map(|b| Number::Whole(i64::from(b))),
            duration: self.duration_s.map(|s| Number::Whole(s as i64)),
            keyscale: self.metas.key_scale.clone(),
            language: self.language.clone(),
            timesignature: self.metas.time_signature.clone(),
            ..Metadata::default()
        }
    }

    /// The values that the grammar writes as they are.
    pub(super) fn injected(&self) -> BTreeMap<Field, String> {
        let Metas {
            bpm,
            key_scale,
            time_signature,
        } = &self.metas;
        let values = [
            (Field::Bpm, bpm.map(|b| b.to_string())),
            (
                Field::Duration,
                self.duration_s.map(|s| (s as i64).to_string()),
            ),
            (Field::KeyScale, key_scale.clone()),
            (Field::Language, self.language.clone()),
            (Field::TimeSignature, time_signature.clone()),
        ];
        let known = |(field, value): (Field, Option<String>)| Some((field, value?));
        values.into_iter().filter_map(known).collect()
    }

    /// Whether nothing is left for the model to write before it writes codes.
    pub fn is_complete(&self) -> bool {
        let Metas {
            bpm,
            key_scale,
            time_signature,
        } = &self.metas;
        bpm.is_some()
            && key_scale.is_some()
            && time_signature.is_some()
            && self.duration_s.is_some()
    }
}

/// The language code that says nothing.
pub const UNKNOWN: &str = "unknown";

impl Planner {
    /// Describes a song.
    ///
    /// # Errors
    /// [`crate::Error::Request`] for audio codes that the model does not know, and what
    /// [`Planner::complete_prompt`] reports.
    pub fn describe(&self, request: &DescribeRequest, watch: &dyn Watch) -> Result<Description> {
        let known = &request.known;
        let (run, prompt) = match &request.subject {
            Subject::Wish(wish) => (
                Run::Description,
                LmPrompt::inspire(&wish.query, wish.instrumental),
            ),
            Subject::Texts { caption, lyrics } => {
                (Run::Rewriting, LmPrompt::format(caption, lyrics))
            }
            Subject::Codes(codes) => (Run::Description, LmPrompt::understand(codes)),
        };
        let is_text = matches!(request.subject, Subject::Texts { .. });
        let settings = Settings {
            // As upstream: a language that is known is told to an invented song, and not asked
            // for where texts are rewritten.
            skip_language: is_text && known.language.is_some(),
            user: known.injected(),
            constrained: request.constrained,
            debug: request.debug,
            ..Settings::new(Phase::Understand)
        };
        let how = Completion {
            run,
            sampling: request.sampling,
            seed: request.seed,
            most: COMPLETION_TOKENS,
        };
        let completed = self.complete_prompt(&prompt, settings, &how, watch)?;
        let output = completed.output;
        let text = |text: &str| {
            let text = text.trim();
            (!text.is_empty()).then(|| text.to_owned())
        };
        Ok(Description {
            caption: output.metadata.caption.as_deref().and_then(text),
            lyrics: text(&output.lyrics),
            facts: known.clone().or(Facts::legal(&output.metadata)),
            is_cut_off: completed.is_cut_off,
            events: completed.events,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(bpm: &str, duration: &str, key: &str, beats: &str, language: &str) -> Metadata {
        Metadata {
            bpm: Some(Number::parse(bpm)),
            duration: Some(Number::parse(duration)),
            keyscale: Some(key.into()),
            timesignature: Some(beats.into()),
            language: Some(language.into()),
            ..Metadata::default()
        }
    }

    #[test]
    fn only_legal_values_are_facts() {
        let facts = Facts::legal(&metadata("120", "30", "F# minor", "6", "yue"));
        assert!(facts.is_complete());
        assert_eq!(facts.metas.bpm, Some(120));
        assert_eq!(facts.duration_s, Some(30.0));
        assert_eq!(facts.metas.key_scale.as_deref(), Some("F# minor"));
        assert_eq!(facts.language.as_deref(), Some("yue"));
        for wrong in [
            metadata("29", "9", "H minor", "5", "xx"),
            metadata("301", "601", "C", "4/4", "unknown"),
            metadata("fast", "-1", "N/A", "N/A", "N/A"),
            Metadata::default(),
        ] {
            assert_eq!(Facts::legal(&wrong), Facts::default(), "{wrong:?}");
        }
    }

    #[test]
    fn what_is_known_stays() {
        let user = Facts {
            metas: Metas {
                key_scale: Some("H minor".into()),
                ..Metas::default()
            },
            duration_s: Some(12.5),
            language: None,
        };
        let both = user
            .clone()
            .or(Facts::legal(&metadata("99", "30", "C major", "4", "de")));
        assert_eq!(both.metas.key_scale.as_deref(), Some("H minor"));
        assert_eq!((both.duration_s, both.metas.bpm), (Some(12.5), Some(99)));
        assert_eq!(both.language.as_deref(), Some("de"));
        assert!(!user.is_complete() && both.is_complete());
        let injected = user.injected();
        assert_eq!(
            injected.get(&Field::Duration).map(String::as_str),
            Some("12")
        );
        assert_eq!(injected.len(), 2);
    }
}
