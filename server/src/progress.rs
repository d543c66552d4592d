//! From the engine's stages to the progress that clients see.

use crate::app::App;
use engine::song::{Stage, Watch};
use std::sync::Mutex;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// Where the stages begin and how much of the whole they are; the values are upstream's.
fn span(stage: Stage) -> (f64, f64) {
    match stage {
        Stage::Load => (0.01, 0.0),
        Stage::Encode => (0.02, 0.08),
        Stage::Reason => (0.1, 0.4),
        Stage::Codes => (0.5, 0.01),
        Stage::Text => (0.51, 0.0),
        Stage::Condition => (0.51, 0.01),
        Stage::Diffuse => (0.52, 0.28),
        Stage::Decode => (0.8, 0.18),
        Stage::Align => (0.98, 0.01),
    }
}

/// Progress of a job as one number.
pub fn overall(stage: Stage, done: usize, total: usize) -> f64 {
    let (start, width) = span(stage);
    start + width * (done as f64 / total.max(1) as f64).min(1.0)
}

/// What a job of `items` songs does, for people. Planning has a small part of the whole and may
/// take most of the time, so its texts count.
fn text(stage: Stage, done: usize, total: usize, items: usize) -> String {
    match stage {
        Stage::Reason => format!("Planning the song (token {done} of at most {total})..."),
        Stage::Codes => format!("Generating audio codes ({done} of {total})..."),
        Stage::Diffuse => format!("Generating music (batch size: {items})..."),
        other => other.text().to_owned(),
    }
}

/// Writes the progress of one job into the store, not more often than a client can see.
pub struct JobWatch<'a> {
    app: &'a App,
    id: Uuid,
    items: usize,
    last: Mutex<Option<(Stage, f64, Instant)>>,
}

impl<'a> JobWatch<'a> {
    /// Watches job `id` of `items` songs.
    pub fn new(app: &'a App, id: Uuid, items: usize) -> Self {
        JobWatch {
            app,
            id,
            items,
            last: Mutex::new(None),
        }
    }

    /// Whether this is a new stage, 0.01 further, or half a second later.
    fn is_news(&self, stage: Stage, progress: f64) -> bool {
        let mut last = self
            .last
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let news = match *last {
            Some((s, p, at)) => {
                s != stage || progress - p >= 0.01 || at.elapsed() >= Duration::from_millis(500)
            }
            None => true,
        };
        if news {
            *last = Some((stage, progress, Instant::now()));
        }
        news
    }
}

impl Watch for JobWatch<'_> {
    fn progress(&self, stage: Stage, done: usize, total: usize) {
        let progress = overall(stage, done, total);
        if !self.is_news(stage, progress) {
            return;
        }
        let text = text(stage, done, total, self.items);
        self.app.jobs.update(self.id, &mut |job| {
            job.progress = job.progress.max(progress);
            job.stage = text.as_str().into();
        });
    }

    fn cancelled(&self) -> bool {
        self.app.is_stopping() || self.app.has_ended(self.id)
    }
}

/// Watches the loading of a model on behalf of the job that waits for it, which stays queued.
pub struct LoadWatch<'a> {
    app: &'a App,
    id: Option<Uuid>,
}

impl<'a> LoadWatch<'a> {
    /// `id` is the job that waits, if one does.
    pub fn new(app: &'a App, id: Option<Uuid>) -> Self {
        if let Some(id) = id {
            app.jobs
                .update(id, &mut |job| job.stage = "loading model".into());
        }
        LoadWatch { app, id }
    }
}

impl Watch for LoadWatch<'_> {
    fn progress(&self, _: Stage, done: usize, total: usize) {
        if let Some(id) = self.id {
            tracing::debug!("job {id} waits for a model: {done} of {total}");
        }
    }

    fn cancelled(&self) -> bool {
        self.app.is_stopping()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_count_what_takes_long() {
        assert_eq!(
            text(Stage::Codes, 412, 3000, 2),
            "Generating audio codes (412 of 3000)..."
        );
        assert_eq!(
            text(Stage::Reason, 12, 768, 2),
            "Planning the song (token 12 of at most 768)..."
        );
        assert!(text(Stage::Diffuse, 1, 8, 2).contains("batch size: 2"));
    }

    #[test]
    fn progress_never_falls_and_ends_below_one() {
        let stages = [
            Stage::Load,
            Stage::Encode,
            Stage::Reason,
            Stage::Codes,
            Stage::Text,
            Stage::Condition,
            Stage::Diffuse,
            Stage::Decode,
        ];
        let mut last = 0.0;
        for stage in stages {
            for done in 0..=4 {
                let progress = overall(stage, done, 4);
                assert!(progress >= last && progress < 1.0, "{stage:?} {done}");
                last = progress;
            }
        }
        assert!(overall(Stage::Diffuse, 0, 0).is_finite());
    }
}
