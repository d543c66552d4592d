//! A recording with tracks that it lacks.

use super::{Row, SourceUse, Task, Tracks};
use crate::text::prompt;

pub(super) const ROW: Row = Row {
    task: Task::Complete,
    name: "complete",
    source: SourceUse::Latents,
    needs_source: false,
    has_region: false,
    is_planned: true,
    suits_turbo: false,
    instruction,
};

fn instruction(tracks: &Tracks) -> String {
    let classes: Vec<&str> = tracks.classes.iter().map(String::as_str).collect();
    prompt::complete(&classes)
}
