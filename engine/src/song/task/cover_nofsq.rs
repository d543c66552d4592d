//! A cover that follows the recording's latents themselves, closer to its sound.

use super::{Row, SourceUse, Task, Tracks};
use crate::text::prompt;

pub(super) const ROW: Row = Row {
    task: Task::CoverNoFsq,
    name: "cover-nofsq",
    source: SourceUse::Latents,
    needs_source: true,
    has_region: false,
    is_planned: false,
    suits_turbo: true,
    instruction,
};

fn instruction(_: &Tracks) -> String {
    prompt::COVER.into()
}
