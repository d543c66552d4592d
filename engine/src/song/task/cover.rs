//! A cover: the recording as its audio codes have it, which keep melody and rhythm but not the sound.

use super::{Row, SourceUse, Task, Tracks};
use crate::text::prompt;

pub(super) const ROW: Row = Row {
    task: Task::Cover,
    name: "cover",
    source: SourceUse::Codes,
    needs_source: true,
    has_region: false,
    is_planned: false,
    suits_turbo: true,
    instruction,
};

fn instruction(_: &Tracks) -> String {
    prompt::COVER.into()
}
