//! Text to tokens: the byte-level BPE of the checkpoints, the literal prompt templates, and what
//! the planner reads and writes: prompts, metadata, audio codes.

pub mod codes;
pub mod cot;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod cot_tests;
pub mod grammar;
pub mod lm_prompt;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod lm_tests;
pub mod lm_tokenizer;
pub mod lm_vocabulary;
pub mod lrc;
pub mod prompt;
pub mod tokenizer;
mod yaml;

pub use codes::{code_count, parse_codes, print_codes};
pub use cot::{LmOutput, Metadata, Number, parse_output};
pub use grammar::{Grammar, LANGUAGES};
pub use lm_prompt::LmPrompt;
pub use lm_tokenizer::LmTokenizer;
pub use lm_vocabulary::LmVocabulary;
pub use prompt::{caption_prompt, lyric_prompt};
pub use tokenizer::Tokenizer;
