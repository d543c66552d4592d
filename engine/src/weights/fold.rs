//! Weights that are not used as stored: widened, reordered, repeated, or with their norm folded.
//!
//! One pass over the mapped source in blocks of rows, so that the only large allocation is the
//! result. Loops run along the contiguous axis of the result.

use crate::program::DType;
use half::{bf16, f16};

/// Rows of the source that are decoded at a time: sixteen contiguous results fill a cache line
/// when the first stored axis becomes the last one.
const ROWS: usize = 16;

/// Elements in memory of our own.
pub enum Owned {
    /// f32.
    F32(Vec<f32>),
    /// Bits of bf16 or f16.
    Half(Vec<u16>),
}

impl AsRef<[u8]> for Owned {
    fn as_ref(&self) -> &[u8] {
        match self {
            Owned::F32(v) => bytemuck::cast_slice(v),
            Owned::Half(v) => bytemuck::cast_slice(v),
        }
    }
}

/// Widens little-endian elements of a file. `out` decides how many.
pub fn decode(dtype: DType, bytes: &[u8], out: &mut [f32]) {
    match dtype {
        DType::F32 | DType::I32 => {
            for (o, b) in out.iter_mut().zip(bytes.as_chunks::<4>().0) {
                *o = f32::from_le_bytes(*b);
            }
        }
        DType::BF16 => {
            for (o, b) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                *o = f32::from_bits(u32::from(u16::from_le_bytes(*b)) << 16);
            }
        }
        DType::F16 => {
            for (o, b) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                *o = f16::from_le_bytes(*b).to_f32();
            }
        }
    }
}

/// A copy in memory of our own, widened to f32.
pub fn widened(dtype: DType, bytes: &[u8], len: usize) -> Owned {
    let mut out = vec![0f32; len];
    decode(dtype, bytes, &mut out);
    Owned::F32(out)
}

/// A vector repeated `times` end to end.
pub fn tiled(dtype: DType, bytes: &[u8], len: usize, times: usize, to: DType) -> Owned {
    let mut row = vec![0f32; len];
    decode(dtype, bytes, &mut row);
    let fill = |out: &mut dyn FnMut(f32)| {
        for _ in 0..times {
            row.iter().for_each(|x| out(*x));
        }
    };
    match to {
        DType::F32 | DType::I32 => {
            let mut v = Vec::with_capacity(len * times);
            fill(&mut |x| v.push(x));
            Owned::F32(v)
        }
        DType::BF16 => {
            let mut v = Vec::with_capacity(len * times);
            fill(&mut |x| v.push(bf16::from_f32(x).to_bits()));
            Owned::Half(v)
        }
        DType::F16 => {
            let mut v = Vec::with_capacity(len * times);
            fill(&mut |x| v.push(f16::from_f32(x).to_bits()));
            Owned::Half(v)
        }
    }
}

/// Stored elements to be reordered.
pub struct Source<'a> {
    /// Type of the stored elements.
    pub dtype: DType,
    /// The stored elements.
    pub bytes: &'a [u8],
    /// Extent per stored axis.
    pub shape: [usize; 3],
    /// Length each row of the first axis is scaled to (`weight_g`); `None` leaves rows alone.
    pub norms: Option<&'a [f32]>,
}

impl Source<'_> {
    /// The elements with output axis i being stored axis `perm[i]`, in dtype `to`. `perm` must
    /// be a permutation of 0, 1, 2.
    pub fn permuted(&self, perm: [usize; 3], to: DType) -> Owned {
        let len = self.shape.iter().product();
        match to {
            DType::F32 | DType::I32 => {
                let mut out = vec![0f32; len];
                self.scatter(perm, &mut out, |x| x);
                Owned::F32(out)
            }
            DType::BF16 => {
                let mut out = vec![0u16; len];
                self.scatter(perm, &mut out, |x| bf16::from_f32(x).to_bits());
                Owned::Half(out)
            }
            DType::F16 => {
                let mut out = vec![0u16; len];
                self.scatter(perm, &mut out, |x| f16::from_f32(x).to_bits());
                Owned::Half(out)
            }
        }
    }

    fn scatter<T>(&self, perm: [usize; 3], out: &mut [T], encode: impl Fn(f32) -> T) {
        let row = self.shape[1] * self.shape[2];
        let width = self.dtype.bytes();
        // Distance in the result between neighbours along each stored axis.
        let mut to = [0usize; 3];
        to[perm[2]] = 1;
        to[perm[1]] = self.shape[perm[2]];
        to[perm[0]] = self.shape[perm[1]] * self.shape[perm[2]];
        let from = [row, self.shape[2], 1];
        let mut block = vec![0f32; ROWS.min(self.shape[0]) * row];
        let mut first = 0;
        while first < self.shape[0] {
            let rows = ROWS.min(self.shape[0] - first);
            let start = first * row * width;
            decode(self.dtype, &self.bytes[start..], &mut block[..rows * row]);
            if let Some(norms) = self.norms {
                for (values, norm) in block.chunks_exact_mut(row).zip(&norms[first..first + rows]) {
                    let scale = row_scale(values, *norm);
                    values.iter_mut().for_each(|x| *x *= scale);
                }
            }
            let extent = [rows, self.shape[1], self.shape[2]];
            let [outer, middle, inner] = perm;
            for i in 0..extent[outer] {
                for j in 0..extent[middle] {
                    let read = i * from[outer] + j * from[middle];
                    let write = first * to[0] + i * to[outer] + j * to[middle];
                    let values = block[read..].iter().step_by(from[inner]);
                    for (o, x) in out[write..write + extent[inner]].iter_mut().zip(values) {
                        *o = encode(*x);
                    }
                }
            }
            first += rows;
        }
    }
}

/// The factor that gives a row the length `norm`. The sum of squares is f64: a row has up to
/// 40 thousand elements, and the result is compared with upstream at 1e-6.
fn row_scale(row: &[f32], norm: f32) -> f32 {
    let mut lanes = [0f64; 8];
    let (chunks, rest) = row.as_chunks::<8>();
    for chunk in chunks {
        for (sum, x) in lanes.iter_mut().zip(chunk) {
            *sum += f64::from(*x) * f64::from(*x);
        }
    }
    let tail: f64 = rest.iter().map(|x| f64::from(*x) * f64::from(*x)).sum();
    let length = (lanes.iter().sum::<f64>() + tail).sqrt();
    // A row of zeros has no direction; it stays zero instead of becoming NaN.
    if length == 0.0 {
        0.0
    } else {
        (f64::from(norm) / length) as f32
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn f32s(owned: &Owned) -> &[f32] {
        match owned {
            Owned::F32(v) => v,
            Owned::Half(_) => panic!("halves"),
        }
    }

    proptest! {
        /// Against the definition, element by element, for every order of the axes and more
        /// rows than a block has.
        #[test]
        fn folding_is_its_definition(
            a in 1usize..40, b in 1usize..6, c in 1usize..9, order in 0usize..6, normed: bool,
        ) {
            let perm = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]][order];
            let shape = [a, b, c];
            let v: Vec<f32> = (0..a * b * c).map(|i| ((i * 7 + 3) % 23) as f32 - 11.5).collect();
            let g: Vec<f32> = (0..a).map(|i| 0.5 + i as f32).collect();
            let source = Source {
                dtype: DType::F32,
                bytes: bytemuck::cast_slice(&v),
                shape,
                norms: normed.then_some(&g),
            };
            let out = source.permuted(perm, DType::F32);
            let mut n = 0;
            for x in 0..shape[perm[0]] {
                for y in 0..shape[perm[1]] {
                    for z in 0..shape[perm[2]] {
                        let mut at = [0; 3];
                        (at[perm[0]], at[perm[1]], at[perm[2]]) = (x, y, z);
                        let row = &v[at[0] * b * c..(at[0] + 1) * b * c];
                        let stored = row[at[1] * c + at[2]];
                        let norm = row.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
                        let want = if normed {
                            (f64::from(stored) * f64::from(g[at[0]]) / norm) as f32
                        } else {
                            stored
                        };
                        let got = f32s(&out)[n];
                        prop_assert!((got - want).abs() <= 2e-7 * want.abs(), "{got} {want}");
                        n += 1;
                    }
                }
            }
        }
    }

    #[test]
    fn halves_round_to_nearest_even_and_zero_rows_stay_zero() {
        let v = [1.0f32 + 1.0 / 256.0, 1.0 + 3.0 / 256.0, -2.0];
        let source = Source {
            dtype: DType::F32,
            bytes: bytemuck::cast_slice(&v),
            shape: [1, 1, 3],
            norms: None,
        };
        let Owned::Half(bits) = source.permuted([2, 1, 0], DType::BF16) else {
            panic!("f32")
        };
        assert_eq!(bits, [0x3f80, 0x3f82, 0xc000]);
        let zeros = [0f32; 3];
        let source = Source {
            bytes: bytemuck::cast_slice(&zeros),
            norms: Some(&[5.0]),
            ..source
        };
        assert_eq!(f32s(&source.permuted([0, 1, 2], DType::F32)), [0.0; 3]);
    }

    #[test]
    fn every_stored_type_widens_exactly() {
        let values = [0.0f32, -1.5, 65504.0, 0.000061035156];
        let f16s: Vec<u8> = values
            .iter()
            .flat_map(|x| f16::from_f32(*x).to_le_bytes())
            .collect();
        assert_eq!(f32s(&widened(DType::F16, &f16s, 4)), values);
        let values = [0.0f32, -1.5, 3.0e38, 1e-40];
        let rounded: Vec<f32> = values.iter().map(|x| bf16::from_f32(*x).to_f32()).collect();
        let bf16s: Vec<u8> = values
            .iter()
            .flat_map(|x| bf16::from_f32(*x).to_le_bytes())
            .collect();
        assert_eq!(f32s(&widened(DType::BF16, &bf16s, 4)), rounded);
        let Owned::Half(twice) = tiled(DType::BF16, &bf16s[2..4], 1, 3, DType::BF16) else {
            panic!("f32")
        };
        assert_eq!(twice, [0xbfc0; 3]);
    }
}
