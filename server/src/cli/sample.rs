//! `acestep sample`: a song in words, invented from a wish.

use super::Outcome;
use super::describe::{DescribeArgs, Material, Wanted, describe};
use crate::fields::RawRequest;
use engine::Result;
use engine::song::{Subject, Wish};
use engine::text::prompt::INSTRUMENTAL;

/// Flags of `sample`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What the song should be
    #[arg(long, value_name = "TEXT")]
    pub query: String,
    /// Without a singing voice
    #[arg(long)]
    pub instrumental: bool,
    /// Language code of the lyrics, instead of the model's
    #[arg(long, value_name = "CODE")]
    pub language: Option<String>,
    /// What all descriptions have.
    #[command(flatten)]
    pub describe: DescribeArgs,
}

/// Invents a song and prints it.
pub fn run(args: Args) -> Result<Outcome> {
    let wanted = Wanted {
        material: Material::Subject(Subject::Wish(Wish {
            query: args.query,
            instrumental: args.instrumental,
        })),
        known: RawRequest {
            vocal_language: args.language,
            ..RawRequest::default()
        },
        temperature: 0.85,
    };
    let mut described = describe(wanted, &args.describe)?;
    if args.instrumental {
        let lyrics = &mut described.description.lyrics;
        lyrics.get_or_insert_with(|| INSTRUMENTAL.to_owned());
    }
    let instrumental = ("instrumental", args.instrumental.into());
    described.print(&args.describe, &[instrumental])
}
