//! Prompts of the planner: the chat template of its checkpoint and the texts of each use.
//! Instructions are those of upstream's `acestep/constants.py`; the model was trained on these
//! exact bytes.
//!
//! A prompt becomes ids turn by turn. Control tokens are put in as ids and what a user wrote is
//! encoded without looking for control tokens in it, so a caption cannot close its turn.

use super::codes::print_codes;
use super::cot::Metadata;
use super::lm_tokenizer::LmTokenizer;
use super::prompt::INSTRUMENTAL;
use crate::error::{Error, Result};

/// Stands for a text the user left out, and is the default negative prompt.
pub const NO_USER_INPUT: &str = "NO USER INPUT";

const GENERATE: &str = "Generate audio semantic tokens based on the given conditions:";
const UNDERSTAND: &str =
    "Understand the given musical conditions and describe the audio semantics accordingly:";
const INSPIRE: &str =
    "Expand the user's input into a more detailed and specific musical description:";
const FORMAT: &str =
    "Format the user's input into a more detailed and specific musical description:";

/// What the user's turn says.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Content {
    Text(String),
    Codes(Vec<u32>),
}

/// A prompt that ends where the model goes on: in the open turn of the assistant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LmPrompt {
    instruction: &'static str,
    content: Content,
    /// Finished reasoning that opens the assistant's turn: the YAML between the tags.
    reasoning: Option<String>,
}

impl LmPrompt {
    /// The model is to reason about caption and lyrics: the first phase of generation.
    pub fn reason(caption: &str, lyrics: &str) -> Self {
        let text = format!("# Caption\n{caption}\n\n# Lyric\n{lyrics}\n");
        LmPrompt::open(GENERATE, Content::Text(text))
    }

    /// The model is to write codes: the second phase. Caption and lyrics are the user's own, the
    /// metadata goes into the reasoning. The prompt continues that of [`LmPrompt::reason`] for
    /// the same texts, token by token.
    pub fn codes(caption: &str, lyrics: &str, metadata: &Metadata) -> Self {
        LmPrompt {
            reasoning: Some(metadata.to_yaml()),
            ..LmPrompt::reason(caption, lyrics)
        }
    }

    /// The unconditional side of [`LmPrompt::codes`]. A blank negative prompt is
    /// [`NO_USER_INPUT`].
    pub fn codes_unconditional(negative: &str) -> Self {
        let text = real_negative(negative).unwrap_or(NO_USER_INPUT);
        LmPrompt {
            reasoning: Some(String::new()),
            ..LmPrompt::open(GENERATE, Content::Text(text.to_owned()))
        }
    }

    /// The model is to invent a song from a wish.
    pub fn inspire(query: &str, instrumental: bool) -> Self {
        let query = or_else(query, NO_USER_INPUT);
        let text = format!("{query}\n\ninstrumental: {instrumental}");
        LmPrompt::open(INSPIRE, Content::Text(text))
    }

    /// The model is to rewrite caption and lyrics in its own form.
    pub fn format(caption: &str, lyrics: &str) -> Self {
        let caption = or_else(caption, NO_USER_INPUT);
        let lyrics = or_else(lyrics, INSTRUMENTAL);
        let text = format!("# Caption\n{caption}\n\n# Lyric\n{lyrics}");
        LmPrompt::open(FORMAT, Content::Text(text))
    }

    /// The model is to describe the music that audio codes stand for.
    pub fn understand(codes: &[u32]) -> Self {
        let content = match codes {
            [] => Content::Text(NO_USER_INPUT.to_owned()),
            _ => Content::Codes(codes.to_vec()),
        };
        LmPrompt::open(UNDERSTAND, content)
    }

    fn open(instruction: &'static str, content: Content) -> Self {
        LmPrompt {
            instruction,
            content,
            reasoning: None,
        }
    }

    /// The prompt as text, as upstream writes it.
    pub fn text(&self) -> String {
        let content = match &self.content {
            Content::Text(text) => text.clone(),
            Content::Codes(codes) => print_codes(codes),
        };
        let reasoning = match &self.reasoning {
            Some(yaml) => format!("<think>\n{yaml}\n</think>\n\n"),
            None => String::new(),
        };
        format!(
            "<|im_start|>{}<|im_end|>\n<|im_start|>user\n{content}<|im_end|>\n\
             <|im_start|>assistant\n{reasoning}",
            self.system()
        )
    }

    /// Ids of the prompt.
    ///
    /// # Errors
    /// [`Error::Request`] for a code the vocabulary lacks, [`Error::Corrupt`] when the
    /// tokenizer's rules fail.
    pub fn ids(&self, tokenizer: &LmTokenizer) -> Result<Vec<u32>> {
        let vocabulary = tokenizer.vocabulary();
        let control = vocabulary.control();
        let mut ids = vec![control.turn_start];
        let append = |ids: &mut Vec<u32>, text: &str| -> Result<()> {
            ids.extend(tokenizer.encode_text(text)?);
            Ok(())
        };
        append(&mut ids, &self.system())?;
        ids.push(control.turn_end);
        append(&mut ids, "\n")?;
        ids.push(control.turn_start);
        match &self.content {
            Content::Text(text) => append(&mut ids, &format!("user\n{text}"))?,
            Content::Codes(codes) => {
                append(&mut ids, "user\n")?;
                for code in codes {
                    ids.push(vocabulary.code_id(*code).ok_or_else(|| {
                        Error::Request(format!(
                            "audio code {code} is unknown: the planner knows 0 to {}",
                            vocabulary.codes().len().saturating_sub(1)
                        ))
                    })?);
                }
            }
        }
        ids.push(control.turn_end);
        append(&mut ids, "\n")?;
        ids.push(control.turn_start);
        append(&mut ids, "assistant\n")?;
        if let Some(yaml) = &self.reasoning {
            ids.push(control.think);
            append(&mut ids, &format!("\n{yaml}\n"))?;
            ids.push(control.think_end);
            append(&mut ids, "\n\n")?;
        }
        Ok(ids)
    }

    fn system(&self) -> String {
        format!("system\n# Instruction\n{}\n\n", self.instruction)
    }
}

/// A negative prompt that says something.
fn real_negative(negative: &str) -> Option<&str> {
    let trimmed = negative.trim();
    (!trimmed.is_empty() && trimmed != NO_USER_INPUT).then_some(negative)
}

fn or_else<'a>(text: &'a str, default: &'a str) -> &'a str {
    if text.trim().is_empty() {
        default
    } else {
        text
    }
}
