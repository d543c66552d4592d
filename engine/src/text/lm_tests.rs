//! Vectors of the planner's tokenizer, prompts and metadata. Those of the published vocabulary
//! run where the variable `ACESTEP_GOLDENS` names a full golden tree.

use super::*;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/goldens")
}

/// The tiny planner's tokenizer: the tiny text encoder's vocabulary and 2048 codes.
pub(super) fn tiny() -> &'static Arc<LmTokenizer> {
    static TINY: OnceLock<Arc<LmTokenizer>> = OnceLock::new();
    TINY.get_or_init(|| {
        let path = goldens().join("tiny/Qwen3-Embedding-0.6B/tokenizer.json");
        let bytes = std::fs::read(&path).unwrap();
        Arc::new(LmTokenizer::with_codes(&bytes, 5074, &path).unwrap())
    })
}

/// The published tokenizer, where the full golden tree is at hand.
pub(super) fn real() -> Option<&'static Arc<LmTokenizer>> {
    static REAL: OnceLock<Option<Arc<LmTokenizer>>> = OnceLock::new();
    let real = REAL.get_or_init(|| {
        let tree = PathBuf::from(std::env::var_os("ACESTEP_GOLDENS")?);
        let path = tree.join("tokenizer/tokenizer.json.gz");
        let mut json = Vec::new();
        let file = std::fs::File::open(&path).unwrap();
        std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(file), &mut json).unwrap();
        Some(Arc::new(
            LmTokenizer::with_codes(&json, 217_204, &path).unwrap(),
        ))
    });
    if real.is_none() {
        println!("skipped: no full vocabulary (set ACESTEP_GOLDENS)");
    }
    real.as_ref()
}

fn vectors() -> Value {
    serde_json::from_str(include_str!("lm_vectors.json")).unwrap()
}

fn ids(v: &Value) -> Vec<u32> {
    serde_json::from_value(v.clone()).unwrap()
}

#[test]
fn the_tiny_vocabulary_is_where_its_file_says() {
    let vocabulary = tiny().vocabulary();
    let control = vocabulary.control();
    assert_eq!((control.end_of_text, control.turn_end), (3000, 3002));
    assert_eq!((control.think, control.think_end), (3024, 3025));
    assert_eq!(vocabulary.codes(), 3026..5074);
    assert_eq!((vocabulary.plain(), vocabulary.size()), (3000, 5074));
    assert_eq!(vocabulary.code_id(2047), Some(5073));
    assert_eq!(
        (vocabulary.code_id(2048), vocabulary.code_of(3025)),
        (None, None)
    );
}

#[test]
fn agrees_with_the_general_tokenizer() {
    let path = goldens().join("tiny/Qwen3-Embedding-0.6B/tokenizer.json");
    let bytes = std::fs::read(&path).unwrap();
    let mut json: Value = serde_json::from_slice(&bytes).unwrap();
    let added = json["added_tokens"].as_array_mut().unwrap();
    for code in 0..2048 {
        let mut token = added[0].clone();
        token["id"] = (3026 + code).into();
        token["content"] = format!("<|audio_code_{code}|>").into();
        added.push(token);
    }
    json["post_processor"] = Value::Null;
    let listed = serde_json::to_vec(&json).unwrap();
    let general = Tokenizer::from_bytes(&listed, &path).unwrap();
    let ours = LmTokenizer::from_bytes(&listed, &path).unwrap();
    for text in [
        "<|audio_code_0|><|audio_code_2047|> <|audio_code_2048|><|audio_code_01|>",
        "<think>\nbpm: 120\n</think>\n\n<|im_end|>é <|im_<|im_start|>",
        "e\u{301} <e\u{301}<think>e\u{301}",
    ] {
        let ids = general.encode_plain(text).unwrap();
        assert_eq!(ours.encode(text).unwrap(), ids);
        assert_eq!(
            ours.vocabulary().decode(&ids, false),
            general.decode(&ids, false).unwrap()
        );
        assert_eq!(
            ours.vocabulary().decode(&ids, true),
            general.decode(&ids, true).unwrap()
        );
    }
}

#[test]
fn files_that_are_no_planners_are_refused() {
    let path = Path::new("some/tokenizer.json");
    let text_encoder =
        std::fs::read(goldens().join("tiny/Qwen3-Embedding-0.6B/tokenizer.json")).unwrap();
    let mut gap: Value = serde_json::from_slice(&text_encoder).unwrap();
    let added = gap["added_tokens"].as_array_mut().unwrap();
    for (id, code) in [(3026, 0), (3028, 1)] {
        let mut token = added[0].clone();
        token["id"] = id.into();
        token["content"] = format!("<|audio_code_{code}|>").into();
        added.push(token);
    }
    for (bytes, why) in [
        (text_encoder, "no token <|audio_code_0|>"),
        (serde_json::to_vec(&gap).unwrap(), "without a gap"),
        (b"{}".to_vec(), "added_tokens"),
    ] {
        let error = LmTokenizer::from_bytes(&bytes, path)
            .err()
            .unwrap()
            .to_string();
        assert!(
            error.contains(why) && error.contains("some/tokenizer.json"),
            "{error}"
        );
    }
}

fn song() -> Metadata {
    Metadata {
        bpm: Some(Number::Whole(120)),
        caption: Some("upbeat pop song".into()),
        duration: Some(Number::Whole(30)),
        keyscale: Some("C major".into()),
        language: Some("en".into()),
        timesignature: Some("4".into()),
        genres: None,
    }
}

/// Every prompt as text, and its name among the vectors of the published vocabulary.
fn prompts() -> Vec<(LmPrompt, &'static str)> {
    vec![
        (LmPrompt::reason("upbeat pop song", "Hello world"), "reason"),
        (LmPrompt::codes_unconditional(" "), "unconditional"),
        (
            LmPrompt::inspire("a soft Bengali love song for a quiet evening", false),
            "inspire",
        ),
        (
            LmPrompt::format("pop rock", "[Verse 1]\nWalking down the street"),
            "format",
        ),
        (
            LmPrompt::understand(&[18953, 13833, 0, 63999]),
            "understand",
        ),
        (
            LmPrompt::reason("温柔的中文民谣，木吉他", "[Verse]\n夜色很安静\n"),
            "chinese",
        ),
    ]
}

#[test]
fn prompts_are_literal() {
    let system = |instruction: &str| {
        format!(
            "<|im_start|>system\n# Instruction\n{instruction}\n\n<|im_end|>\n<|im_start|>user\n"
        )
    };
    let generate = system("Generate audio semantic tokens based on the given conditions:");
    let tail = "<|im_end|>\n<|im_start|>assistant\n";
    let reason = format!("{generate}# Caption\nupbeat pop song\n\n# Lyric\nHello world\n{tail}");
    let texts: Vec<String> = prompts().iter().map(|(p, _)| p.text()).collect();
    assert_eq!(texts[0], reason);
    assert_eq!(
        LmPrompt::codes("upbeat pop song", "Hello world", &song()).text(),
        format!(
            "{reason}<think>\nbpm: 120\ncaption: upbeat pop song\nduration: 30\n\
             keyscale: C major\nlanguage: en\ntimesignature: 4\n</think>\n\n"
        )
    );
    assert_eq!(
        texts[1],
        format!("{generate}NO USER INPUT{tail}<think>\n\n</think>\n\n")
    );
    assert_eq!(
        texts[2],
        format!(
            "{}a soft Bengali love song for a quiet evening\n\ninstrumental: false{tail}",
            system(
                "Expand the user's input into a more detailed and specific musical description:"
            )
        )
    );
    assert_eq!(
        texts[3],
        format!(
            "{}# Caption\npop rock\n\n# Lyric\n[Verse 1]\nWalking down the street{tail}",
            system(
                "Format the user's input into a more detailed and specific musical description:"
            )
        )
    );
    assert_eq!(
        texts[4],
        format!(
            "{}<|audio_code_18953|><|audio_code_13833|><|audio_code_0|><|audio_code_63999|>{tail}",
            system(
                "Understand the given musical conditions and describe the audio semantics \
                 accordingly:"
            )
        )
    );
    let blank = LmPrompt::format(" ", "").text();
    assert!(blank.contains("# Caption\nNO USER INPUT\n\n# Lyric\n[Instrumental]<|im_end|>"));
    assert!(
        LmPrompt::inspire("", true)
            .text()
            .contains("NO USER INPUT\n\ninstrumental: true<")
    );
    assert!(
        LmPrompt::understand(&[])
            .text()
            .contains("user\nNO USER INPUT<")
    );
}

/// Turn by turn gives the ids of the whole text; user text cannot close its turn.
#[test]
fn prompt_ids_are_those_of_the_text() {
    for (prompt, name) in prompts() {
        if name != "understand" {
            assert_eq!(
                prompt.ids(tiny()).unwrap(),
                tiny().encode(&prompt.text()).unwrap()
            );
        }
    }
    let codes = LmPrompt::understand(&[0, 2047]);
    assert_eq!(
        codes.ids(tiny()).unwrap(),
        tiny().encode(&codes.text()).unwrap()
    );
    assert!(matches!(
        LmPrompt::understand(&[2048]).ids(tiny()),
        Err(crate::Error::Request(why)) if why.contains("2048") && why.contains("0 to 2047")
    ));
    let reason = LmPrompt::reason("a <|im_end|> b", "<think>")
        .ids(tiny())
        .unwrap();
    let control = tiny().vocabulary().control();
    let count = |ids: &[u32], id| ids.iter().filter(|i| **i == id).count();
    assert_eq!(count(&reason, control.turn_end), 2);
    assert_eq!(count(&reason, control.think), 0);
    let codes = LmPrompt::codes("a <|im_end|> b", "<think>", &song());
    assert_eq!(codes.ids(tiny()).unwrap()[..reason.len()], reason);
}

#[test]
fn prompts_in_the_published_vocabulary() {
    let Some(real) = real() else { return };
    let (vectors, vocabulary) = (vectors(), real.vocabulary());
    assert_eq!(
        (vocabulary.codes(), vocabulary.size()),
        (151_669..217_204, 217_204)
    );
    assert_eq!(vocabulary.legal_codes(), 151_669..215_669);
    for (prompt, name) in prompts() {
        let want = ids(&vectors["prompts"][name]);
        assert_eq!(prompt.ids(real).unwrap(), want, "{name}");
        assert_eq!(vocabulary.decode(&want, false), prompt.text());
    }
    let mut codes = ids(&vectors["prompts"]["reason"]);
    codes.extend(ids(&vectors["prompts"]["codes_tail"]));
    let prompt = LmPrompt::codes("upbeat pop song", "Hello world", &song());
    assert_eq!(prompt.ids(real).unwrap(), codes);
    let long = Metadata {
        bpm: Some(Number::Whole(92)),
        caption: Some(
            "A melancholic, introspective indie folk ballad driven by fingerpicked acoustic \
             guitar and a soft, breathy female vocal."
                .into(),
        ),
        duration: Some(Number::Whole(200)),
        keyscale: Some("F# minor".into()),
        ..song()
    };
    let prompt = LmPrompt::codes("indie folk, sad", "[Verse]\nRain on the window\n", &long);
    assert_eq!(
        prompt.ids(real).unwrap(),
        ids(&vectors["prompts"]["long_codes"])
    );
    let user_turn = |prompt: LmPrompt, turn: &[u32]| {
        let ids = prompt.ids(real).unwrap();
        ids.windows(turn.len()).any(|w| w == turn)
    };
    let negative = LmPrompt::codes_unconditional("low quality, distorted");
    assert!(user_turn(
        negative,
        &[872, 198, 10303, 4271, 11, 61136, 151_645]
    ));
    let turn = [
        872, 198, 8996, 13872, 26149, 271, 66368, 278, 25, 830, 151_645,
    ];
    assert!(user_turn(LmPrompt::inspire("", true), &turn));
    let turn = [872, 198, 2, 37600, 1406, 2, 15953, 2216, 271, 151_645];
    assert!(user_turn(LmPrompt::reason("", ""), &turn));
}

#[test]
fn strings_in_the_published_vocabulary() {
    let Some(real) = real() else { return };
    for pair in vectors()["strings"].as_array().unwrap() {
        let (text, want) = (pair[0].as_str().unwrap(), ids(&pair[1]));
        assert_eq!(real.encode(text).unwrap(), want, "{text:?}");
        let decoded = real.vocabulary().decode(&want, false);
        // Decoding gives the composed form; encoding that again gives the same ids.
        assert_eq!(real.encode(&decoded).unwrap(), want, "{text:?}");
        assert!(!decoded.contains('\u{fffd}'));
    }
}
