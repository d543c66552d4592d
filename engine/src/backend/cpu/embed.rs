//! Rows of an embedding table.

use super::pool::Pool;
use super::weight::Weight;
use crate::error::{Error, Result};

/// `out[i, :] = table[ids[i], :]`. `table` has `rows` rows of `c` elements.
pub fn embed(
    pool: &Pool,
    ids: &[i32],
    table: Weight,
    rows: usize,
    c: usize,
    out: &mut [f32],
) -> Result<()> {
    if let Some(id) = ids
        .iter()
        .find(|id| usize::try_from(**id).map_or(true, |id| id >= rows))
    {
        return Err(Error::Corrupt(format!(
            "token {id} is outside the vocabulary of {rows} entries; the tokenizer does not \
             belong to these weights"
        )));
    }
    pool.pieces(out, c, |i, row| {
        table.slice(ids[i] as usize * c, c).widen(row)
    });
    Ok(())
}
