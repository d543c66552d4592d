//! The literal prompts of the model: a caption prompt for the text encoder and a lyric prompt
//! whose tokens are only embedded. Templates and instruction strings are those of upstream's
//! `acestep/constants.py`; the model was trained on these exact bytes.

use crate::song::Metas;

/// Most tokens of a caption prompt.
pub const CAPTION_TOKENS: usize = 256;
/// Most tokens of a lyric prompt.
pub const LYRIC_TOKENS: usize = 2048;
/// Seconds named in the prompt when the request names none (the audio is then 120 s long).
pub const UNKNOWN_DURATION_S: f64 = 30.0;
/// Lyrics of music without vocals.
pub const INSTRUMENTAL: &str = "[Instrumental]";

/// Instruction of plain generation.
pub const TEXT2MUSIC: &str = "Fill the audio semantic mask based on the given conditions:";
/// Instruction of covers and of generation from audio codes.
pub const COVER: &str = "Generate audio semantic tokens based on the given conditions:";
/// Instruction of repainting.
pub const REPAINT: &str = "Repaint the mask area based on the given conditions:";

/// Instruction for adding one track to a song; track names are upper-cased.
pub fn lego(track: Option<&str>) -> String {
    match track {
        Some(t) => format!(
            "Generate the {} track based on the audio context:",
            t.to_uppercase()
        ),
        None => "Generate the track based on the audio context:".to_owned(),
    }
}

/// Instruction for isolating one track of a song.
pub fn extract(track: Option<&str>) -> String {
    match track {
        Some(t) => format!("Extract the {} track from the audio:", t.to_uppercase()),
        None => "Extract the track from the audio:".to_owned(),
    }
}

/// Instruction for accompanying a track with others.
pub fn complete(tracks: &[&str]) -> String {
    if tracks.is_empty() {
        return "Complete the input track:".to_owned();
    }
    let names: Vec<String> = tracks.iter().map(|t| t.to_uppercase()).collect();
    format!("Complete the input track with {}:", names.join(" | "))
}

/// Prompt for the text encoder.
///
/// `instruction` gets a colon at its end when it has none; of a `caption` that is itself a whole
/// prompt only the caption section is used; `duration_s` is truncated to whole seconds.
pub fn caption_prompt(
    instruction: &str,
    caption: &str,
    metas: &Metas,
    duration_s: Option<f64>,
) -> String {
    let caption = caption_section(caption).unwrap_or(caption);
    filled(instruction, caption, metas, duration_s)
}

/// [`caption_prompt`] for models that were trained on the stems of songs (`is_lego_sft` of their
/// configuration): `caption` is that of the stem, `global` that of the whole song, which
/// instructions that ask for a segment leave out. `is_marked` says whether the network is shown
/// which part is to be new. Upstream: `acestep/core/generation/handler/conditioning_text.py`.
pub fn stem_prompt(
    instruction: &str,
    global: &str,
    caption: &str,
    is_marked: bool,
    metas: &Metas,
    duration_s: Option<f64>,
) -> String {
    let local = caption_section(caption).unwrap_or(caption);
    let stem = format!("Local: {local}\nMask Control: {is_marked}");
    let caption = match instruction.to_lowercase().contains("a segment") {
        true => stem,
        false => format!("Global: {global}\n{stem}"),
    };
    filled(instruction, &caption, metas, duration_s)
}

fn filled(instruction: &str, caption: &str, metas: &Metas, duration_s: Option<f64>) -> String {
    let colon = if instruction.ends_with(':') { "" } else { ":" };
    let metas = metas_lines(metas, duration_s);
    format!(
        "# Instruction\n{instruction}{colon}\n\n# Caption\n{caption}\n\n# Metas\n{metas}\
         <|endoftext|>\n"
    )
}

/// Prompt whose token embeddings the lyric encoder reads.
pub fn lyric_prompt(language: &str, lyrics: &str) -> String {
    format!("{}{lyrics}<|endoftext|>", lyric_header(language))
}

/// What stands before the lyrics in their prompt.
pub fn lyric_header(language: &str) -> String {
    format!("# Languages\n{language}\n\n# Lyric\n")
}

/// Whether these lyrics are one of the ways to say that nobody sings.
pub fn is_instrumental(lyrics: &str) -> bool {
    let word = lyrics.trim().to_lowercase();
    matches!(word.as_str(), "" | "[inst]" | "[instrumental]")
}

/// The four lines under `# Metas`.
fn metas_lines(metas: &Metas, duration_s: Option<f64>) -> String {
    let bpm = match metas.bpm {
        Some(bpm) if bpm > 0 => bpm.to_string(),
        _ => "N/A".to_owned(),
    };
    let text = |field: &Option<String>| match field {
        Some(s) if !s.trim_matches(is_space).is_empty() => s.clone(),
        _ => "N/A".to_owned(),
    };
    format!(
        "- bpm: {bpm}\n- timesignature: {}\n- keyscale: {}\n- duration: {} seconds\n",
        text(&metas.time_signature),
        text(&metas.key_scale),
        duration_s.unwrap_or(UNKNOWN_DURATION_S) as i64,
    )
}

/// Caption section of a text that already is a prompt: what the regular expression
/// `#\s*Caption\s*\n(.*?)(?:\n\s*#\s*Metas|$)` captures (dot matches line ends), trimmed.
/// `None` when the text is not a prompt.
fn caption_section(text: &str) -> Option<&str> {
    if !text.contains("# Instruction") || !text.contains("# Caption") {
        return None;
    }
    let body = text
        .match_indices('#')
        .find_map(|(at, _)| after_caption_heading(&text[at..]))?;
    let end = body
        .match_indices('\n')
        .find(|(at, _)| starts_metas_heading(&body[at + 1..]))
        .map_or(body.len(), |(at, _)| at);
    Some(body[..end].trim_matches(is_space))
}

/// What follows `#\s*Caption\s*\n` at the start of `text`. The white space is greedy: it ends at
/// the last line end of the run, so blank lines never belong to the body.
fn after_caption_heading(text: &str) -> Option<&str> {
    let rest = text.strip_prefix('#')?.trim_start_matches(is_space);
    let rest = rest.strip_prefix("Caption")?;
    let run = &rest[..rest.len() - rest.trim_start_matches(is_space).len()];
    Some(&rest[run.rfind('\n')? + 1..])
}

/// Whether `text` starts with `\s*#\s*Metas`.
fn starts_metas_heading(text: &str) -> bool {
    text.trim_start_matches(is_space)
        .strip_prefix('#')
        .is_some_and(|t| t.trim_start_matches(is_space).starts_with("Metas"))
}

/// White space as Python's `\s` and `strip` see it: Unicode's, and four control characters.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn full_prompt() {
        let metas = Metas {
            bpm: Some(120),
            key_scale: Some("C major".into()),
            time_signature: Some("4".into()),
        };
        assert_eq!(
            caption_prompt(TEXT2MUSIC, "upbeat pop rock", &metas, Some(5.99)),
            "# Instruction\nFill the audio semantic mask based on the given conditions:\n\n\
             # Caption\nupbeat pop rock\n\n# Metas\n- bpm: 120\n- timesignature: 4\n\
             - keyscale: C major\n- duration: 5 seconds\n<|endoftext|>\n"
        );
        assert_eq!(
            lyric_prompt("en", "[Instrumental]"),
            "# Languages\nen\n\n# Lyric\n[Instrumental]<|endoftext|>"
        );
    }

    #[test]
    fn stem_prompts_name_the_song_the_stem_and_the_mask() {
        let caption = |instruction: &str, marked| {
            let metas = Metas::default();
            let prompt = stem_prompt(instruction, "a waltz", "brushes", marked, &metas, None);
            let (_, rest) = prompt.split_once("# Caption\n").unwrap();
            rest.split_once("\n\n# Metas\n").unwrap().0.to_owned()
        };
        let whole = lego(Some("drums"));
        assert_eq!(
            caption(&whole, false),
            "Global: a waltz\nLocal: brushes\nMask Control: false"
        );
        assert_eq!(
            caption(&whole, true),
            "Global: a waltz\nLocal: brushes\nMask Control: true"
        );
        assert_eq!(
            caption("Generate A SEGMENT of the DRUMS track", true),
            "Local: brushes\nMask Control: true"
        );
        // Of a stem's caption that is a whole prompt only the caption counts.
        let prompt = caption_prompt(&whole, "brushes", &Metas::default(), None);
        let stem = stem_prompt(&whole, "", &prompt, false, &Metas::default(), None);
        assert!(
            stem.contains("# Caption\nGlobal: \nLocal: brushes\nMask Control: false\n\n# Metas")
        );
    }

    #[test]
    fn absent_metas_and_duration() {
        let blank = Metas {
            bpm: Some(0),
            key_scale: Some("  ".into()),
            time_signature: Some(String::new()),
        };
        for metas in [Metas::default(), blank] {
            assert!(caption_prompt("x", "", &metas, None).ends_with(
                "# Metas\n- bpm: N/A\n- timesignature: N/A\n- keyscale: N/A\n\
                 - duration: 30 seconds\n<|endoftext|>\n"
            ));
        }
    }

    #[test]
    fn instruction_ends_in_one_colon() {
        for instruction in ["Do it", "Do it:"] {
            let prompt = caption_prompt(instruction, "c", &Metas::default(), None);
            assert!(prompt.starts_with("# Instruction\nDo it:\n\n# Caption\nc\n\n"));
        }
        assert!(lego(Some("drums")).contains(" DRUMS "));
        assert_eq!(
            complete(&["bass", "fx"]),
            "Complete the input track with BASS | FX:"
        );
    }

    /// Expected values were taken from Python's `re` with the expression in the documentation.
    #[test]
    fn caption_section_follows_the_regular_expression() {
        let cases = [
            (
                "# Instruction\nx\n\n# Caption\nbody\n\n# Metas\n- bpm",
                "body",
            ),
            (
                "# Instruction\n# Caption\nbody, no metas\n",
                "body, no metas",
            ),
            (
                "# Instruction\n# Caption \t\n\n  two\nlines \n #  Metas",
                "two\nlines",
            ),
            (
                "# Instruction\n# Caption\na\n# Caption\nb\n# Metas",
                "a\n# Caption\nb",
            ),
            // White space takes the line end in front of the heading: it cannot end an empty body.
            (
                "# Instruction\n# Caption\n\n# Metas\n- bpm: 1",
                "# Metas\n- bpm: 1",
            ),
            (
                "# Instruction #Caption\nc1\n# Caption x\n# Metas",
                "c1\n# Caption x",
            ),
            ("# Instruction\n# Caption\nö\u{a0}\n#Metas", "ö"),
        ];
        for (text, want) in cases {
            assert_eq!(caption_section(text), Some(want), "{text:?}");
        }
        for text in [
            "plain",
            "# Caption\nonly",
            "# Instruction # Caption on one line",
        ] {
            assert_eq!(caption_section(text), None, "{text:?}");
        }
    }

    /// The prompts and ids of the recorded end-to-end cases follow from their requests.
    #[test]
    fn prompts_and_ids_are_those_recorded() {
        use crate::text::Tokenizer;
        use std::path::Path;
        let goldens = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/goldens");
        let tokenizer = Tokenizer::load(&goldens.join("tiny/Qwen3-Embedding-0.6B")).unwrap();
        for case in ["turbo_text2music", "base_text2music_apg", "xl_text2music"] {
            let path = goldens.join(format!("stages/e2e/{case}.safetensors"));
            let bytes = std::fs::read(path).unwrap();
            let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
            let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
            let meta = header.metadata().clone().unwrap();
            let request: serde_json::Value = serde_json::from_str(&meta["request"]).unwrap();
            let text = |key: &str| request[key].as_str().map(str::to_owned);
            let metas = Metas {
                bpm: request["bpm"].as_u64().map(|b| b as u32),
                key_scale: text("key_scale"),
                time_signature: text("time_signature"),
            };
            let caption = text("captions").unwrap();
            let duration = request["audio_duration"].as_f64();
            let caption = caption_prompt(TEXT2MUSIC, &caption, &metas, duration);
            let language = text("vocal_language").unwrap();
            let lyrics = lyric_prompt(&language, &text("lyrics").unwrap());
            assert_eq!(format!("{caption}\n\n{lyrics}"), meta["text_and_lyrics"]);
            for (prompt, most, name) in [
                (&caption, CAPTION_TOKENS, "text_token_ids"),
                (&lyrics, LYRIC_TOKENS, "lyric_token_ids"),
            ] {
                let want: Vec<u32> = (file.tensor(name).unwrap().data().chunks_exact(8))
                    .map(|b| bytemuck::pod_read_unaligned::<i64>(b) as u32)
                    .collect();
                assert_eq!(
                    tokenizer.encode(prompt, most).unwrap(),
                    want,
                    "{case} {name}"
                );
            }
        }
    }
}
