//! bf16 weights times f32 activations: a pair of weights is two f32 after a shift and a mask, if
//! the even and the odd activations lie apart.

use super::{BLOCK, GROUP, fetch_ahead};
use crate::backend::cpu::level::Level;
use crate::backend::cpu::vecmath::{fma, fold, leveled};

/// Pairs of one block.
const LANES: usize = BLOCK / 2;

/// A row of activations: per block its even elements, then its odd ones, zeros at the end.
pub fn stage(x: &[f32], to: &mut [f32]) {
    to.fill(0.0);
    for (x, to) in x.chunks(BLOCK).zip(to.chunks_exact_mut(BLOCK)) {
        let (even, odd) = to.split_at_mut(LANES);
        for ((x, even), odd) in x.chunks(2).zip(even).zip(odd) {
            *even = x[0];
            *odd = x.get(1).copied().unwrap_or(0.0);
        }
    }
}

/// Inner products of one row of weights with each staged row of activations, one per sum.
pub fn multiply(level: Level, w: &[u8], xs: &[f32], sums: &mut [f32]) {
    let lanes = xs.len() / sums.len();
    for (sums, xs) in sums.chunks_mut(GROUP).zip(xs.chunks(GROUP * lanes)) {
        group(level, w, xs, sums);
    }
}

leveled! {
    /// As [`multiply`], at most [`GROUP`] rows.
    fn group(w: &[u8], xs: &[f32], sums: &mut [f32]) = group_body
}

#[inline(always)]
fn group_body<const FMA: bool>(w: &[u8], xs: &[f32], sums: &mut [f32]) {
    match *sums {
        [_] => rows::<FMA, 1>(w, xs, sums),
        [_, _] => rows::<FMA, 2>(w, xs, sums),
        [_, _, _] => rows::<FMA, 3>(w, xs, sums),
        _ => rows::<FMA, 4>(w, xs, sums),
    }
}

#[inline(always)]
fn rows<const FMA: bool, const M: usize>(w: &[u8], xs: &[f32], sums: &mut [f32]) {
    let lanes = xs.len() / M;
    let mut acc = [[[0f32; LANES]; 2]; M];
    let (blocks, rest) = w.as_chunks::<{ 2 * BLOCK }>();
    for (i, block) in blocks.iter().enumerate() {
        fetch_ahead(block.as_ptr());
        add::<FMA, M>(block, xs, lanes, i, &mut acc);
    }
    if !rest.is_empty() {
        let mut block = [0u8; 2 * BLOCK];
        block[..rest.len()].copy_from_slice(rest);
        add::<FMA, M>(&block, xs, lanes, blocks.len(), &mut acc);
    }
    for (sum, [even, odd]) in sums.iter_mut().zip(acc) {
        *sum = fold(even, |a, b| a + b) + fold(odd, |a, b| a + b);
    }
}

#[inline(always)]
fn add<const FMA: bool, const M: usize>(
    w: &[u8; 2 * BLOCK],
    xs: &[f32],
    lanes: usize,
    i: usize,
    acc: &mut [[[f32; LANES]; 2]; M],
) {
    let pairs = w.as_chunks::<4>().0;
    let pairs: [u32; LANES] = std::array::from_fn(|i| u32::from_le_bytes(pairs[i]));
    let even = pairs.map(|p| f32::from_bits(p << 16));
    let odd = pairs.map(|p| f32::from_bits(p & 0xffff_0000));
    for (m, acc) in acc.iter_mut().enumerate() {
        let x = &xs[m * lanes + i * BLOCK..][..BLOCK];
        for j in 0..LANES {
            acc[0][j] = fma::<FMA>(even[j], x[j], acc[0][j]);
            acc[1][j] = fma::<FMA>(odd[j], x[LANES + j], acc[1][j]);
        }
    }
}
