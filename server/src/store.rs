//! Jobs in an SQLite file, so that results and waiting jobs outlast the process.
//!
//! Questions are answered from memory. One thread owns the file; it hears of changes in their
//! order, and writes as many at a time as have come. A process that is killed loses nothing that
//! was flushed: the write-ahead log is with the operating system by then.

use crate::jobs::{Counts, Job, JobStore, Kept, MemoryStore, State};
use engine::{Error, Result};
use rusqlite::{Connection, OptionalExtension, Row, params};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::watch;
use uuid::Uuid;

/// How long the file keeps results, those included that memory has forgotten.
const KEEP: Duration = Duration::from_secs(7 * 24 * 3600);
/// Form of the file; another one is refused.
const VERSION: i64 = 1;

const TABLE: &str = "CREATE TABLE IF NOT EXISTS job (
    position INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    state INTEGER NOT NULL,
    tries INTEGER NOT NULL,
    created INTEGER NOT NULL,
    finished INTEGER,
    progress REAL NOT NULL DEFAULT 0,
    request TEXT,
    uploads TEXT,
    result TEXT,
    error TEXT
) STRICT;
CREATE INDEX IF NOT EXISTS job_finished ON job (finished);";

/// Jobs in memory and in a file.
pub struct SqliteStore {
    memory: MemoryStore,
    /// Gone only while the store is dropped.
    orders: Option<Sender<Order>>,
    writer: Option<JoinHandle<()>>,
}

/// What the thread is told.
enum Order {
    Add(Box<Job>, Kept),
    Change(Box<Job>),
    Forget(Uuid),
    /// Forget what finished before.
    Sweep(SystemTime),
    Find(Uuid, Sender<Option<Job>>),
    /// Answer when everything before is written.
    Flush(Sender<()>),
}

/// A job that had not ended when the process before did.
#[derive(Debug)]
pub struct Unfinished {
    /// The job as it was.
    pub job: Job,
    /// What it is made from.
    pub kept: Kept,
}

impl SqliteStore {
    /// Opens the file, makes it where there is none. Returns what had not ended, in the order in
    /// which it came, beside the store. Jobs that finished within `recent` are in memory at once.
    ///
    /// # Errors
    /// [`Error::Output`] when the file cannot be opened, was written by another version, or is in
    /// use by another process.
    pub fn open(path: &Path, recent: Duration) -> Result<(Self, Vec<Unfinished>)> {
        let failed = |e: rusqlite::Error| refusal(path, &e);
        let connection = connect(path).map_err(failed)?;
        let version: i64 = connection
            .query_row("PRAGMA user_version", [], |row| row.get(0))
            .map_err(failed)?;
        if version != VERSION {
            return Err(Error::Output(format!(
                "the jobs in {} were written by another version of this program (form {version}, \
                 this one writes {VERSION}); move the file away or choose another folder with \
                 --data or ACESTEP_TMPDIR",
                path.display()
            )));
        }
        let memory = MemoryStore::default();
        let after = SystemTime::now().checked_sub(recent).unwrap_or(UNIX_EPOCH);
        let unfinished = load(&connection, &memory, after).map_err(failed)?;
        let (orders, inbox) = channel();
        let writer = std::thread::Builder::new()
            .name("jobs".into())
            .spawn(move || write(connection, &inbox))
            .map_err(|e| Error::Device(format!("the server cannot start a thread: {e}")))?;
        let store = SqliteStore {
            memory,
            orders: Some(orders),
            writer: Some(writer),
        };
        Ok((store, unfinished))
    }

    fn order(&self, order: Order) {
        // The thread ends with the store.
        if let Some(orders) = &self.orders
            && orders.send(order).is_err()
        {
            tracing::error!("jobs are not stored any more: the thread that stores them has ended");
        }
    }
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        drop(self.orders.take());
        if let Some(writer) = self.writer.take() {
            // A panic of the thread has been printed.
            let _ = writer.join();
        }
    }
}

impl JobStore for SqliteStore {
    fn insert(&self, job: Job, kept: Kept) {
        self.memory.insert_then(job, |job| {
            self.order(Order::Add(Box::new(job.clone()), kept));
        });
    }

    fn update(&self, id: Uuid, change: &mut dyn FnMut(&mut Job)) -> bool {
        self.memory.update_then(id, change, |before, after| {
            // Progress is not worth a write.
            if before.state != after.state || before.tries != after.tries {
                self.order(Order::Change(Box::new(after.clone())));
            }
        })
    }

    fn get(&self, id: Uuid) -> Option<Job> {
        self.memory.get(id).or_else(|| {
            let (answer, found) = channel();
            self.order(Order::Find(id, answer));
            found.recv().ok().flatten()
        })
    }

    fn recent(&self, id: Uuid) -> Option<Job> {
        self.memory.get(id)
    }

    fn counts(&self) -> Counts {
        self.memory.counts()
    }

    fn unfinished(&self) -> Vec<Uuid> {
        self.memory.unfinished()
    }

    fn forget(&self, id: Uuid) -> bool {
        let was_there = self.get(id).is_some();
        self.memory.forget(id);
        self.order(Order::Forget(id));
        was_there
    }

    fn sweep(&self, now: SystemTime, keep: Duration) -> usize {
        self.order(Order::Sweep(now.checked_sub(KEEP).unwrap_or(UNIX_EPOCH)));
        self.memory.sweep(now, keep)
    }

    fn flush(&self) {
        let (answer, done) = channel();
        self.order(Order::Flush(answer));
        // Without the thread there is nothing to wait for.
        let _ = done.recv();
    }

    fn changes(&self) -> watch::Receiver<()> {
        self.memory.changes()
    }
}

/// Opens the file for this process alone.
fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if version == 0 {
        connection.execute_batch(TABLE)?;
        connection.pragma_update(None, "user_version", VERSION)?;
    }
    // Takes the lock, which is kept.
    connection.execute_batch("BEGIN IMMEDIATE; COMMIT")?;
    Ok(connection)
}

fn refusal(path: &Path, error: &rusqlite::Error) -> Error {
    use rusqlite::ErrorCode::{DatabaseBusy, DatabaseCorrupt, DatabaseLocked, NotADatabase};
    let why = match error.sqlite_error_code() {
        Some(DatabaseBusy | DatabaseLocked) => {
            "another server uses them; end it, or choose another folder with --data or \
             ACESTEP_TMPDIR"
                .to_owned()
        }
        Some(NotADatabase | DatabaseCorrupt) => {
            format!("the file is damaged ({error}); move it away, jobs in it are lost")
        }
        _ => format!("{error}; choose another folder with --data or ACESTEP_TMPDIR"),
    };
    Error::Output(format!(
        "the jobs in {} cannot be opened: {why}",
        path.display()
    ))
}

/// Fills the memory; returns what had not ended.
fn load(
    connection: &Connection,
    memory: &MemoryStore,
    after: SystemTime,
) -> rusqlite::Result<Vec<Unfinished>> {
    const ALL: &str =
        "SELECT id, state, tries, created, finished, result, error, progress, request,
        uploads
        FROM job WHERE finished IS NULL OR finished >= ? ORDER BY position";
    let mut statement = connection.prepare(ALL)?;
    let rows = statement.query_map([millis(after)], |row| {
        let request: Option<String> = row.get(8)?;
        let uploads: Option<String> = row.get(9)?;
        Ok((job(row)?, request, uploads))
    })?;
    let mut unfinished = Vec::new();
    for row in rows {
        let (job, request, uploads) = row?;
        memory.insert_then(job.clone(), |_| ());
        if !job.state.is_finished() {
            let uploads: Vec<PathBuf> = uploads
                .and_then(|text| serde_json::from_str(&text).ok())
                .unwrap_or_default();
            let kept = Kept {
                request: request.unwrap_or_default(),
                uploads,
            };
            unfinished.push(Unfinished { job, kept });
        }
    }
    Ok(unfinished)
}

/// A job from the columns id, state, tries, created, finished, result, error, progress.
fn job(row: &Row) -> rusqlite::Result<Job> {
    let id: String = row.get(0)?;
    let id = Uuid::parse_str(&id).map_err(|e| {
        rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, Box::new(e))
    })?;
    let state = match row.get(1)? {
        0 => State::Queued,
        1 => State::Running,
        2 => State::Succeeded,
        3 => State::Failed,
        other => return Err(rusqlite::Error::IntegralValueOutOfRange(1, other)),
    };
    let finished: Option<i64> = row.get(4)?;
    let result: Option<String> = row.get(5)?;
    let error: Option<String> = row.get(6)?;
    let mut job = Job::queued(id, time(row.get(3)?));
    job.state = state;
    job.tries = row.get(2)?;
    job.finished = finished.map(time);
    job.result = result.map(Into::into);
    job.error = error.map(Into::into);
    if state != State::Queued {
        job.stage = state.name().into();
    }
    job.progress = row.get(7)?;
    Ok(job)
}

fn number(state: State) -> i64 {
    match state {
        State::Queued => 0,
        State::Running => 1,
        State::Succeeded => 2,
        State::Failed => 3,
    }
}

/// Milliseconds since 1970.
fn millis(at: SystemTime) -> i64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

fn time(millis: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(u64::try_from(millis).unwrap_or(0))
}

/// Writes what it hears of until the store is dropped.
fn write(mut connection: Connection, inbox: &Receiver<Order>) {
    while let Ok(first) = inbox.recv() {
        let mut flushed = Vec::new();
        let orders = std::iter::once(first).chain(inbox.try_iter());
        if let Err(error) = carry_out(&mut connection, orders, &mut flushed) {
            tracing::error!("jobs could not be stored: {error}");
        }
        for answer in flushed {
            // Whoever waited may have gone away.
            let _ = answer.send(());
        }
    }
}

/// Writes in one transaction.
fn carry_out(
    connection: &mut Connection,
    orders: impl Iterator<Item = Order>,
    flushed: &mut Vec<Sender<()>>,
) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    let mut failure = None;
    // An order that fails does not keep the others from being carried out.
    for order in orders {
        match order {
            Order::Flush(answer) => flushed.push(answer),
            Order::Find(id, answer) => {
                let found = find(&transaction, id).unwrap_or_else(|error| {
                    tracing::error!("job {id} could not be looked up: {error}");
                    None
                });
                let _ = answer.send(found);
            }
            change => failure = apply(&transaction, change).err().or(failure),
        }
    }
    transaction.commit()?;
    failure.map_or(Ok(()), Err)
}

fn apply(connection: &Connection, order: Order) -> rusqlite::Result<()> {
    match order {
        Order::Add(job, kept) => {
            let uploads = serde_json::to_string(&kept.uploads).unwrap_or_else(|_| "[]".into());
            connection
                .prepare(
                    "INSERT INTO job (id, state, tries, created, request, uploads)
                    VALUES (?, ?, ?, ?, ?, ?)",
                )?
                .execute(params![
                    job.id.to_string(),
                    number(job.state),
                    job.tries,
                    millis(job.created),
                    kept.request,
                    uploads
                ])?;
        }
        Order::Change(job) => {
            // What it is made from is not needed any more once it has ended.
            connection
                .prepare(
                    "UPDATE job SET state = ?2, tries = ?3, finished = ?4, result = ?5, error = ?6, progress = ?7,
                    request = iif(?4 IS NULL, request, NULL),
                    uploads = iif(?4 IS NULL, uploads, NULL) WHERE id = ?1",
                )?
                .execute(params![
                    job.id.to_string(),
                    number(job.state),
                    job.tries,
                    job.finished.map(millis),
                    job.result.as_deref(),
                    job.error.as_deref(),
                    job.progress
                ])?;
        }
        Order::Forget(id) => {
            connection
                .prepare("DELETE FROM job WHERE id = ?")?
                .execute([id.to_string()])?;
        }
        Order::Sweep(before) => {
            connection
                .prepare("DELETE FROM job WHERE finished < ?")?
                .execute([millis(before)])?;
        }
        Order::Find(..) | Order::Flush(_) => {}
    }
    Ok(())
}

fn find(connection: &Connection, id: Uuid) -> rusqlite::Result<Option<Job>> {
    connection
        .prepare("SELECT id, state, tries, created, finished, result, error, progress FROM job WHERE id = ?")?
        .query_row([id.to_string()], job)
        .optional()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn kept(text: &str) -> Kept {
        Kept {
            request: text.into(),
            uploads: vec!["/tmp/a b".into()],
        }
    }

    /// A job that was taken at a whole millisecond, as the file keeps it.
    fn queued() -> Job {
        Job::queued(Uuid::new_v4(), time(1_700_000_000_123))
    }

    #[test]
    fn what_was_stored_is_there_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("jobs.sqlite3");
        let (waits, runs, done, failed) = (queued(), queued(), queued(), queued());
        let (store, none) = SqliteStore::open(&path, DAY).unwrap();
        assert!(none.is_empty());
        for (index, job) in [&waits, &runs, &done, &failed].into_iter().enumerate() {
            store.insert(job.clone(), kept(&format!("{{\"bpm\":{index}}}")));
        }
        store.update(runs.id, &mut Job::start);
        store.update(runs.id, &mut |job| job.progress = 0.5);
        let now = time(millis(SystemTime::now()));
        store.update(done.id, &mut |job| job.succeed("[1]".into(), now));
        store.update(failed.id, &mut |job| job.fail("why", now));
        let expected = [&done, &failed].map(|job| store.get(job.id));
        store.flush();
        drop(store);

        let (store, unfinished) = SqliteStore::open(&path, DAY).unwrap();
        let [first, second] = &unfinished[..] else {
            panic!("{unfinished:?}");
        };
        assert_eq!((&first.job, &first.kept), (&waits, &kept("{\"bpm\":0}")));
        assert_eq!((second.job.state, second.job.tries), (State::Running, 1));
        assert_eq!(second.kept, kept("{\"bpm\":1}"), "it can be made again");
        assert_eq!([&done, &failed].map(|job| store.get(job.id)), expected);
        assert_eq!(store.counts().total, 4);
        assert!(store.forget(waits.id) && !store.forget(waits.id));
        drop(store);
        let (_, unfinished) = SqliteStore::open(&path, DAY).unwrap();
        assert_eq!(unfinished.len(), 1);
    }

    #[test]
    fn the_file_keeps_results_longer_than_memory() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("jobs.sqlite3");
        let (store, _) = SqliteStore::open(&path, DAY).unwrap();
        let job = queued();
        let now = SystemTime::now();
        store.insert(job.clone(), kept("{}"));
        store.update(job.id, &mut |job| job.succeed("[1]".into(), now));
        assert_eq!(store.sweep(now + 2 * DAY, DAY), 1);
        assert!(store.recent(job.id).is_none());
        let found = store.get(job.id).unwrap();
        assert_eq!((found.state, found.progress), (State::Succeeded, 1.0));
        store.sweep(now + 8 * DAY, DAY);
        assert!(store.get(job.id).is_none());
    }

    #[test]
    fn files_that_are_not_ours_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("jobs.sqlite3");
        let refused = |path: &Path| match SqliteStore::open(path, DAY) {
            Ok(_) => panic!("{} was opened", path.display()),
            Err(error) => error.to_string(),
        };
        let (open, _) = SqliteStore::open(&path, DAY).unwrap();
        assert!(refused(&path).contains("another server uses them"));
        drop(open);
        let connection = Connection::open(&path).unwrap();
        connection.pragma_update(None, "user_version", 99).unwrap();
        drop(connection);
        assert!(refused(&path).contains("form 99"), "{}", refused(&path));
        let path = dir.path().join("other");
        std::fs::write(&path, "no database at all, ".repeat(100)).unwrap();
        assert!(refused(&path).contains("damaged"), "{}", refused(&path));
        assert!(refused(&dir.path().join("no/such/folder")).contains("--data"));
    }
}
