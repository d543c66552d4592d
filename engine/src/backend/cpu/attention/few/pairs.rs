//! Queries and keys of bf16 with the instruction for pairs of bf16; values are widened in
//! registers, even and odd elements apart.

use super::{Block, Rows};
use crate::backend::cpu::attention::Stored;
use crate::backend::cpu::level::Level;
use crate::backend::cpu::tile::Kernel;

/// Elements of one register of keys or values.
const LANES: usize = 32;

/// Whether these kernels can take keys of `d` elements.
pub fn fits(kernel: Kernel, k: Stored, d: usize) -> bool {
    kernel.pairs && matches!(k, Stored::Bf16(_)) && d.is_multiple_of(LANES)
}

/// Inner products of one or two queries, in pairs, with every key. `x` is what the rows are of.
pub fn scores(level: Level, q: &[u32], x: &[u16], k: &Rows, ahead: &Rows, p: &mut [Block]) {
    #[cfg(target_arch = "x86_64")]
    if level == Level::Avx512Bf16 {
        // SAFETY: holding the level proves that the processor has the instructions.
        unsafe {
            match p {
                [p] => x86::scores::<1>(q, x, k, ahead, [p]),
                [p, r] => x86::scores::<2>(q, x, k, ahead, [p, r]),
                _ => {}
            }
        }
        return;
    }
    let _ = (level, q, x, k, ahead);
    p.iter_mut().for_each(|p| p.fill(f32::NAN));
}

/// Adds the weighted values to the results of one or two queries.
pub fn add_values(level: Level, p: &[Block], x: &[u16], v: &Rows, ahead: &Rows, out: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if level == Level::Avx512Bf16 {
        // SAFETY: as above.
        unsafe {
            match p {
                [p] => x86::add_values::<1>([p], x, v, ahead, out),
                [p, r] => x86::add_values::<2>([p, r], x, v, ahead, out),
                _ => {}
            }
        }
        return;
    }
    let _ = (level, p, x, v, ahead);
    out.fill(f32::NAN);
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::super::{Block, Rows, SIDE};
    use super::LANES;
    use std::arch::x86_64::*;

    /// Most registers of one value whose sums are kept at once.
    const WIDE: usize = 4;

    /// [`LANES`] elements of bf16 from the beginning of `x`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    fn load(x: &[u16]) -> __m512i {
        let x = &x[..LANES];
        // SAFETY: 32 elements are 64 bytes.
        unsafe { _mm512_loadu_si512(x.as_ptr().cast()) }
    }

    /// A register as pairs of bf16.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    fn pairs(x: __m512i) -> __m512bh {
        // SAFETY: both types are 512 bits of anything.
        unsafe { std::mem::transmute::<__m512i, __m512bh>(x) }
    }

    /// The sums of four registers. Each is added up in the same order wherever it stands.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx")]
    fn add_up([a, b, c, d]: [__m512; SIDE]) -> __m128 {
        let half = |x| _mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps::<1>(x));
        let (ab, cd) = (
            _mm256_hadd_ps(half(a), half(b)),
            _mm256_hadd_ps(half(c), half(d)),
        );
        let all = _mm256_hadd_ps(ab, cd);
        _mm_add_ps(_mm256_castps256_ps128(all), _mm256_extractf128_ps::<1>(all))
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512bf16,avx")]
    pub fn scores<const N: usize>(
        q: &[u32],
        x: &[u16],
        k: &Rows,
        ahead: &Rows,
        mut p: [&mut Block; N],
    ) {
        let (q, pairs_of_query): (&[u16], _) = (bytemuck::cast_slice(q), k.d);
        for j in (0..k.n).step_by(SIDE) {
            ahead.fetch(j);
            let rows: [&[u16]; SIDE] = std::array::from_fn(|i| &x[k.at(j + i)..][..k.d]);
            let mut acc = [[_mm512_setzero_ps(); SIDE]; N];
            for at in (0..k.d).step_by(LANES) {
                let keys: [__m512i; SIDE] = std::array::from_fn(|i| load(&rows[i][at..]));
                for (h, acc) in acc.iter_mut().enumerate() {
                    let q = pairs(load(&q[h * pairs_of_query + at..]));
                    for (acc, key) in acc.iter_mut().zip(keys) {
                        *acc = _mm512_dpbf16_ps(*acc, q, pairs(key));
                    }
                }
            }
            for (p, acc) in p.iter_mut().zip(acc) {
                // Stand-ins for missing keys give scores that nobody looks at.
                let p = &mut p[j..j + SIDE];
                // SAFETY: four elements are 16 bytes.
                unsafe { _mm_storeu_ps(p.as_mut_ptr(), add_up(acc)) };
            }
        }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512bf16")]
    pub fn add_values<const N: usize>(
        p: [&Block; N],
        x: &[u16],
        v: &Rows,
        ahead: &Rows,
        out: &mut [f32],
    ) {
        for at in (0..v.d).step_by(WIDE * LANES) {
            let ahead = if at == 0 { *ahead } else { ahead.none() };
            match (v.d - at) / LANES {
                1 => columns::<N, 1>(p, x, v, &ahead, at, out),
                2 => columns::<N, 2>(p, x, v, &ahead, at, out),
                3 => columns::<N, 3>(p, x, v, &ahead, at, out),
                _ => columns::<N, WIDE>(p, x, v, &ahead, at, out),
            }
        }
    }

    /// `C` registers of every value from element `at` on, added to the results.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512bf16")]
    fn columns<const N: usize, const C: usize>(
        p: [&Block; N],
        x: &[u16],
        v: &Rows,
        ahead: &Rows,
        at: usize,
        out: &mut [f32],
    ) {
        let odd = _mm512_set1_epi32(0xffff_0000_u32 as i32);
        let mut acc = [[[_mm512_setzero_ps(); 2]; C]; N];
        for j in 0..v.n {
            if j % SIDE == 0 {
                ahead.fetch(j);
            }
            let row = &x[v.at(j) + at..][..C * LANES];
            let weights: [__m512; N] = std::array::from_fn(|h| _mm512_set1_ps(p[h][j]));
            for c in 0..C {
                let pair = load(&row[c * LANES..]);
                let even = _mm512_castsi512_ps(_mm512_slli_epi32::<16>(pair));
                let odd = _mm512_castsi512_ps(_mm512_and_si512(pair, odd));
                for (acc, w) in acc.iter_mut().zip(weights) {
                    acc[c][0] = _mm512_fmadd_ps(w, even, acc[c][0]);
                    acc[c][1] = _mm512_fmadd_ps(w, odd, acc[c][1]);
                }
            }
        }
        for (h, acc) in acc.iter().enumerate() {
            let out = &mut out[h * v.d + at..][..C * LANES];
            for (out, [even, odd]) in out.as_chunks_mut::<LANES>().0.iter_mut().zip(acc) {
                add_interleaved(*even, *odd, out);
            }
        }
    }

    /// Adds even and odd elements to `out`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512bf16")]
    fn add_interleaved(even: __m512, odd: __m512, out: &mut [f32; LANES]) {
        let low = _mm512_set_epi32(23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
        let high = _mm512_set_epi32(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8);
        for (order, out) in [low, high].into_iter().zip(out.chunks_exact_mut(16)) {
            let sums = _mm512_permutex2var_ps(even, order, odd);
            // SAFETY: 16 elements are 64 bytes.
            unsafe {
                let before = _mm512_loadu_ps(out.as_ptr());
                _mm512_storeu_ps(out.as_mut_ptr(), _mm512_add_ps(before, sums));
            }
        }
    }
}
