//! Music from texts alone. A recording that comes with the request is not looked at; audio codes make
//! a cover of what they stand for.

use super::{Row, SourceUse, Task, Tracks};
use crate::text::prompt;

pub(super) const ROW: Row = Row {
    task: Task::Text2Music,
    name: "text2music",
    source: SourceUse::Nothing,
    needs_source: false,
    has_region: false,
    is_planned: true,
    suits_turbo: true,
    instruction,
};

fn instruction(_: &Tracks) -> String {
    prompt::TEXT2MUSIC.into()
}
