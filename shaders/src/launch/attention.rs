//! Attention.

use super::{Launch, Operand, View, folded, heads, switch, word};
use crate::kernels::{ATTENTION, ATTENTION_WEIGHTS, Const, Variant};
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
    if let Some(launches) = heads::launches(view, mask) {
        return Ok(launches);
    }
    let q = view.ins[0];
    let [b, t, h, d] = [q.shape[0], q.shape[1], q.shape[2], q.shape[3]];
    let block = Block::fitting(d, view.room.workgroup).ok_or_else(|| {
        Error::Device(format!(
            "heads of {d} do not fit into {} bytes of workgroup memory",
            view.room.workgroup
        ))
    })?;
    let variant = variant(d, &block, flags(view, mask, view.ins.len() > 3));
    let groups = [word(t.div_ceil(block.queries)), word(h), word(b)];
    Ok(vec![launch(view, mask, variant, groups)])
}

/// A launch of any shader of attention, whose last operand is the output.
pub(super) fn launch(view: &View, mask: Mask, variant: Variant, groups: [u32; 3]) -> Launch {
    let (q, k) = (view.ins[0], view.ins[1]);
    let lengths = view.ins.get(3);
    Launch {
        variant,
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
            word(q.shape[1]),
            word(k.shape[1]),
            word(q.shape[2]),
            word(k.shape[2]),
            window(mask),
            scale(q.width()),
        ],
        groups,
    }
}

/// What scores of heads of `d` are multiplied by, as a parameter.
fn scale(d: usize) -> u32 {
    (1.0 / (d as f32).sqrt()).to_bits()
}

/// The weights of some heads alone.
pub fn weights(view: &View, mask: Mask, heads: &[usize]) -> Launch {
    let (q, k) = (view.ins[0], view.ins[1]);
    let [b, t, h, d] = [q.shape[0], q.shape[1], q.shape[2], q.shape[3]];
    let lengths = view.ins.get(2);
    let rows = b * heads.len() * t;
    Launch {
        variant: weights_variant(heads, flags(view, mask, lengths.is_some())),
        operands: vec![
            Operand::In(0),
            Operand::In(1),
            Operand::In(if lengths.is_some() { 2 } else { 0 }),
            Operand::Out,
        ],
        words: vec![
            q.offset,
            k.offset,
            lengths.map_or(0, |l| l.offset),
            view.out.offset,
            word(rows),
            word(t),
            word(k.shape[1]),
            word(h),
            word(k.shape[2]),
            word(d),
            window(mask),
            scale(d),
        ],
        groups: folded(rows),
    }
}

/// Causal, window, lengths, keys and values in bf16, rounded operands.
pub(super) type Flags = [bool; 5];

/// Flags of every kind, for checks of the shaders' texts.
pub(super) const EXAMPLES: [Flags; 4] = [
    [false, false, false, false, false],
    [true, false, true, true, true],
    [false, true, false, false, true],
    [false, true, true, true, false],
];

pub(super) fn flags(view: &View, mask: Mask, lengths: bool) -> Flags {
    [
        mask == Mask::Causal,
        matches!(mask, Mask::Window(_)),
        lengths,
        view.ins[1].dtype == DType::BF16,
        view.round,
    ]
}

/// The window as a parameter: large enough to hide nothing, small enough not to overflow sums.
fn window(mask: Mask) -> u32 {
    match mask {
        Mask::Window(n) => word(n.min(1 << 30)),
        Mask::Full | Mask::Causal => 0,
    }
}

pub(super) fn flagged(variant: Variant, flags: Flags) -> Variant {
    let names = ["CAUSAL", "WINDOW", "LENGTHS", "KV_BF16", "ROUND"];
    names
        .into_iter()
        .zip(flags)
        .fold(variant, |v, (name, on)| switch(v, name, on))
}

fn weights_variant(heads: &[usize], flags: Flags) -> Variant {
    let heads: Vec<u32> = heads.iter().map(|n| word(*n)).collect();
    let variant = Variant::new(&ATTENTION_WEIGHTS)
        .with("COUNT", Const::U32(word(heads.len())))
        .with_u32s("HEADS", &heads);
    flagged(variant, flags)
}

fn variant(d: usize, block: &Block, flags: Flags) -> Variant {
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
    flagged(sized, flags)
}

pub fn variants() -> Vec<Variant> {
    let block = Block {
        queries: 8,
        keys: 14,
    };
    let whole = EXAMPLES.map(|flags| variant(128, &block, flags));
    let weights = EXAMPLES.map(|flags| weights_variant(&[6, 10, 11], flags));
    whole.into_iter().chain(weights).collect()
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
