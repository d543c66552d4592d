//! The engine thread: owns the engine, loads models, runs jobs in order.

use crate::app::{App, Ticket};
use crate::finish::Finished;
use crate::maker::{OpenMaker, SongMaker};
use crate::progress::{JobWatch, LoadWatch};
use crate::resolve::LmNeed;
use engine::{Error, Result};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Instant;
use uuid::Uuid;

/// State of the engine thread.
pub struct Worker {
    app: Arc<App>,
    open: OpenMaker,
    maker: Option<Box<dyn SongMaker>>,
    /// Why the models could not be loaded; every later job fails with it.
    failure: Option<Error>,
    finish: SyncSender<Finished>,
}

impl Worker {
    /// A worker without an engine.
    pub fn new(app: Arc<App>, open: OpenMaker, finish: SyncSender<Finished>) -> Self {
        Worker {
            app,
            open,
            maker: None,
            failure: None,
            finish,
        }
    }

    /// Loads the models now.
    pub fn load_eagerly(&mut self) -> Result<()> {
        self.ready(None)
    }

    /// Runs jobs until the queue is closed.
    pub fn run(mut self) {
        while let Some(ticket) = self.app.queue.pop() {
            self.job(ticket);
        }
    }

    fn job(&mut self, ticket: Ticket) {
        let id = ticket.id;
        if let Err(error) = self.ready(Some(id)) {
            // Failed jobs count, loading does not.
            self.app.averages.add(0.0);
            return self.app.fail(id, &error.to_string());
        }
        if ticket.resolved.lm == LmNeed::Required
            && let Some(maker) = &mut self.maker
            && let Err(error) = maker.load_lm(
                ticket.resolved.lm_model.as_deref(),
                &LoadWatch::new(&self.app, Some(id)),
            )
        {
            self.app.averages.add(0.0);
            return self.app.fail(id, &format!("5Hz LM init failed: {error}"));
        }
        let started = Instant::now();
        self.app.jobs.update(id, &mut |job| {
            job.state = crate::jobs::State::Running;
            job.progress = 0.01;
            job.stage = "running".into();
        });
        match self.make(&ticket) {
            Ok(song) => {
                let finished = Finished {
                    ticket,
                    song,
                    started,
                };
                if let Err(lost) = self.finish.send(finished) {
                    self.app
                        .fail(lost.0.ticket.id, "the thread that writes files has ended");
                }
            }
            Err(error) => {
                self.app.averages.add(started.elapsed().as_secs_f64());
                self.app.fail(id, &reason(&error));
            }
        }
    }

    /// Makes the song. A panic costs the job and the engine, not the server.
    fn make(&mut self, ticket: &Ticket) -> Result<engine::song::Song> {
        let Some(maker) = &mut self.maker else {
            return Err(Error::Bug("no engine is open".into()));
        };
        let request = &ticket.resolved.song;
        let watch = JobWatch::new(&self.app, ticket.id, request.seeds.len());
        match catch_unwind(AssertUnwindSafe(|| maker.make(request, &watch))) {
            Ok(result) => result,
            Err(_) => {
                self.maker = None;
                self.app.set_loaded(Vec::new());
                Err(Error::Bug(
                    "the engine stopped unexpectedly; it starts anew for the next job".into(),
                ))
            }
        }
    }

    /// Sees to it that an engine with the primary model is there. Failures are remembered, so
    /// that jobs do not try again and again.
    fn ready(&mut self, id: Option<Uuid>) -> Result<()> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        if self.maker.is_some() {
            return Ok(());
        }
        let opened = catch_unwind(AssertUnwindSafe(|| open(&self.app, &mut self.open, id)))
            .unwrap_or_else(|_| Err(Error::Bug("the engine stopped while it loaded".into())));
        match opened {
            Ok((maker, loaded)) => {
                self.maker = Some(maker);
                self.app.set_loaded(loaded);
                Ok(())
            }
            Err(error) => {
                if error != Error::Cancelled {
                    tracing::error!("loading {} failed: {error}", self.app.config.primary());
                    self.failure = Some(error.clone());
                }
                Err(error)
            }
        }
    }
}

/// Opens an engine and loads the configured models; the names of those that are loaded. Only the
/// primary model must load.
fn open(
    app: &App,
    open: &mut OpenMaker,
    id: Option<Uuid>,
) -> Result<(Box<dyn SongMaker>, Vec<String>)> {
    let started = Instant::now();
    let watch = LoadWatch::new(app, id);
    let mut maker = open()?;
    let mut loaded = Vec::new();
    for (index, name) in app.config.models.iter().enumerate() {
        match maker.load(name, &watch) {
            Ok(()) => loaded.push(name.clone()),
            Err(error) if index == 0 => return Err(error),
            Err(error) => tracing::error!("loading {name} failed: {error}"),
        }
    }
    tracing::info!(
        "loaded {} in {:.2} s",
        loaded.join(", "),
        started.elapsed().as_secs_f64()
    );
    Ok((maker, loaded))
}

/// A job's reason for people; what they can do about a stop is nothing.
fn reason(error: &Error) -> String {
    match error {
        Error::Cancelled => "the server was stopped while the job ran".into(),
        other => other.to_string(),
    }
}
