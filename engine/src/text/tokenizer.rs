//! Byte-level BPE of a checkpoint directory, read from its `tokenizer.json`. Vocabularies differ
//! between checkpoints, so every id comes from the file and none is written into the engine.

use crate::error::{Error, Result};
use std::path::{Path, PathBuf};
use tokenizers::{PostProcessor, TruncationDirection};

/// Token that ends a text and pads a batch.
pub const END_OF_TEXT: &str = "<|endoftext|>";

/// Path and contents of the `tokenizer.json` in `dir`.
///
/// # Errors
/// [`Error::Missing`] when it cannot be read.
pub(super) fn read_file(dir: &Path) -> Result<(PathBuf, Vec<u8>)> {
    let path = dir.join("tokenizer.json");
    let bytes = std::fs::read(&path).map_err(|e| {
        Error::Missing(format!(
            "cannot read {}: {e}; a checkpoint directory must hold the tokenizer.json that was \
             published with it",
            path.display()
        ))
    })?;
    Ok((path, bytes))
}

/// The tokenizer of one checkpoint directory.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    path: PathBuf,
    end_of_text: u32,
}

impl Tokenizer {
    /// Reads `tokenizer.json` in `dir`.
    ///
    /// # Errors
    /// [`Error::Missing`] when there is no such file, [`Error::Corrupt`] when it is not a
    /// tokenizer or does not know `<|endoftext|>`.
    pub fn load(dir: &Path) -> Result<Self> {
        let (path, bytes) = read_file(dir)?;
        Tokenizer::from_bytes(&bytes, &path)
    }

    /// A tokenizer from the contents of a `tokenizer.json`; `path` is for messages.
    ///
    /// # Errors
    /// [`Error::Corrupt`] as for [`Tokenizer::load`].
    pub fn from_bytes(bytes: &[u8], path: &Path) -> Result<Self> {
        let corrupt = |why: String| {
            Error::Corrupt(format!(
                "{} is not a usable tokenizer: {why}; copy the published file again",
                path.display()
            ))
        };
        let mut inner =
            tokenizers::Tokenizer::from_bytes(bytes).map_err(|e| corrupt(e.to_string()))?;
        // Limits are the caller's: a file may carry some from its training.
        inner
            .with_truncation(None)
            .map_err(|e| corrupt(e.to_string()))?;
        inner.with_padding(None);
        let end_of_text = inner
            .token_to_id(END_OF_TEXT)
            .ok_or_else(|| corrupt(format!("it has no token {END_OF_TEXT}")))?;
        Ok(Tokenizer {
            inner,
            path: path.to_path_buf(),
            end_of_text,
        })
    }

    /// Ids of `text` as the model expects them: at most `max` in all, of which the tokens that
    /// the file's post-processor adds (one `<|endoftext|>` for the text encoder) are kept even
    /// when the text is cut.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when the file's rules fail on the text.
    pub fn encode(&self, text: &str, max: usize) -> Result<Vec<u32>> {
        let mut encoding = self.inner.encode(text, false).map_err(|e| self.failed(e))?;
        let added = self
            .inner
            .get_post_processor()
            .map_or(0, |p| p.added_tokens(false));
        encoding.truncate(max.saturating_sub(added), 0, TruncationDirection::Right);
        let encoding = self
            .inner
            .post_process(encoding, None, true)
            .map_err(|e| self.failed(e))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Ids of `text` alone: no limit, nothing added.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when the file's rules fail on the text.
    pub fn encode_plain(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = self
            .inner
            .encode_fast(text, false)
            .map_err(|e| self.failed(e))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Text of `ids`. Bytes that are not UTF-8 become U+FFFD; ids the vocabulary lacks are
    /// left out.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when the file's decoder fails.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        self.inner
            .decode(ids, skip_special)
            .map_err(|e| self.failed(e))
    }

    /// Id of `<|endoftext|>`, which also pads.
    pub fn end_of_text(&self) -> u32 {
        self.end_of_text
    }

    /// Id of a token by its text.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// Number of tokens, added ones included.
    pub fn vocabulary(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    fn failed(&self, e: tokenizers::Error) -> Error {
        Error::Corrupt(format!("{}: {e}", self.path.display()))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn goldens() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/goldens")
    }

    fn text_encoder() -> Tokenizer {
        Tokenizer::load(&goldens().join("tiny/Qwen3-Embedding-0.6B")).unwrap()
    }

    fn ids(v: &Value) -> Vec<u32> {
        v.as_array()
            .unwrap()
            .iter()
            .map(|i| i.as_u64().unwrap() as u32)
            .collect()
    }

    #[test]
    fn agrees_with_the_recorded_cases() {
        let file = std::fs::read(goldens().join("stages/tokenizer_cases.json")).unwrap();
        let all: Value = serde_json::from_slice(&file).unwrap();
        let cases = all["tiny_text_encoder"]["cases"].as_array().unwrap();
        let tokenizer = text_encoder();
        assert!(cases.len() > 10);
        for case in cases {
            let text = case["text"].as_str().unwrap();
            let with_end = ids(&case["ids"]);
            assert_eq!(
                tokenizer.encode(text, usize::MAX).unwrap(),
                with_end,
                "{text:?}"
            );
            assert_eq!(
                tokenizer.encode_plain(text).unwrap(),
                ids(&case["ids_no_post"])
            );
            assert_eq!(
                tokenizer.decode(&with_end, false).unwrap(),
                case["decoded"].as_str().unwrap().to_owned() + "<|endoftext|>"
            );
            assert_eq!(
                tokenizer.decode(&with_end, true).unwrap(),
                case["decoded_skip_special"].as_str().unwrap()
            );
        }
    }

    #[test]
    fn truncation_keeps_the_appended_token() {
        let tokenizer = text_encoder();
        let whole = tokenizer
            .encode("one two three four five six", usize::MAX)
            .unwrap();
        for max in 1..=whole.len() + 1 {
            let cut = tokenizer
                .encode("one two three four five six", max)
                .unwrap();
            assert_eq!(cut.len(), max.min(whole.len()));
            assert_eq!(*cut.last().unwrap(), tokenizer.end_of_text());
            assert_eq!(cut[..cut.len() - 1], whole[..cut.len() - 1]);
        }
    }

    #[test]
    fn special_tokens_in_the_text_are_single_tokens() {
        let tokenizer = text_encoder();
        let ids = tokenizer.encode_plain("a<|endoftext|>\n").unwrap();
        assert_eq!(ids[1], tokenizer.end_of_text());
        assert_eq!(ids.len(), 3);
    }

    #[test]
    fn missing_and_corrupt_files_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let missing = Tokenizer::load(dir.path()).err().unwrap();
        assert!(matches!(&missing, Error::Missing(s) if s.contains("tokenizer.json")));
        for contents in ["", "{}", "{\"model\":", "[1, 2]"] {
            std::fs::write(dir.path().join("tokenizer.json"), contents).unwrap();
            let corrupt = Tokenizer::load(dir.path()).err().unwrap();
            assert!(matches!(&corrupt, Error::Corrupt(s) if s.contains("tokenizer.json")));
        }
    }
}
