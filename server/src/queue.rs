//! The bounded queue between the HTTP side and the engine thread: jobs, and calls that have a
//! client waiting and so run ahead of them.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard};

/// Calls that may wait, and that may run one after another while a job waits.
pub const CALLS: usize = 8;

/// First in, first out, in two lanes with a bound each.
pub struct Queue<J, C> {
    bound: usize,
    state: Mutex<State<J, C>>,
    changed: Condvar,
}

struct State<J, C> {
    jobs: VecDeque<J>,
    calls: VecDeque<C>,
    /// Calls that were taken since the last job.
    in_a_row: usize,
    closed: bool,
}

/// What was waiting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next<J, C> {
    /// A job.
    Job(J),
    /// A call.
    Call(C),
}

/// Why an item was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// As many items wait as may.
    Full,
    /// The server is about to end.
    Closed,
}

impl<J, C> Queue<J, C> {
    /// A queue in which at most `bound` jobs wait.
    pub fn new(bound: usize) -> Self {
        let state = Mutex::new(State {
            jobs: VecDeque::new(),
            calls: VecDeque::new(),
            in_a_row: 0,
            closed: false,
        });
        Queue {
            bound,
            state,
            changed: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<J, C>> {
        // Nothing panics while it is held, and the state is valid after every statement.
        self.state
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Puts a job at the end and returns its position, 1 for the next to run. `record` runs
    /// under the queue's lock, so that a job and its record appear together, or neither does.
    pub fn push(&self, job: J, record: impl FnOnce()) -> Result<usize, Refused> {
        let mut state = self.lock();
        if state.closed {
            return Err(Refused::Closed);
        }
        if state.jobs.len() >= self.bound {
            return Err(Refused::Full);
        }
        record();
        state.jobs.push_back(job);
        self.changed.notify_one();
        Ok(state.jobs.len())
    }

    /// Puts a job that was taken before at the end, also where more wait than may.
    pub fn put_back(&self, job: J) -> Result<(), Refused> {
        let mut state = self.lock();
        if state.closed {
            return Err(Refused::Closed);
        }
        state.jobs.push_back(job);
        self.changed.notify_one();
        Ok(())
    }

    /// Takes out the jobs that are meant.
    pub fn take(&self, is_meant: impl Fn(&J) -> bool) -> Vec<J> {
        let mut state = self.lock();
        let (taken, left) = state.jobs.drain(..).partition(is_meant);
        state.jobs = left;
        taken.into()
    }

    /// Position of the first job that is meant, 1 for the next to run.
    pub fn position(&self, is_meant: impl Fn(&J) -> bool) -> Option<usize> {
        let at = self.lock().jobs.iter().position(is_meant)?;
        Some(at + 1)
    }

    /// Puts a call behind the others. Those that are abandoned make room.
    pub fn push_call(&self, call: C, is_abandoned: impl Fn(&C) -> bool) -> Result<(), Refused> {
        let mut state = self.lock();
        if state.closed {
            return Err(Refused::Closed);
        }
        state.calls.retain(|waiting| !is_abandoned(waiting));
        if state.calls.len() >= CALLS {
            return Err(Refused::Full);
        }
        state.calls.push_back(call);
        self.changed.notify_one();
        Ok(())
    }

    /// What comes next; waits for it. `None` when the queue is closed. Calls come first, but not
    /// for ever while a job waits.
    pub fn pop(&self) -> Option<Next<J, C>> {
        let mut state = self.lock();
        loop {
            if state.closed {
                return None;
            }
            let is_jobs_turn = state.in_a_row >= CALLS && !state.jobs.is_empty();
            if !is_jobs_turn && let Some(call) = state.calls.pop_front() {
                state.in_a_row += 1;
                return Some(Next::Call(call));
            }
            if let Some(job) = state.jobs.pop_front() {
                state.in_a_row = 0;
                return Some(Next::Job(job));
            }
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(std::sync::PoisonError::into_inner);
        }
    }

    /// How many jobs wait.
    pub fn len(&self) -> usize {
        self.lock().jobs.len()
    }

    /// Whether no job waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many jobs may wait.
    pub fn bound(&self) -> usize {
        self.bound
    }

    /// Refuses what comes, wakes whoever waits, drops the calls and returns the jobs that were
    /// waiting.
    pub fn close(&self) -> Vec<J> {
        let mut state = self.lock();
        state.closed = true;
        self.changed.notify_all();
        state.calls.clear();
        state.jobs.drain(..).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    type Jobs = Queue<i32, &'static str>;

    fn keep(_: &&'static str) -> bool {
        false
    }

    #[test]
    fn order_positions_and_bound() {
        let queue = Jobs::new(2);
        assert_eq!(queue.push(1, || ()), Ok(1));
        assert_eq!(queue.push(2, || ()), Ok(2));
        let mut recorded = false;
        assert_eq!(queue.push(3, || recorded = true), Err(Refused::Full));
        assert!(!recorded, "a refused job leaves nothing behind");
        assert_eq!(queue.pop(), Some(Next::Job(1)));
        assert_eq!(queue.push(3, || ()), Ok(2));
        let next = (queue.pop(), queue.pop());
        assert_eq!(next, (Some(Next::Job(2)), Some(Next::Job(3))));
    }

    #[test]
    fn jobs_are_found_taken_out_and_put_back() {
        let queue = Jobs::new(2);
        assert_eq!(queue.push(1, || ()), Ok(1));
        assert_eq!(queue.push(2, || ()), Ok(2));
        assert_eq!(queue.put_back(3), Ok(()), "also over the bound");
        assert_eq!(queue.position(|job| *job == 3), Some(3));
        assert_eq!(queue.take(|job| *job == 2), [2]);
        assert_eq!(queue.position(|job| *job == 3), Some(2));
        assert_eq!(queue.position(|job| *job == 2), None);
        assert_eq!(queue.close(), [1, 3]);
        assert_eq!(queue.put_back(4), Err(Refused::Closed));
    }

    #[test]
    fn calls_come_first_and_take_no_jobs_place() {
        let queue = Jobs::new(1);
        assert_eq!(queue.push(1, || ()), Ok(1));
        assert_eq!(queue.push_call("a", keep), Ok(()));
        assert_eq!(queue.push_call("b", keep), Ok(()));
        assert_eq!(queue.len(), 1);
        assert_eq!(queue.pop(), Some(Next::Call("a")));
        assert_eq!(queue.pop(), Some(Next::Call("b")));
        assert_eq!(queue.pop(), Some(Next::Job(1)));
    }

    #[test]
    fn calls_cannot_starve_a_job() {
        let queue = Jobs::new(1);
        assert_eq!(queue.push(1, || ()), Ok(1));
        let mut calls = 0;
        while queue.push_call("again", keep).is_ok() && queue.pop() != Some(Next::Job(1)) {
            calls += 1;
        }
        assert_eq!(calls, CALLS);
    }

    #[test]
    fn calls_are_bounded_and_abandoned_ones_make_room() {
        let queue = Jobs::new(1);
        for index in 0..CALLS {
            let call = if index == 0 { "gone" } else { "waits" };
            assert_eq!(queue.push_call(call, keep), Ok(()));
        }
        assert_eq!(queue.push_call("more", keep), Err(Refused::Full));
        assert_eq!(queue.push_call("more", |call| *call == "gone"), Ok(()));
        assert_eq!(queue.pop(), Some(Next::Call("waits")));
    }

    #[test]
    fn closing_returns_what_waits_and_ends_consumers() {
        let queue = Jobs::new(9);
        std::thread::scope(|scope| {
            let consumer = scope.spawn(|| queue.pop());
            assert!(queue.push(1, || ()).is_ok());
            assert_eq!(consumer.join().ok(), Some(Some(Next::Job(1))));
        });
        assert!(queue.push(2, || ()).is_ok());
        assert!(queue.push_call("a", keep).is_ok());
        assert_eq!(queue.close(), [2]);
        assert_eq!(queue.pop(), None);
        assert_eq!(queue.push(3, || ()), Err(Refused::Closed));
        assert_eq!(queue.push_call("b", keep), Err(Refused::Closed));
    }

    #[test]
    fn concurrent_pushes_never_overshoot() {
        let queue = Queue::<(), ()>::new(10);
        let records = AtomicUsize::new(0);
        let count = || {
            records.fetch_add(1, Ordering::SeqCst);
        };
        let taken = std::thread::scope(|scope| {
            let push = || queue.push((), count).is_ok();
            let threads: Vec<_> = (0..8)
                .map(|_| scope.spawn(move || (0..10).filter(|_| push()).count()))
                .collect();
            threads
                .into_iter()
                .map(|t| t.join().unwrap_or(0))
                .sum::<usize>()
        });
        assert_eq!((taken, queue.len(), records.into_inner()), (10, 10, 10));
    }
}
