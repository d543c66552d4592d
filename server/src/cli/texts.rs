//! The flags that say what a song is: its texts and its metadata, one struct for every subcommand
//! that takes them.

use super::generate::number;
use crate::fields::RawRequest;
use engine::{Error, Result};
use std::path::PathBuf;

/// Texts and metadata of a song.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct TextArgs {
    /// Description of the music
    #[arg(long, value_name = "TEXT")]
    pub prompt: Option<String>,
    /// Lyrics [default: instrumental]
    #[arg(long, value_name = "TEXT", conflicts_with = "lyrics_file")]
    pub lyrics: Option<String>,
    /// File with the lyrics
    #[arg(long, value_name = "FILE")]
    pub lyrics_file: Option<PathBuf>,
    /// Beats per minute, 30 to 300
    #[arg(long, value_name = "N")]
    pub bpm: Option<i64>,
    /// Key, for example "C Major"
    #[arg(long, value_name = "TEXT")]
    pub key: Option<String>,
    /// 2, 3, 4 or 6
    #[arg(long, value_name = "N")]
    pub time_signature: Option<String>,
    /// Length in seconds, 10 to 600 [default: 120, or what the language model finds]
    #[arg(long, value_name = "SECONDS", value_parser = number)]
    pub duration: Option<f64>,
    /// Language code of the lyrics [default: en, or what the language model finds]
    #[arg(long, value_name = "CODE")]
    pub language: Option<String>,
}

impl TextArgs {
    /// A request of these flags alone. Reads the file of `--lyrics-file`.
    ///
    /// # Errors
    /// [`Error::Missing`] when that cannot be read.
    pub fn request(&self) -> Result<RawRequest> {
        Ok(RawRequest {
            prompt: self.prompt.clone(),
            lyrics: self.read_lyrics()?,
            bpm: self.bpm,
            key_scale: self.key.clone(),
            time_signature: self.time_signature.clone(),
            audio_duration: self.duration,
            vocal_language: self.language.clone(),
            ..RawRequest::default()
        })
    }

    /// The lyrics that a flag gives, or a file.
    fn read_lyrics(&self) -> Result<Option<String>> {
        let Some(file) = &self.lyrics_file else {
            return Ok(self.lyrics.clone());
        };
        std::fs::read_to_string(file).map(Some).map_err(|e| {
            let name = file.display();
            Error::Missing(format!("--lyrics-file {name} cannot be read ({e})"))
        })
    }
}
