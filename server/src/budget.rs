//! How many bytes of request bodies the server holds at a time.

use crate::reply::{Refused, fault};
use hyper::StatusCode;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes that requests in flight may hold together.
pub const IN_FLIGHT: usize = 256 << 20;

/// The bytes that are left.
#[derive(Debug, Clone)]
pub struct Budget(Arc<Semaphore>);

impl Budget {
    /// A budget of `bytes`.
    pub fn new(bytes: usize) -> Self {
        Budget(Arc::new(Semaphore::new(bytes)))
    }

    /// A request that holds nothing yet.
    pub fn hold(&self) -> Held {
        Held {
            budget: self.0.clone(),
            permit: None,
        }
    }
}

/// What one request holds; given back when it is dropped.
#[derive(Debug)]
pub struct Held {
    budget: Arc<Semaphore>,
    permit: Option<OwnedSemaphorePermit>,
}

impl Held {
    /// Holds `bytes` more, or says that there is no room.
    pub fn add(&mut self, bytes: usize) -> Result<(), Refused> {
        let taken = u32::try_from(bytes)
            .ok()
            .and_then(|bytes| self.budget.clone().try_acquire_many_owned(bytes).ok());
        match (taken, &mut self.permit) {
            (None, _) => {
                return Err(fault(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "too many large requests at a time; send this one again later",
                ));
            }
            (Some(more), Some(permit)) => permit.merge(more),
            (Some(first), permit) => *permit = Some(first),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_comes_back() {
        let budget = Budget::new(10);
        let (mut one, mut two) = (budget.hold(), budget.hold());
        assert!(one.add(4).is_ok() && one.add(4).is_ok() && two.add(2).is_ok());
        let refused = two.add(1).map_err(|reply| reply.status());
        assert_eq!(refused, Err(StatusCode::SERVICE_UNAVAILABLE));
        drop(one);
        assert!(two.add(8).is_ok());
    }
}
