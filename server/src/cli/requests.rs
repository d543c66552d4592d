//! `acestep generate --requests`: several different songs in one call. A request is a line, what is
//! wrong with it is told with the line's number, and the other songs are made all the same.

use super::bar::Bar;
use super::generate::{Args, facts, open, random};
use super::made::Made;
use super::model::{noise, print_line};
use super::outputs::{check_writable, write_songs};
use super::{Outcome, exit_status};
use crate::env::Env;
use crate::fields::RawRequest;
use crate::raw::Sources;
use crate::resolve::{Caller, LmNeed, Resolved, Work, resolve};
use engine::song::{Engine, Song, Watch};
use engine::weights::Checkpoints;
use engine::{Error, Result};
use serde_json::{Value, json};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// The flags that describe one song; a request says all of it.
pub const OF_ONE_SONG: [&str; 50] = [
    "prompt",
    "lyrics",
    "lyrics_file",
    "bpm",
    "key",
    "time_signature",
    "duration",
    "language",
    "steps",
    "seed",
    "shift",
    "infer_method",
    "guidance_scale",
    "timesteps",
    "no_dcw",
    "batch_size",
    "format",
    "lrc",
    "bitrate",
    "task",
    "src",
    "reference",
    "repaint",
    "repaint_mode",
    "repaint_strength",
    "chunk_mask_mode",
    "cover_strength",
    "cover_noise_strength",
    "track",
    "instruction",
    "global_caption",
    "retake_seed",
    "retake_variance",
    "thinking",
    "sample_query",
    "use_format",
    "no_cot_caption",
    "no_cot_language",
    "no_cot_metas",
    "no_lm_batch",
    "lm_cfg_scale",
    "lm_negative_prompt",
    "codes",
    "codes_out",
    "lm_temperature",
    "lm_top_k",
    "lm_top_p",
    "lm_repetition_penalty",
    "no_constrained",
    "constrained_debug",
];

/// Largest file of requests in bytes.
const LIMIT: u64 = 64 << 20;

/// A line that is not blank, from 1, and the request in it.
struct Line {
    number: usize,
    asked: Result<Resolved>,
}

/// Makes the songs of all lines that can be read.
pub fn run(args: &Args, file: &Path) -> Result<Outcome> {
    let env = Env::of_process();
    args.place.device.check(&env)?;
    let noise = noise(&env)?;
    let out = args.out.clone().unwrap_or_else(|| "song".into());
    check_writable("--out", &out)?;
    let text = read(file)?;
    let checkpoints = args.place.dir(&env)?;
    let tree = Checkpoints::open(&checkpoints)?;
    let lines = lines(&text, |request| asked(&tree, args, request));
    if lines.is_empty() {
        return Err(Error::Request(format!(
            "--requests {}: there is no line in it; write one JSON object a line",
            file.display()
        )));
    }
    let good = || lines.iter().filter_map(|line| line.asked.as_ref().ok());
    let needs_lm =
        args.planning.lm.lm.is_some() || good().any(|asked| asked.lm != LmNeed::IfLoaded);
    let mut engine = match good().next() {
        Some(_) => Some(open(args, &env, checkpoints, noise, needs_lm)?),
        None => None,
    };
    if let (Some(engine), true) = (&mut engine, needs_lm) {
        let named = args.planning.lm.lm.clone();
        let named = named.or(good().find_map(|asked| asked.lm_model.clone()));
        let bar = Bar::new();
        let loaded = engine.load_lm(named.as_deref(), &bar);
        bar.clear();
        loaded?;
    }
    let mut failed = Vec::new();
    for line in &lines {
        let made = match (&line.asked, &mut engine) {
            (Ok(asked), Some(engine)) => make(args, engine, asked, line.number, &out),
            (Err(error), _) => Err(error.clone()),
            (Ok(_), None) => Err(Error::Bug("no engine for a request".into())),
        };
        if let Err(error) = made {
            tell(args, line.number, &error)?;
            failed.push((line.number, error));
        }
    }
    outcome(&failed, lines.len())
}

/// The text of a file, or of stdin.
fn read(file: &Path) -> Result<String> {
    let failed = |e: std::io::Error| {
        Error::Missing(format!(
            "--requests {} cannot be read ({e})",
            file.display()
        ))
    };
    let source: Box<dyn Read> = match file == Path::new("-") {
        true => Box::new(std::io::stdin()),
        false => Box::new(std::fs::File::open(file).map_err(failed)?),
    };
    let mut text = String::new();
    let read = source.take(LIMIT + 1).read_to_string(&mut text);
    if read.map_err(failed)? as u64 > LIMIT {
        return Err(Error::Request(format!(
            "--requests {} is longer than {LIMIT} bytes; split it",
            file.display()
        )));
    }
    Ok(text)
}

fn lines(text: &str, mut asked: impl FnMut(&str) -> Result<Resolved>) -> Vec<Line> {
    let numbered = text.lines().enumerate();
    numbered
        .filter(|(_, line)| !line.trim().is_empty())
        .map(|(index, line)| Line {
            number: index + 1,
            asked: asked(line),
        })
        .collect()
}

/// A request as the server would resolve it.
fn asked(tree: &Checkpoints, args: &Args, line: &str) -> Result<Resolved> {
    let refused = |why: String| Error::Request(why);
    let object = match serde_json::from_str(line) {
        Ok(Value::Object(object)) => object,
        Ok(_) => return Err(refused("a JSON object is needed".into())),
        Err(e) => return Err(refused(format!("this is no JSON object ({e})"))),
    };
    let sources = Sources::new(object);
    let mut raw = RawRequest::read(&sources).map_err(|refusal| refused(refusal.0))?;
    for path in [&mut raw.src_audio_path, &mut raw.reference_audio_path] {
        // An empty one is none.
        *path = path.take().filter(|p| !p.trim().is_empty());
    }
    let name = raw.model.as_deref().map(str::trim);
    let name = name.map(|n| n.strip_prefix("acestep/").unwrap_or(n));
    let name = name.filter(|n| !n.is_empty()).or(args.model.as_deref());
    let facts = facts(tree, name)?;
    let mut resolved =
        resolve(&raw, &facts, Caller::Http, &mut random).map_err(|refusal| refused(refusal.0))?;
    if resolved.work != Work::Song {
        let why = "an analysis makes no song; use acestep understand";
        return Err(refused(why.into()));
    }
    let unknown = sources.unknown();
    if !unknown.is_empty() {
        let note = format!("fields without a meaning: {}", unknown.join(", "));
        resolved.notes.push(note);
    }
    Ok(resolved)
}

/// `dir/song.wav` as `dir/song-3.mp3` for line 3.
fn file_of_line(out: &Path, number: usize, extension: &str) -> PathBuf {
    let mut name = out.file_stem().unwrap_or_default().to_os_string();
    name.push(format!("-{number}.{extension}"));
    out.with_file_name(name)
}

fn make(
    args: &Args,
    engine: &mut Engine,
    asked: &Resolved,
    number: usize,
    out: &Path,
) -> Result<()> {
    let started = Instant::now();
    let song = with_bar(|bar| engine.make(&asked.song, bar))?;
    for event in &song.composed.events {
        eprintln!("{event}");
    }
    let out = file_of_line(out, number, asked.format.extension());
    let files = write_songs(&song, asked, &out)?;
    let device = engine.backend().caps().name.clone();
    let made = Made {
        song: &song,
        files: &files,
        codes_files: &[],
        lm: engine.lm(),
        device: &device,
        seconds: started.elapsed().as_secs_f64(),
    };
    if args.json {
        let mut report = made.report();
        report["line"] = number.into();
        report["notes"] = asked.notes.clone().into();
        return print_line(&report.to_string());
    }
    for note in &asked.notes {
        print_line(&format!("line {number}: {note}"))?;
    }
    made.print_summary()
}

/// Work under a bar of its own.
fn with_bar(work: impl FnOnce(&dyn Watch) -> Result<Song>) -> Result<Song> {
    let bar = Bar::new();
    let song = work(&bar);
    bar.clear();
    song
}

fn tell(args: &Args, number: usize, error: &Error) -> Result<()> {
    if args.json {
        let report = json!({"line": number, "error": error.to_string()});
        print_line(&report.to_string())?;
    }
    eprintln!("acestep: line {number}: {error}");
    Ok(())
}

/// Done when every song is; else the status of the worst that happened.
fn outcome(failed: &[(usize, Error)], of: usize) -> Result<Outcome> {
    if failed.is_empty() {
        return Ok(Outcome::Done);
    }
    let numbers: Vec<String> = failed.iter().map(|(n, _)| n.to_string()).collect();
    let numbers = numbers.join(", ");
    let count = failed.len();
    let why = format!("--requests: {count} of {of} songs were not made, those of line {numbers}");
    match failed.iter().all(|(_, error)| exit_status(error) == 2) {
        true => Err(Error::Request(why)),
        false => {
            eprintln!("acestep: {why}");
            Ok(Outcome::Failed)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::outputs::numbered;
    use clap::CommandFactory;

    #[test]
    fn every_flag_of_one_song_is_refused_beside_requests() {
        let others = [
            "requests",
            "out",
            "model",
            "json",
            "checkpoints",
            "demo",
            "lm",
            "lm_device",
            "backend",
            "dtype",
            "threads",
            "cpu_level",
            "help",
            "version",
        ];
        let cli = crate::cli::Cli::command();
        let generate = cli.find_subcommand("generate");
        let generate = generate.unwrap_or_else(|| panic!("there is one"));
        for arg in generate.get_arguments() {
            let id = arg.get_id().as_str();
            assert_ne!(others.contains(&id), OF_ONE_SONG.contains(&id), "{id}");
        }
    }

    #[test]
    fn blank_lines_count_and_make_nothing() {
        let seen = lines("\n{}\n  \n[]\r\n", |text| {
            Err(Error::Request(text.to_owned()))
        });
        let seen: Vec<_> = seen.iter().map(|line| (line.number, &line.asked)).collect();
        let said = |text: &str| Err(Error::Request(text.to_owned()));
        assert_eq!(seen, [(2, &said("{}")), (4, &said("[]"))]);
    }

    #[test]
    fn files_are_named_by_their_lines() {
        let file = |out| file_of_line(Path::new(out), 3, "mp3");
        assert_eq!(file("a/song.wav"), Path::new("a/song-3.mp3"));
        assert_eq!(file("take"), Path::new("take-3.mp3"));
        assert_eq!(numbered(&file("a.b.wav"), 2, 2), Path::new("a.b-3-2.mp3"));
    }

    #[test]
    fn the_worst_failure_makes_the_status() {
        let wrong = || Error::Request("wrong".into());
        assert_eq!(outcome(&[], 2), Ok(Outcome::Done));
        assert!(outcome(&[(2, wrong())], 3).is_err_and(|e| exit_status(&e) == 2));
        let lost = Error::Device("lost".into());
        assert_eq!(outcome(&[(1, wrong()), (2, lost)], 3), Ok(Outcome::Failed));
    }
}
