//! A track that goes with a recording, over all of it or a part.

use super::{Row, SourceUse, Task, Tracks};
use crate::text::prompt;

pub(super) const ROW: Row = Row {
    task: Task::Lego,
    name: "lego",
    source: SourceUse::Latents,
    needs_source: true,
    has_region: true,
    is_planned: true,
    suits_turbo: false,
    instruction,
};

fn instruction(tracks: &Tracks) -> String {
    prompt::lego(tracks.name.as_deref())
}
