//! Operations that only move elements.

use super::pool::Pool;

/// Elements of one job.
const JOB: usize = 64 * 1024;

/// Fills `out`, seen as items of `width` elements, in parallel: `f(item, from, part)` writes
/// elements `from..` of an item.
fn fill(pool: &Pool, width: usize, out: &mut [f32], f: impl Fn(usize, usize, &mut [f32]) + Sync) {
    pool.pieces(out, JOB, |job, mut part| {
        let mut at = job * JOB;
        while !part.is_empty() {
            let (item, from) = (at / width, at % width);
            let n = part.len().min(width - from);
            let (head, tail) = part.split_at_mut(n);
            f(item, from, head);
            part = tail;
            at += n;
        }
    });
}

/// The same elements.
pub fn copy(pool: &Pool, x: &[f32], out: &mut [f32]) {
    fill(pool, x.len().max(1), out, |_, from, part| {
        part.copy_from_slice(&x[from..from + part.len()]);
    });
}

/// `Op::ConcatChannels` and `Op::ConcatRows`: each part is its elements and their number per
/// item: the channels, or rows times channels.
pub fn concat(pool: &Pool, parts: &[(&[f32], usize)], out: &mut [f32]) {
    let width = parts.iter().map(|p| p.1).sum();
    fill(pool, width, out, |item, from, mut dest| {
        let (mut start, mut at) = (0, from);
        for &(x, n) in parts {
            let end = start + n;
            if at < end && !dest.is_empty() {
                let (head, tail) = dest.split_at_mut(dest.len().min(end - at));
                head.copy_from_slice(&x[item * n + at - start..][..head.len()]);
                at += head.len();
                dest = tail;
            }
            start = end;
        }
    });
}

/// `Op::SliceRows`: elements `start..start + out_item` of every item of `x_item` elements.
pub fn slice(
    pool: &Pool,
    x: &[f32],
    x_item: usize,
    start: usize,
    out_item: usize,
    out: &mut [f32],
) {
    fill(pool, out_item, out, |item, from, part| {
        part.copy_from_slice(&x[item * x_item + start + from..][..part.len()]);
    });
}

/// `Op::PadRows`: every item of `x_item` elements is filled up with zeros to `out_item`.
pub fn pad(pool: &Pool, x: &[f32], x_item: usize, out_item: usize, out: &mut [f32]) {
    fill(pool, out_item, out, |item, from, part| {
        let n = x_item.saturating_sub(from).min(part.len());
        part[..n].copy_from_slice(&x[item * x_item + from.min(x_item)..][..n]);
        part[n..].fill(0.0);
    });
}

/// Number of the row a run-time scalar chooses among `rows`.
fn chosen(index: f32, rows: usize) -> usize {
    // A float converts to the nearest end when it is out of range, and NaN to 0.
    (index.round() as usize).min(rows - 1)
}

/// `Op::SelectRow`: copies of one row of a table with `c` columns.
pub fn select_row(pool: &Pool, table: &[f32], c: usize, index: f32, out: &mut [f32]) {
    let row = &table[chosen(index, table.len() / c) * c..][..c];
    fill(pool, c, out, |_, from, part| {
        part.copy_from_slice(&row[from..from + part.len()])
    });
}

/// `Op::SelectSlab`: one slab, of the size of `out`.
pub fn select_slab(pool: &Pool, x: &[f32], index: f32, out: &mut [f32]) {
    let n = out.len();
    copy(pool, &x[chosen(index, x.len() / n) * n..][..n], out);
}

/// `Op::PrependRow`: x is items of `x_item` elements.
pub fn prepend_row(pool: &Pool, x: &[f32], token: &[f32], x_item: usize, out: &mut [f32]) {
    let c = token.len();
    fill(pool, x_item + c, out, |item, from, part| {
        let n = c.saturating_sub(from).min(part.len());
        part[..n].copy_from_slice(&token[from.min(c)..][..n]);
        let rest = &mut part[n..];
        let source = item * x_item + (from + n - c.min(from + n));
        rest.copy_from_slice(&x[source..source + rest.len()]);
    });
}

/// `Op::WriteRows`: `t` rows per item into items of `s` rows, each element as `store` keeps it;
/// `at` is within them.
pub fn write_rows<T, U>(
    rows: &[T],
    at: &[i32],
    s: usize,
    t: usize,
    cache: &mut [U],
    store: impl Fn(&T) -> U,
) {
    let n = rows.len() / at.len();
    let width = n / t;
    let items = cache
        .chunks_exact_mut(s * width)
        .zip(rows.chunks_exact(n))
        .zip(at);
    for ((item, rows), at) in items {
        let item = &mut item[*at as usize * width..][..n];
        item.iter_mut().zip(rows).for_each(|(to, x)| *to = store(x));
    }
}

/// `Op::RepeatAdd`: x `(N, C)` and pattern `(P, C)` with `c` columns.
pub fn repeat_add(pool: &Pool, x: &[f32], pattern: &[f32], c: usize, out: &mut [f32]) {
    let p = pattern.len() / c;
    fill(pool, c, out, |row, from, part| {
        let (n, j) = (row / p, row % p);
        let x = &x[n * c + from..];
        let pattern = &pattern[j * c + from..];
        for ((o, x), p) in part.iter_mut().zip(x).zip(pattern) {
            *o = x + p;
        }
    });
}
