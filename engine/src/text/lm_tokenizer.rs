//! The planner's tokenizer: text to ids, with the added tokens of the file recognised or, for
//! text that a user wrote, deliberately not.
//!
//! The file lists every audio code as an added token, 65,535 of them in the published one. A
//! general matcher over that list takes over a second to build; here the codes are recognised by
//! their digits, and the `tokenizers` crate sees only the BPE model and its rules.

use super::lm_vocabulary::{AddedToken, ControlTokens, LmVocabulary, leading_code};
use super::tokenizer::read_file;
use crate::error::{Error, Result};
use serde::Deserialize;
use std::borrow::Cow;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use tokenizers::models::bpe::BPE;
use tokenizers::{NormalizerWrapper, PreTokenizerWrapper};

/// The parts of `tokenizer.json` that decide the ids.
#[derive(Deserialize)]
struct File<'a> {
    #[serde(borrow)]
    added_tokens: Vec<Added<'a>>,
    normalizer: Option<NormalizerWrapper>,
    pre_tokenizer: Option<PreTokenizerWrapper>,
    model: Model,
}

#[derive(Deserialize)]
struct Added<'a> {
    id: u32,
    #[serde(borrow)]
    content: Cow<'a, str>,
    #[serde(default)]
    special: bool,
    #[serde(default)]
    normalized: bool,
}

#[derive(Deserialize)]
struct Model {
    vocab: HashMap<String, u32>,
    merges: Vec<Merge>,
    #[serde(default)]
    ignore_merges: bool,
}

/// Files before version 0.20 of the format write a merge as one text.
#[derive(Deserialize)]
#[serde(untagged)]
enum Merge {
    Pair(String, String),
    Line(String),
}

/// The tokenizer of a planner's checkpoint directory.
pub struct LmTokenizer {
    bpe: tokenizers::Tokenizer,
    vocabulary: LmVocabulary,
    path: PathBuf,
}

impl LmTokenizer {
    /// Reads `tokenizer.json` in `dir`.
    ///
    /// # Errors
    /// [`Error::Missing`] when there is no such file, [`Error::Corrupt`] when it is no tokenizer
    /// of a planner.
    pub fn load(dir: &Path) -> Result<Self> {
        let (path, bytes) = read_file(dir)?;
        LmTokenizer::from_bytes(&bytes, &path)
    }

    /// A tokenizer from the contents of a `tokenizer.json`; `path` is for messages.
    ///
    /// # Errors
    /// [`Error::Corrupt`] as for [`LmTokenizer::load`].
    pub fn from_bytes(bytes: &[u8], path: &Path) -> Result<Self> {
        LmTokenizer::read(bytes, path, None)
    }

    /// A tokenizer from the `tokenizer.json` of a model without audio codes: codes follow its last
    /// token and fill the vocabulary up to `size` tokens. The published planners have the text
    /// encoder's vocabulary and 65,535 codes behind it, 217,204 tokens in all.
    ///
    /// # Errors
    /// [`Error::Corrupt`] as for [`LmTokenizer::load`].
    pub fn with_codes(bytes: &[u8], size: u32, path: &Path) -> Result<Self> {
        LmTokenizer::read(bytes, path, Some(size))
    }

    fn read(bytes: &[u8], path: &Path, size: Option<u32>) -> Result<Self> {
        let read = || -> std::result::Result<LmTokenizer, String> {
            let file: File = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
            let vocabulary = vocabulary(&file, size)?;
            Ok(LmTokenizer {
                bpe: bpe(file)?,
                vocabulary,
                path: path.to_path_buf(),
            })
        };
        read().map_err(|why| {
            Error::Corrupt(format!(
                "{} is not the tokenizer of a planner: {why}; copy the published file again",
                path.display()
            ))
        })
    }

    /// What the ids stand for.
    pub fn vocabulary(&self) -> &LmVocabulary {
        &self.vocabulary
    }

    /// Ids of `text`, in which the added tokens (control tokens and audio codes) are recognised:
    /// for texts of the engine's own making.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when the file's rules fail on the text.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let mut ids = Vec::new();
        let (mut from, mut at) = (0, 0);
        while let Some(c) = text[at..].chars().next() {
            match self.vocabulary.added_at(&text[at..]) {
                Some((id, length)) => {
                    self.append(&text[from..at], &mut ids)?;
                    ids.push(id);
                    at += length;
                    from = at;
                }
                None => at += c.len_utf8(),
            }
        }
        self.append(&text[from..], &mut ids)?;
        Ok(ids)
    }

    /// Ids of `text` in which nothing is a control token: for texts that hold what a user wrote,
    /// who cannot open or close turns that way.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when the file's rules fail on the text.
    pub fn encode_text(&self, text: &str) -> Result<Vec<u32>> {
        let mut ids = Vec::new();
        self.append(text, &mut ids)?;
        Ok(ids)
    }

    fn append(&self, text: &str, ids: &mut Vec<u32>) -> Result<()> {
        if !text.is_empty() {
            let encoding = self
                .bpe
                .encode_fast(text, false)
                .map_err(|e| Error::Corrupt(format!("{}: {e}", self.path.display())))?;
            ids.extend_from_slice(encoding.get_ids());
        }
        Ok(())
    }
}

/// The BPE rules without any added token.
fn bpe(file: File) -> std::result::Result<tokenizers::Tokenizer, String> {
    let mut merges = Vec::with_capacity(file.model.merges.len());
    for merge in file.model.merges {
        merges.push(match merge {
            Merge::Pair(left, right) => (left, right),
            Merge::Line(line) => {
                let (left, right) = line
                    .split_once(' ')
                    .ok_or_else(|| format!("the merge {line:?} has one part"))?;
                (left.to_owned(), right.to_owned())
            }
        });
    }
    let vocab: tokenizers::models::bpe::Vocab = file.model.vocab.into_iter().collect();
    let model = BPE::builder()
        .vocab_and_merges(vocab, merges)
        .ignore_merges(file.model.ignore_merges)
        .build()
        .map_err(|e| e.to_string())?;
    let mut bpe = tokenizers::Tokenizer::new(model);
    bpe.with_normalizer(file.normalizer)
        .map_err(|e| e.to_string())?;
    bpe.with_pre_tokenizer(file.pre_tokenizer);
    Ok(bpe)
}

/// Ids and bytes of the file's tokens. Where a `size` is given, audio codes follow the last one up
/// to it.
fn vocabulary(file: &File, size: Option<u32>) -> std::result::Result<LmVocabulary, String> {
    let (bytes, ends) = plain_tokens(&file.model.vocab)?;
    let (mut added, mut codes) = (Vec::new(), Vec::new());
    for token in &file.added_tokens {
        let text = token.content.as_ref();
        if (token.id as usize) < ends.len() || text.is_empty() || token.normalized {
            return Err(format!(
                "the added token {text:?} (id {}) must lie behind the {} tokens of the model and \
                 match raw text",
                token.id,
                ends.len()
            ));
        }
        match leading_code(text) {
            Some((code, length)) if length == text.len() => {
                codes.push((code, token.id, token.special));
            }
            _ => added.push(AddedToken {
                id: token.id,
                content: text.to_owned(),
                special: token.special,
            }),
        }
    }
    added.sort_by_key(|t| t.id);
    if let Some(size) = size {
        let first = added.last().map_or(ends.len() as u32, |t| t.id + 1);
        codes.extend((first..size).map(|id| (id - first, id, false)));
    }
    codes.sort_unstable();
    let &(_, first_code, codes_are_special) =
        codes.first().ok_or("it has no token <|audio_code_0|>")?;
    for (n, (code, id, _)) in codes.iter().enumerate() {
        if *code != n as u32 || *id != first_code + code {
            return Err(format!(
                "<|audio_code_{code}|> has id {id}: codes must count up from id {first_code} \
                 without a gap"
            ));
        }
    }
    Ok(LmVocabulary {
        control: control(&added)?,
        bytes,
        ends,
        added,
        first_code,
        codes: codes.len() as u32,
        codes_are_special,
    })
}

/// Bytes of the BPE tokens in the order of their ids, and where each ends.
fn plain_tokens(vocab: &HashMap<String, u32>) -> std::result::Result<(Vec<u8>, Vec<u32>), String> {
    let mut names = vec![None; vocab.len()];
    for (name, id) in vocab {
        let place = names.get_mut(*id as usize);
        let beyond = || {
            format!(
                "token {name:?} has id {id}, beyond the {} tokens",
                vocab.len()
            )
        };
        *place.ok_or_else(beyond)? = Some(name.as_str());
    }
    let alphabet = byte_alphabet();
    let (mut bytes, mut ends) = (Vec::new(), Vec::with_capacity(vocab.len()));
    for (id, name) in names.into_iter().enumerate() {
        let name = name.ok_or_else(|| format!("no token has id {id}"))?;
        for c in name.chars() {
            let byte = alphabet.get(c as usize).copied().flatten();
            bytes.push(byte.ok_or_else(|| format!("token {name:?} is not byte-level"))?);
        }
        ends.push(bytes.len() as u32);
    }
    Ok((bytes, ends))
}

fn control(added: &[AddedToken]) -> std::result::Result<ControlTokens, String> {
    let id = |text: &str| {
        let token = added.iter().find(|t| t.content == text);
        token
            .map(|t| t.id)
            .ok_or_else(|| format!("it has no token {text}"))
    };
    Ok(ControlTokens {
        end_of_text: id(super::tokenizer::END_OF_TEXT)?,
        turn_start: id("<|im_start|>")?,
        turn_end: id("<|im_end|>")?,
        think: id("<think>")?,
        think_end: id("</think>")?,
    })
}

/// Byte of each character of the byte-level alphabet, by code point: printable Latin-1 bytes
/// stand for themselves, the 68 others follow in order from U+0100.
fn byte_alphabet() -> Vec<Option<u8>> {
    let printable = |b: u8| matches!(b, 33..=126 | 161..=172 | 174..=255);
    let mut alphabet = vec![None; 256 + 68];
    let mut next = 256;
    for byte in 0..=255u8 {
        if printable(byte) {
            alphabet[byte as usize] = Some(byte);
        } else {
            alphabet[next] = Some(byte);
            next += 1;
        }
    }
    alphabet
}
