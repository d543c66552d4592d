//! A small byte-level BPE tokenizer in the structure of the published one: NFC, Qwen's split
//! pattern, byte alphabet, 26 special tokens behind the vocabulary, and for the text encoder a
//! post-processor that appends `<|endoftext|>`.

use super::write::{write_file, write_json};
use crate::error::Result;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// What the merges are counted on: words of captions, metadata and lyrics.
const CORPUS: &str = "# Instruction Fill the audio semantic mask based on the given conditions: \
    # Caption an upbeat pop song with bright guitars, a steady drum beat, warm bass and a female \
    voice that sings the melody of the chorus; a slow piano ballad with strings; energetic \
    electronic dance music with a heavy synthesizer line; calm acoustic folk with soft harmony; \
    jazz with saxophone and double bass; cinematic orchestra with choir and brass; hip hop beat \
    with rap vocals; rock anthem with distorted electric guitars and loud drums # Metas - bpm: \
    - timesignature: - keyscale: major minor - duration: seconds # Languages # Lyric [verse] \
    [chorus] [bridge] [intro] [outro] [instrumental] and the night is in the light of your \
    heart, we are singing in the morning, love is all around, the river runs into the sea";

/// Number of merges; the vocabulary has 256 more.
const MERGES: usize = 244;

/// Qwen's special tokens in the order of their ids; the first 14 are special to the tokenizer.
const SPECIALS: [&str; 26] = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
    "<tool_call>",
    "</tool_call>",
    "<|fim_prefix|>",
    "<|fim_middle|>",
    "<|fim_suffix|>",
    "<|fim_pad|>",
    "<|repo_name|>",
    "<|file_sep|>",
    "<tool_response>",
    "</tool_response>",
    "<think>",
    "</think>",
];

/// The published split pattern.
const SPLIT: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Rows a text model's table needs for this tokenizer, with `codes` audio codes.
pub fn vocabulary(codes: usize) -> usize {
    256 + MERGES + SPECIALS.len() + codes
}

/// Writes the tokenizer's files into a model directory. The text encoder's has no audio codes
/// and appends `<|endoftext|>`; a language model's has `codes` of them and does not. Where the
/// model's table has more than [`vocabulary`] rows, words that no text is split into fill up the
/// `size` tokens, so that masks and samplers have the work of a full vocabulary.
pub fn write_tokenizer(dir: &Path, codes: usize, size: usize) -> Result<()> {
    let alphabet = alphabet();
    let merges = merges(&alphabet);
    let mut order: Vec<String> = (0..=255u8).map(|rank| rank_char(&alphabet, rank)).collect();
    order.extend(merges.iter().map(|(a, b)| format!("{a}{b}")));
    order.extend((vocabulary(codes)..size).map(unmerged));
    let vocab: Map<String, Value> = order
        .iter()
        .enumerate()
        .map(|(id, token)| (token.clone(), json!(id)))
        .collect();

    let first = order.len();
    let special = |i: usize| i < 14;
    let codes = (0..codes).map(|k| format!("<|audio_code_{k}|>"));
    let added: Vec<(usize, String, bool)> = SPECIALS
        .iter()
        .map(|s| s.to_string())
        .chain(codes)
        .enumerate()
        .map(|(i, content)| (first + i, content, special(i)))
        .collect();
    let is_text_encoder = added.len() == SPECIALS.len();

    let tokens: Vec<Value> = added
        .iter()
        .map(|(id, c, s)| added_token(Some(*id), c, *s))
        .collect();
    let list: Vec<Value> = merges.iter().map(|(a, b)| json!([a, b])).collect();
    let tokenizer = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": tokens,
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": SPLIT}, "behavior": "Isolated", "invert": false},
            byte_level()
        ]},
        "post_processor": if is_text_encoder { appending(first) } else { byte_level() },
        "decoder": byte_level(),
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null,
            "continuing_subword_prefix": "", "end_of_word_suffix": "",
            "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": &vocab, "merges": list
        }
    });
    write_file(
        &dir.join("tokenizer.json"),
        tokenizer.to_string().as_bytes(),
    )?;

    let decoder: Map<String, Value> = added
        .iter()
        .map(|(id, c, s)| (id.to_string(), added_token(None, c, *s)))
        .collect();
    let config = json!({
        "add_bos_token": false,
        "add_prefix_space": false,
        "added_tokens_decoder": decoder,
        "bos_token": null,
        "clean_up_tokenization_spaces": false,
        "eos_token": if is_text_encoder { SPECIALS[0] } else { SPECIALS[2] },
        "errors": "replace",
        "model_max_length": 131072,
        "pad_token": SPECIALS[0],
        "split_special_tokens": false,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": null
    });
    write_json(&dir.join("tokenizer_config.json"), &config)?;
    write_file(
        &dir.join("vocab.json"),
        Value::Object(vocab).to_string().as_bytes(),
    )?;
    let lines: String = merges.iter().map(|(a, b)| format!("{a} {b}\n")).collect();
    write_file(&dir.join("merges.txt"), lines.as_bytes())
}

/// A word of letters that no merge makes, another for every number.
fn unmerged(mut number: usize) -> String {
    let mut word = "zq".to_string();
    while number > 0 {
        word.push(char::from(b'a' + (number % 26) as u8));
        number /= 26;
    }
    word
}

fn added_token(id: Option<usize>, content: &str, special: bool) -> Value {
    let mut token = json!({
        "content": content, "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": false, "special": special
    });
    if let Some(id) = id {
        token["id"] = json!(id);
    }
    token
}

fn byte_level() -> Value {
    json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false})
}

/// The post-processor that ends every text with token `end`.
fn appending(end: usize) -> Value {
    let sequence = |id: &str| json!({"Sequence": {"id": id, "type_id": 0}});
    let last = json!({"SpecialToken": {"id": SPECIALS[0], "type_id": 0}});
    json!({"type": "Sequence", "processors": [
        byte_level(),
        {
            "type": "TemplateProcessing",
            "single": [sequence("A"), last],
            "pair": [sequence("A"), last, sequence("B"), last],
            "special_tokens": {
                SPECIALS[0]: {"id": SPECIALS[0], "ids": [end], "tokens": [SPECIALS[0]]}
            }
        }
    ]})
}

/// The character that stands for each byte: printable bytes for themselves, the others for
/// the characters from 256 on, as GPT-2 introduced it.
fn alphabet() -> [char; 256] {
    let printable = |b: u8| matches!(b, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let mut out = ['\0'; 256];
    let mut next = 256u32;
    for b in 0..=255u8 {
        let code = if printable(b) {
            u32::from(b)
        } else {
            next += 1;
            next - 1
        };
        out[usize::from(b)] = char::from_u32(code).unwrap_or('\0');
    }
    out
}

/// The token of id `rank` among the first 256: printable bytes come first.
fn rank_char(alphabet: &[char; 256], rank: u8) -> String {
    let mut chars = *alphabet;
    chars.sort_unstable();
    chars[usize::from(rank)].to_string()
}

/// The most frequent pairs of the corpus, merged one after the other; ties go to the pair that
/// sorts first.
fn merges(alphabet: &[char; 256]) -> Vec<(String, String)> {
    let mut words: Vec<Vec<String>> = CORPUS
        .split_whitespace()
        .flat_map(|word| [format!(" {word}"), word.to_string()])
        .map(|word| {
            word.bytes()
                .map(|b| alphabet[usize::from(b)].to_string())
                .collect()
        })
        .collect();
    let mut out = Vec::new();
    while out.len() < MERGES {
        let mut counts: BTreeMap<(&str, &str), usize> = BTreeMap::new();
        for pair in words.iter().flat_map(|w| w.windows(2)) {
            *counts.entry((&pair[0], &pair[1])).or_default() += 1;
        }
        let best = counts.iter().max_by(|a, b| a.1.cmp(b.1).then(b.0.cmp(a.0)));
        let Some(((a, b), _)) = best else { break };
        let (a, b) = (a.to_string(), b.to_string());
        for word in &mut words {
            let mut i = 0;
            while i + 1 < word.len() {
                if word[i] == a && word[i + 1] == b {
                    word[i] += &b;
                    word.remove(i + 1);
                }
                i += 1;
            }
        }
        out.push((a, b));
    }
    out
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tokenizers::Tokenizer;

    fn tokenizer(codes: usize) -> Tokenizer {
        let dir = tempfile::tempdir().unwrap();
        write_tokenizer(dir.path(), codes, 0).unwrap();
        Tokenizer::from_file(dir.path().join("tokenizer.json")).unwrap()
    }

    #[test]
    fn ids_are_dense_and_specials_come_last() {
        let t = tokenizer(0);
        assert_eq!(t.get_vocab_size(true), vocabulary(0));
        assert_eq!(t.token_to_id("!"), Some(0));
        assert_eq!(t.token_to_id("<|endoftext|>"), Some(500));
        assert_eq!(t.token_to_id("</think>"), Some(525));
        let ids = t.encode("an upbeat pop song<|endoftext|>", true).unwrap();
        let ids = ids.get_ids();
        assert_eq!(
            ids[ids.len() - 2..],
            [500, 500],
            "one from the text, one appended"
        );
        assert!(
            ids.iter().any(|id| (256..500).contains(id)),
            "merges are used: {ids:?}"
        );
    }

    #[test]
    fn a_language_model_has_audio_codes_and_appends_nothing() {
        let t = tokenizer(8);
        assert_eq!(t.get_vocab_size(true), vocabulary(8));
        let ids = t.encode("<|audio_code_7|><|im_end|>", true).unwrap();
        assert_eq!(ids.get_ids(), [533, 502]);
    }

    #[test]
    fn a_larger_vocabulary_is_filled_and_splits_texts_the_same() {
        let dir = tempfile::tempdir().unwrap();
        write_tokenizer(dir.path(), 8, 3000).unwrap();
        let large = Tokenizer::from_file(dir.path().join("tokenizer.json")).unwrap();
        assert_eq!(large.get_vocab_size(true), 3000);
        assert_eq!(large.token_to_id("<|audio_code_7|>"), Some(2999));
        let text = "an upbeat zqab song";
        let ids = |t: &Tokenizer| t.encode(text, true).unwrap().get_ids().to_vec();
        assert_eq!(ids(&large), ids(&tokenizer(8)));
    }

    proptest! {
        /// Byte level: whatever the text, decoding gives it back (NFC aside).
        #[test]
        fn text_survives(text in "[ -~\n\tа-я日本]{0,60}") {
            thread_local!(static T: Tokenizer = tokenizer(0));
            let (ids, back) = T.with(|t| {
                let ids = t.encode(text.as_str(), false).unwrap().get_ids().to_vec();
                let back = t.decode(&ids, false).unwrap();
                (ids, back)
            });
            prop_assert!(ids.iter().all(|id| (*id as usize) < vocabulary(0)));
            prop_assert_eq!(back, text);
        }
    }
}
