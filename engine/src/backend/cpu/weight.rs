//! Weights as stored: a matrix of any float dtype at any alignment.

use crate::program::DType;
use half::{bf16, f16};

/// Rows of weights in the memory of their file.
#[derive(Clone, Copy)]
pub struct Weight<'a> {
    /// Elements, row-major, possibly not aligned.
    pub bytes: &'a [u8],
    /// Type of the elements, one of the floats.
    pub dtype: DType,
}

impl<'a> Weight<'a> {
    /// `len` elements from `start` on.
    pub fn slice(&self, start: usize, len: usize) -> Weight<'a> {
        let e = self.dtype.bytes();
        Weight {
            bytes: &self.bytes[start * e..(start + len) * e],
            dtype: self.dtype,
        }
    }

    /// Widens all elements into `out` of the same length; exact.
    pub fn widen(&self, out: &mut [f32]) {
        let b = self.bytes;
        match self.dtype {
            DType::BF16 => {
                for (o, x) in out.iter_mut().zip(b.chunks_exact(2)) {
                    *o = bf16::from_le_bytes([x[0], x[1]]).to_f32();
                }
            }
            DType::F16 => {
                for (o, x) in out.iter_mut().zip(b.chunks_exact(2)) {
                    *o = f16::from_le_bytes([x[0], x[1]]).to_f32();
                }
            }
            DType::F32 | DType::I32 => {
                for (o, x) in out.iter_mut().zip(b.chunks_exact(4)) {
                    *o = f32::from_le_bytes([x[0], x[1], x[2], x[3]]);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_dtype_is_widened_exactly_at_any_alignment() {
        let values = [1.5f32, -0.375, 0.0, 1024.0, 6.103_515_6e-5];
        for dtype in [DType::F32, DType::BF16, DType::F16] {
            let mut bytes = vec![0u8];
            for v in values {
                match dtype {
                    DType::BF16 => bytes.extend(bf16::from_f32(v).to_le_bytes()),
                    DType::F16 => bytes.extend(f16::from_f32(v).to_le_bytes()),
                    _ => bytes.extend(v.to_le_bytes()),
                }
            }
            let w = Weight {
                bytes: &bytes[1..],
                dtype,
            };
            let mut out = [0f32; 4];
            w.slice(1, 4).widen(&mut out);
            assert_eq!(out, values[1..]);
        }
    }
}
