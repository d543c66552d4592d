//! Ids, codes and caches.

use super::{ALIGN, Arg, Launch, Operand, View, folded, switch, word};
use crate::kernels::{Const, EMBED, FSQ_DECODE, FSQ_ENCODE, Shader, Variant, WRITE_ROWS};
use engine::program::{DType, Op};
use engine::{Error, Result};
use std::ops::Range;

pub fn launches(view: &View) -> Result<Vec<Launch>> {
    match view.op {
        Op::Embed => Ok(embed(view)),
        Op::WriteRows => Ok(vec![write_rows(view)]),
        Op::FsqEncode { levels } => Ok(vec![fsq(view, &FSQ_ENCODE, levels, view.out.len())]),
        Op::FsqDecode { levels } => Ok(vec![fsq(view, &FSQ_DECODE, levels, view.ins[0].len())]),
        other => Err(Error::Bug(format!("{} has no tokens", other.name()))),
    }
}

/// Rows of a weight that one dispatch sees.
#[derive(Debug, Clone, PartialEq)]
pub struct Block {
    /// First row.
    pub first: usize,
    /// Number of rows.
    pub rows: usize,
    /// What is bound, counted from the start of the weight's binding.
    pub bytes: Range<usize>,
    /// Elements between the start of the block's binding and its first row.
    pub offset: u32,
}

/// Blocks of whole rows of a weight `(rows, ...)`, none of which exceeds a binding or crosses a
/// cut.
pub fn row_blocks(weight: &Arg, binding: u64) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut first = 0;
    while first < weight.shape[0] {
        let block = row_block(weight, binding, first, usize::MAX);
        first += block.rows;
        blocks.push(block);
    }
    blocks
}

/// The block that begins with row `first`, of at most `most` rows.
pub fn row_block(weight: &Arg, binding: u64, first: usize, most: usize) -> Block {
    let element = weight.dtype.bytes();
    let all = weight.shape[0];
    let row_bytes = (weight.len() / all.max(1) * element).max(1);
    let binding = usize::try_from(binding).unwrap_or(usize::MAX);
    let from = first * row_bytes;
    let at = weight.offset as usize * element + from;
    let start = at / ALIGN * ALIGN;
    let room = binding.saturating_sub(at - start) / row_bytes;
    let left = weight.cut.map_or(usize::MAX, |cut| cut.left(from)) / row_bytes;
    // A row that fits nowhere is refused where it is bound.
    let rows = most.min(room).min(left).clamp(1, all - first);
    Block {
        first,
        rows,
        bytes: start..at + rows * row_bytes,
        offset: word((at - start) / element),
    }
}

fn embed(view: &View) -> Vec<Launch> {
    let (ids, table) = (view.ins[0], view.ins[1]);
    let (all, c) = (table.shape[0], table.shape[1]);
    row_blocks(&table, view.room.binding)
        .into_iter()
        .map(|block| Launch {
            variant: Variant::new(&EMBED).stored(table.dtype),
            operands: vec![Operand::In(0), Operand::Part(1, block.bytes), Operand::Out],
            words: vec![
                ids.offset,
                block.offset,
                view.out.offset,
                word(view.out.len()),
                word(c),
                word(block.first),
                word(block.rows),
                word(all),
            ],
            groups: folded(view.out.len().div_ceil(256)),
        })
        .collect()
}

fn write_rows(view: &View) -> Launch {
    let [cache, rows, at] = [view.ins[0], view.ins[1], view.ins[2]];
    let c: usize = cache.shape[2..].iter().product();
    Launch {
        variant: write_rows_variant(cache.dtype == DType::BF16, rows.dtype == DType::BF16),
        operands: vec![Operand::In(0), Operand::In(1), Operand::In(2)],
        words: vec![
            cache.offset,
            rows.offset,
            at.offset,
            word(rows.len()),
            word(cache.shape[1]),
            word(rows.shape[1]),
            word(c),
        ],
        groups: folded(rows.len().div_ceil(256)),
    }
}

fn write_rows_variant(cache: bool, rows: bool) -> Variant {
    let variant = switch(Variant::new(&WRITE_ROWS), "CACHE_BF16", cache);
    switch(variant, "ROWS_BF16", rows)
}

fn fsq(view: &View, shader: &'static Shader, levels: &[u32], n: usize) -> Launch {
    Launch {
        variant: fsq_variant(shader, levels),
        operands: vec![Operand::In(0), Operand::Out],
        words: vec![view.ins[0].offset, view.out.offset, word(n)],
        groups: folded(n.div_ceil(64)),
    }
}

fn fsq_variant(shader: &'static Shader, levels: &[u32]) -> Variant {
    Variant::new(shader)
        .with("DIMS", Const::U32(word(levels.len())))
        .with_u32s("LEVELS", levels)
}

pub fn variants() -> Vec<Variant> {
    let stored = [DType::F32, DType::BF16, DType::F16];
    let mut all: Vec<Variant> = stored
        .into_iter()
        .map(|dtype| Variant::new(&EMBED).stored(dtype))
        .collect();
    all.extend([
        write_rows_variant(false, false),
        write_rows_variant(true, false),
        write_rows_variant(true, true),
        fsq_variant(&FSQ_ENCODE, &[8, 8, 8, 5, 5, 5]),
        fsq_variant(&FSQ_DECODE, &[8, 8, 8, 5, 5, 5]),
    ]);
    all
}

#[cfg(test)]
mod tests {
    use super::super::Cut;
    use super::*;

    #[test]
    fn blocks_cover_a_weight_fit_and_cross_no_cut() {
        let cut = |rows: usize, row_bytes: usize, ahead: usize| Cut {
            first: (rows - ahead) * row_bytes,
            every: rows * row_bytes,
        };
        for (shape, offset, binding, cut) in [
            ([10, 7], 3, 1 << 20, None),
            ([217_204, 1024], 0, 128 << 20, None),
            ([217_204, 1024], 0, 128 << 20, Some(cut(131_072, 2048, 0))),
            ([1000, 8], 24, 4096, Some(cut(384, 16, 3))),
        ] {
            let weight = Arg {
                shape: &shape,
                dtype: DType::BF16,
                offset,
                cut,
            };
            let row_bytes = shape[1] * 2;
            let mut next = 0;
            for block in row_blocks(&weight, binding) {
                let from = next * row_bytes;
                assert_eq!(block.first, next);
                assert!(block.bytes.start.is_multiple_of(ALIGN));
                assert!(block.bytes.len() as u64 <= binding);
                let at = block.bytes.start + block.offset as usize * 2;
                assert_eq!(at, offset as usize * 2 + from);
                assert_eq!(block.bytes.end, at + block.rows * row_bytes);
                if let Some(cut) = cut {
                    assert!(block.rows * row_bytes <= cut.left(from));
                }
                next += block.rows;
            }
            assert_eq!(next, shape[0]);
        }
    }
}
