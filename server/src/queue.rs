//! The bounded queue between the HTTP side and the engine thread.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard};

/// First in, first out, with a bound on what waits.
pub struct Queue<T> {
    bound: usize,
    state: Mutex<State<T>>,
    changed: Condvar,
}

struct State<T> {
    waiting: VecDeque<T>,
    closed: bool,
}

/// Why an item was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// As many items wait as may.
    Full,
    /// The server is about to end.
    Closed,
}

impl<T> Queue<T> {
    /// A queue in which at most `bound` items wait.
    pub fn new(bound: usize) -> Self {
        let state = Mutex::new(State {
            waiting: VecDeque::new(),
            closed: false,
        });
        Queue {
            bound,
            state,
            changed: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // Nothing panics while it is held, and the state is valid after every statement.
        self.state
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Puts an item at the end and returns its position, 1 for the next to run. `record` runs
    /// under the queue's lock, so that an item and its record appear together, or neither does.
    pub fn push(&self, item: T, record: impl FnOnce()) -> Result<usize, Refused> {
        let mut state = self.lock();
        if state.closed {
            return Err(Refused::Closed);
        }
        if state.waiting.len() >= self.bound {
            return Err(Refused::Full);
        }
        record();
        state.waiting.push_back(item);
        self.changed.notify_one();
        Ok(state.waiting.len())
    }

    /// The next item; waits for one. `None` when the queue is closed.
    pub fn pop(&self) -> Option<T> {
        let mut state = self.lock();
        loop {
            if state.closed {
                return None;
            }
            if let Some(item) = state.waiting.pop_front() {
                return Some(item);
            }
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(std::sync::PoisonError::into_inner);
        }
    }

    /// How many items wait.
    pub fn len(&self) -> usize {
        self.lock().waiting.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many items may wait.
    pub fn bound(&self) -> usize {
        self.bound
    }

    /// Refuses further items, wakes whoever waits and returns what was waiting.
    pub fn close(&self) -> Vec<T> {
        let mut state = self.lock();
        state.closed = true;
        self.changed.notify_all();
        state.waiting.drain(..).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn order_positions_and_bound() {
        let queue = Queue::new(2);
        assert_eq!(queue.push(1, || ()), Ok(1));
        assert_eq!(queue.push(2, || ()), Ok(2));
        let mut recorded = false;
        assert_eq!(queue.push(3, || recorded = true), Err(Refused::Full));
        assert!(!recorded, "a refused item leaves nothing behind");
        assert_eq!(queue.pop(), Some(1));
        assert_eq!(queue.push(3, || ()), Ok(2));
        assert_eq!((queue.pop(), queue.pop()), (Some(2), Some(3)));
    }

    #[test]
    fn closing_returns_what_waits_and_ends_consumers() {
        let queue = Queue::new(9);
        std::thread::scope(|scope| {
            let consumer = scope.spawn(|| queue.pop());
            assert!(queue.push(1, || ()).is_ok());
            assert_eq!(consumer.join().ok(), Some(Some(1)));
        });
        assert!(queue.push(2, || ()).is_ok());
        assert_eq!(queue.close(), [2]);
        assert_eq!(queue.pop(), None);
        assert_eq!(queue.push(3, || ()), Err(Refused::Closed));
    }

    #[test]
    fn concurrent_pushes_never_overshoot() {
        let queue = Queue::new(10);
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
