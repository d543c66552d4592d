//! `acestep understand`: music in words.

use super::describe::{DescribeArgs, Material, Wanted, describe};
use super::outputs::check_writable;
use super::{Outcome, codes};
use crate::fields::RawRequest;
use engine::Result;
use engine::song::Subject;
use engine::text::codes::CODES_PER_SECOND;
use std::path::{Path, PathBuf};

/// Flags of `understand`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A recording, or audio codes: <|audio_code_N|> one after the other, numbers with commas, or
    /// a file of them
    #[arg(value_name = "FILE|CODES")]
    pub input: String,
    /// Diffusion model that turns a recording into codes [default: acestep-v15-turbo, else the
    /// first there is]
    #[arg(long, value_name = "NAME")]
    pub model: Option<String>,
    /// Write the audio codes to a file
    #[arg(long, value_name = "FILE")]
    pub codes_out: Option<PathBuf>,
    /// What all descriptions have.
    #[command(flatten)]
    pub describe: DescribeArgs,
}

/// Temperature at which music is understood: a description is to be right, not new.
const TEMPERATURE: f64 = 0.3;

/// Describes the music.
pub fn run(args: Args) -> Result<Outcome> {
    if let Some(file) = &args.codes_out {
        check_writable("--codes-out", file)?;
    }
    let wanted = Wanted {
        material: material(&args)?,
        known: RawRequest::default(),
        temperature: TEMPERATURE,
    };
    let described = describe(wanted, &args.describe)?;
    let codes = match &described.subject {
        Subject::Codes(codes) => codes.as_slice(),
        _ => &[],
    };
    if let Some(file) = &args.codes_out {
        codes::write(file, codes)?;
    }
    let seconds = codes.len() as f64 / CODES_PER_SECOND as f64;
    described.print(
        &args.describe,
        &[
            ("codes", codes.len().into()),
            ("seconds_of_codes", seconds.into()),
        ],
    )
}

/// Codes where there are some, else a recording.
fn material(args: &Args) -> Result<Material> {
    const FROM: &str = "FILE|CODES";
    let file = Path::new(&args.input);
    let codes = match file.is_file() {
        true => codes::of_file(FROM, file)?,
        false => Some(codes::read(FROM, &args.input)?),
    };
    Ok(match codes {
        Some(codes) => Material::Subject(Subject::Codes(codes)),
        None => Material::Recording(file.to_path_buf(), args.model.clone()),
    })
}
