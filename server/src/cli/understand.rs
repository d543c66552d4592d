//! `acestep understand`: music in words.

use super::describe::{DescribeArgs, Wanted, describe};
use super::{Outcome, codes};
use crate::fields::RawRequest;
use engine::Result;
use engine::song::Subject;
use engine::text::codes::CODES_PER_SECOND;

/// Flags of `understand`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Audio codes: <|audio_code_N|> one after the other, numbers with commas, or a file of them
    #[arg(value_name = "FILE|CODES")]
    pub input: String,
    /// What all descriptions have.
    #[command(flatten)]
    pub describe: DescribeArgs,
}

/// Temperature at which music is understood: a description is to be right, not new.
const TEMPERATURE: f64 = 0.3;

/// Describes the music.
pub fn run(args: Args) -> Result<Outcome> {
    let codes = codes::read("FILE|CODES", &args.input)?;
    let count = codes.len();
    let wanted = Wanted {
        subject: Subject::Codes(codes),
        known: RawRequest::default(),
        temperature: TEMPERATURE,
    };
    let described = describe(wanted, &args.describe)?;
    let seconds = count as f64 / CODES_PER_SECOND as f64;
    described.print(
        &args.describe,
        &[
            ("codes", count.into()),
            ("seconds_of_codes", seconds.into()),
        ],
    )
}
