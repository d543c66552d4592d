//! `acestep generate`: one request on the command line, or a file of them, to songs.

use super::bar::Bar;
use super::lm::PlanningArgs;
use super::made::Made;
use super::model::{ModelArgs, noise, print_line};
use super::outputs::{FormatFlag, check_writable, format_of, write_codes, write_songs};
use super::task::TaskArgs;
use super::texts::TextArgs;
use super::{Outcome, requests};
use crate::coerce::Seed;
use crate::env::Env;
use crate::fields::RawRequest;
use crate::resolve::{Caller, LmNeed, ModelFacts, resolve};
use engine::models::config::DitConfig;
use engine::sample::noise::NoiseKind;
use engine::song::{Engine, EngineOptions};
use engine::weights::Checkpoints;
use engine::{Error, Result};
use std::path::PathBuf;
use std::time::Instant;
use uuid::Uuid;

/// Flags of `generate`.
#[derive(Debug, clap::Args)]
#[command(allow_negative_numbers = true)]
pub struct Args {
    /// Several songs in one call: a file of requests, or - for stdin, one JSON object a line in
    /// the names of the HTTP API, read as the server reads them. Each is written beside --out
    /// with the number of its line, in its own format
    #[arg(long, value_name = "FILE", conflicts_with_all = requests::OF_ONE_SONG)]
    pub requests: Option<PathBuf>,
    /// Texts and metadata.
    #[command(flatten)]
    pub texts: TextArgs,
    /// Denoising steps [default: 8 for turbo models, 50 for others]
    #[arg(long, value_name = "N")]
    pub steps: Option<i64>,
    /// Seed, or one per song separated by commas [default: random]
    #[arg(long, value_name = "N", value_parser = seed)]
    pub seed: Option<String>,
    /// Shift of the schedule, 1 to 5 [default: 3 for turbo models, 1 for others]
    #[arg(long, value_parser = number)]
    pub shift: Option<f64>,
    /// Sampler: ode or sde
    #[arg(long, value_name = "NAME")]
    pub infer_method: Option<String>,
    /// Strength of the prompt, up to 30; no effect on turbo models [default: 7]
    #[arg(long, value_name = "X", value_parser = number)]
    pub guidance_scale: Option<f64>,
    /// Descending times separated by commas instead of steps and shift
    #[arg(long, value_name = "LIST")]
    pub timesteps: Option<String>,
    /// Leave out the wavelet correction
    #[arg(long)]
    pub no_dcw: bool,
    /// Number of songs, 1 to 8
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub batch_size: i64,
    /// Model folder [default: acestep-v15-turbo, else the first there is]
    #[arg(long, value_name = "NAME")]
    pub model: Option<String>,
    /// Format [default: by the ending of --out, else wav]
    #[arg(long)]
    pub format: Option<FormatFlag>,
    /// Bit rate in kbit/s: mp3 128, 160, 192, 224, 256 or 320 [default: 128], opus 32 to 510
    /// [default: 128], aac 64 to 320 [default: 192]
    #[arg(long, value_name = "KBITS")]
    pub bitrate: Option<String>,
    /// File to write; several songs get -1, -2, ... before the ending [default: song.wav]
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Write when each line of the lyrics is sung beside the song, with the ending .lrc
    #[arg(long)]
    pub lrc: bool,
    /// Print one JSON object instead of a summary
    #[arg(long)]
    pub json: bool,
    /// What is made, and from which recordings.
    #[command(flatten)]
    pub task: TaskArgs,
    /// What the language model does first.
    #[command(flatten)]
    pub planning: PlanningArgs,
    /// Where the models are and on what they run.
    #[command(flatten)]
    pub place: ModelArgs,
}

/// A finite number.
pub fn number(text: &str) -> std::result::Result<f64, String> {
    match text.parse::<f64>() {
        Ok(x) if x.is_finite() => Ok(x),
        _ => Err("a number is needed".into()),
    }
}

fn seed(text: &str) -> std::result::Result<String, String> {
    if text
        .split(',')
        .all(|item| item.trim().parse::<u64>().is_ok())
    {
        return Ok(text.to_owned());
    }
    Err("whole numbers of at least 0, separated by commas, are needed".into())
}

/// Makes the songs and writes them.
pub fn run(args: Args) -> Result<Outcome> {
    if let Some(file) = &args.requests {
        return requests::run(&args, file);
    }
    let started = Instant::now();
    let env = Env::of_process();
    args.place.device.check(&env)?;
    args.planning.check()?;
    let noise = noise(&env)?;
    let format = format_of(args.format, args.out.as_deref())?;
    let out = args.out.clone().unwrap_or_else(|| format.default_file());
    let raw = raw(&args, format)?;
    check_writable("--out", &out)?;
    if let Some(file) = &args.planning.codes_out {
        check_writable("--codes-out", file)?;
    }
    let checkpoints = args.place.dir(&env)?;
    let tree = Checkpoints::open(&checkpoints)?;
    let facts = facts(&tree, args.model.as_deref())?;
    let resolved = resolve(&raw, &facts, Caller::CommandLine, &mut random)
        .map_err(|refusal| Error::Request(refusal.0))?;
    let needs_lm = args.planning.is_asked_for() || resolved.lm != LmNeed::IfLoaded;
    let mut engine = open(&args, &env, checkpoints, noise, needs_lm)?;
    let device_name = engine.backend().caps().name.clone();
    let bar = Bar::new();
    let loaded = match needs_lm {
        true => engine.load_lm(resolved.lm_model.as_deref(), &bar),
        false => Ok(()),
    };
    let song = loaded.and_then(|()| engine.make(&resolved.song, &bar));
    bar.clear();
    let song = song?;
    for event in &song.composed.events {
        eprintln!("{event}");
    }
    let files = write_songs(&song, &resolved, &out)?;
    let codes_files = write_codes(&song, args.planning.codes_out.as_deref())?;
    let made = Made {
        song: &song,
        files: &files,
        codes_files: &codes_files,
        lm: engine.lm(),
        device: &device_name,
        seconds: started.elapsed().as_secs_f64(),
    };
    match args.json {
        true => print_line(&made.report().to_string())?,
        false => made.print_summary()?,
    }
    Ok(Outcome::Done)
}

/// A seed that nobody gave.
pub fn random() -> u32 {
    // The low half of a version 4 identifier holds 32 random bits and more.
    Uuid::new_v4().as_fields().0
}

/// What the resolver must know of a model folder.
pub fn facts(tree: &Checkpoints, name: Option<&str>) -> Result<ModelFacts> {
    let model = tree.dit(name)?;
    Ok(ModelFacts {
        name: model.name.clone(),
        is_turbo: DitConfig::load(&model.path)?.is_turbo,
    })
}

/// An engine on the devices that the flags name.
pub fn open(
    args: &Args,
    env: &Env,
    checkpoints: PathBuf,
    noise: NoiseKind,
    needs_lm: bool,
) -> Result<Engine> {
    let device = args.place.device.open_with(env)?;
    let lm_device = match needs_lm {
        true => args.planning.lm.open_device(&args.place.device, env)?,
        false => None,
    };
    Engine::open(EngineOptions {
        checkpoints,
        device,
        lm_device,
        noise,
    })
}

/// The flags as a request. `--format` and numbers are checked by clap, the rest by the resolver.
fn raw(args: &Args, format: FormatFlag) -> Result<RawRequest> {
    let texts = args.texts.request()?;
    let planning = &args.planning;
    let has_codes = !planning.codes.is_empty();
    let has_other = planning.sample_query.is_some() || has_codes || args.task.has_source();
    if texts.prompt.is_none() && texts.lyrics.is_none() && !has_other {
        return Err(Error::Request(
            "nothing to make a song from: give --prompt, --lyrics or both, or --sample-query"
                .into(),
        ));
    }
    let mut raw = RawRequest {
        inference_steps: args.steps,
        use_random_seed: Some(args.seed.is_none()),
        seed: args.seed.clone().map(Seed::List),
        shift: args.shift,
        infer_method: args.infer_method.clone(),
        guidance_scale: args.guidance_scale,
        timesteps: args.timesteps.clone(),
        batch_size: Some(args.batch_size),
        audio_format: Some(format.name().into()),
        dcw_enabled: args.no_dcw.then_some(false),
        get_lrc: Some(args.lrc),
        ..texts
    };
    set_bitrate(&mut raw, args.bitrate.as_deref(), format)?;
    planning.fill(&mut raw)?;
    args.task.apply(&mut raw, has_codes)?;
    Ok(raw)
}

/// Puts `--bitrate` where the format's is.
fn set_bitrate(raw: &mut RawRequest, said: Option<&str>, format: FormatFlag) -> Result<()> {
    let Some(said) = said else {
        return Ok(());
    };
    let of_format = match format {
        FormatFlag::Mp3 => &mut raw.mp3_bitrate,
        FormatFlag::Opus => &mut raw.opus_bitrate,
        FormatFlag::Aac => &mut raw.aac_bitrate,
        FormatFlag::Wav | FormatFlag::Wav32 | FormatFlag::Flac => {
            return Err(Error::Request(format!(
                "--bitrate {said}: {} has none; leave it out, or use mp3, opus or aac",
                format.name()
            )));
        }
    };
    *of_format = Some(said.to_owned());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lyrics_are_timed_where_that_is_asked_for() {
        use clap::Parser;
        for (flags, on) in [(&[][..], false), (&["--lrc"][..], true)] {
            let command = ["acestep", "generate", "--prompt", "x"];
            let cli = crate::cli::Cli::try_parse_from(command.iter().chain(flags))
                .unwrap_or_else(|e| panic!("{e}"));
            let crate::cli::Command::Generate(args) = cli.command else {
                panic!("another command");
            };
            let raw = raw(&args, FormatFlag::Wav).unwrap_or_else(|e| panic!("{e}"));
            assert_eq!(raw.get_lrc(), on);
        }
    }

    #[test]
    fn the_wavelet_correction_can_be_left_out() {
        use clap::Parser;
        for (flags, on) in [(&[][..], true), (&["--no-dcw"][..], false)] {
            let command = ["acestep", "generate", "--prompt", "x"];
            let cli = crate::cli::Cli::try_parse_from(command.iter().chain(flags))
                .unwrap_or_else(|e| panic!("{e}"));
            let crate::cli::Command::Generate(args) = cli.command else {
                panic!("another command");
            };
            let raw = raw(&args, FormatFlag::Wav).unwrap_or_else(|e| panic!("{e}"));
            assert_eq!(raw.dcw_enabled(), on);
        }
    }

    #[test]
    fn a_bit_rate_is_that_of_the_format() {
        let set = |format| {
            let mut raw = RawRequest::default();
            set_bitrate(&mut raw, Some("96"), format).map(|()| raw)
        };
        let said = Some("96".to_owned());
        assert!(set(FormatFlag::Mp3).is_ok_and(|r| r.mp3_bitrate == said));
        assert!(set(FormatFlag::Opus).is_ok_and(|r| r.opus_bitrate == said));
        assert!(set(FormatFlag::Aac).is_ok_and(|r| r.aac_bitrate == said));
        assert!(set(FormatFlag::Flac).is_err_and(|e| e.to_string().contains("flac has none")));
    }

    #[test]
    fn seeds_and_numbers() {
        assert!(seed("1, 2").is_ok() && seed("-1").is_err() && seed("").is_err());
        assert!(number("1e2").is_ok() && number("nan").is_err() && number("inf").is_err());
    }
}
