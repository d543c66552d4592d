//! `acestep generate`: one request on the command line to files.

use super::bar::Bar;
use super::lm::PlanningArgs;
use super::model::{ModelArgs, noise, print_line};
use super::task::TaskArgs;
use super::{Outcome, codes};
use crate::coerce::Seed;
use crate::env::Env;
use crate::fields::RawRequest;
use crate::resolve::{Caller, LmNeed, ModelFacts, Resolved, resolve};
use engine::audio::{self, Pcm, Tags};
use engine::models::config::DitConfig;
use engine::song::{Composed, Engine, EngineOptions, Song};
use engine::weights::Checkpoints;
use engine::{Error, Result};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Instant;
use uuid::Uuid;

/// Flags of `generate`.
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
    /// Length in seconds, 10 to 600 [default: 120]
    #[arg(long, value_name = "SECONDS", value_parser = number)]
    pub duration: Option<f64>,
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
    /// File to write; several songs get -1, -2, ... before the ending [default: song.wav]
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Beats per minute, 30 to 300
    #[arg(long, value_name = "N")]
    pub bpm: Option<i64>,
    /// Key, for example "C Major"
    #[arg(long, value_name = "TEXT")]
    pub key: Option<String>,
    /// 2, 3, 4 or 6
    #[arg(long, value_name = "N")]
    pub time_signature: Option<String>,
    /// Language code of the lyrics [default: en]
    #[arg(long, value_name = "CODE")]
    pub language: Option<String>,
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

/// Formats that `--format` knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum FormatFlag {
    /// 16-bit PCM
    Wav,
    /// 32-bit float PCM
    Wav32,
    /// FLAC of 16 bits
    Flac,
    /// Opus in Ogg at 128 kbit/s
    Opus,
    /// AAC at 192 kbit/s
    Aac,
    /// MP3 at 128 kbit/s
    Mp3,
}

impl FormatFlag {
    fn name(self) -> &'static str {
        match self {
            FormatFlag::Wav => "wav",
            FormatFlag::Wav32 => "wav32",
            FormatFlag::Flac => "flac",
            FormatFlag::Opus => "opus",
            FormatFlag::Aac => "aac",
            FormatFlag::Mp3 => "mp3",
        }
    }

    /// Where a song goes that was given no name.
    fn default_file(self) -> PathBuf {
        let ending = match self {
            FormatFlag::Wav32 => "wav",
            other => other.name(),
        };
        PathBuf::from(format!("song.{ending}"))
    }
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
    let started = Instant::now();
    let env = Env::of_process();
    args.place.device.check(&env)?;
    args.planning.check()?;
    let noise = noise(&env)?;
    let format = format(&args)?;
    let out = args.out.clone().unwrap_or_else(|| format.default_file());
    let raw = raw(&args, format)?;
    check_writable("--out", &out)?;
    if let Some(file) = &args.planning.codes_out {
        check_writable("--codes-out", file)?;
    }
    let checkpoints = args.place.dir(&env)?;
    let tree = Checkpoints::open(&checkpoints)?;
    let model = tree.dit(args.model.as_deref())?;
    let is_turbo = DitConfig::load(&model.path)?.is_turbo;
    let facts = ModelFacts {
        name: model.name.clone(),
        is_turbo,
    };
    let mut random = || Uuid::new_v4().as_fields().0;
    let resolved = resolve(&raw, &facts, Caller::CommandLine, &mut random)
        .map_err(|refusal| Error::Request(refusal.0))?;

    let device = args.place.device.open_with(&env)?;
    let device_name = device.backend.caps().name.clone();
    let needs_lm = args.planning.is_asked_for() || resolved.lm != LmNeed::IfLoaded;
    let lm_device = match needs_lm {
        true => args.planning.lm.open_device(&args.place.device, &env)?,
        false => None,
    };
    let mut engine = Engine::open(EngineOptions {
        checkpoints,
        device,
        lm_device,
        noise,
    })?;
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
    let files = write(&song, &resolved, &out)?;
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

/// The lyrics that a flag gives, or a file.
pub fn read_lyrics(lyrics: Option<&String>, file: Option<&Path>) -> Result<Option<String>> {
    let Some(file) = file else {
        return Ok(lyrics.cloned());
    };
    let text = std::fs::read_to_string(file);
    text.map(Some).map_err(|e| {
        let name = file.display();
        Error::Missing(format!("--lyrics-file {name} cannot be read ({e})"))
    })
}

/// The flags as a request. `--format` and numbers are checked by clap, the rest by the resolver.
fn raw(args: &Args, format: FormatFlag) -> Result<RawRequest> {
    let lyrics = read_lyrics(args.lyrics.as_ref(), args.lyrics_file.as_deref())?;
    let planning = &args.planning;
    let has_codes = !planning.codes.is_empty();
    let has_other = planning.sample_query.is_some() || has_codes || args.task.has_source();
    if args.prompt.is_none() && lyrics.is_none() && !has_other {
        return Err(Error::Request(
            "nothing to make a song from: give --prompt, --lyrics or both, or --sample-query"
                .into(),
        ));
    }
    let mut raw = RawRequest {
        prompt: args.prompt.clone(),
        lyrics,
        audio_duration: args.duration,
        inference_steps: args.steps,
        use_random_seed: Some(args.seed.is_none()),
        seed: args.seed.clone().map(Seed::List),
        shift: args.shift,
        infer_method: args.infer_method.clone(),
        guidance_scale: args.guidance_scale,
        timesteps: args.timesteps.clone(),
        batch_size: Some(args.batch_size),
        audio_format: Some(format.name().into()),
        bpm: args.bpm,
        key_scale: args.key.clone(),
        time_signature: args.time_signature.clone(),
        vocal_language: args.language.clone(),
        dcw_enabled: args.no_dcw.then_some(false),
        ..RawRequest::default()
    };
    planning.fill(&mut raw)?;
    args.task.apply(&mut raw, has_codes)?;
    Ok(raw)
}

/// What was asked for, or what the file's ending says.
fn format(args: &Args) -> Result<FormatFlag> {
    if let Some(format) = args.format {
        return Ok(format);
    }
    let Some(out) = &args.out else {
        return Ok(FormatFlag::Wav);
    };
    let ending = out.extension().map(|e| e.to_string_lossy().to_lowercase());
    match ending.as_deref() {
        None | Some("wav") => Ok(FormatFlag::Wav),
        Some("flac") => Ok(FormatFlag::Flac),
        Some("opus" | "ogg") => Ok(FormatFlag::Opus),
        Some("aac") => Ok(FormatFlag::Aac),
        Some("mp3") => Ok(FormatFlag::Mp3),
        Some(other) => Err(Error::Request(format!(
            "--out {}: the ending .{other} is not that of a format; use .wav, .flac, \
             .mp3, .opus, .ogg or .aac, or give --format",
            out.display()
        ))),
    }
}

/// Refuses an output that could not be written after all the work.
pub fn check_writable(flag: &str, out: &Path) -> Result<()> {
    let refuse = |why: String| Err(Error::Output(format!("{flag} {}: {why}", out.display())));
    if out.is_dir() {
        return refuse("this is a directory; name a file".into());
    }
    if out.file_name().is_none() {
        return refuse("this names no file".into());
    }
    let dir = match out.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    match tempfile::Builder::new()
        .prefix(".acestep-")
        .tempfile_in(dir)
    {
        Ok(_) => Ok(()),
        Err(e) => refuse(format!(
            "its directory cannot be written to ({e}); choose another"
        )),
    }
}

/// `song.wav` as `song-2.wav`; a single song keeps its name.
fn numbered(out: &Path, number: usize, of: usize) -> PathBuf {
    if of == 1 {
        return out.to_path_buf();
    }
    let mut name = out.file_stem().unwrap_or_default().to_os_string();
    name.push(format!("-{number}"));
    if let Some(ending) = out.extension() {
        name.push(".");
        name.push(ending);
    }
    out.with_file_name(name)
}

fn write(song: &Song, resolved: &Resolved, out: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for (index, item) in song.items.iter().enumerate() {
        let path = numbered(out, index + 1, song.items.len());
        let pcm = Pcm {
            samples: &item.pcm,
            rate: song.sample_rate,
        };
        let request = &song.composed.request;
        let tags = Tags::new(&request.caption, &request.lyrics, item.seed, &request.model);
        audio::write(&path, pcm, resolved.format, Some(&tags))?;
        files.push(path);
    }
    Ok(files)
}

/// Writes the codes of every song, where they are wanted.
fn write_codes(song: &Song, out: Option<&Path>) -> Result<Vec<PathBuf>> {
    let Some(out) = out else {
        return Ok(Vec::new());
    };
    let lists = &song.composed.request.codes;
    let mut files = Vec::new();
    for (index, list) in lists.iter().enumerate() {
        let path = numbered(out, index + 1, lists.len());
        codes::write(&path, list)?;
        files.push(path);
    }
    Ok(files)
}

/// Everything that is told of a song.
struct Made<'a> {
    song: &'a Song,
    files: &'a [PathBuf],
    codes_files: &'a [PathBuf],
    lm: Option<&'a str>,
    device: &'a str,
    seconds: f64,
}

impl Made<'_> {
    /// Seconds of one item.
    fn length(&self, samples: usize) -> f64 {
        (samples / audio::CHANNELS) as f64 / f64::from(self.song.sample_rate)
    }

    fn report(&self) -> Value {
        let song = self.song;
        let items = self.files.iter().zip(&song.items).map(|(file, item)| {
            json!({
                "file": file,
                "seed": item.seed,
                "seconds": self.length(item.pcm.len()),
            })
        });
        let mut report = json!({
            "items": items.collect::<Vec<_>>(),
            "model": song.composed.request.model,
            "device": self.device,
            "sample_rate": song.sample_rate,
            "steps": song.times.steps,
            "shift": song.composed.request.sampling.shift,
            "times": song.times,
            "total_s": self.seconds,
        });
        if song.composed.planned || !song.composed.request.codes.is_empty() {
            report["plan"] = self.plan();
        }
        report
    }

    /// What the song was made from, where it is not only what the user wrote.
    fn plan(&self) -> Value {
        let Composed { request, notes, .. } = &self.song.composed;
        let counts = request.codes.iter().map(Vec::len);
        json!({
            "lm": self.lm,
            "caption": request.caption,
            "lyrics": request.lyrics,
            "bpm": request.metas.bpm,
            "key_scale": request.metas.key_scale,
            "time_signature": request.metas.time_signature,
            "duration": request.duration_s,
            "vocal_language": request.language,
            "codes": counts.collect::<Vec<_>>(),
            "codes_files": self.codes_files,
            "reason_s": self.song.times.reason_s,
            "codes_s": self.song.times.codes_s,
            "notes": notes,
        })
    }

    fn print_summary(&self) -> Result<()> {
        for (file, item) in self.files.iter().zip(&self.song.items) {
            print_line(&format!(
                "{}  {:.1} s  seed {}",
                file.display(),
                self.length(item.pcm.len()),
                item.seed
            ))?;
        }
        let t = &self.song.times;
        if let (true, Some(lm)) = (self.song.composed.planned, self.lm) {
            let codes = self.song.composed.request.codes.iter().map(Vec::len).max();
            print_line(&format!(
                "planned by {lm}: texts and metadata {:.1} s, {} codes {:.1} s",
                t.reason_s,
                codes.unwrap_or(0),
                t.codes_s
            ))?;
        }
        for note in &self.song.composed.notes {
            print_line(&format!("note: {note}"))?;
        }
        print_line(&format!(
            "{:.1} s on {}: load {:.1}, encoding {:.1}, text {:.1}, condition {:.1}, diffusion \
             {:.1} ({} evaluations), decoding {:.1}",
            self.seconds,
            self.device,
            t.load_s,
            t.encode_s,
            t.text_s,
            t.condition_s,
            t.diffuse_s,
            t.evaluations,
            t.decode_s
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn endings_are_those_of_the_formats() {
        use clap::{Parser, ValueEnum};
        let chosen = |out: &str| {
            let command = ["acestep", "generate", "--prompt", "x", "--out", out];
            let cli = crate::cli::Cli::try_parse_from(command).unwrap_or_else(|e| panic!("{e}"));
            let crate::cli::Command::Generate(args) = cli.command else {
                panic!("another command");
            };
            format(&args)
        };
        for flag in FormatFlag::value_variants() {
            let known = audio::AudioFormat::parse(flag.name()).unwrap_or_else(|e| panic!("{e}"));
            let file = format!("song.{}", known.extension());
            assert_eq!(flag.default_file(), Path::new(&file));
            let named = chosen(&file).unwrap_or_else(|e| panic!("{e}"));
            assert_eq!(named.default_file(), flag.default_file());
        }
        assert!(matches!(chosen("A.OGG"), Ok(FormatFlag::Opus)));
        assert!(matches!(chosen("a.aiff"), Err(Error::Request(why)) if why.contains(".aiff")));
    }

    #[test]
    fn names_of_several_songs() {
        assert_eq!(
            numbered(Path::new("a/song.wav"), 1, 1),
            Path::new("a/song.wav")
        );
        assert_eq!(
            numbered(Path::new("a/song.wav"), 2, 3),
            Path::new("a/song-2.wav")
        );
        assert_eq!(numbered(Path::new("song"), 1, 2), Path::new("song-1"));
        assert_eq!(numbered(Path::new("a.b.mp3"), 1, 2), Path::new("a.b-1.mp3"));
    }

    #[test]
    fn outputs_that_cannot_be_written_are_refused_before_the_work() {
        for (out, why) in [
            ("/", "directory"),
            ("/nowhere/at/all/x.wav", "cannot be written"),
        ] {
            let refused = check_writable("--out", Path::new(out));
            assert!(refused.is_err_and(|e| e.to_string().contains(why)), "{out}");
        }
    }

    #[test]
    fn seeds_and_numbers() {
        assert!(seed("1, 2").is_ok() && seed("-1").is_err() && seed("").is_err());
        assert!(number("1e2").is_ok() && number("nan").is_err() && number("inf").is_err());
    }
}
