//! Progress on the terminal; nothing where there is none.

use engine::song::{Stage, Watch};
use indicatif::{ProgressBar, ProgressStyle};
use std::cell::Cell;

/// A line with the stage and how far it is.
pub struct Bar {
    bar: ProgressBar,
    stage: Cell<Option<Stage>>,
}

impl Bar {
    /// An empty line.
    pub fn new() -> Self {
        let bar = ProgressBar::new(1);
        if let Ok(style) =
            ProgressStyle::with_template("{msg:26} {wide_bar} {pos}/{len} {elapsed_precise}")
        {
            bar.set_style(style);
        }
        Bar {
            bar,
            stage: Cell::new(None),
        }
    }

    /// Takes the line away.
    pub fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

impl Watch for Bar {
    fn progress(&self, stage: Stage, done: usize, total: usize) {
        if self.stage.replace(Some(stage)) != Some(stage) {
            self.bar.set_message(stage.text());
        }
        self.bar.set_length(total as u64);
        self.bar.set_position(done as u64);
    }

    fn cancelled(&self) -> bool {
        false
    }
}
