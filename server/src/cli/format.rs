//! `acestep format`: a caption and lyrics, rewritten in the language model's own form.

use super::Outcome;
use super::describe::{DescribeArgs, Material, Wanted, describe};
use super::generate::{number, read_lyrics};
use crate::fields::RawRequest;
use engine::song::Subject;
use engine::{Error, Result};
use std::path::PathBuf;

/// Flags of `format`.
#[derive(Debug, clap::Args)]
#[command(allow_negative_numbers = true)]
pub struct Args {
    /// Description of the music
    #[arg(long, value_name = "TEXT")]
    pub prompt: Option<String>,
    /// Lyrics [default: instrumental]
    #[arg(long, value_name = "TEXT", conflicts_with = "lyrics_file")]
    pub lyrics: Option<String>,
    /// File with the lyrics
    #[arg(long, value_name = "FILE")]
    pub lyrics_file: Option<PathBuf>,
    /// Beats per minute, 30 to 300, instead of the model's
    #[arg(long, value_name = "N")]
    pub bpm: Option<i64>,
    /// Key, for example "C major", instead of the model's
    #[arg(long, value_name = "TEXT")]
    pub key: Option<String>,
    /// 2, 3, 4 or 6, instead of the model's
    #[arg(long, value_name = "N")]
    pub time_signature: Option<String>,
    /// Length in seconds, 10 to 600, instead of the model's
    #[arg(long, value_name = "SECONDS", value_parser = number)]
    pub duration: Option<f64>,
    /// Language code of the lyrics, instead of the model's
    #[arg(long, value_name = "CODE")]
    pub language: Option<String>,
    /// What all descriptions have.
    #[command(flatten)]
    pub describe: DescribeArgs,
}

/// Rewrites the texts and prints them.
pub fn run(args: Args) -> Result<Outcome> {
    let lyrics = read_lyrics(args.lyrics.as_ref(), args.lyrics_file.as_deref())?;
    if args.prompt.is_none() && lyrics.is_none() {
        return Err(Error::Request(
            "nothing to rewrite: give --prompt, --lyrics or both".into(),
        ));
    }
    let (caption, words) = (
        args.prompt.clone().unwrap_or_default(),
        lyrics.clone().unwrap_or_default(),
    );
    let wanted = Wanted {
        material: Material::Subject(Subject::Texts {
            caption: caption.clone(),
            lyrics: words.clone(),
        }),
        known: RawRequest {
            prompt: args.prompt,
            lyrics,
            bpm: args.bpm,
            key_scale: args.key,
            time_signature: args.time_signature,
            audio_duration: args.duration,
            vocal_language: args.language,
            ..RawRequest::default()
        },
        temperature: 0.85,
    };
    let mut described = describe(wanted, &args.describe)?;
    // What the model has nothing for stays as it was.
    let kept = |text: &mut Option<String>, own: String| {
        if text.is_none() && !own.is_empty() {
            *text = Some(own);
        }
    };
    kept(&mut described.description.caption, caption);
    kept(&mut described.description.lyrics, words);
    described.print(&args.describe, &[])
}
