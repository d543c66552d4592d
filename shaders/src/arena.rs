//! The memory of temporaries, which all prepared programs share: a run leaves nothing in it.

use crate::core::{Core, Turn};
use crate::usage::Counted;
use engine::Result;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Bind groups of a program.
#[derive(Default)]
pub struct Groups {
    /// One per dispatch; none when the arena that they named is gone.
    pub made: Vec<wgpu::BindGroup>,
}

/// Pieces of equal size, but for the last.
#[derive(Default)]
pub struct Arena {
    pieces: Vec<Counted>,
    bytes: usize,
    /// The bind groups that keep pieces alive.
    programs: Vec<Weak<Mutex<Groups>>>,
}

impl Arena {
    /// The buffer of a piece; `None` beyond what was reserved.
    pub fn piece(&self, index: usize) -> Option<&wgpu::Buffer> {
        self.pieces.get(index).map(|piece| &piece.raw)
    }

    /// Says that `groups` name pieces.
    pub fn register(&mut self, groups: &Arc<Mutex<Groups>>) {
        self.programs.retain(|program| program.strong_count() > 0);
        self.programs.push(Arc::downgrade(groups));
    }

    /// Lets go of bind groups and of the last piece.
    fn shrink(&mut self, piece: usize) {
        for program in self.programs.iter().filter_map(Weak::upgrade) {
            let mut groups = program.lock().unwrap_or_else(PoisonError::into_inner);
            groups.made.clear();
        }
        self.bytes = self.bytes / piece * piece;
        self.pieces.truncate(self.bytes / piece);
    }
}

/// Sees to it that the arena has `bytes`. What was prepared on a smaller one binds anew when it
/// runs next.
pub fn reserve(core: &Core, turn: &mut Turn, bytes: usize) -> Result<()> {
    if turn.arena.bytes >= bytes {
        return Ok(());
    }
    // The last piece goes first: the two need not fit side by side.
    core.submit(turn)?;
    turn.arena.shrink(core.gpu.limits.piece);
    core.settle(turn)?;
    while turn.arena.bytes < bytes {
        let piece = core.gpu.limits.piece.min(bytes - turn.arena.bytes);
        turn.arena.pieces.push(core.gpu.buffer(piece)?);
        turn.arena.bytes += piece;
        core.allocated();
    }
    Ok(())
}
