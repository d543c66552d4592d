//! What can be made: one row per task. A row says what the task takes from a recording and which
//! instruction the models were trained on; nothing else in the engine asks which task it is.

mod complete;
mod cover;
mod cover_nofsq;
mod extract;
mod lego;
mod repaint;
mod text2music;

use std::fmt;
use std::str::FromStr;

/// A kind of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Task {
    /// Music from texts.
    #[default]
    Text2Music,
    /// A recording anew, from its audio codes.
    Cover,
    /// A recording anew, from its latents.
    CoverNoFsq,
    /// A part of a recording anew.
    Repaint,
    /// A track to go with a recording.
    Lego,
    /// A track of a recording alone.
    Extract,
    /// Tracks that a recording lacks.
    Complete,
}

/// What the network sees in the place of the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceUse {
    /// Silence, whatever recording there is.
    Nothing,
    /// What the recording's audio codes stand for.
    Codes,
    /// The recording's latents.
    Latents,
    /// The recording's latents, with silence where the music is to be new.
    Hole,
}

/// Names of the tracks that models were trained on (upstream: `TRACK_NAMES` of
/// `acestep/constants.py`).
pub const TRACK_NAMES: [&str; 12] = [
    "woodwinds",
    "brass",
    "fx",
    "synth",
    "strings",
    "percussion",
    "keyboard",
    "guitar",
    "bass",
    "drums",
    "backing_vocals",
    "vocals",
];

/// Tracks that an instruction names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tracks {
    /// The track to make or to take out.
    pub name: Option<String>,
    /// The tracks to add.
    pub classes: Vec<String>,
}

/// A row of the table.
#[derive(Debug)]
pub struct Row {
    /// The task.
    pub task: Task,
    /// Its name in requests.
    pub name: &'static str,
    /// What it takes from a recording.
    pub source: SourceUse,
    /// Whether it cannot do without a recording (or audio codes in its place).
    pub needs_source: bool,
    /// Whether it works on a part of the recording.
    pub has_region: bool,
    /// Whether the language model plans metadata and codes for it.
    pub is_planned: bool,
    /// Whether distilled models were trained on it.
    pub suits_turbo: bool,
    /// The instruction line of the prompt.
    pub instruction: fn(&Tracks) -> String,
}

/// Every task.
pub static TASKS: [Row; 7] = [
    text2music::ROW,
    cover::ROW,
    cover_nofsq::ROW,
    repaint::ROW,
    lego::ROW,
    extract::ROW,
    complete::ROW,
];

impl Task {
    /// Its row of the table.
    pub fn row(self) -> &'static Row {
        // The rows stand in the order of the variants; a test holds them to it.
        &TASKS[self as usize]
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.row().name)
    }
}

impl FromStr for Task {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let row = TASKS.iter().find(|row| row.name == text);
        row.map(|row| row.task).ok_or_else(|| {
            let names: Vec<&str> = TASKS.iter().map(|row| row.name).collect();
            format!("{text:?} is no task; one of {}", names.join(", "))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_stand_in_order_and_names_lead_back() {
        for (index, row) in TASKS.iter().enumerate() {
            assert_eq!(row.task as usize, index);
            assert_eq!(row.task.row().name, row.name);
            assert_eq!(row.name.parse(), Ok(row.task));
            assert_eq!(
                row.has_region,
                row.source == SourceUse::Hole || row.task == Task::Lego
            );
        }
        assert!(
            "remix"
                .parse::<Task>()
                .is_err_and(|e| e.contains("repaint"))
        );
    }

    #[test]
    fn instructions_are_those_of_training() {
        let drums = Tracks {
            name: Some("drums".into()),
            classes: vec!["bass".into(), "Vocals".into()],
        };
        let none = Tracks::default();
        for (task, tracks, text) in [
            (
                Task::Text2Music,
                &none,
                "Fill the audio semantic mask based on the given conditions:",
            ),
            (
                Task::Cover,
                &none,
                "Generate audio semantic tokens based on the given conditions:",
            ),
            (
                Task::CoverNoFsq,
                &none,
                "Generate audio semantic tokens based on the given conditions:",
            ),
            (
                Task::Repaint,
                &none,
                "Repaint the mask area based on the given conditions:",
            ),
            (
                Task::Lego,
                &drums,
                "Generate the DRUMS track based on the audio context:",
            ),
            (
                Task::Lego,
                &none,
                "Generate the track based on the audio context:",
            ),
            (
                Task::Extract,
                &drums,
                "Extract the DRUMS track from the audio:",
            ),
            (Task::Extract, &none, "Extract the track from the audio:"),
            (
                Task::Complete,
                &drums,
                "Complete the input track with BASS | VOCALS:",
            ),
            (Task::Complete, &none, "Complete the input track:"),
        ] {
            assert_eq!((task.row().instruction)(tracks), text);
        }
    }
}
