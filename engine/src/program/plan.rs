//! Memory planning: every temporary gets a place in one arena, once, before the first run.
//!
//! The planner walks the steps, frees a value after its last use, writes over the first input
//! where the operation allows it, and otherwise takes the smallest gap that fits.

use super::build::{Program, Val, ValKind};

/// Where the temporaries and scratch spaces of a program lie.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Byte offset in the arena per value; `None` for values that live elsewhere.
    pub offsets: Vec<Option<usize>>,
    /// Byte offset of each step's scratch space.
    pub scratch: Vec<usize>,
    /// Bytes of the whole arena.
    pub arena_bytes: usize,
}

/// Plans `program`.
///
/// * `align`: alignment of every place, a power of two.
/// * `piece`: no place crosses a multiple of it (a multiple of `align`, or `usize::MAX`), unless
///   it is larger itself: then it begins at one.
/// * `external`: roots that live outside the arena although they are computed (outputs written
///   straight to their region).
/// * `scratch`: bytes a step needs beside its operands.
pub fn plan(
    program: &Program,
    align: usize,
    piece: usize,
    external: &dyn Fn(Val) -> bool,
    scratch: &dyn Fn(usize) -> usize,
) -> Plan {
    let n = program.vals.len();
    let last = last_uses(program);
    let in_arena = |v: Val| matches!(program.vals[v.index()].kind, ValKind::Temp) && !external(v);
    let mut plan = Plan {
        offsets: vec![None; n],
        scratch: Vec::with_capacity(program.steps.len()),
        arena_bytes: 0,
    };
    let mut gaps = Gaps {
        taken: Vec::new(),
        top: 0,
        align,
        piece,
    };
    for (i, step) in program.steps.iter().enumerate() {
        let size = program.vals[step.out.index()].bytes();
        if in_arena(step.out) {
            let first = step.ins.first().map(|v| program.root(*v));
            let reuse = first.filter(|&v| {
                step.op.may_overwrite()
                    && in_arena(v)
                    && last[v.index()] == i
                    && program.vals[v.index()].bytes() == size
                    // the same value twice among the inputs must not be destroyed while read
                    && step.ins.iter().filter(|o| program.root(**o) == v).count() == 1
            });
            plan.offsets[step.out.index()] = Some(match reuse {
                Some(v) => {
                    let at = plan.offsets[v.index()].unwrap_or(0);
                    gaps.release(at);
                    gaps.take_at(at, size);
                    at
                }
                None => gaps.take(size),
            });
        }
        let room = scratch(i);
        let at = if room > 0 { gaps.take(room) } else { 0 };
        plan.scratch.push(at);
        if room > 0 {
            gaps.release(at);
        }
        // Free what was read for the last time, and results that nobody reads.
        let mut ended: Vec<Val> = step.ins.iter().map(|v| program.root(*v)).collect();
        ended.push(step.out);
        ended.sort();
        ended.dedup();
        for v in ended {
            let overwritten =
                v != step.out && plan.offsets[v.index()] == plan.offsets[step.out.index()];
            if in_arena(v)
                && last[v.index()] == i
                && !overwritten
                && let Some(at) = plan.offsets[v.index()]
            {
                gaps.release(at);
            }
        }
    }
    plan.arena_bytes = gaps.top;
    plan
}

/// The last step that reads each root; outputs are read after the last step.
fn last_uses(program: &Program) -> Vec<usize> {
    let mut last = vec![0; program.vals.len()];
    for (i, step) in program.steps.iter().enumerate() {
        last[step.out.index()] = i;
        for v in &step.ins {
            last[program.root(*v).index()] = i;
        }
    }
    for (_, v) in &program.outs {
        last[program.root(*v).index()] = usize::MAX;
    }
    last
}

/// Taken places of the arena, sorted by offset.
struct Gaps {
    taken: Vec<(usize, usize)>,
    top: usize,
    align: usize,
    piece: usize,
}

impl Gaps {
    fn take(&mut self, bytes: usize) -> usize {
        let bytes = bytes.max(1).next_multiple_of(self.align);
        let mut best: Option<(usize, usize)> = None;
        let mut at = 0;
        for &(start, len) in &self.taken {
            let gap = start - at;
            let from = self.whole(at, bytes);
            if from + bytes <= start && best.is_none_or(|(_, g)| gap < g) {
                best = Some((from, gap));
            }
            at = start + len;
        }
        let start = best.map_or(self.whole(at, bytes), |(start, _)| start);
        self.take_at(start, bytes);
        start
    }

    /// The first place from `at` on where `bytes` lie in one piece.
    fn whole(&self, at: usize, bytes: usize) -> usize {
        let room = self.piece - at % self.piece;
        if room >= bytes || room == self.piece {
            at
        } else {
            at + room
        }
    }

    fn take_at(&mut self, start: usize, bytes: usize) {
        let bytes = bytes.max(1).next_multiple_of(self.align);
        let i = self.taken.partition_point(|&(s, _)| s < start);
        self.taken.insert(i, (start, bytes));
        self.top = self.top.max(start + bytes);
    }

    fn release(&mut self, start: usize) {
        self.taken.retain(|&(s, _)| s != start);
    }
}
