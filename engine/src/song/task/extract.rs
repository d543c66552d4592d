//! One track of a recording.

use super::{Row, SourceUse, Task, Tracks};
use crate::text::prompt;

pub(super) const ROW: Row = Row {
    task: Task::Extract,
    name: "extract",
    source: SourceUse::Latents,
    needs_source: true,
    has_region: false,
    is_planned: false,
    suits_turbo: false,
    instruction,
};

fn instruction(tracks: &Tracks) -> String {
    prompt::extract(tracks.name.as_deref())
}
