//! What every part of a running server shares.

use crate::budget::{Budget, IN_FLIGHT};
use crate::calls::Call;
use crate::config::Config;
use crate::jobs::{Averages, CANCELLED, Job, JobStore};
use crate::lm::{InitLlm, LmState};
use crate::multipart::Upload;
use crate::queue::Queue;
use crate::resolve::Resolved;
use crate::slots::Slots;
use crate::store::{SqliteStore, Unfinished};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::SystemTime;
use uuid::Uuid;

/// A job on its way to the engine.
#[derive(Debug)]
pub struct Ticket {
    /// Identifier.
    pub id: Uuid,
    /// What to make.
    pub resolved: Resolved,
    /// Files that came with the request; they go with the job.
    pub uploads: Vec<Upload>,
}

impl Ticket {
    /// Lets go of a job that the next process goes on with: its files stay.
    pub fn leave(self) {
        for upload in self.uploads {
            if let Err(error) = upload.path.keep() {
                tracing::warn!("an upload of job {} was not kept: {error}", self.id);
            }
        }
    }
}

/// Shared state. Locks are held for microseconds and never across an await.
pub struct App {
    /// Settings.
    pub config: Config,
    /// Real path of the folder with results.
    pub audio_dir: PathBuf,
    /// Folder for uploads.
    pub upload_dir: PathBuf,
    /// Folders that source paths may lead into, real paths.
    pub source_roots: Vec<PathBuf>,
    /// Held while an upload is looked at: decoded music is large.
    pub decoding: Mutex<()>,
    /// Bytes that request bodies may hold.
    pub budget: Budget,
    /// Jobs.
    pub jobs: Arc<dyn JobStore>,
    /// What waits for the engine.
    pub queue: Queue<Ticket, Call>,
    /// Seconds per job.
    pub averages: Averages,
    /// Names of the models to have.
    slots: RwLock<Slots>,
    /// Names of the models that are loaded.
    loaded: RwLock<Vec<String>>,
    /// The language model.
    lm: RwLock<LmState>,
    /// Why there is no engine, if something brought it down or kept it from coming up.
    trouble: RwLock<Option<String>>,
    /// Set once, when the server is to end.
    stopping: AtomicBool,
}

impl App {
    /// The state of a server that has just started, and the jobs that the server before it did not
    /// end. Makes the folders for results and uploads.
    pub fn new(config: Config) -> engine::Result<(Self, Vec<Unfinished>)> {
        let audio_dir = config.audio_dir();
        let failed = |e: std::io::Error| {
            engine::Error::Output(format!(
                "the folder for results {} cannot be made ({e}); choose another with --data or \
                 ACESTEP_TMPDIR",
                audio_dir.display()
            ))
        };
        std::fs::create_dir_all(&audio_dir).map_err(failed)?;
        let real_audio_dir = audio_dir.canonicalize().map_err(failed)?;
        let upload_dir = config.tmp_dir.join("uploads");
        std::fs::create_dir_all(&upload_dir).map_err(failed)?;
        let upload_dir = upload_dir.canonicalize().map_err(failed)?;
        let file = config.tmp_dir.join("jobs.sqlite3");
        let (jobs, unfinished) = SqliteStore::open(&file, config.retention)?;
        // The folder for results lies within the temporary folder.
        let roots = [std::env::temp_dir(), config.tmp_dir.clone()];
        let source_roots = roots
            .iter()
            .chain(&config.allowed_audio_dirs)
            .filter_map(|dir| dir.canonicalize().ok())
            .collect();
        let app = App {
            audio_dir: real_audio_dir,
            upload_dir,
            source_roots,
            decoding: Mutex::new(()),
            budget: Budget::new(IN_FLIGHT),
            jobs: Arc::new(jobs),
            queue: Queue::new(config.queue_maxsize),
            averages: Averages::new(config.avg_job_seconds, config.avg_window),
            slots: RwLock::new(config.models.clone()),
            loaded: RwLock::default(),
            lm: RwLock::new(LmState {
                configured: config.lm_model.clone(),
                loaded: None,
                blocked: config.init_llm == InitLlm::Never,
            }),
            trouble: RwLock::default(),
            stopping: AtomicBool::new(false),
            config,
        };
        Ok((app, unfinished))
    }

    /// Names of the models to have, as they are now.
    pub fn slots(&self) -> Slots {
        read(&self.slots)
    }

    /// Changes the models to have.
    pub fn change_slots<T>(&self, change: impl FnOnce(&mut Slots) -> T) -> T {
        change(&mut write(&self.slots))
    }

    /// Names of the loaded models.
    pub fn loaded(&self) -> Vec<String> {
        read(&self.loaded)
    }

    /// Replaces the names of the loaded models.
    pub fn set_loaded(&self, names: Vec<String>) {
        *write(&self.loaded) = names;
    }

    /// The language model as it is now.
    pub fn lm(&self) -> LmState {
        read(&self.lm)
    }

    /// Changes what is known of the language model.
    pub fn change_lm(&self, change: impl FnOnce(&mut LmState)) {
        change(&mut write(&self.lm));
    }

    /// Why there is no engine, if something brought it down or kept it from coming up.
    pub fn trouble(&self) -> Option<String> {
        read(&self.trouble)
    }

    /// Says why there is no engine, or that nothing is wrong.
    pub fn set_trouble(&self, trouble: Option<String>) {
        *write(&self.trouble) = trouble;
    }

    /// Name of the language model in results, also where it did not run.
    pub fn lm_model(&self) -> String {
        self.lm().shown()
    }

    /// Fails a job with a reason, in the store and in the log; nothing happens to one that has
    /// ended.
    pub fn fail(&self, id: Uuid, reason: &str) {
        let fail = &mut |job: &mut Job| job.fail(reason, SystemTime::now());
        if self.jobs.update(id, fail) {
            tracing::warn!("job {id} failed: {reason}");
        }
    }

    /// Whether a job has ended, or is not known any more.
    pub fn has_ended(&self, id: Uuid) -> bool {
        self.jobs
            .recent(id)
            .is_none_or(|job| job.state.is_finished())
    }

    /// Ends a job whether it waits or runs; one that runs stops at its next step. `false` when it
    /// has ended already or is not known.
    pub fn cancel(&self, id: Uuid) -> bool {
        let ended = self
            .jobs
            .update(id, &mut |job| job.fail(CANCELLED, SystemTime::now()));
        // Its files go with it.
        drop(self.queue.take(|ticket| ticket.id == id));
        if ended {
            tracing::info!("job {id} was cancelled");
        }
        ended
    }

    /// Ends every job that waits or runs; which these were.
    pub fn cancel_all(&self) -> Vec<Uuid> {
        let all = self.jobs.unfinished();
        all.into_iter().filter(|id| self.cancel(*id)).collect()
    }

    /// Whether the server is about to end; running jobs stop at their next step.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Lets the running job stop and takes no more; what waits is left for the next start.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        self.queue.close().into_iter().for_each(Ticket::leave);
        self.jobs.flush();
    }
}

/// A copy of what a lock guards. Nothing panics while one is held.
fn read<T: Clone>(lock: &RwLock<T>) -> T {
    lock.read()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
        .clone()
}

fn write<T>(lock: &RwLock<T>) -> std::sync::RwLockWriteGuard<'_, T> {
    lock.write()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
