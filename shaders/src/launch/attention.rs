//! Attention.

use super::{Launch, Operand, View, switch, word};
use crate::kernels::{ATTENTION, Const, Variant};
use engine::program::{DType, Mask};
use engine::{Error, Result};

/// Threads of a workgroup.
const THREADS: usize = 64;

/// Queries and keys of a workgroup.
struct Block {
    queries: usize,
    keys: usize,
}

impl Block {
    /// The largest that fits into `bytes` of workgroup memory for heads of `d`: queries and sums
    /// (both `queries x d`), keys (`keys x d`), probabilities (`queries x keys`).
    fn fitting(d: usize, bytes: u32) -> Option<Block> {
        let floats = bytes.min(32 << 10) as usize / size_of::<f32>();
        [8usize, 4, 2].into_iter().find_map(|queries| {
            let left = floats.checked_sub(2 * queries * d)?;
            let keys = (left / (d + queries)).min(32);
            (keys >= 4).then_some(Block { queries, keys })
        })
    }
}

pub fn launches(view: &View, mask: Mask) -> Result<Vec<Launch>> {
    let (q, k) = (view.ins[0], view.ins[1]);
    let [b, t, h, d] = [q.shape[0], q.shape[1], q.shape[2], q.shape[3]];
    let block = Block::fitting(d, view.room.workgroup).ok_or_else(|| {
        Error::Device(format!(
            "heads of {d} do not fit into {} bytes of workgroup memory",
            view.room.workgroup
        ))
    })?;
    let lengths = view.ins.get(3);
    let window = match mask {
        Mask::Window(n) => Some(n),
        Mask::Full | Mask::Causal => None,
    };
    let flags = [
        mask == Mask::Causal,
        window.is_some(),
        lengths.is_some(),
        k.dtype == DType::BF16,
    ];
    Ok(vec![Launch {
        variant: variant(d, &block, flags),
        operands: vec![
            Operand::In(0),
            Operand::In(1),
            Operand::In(2),
            Operand::In(if lengths.is_some() { 3 } else { 0 }),
            Operand::Out,
        ],
        words: vec![
            q.offset,
            k.offset,
            view.ins[2].offset,
            lengths.map_or(0, |l| l.offset),
            view.out.offset,
            word(t),
            word(k.shape[1]),
            word(h),
            word(k.shape[2]),
            // Large enough to hide nothing, small enough not to overflow sums with it.
            word(window.unwrap_or(0).min(1 << 30)),
            (1.0 / (d as f32).sqrt()).to_bits(),
        ],
        groups: [word(t.div_ceil(block.queries)), word(h), word(b)],
    }])
}

/// Flags: causal, window, lengths, keys and values in bf16.
fn variant(d: usize, block: &Block, flags: [bool; 4]) -> Variant {
    let sizes = [
        ("D", d),
        ("QUERIES", block.queries),
        ("LANES", THREADS / block.queries),
        ("KEYS", block.keys),
    ];
    let sized = sizes
        .into_iter()
        .fold(Variant::new(&ATTENTION), |v, (name, n)| {
            v.with(name, Const::U32(word(n)))
        });
    let names = ["CAUSAL", "WINDOW", "LENGTHS", "KV_BF16"];
    names
        .into_iter()
        .zip(flags)
        .fold(sized, |v, (name, on)| switch(v, name, on))
}

pub fn variants() -> Vec<Variant> {
    let block = Block {
        queries: 8,
        keys: 14,
    };
    [
        [false, false, false, false],
        [true, false, true, true],
        [false, true, false, false],
        [false, true, true, true],
    ]
    .map(|flags| variant(128, &block, flags))
    .into()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn blocks_fit_for_every_head_size() {
        for bytes in [16 << 10, 32 << 10] {
            for d in [10, 16, 64, 96, 128, 160, 256] {
                let Block { queries, keys } = Block::fitting(d, bytes).unwrap();
                let floats = 2 * queries * d + keys * (d + queries);
                assert!(floats * 4 <= bytes as usize && THREADS.is_multiple_of(queries));
            }
        }
    }
}
