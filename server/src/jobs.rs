//! What is known about jobs, behind a trait: [`MemoryStore`] forgets with the process,
//! [`crate::store::SqliteStore`] does not.

use serde::Serialize;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::watch;
use uuid::Uuid;

/// The reason of a job that its client stopped.
pub const CANCELLED: &str = "Cancelled by user";

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum State {
    Queued,
    Running,
    Succeeded,
    Failed,
}

impl State {
    /// Number on the wire: 0 until it ends, 1 succeeded, 2 failed.
    pub fn code(self) -> u8 {
        match self {
            State::Queued | State::Running => 0,
            State::Succeeded => 1,
            State::Failed => 2,
        }
    }

    /// Whether nothing changes any more.
    pub fn is_finished(self) -> bool {
        self.code() != 0
    }

    /// Name for people and programs.
    pub fn name(self) -> &'static str {
        match self {
            State::Queued => "queued",
            State::Running => "running",
            State::Succeeded => "succeeded",
            State::Failed => "failed",
        }
    }
}

/// One job.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// Identifier.
    pub id: Uuid,
    /// Where it stands.
    pub state: State,
    /// When it was taken.
    pub created: SystemTime,
    /// How often it began to run.
    pub tries: u32,
    /// When it ended.
    pub finished: Option<SystemTime>,
    /// 0 to 1.
    pub progress: f64,
    /// What it does now, for people.
    pub stage: Arc<str>,
    /// The items of a finished job as JSON text.
    pub result: Option<Arc<str>>,
    /// Why it failed, on one line.
    pub error: Option<Arc<str>>,
}

impl Job {
    /// A job that waits.
    pub fn queued(id: Uuid, created: SystemTime) -> Self {
        Job {
            id,
            state: State::Queued,
            created,
            tries: 0,
            finished: None,
            progress: 0.0,
            stage: "queued".into(),
            result: None,
            error: None,
        }
    }

    /// Whole seconds since 1970 when it was taken.
    pub fn create_time(&self) -> u64 {
        self.created
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs()
    }

    /// The job runs.
    pub fn start(&mut self) {
        self.state = State::Running;
        self.tries += 1;
        self.progress = 0.01;
        self.stage = "running".into();
    }

    /// The job waits again; that it ran is not forgotten.
    pub fn wait_again(&mut self) {
        self.state = State::Queued;
        self.progress = 0.0;
        self.stage = "queued".into();
    }

    /// The job waits again as if it had never run.
    pub fn put_back(&mut self) {
        self.wait_again();
        self.tries = self.tries.saturating_sub(1);
    }

    /// The job ended well; `result` is JSON text.
    pub fn succeed(&mut self, result: String, now: SystemTime) {
        self.state = State::Succeeded;
        self.finished = Some(now);
        self.progress = 1.0;
        self.stage = "succeeded".into();
        self.result = Some(result.into());
    }

    /// The job failed; of `reason` the first line is kept.
    pub fn fail(&mut self, reason: &str, now: SystemTime) {
        let reason = reason
            .lines()
            .map(str::trim)
            .find(|l| !l.is_empty())
            .unwrap_or("failed");
        self.state = State::Failed;
        self.finished = Some(now);
        self.stage = "failed".into();
        self.error = Some(reason.into());
    }
}

/// Number of jobs per state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs)]
pub struct Counts {
    pub total: usize,
    pub queued: usize,
    pub running: usize,
    pub succeeded: usize,
    pub failed: usize,
}

/// What a job is made from, for a server that starts again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The fields of the request as a JSON object, with the seeds that were drawn.
    pub request: String,
    /// Files that came with it and that go with the job.
    pub uploads: Vec<PathBuf>,
}

/// Holds jobs. No call waits for a device or a client; [`get`](Self::get), [`forget`](Self::forget)
/// and [`flush`](Self::flush) may wait for a disk. A job that has ended never changes again.
pub trait JobStore: Send + Sync {
    /// Adds a job.
    fn insert(&self, job: Job, kept: Kept);
    /// Changes a job; `false` when it is not there or has ended.
    fn update(&self, id: Uuid, change: &mut dyn FnMut(&mut Job)) -> bool;
    /// A copy of a job.
    fn get(&self, id: Uuid) -> Option<Job>;
    /// A copy of a job that has not ended, or not long ago. Waits for nothing.
    fn recent(&self, id: Uuid) -> Option<Job>;
    /// Number of jobs per state.
    fn counts(&self) -> Counts;
    /// The jobs that have not ended.
    fn unfinished(&self) -> Vec<Uuid>;
    /// Forgets a job; whether it was there.
    fn forget(&self, id: Uuid) -> bool;
    /// Forgets jobs that finished longer than `keep` before `now`; how many it were.
    fn sweep(&self, now: SystemTime, keep: Duration) -> usize;
    /// Returns when everything so far outlasts the process, if anything does.
    fn flush(&self);
    /// Tells of every change.
    fn changes(&self) -> watch::Receiver<()>;
}

/// Keeps jobs in memory.
pub struct MemoryStore {
    jobs: Mutex<HashMap<Uuid, Job>>,
    changed: watch::Sender<()>,
}

impl Default for MemoryStore {
    fn default() -> Self {
        MemoryStore {
            jobs: Mutex::default(),
            changed: watch::Sender::new(()),
        }
    }
}

impl MemoryStore {
    fn lock(&self) -> MutexGuard<'_, HashMap<Uuid, Job>> {
        // A map of plain values is valid even if a change panicked half-way.
        self.jobs
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// As [`JobStore::insert`]; `then` runs before anybody else sees the job.
    pub fn insert_then(&self, job: Job, then: impl FnOnce(&Job)) {
        let mut jobs = self.lock();
        then(&job);
        jobs.insert(job.id, job);
        drop(jobs);
        self.changed.send_replace(());
    }

    /// As [`JobStore::update`]; `then` gets the job before and after, and runs before anybody
    /// else sees the change, so that whoever it tells hears of changes in their order.
    pub fn update_then(
        &self,
        id: Uuid,
        change: &mut dyn FnMut(&mut Job),
        then: impl FnOnce(&Job, &Job),
    ) -> bool {
        let mut jobs = self.lock();
        let Some(job) = jobs.get_mut(&id).filter(|job| !job.state.is_finished()) else {
            return false;
        };
        let before = job.clone();
        change(job);
        then(&before, job);
        drop(jobs);
        self.changed.send_replace(());
        true
    }
}

impl JobStore for MemoryStore {
    fn insert(&self, job: Job, _: Kept) {
        self.insert_then(job, |_| ());
    }

    fn update(&self, id: Uuid, change: &mut dyn FnMut(&mut Job)) -> bool {
        self.update_then(id, change, |_, _| ())
    }

    fn get(&self, id: Uuid) -> Option<Job> {
        self.lock().get(&id).cloned()
    }

    fn recent(&self, id: Uuid) -> Option<Job> {
        self.get(id)
    }

    fn unfinished(&self) -> Vec<Uuid> {
        let jobs = self.lock();
        let open = jobs.values().filter(|job| !job.state.is_finished());
        open.map(|job| job.id).collect()
    }

    fn forget(&self, id: Uuid) -> bool {
        let was_there = self.lock().remove(&id).is_some();
        self.changed.send_replace(());
        was_there
    }

    fn flush(&self) {}

    fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    fn counts(&self) -> Counts {
        let jobs = self.lock();
        let mut counts = Counts {
            total: jobs.len(),
            ..Counts::default()
        };
        for job in jobs.values() {
            match job.state {
                State::Queued => counts.queued += 1,
                State::Running => counts.running += 1,
                State::Succeeded => counts.succeeded += 1,
                State::Failed => counts.failed += 1,
            }
        }
        counts
    }

    fn sweep(&self, now: SystemTime, keep: Duration) -> usize {
        let mut jobs = self.lock();
        let before = jobs.len();
        jobs.retain(|_, job| match job.finished {
            Some(at) if job.state.is_finished() => {
                // A clock that was set back says nothing about age: the job stays.
                now.duration_since(at).map_or(true, |age| age < keep)
            }
            _ => true,
        });
        before - jobs.len()
    }
}

/// Mean seconds per job over a window.
pub struct Averages {
    initial: f64,
    window: usize,
    seconds: Mutex<std::collections::VecDeque<f64>>,
}

impl Averages {
    /// `initial` is the mean before the first job ended.
    pub fn new(initial: f64, window: usize) -> Self {
        Averages {
            initial,
            window,
            seconds: Mutex::default(),
        }
    }

    /// A job took this long, loading of models not counted.
    pub fn add(&self, seconds: f64) {
        let mut all = self
            .seconds
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if all.len() == self.window {
            all.pop_front();
        }
        all.push_back(seconds);
    }

    /// The mean.
    pub fn mean(&self) -> f64 {
        let all = self
            .seconds
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if all.is_empty() {
            self.initial
        } else {
            all.iter().sum::<f64>() / all.len() as f64
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn nothing() -> Kept {
        Kept {
            request: "{}".into(),
            uploads: Vec::new(),
        }
    }

    #[test]
    fn changes_are_told() {
        let store = MemoryStore::default();
        let mut changes = store.changes();
        assert!(!changes.has_changed().unwrap_or(true));
        let id = Uuid::new_v4();
        store.insert(Job::queued(id, at(5)), nothing());
        assert!(changes.has_changed().unwrap_or(false));
        changes.mark_unchanged();
        store.update(id, &mut |job| job.progress = 0.5);
        assert!(changes.has_changed().unwrap_or(false));
    }

    #[test]
    fn a_job_that_is_put_back_has_not_run() {
        let mut job = Job::queued(Uuid::nil(), at(5));
        let before = job.clone();
        job.start();
        assert_eq!((job.state, job.tries), (State::Running, 1));
        job.put_back();
        assert_eq!(job, before);
    }

    #[test]
    fn a_life() {
        let store = MemoryStore::default();
        let id = Uuid::new_v4();
        store.insert(Job::queued(id, at(5)), nothing());
        assert_eq!(
            store.counts(),
            Counts {
                total: 1,
                queued: 1,
                ..Default::default()
            }
        );
        assert!(store.update(id, &mut Job::start));
        assert_eq!(
            store.counts(),
            Counts {
                total: 1,
                running: 1,
                ..Default::default()
            }
        );
        store.update(id, &mut |job| job.succeed("[]".into(), at(9)));
        let job = store.get(id);
        assert!(job.is_some_and(|j| j.create_time() == 5 && j.progress == 1.0));
        assert!(!store.update(Uuid::new_v4(), &mut |_| unreachable!("no such job")));
        assert!(!store.update(id, &mut |_| unreachable!("it has ended")));
        assert!(store.forget(id) && !store.forget(id));
    }

    #[test]
    fn reasons_are_one_line() {
        let mut job = Job::queued(Uuid::new_v4(), at(0));
        job.fail("\n  first \nsecond", at(1));
        assert_eq!(job.error.as_deref(), Some("first"));
        assert_eq!(job.state.code(), 2);
    }

    #[test]
    fn only_old_finished_jobs_are_swept() {
        let store = MemoryStore::default();
        let keep = Duration::from_secs(100);
        let [old, new, waiting] = [(); 3].map(|()| Uuid::new_v4());
        for id in [old, new, waiting] {
            store.insert(Job::queued(id, at(0)), nothing());
        }
        store.update(old, &mut |job| job.fail("x", at(10)));
        store.update(new, &mut |job| job.succeed("[]".into(), at(11)));
        assert_eq!(store.sweep(at(5), keep), 0, "the clock was set back");
        assert_eq!(store.sweep(at(110), keep), 1);
        assert!(store.get(old).is_none() && store.get(new).is_some());
        assert_eq!(store.sweep(at(1_000_000), keep), 1);
        assert!(store.get(waiting).is_some());
    }

    #[test]
    fn averages_run_over_a_window() {
        let averages = Averages::new(5.0, 2);
        assert_eq!(averages.mean(), 5.0);
        averages.add(1.0);
        assert_eq!(averages.mean(), 1.0);
        averages.add(3.0);
        averages.add(5.0);
        assert_eq!(averages.mean(), 4.0);
    }
}
