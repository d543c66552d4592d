//! What the grammar knows of a vocabulary, computed once when a planner is loaded.

use super::spans::Spans;
use super::tree::Tree;
use super::{Field, Rules, State};
use crate::error::{Error, Result};
use crate::text::{LmTokenizer, LmVocabulary};
use std::sync::Arc;

/// Languages a song may be sung in (upstream `acestep/constants.py`); `unknown` leaves it open.
pub const LANGUAGES: [&str; 51] = [
    "ar", "az", "bg", "bn", "ca", "cs", "da", "de", "el", "en", "es", "fa", "fi", "fr", "he", "hi",
    "hr", "ht", "hu", "id", "is", "it", "ja", "ko", "la", "lt", "ms", "ne", "nl", "no", "pa", "pl",
    "pt", "ro", "ru", "sa", "sk", "sr", "sv", "sw", "ta", "te", "th", "tl", "tr", "uk", "ur", "vi",
    "yue", "zh", "unknown",
];

/// Longest song in seconds, the default limit of the duration field.
pub const MAX_DURATION_S: u32 = 600;
/// Shortest song in seconds.
const MIN_DURATION_S: u32 = 10;

/// Ids of the fixed texts and sets of the free ones.
pub struct Grammar {
    tokenizer: Arc<LmTokenizer>,
    think: Vec<u32>,
    think_end: Vec<u32>,
    newline: Vec<u32>,
    names: [Vec<u32>; 6],
    trees: [Option<Tree>; 6],
    /// Caption: everything but the backtick and the legal codes.
    caption_upstream: Spans,
    /// Caption: ordinary tokens without backtick, `<` or text behind a line end.
    caption: Spans,
    /// Those of them that begin with a space or a tab.
    caption_indented: Spans,
    /// Lyrics: everything but the legal codes.
    lyrics_upstream: Spans,
    /// Lyrics: ordinary tokens and the ends.
    lyrics: Spans,
}

impl Grammar {
    /// The grammar over a vocabulary; durations go up to `max_duration_s`.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when the vocabulary cannot spell one of the fixed texts.
    pub fn new(tokenizer: Arc<LmTokenizer>, max_duration_s: u32) -> Result<Self> {
        let newline = segments(&tokenizer, "\n")?;
        let mut names: [Vec<u32>; 6] = Default::default();
        let mut trees: [Option<Tree>; 6] = Default::default();
        for (i, field) in Field::ALL.into_iter().enumerate() {
            names[i] = segments(&tokenizer, &format!("{}:", field.name()))?;
            trees[i] = tree(&tokenizer, field, newline[0], max_duration_s)?;
        }
        let v = tokenizer.vocabulary();
        let backtick = segments(&tokenizer, "`")?[0];
        let (size, codes) = (v.size(), v.legal_codes());
        let in_caption = |id: u32| id != backtick && v.plain_bytes(id).is_some_and(fits_caption);
        let indented = |id| v.plain_bytes(id).is_some_and(is_indented);
        let ends = |id| v.ends_completion(id);
        Ok(Grammar {
            think: segments(&tokenizer, "<think>")?,
            think_end: segments(&tokenizer, "</think>")?,
            names,
            trees,
            caption_upstream: Spans::matching(size, |id| id != backtick && !codes.contains(&id)),
            caption: Spans::matching(v.plain(), in_caption),
            caption_indented: Spans::matching(v.plain(), |id| in_caption(id) && indented(id)),
            lyrics_upstream: Spans::matching(size, |id| !codes.contains(&id)),
            lyrics: Spans::matching(size, |id| id < v.plain() || ends(id)),
            newline,
            tokenizer,
        })
    }

    /// The tokenizer whose ids the grammar speaks.
    pub fn tokenizer(&self) -> &LmTokenizer {
        &self.tokenizer
    }

    /// What the ids stand for.
    pub fn vocabulary(&self) -> &LmVocabulary {
        self.tokenizer.vocabulary()
    }

    /// Ids of the text a state consists of; empty where it is not fixed.
    pub(super) fn fixed(&self, state: State) -> &[u32] {
        match state {
            State::ThinkTag => &self.think,
            State::NewlineAfterThink => &self.newline,
            State::Name(field) => &self.names[field as usize],
            State::ThinkEndTag => &self.think_end,
            State::Value(_) | State::Codes | State::Completed | State::Off => &[],
        }
    }

    /// Legal values of a field; `None` for the caption.
    pub(super) fn tree(&self, field: Field) -> Option<&Tree> {
        self.trees[field as usize].as_ref()
    }

    pub(super) fn newline(&self) -> u32 {
        self.newline[0]
    }

    /// Tokens within a caption, at the start of a line or not.
    pub(super) fn caption(&self, rules: Rules, line_start: bool) -> &Spans {
        match (rules, line_start) {
            (Rules::Upstream, _) => &self.caption_upstream,
            (Rules::Strict, false) => &self.caption,
            (Rules::Strict, true) => &self.caption_indented,
        }
    }

    /// Tokens of what follows the reasoning.
    pub(super) fn lyrics(&self, rules: Rules) -> &Spans {
        match rules {
            Rules::Upstream => &self.lyrics_upstream,
            Rules::Strict => &self.lyrics,
        }
    }
}

/// Whether ordinary text may stand in a caption without ending it or spelling a tag.
fn fits_caption(bytes: &[u8]) -> bool {
    let line_end = bytes.iter().position(|b| *b == b'\n');
    let ends_there = line_end.is_none_or(|at| bytes[at..].iter().all(|b| *b == b'\n'));
    !bytes.contains(&b'<') && ends_there
}

/// Whether a text at the start of a line continues the caption.
pub(super) fn is_indented(bytes: &[u8]) -> bool {
    matches!(bytes.first(), Some(b' ' | b'\t'))
}

/// Ids of a fixed text: time and again the longest beginning that is a single token. This is
/// upstream's way, and not always that of BPE (`bpm` becomes `bp`, `m` where BPE says `b`, `pm`).
fn segments(tokenizer: &LmTokenizer, text: &str) -> Result<Vec<u32>> {
    let mut ids = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let ends = (1..=rest.len()).rev().filter(|n| rest.is_char_boundary(*n));
        let mut found = None;
        for end in ends {
            if let [id] = tokenizer.encode(&rest[..end])?[..] {
                found = Some((id, end));
                break;
            }
        }
        let (id, end) = found.ok_or_else(|| {
            Error::Corrupt(format!(
                "the planner's tokenizer has no token to begin {rest:?} with; copy the published \
                 tokenizer.json again"
            ))
        })?;
        ids.push(id);
        rest = &rest[end..];
    }
    Ok(ids)
}

/// Tree of a field's legal values, tokenised behind the field's name as the model saw them.
fn tree(
    tokenizer: &LmTokenizer,
    field: Field,
    newline: u32,
    max_duration_s: u32,
) -> Result<Option<Tree>> {
    let numbers = |range: std::ops::RangeInclusive<u32>| range.map(|n| n.to_string()).collect();
    let values: Vec<String> = match field {
        Field::Caption => return Ok(None),
        Field::Bpm => numbers(30..=300),
        Field::Duration => numbers(MIN_DURATION_S..=max_duration_s.max(MIN_DURATION_S)),
        Field::KeyScale => keys(),
        Field::Language => LANGUAGES.map(str::to_owned).to_vec(),
        Field::TimeSignature => ["2", "3", "4", "6"].map(str::to_owned).to_vec(),
    };
    let name = tokenizer.encode_text(&format!("{}:", field.name()))?;
    let mut paths = Vec::with_capacity(values.len());
    for value in values {
        let whole = tokenizer.encode_text(&format!("{}: {value}", field.name()))?;
        paths.push(match whole.strip_prefix(name.as_slice()) {
            Some(path) => path.to_vec(),
            None => tokenizer.encode_text(&format!(" {value}"))?,
        });
    }
    Ok(Some(Tree::new(&paths, newline)))
}

/// Whether the grammar can write this key.
pub fn is_key(text: &str) -> bool {
    keys().iter().any(|key| key == text)
}

/// Seven notes, five accidentals, two modes.
fn keys() -> Vec<String> {
    let mut keys = Vec::new();
    for note in ["A", "B", "C", "D", "E", "F", "G"] {
        for accidental in ["", "#", "b", "♯", "♭"] {
            for mode in ["major", "minor"] {
                keys.push(format!("{note}{accidental} {mode}"));
            }
        }
    }
    keys
}
