//! What the ids of a planner's vocabulary stand for: byte-level BPE tokens first, then control
//! tokens, then the audio codes. The ids are those of the file the vocabulary was read from.

use std::ops::Range;

/// Number of audio codes that mean something: the product of the quantizer's levels
/// 8 x 8 x 8 x 5 x 5 x 5. A vocabulary may hold more code tokens than that, or fewer.
pub const LEGAL_CODES: u32 = 64_000;

/// Start of the text of every audio-code token.
pub(super) const CODE_PREFIX: &str = "<|audio_code_";
/// End of the text of every audio-code token.
pub(super) const CODE_SUFFIX: &str = "|>";

/// A token that is matched in the raw text before BPE sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AddedToken {
    pub(super) id: u32,
    pub(super) content: String,
    pub(super) special: bool,
}

/// The control tokens the prompts and the grammar are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ControlTokens {
    /// `<|endoftext|>`: pads, and also ends a completion.
    pub end_of_text: u32,
    /// `<|im_start|>`: opens a turn.
    pub turn_start: u32,
    /// `<|im_end|>`: closes a turn; the regular end of a completion.
    pub turn_end: u32,
    /// `<think>`: opens the reasoning.
    pub think: u32,
    /// `</think>`: closes the reasoning.
    pub think_end: u32,
}

/// Ids and texts of all tokens of a planner.
#[derive(Debug, Clone)]
pub struct LmVocabulary {
    pub(super) control: ControlTokens,
    /// Bytes of the BPE tokens, one after the other.
    pub(super) bytes: Vec<u8>,
    /// Where the bytes of each BPE token end.
    pub(super) ends: Vec<u32>,
    /// Added tokens other than audio codes, by ascending id.
    pub(super) added: Vec<AddedToken>,
    pub(super) first_code: u32,
    pub(super) codes: u32,
    pub(super) codes_are_special: bool,
}

impl LmVocabulary {
    /// The control tokens.
    pub fn control(&self) -> ControlTokens {
        self.control
    }

    /// Number of BPE tokens; their ids are `0..plain()`.
    pub fn plain(&self) -> u32 {
        self.ends.len() as u32
    }

    /// Number of rows the model's head has to have: one more than the largest id.
    pub fn size(&self) -> u32 {
        let last_added = self.added.last().map_or(0, |t| t.id + 1);
        self.plain()
            .max(last_added)
            .max(self.first_code + self.codes)
    }

    /// Ids of all audio-code tokens, legal or not; code `N` is the `N`-th of them.
    pub fn codes(&self) -> Range<u32> {
        self.first_code..self.first_code + self.codes
    }

    /// Ids of the audio codes that mean something, see [`LEGAL_CODES`].
    pub fn legal_codes(&self) -> Range<u32> {
        self.first_code..self.first_code + self.codes.min(LEGAL_CODES)
    }

    /// Id of a code; `None` when the vocabulary has no such code.
    pub fn code_id(&self, code: u32) -> Option<u32> {
        (code < self.codes).then(|| self.first_code + code)
    }

    /// Code of an id; `None` when the id is none of a code.
    pub fn code_of(&self, id: u32) -> Option<u32> {
        self.codes()
            .contains(&id)
            .then(|| id.wrapping_sub(self.first_code))
    }

    /// Whether a completion ends with this token.
    pub fn ends_completion(&self, id: u32) -> bool {
        id == self.control.turn_end || id == self.control.end_of_text
    }

    /// Bytes of a BPE token, which need not be UTF-8; `None` for all other ids.
    pub fn plain_bytes(&self, id: u32) -> Option<&[u8]> {
        let end = *self.ends.get(id as usize)? as usize;
        let start = match id {
            0 => 0,
            _ => self.ends[id as usize - 1] as usize,
        };
        self.bytes.get(start..end)
    }

    /// Text of one token decoded alone: bytes that are not UTF-8 become U+FFFD, an unknown id is
    /// empty.
    pub fn text(&self, id: u32) -> String {
        self.decode(&[id], false)
    }

    /// Text of `ids`. Bytes that are not UTF-8 become U+FFFD; unknown ids are left out, special
    /// tokens too when `skip_special`.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> String {
        let mut bytes = Vec::new();
        for &id in ids {
            if let Some(plain) = self.plain_bytes(id) {
                bytes.extend_from_slice(plain);
            } else if let Some(code) = self.code_of(id) {
                if !(skip_special && self.codes_are_special) {
                    let text = format!("{CODE_PREFIX}{code}{CODE_SUFFIX}");
                    bytes.extend_from_slice(text.as_bytes());
                }
            } else if let Some(token) = self.added_token(id)
                && !(skip_special && token.special)
            {
                bytes.extend_from_slice(token.content.as_bytes());
            }
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn added_token(&self, id: u32) -> Option<&AddedToken> {
        let at = self.added.binary_search_by_key(&id, |t| t.id).ok()?;
        self.added.get(at)
    }

    /// The added token `text` starts with, the longest where several do: its id and length in
    /// bytes.
    pub(super) fn added_at(&self, text: &str) -> Option<(u32, usize)> {
        if let Some((code, length)) = leading_code(text)
            && let Some(id) = self.code_id(code)
        {
            return Some((id, length));
        }
        self.added
            .iter()
            .filter(|t| text.starts_with(t.content.as_str()))
            .max_by_key(|t| t.content.len())
            .map(|t| (t.id, t.content.len()))
    }
}

/// The code of the audio-code token `text` starts with, and the token's length in bytes. The
/// number has no leading zeros: `<|audio_code_007|>` is ordinary text.
pub(super) fn leading_code(text: &str) -> Option<(u32, usize)> {
    let rest = text.strip_prefix(CODE_PREFIX)?;
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let number = &rest[..digits];
    if number.len() > 1 && number.starts_with('0') || !rest[digits..].starts_with(CODE_SUFFIX) {
        return None;
    }
    let code = number.parse().ok()?;
    Some((code, CODE_PREFIX.len() + digits + CODE_SUFFIX.len()))
}
