//! The flags of tasks on audio.

use crate::coerce::{Seed, Texts};
use crate::fields::RawRequest;
use engine::song::Task;
use engine::song::task::SourceUse;
use engine::{Error, Result};
use std::path::{Path, PathBuf};

/// What is made, and from which recordings.
#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Tasks on audio")]
pub struct TaskArgs {
    /// text2music, cover, cover-nofsq, repaint, lego, extract or complete [default: text2music]
    #[arg(long, value_name = "NAME")]
    pub task: Option<Task>,
    /// Recording to work on: wav, flac, mp3, ogg, opus, m4a, aac, aiff
    #[arg(long, value_name = "FILE")]
    pub src: Option<PathBuf>,
    /// Recording whose sound to take up
    #[arg(long = "ref", value_name = "FILE")]
    pub reference: Option<PathBuf>,
    /// Part in seconds that repaint and lego make anew: 10..25, 10.. or ..25; -5..0 adds five
    /// seconds in front, an end behind the recording adds behind
    #[arg(long, value_name = "FROM..TO", value_parser = part, allow_hyphen_values = true)]
    pub repaint: Option<Part>,
    /// How freely to repaint: conservative, balanced or aggressive [default: balanced]
    #[arg(long, value_name = "NAME")]
    pub repaint_mode: Option<String>,
    /// 0, as conservative, to 1, as aggressive, for the mode balanced [default: 0.5]
    #[arg(long, value_name = "X", value_parser = super::generate::number)]
    pub repaint_strength: Option<f64>,
    /// Mark only the part as new: explicit, or everything: auto [default: auto]
    #[arg(long, value_name = "NAME")]
    pub chunk_mask_mode: Option<String>,
    /// Share of the steps that follow the recording [default: 1]
    #[arg(long, value_name = "X", value_parser = super::generate::number)]
    pub cover_strength: Option<f64>,
    /// 0 starts from noise, 1 closest to the recording [default: 0]
    #[arg(long, value_name = "X", value_parser = super::generate::number)]
    pub cover_noise_strength: Option<f64>,
    /// Track for lego and extract, tracks separated by commas for complete: woodwinds, brass, fx,
    /// synth, strings, percussion, keyboard, guitar, bass, drums, backing_vocals, vocals
    #[arg(long, value_name = "NAMES")]
    pub track: Option<String>,
    /// Description of the whole song, for lego with models trained on stems
    #[arg(long, value_name = "TEXT")]
    pub global_caption: Option<String>,
    /// Instruction line of the prompt [default: the task's own]
    #[arg(long, value_name = "TEXT")]
    pub instruction: Option<String>,
    /// Seeds of a second noise to mix in
    #[arg(long, value_name = "N")]
    pub retake_seed: Option<String>,
    /// How much of the second noise is mixed in, 0 to 1 [default: 0]
    #[arg(long, value_name = "X", value_parser = super::generate::number)]
    pub retake_variance: Option<f64>,
}

/// Start and end in seconds, where they are given.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Part {
    start: Option<f64>,
    end: Option<f64>,
}

impl Part {
    /// Whether it is a part at all, of the recording or right before or behind it.
    fn check(&self) -> Result<()> {
        let (start, Some(end)) = (self.start.unwrap_or(0.0), self.end) else {
            return Ok(());
        };
        let why = match (end <= start, end < 0.0) {
            (true, _) => "the end must lie behind the start",
            (_, true) => "what is added in front ends where the recording begins, at 0, or later",
            _ => return Ok(()),
        };
        Err(Error::Request(format!("--repaint {start}..{end}: {why}")))
    }
}

fn part(text: &str) -> std::result::Result<Part, String> {
    const FORM: &str = "it must have the form 10..25, 10.., ..25 or -5..0";
    let (start, end) = text.split_once("..").ok_or(FORM)?;
    let number = |text: &str| match text.trim() {
        "" => Ok(None),
        text => super::generate::number(text).map(Some),
    };
    Ok(Part {
        start: number(start)?,
        end: number(end)?,
    })
}

impl TaskArgs {
    /// Whether there is something to work on without a prompt or lyrics.
    pub fn has_source(&self) -> bool {
        self.src.is_some()
    }

    /// Puts the flags into a request.
    ///
    /// # Errors
    /// [`Error::Missing`] for a file that is not there, [`Error::Request`] for a task that lacks
    /// its recording.
    pub fn apply(&self, raw: &mut RawRequest, has_codes: bool) -> Result<()> {
        let task = self.task.unwrap_or_default();
        if task.row().needs_source && self.src.is_none() && !has_codes {
            return Err(Error::Request(format!(
                "--task {task} needs a recording: name one with --src"
            )));
        }
        self.check_flags(task)?;
        let file = |flag: &str, path: &Option<PathBuf>| match path {
            None => Ok(None),
            Some(path) if Path::new(path).is_file() => Ok(Some(path.display().to_string())),
            Some(path) => Err(Error::Missing(format!(
                "{flag} {} is not a file",
                path.display()
            ))),
        };
        raw.task_type = Some(task.to_string());
        raw.src_audio_path = file("--src", &self.src)?;
        raw.reference_audio_path = file("--ref", &self.reference)?;
        if let Some(part) = self.repaint {
            part.check()?;
            raw.repainting_start = part.start;
            raw.repainting_end = part.end;
        }
        raw.repaint_mode = self.repaint_mode.clone();
        raw.repaint_strength = self.repaint_strength;
        raw.chunk_mask_mode = self.chunk_mask_mode.clone();
        raw.audio_cover_strength = self.cover_strength;
        raw.cover_noise_strength = self.cover_noise_strength;
        let tracks = self.tracks(task)?;
        raw.track_name = tracks.first().cloned();
        raw.track_classes = (!tracks.is_empty()).then_some(Texts(tracks));
        raw.instruction = self.instruction.clone();
        raw.global_caption = self.global_caption.clone();
        raw.retake_seed = self.retake_seed.clone().map(Seed::List);
        raw.retake_variance = self.retake_variance;
        Ok(())
    }
}

impl TaskArgs {
    /// Refuses flags that the task has no use for: most likely `--task` was forgotten.
    fn check_flags(&self, task: Task) -> Result<()> {
        let region = "repaint or lego";
        let tracks = "lego, extract or complete";
        let takes_source = task.row().source != SourceUse::Nothing;
        let takes_tracks = matches!(task, Task::Lego | Task::Extract | Task::Complete);
        let has_region = task.row().has_region;
        for (flag, is_given, has_use, tasks) in [
            (
                "--src",
                self.src.is_some(),
                takes_source,
                "cover or repaint",
            ),
            ("--repaint", self.repaint.is_some(), has_region, region),
            (
                "--repaint-mode",
                self.repaint_mode.is_some(),
                has_region,
                region,
            ),
            (
                "--repaint-strength",
                self.repaint_strength.is_some(),
                has_region,
                region,
            ),
            (
                "--chunk-mask-mode",
                self.chunk_mask_mode.is_some(),
                has_region,
                region,
            ),
            ("--track", self.track.is_some(), takes_tracks, tracks),
        ] {
            if is_given && !has_use {
                return Err(Error::Request(format!(
                    "{flag} has no effect on --task {task}; leave it out, or choose another task, \
                     such as {tasks}"
                )));
            }
        }
        Ok(())
    }

    /// The names of `--track`, one or several as the task has it.
    fn tracks(&self, task: Task) -> Result<Vec<String>> {
        let said = self.track.as_deref().unwrap_or_default();
        let names = said.split(',').map(|name| name.trim().to_lowercase());
        let names: Vec<String> = names.filter(|name| !name.is_empty()).collect();
        if names.len() > 1 && task != Task::Complete {
            return Err(Error::Request(format!(
                "--track {said}: only --task complete takes several tracks; name one"
            )));
        }
        Ok(names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_read() {
        let of = |start, end| Ok(Part { start, end });
        assert_eq!(part("10..25"), of(Some(10.0), Some(25.0)));
        assert_eq!(part("1.5.."), of(Some(1.5), None));
        assert_eq!(part("-2..3"), of(Some(-2.0), Some(3.0)));
        assert_eq!(part("..4"), of(None, Some(4.0)));
        assert!(part("10-25").is_err() && part("a..b").is_err());
        let good = |text: &str| part(text).is_ok_and(|part| part.check().is_ok());
        assert!(good("-5..0") && good("-5..") && good("..2"));
        assert!(!good("5..3") && !good("3..3") && !good("..-1") && !good("-5..-2"));
    }

    #[test]
    fn several_tracks_are_for_complete_alone() {
        let said = |task, track: &str| {
            let args = TaskArgs {
                track: Some(track.into()),
                ..TaskArgs::default()
            };
            args.tracks(task)
        };
        assert_eq!(said(Task::Lego, " Drums "), Ok(vec!["drums".into()]));
        let both = Ok(vec!["bass".into(), "backing_vocals".into()]);
        assert_eq!(said(Task::Complete, "bass, backing_vocals,"), both);
        assert!(said(Task::Lego, "bass,drums").is_err_and(|e| e.to_string().contains("name one")));
    }

    #[test]
    fn flags_of_other_tasks_are_refused() {
        let refused = |args: TaskArgs| {
            let mut raw = RawRequest::default();
            let why = args.apply(&mut raw, true).expect_err("refused").to_string();
            why.split(" has no effect").next().map(str::to_owned)
        };
        let flag = |name: &str| Some(name.to_owned());
        let src = Some("song.wav".into());
        let plain = TaskArgs {
            src,
            ..TaskArgs::default()
        };
        assert_eq!(refused(plain), flag("--src"));
        let cover = |args| TaskArgs {
            task: Some(Task::Cover),
            ..args
        };
        let part = cover(TaskArgs {
            repaint: part("1..2").ok(),
            ..TaskArgs::default()
        });
        assert_eq!(refused(part), flag("--repaint"));
        let track = cover(TaskArgs {
            track: Some("drums".into()),
            ..TaskArgs::default()
        });
        assert_eq!(refused(track), flag("--track"));
    }

    #[test]
    fn a_task_without_its_recording_is_refused() {
        let args = TaskArgs {
            task: Some(Task::Cover),
            ..TaskArgs::default()
        };
        let mut raw = RawRequest::default();
        assert!(
            args.apply(&mut raw, false)
                .is_err_and(|e| e.to_string().contains("--src"))
        );
        assert!(args.apply(&mut raw, true).is_ok());
        let missing = TaskArgs {
            task: Some(Task::Cover),
            src: Some("nowhere.wav".into()),
            ..TaskArgs::default()
        };
        assert!(matches!(
            missing.apply(&mut raw, false),
            Err(Error::Missing(_))
        ));
    }
}
