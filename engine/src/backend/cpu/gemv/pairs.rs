//! bf16 weights times bf16 activations with the instruction for pairs of bf16.

use super::GROUP;
use crate::backend::cpu::level::Level;

/// Whether this processor family has the instruction at all; the kernel's level says whether this
/// processor does.
pub const AVAILABLE: bool = cfg!(target_arch = "x86_64");

/// Inner products of one row of weights with each staged row of activations, one per sum. Only
/// for kernels that multiply pairs, which are of the one level that can.
pub fn multiply(level: Level, w: &[u8], xs: &[u32], sums: &mut [f32]) {
    let lanes = xs.len() / sums.len();
    for (sums, xs) in sums.chunks_mut(GROUP).zip(xs.chunks(GROUP * lanes)) {
        #[cfg(target_arch = "x86_64")]
        if level == Level::Avx512Bf16 {
            // SAFETY: holding the level proves that the processor has the instructions.
            unsafe {
                match *sums {
                    [_] => x86::sums::<1>(w, xs, sums),
                    [_, _] => x86::sums::<2>(w, xs, sums),
                    [_, _, _] => x86::sums::<3>(w, xs, sums),
                    _ => x86::sums::<4>(w, xs, sums),
                }
            }
            continue;
        }
        let _ = (level, w, xs);
        sums.fill(f32::NAN);
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use crate::backend::cpu::gemv::{BLOCK, fetch_ahead};
    use std::arch::x86_64::*;

    /// Blocks that are summed side by side: a sum waits several cycles for its predecessor.
    const SIDE: usize = 4;

    /// 32 bf16.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    fn halves(x: __m512i) -> __m512bh {
        // SAFETY: both types are 512 bits of anything.
        unsafe { std::mem::transmute::<__m512i, __m512bh>(x) }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    pub fn sums<const M: usize>(w: &[u8], xs: &[u32], sums: &mut [f32]) {
        let lanes = xs.len() / M;
        let mut acc = [[_mm512_setzero_ps(); M]; SIDE];
        let (blocks, rest) = w.as_chunks::<{ 2 * BLOCK }>();
        for (i, group) in blocks.chunks(SIDE).enumerate() {
            for (j, block) in group.iter().enumerate() {
                fetch_ahead(block.as_ptr());
                // SAFETY: a block is 64 bytes.
                let block = unsafe { _mm512_loadu_si512(block.as_ptr().cast()) };
                add::<M>(halves(block), xs, lanes, SIDE * i + j, &mut acc[j]);
            }
        }
        if !rest.is_empty() {
            let mut block = [0u8; 2 * BLOCK];
            block[..rest.len()].copy_from_slice(rest);
            // SAFETY: as above.
            let block = unsafe { _mm512_loadu_si512(block.as_ptr().cast()) };
            add::<M>(halves(block), xs, lanes, blocks.len(), &mut acc[0]);
        }
        for (m, sum) in sums.iter_mut().enumerate().take(M) {
            let lo = _mm512_add_ps(acc[0][m], acc[1][m]);
            let hi = _mm512_add_ps(acc[2][m], acc[3][m]);
            *sum = _mm512_reduce_add_ps(_mm512_add_ps(lo, hi));
        }
    }

    /// Adds the products of block `i` of a row of weights and of `M` rows of activations.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    fn add<const M: usize>(w: __m512bh, xs: &[u32], lanes: usize, i: usize, acc: &mut [__m512; M]) {
        for (m, acc) in acc.iter_mut().enumerate() {
            let x = &xs[m * lanes + i * BLOCK / 2..][..BLOCK / 2];
            // SAFETY: 16 lanes are 64 bytes.
            let x = unsafe { _mm512_loadu_si512(x.as_ptr().cast()) };
            *acc = _mm512_dpbf16_ps(*acc, w, halves(x));
        }
    }
}
