//! The compute pool: a few threads that share out small jobs.
//!
//! A region is a closure and a number of jobs. Threads draw tickets from one counter, so work
//! balances itself when another process takes a core; the caller works too. What a job computes
//! depends on its number alone, so results do not depend on the number of threads.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

/// Turns of the waiting loop before a worker sleeps: a few hundred microseconds.
const SPINS: u32 = 20_000;
const TICKET_BITS: u32 = 32;
const TICKET_MASK: u64 = (1 << TICKET_BITS) - 1;

/// `f(job, thread)`.
type Job<'a> = &'a (dyn Fn(usize, usize) + Sync);

struct Shared {
    /// Number of jobs of the region in the high half, next ticket in the low half. Both in one
    /// word: whoever draws a ticket below the number also knows that the closure is in place.
    state: AtomicU64,
    /// The region's closure as two words; written only while no thread is inside.
    closure: [AtomicUsize; 2],
    /// Workers between drawing a ticket and leaving the region.
    inside: AtomicUsize,
    panicked: AtomicBool,
    stop: AtomicBool,
}

struct Worker {
    asleep: Arc<AtomicBool>,
    handle: JoinHandle<()>,
}

/// A fixed number of compute threads.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<Worker>,
    /// One region at a time; a second caller waits.
    turn: Mutex<()>,
}

impl Pool {
    /// A pool of `threads` threads, the caller's included.
    pub fn new(threads: usize) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            state: AtomicU64::new(0),
            closure: [AtomicUsize::new(0), AtomicUsize::new(0)],
            inside: AtomicUsize::new(0),
            panicked: AtomicBool::new(false),
            stop: AtomicBool::new(false),
        });
        let mut workers = Vec::new();
        for i in 1..threads.max(1) {
            let shared = shared.clone();
            let asleep = Arc::new(AtomicBool::new(false));
            let flag = asleep.clone();
            let handle = std::thread::Builder::new()
                .name(format!("compute-{i}"))
                .spawn(move || work(&shared, &flag, i))?;
            workers.push(Worker { asleep, handle });
        }
        Ok(Pool {
            shared,
            workers,
            turn: Mutex::new(()),
        })
    }

    /// Number of threads, the caller's included. `thread` in a job is below this.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Runs `f(job, thread)` once for every `job` in `0..jobs` and returns when all are done.
    /// No two jobs run at once with the same `thread`.
    pub fn run(&self, jobs: usize, f: Job) {
        if jobs <= 1 || self.workers.is_empty() {
            (0..jobs).for_each(|job| f(job, 0));
            return;
        }
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let s = &*self.shared;
        // SAFETY: a fat pointer is two words. It is read back only by threads that drew a ticket
        // of this region, and this function returns only after the last of them has left.
        let words: [usize; 2] = unsafe { std::mem::transmute::<Job, [usize; 2]>(f) };
        s.closure[0].store(words[0], SeqCst);
        s.closure[1].store(words[1], SeqCst);
        s.state.store((jobs as u64) << TICKET_BITS, SeqCst);
        for worker in &self.workers {
            if worker.asleep.load(SeqCst) {
                worker.handle.thread().unpark();
            }
        }
        let own = catch_unwind(AssertUnwindSafe(|| {
            while let Some(job) = s.draw() {
                f(job, 0);
            }
        }));
        // After a panic of the caller's own job the remaining tickets are void.
        s.state.store(0, SeqCst);
        let mut spins = 0;
        while s.inside.load(SeqCst) != 0 {
            spins += 1;
            if spins < SPINS {
                std::hint::spin_loop()
            } else {
                std::thread::yield_now()
            }
        }
        let theirs = s.panicked.swap(false, SeqCst);
        if let Err(payload) = own {
            resume_unwind(payload);
        }
        assert!(!theirs, "a compute job panicked");
    }

    /// Splits `data` into pieces of `piece` elements (the last may be shorter) and runs
    /// `f(number, piece)` on each.
    pub fn pieces<T: Send>(
        &self,
        data: &mut [T],
        piece: usize,
        f: impl Fn(usize, &mut [T]) + Sync,
    ) {
        let len = data.len();
        let base = data.as_mut_ptr() as usize;
        self.run(len.div_ceil(piece.max(1)), &|job, _| {
            let start = job * piece;
            let n = piece.min(len - start);
            // SAFETY: pieces of different jobs are disjoint parts of `data`, which is borrowed
            // mutably for the whole call.
            let part = unsafe { std::slice::from_raw_parts_mut((base as *mut T).add(start), n) };
            f(job, part);
        });
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, SeqCst);
        for worker in self.workers.drain(..) {
            worker.handle.thread().unpark();
            // A worker catches panics of jobs, so there is nothing to learn from its result.
            let _ = worker.handle.join();
        }
    }
}

impl Shared {
    /// Whether a region has tickets left.
    fn open(&self) -> bool {
        has_tickets(self.state.load(SeqCst))
    }

    /// The next job of the open region.
    fn draw(&self) -> Option<usize> {
        if !self.open() {
            return None;
        }
        let state = self.state.fetch_add(1, SeqCst);
        has_tickets(state).then_some((state & TICKET_MASK) as usize)
    }
}

fn has_tickets(state: u64) -> bool {
    (state & TICKET_MASK) < (state >> TICKET_BITS)
}

fn work(s: &Shared, asleep: &AtomicBool, thread: usize) {
    let mut idle = 0u32;
    while !s.stop.load(SeqCst) {
        // Waiting only reads, so that it does not take the line from threads that work.
        if s.open() {
            help(s, thread);
            idle = 0;
            continue;
        }
        idle += 1;
        if idle < SPINS {
            std::hint::spin_loop();
            continue;
        }
        asleep.store(true, SeqCst);
        // A region opened before the flag was seen leaves its tickets visible here.
        if !s.open() && !s.stop.load(SeqCst) {
            std::thread::park();
        }
        asleep.store(false, SeqCst);
        idle = 0;
    }
}

/// Works on the open region until its tickets are gone.
fn help(s: &Shared, thread: usize) {
    s.inside.fetch_add(1, SeqCst);
    while let Some(job) = s.draw() {
        let words = [s.closure[0].load(SeqCst), s.closure[1].load(SeqCst)];
        // SAFETY: a ticket was drawn, so `run` has stored the closure and, because `inside` was
        // counted up before, will not return (ending its life) before this thread has left.
        let f: Job = unsafe { std::mem::transmute::<[usize; 2], Job>(words) };
        if catch_unwind(AssertUnwindSafe(|| f(job, thread))).is_err() {
            s.panicked.store(true, SeqCst);
        }
    }
    s.inside.fetch_sub(1, SeqCst);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_job_runs_once_for_any_number_of_threads() {
        for threads in [1, 2, 3, 5] {
            let pool = Pool::new(threads).expect("threads start");
            for jobs in [0, 1, 2, 7, 1000] {
                let seen: Vec<AtomicUsize> = (0..jobs).map(|_| AtomicUsize::new(0)).collect();
                pool.run(jobs, &|job, thread| {
                    assert!(thread < threads);
                    seen[job].fetch_add(1, SeqCst);
                });
                assert!(seen.iter().all(|n| n.load(SeqCst) == 1));
            }
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_goes_on() {
        let pool = Pool::new(3).expect("threads start");
        let hit = catch_unwind(AssertUnwindSafe(|| {
            pool.run(64, &|job, _| assert_ne!(job, 40, "planted"));
        }));
        assert!(hit.is_err());
        let count = AtomicUsize::new(0);
        pool.run(64, &|_, _| {
            count.fetch_add(1, SeqCst);
        });
        assert_eq!(count.load(SeqCst), 64);
    }

    #[test]
    fn pieces_cover_the_slice() {
        let pool = Pool::new(2).expect("threads start");
        let mut data = vec![0usize; 1001];
        pool.pieces(&mut data, 64, |i, part| {
            part.iter_mut().for_each(|x| *x = i + 1)
        });
        assert!(data.iter().enumerate().all(|(i, x)| *x == i / 64 + 1));
    }
}
