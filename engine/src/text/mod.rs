//! Text to tokens: the byte-level BPE of the checkpoints and the literal prompt templates.

pub mod prompt;
pub mod tokenizer;

pub use prompt::{caption_prompt, lyric_prompt};
pub use tokenizer::Tokenizer;
