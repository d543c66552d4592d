//! Ids, codes and caches.

use super::{Launch, Operand, View, folded, switch, word};
use crate::kernels::{Const, EMBED, FSQ_DECODE, FSQ_ENCODE, Shader, Variant, WRITE_ROWS};
use engine::program::{DType, Op};
use engine::{Error, Result};

pub fn launches(view: &View) -> Result<Vec<Launch>> {
    match view.op {
        Op::Embed => Ok(embed(view)),
        Op::WriteRows => Ok(vec![write_rows(view)]),
        Op::FsqEncode { levels } => Ok(vec![fsq(view, &FSQ_ENCODE, levels, view.out.len())]),
        Op::FsqDecode { levels } => Ok(vec![fsq(view, &FSQ_DECODE, levels, view.ins[0].len())]),
        other => Err(Error::Bug(format!("{} has no tokens", other.name()))),
    }
}

/// Blocks of whole rows of a table that fit into one binding and begin at multiples of 256 bytes:
/// first row and number of rows.
pub fn row_blocks(rows: usize, row_bytes: usize, binding: u64) -> Vec<(usize, usize)> {
    // 128 rows of two-byte elements are a multiple of 256 bytes whatever their width.
    const UNIT: usize = 128;
    let binding = usize::try_from(binding).unwrap_or(usize::MAX);
    // One unit is left for the part before the first row where the table begins at an odd place.
    let most = (binding / row_bytes).saturating_sub(UNIT) / UNIT * UNIT;
    let block = if rows.saturating_mul(row_bytes) + 256 <= binding {
        rows
    } else {
        most.max(UNIT)
    };
    (0..rows)
        .step_by(block.max(1))
        .map(|first| (first, block.min(rows - first)))
        .collect()
}

fn embed(view: &View) -> Vec<Launch> {
    let (ids, table) = (view.ins[0], view.ins[1]);
    let (all, c) = (table.shape[0], table.shape[1]);
    let row_bytes = c * table.dtype.bytes();
    row_blocks(all, row_bytes, view.room.binding)
        .into_iter()
        .map(|(first, rows)| Launch {
            variant: Variant::new(&EMBED).stored(table.dtype),
            operands: vec![
                Operand::In(0),
                Operand::Part(1, first * row_bytes..(first + rows) * row_bytes),
                Operand::Out,
            ],
            words: vec![
                ids.offset,
                table.offset,
                view.out.offset,
                word(view.out.len()),
                word(c),
                word(first),
                word(rows),
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
    use super::*;

    #[test]
    fn blocks_cover_a_table_and_fit() {
        for (rows, row_bytes, binding) in [(10, 7, 1 << 20), (217_204, 2048, 128 << 20)] {
            let blocks = row_blocks(rows, row_bytes, binding);
            let mut next = 0;
            for (first, count) in blocks {
                assert_eq!(first, next);
                assert!((first * row_bytes).is_multiple_of(256));
                assert!((count * row_bytes) as u64 + 256 <= binding);
                next += count;
            }
            assert_eq!(next, rows);
        }
    }
}
