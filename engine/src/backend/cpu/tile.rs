//! Micro-kernels of matrix products: a few rows of A times one panel of 32 columns of B.
//!
//! One family serves linears and convolutions. Operands are *lanes* of four bytes: an f32, or a
//! pair of bf16 that are neighbours along the summed axis. A is row-major with any row stride and
//! its elements are broadcast; B is packed so that a step of the summed axis is 32 neighbouring
//! lanes. The sum runs over `taps` segments of `k` lanes: a linear has one, a convolution one per
//! tap, with A moving by `a_tap` lanes from tap to tap.

use super::level::Level;
use crate::program::Math;

/// Columns of a panel.
pub const NR: usize = 32;
/// Most rows that any kernel of the family takes at once.
pub const MR_MAX: usize = 14;

/// Sums of one tile, row by row; rows beyond the tile's are undefined.
#[repr(align(64))]
pub struct Sums(pub [[f32; NR]; MR_MAX]);

impl Sums {
    /// Zeros.
    pub const fn new() -> Self {
        Sums([[0.0; NR]; MR_MAX])
    }
}

/// Operands of one tile.
#[derive(Clone, Copy)]
pub struct Tile<'a> {
    /// Lanes of A; the tile begins at the first.
    pub a: &'a [u32],
    /// Lanes from row to row of A.
    pub a_row: usize,
    /// Lanes from tap to tap of A.
    pub a_tap: usize,
    /// The panel: `taps * k * NR` lanes.
    pub b: &'a [u32],
    /// Segments of the sum.
    pub taps: usize,
    /// Lanes of one segment.
    pub k: usize,
    /// Memory that will be read soon: one line of it is fetched into the second-level cache per
    /// step of the sum, where the arithmetic hides the wait. May be empty.
    pub ahead: &'a [u8],
}

/// Which micro-kernel runs and in which form it wants its operands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Kernel {
    level: Level,
    /// Rows of a full tile.
    pub mr: usize,
    /// Whether a lane is a pair of bf16; otherwise it is an f32.
    pub pairs: bool,
    /// Whether f32 lanes hold values rounded to bf16.
    pub round: bool,
}

impl Kernel {
    /// The kernel for products of this arithmetic. Levels without bf16 instructions multiply
    /// rounded operands in f32, which is exact, so that all levels agree up to the order of sums.
    pub fn new(level: Level, math: Math) -> Kernel {
        let pairs = math == Math::Bf16 && level == Level::Avx512Bf16;
        let mr = match level {
            Level::Portable => 4,
            Level::Avx2 => 6,
            Level::Avx512 | Level::Avx512Bf16 => MR_MAX,
        };
        Kernel {
            level,
            mr,
            pairs,
            round: math == Math::Bf16 && !pairs,
        }
    }

    /// The level the kernel was made for.
    pub fn level(self) -> Level {
        self.level
    }

    /// Lanes of `k` elements; the last pair of an odd number is filled up with zero.
    pub fn lanes(self, k: usize) -> usize {
        if self.pairs { k.div_ceil(2) } else { k }
    }

    /// Row stride in lanes for rows of `lanes`: long rows are padded to an odd number of cache
    /// lines, because rows 4 KiB apart would all compete for the same few lines of the cache.
    pub fn row_stride(self, lanes: usize) -> usize {
        if lanes < 128 {
            lanes
        } else {
            lanes.div_ceil(16) * 16 + 16 * ((lanes.div_ceil(16) % 2) ^ 1)
        }
    }

    /// Computes `rows` rows (`1..=mr`) of sums.
    pub fn run(self, rows: usize, t: Tile, sums: &mut Sums) {
        assert!(rows >= 1 && rows <= self.mr && t.taps >= 1 && t.k >= 1);
        let last = (rows - 1) * t.a_row + (t.taps - 1) * t.a_tap + t.k;
        assert!(
            last <= t.a.len() && t.taps * t.k * NR <= t.b.len(),
            "a tile outside its operands"
        );
        #[cfg(target_arch = "x86_64")]
        match self.level {
            // SAFETY: holding the level proves that the processor has the instructions; the
            // asserts above keep every access inside `a` and `b`, and `rows` inside `sums`.
            Level::Avx512Bf16 if self.pairs => return unsafe { x86::bf16(rows, t, sums) },
            // SAFETY: as above.
            Level::Avx512 | Level::Avx512Bf16 => return unsafe { x86::f32(rows, t, sums) },
            // SAFETY: as above.
            Level::Avx2 => return unsafe { x86::avx2(rows, t, sums) },
            Level::Portable => {}
        }
        portable(rows, t, sums);
    }
}

/// The kernel of every processor: 8 columns by at most 4 rows at a time.
fn portable(rows: usize, t: Tile, sums: &mut Sums) {
    // Portable code cannot fetch ahead.
    let _ = t.ahead;
    const COLS: usize = 8;
    for col in (0..NR).step_by(COLS) {
        let mut acc = [[0f32; COLS]; 4];
        for tap in 0..t.taps {
            let a = &t.a[tap * t.a_tap..];
            let b = &t.b[tap * t.k * NR..][..t.k * NR];
            for (k, b) in b.chunks_exact(NR).enumerate() {
                let b = &b[col..col + COLS];
                for (i, acc) in acc.iter_mut().enumerate().take(rows) {
                    let x = f32::from_bits(a[i * t.a_row + k]);
                    for (s, b) in acc.iter_mut().zip(b) {
                        let b = f32::from_bits(*b);
                        // aarch64 has fused multiply-add in its base instruction set.
                        *s = if cfg!(target_arch = "aarch64") {
                            x.mul_add(b, *s)
                        } else {
                            *s + x * b
                        };
                    }
                }
            }
        }
        for (to, from) in sums.0.iter_mut().zip(&acc).take(rows) {
            to[col..col + COLS].copy_from_slice(from);
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    //! Vector kernels. The number of rows is a constant of each instance, so that all sums stay
    //! in registers; they are stored once, at the end.

    #![allow(clippy::needless_range_loop)] // counted loops over registers, unrolled

    use super::{NR, Sums, Tile};
    use std::arch::x86_64::*;

    /// Steps by which B is fetched ahead into the first cache.
    const AHEAD: usize = 12;

    /// Bytes of a cache line.
    const LINE: usize = 64;

    /// Picks the instance for a number of rows.
    macro_rules! by_rows {
        ($rows:expr, $f:ident, $t:expr, $sums:expr, $($r:literal)*) => {
            match $rows {
                // SAFETY: the caller of the surrounding function vouches for the operands.
                $($r => unsafe { $f::<$r>($t, $sums) },)*
                _ => unreachable!("more rows than the kernel has"),
            }
        };
    }

    /// # Safety
    /// The processor has the instructions; all accesses that `rows` and `t` imply are inside.
    pub unsafe fn f32(rows: usize, t: Tile, sums: &mut Sums) {
        by_rows!(rows, f32_rows, t, sums, 1 2 3 4 5 6 7 8 9 10 11 12 13 14);
    }

    /// # Safety
    /// As [`f32`].
    pub unsafe fn bf16(rows: usize, t: Tile, sums: &mut Sums) {
        by_rows!(rows, bf16_rows, t, sums, 1 2 3 4 5 6 7 8 9 10 11 12 13 14);
    }

    /// # Safety
    /// As [`f32`].
    pub unsafe fn avx2(rows: usize, t: Tile, sums: &mut Sums) {
        by_rows!(rows, avx2_rows, t, sums, 1 2 3 4 5 6);
    }

    /// The two 512-bit kernels, which differ in their multiply-add.
    macro_rules! wide_kernel {
        ($name:ident, $features:literal, $load:expr, $splat:expr, $madd:expr) => {
            #[target_feature(enable = $features)]
            unsafe fn $name<const R: usize>(t: Tile, sums: &mut Sums) {
                let mut acc = [[_mm512_setzero_ps(); 2]; R];
                let mut b = t.b.as_ptr();
                // Without a wish, lines of B that are there already.
                let mut ahead = if t.ahead.is_empty() {
                    b.cast()
                } else {
                    t.ahead.as_ptr()
                };
                let stride = t.a_row;
                for tap in 0..t.taps {
                    let mut a = t.a.as_ptr().wrapping_add(tap * t.a_tap);
                    for _ in 0..t.k {
                        // SAFETY: `Kernel::run` checked that k steps of R rows of A and of 32
                        // lanes of B are inside, for every tap; a prefetch may be anywhere.
                        unsafe {
                            _mm_prefetch::<_MM_HINT_T0>(b.wrapping_add(AHEAD * NR).cast());
                            _mm_prefetch::<_MM_HINT_T0>(b.wrapping_add(AHEAD * NR + 16).cast());
                            _mm_prefetch::<_MM_HINT_T1>(ahead.cast());
                            let (b0, b1) = ($load(b), $load(b.add(16)));
                            for i in 0..R {
                                let x = $splat(a.add(i * stride));
                                acc[i][0] = $madd(acc[i][0], x, b0);
                                acc[i][1] = $madd(acc[i][1], x, b1);
                            }
                            a = a.add(1);
                            b = b.add(NR);
                            ahead = ahead.wrapping_add(LINE);
                        }
                    }
                }
                for i in 0..R {
                    // SAFETY: R <= MR_MAX rows of 32 floats.
                    unsafe {
                        let row = sums.0[i].as_mut_ptr();
                        _mm512_store_ps(row, acc[i][0]);
                        _mm512_store_ps(row.add(16), acc[i][1]);
                    }
                }
            }
        };
    }

    wide_kernel!(
        f32_rows,
        "avx512f",
        |p: *const u32| _mm512_loadu_ps(p.cast()),
        |p: *const u32| _mm512_set1_ps(*p.cast()),
        |s, x, b| _mm512_fmadd_ps(x, b, s)
    );
    wide_kernel!(
        bf16_rows,
        "avx512f,avx512bw,avx512bf16",
        // SAFETY: both types are 512 bits of anything.
        |p: *const u32| std::mem::transmute::<__m512i, __m512bh>(_mm512_loadu_si512(p.cast())),
        // SAFETY: as above.
        |p: *const u32| std::mem::transmute::<__m512i, __m512bh>(_mm512_set1_epi32(*p.cast())),
        |s, x, b| _mm512_dpbf16_ps(s, x, b)
    );

    #[target_feature(enable = "avx2,fma")]
    unsafe fn avx2_rows<const R: usize>(t: Tile, sums: &mut Sums) {
        // Two halves of the panel: 12 sums, two of B and one of A fill the 16 registers.
        for half in 0..2 {
            let mut acc = [[_mm256_setzero_ps(); 2]; R];
            let mut b = t.b.as_ptr().wrapping_add(half * 16);
            for tap in 0..t.taps {
                let mut a = t.a.as_ptr().wrapping_add(tap * t.a_tap);
                for _ in 0..t.k {
                    // SAFETY: as in the wide kernels.
                    unsafe {
                        _mm_prefetch::<_MM_HINT_T0>(b.wrapping_add(AHEAD * NR).cast());
                        let b0 = _mm256_loadu_ps(b.cast());
                        let b1 = _mm256_loadu_ps(b.add(8).cast());
                        for i in 0..R {
                            let x = _mm256_set1_ps(*a.add(i * t.a_row).cast());
                            acc[i][0] = _mm256_fmadd_ps(x, b0, acc[i][0]);
                            acc[i][1] = _mm256_fmadd_ps(x, b1, acc[i][1]);
                        }
                        a = a.add(1);
                        // Past the end only after the last step, where it is not read.
                        b = b.wrapping_add(NR);
                    }
                }
            }
            for i in 0..R {
                // SAFETY: R <= MR_MAX rows of 32 floats.
                unsafe {
                    let row = sums.0[i].as_mut_ptr().add(half * 16);
                    _mm256_store_ps(row, acc[i][0]);
                    _mm256_store_ps(row.add(8), acc[i][1]);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::bf16;

    /// Every row count of every kernel, several taps and odd lengths, against plain sums.
    #[test]
    fn every_kernel_sums_every_number_of_rows() {
        for &level in Level::available() {
            for math in [Math::F32, Math::Bf16] {
                let kernel = Kernel::new(level, math);
                for (rows, taps, k) in
                    (1..=kernel.mr).flat_map(|r| [(r, 1, 1), (r, 3, 5), (r, 2, 17)])
                {
                    check(kernel, rows, taps, k);
                }
            }
        }
    }

    fn check(kernel: Kernel, rows: usize, taps: usize, k: usize) {
        let (a_row, a_tap) = (k + 3, 2 * k + 1);
        let per = if kernel.pairs { 2 } else { 1 };
        let value = |i: usize| ((i * 37 % 101) as f32 - 50.0) / 16.0;
        let lane = |i: usize| match kernel.pairs {
            false => value(i).to_bits(),
            true => {
                let half = |i| u32::from(bf16::from_f32(value(i)).to_bits());
                half(2 * i) | half(2 * i + 1) << 16
            }
        };
        let a: Vec<u32> = (0..(rows - 1) * a_row + (taps - 1) * a_tap + k)
            .map(lane)
            .collect();
        let b: Vec<u32> = (0..taps * k * NR).map(|i| lane(i + 7)).collect();
        let mut sums = Sums::new();
        kernel.run(
            rows,
            Tile {
                a: &a,
                a_row,
                a_tap,
                b: &b,
                taps,
                k,
                ahead: &[],
            },
            &mut sums,
        );
        for r in 0..rows {
            for c in 0..NR {
                let mut want = 0.0;
                for (tap, j) in (0..taps).flat_map(|t| (0..k).map(move |j| (t, j))) {
                    for h in 0..per {
                        let x = value((r * a_row + tap * a_tap + j) * per + h);
                        want += x * value((((tap * k + j) * NR + c) + 7) * per + h);
                    }
                }
                let got = sums.0[r][c];
                assert!(
                    (got - want).abs() < 1e-3,
                    "{kernel:?} {rows} {taps} {k}: {got} {want}"
                );
            }
        }
    }

    #[test]
    #[should_panic(expected = "outside its operands")]
    fn a_tile_outside_its_operands_is_refused() {
        let kernel = Kernel::new(Level::Portable, Math::F32);
        let t = Tile {
            a: &[0; 7],
            a_row: 4,
            a_tap: 0,
            b: &[0; 4 * NR],
            taps: 1,
            k: 4,
            ahead: &[],
        };
        kernel.run(2, t, &mut Sums::new());
    }
}
