//! The engine thread: owns the engine, loads models, runs jobs in order and calls between them.

use crate::app::{App, Ticket};
use crate::calls::{Answer, Call, CallWatch, Init, Unable, Unload};
use crate::finish::{Finished, Made, Understood};
use crate::jobs::Job;
use crate::lm::{LmLoader, NoLm};
use crate::maker::{OpenMaker, SongMaker};
use crate::progress::{JobWatch, LoadWatch};
use crate::queue::Next;
use crate::resolve::{LmNeed, Work};
use engine::song::{DescribeRequest, Description, Facts, SongRequest, StageTimes, Subject, Watch};
use engine::{Error, Result};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// A device that is lost again within this time is not opened a third time by itself.
const SOON: Duration = Duration::from_secs(60);

/// State of the engine thread.
pub struct Worker {
    app: Arc<App>,
    open: OpenMaker,
    maker: Option<Box<dyn SongMaker>>,
    /// Whether the models were loaded into this engine.
    is_ready: bool,
    /// Why the models could not be loaded; every later job fails with it.
    failure: Option<Error>,
    /// When the device was lost last.
    lost: Option<Instant>,
    lm: LmLoader,
    finish: SyncSender<Finished>,
}

impl Worker {
    /// A worker without an engine.
    pub fn new(app: Arc<App>, open: OpenMaker, finish: SyncSender<Finished>) -> Self {
        Worker {
            app,
            open,
            maker: None,
            is_ready: false,
            failure: None,
            lost: None,
            lm: LmLoader::default(),
            finish,
        }
    }

    /// Loads the models now.
    pub fn load_eagerly(&mut self) -> Result<()> {
        self.ready(None)
    }

    /// Runs jobs and calls until the queue is closed.
    pub fn run(mut self) {
        while let Some(next) = self.app.queue.pop() {
            match next {
                Next::Job(ticket) => self.job(ticket),
                Next::Call(call) if call.is_abandoned() => {}
                Next::Call(Call::Describe(request, answer)) => {
                    let described = self.describe(&request, &answer);
                    // Whoever waited may have gone away.
                    let _ = answer.send(described);
                }
                Next::Call(Call::Init(init, answer)) => {
                    let done = self.init(&init, &answer);
                    let _ = answer.send(done);
                }
                Next::Call(Call::Reinitialize(answer)) => {
                    let done = self.reinitialize();
                    let _ = answer.send(done);
                }
                Next::Call(Call::Unload(what, answer)) => {
                    self.unload(what);
                    let _ = answer.send(Ok(()));
                }
            }
        }
    }

    fn job(&mut self, mut ticket: Ticket) {
        let id = ticket.id;
        let loaded = self.ready(Some(id)).map_err(|error| reason(&error));
        let loaded = loaded.and_then(|()| self.lm_for(&mut ticket));
        if self.app.is_stopping() {
            return ticket.leave();
        }
        if let Err(reason) = loaded {
            // Failed jobs count, loading does not.
            self.app.averages.add(0.0);
            return self.app.fail(id, &reason);
        }
        let started = Instant::now();
        if !self.app.jobs.update(id, &mut Job::start) {
            // It was cancelled meanwhile.
            return;
        }
        match self.make(&ticket) {
            Ok(made) => {
                let finished = Finished {
                    ticket,
                    made,
                    started,
                };
                if let Err(lost) = self.finish.send(finished) {
                    self.app
                        .fail(lost.0.ticket.id, "the thread that writes files has ended");
                }
            }
            // The next server makes it: nobody but this one's end is to blame.
            Err(Error::Cancelled) if self.app.jobs.update(id, &mut Job::put_back) => ticket.leave(),
            Err(error) => {
                self.app.averages.add(started.elapsed().as_secs_f64());
                self.app.fail(id, &reason(&error));
            }
        }
    }

    /// Makes the song, or only what the language model says of it.
    fn make(&mut self, ticket: &Ticket) -> Result<Made> {
        let (request, app) = (&ticket.resolved.song, self.app.clone());
        let watch = JobWatch::new(&app, ticket.id, request.seeds.len());
        match ticket.resolved.work {
            Work::Song => {
                let song = self.guarded(|maker| maker.make(request, &watch))?;
                Ok(Made::Song(Box::new(song)))
            }
            Work::Metadata => {
                let request = without_codes(request);
                let mut times = StageTimes::default();
                let composed = self.guarded(|maker| maker.compose(&request, &mut times, &watch))?;
                Ok(Made::Analysis(Box::new(composed)))
            }
            Work::Codes | Work::Understanding => {
                let codes = self.guarded(|maker| maker.codes(request, &watch))?;
                let description = match ticket.resolved.work {
                    Work::Codes => None,
                    _ => {
                        let subject = understanding(request, &codes);
                        Some(self.guarded(|maker| maker.describe(&subject, &watch))?)
                    }
                };
                Ok(Made::Understood(Box::new(Understood {
                    codes,
                    description,
                })))
            }
        }
    }

    /// Works with the engine. A panic or the loss of the device costs the work and the engine, not
    /// the server.
    fn guarded<T>(&mut self, work: impl FnOnce(&mut dyn SongMaker) -> Result<T>) -> Result<T> {
        let (maker, open) = (&mut self.maker, &mut self.open);
        let worked = catch_unwind(AssertUnwindSafe(|| match maker {
            Some(maker) => work(&mut **maker),
            none => work(&mut **none.insert(open()?)),
        }));
        let worked = worked.unwrap_or_else(|_| {
            let error = Error::Bug(
                "the engine stopped unexpectedly; it starts anew for the next job".into(),
            );
            self.down(&error);
            Err(error)
        });
        if let Err(error @ Error::DeviceLost(_)) = &worked {
            self.down(error);
            let again = self.lost.replace(Instant::now());
            if again.is_some_and(|before| before.elapsed() < SOON) {
                self.failure = Some(error.clone());
            }
        }
        worked
    }

    /// Lets go of the engine and of everything on its device.
    fn down(&mut self, why: &Error) {
        tracing::error!("the engine is down: {why}");
        self.maker = None;
        self.is_ready = false;
        self.app.set_loaded(Vec::new());
        self.app.change_lm(|state| state.loaded = None);
        self.app.set_trouble(Some(why.to_string()));
    }

    /// Sees to it that an engine with the primary model is there. Failures are remembered, so
    /// that jobs do not try again and again.
    fn ready(&mut self, id: Option<Uuid>) -> Result<()> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        if self.is_ready {
            return Ok(());
        }
        let (app, mut lm) = (self.app.clone(), std::mem::take(&mut self.lm));
        let watch = LoadWatch::new(&app, id);
        let loaded = self.guarded(|maker| {
            load(&app, maker, &watch)?;
            lm.load_at_start(&app, maker, &watch);
            Ok(())
        });
        self.lm = lm;
        match &loaded {
            Ok(()) => {
                self.is_ready = true;
                app.set_trouble(None);
            }
            // The loss of a device is passing, unless it comes again soon.
            Err(Error::Cancelled | Error::DeviceLost(_)) => {}
            Err(error) => {
                tracing::error!("loading {} failed: {error}", app.slots().primary());
                app.set_trouble(Some(error.to_string()));
                self.failure = Some(error.clone());
            }
        }
        loaded
    }

    /// Sees to it that a language model is there, of the name that was asked for if none is.
    fn load_lm(&mut self, asked: Option<&str>, watch: &dyn Watch) -> std::result::Result<(), NoLm> {
        let (app, mut lm) = (self.app.clone(), std::mem::take(&mut self.lm));
        let ended = self.guarded(|maker| Ok(lm.ensure(&app, maker, asked, watch)));
        self.lm = lm;
        ended.map_err(NoLm::Failed)?
    }

    /// Sees to it that a job gets the language model that it needs; without one that it can go
    /// without, says so in its notes.
    fn lm_for(&mut self, ticket: &mut Ticket) -> std::result::Result<(), String> {
        let resolved = &mut ticket.resolved;
        if resolved.lm == LmNeed::IfLoaded || self.app.lm().loaded.is_some() {
            return Ok(());
        }
        let app = self.app.clone();
        let watch = LoadWatch::new(&app, Some(ticket.id));
        match self.load_lm(resolved.lm_model.as_deref(), &watch) {
            Ok(()) => Ok(()),
            Err(NoLm::Failed(Error::Cancelled)) => Err(reason(&Error::Cancelled)),
            Err(why) if resolved.lm == LmNeed::Required => {
                Err(format!("5Hz LM init failed: {why}"))
            }
            Err(why) => {
                let note = format!("the request was not completed by a language model: {why}");
                resolved.notes.push(note);
                Ok(())
            }
        }
    }

    fn describe(
        &mut self,
        request: &DescribeRequest,
        answer: &Answer<Description>,
    ) -> std::result::Result<Description, Unable> {
        let app = self.app.clone();
        let watch = CallWatch { app: &app, answer };
        self.load_lm(None, &watch).map_err(|why| match why {
            NoLm::Failed(Error::Cancelled) => Unable::Stopping,
            why => Unable::NoLm(why),
        })?;
        Ok(self.guarded(|maker| maker.describe(request, &watch))?)
    }

    /// Loads what is missing, and tries again what could not be loaded. Returns what it loaded.
    fn reinitialize(&mut self) -> std::result::Result<Vec<String>, Unable> {
        let names = |app: &App| {
            let mut names = app.loaded();
            names.extend(app.lm().loaded);
            names
        };
        let before = names(&self.app);
        (self.failure, self.is_ready) = (None, false);
        self.lm.forget_failures();
        self.ready(None)?;
        let mut loaded = names(&self.app);
        loaded.retain(|name| !before.contains(name));
        Ok(loaded)
    }

    /// Forgets models; the next job loads what it needs.
    fn unload(&mut self, what: Unload) {
        let (app, Some(maker)) = (self.app.clone(), &mut self.maker) else {
            return;
        };
        if what.dit {
            maker.unload_all();
            app.set_loaded(Vec::new());
            self.is_ready = false;
        }
        if what.lm {
            maker.unload_lm();
            app.change_lm(|state| state.loaded = None);
        }
    }

    /// Exchanges models. What was loaded stays when its successor cannot be loaded.
    fn init(&mut self, init: &Init, answer: &Answer<()>) -> std::result::Result<(), Unable> {
        let (app, mut lm) = (self.app.clone(), std::mem::take(&mut self.lm));
        let watch = CallWatch { app: &app, answer };
        let done = self.guarded(|maker| {
            exchange(&app, maker, init, &watch)?;
            match &init.lm {
                Some(name) => lm.init(&app, maker, name.clone(), &watch),
                None => Ok(()),
            }
        });
        self.lm = lm;
        // The next job loads what the other slots lack.
        if app
            .loaded()
            .iter()
            .any(|name| name == app.slots().primary())
        {
            self.failure = None;
            app.set_trouble(None);
        }
        done.inspect_err(|error| tracing::error!("Model initialization failed: {error}"))?;
        Ok(())
    }
}

/// Loads the models of all slots. Only the primary one must load.
fn load(app: &App, maker: &mut dyn SongMaker, watch: &dyn Watch) -> Result<()> {
    let started = Instant::now();
    let mut loaded = Vec::new();
    for (index, name) in app.slots().names().into_iter().enumerate() {
        match maker.load(&name, watch) {
            Ok(()) => loaded.push(name),
            Err(error) if index == 0 => return Err(error),
            Err(error) => tracing::error!("loading {name} failed: {error}"),
        }
    }
    tracing::info!(
        "loaded {} in {:.2} s",
        loaded.join(", "),
        started.elapsed().as_secs_f64()
    );
    app.set_loaded(loaded);
    Ok(())
}

/// Loads the model of a slot anew, or another in its place.
fn exchange(app: &App, maker: &mut dyn SongMaker, init: &Init, watch: &dyn Watch) -> Result<()> {
    let slots = app.slots();
    let name = match &init.model {
        Some(name) => name.as_str(),
        None => slots.get(init.slot).unwrap_or_default(),
    };
    maker.reload(name, watch)?;
    let before = app.change_slots(|slots| slots.set(init.slot, name));
    let mut loaded = app.loaded();
    loaded.retain(|other| other != name && Some(other) != before.as_ref());
    loaded.insert(0, name.to_owned());
    app.set_loaded(loaded);
    if let Some(before) = before {
        maker.unload(&before);
    }
    Ok(())
}

/// The request for a description of music as codes.
fn understanding(request: &SongRequest, codes: &[u32]) -> DescribeRequest {
    let planning = request.planning.as_ref();
    DescribeRequest {
        subject: Subject::Codes(codes.to_vec()),
        known: Facts::default(),
        sampling: planning.map(|p| p.sampling).unwrap_or_default(),
        seed: request.seeds.first().copied().unwrap_or(0),
        constrained: planning.is_none_or(|p| p.constrained),
        debug: planning.is_some_and(|p| p.debug),
    }
}

/// The request for an analysis: metadata, and no codes that nothing would be made of.
fn without_codes(request: &SongRequest) -> SongRequest {
    let mut request = request.clone();
    if let Some(planning) = &mut request.planning {
        planning.codes = false;
    }
    request
}

/// A job's reason for people; what they can do about a stop is nothing.
fn reason(error: &Error) -> String {
    match error {
        Error::Cancelled => "the server was stopped while the job ran".into(),
        other => other.to_string(),
    }
}
