//! Bringing operands into the form of the micro-kernels ([`super::tile`]): rows of activations
//! become rows of lanes, rows of weights become panels of 32 columns.

#[cfg(target_arch = "x86_64")]
use super::level::Level;
use super::tile::{Kernel, NR};
use super::vecmath::leveled;
use super::weight::Weight;
use half::bf16;

/// Writes a row of activations as lanes, `dst` being exactly as long as [`Kernel::lanes`] says.
pub fn stage_row(kernel: Kernel, row: &[f32], dst: &mut [u32]) {
    if kernel.pairs {
        #[cfg(target_arch = "x86_64")]
        if kernel.level() == Level::Avx512Bf16 {
            // SAFETY: holding the level proves that the processor has the instructions.
            unsafe { x86::pair_row(row, dst) };
            return;
        }
        pair_row(kernel.level(), row, dst);
        return;
    }
    let dst: &mut [f32] = bytemuck::cast_slice_mut(dst);
    dst.copy_from_slice(row);
    if kernel.round {
        round_row(kernel.level(), dst);
    }
}

leveled! {
    /// Rounds every element to bf16 in place.
    pub fn round_row(row: &mut [f32]) = round_body
}

#[inline(always)]
fn round_body<const FMA: bool>(row: &mut [f32]) {
    for x in row {
        *x = rounded(*x);
    }
}

/// The nearest bf16, ties to even.
#[inline(always)]
pub fn rounded(x: f32) -> f32 {
    f32::from_bits(rounded_bits(x))
}

/// Bits of the nearest bf16 (ties to even), widened. A NaN stays one.
#[inline(always)]
fn rounded_bits(x: f32) -> u32 {
    let u = x.to_bits();
    let rounded = u.wrapping_add(0x7fff + ((u >> 16) & 1)) & 0xffff_0000;
    if x.is_nan() { u | 0x0040_0000 } else { rounded }
}

leveled! {
    /// Pairs of neighbours as bf16, the first in the low half.
    fn pair_row(row: &[f32], dst: &mut [u32]) = pair_body
}

#[inline(always)]
fn pair_body<const FMA: bool>(row: &[f32], dst: &mut [u32]) {
    let (pairs, rest) = row.as_chunks::<2>();
    for (d, [lo, hi]) in dst.iter_mut().zip(pairs) {
        *d = rounded_bits(*lo) >> 16 | rounded_bits(*hi);
    }
    if let ([x], Some(d)) = (rest, dst.get_mut(pairs.len())) {
        *d = rounded_bits(*x) >> 16;
    }
}

/// Rows of weights that become columns of a panel.
#[derive(Clone, Copy)]
pub struct Rows<'a> {
    /// All elements.
    pub weight: Weight<'a>,
    /// First element of the first row.
    pub start: usize,
    /// Elements from row to row.
    pub stride: usize,
    /// Number of rows, at most [`NR`]; missing ones become columns of zeros.
    pub count: usize,
    /// Elements of a row.
    pub k: usize,
}

/// Packs rows into `dst`, `Kernel::lanes(k) * NR` lanes.
pub fn pack_panel(kernel: Kernel, rows: Rows, dst: &mut [u32]) {
    let lanes = kernel.lanes(rows.k);
    let dst = &mut dst[..lanes * NR];
    let e = rows.weight.dtype.bytes();
    assert!(rows.count >= 1 && rows.count <= NR);
    let end = (rows.start + (rows.count - 1) * rows.stride + rows.k) * e;
    assert!(
        end <= rows.weight.bytes.len(),
        "weights outside their matrix"
    );
    #[cfg(target_arch = "x86_64")]
    match kernel.level() {
        Level::Portable => {}
        // SAFETY: holding the level proves that the processor has the instructions; the assert
        // above keeps every row inside the weights, and `dst` has all lanes of the panel.
        Level::Avx2 => return unsafe { x86::pack_avx2(kernel, rows, dst) },
        // SAFETY: as above.
        Level::Avx512 => return unsafe { x86::pack_avx512(kernel, rows, dst) },
        // SAFETY: as above.
        Level::Avx512Bf16 => return unsafe { x86::pack_avx512_bf16(kernel, rows, dst) },
    }
    pack_portable(kernel, rows, dst);
}

fn pack_portable(kernel: Kernel, rows: Rows, dst: &mut [u32]) {
    const PIECE: usize = 64;
    let mut piece = [0f32; PIECE];
    let per = if kernel.pairs { 2 } else { 1 };
    for n in 0..NR {
        for k in (0..rows.k).step_by(PIECE) {
            let piece = &mut piece[..PIECE.min(rows.k - k)];
            match n < rows.count {
                true => rows
                    .weight
                    .slice(rows.start + n * rows.stride + k, piece.len())
                    .widen(piece),
                false => piece.fill(0.0),
            }
            for (i, values) in piece.chunks(per).enumerate() {
                dst[(k / per + i) * NR + n] = lane(kernel, values);
            }
        }
    }
}

/// One lane of one or two elements.
fn lane(kernel: Kernel, values: &[f32]) -> u32 {
    if kernel.pairs {
        let bits = |i: usize| {
            values
                .get(i)
                .map_or(0, |x| u32::from(bf16::from_f32(*x).to_bits()))
        };
        bits(0) | bits(1) << 16
    } else if kernel.round {
        bf16::from_f32(values[0]).to_f32().to_bits()
    } else {
        values[0].to_bits()
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    //! Transposes in registers: squares of 16 (or 8) rows by as many lanes.

    use super::{Kernel, NR, Rows};
    use crate::program::DType;
    use std::arch::x86_64::*;

    /// Pairs of neighbours as bf16, 32 elements at a time.
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    pub fn pair_row(row: &[f32], dst: &mut [u32]) {
        let (blocks, rest) = row.as_chunks::<32>();
        let (to, to_rest) = dst.split_at_mut(blocks.len() * 16);
        for (block, to) in blocks.iter().zip(to.as_chunks_mut::<16>().0) {
            // SAFETY: 32 floats are read, 16 lanes written.
            unsafe {
                let lo = _mm512_loadu_ps(block.as_ptr());
                let hi = _mm512_loadu_ps(block.as_ptr().add(16));
                let pairs: __m512i = std::mem::transmute(_mm512_cvtne2ps_pbh(hi, lo));
                _mm512_storeu_si512(to.as_mut_ptr().cast(), pairs);
            }
        }
        super::pair_body::<true>(rest, to_rest);
    }

    /// Bytes of 32 elements of the widest dtype: what one row of a square needs at most.
    const PIECE: usize = 128;

    /// Bytes by which rows of weights are fetched ahead: more streams than the processor follows
    /// by itself.
    const AHEAD: usize = 1024;

    /// Where the rows of a square are read: in the weights, or, at the ends of rows and where
    /// rows are missing, in a copy filled up with zeros.
    struct Source<const S: usize> {
        copy: [[u8; PIECE]; S],
        rows: [*const u8; S],
    }

    impl<const S: usize> Source<S> {
        fn new() -> Self {
            Source {
                copy: [[0; PIECE]; S],
                rows: [std::ptr::null(); S],
            }
        }

        /// Points to elements `k..k + want` of rows `first..first + S`.
        fn aim(&mut self, r: &Rows, first: usize, k: usize, want: usize) {
            let e = r.weight.dtype.bytes();
            let have = want.min(r.k - k);
            for i in 0..S {
                let n = first + i;
                if n < r.count && have == want {
                    self.rows[i] = r.weight.bytes[(r.start + n * r.stride + k) * e..].as_ptr();
                    continue;
                }
                self.copy[i] = [0; PIECE];
                if n < r.count {
                    let at = (r.start + n * r.stride + k) * e;
                    self.copy[i][..have * e].copy_from_slice(&r.weight.bytes[at..at + have * e]);
                }
                self.rows[i] = self.copy[i].as_ptr();
            }
        }
    }

    /// 16 f32 of any dtype.
    ///
    /// # Safety
    /// The processor has avx512f; 16 elements can be read.
    #[target_feature(enable = "avx512f")]
    #[inline]
    unsafe fn load16(dtype: DType, p: *const u8) -> __m512 {
        // SAFETY: promised by the caller; the loads take any alignment.
        unsafe {
            match dtype {
                DType::BF16 => {
                    let x = _mm512_cvtepu16_epi32(_mm256_loadu_si256(p.cast()));
                    _mm512_castsi512_ps(_mm512_slli_epi32::<16>(x))
                }
                DType::F16 => _mm512_cvtph_ps(_mm256_loadu_si256(p.cast())),
                DType::F32 | DType::I32 => _mm512_loadu_ps(p.cast()),
            }
        }
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    fn round16(x: __m512) -> __m512i {
        let u = _mm512_castps_si512(x);
        let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(u), _mm512_set1_epi32(1));
        let bias = _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff));
        let r = _mm512_and_si512(
            _mm512_add_epi32(u, bias),
            _mm512_set1_epi32(0xffff_0000u32 as i32),
        );
        let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(x, x);
        _mm512_mask_or_epi32(r, nan, u, _mm512_set1_epi32(0x0040_0000))
    }

    /// # Safety
    /// As [`super::pack_panel`] checks.
    #[target_feature(enable = "avx512f,avx512bw")]
    pub unsafe fn pack_avx512(kernel: Kernel, rows: Rows, dst: &mut [u32]) {
        let dtype = rows.weight.dtype;
        let round = kernel.round && dtype != DType::BF16;
        // SAFETY: `squares` hands out pointers to 16 elements.
        unsafe {
            squares(rows, rows.k, 1, dst, |p| {
                let x = load16(dtype, p);
                if round {
                    round16(x)
                } else {
                    _mm512_castps_si512(x)
                }
            });
        }
    }

    /// # Safety
    /// As [`super::pack_panel`] checks.
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    pub unsafe fn pack_avx512_bf16(kernel: Kernel, rows: Rows, dst: &mut [u32]) {
        let dtype = rows.weight.dtype;
        if !kernel.pairs {
            // SAFETY: the same contract; this level includes the other.
            return unsafe { pack_avx512(kernel, rows, dst) };
        }
        let (lanes, half) = (kernel.lanes(rows.k), 16 * dtype.bytes());
        // SAFETY: `squares` hands out pointers to 32 elements; vectors of 512 bits convert freely.
        unsafe {
            squares(rows, lanes, 2, dst, |p| match dtype {
                DType::BF16 => _mm512_loadu_si512(p.cast()),
                _ => std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(
                    load16(dtype, p.add(half)),
                    load16(dtype, p),
                )),
            });
        }
    }

    /// Packs all squares of a panel; `load` gives 16 lanes of `per` elements each.
    #[target_feature(enable = "avx512f,avx512bw")]
    #[inline]
    unsafe fn squares(
        rows: Rows,
        lanes: usize,
        per: usize,
        dst: &mut [u32],
        load: impl Fn(*const u8) -> __m512i,
    ) {
        let mut source = Source::<16>::new();
        let e = rows.weight.dtype.bytes();
        for half in 0..2 {
            // Whole squares are read where they are, one line of every row after the other.
            let whole = if rows.count >= (half + 1) * 16 {
                rows.k / (16 * per) * 16
            } else {
                0
            };
            if whole > 0 {
                source.aim(&rows, half * 16, 0, 16 * per);
            }
            for lane in (0..whole).step_by(16) {
                let at = lane * per * e;
                let x: [__m512i; 16] = std::array::from_fn(|i| {
                    let p = source.rows[i].wrapping_add(at);
                    _mm_prefetch::<_MM_HINT_T1>(p.wrapping_add(AHEAD).cast());
                    load(p)
                });
                // SAFETY: `dst` has `lanes` rows of 32 lanes, 16 of them from `lane` on.
                unsafe { store16(x, 16, dst.as_mut_ptr().add(lane * NR + half * 16)) };
            }
            for lane in (whole..lanes).step_by(16) {
                source.aim(&rows, half * 16, lane * per, 16 * per);
                let x: [__m512i; 16] = std::array::from_fn(|i| load(source.rows[i]));
                let n = 16.min(lanes - lane);
                // SAFETY: as above, n rows.
                unsafe { store16(x, n, dst.as_mut_ptr().add(lane * NR + half * 16)) };
            }
        }
    }

    /// Stores the first `n` rows of the transposed square, 32 lanes apart.
    ///
    /// # Safety
    /// `n` rows of 16 lanes can be written.
    #[target_feature(enable = "avx512f")]
    #[inline]
    unsafe fn store16(x: [__m512i; 16], n: usize, to: *mut u32) {
        let x = transpose16(x);
        for (j, x) in x.iter().enumerate().take(n) {
            // SAFETY: promised by the caller.
            unsafe { _mm512_storeu_si512(to.add(j * NR).cast(), *x) };
        }
    }

    /// Row i, lane j becomes row j, lane i: neighbours, pairs, quarters, halves.
    #[target_feature(enable = "avx512f")]
    #[inline]
    fn transpose16(r: [__m512i; 16]) -> [__m512i; 16] {
        let z = _mm512_setzero_si512();
        let (mut a, mut b) = ([z; 16], [z; 16]);
        for i in 0..8 {
            a[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
            a[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
        }
        // b[4 g + c]: in each quarter q, lane 4 q + c of rows 4 g .. 4 g + 4.
        for g in 0..4 {
            b[4 * g] = _mm512_unpacklo_epi64(a[4 * g], a[4 * g + 2]);
            b[4 * g + 1] = _mm512_unpackhi_epi64(a[4 * g], a[4 * g + 2]);
            b[4 * g + 2] = _mm512_unpacklo_epi64(a[4 * g + 1], a[4 * g + 3]);
            b[4 * g + 3] = _mm512_unpackhi_epi64(a[4 * g + 1], a[4 * g + 3]);
        }
        for c in 0..4 {
            let even_lo = _mm512_shuffle_i32x4::<0x88>(b[c], b[4 + c]);
            let odd_lo = _mm512_shuffle_i32x4::<0xdd>(b[c], b[4 + c]);
            let even_hi = _mm512_shuffle_i32x4::<0x88>(b[8 + c], b[12 + c]);
            let odd_hi = _mm512_shuffle_i32x4::<0xdd>(b[8 + c], b[12 + c]);
            a[c] = _mm512_shuffle_i32x4::<0x88>(even_lo, even_hi);
            a[4 + c] = _mm512_shuffle_i32x4::<0x88>(odd_lo, odd_hi);
            a[8 + c] = _mm512_shuffle_i32x4::<0xdd>(even_lo, even_hi);
            a[12 + c] = _mm512_shuffle_i32x4::<0xdd>(odd_lo, odd_hi);
        }
        a
    }

    /// # Safety
    /// As [`super::pack_panel`] checks.
    #[target_feature(enable = "avx2,f16c")]
    pub unsafe fn pack_avx2(kernel: Kernel, rows: Rows, dst: &mut [u32]) {
        let dtype = rows.weight.dtype;
        let round = kernel.round && dtype != DType::BF16;
        let mut source = Source::<8>::new();
        let e = dtype.bytes();
        for block in 0..NR / 8 {
            let whole = if rows.count >= (block + 1) * 8 {
                rows.k / 8 * 8
            } else {
                0
            };
            if whole > 0 {
                source.aim(&rows, block * 8, 0, 8);
            }
            for k in (0..rows.k).step_by(8) {
                // Whole squares are read where they are.
                let at = if k < whole { k * e } else { 0 };
                if k >= whole {
                    source.aim(&rows, block * 8, k, 8);
                }
                let x: [__m256; 8] = std::array::from_fn(|i| {
                    let p = source.rows[i].wrapping_add(at);
                    // Half of the lines twice: cheaper than asking which.
                    _mm_prefetch::<_MM_HINT_T1>(p.wrapping_add(AHEAD).cast());
                    // SAFETY: `aim` points to 8 elements, in whole squares of every square.
                    let x = unsafe { load8(dtype, p) };
                    if round { round8(x) } else { x }
                });
                let x = transpose8(x);
                for (j, x) in x.iter().enumerate().take(8.min(rows.k - k)) {
                    // SAFETY: `dst` has k rows of 32 lanes.
                    unsafe {
                        let to = dst.as_mut_ptr().add((k + j) * NR + block * 8);
                        _mm256_storeu_ps(to.cast(), *x);
                    }
                }
            }
        }
    }

    /// # Safety
    /// As [`load16`], 8 elements.
    #[target_feature(enable = "avx2,f16c")]
    #[inline]
    unsafe fn load8(dtype: DType, p: *const u8) -> __m256 {
        // SAFETY: promised by the caller; the loads take any alignment.
        unsafe {
            match dtype {
                DType::BF16 => {
                    let x = _mm256_cvtepu16_epi32(_mm_loadu_si128(p.cast()));
                    _mm256_castsi256_ps(_mm256_slli_epi32::<16>(x))
                }
                DType::F16 => _mm256_cvtph_ps(_mm_loadu_si128(p.cast())),
                DType::F32 | DType::I32 => _mm256_loadu_ps(p.cast()),
            }
        }
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    fn round8(x: __m256) -> __m256 {
        let u = _mm256_castps_si256(x);
        let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(u), _mm256_set1_epi32(1));
        let bias = _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff));
        let mask = _mm256_set1_epi32(0xffff_0000u32 as i32);
        let r = _mm256_and_si256(_mm256_add_epi32(u, bias), mask);
        let quiet = _mm256_or_si256(u, _mm256_set1_epi32(0x0040_0000));
        let nan = _mm256_cmp_ps::<_CMP_UNORD_Q>(x, x);
        _mm256_blendv_ps(_mm256_castsi256_ps(r), _mm256_castsi256_ps(quiet), nan)
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    fn transpose8(r: [__m256; 8]) -> [__m256; 8] {
        let z = _mm256_setzero_ps();
        let (mut a, mut b) = ([z; 8], [z; 8]);
        for i in 0..4 {
            a[2 * i] = _mm256_unpacklo_ps(r[2 * i], r[2 * i + 1]);
            a[2 * i + 1] = _mm256_unpackhi_ps(r[2 * i], r[2 * i + 1]);
        }
        for g in 0..2 {
            b[4 * g] = _mm256_shuffle_ps::<0x44>(a[4 * g], a[4 * g + 2]);
            b[4 * g + 1] = _mm256_shuffle_ps::<0xee>(a[4 * g], a[4 * g + 2]);
            b[4 * g + 2] = _mm256_shuffle_ps::<0x44>(a[4 * g + 1], a[4 * g + 3]);
            b[4 * g + 3] = _mm256_shuffle_ps::<0xee>(a[4 * g + 1], a[4 * g + 3]);
        }
        for c in 0..4 {
            a[c] = _mm256_permute2f128_ps::<0x20>(b[c], b[4 + c]);
            a[4 + c] = _mm256_permute2f128_ps::<0x31>(b[c], b[4 + c]);
        }
        a
    }
}

#[cfg(test)]
mod tests {
    use super::super::level::Level;
    use super::*;
    use crate::program::{DType, Math};
    use half::f16;

    fn stored(dtype: DType, n: usize) -> Vec<u8> {
        let value = |i: usize| ((i * 7919 % 1009) as f32 - 500.0) / 333.0;
        (0..n)
            .flat_map(|i| match dtype {
                DType::BF16 => bf16::from_f32(value(i)).to_le_bytes().to_vec(),
                DType::F16 => f16::from_f32(value(i)).to_le_bytes().to_vec(),
                _ => value(i).to_le_bytes().to_vec(),
            })
            .collect()
    }

    /// Every level packs every dtype into exactly the lanes of the plain loop, from odd addresses,
    /// with rows missing and at every length of the last square.
    #[test]
    fn panels_agree_with_the_plain_loop() {
        for dtype in [DType::F32, DType::BF16, DType::F16] {
            for (count, k) in [
                (32, 64),
                (32, 33),
                (1, 1),
                (7, 31),
                (17, 16),
                (31, 47),
                (16, 5),
            ] {
                let stride = k + 3;
                let mut bytes = vec![0u8];
                bytes.extend(stored(dtype, 5 + count * stride));
                let weight = Weight {
                    bytes: &bytes[1..],
                    dtype,
                };
                let rows = Rows {
                    weight,
                    start: 5,
                    stride,
                    count,
                    k,
                };
                for &level in Level::available() {
                    for math in [Math::F32, Math::Bf16] {
                        let kernel = Kernel::new(level, math);
                        let mut want = vec![0xffff_ffff; kernel.lanes(k) * NR];
                        let mut got = want.clone();
                        pack_portable(kernel, rows, &mut want);
                        pack_panel(kernel, rows, &mut got);
                        assert_eq!(got, want, "{kernel:?} {dtype:?} {count} rows of {k}");
                    }
                }
            }
        }
    }

    #[test]
    fn staged_rows_agree_with_the_reference_rounding() {
        let row: Vec<f32> = (0..77)
            .map(|i| (i as f32 - 38.0) * 1.003_906_2 + 0.001_953_125)
            .chain([f32::NAN])
            .collect();
        for &level in Level::available() {
            for (math, n) in [
                (Math::F32, 78),
                (Math::Bf16, 78),
                (Math::Bf16, 77),
                (Math::Bf16, 1),
            ] {
                let kernel = Kernel::new(level, math);
                let row = &row[..n];
                let mut got = vec![0; kernel.lanes(n)];
                stage_row(kernel, row, &mut got);
                let per = if kernel.pairs { 2 } else { 1 };
                let want: Vec<u32> = row.chunks(per).map(|v| lane(kernel, v)).collect();
                assert_eq!(got, want, "{kernel:?} {n}");
            }
        }
    }
}
