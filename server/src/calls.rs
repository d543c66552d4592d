//! Work for the engine that has an HTTP client waiting for it: it runs between jobs, ahead of
//! those that wait, and ends when the client goes away or the server stops.

use crate::app::App;
use crate::lm::NoLm;
use crate::queue::Refused;
use engine::Error;
use engine::song::{DescribeRequest, Description, Stage, Watch};
use tokio::sync::oneshot;

/// How the engine thread answers.
pub type Answer<T> = oneshot::Sender<Result<T, Unable>>;

/// What the engine thread is asked for.
#[derive(Debug)]
pub enum Call {
    /// A song in words.
    Describe(Box<DescribeRequest>, Answer<Description>),
    /// Models are exchanged.
    Init(Init, Answer<()>),
    /// What is missing is loaded; the answer are the names of what was.
    Reinitialize(Answer<Vec<String>>),
    /// Models are forgotten.
    Unload(Unload, Answer<()>),
}

/// Which models are forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unload {
    /// The diffusion models.
    pub dit: bool,
    /// The language model.
    pub lm: bool,
}

/// Which models take the place of which.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Init {
    /// Slot of the diffusion model, from 1.
    pub slot: usize,
    /// Its name; without one the slot's own is loaded anew.
    pub model: Option<String>,
    /// Whether a language model is loaded too, and of which name.
    pub lm: Option<Option<String>>,
}

/// Why a call has no result.
#[derive(Debug, Clone, PartialEq)]
pub enum Unable {
    /// As many calls wait as may.
    Busy,
    /// The server is about to end.
    Stopping,
    /// There is no language model.
    NoLm(NoLm),
    /// The work itself failed.
    Failed(Error),
}

impl From<Error> for Unable {
    fn from(error: Error) -> Self {
        match error {
            Error::Cancelled => Unable::Stopping,
            error => Unable::Failed(error),
        }
    }
}

impl Call {
    /// Whether nobody waits for the answer any more.
    pub fn is_abandoned(&self) -> bool {
        match self {
            Call::Describe(_, answer) => answer.is_closed(),
            Call::Init(_, answer) | Call::Unload(_, answer) => answer.is_closed(),
            Call::Reinitialize(answer) => answer.is_closed(),
        }
    }
}

/// Asks the engine thread and waits. Dropping the future gives the call up.
pub async fn ask<T>(app: &App, call: impl FnOnce(Answer<T>) -> Call) -> Result<T, Unable> {
    let (sender, answer) = oneshot::channel();
    app.queue
        .push_call(call(sender), Call::is_abandoned)
        .map_err(|refused| match refused {
            Refused::Full => Unable::Busy,
            Refused::Closed => Unable::Stopping,
        })?;
    // A call that is dropped unanswered was still waiting when the server stopped.
    answer.await.unwrap_or(Err(Unable::Stopping))
}

/// Watches a call: it ends with the server or when nobody waits any more.
pub struct CallWatch<'a, T> {
    /// The server.
    pub app: &'a App,
    /// Who waits.
    pub answer: &'a Answer<T>,
}

impl<T> Watch for CallWatch<'_, T> {
    fn progress(&self, _: Stage, _: usize, _: usize) {}

    fn cancelled(&self) -> bool {
        self.app.is_stopping() || self.answer.is_closed()
    }
}
