//! Softmax attention with grouped heads, in blocks of keys: the score matrix is never formed.
//!
//! Many queries go through the micro-kernels of matrix products ([`tiles`]), for which keys and
//! values are packed first; a few are not worth the packing and go row by row ([`few`]).

mod few;
mod tiles;
mod weights;

use super::level::Level;
use super::pool::Pool;
use super::prefetch::prefetch;
use super::tile::Kernel;
use super::weight::Weight;
use crate::program::{DType, Mask, Math};

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

/// Keys or values as they are stored: activations, or what a cache keeps.
#[derive(Clone, Copy)]
pub enum Stored<'a> {
    /// As they were computed.
    F32(&'a [f32]),
    /// Bits of bf16.
    Bf16(&'a [u16]),
}

impl<'a> Stored<'a> {
    /// Elements of one of the two dtypes.
    pub fn new(bytes: &'a [u8], dtype: DType) -> Self {
        match dtype {
            DType::BF16 => Stored::Bf16(bytemuck::cast_slice(bytes)),
            _ => Stored::F32(bytemuck::cast_slice(bytes)),
        }
    }

    fn weight(self) -> Weight<'a> {
        match self {
            Stored::F32(x) => Weight {
                bytes: bytemuck::cast_slice(x),
                dtype: DType::F32,
            },
            Stored::Bf16(x) => Weight {
                bytes: bytemuck::cast_slice(x),
                dtype: DType::BF16,
            },
        }
    }

    /// Asks for `len` elements from `at` on.
    #[inline(always)]
    fn fetch(self, at: usize, len: usize) {
        match self {
            Stored::F32(x) => prefetch(&x[at..][..len]),
            Stored::Bf16(x) => prefetch(&x[at..][..len]),
        }
    }
}

/// The operands, and which keys are seen.
#[derive(Clone, Copy)]
struct Operands<'a> {
    dims: AttentionDims,
    mask: Mask,
    q: &'a [f32],
    k: Stored<'a>,
    v: Stored<'a>,
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
        few::scratch_bytes(dims, threads)
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
    k: Stored,
    v: Stored,
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
    let kernel = Kernel::new(level, math);
    if dims.t < MANY {
        few::attention(pool, kernel, &operands, out, scratch);
    } else {
        tiles::attention(pool, kernel, &operands, out, scratch);
    }
}

/// Scratch that [`attention_weights`] needs with a pool of `threads` threads.
pub fn weights_scratch_bytes(dims: &AttentionDims, threads: usize) -> usize {
    weights::scratch_bytes(dims, threads)
}

/// `Op::AttentionWeights`.
#[allow(clippy::too_many_arguments)] // one argument per operand of the contract
pub fn attention_weights(
    pool: &Pool,
    level: Level,
    math: Math,
    (mask, heads): (Mask, &[usize]),
    dims: &AttentionDims,
    q: &[f32],
    k: Stored,
    lengths: Option<&[i32]>,
    out: &mut [f32],
    scratch: &mut [u8],
) {
    let operands = Operands {
        dims: *dims,
        mask,
        q,
        k,
        // Nothing asks for values.
        v: k,
        lengths,
    };
    weights::weights(
        pool,
        Kernel::new(level, math),
        &operands,
        heads,
        out,
        scratch,
    );
}
