//! Sets of token ids, compact and in ascending order.

use std::ops::Range;

/// Ids as ascending, disjoint ranges that do not touch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Spans {
    ranges: Vec<Range<u32>>,
    count: usize,
}

impl Spans {
    /// Appends ids behind all others.
    pub(super) fn push(&mut self, ids: Range<u32>) {
        if ids.is_empty() {
            return;
        }
        self.count += ids.len();
        match self.ranges.last_mut() {
            Some(last) if last.end == ids.start => last.end = ids.end,
            _ => self.ranges.push(ids),
        }
    }

    /// The ids of `0..size` that `keep` keeps.
    pub(super) fn matching(size: u32, keep: impl Fn(u32) -> bool) -> Self {
        let mut spans = Spans::default();
        (0..size)
            .filter(|id| keep(*id))
            .for_each(|id| spans.push(id..id + 1));
        spans
    }

    /// The ranges.
    pub fn ranges(&self) -> &[Range<u32>] {
        &self.ranges
    }

    /// Number of ids.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Whether an id is among them.
    pub fn contains(&self, id: u32) -> bool {
        let after = self.ranges.partition_point(|r| r.start <= id);
        after > 0 && self.ranges[after - 1].contains(&id)
    }
}

/// The tokens that may come next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Allowed<'a> {
    /// One token; nothing has to be computed or drawn.
    Forced(u32),
    /// A few, ascending.
    Few(&'a [u32]),
    /// Many.
    Spans(&'a Spans),
    /// Audio codes, and the end of the completion where it may end here.
    Codes {
        /// Ids of the legal codes.
        codes: Range<u32>,
        /// Id of the end.
        end: Option<u32>,
    },
    /// Every token of the vocabulary.
    All {
        /// Size of the vocabulary.
        size: u32,
    },
}

impl Allowed<'_> {
    /// Number of tokens.
    pub fn count(&self) -> usize {
        match self {
            Allowed::Forced(_) => 1,
            Allowed::Few(ids) => ids.len(),
            Allowed::Spans(spans) => spans.count(),
            Allowed::Codes { codes, end } => codes.len() + usize::from(end.is_some()),
            Allowed::All { size } => *size as usize,
        }
    }

    /// Whether a token is among them.
    pub fn contains(&self, id: u32) -> bool {
        match self {
            Allowed::Forced(only) => *only == id,
            Allowed::Few(ids) => ids.contains(&id),
            Allowed::Spans(spans) => spans.contains(id),
            Allowed::Codes { codes, end } => codes.contains(&id) || *end == Some(id),
            Allowed::All { size } => id < *size,
        }
    }

    /// Calls `visit` with ranges that make up the set, ascending.
    pub fn for_each_range(&self, mut visit: impl FnMut(Range<u32>)) {
        match self {
            Allowed::Forced(id) => visit(*id..id + 1),
            Allowed::Few(ids) => ids.iter().for_each(|id| visit(*id..id + 1)),
            Allowed::Spans(spans) => spans.ranges().iter().cloned().for_each(visit),
            Allowed::Codes { codes, end } => {
                let end = end.map(|id| id..id + 1);
                let first = end.clone().filter(|e| e.start < codes.start);
                let last = end.filter(|e| e.start >= codes.start);
                first.into_iter().for_each(&mut visit);
                visit(codes.clone());
                last.into_iter().for_each(&mut visit);
            }
            Allowed::All { size } => visit(0..*size),
        }
    }

    /// The allowed token of the largest logit, the lowest id among equals; `logits` are those of
    /// the whole vocabulary. The lowest allowed id when every logit is NaN or missing.
    pub fn best(&self, logits: &[f32]) -> u32 {
        let mut best: Option<(u32, f32)> = None;
        self.for_each_range(|ids| {
            for id in ids {
                let logit = logits.get(id as usize).copied().unwrap_or(f32::NAN);
                if best.is_none_or(|(_, most)| logit > most || most.is_nan() && !logit.is_nan()) {
                    best = Some((id, logit));
                }
            }
        });
        best.map_or(0, |(id, _)| id)
    }
}
