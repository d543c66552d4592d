//! `acestep format`: a caption and lyrics, rewritten in the language model's own form.

use super::Outcome;
use super::describe::{DescribeArgs, Material, Wanted, describe};
use super::texts::TextArgs;
use engine::song::Subject;
use engine::{Error, Result};

/// Flags of `format`.
#[derive(Debug, clap::Args)]
#[command(allow_negative_numbers = true)]
pub struct Args {
    /// Texts and metadata; what is given here stays as it is.
    #[command(flatten)]
    pub texts: TextArgs,
    /// What all descriptions have.
    #[command(flatten)]
    pub describe: DescribeArgs,
}

/// Rewrites the texts and prints them.
pub fn run(args: Args) -> Result<Outcome> {
    let known = args.texts.request()?;
    if known.prompt.is_none() && known.lyrics.is_none() {
        return Err(Error::Request(
            "nothing to rewrite: give --prompt, --lyrics or both".into(),
        ));
    }
    let (caption, words) = (
        known.prompt.clone().unwrap_or_default(),
        known.lyrics.clone().unwrap_or_default(),
    );
    let wanted = Wanted {
        material: Material::Subject(Subject::Texts {
            caption: caption.clone(),
            lyrics: words.clone(),
        }),
        known,
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
