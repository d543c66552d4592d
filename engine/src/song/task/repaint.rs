//! A part of a recording made anew, before its beginning and behind its end too; the rest stays.

use super::{Row, SourceUse, Task, Tracks};
use crate::text::prompt;

pub(super) const ROW: Row = Row {
    task: Task::Repaint,
    name: "repaint",
    source: SourceUse::Hole,
    needs_source: true,
    has_region: true,
    is_planned: false,
    suits_turbo: true,
    instruction,
};

fn instruction(_: &Tracks) -> String {
    prompt::REPAINT.into()
}
