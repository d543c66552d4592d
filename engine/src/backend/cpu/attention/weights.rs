//! The weights of attention themselves, for who wants to see what looks at what: a row of scores
//! per query and chosen head, softened in place.

use super::tiles::{exponentials, largest};
use super::{AttentionDims, Operands, Stored};
use crate::backend::cpu::pack::round_row;
use crate::backend::cpu::parts::Parts;
use crate::backend::cpu::pool::Pool;
use crate::backend::cpu::tile::Kernel;
use crate::backend::cpu::vecmath::{dot, scale_row};

/// Queries of one job, which share the keys that it brings together.
const QUERIES: usize = 64;

/// Scratch that [`weights`] needs with a pool of `threads` threads: the keys of a head and a
/// query for each thread.
pub fn scratch_bytes(dims: &AttentionDims, threads: usize) -> usize {
    4 * threads * lanes(dims)
}

fn lanes(dims: &AttentionDims) -> usize {
    ((dims.s + 1) * dims.d).next_multiple_of(16)
}

/// `Op::AttentionWeights`: out `(B, heads, T, S)`.
pub fn weights(
    pool: &Pool,
    kernel: Kernel,
    o: &Operands,
    heads: &[usize],
    out: &mut [f32],
    scratch: &mut [u8],
) {
    let AttentionDims { b, t, s, d, .. } = o.dims;
    let (blocks, lanes) = (t.div_ceil(QUERIES), lanes(&o.dims));
    let scratch = Parts::new(bytemuck::cast_slice_mut::<u8, f32>(scratch));
    let out = Parts::new(out);
    pool.run(b * heads.len() * blocks, &|job, thread| {
        // SAFETY: one part per thread, and no two jobs of a thread run at once.
        let staged = unsafe { scratch.part(thread * lanes, lanes) };
        let (map, block) = (job / blocks, job % blocks);
        let (b, head) = (map / heads.len(), heads[map % heads.len()]);
        let (keys, rest) = staged.split_at_mut(s * d);
        stage_keys(kernel, o, b, head, keys);
        let query = &mut rest[..d];
        for i in block * QUERIES..t.min((block + 1) * QUERIES) {
            query.copy_from_slice(o.queries(b, i, head, 1));
            round(kernel, query);
            // SAFETY: every row of the output belongs to one job.
            let row = unsafe { out.part((map * t + i) * s, s) };
            soften(kernel, o, query, keys, o.visible(b, i), row);
        }
    });
}

fn round(kernel: Kernel, row: &mut [f32]) {
    if kernel.pairs || kernel.round {
        round_row(kernel.level(), row);
    }
}

/// The keys of the key/value head that query head `head` of item `b` uses, one after another.
fn stage_keys(kernel: Kernel, o: &Operands, b: usize, head: usize, keys: &mut [f32]) {
    let (start, d) = (o.head(b, head / o.dims.group()), o.dims.d);
    for (j, key) in keys.chunks_exact_mut(d).enumerate() {
        let at = start + j * o.stride();
        match o.k {
            Stored::F32(k) => key.copy_from_slice(&k[at..at + d]),
            Stored::Bf16(k) => {
                for (x, bits) in key.iter_mut().zip(&k[at..at + d]) {
                    *x = f32::from_bits(u32::from(*bits) << 16);
                }
            }
        }
        round(kernel, key);
    }
}

/// The weights of one query; 0 for keys that it does not see.
fn soften(
    kernel: Kernel,
    o: &Operands,
    query: &[f32],
    keys: &[f32],
    (first, end): (usize, usize),
    row: &mut [f32],
) {
    let (level, scale) = (kernel.level(), o.dims.scale());
    row.fill(0.0);
    let keys = keys.chunks_exact(query.len());
    let seen = &mut row[first..end.max(first)];
    if seen.is_empty() {
        return;
    }
    for (x, key) in seen.iter_mut().zip(keys.skip(first)) {
        *x = dot(level, query, key);
    }
    let max = scale * largest(level, seen);
    let sum = exponentials(level, seen, scale, max);
    scale_row(level, seen, 1.0 / sum);
}
