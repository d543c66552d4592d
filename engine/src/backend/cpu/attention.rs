//! Softmax attention with grouped heads, in blocks of keys: the score matrix is never formed.
//!
//! Many queries go through the micro-kernels of matrix products ([`tiles`]), for which keys and
//! values are packed first; a few are not worth the packing and go row by row ([`few`]).

mod few;
mod tiles;

use super::level::Level;
use super::pool::Pool;
use super::tile::Kernel;
use crate::program::{Mask, Math};

/// Fewest queries for which keys and values are packed.
const MANY: usize = 8;

/// Extents of the operands of [`attention`].
#[derive(Debug, Clone, Copy)]
pub struct AttentionDims {
    /// Batch items.
    pub b: usize,
    /// Queries per item.
    pub t: usize,
    /// Keys per item.
    pub s: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Head size.
    pub d: usize,
}

impl AttentionDims {
    /// Query heads that share a key/value head.
    fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    /// `1/sqrt(D)`.
    fn scale(&self) -> f32 {
        1.0 / (self.d as f32).sqrt()
    }
}

/// The operands, and which keys are seen.
#[derive(Clone, Copy)]
struct Operands<'a> {
    dims: AttentionDims,
    mask: Mask,
    q: &'a [f32],
    k: &'a [f32],
    v: &'a [f32],
    lengths: Option<&'a [i32]>,
}

impl<'a> Operands<'a> {
    /// Keys of item `b` that exist.
    fn length(&self, b: usize) -> usize {
        self.lengths
            .map_or(self.dims.s, |l| (l[b] as usize).min(self.dims.s))
    }

    /// Keys `first..end` that query `i` of item `b` sees; both ends grow with `i`.
    fn visible(&self, b: usize, i: usize) -> (usize, usize) {
        let length = self.length(b);
        let (first, end) = match self.mask {
            Mask::Full => (0, length),
            // Nothing for queries before the first position.
            Mask::Causal => (0, (length + i + 1).saturating_sub(self.dims.t)),
            Mask::Window(w) => (i.saturating_sub(w), i + w + 1),
        };
        (first.min(length), end.min(length))
    }

    /// Query `i` of item `b` for `n` heads from `h` on.
    fn queries(&self, b: usize, i: usize, h: usize, n: usize) -> &'a [f32] {
        let AttentionDims { t, heads, d, .. } = self.dims;
        &self.q[((b * t + i) * heads + h) * d..][..n * d]
    }

    /// Offset of key and value 0 of key/value head `g` of item `b`; they lie [`Self::stride`]
    /// apart.
    fn head(&self, b: usize, g: usize) -> usize {
        (b * self.dims.s * self.dims.kv_heads + g) * self.dims.d
    }

    fn stride(&self) -> usize {
        self.dims.kv_heads * self.dims.d
    }
}

/// Scratch that [`attention`] needs with a pool of `threads` threads.
pub fn attention_scratch_bytes(kernel: Kernel, dims: &AttentionDims, threads: usize) -> usize {
    if dims.t < MANY {
        0
    } else {
        tiles::scratch_bytes(kernel, dims, threads)
    }
}

/// `Op::Attention`.
#[allow(clippy::too_many_arguments)] // one argument per operand of the contract
pub fn attention(
    pool: &Pool,
    level: Level,
    math: Math,
    mask: Mask,
    dims: &AttentionDims,
    q: &[f32],
    k: &[f32],
    v: &[f32],
    lengths: Option<&[i32]>,
    out: &mut [f32],
    scratch: &mut [u8],
) {
    let operands = Operands {
        dims: *dims,
        mask,
        q,
        k,
        v,
        lengths,
    };
    if dims.t < MANY {
        few::attention(pool, level, math, &operands, out);
    } else {
        tiles::attention(pool, Kernel::new(level, math), &operands, out, scratch);
    }
}
