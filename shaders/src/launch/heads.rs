//! Attention with heads of 128, which is what the real models have: by tiles of many queries, or
//! few queries against blocks of keys.

use super::attention::{EXAMPLES, Flags, flagged, flags, launch};
use super::{Launch, Operand, Room, View, switch, word};
use crate::kernels::{
    ATTENTION_FEW, ATTENTION_MERGE, ATTENTION_TILED, Const, EIGHTS_BY_SUBGROUP, EIGHTS_IN_MEMORY,
    KEYS_BF16, KEYS_F32, Variant,
};
use engine::program::Mask;

/// The size of heads.
const D: usize = 128;
/// Most queries that are few.
const FEW: usize = 16;
/// Keys of a block, for few queries; a thread of `attention_few` scores one.
const KEYS: usize = 128;
/// Queries of a workgroup that has few.
const FOURS: usize = 4;
/// Elements that a block leaves for each four queries: results, largest scores, sums.
const LEFT: usize = FOURS * (D + 2);
/// Bytes that workgroups of 64 queries share at most, with sums through workgroup memory.
const WIDE_BYTES: u32 = 28 << 10;

/// How few queries are laid out.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Few {
    /// Blocks of keys.
    blocks: usize,
    /// Key heads times fours of their queries.
    fours: usize,
    /// Items.
    items: usize,
}

impl Few {
    /// How queries `q` and keys `k` are laid out, if queries are few and what blocks leave can be
    /// bound.
    fn of(room: &Room, mask: Mask, q: &[usize], k: &[usize]) -> Option<Few> {
        let &[b, t, h, d] = q else { return None };
        let &[_, s, g, _] = k else { return None };
        let few = Few {
            blocks: s.div_ceil(KEYS),
            fours: g * (t * (h / g)).div_ceil(FOURS),
            items: b,
        };
        let bytes = few.left() * size_of::<f32>();
        let fits = d == D && t <= FEW && bytes as u64 <= room.binding;
        (fits && !matches!(mask, Mask::Window(_))).then_some(few)
    }

    /// Elements that blocks leave.
    fn left(&self) -> usize {
        match self.blocks {
            0 | 1 => 0,
            blocks => blocks * self.fours * self.items * LEFT,
        }
    }
}

/// Elements of scratch space for queries `q` and keys `k`.
pub fn left_elements(room: &Room, mask: Mask, q: &[usize], k: &[usize]) -> usize {
    Few::of(room, mask, q, k).map_or(0, |few| few.left())
}

/// The launches, if there are shaders for such heads.
pub fn launches(view: &View, mask: Mask) -> Option<Vec<Launch>> {
    let (q, k) = (view.ins[0], view.ins[1]);
    let offsets = [q, k, view.ins[2], view.out].map(|arg| arg.offset);
    if q.width() != D || offsets.iter().any(|offset| !offset.is_multiple_of(4)) {
        return None;
    }
    Some(match Few::of(&view.room, mask, q.shape, k.shape) {
        Some(few) => few_launches(view, mask, few),
        None => vec![tiled(view, mask)],
    })
}

fn tiled(view: &View, mask: Mask) -> Launch {
    let [b, t, h] = [0, 1, 2].map(|axis| view.ins[0].shape[axis]);
    let rows = rows(&view.room, b * h, t);
    let groups = [word(t.div_ceil(rows)), word(h), word(b)];
    let flags = flags(view, mask, view.ins.len() > 3);
    launch(view, mask, tiled_variant(rows, flags, &view.room), groups)
}

/// Queries of a workgroup, of `heads` sequences of `t` queries.
fn rows(room: &Room, heads: usize, t: usize) -> usize {
    let fits = room.workgroup >= WIDE_BYTES && room.threads >= 128;
    match fits && t.div_ceil(64) * heads >= room.busy {
        true => 64,
        false => 32,
    }
}

fn few_launches(view: &View, mask: Mask, few: Few) -> Vec<Launch> {
    let (q, k) = (view.ins[0], view.ins[1]);
    let lengths = view.ins.get(3);
    let flags = flags(view, mask, lengths.is_some());
    let whole = few.blocks <= 1;
    let groups = [word(few.blocks), word(few.fours), word(few.items)];
    let variant = few_variant(whole, flags, &view.room);
    let mut first = launch(view, mask, variant, groups);
    if whole {
        return vec![first];
    }
    if let Some(last) = first.operands.last_mut() {
        *last = Operand::Scratch;
    }
    let merge = Launch {
        variant: merge_variant(flags),
        operands: vec![
            Operand::Scratch,
            Operand::In(if lengths.is_some() { 3 } else { 0 }),
            Operand::Out,
        ],
        words: vec![
            lengths.map_or(0, |l| l.offset),
            view.out.offset,
            word(q.shape[1]),
            word(k.shape[1]),
            word(q.shape[2]),
            word(k.shape[2]),
            word(few.blocks),
        ],
        groups: [1, word(few.fours), word(few.items)],
    };
    vec![first, merge]
}

/// `variant` with what completes it.
fn completed(variant: Variant, flags: Flags, room: &Room) -> Variant {
    let [_, _, _, bf16, _] = flags;
    flagged(variant, flags)
        .including(if bf16 { &KEYS_BF16 } else { &KEYS_F32 })
        .including(match room.subgroups {
            true => &EIGHTS_BY_SUBGROUP,
            false => &EIGHTS_IN_MEMORY,
        })
}

fn tiled_variant(rows: usize, flags: Flags, room: &Room) -> Variant {
    let variant = Variant::new(&ATTENTION_TILED)
        .with("ROWS", Const::U32(word(rows)))
        .with("THREADS", Const::U32(word(2 * rows)));
    completed(variant, flags, room)
}

fn few_variant(whole: bool, flags: Flags, room: &Room) -> Variant {
    let variant = Variant::new(&ATTENTION_FEW).with("KEYS", Const::U32(word(KEYS)));
    completed(switch(variant, "WHOLE", whole), flags, room)
}

fn merge_variant(flags: Flags) -> Variant {
    let [causal, _, lengths, ..] = flags;
    let variant = Variant::new(&ATTENTION_MERGE).with("KEYS", Const::U32(word(KEYS)));
    let variant = switch(variant, "CAUSAL", causal);
    switch(variant, "LENGTHS", lengths)
}

pub fn variants() -> Vec<Variant> {
    let mut variants = Vec::new();
    for subgroups in [false, true] {
        let room = Room {
            binding: 1 << 27,
            workgroup: 16 << 10,
            threads: 256,
            subgroups,
            software: false,
            busy: 1,
        };
        for flags in EXAMPLES {
            variants.extend([32, 64].map(|rows| tiled_variant(rows, flags, &room)));
            if !flags[1] {
                variants.extend([false, true].map(|whole| few_variant(whole, flags, &room)));
                variants.push(merge_variant(flags));
            }
        }
    }
    variants
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: Room = Room {
        binding: 1 << 27,
        workgroup: 16 << 10,
        threads: 256,
        subgroups: false,
        software: false,
        busy: 128,
    };

    #[test]
    fn tiles_fit() {
        // As attention_tiled counts them; 32 bytes a thread are for sums.
        let bytes = |rows: usize| {
            let row = rows / 4 + 1;
            let scores = 32 * (row + 17);
            let results = 64 * row + rows / 4 * 32;
            16 * (scores.max(results) + 2 * rows)
        };
        assert!(bytes(32) <= 16 << 10, "{}", bytes(32));
        assert!(bytes(64) <= WIDE_BYTES as usize, "{}", bytes(64));
    }

    #[test]
    fn many_workgroups_have_more_queries_each() {
        let large = Room {
            workgroup: 32 << 10,
            ..ROOM
        };
        assert_eq!(rows(&large, 16, 750), 64);
        assert_eq!(rows(&large, 16, 125), 32);
        assert_eq!(rows(&ROOM, 16, 750), 32);
    }

    #[test]
    fn few_queries_leave_scratch_only_between_blocks() {
        let left =
            |room: &Room, mask, t, s, d| left_elements(room, mask, &[2, t, 16, d], &[2, s, 8, d]);
        // Two heads share keys: a four of queries is half full.
        assert_eq!(left(&ROOM, Mask::Causal, 1, 129, 128), 2 * 8 * 2 * 520);
        assert_eq!(left(&ROOM, Mask::Causal, 16, 300, 128), 3 * 8 * 8 * 2 * 520);
        assert_eq!(left(&ROOM, Mask::Causal, 1, 128, 128), 0);
        assert_eq!(left(&ROOM, Mask::Causal, 17, 300, 128), 0);
        assert_eq!(left(&ROOM, Mask::Window(3), 9, 9, 128), 0);
        assert_eq!(left(&ROOM, Mask::Causal, 1, 300, 64), 0);
        let small = Room {
            binding: 1 << 16,
            ..ROOM
        };
        assert_eq!(left(&small, Mask::Causal, 1, 3000, 128), 0);
    }
}
