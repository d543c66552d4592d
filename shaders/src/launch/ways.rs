//! In which of several ways a product is computed: by its size, and by what the device allows.

use super::{Room, folded, word};

/// The size of a product.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Items of a batch, each with its own rows.
    pub items: usize,
    /// Phases of a transposed convolution.
    pub phases: usize,
    /// Taps of a convolution.
    pub taps: usize,
    /// Rows of an item and phase.
    pub rows: usize,
    /// Columns, of one matrix of a pair.
    pub columns: usize,
    /// Summands of a phase.
    pub depth: usize,
    /// Whether there are two matrices.
    pub pair: bool,
    /// Whether the summands may be split.
    pub splits: bool,
}

impl Size {
    /// That of a linear, whose summands alone may be split.
    pub fn linear(rows: usize, columns: usize, depth: usize) -> Self {
        Size {
            items: 1,
            phases: 1,
            taps: 1,
            rows,
            columns,
            depth,
            pair: false,
            splits: true,
        }
    }
}

/// A tile of `product_tiled.wgsl`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tile {
    /// Rows: 4 or 8 times the side.
    pub rows: usize,
    /// Columns: 4 or 8 times the side.
    pub columns: usize,
    /// The workgroup has the square of this as threads.
    pub side: usize,
    /// Shares of the summands.
    pub splits: usize,
}

/// A way to compute a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Tiles in workgroup memory.
    Tiled(Tile),
    /// Straight from the operands.
    Direct,
    /// As well, each row read by one of eight threads.
    Lanes,
    /// So many rows, at most 16, bound by reading the weights.
    Few(usize),
    /// So many columns, at most 4, bound by reading the rows.
    Narrow(usize),
}

/// Most rows for which the weights alone are walked along.
const FEW: usize = 16;
/// Summands that are worth a workgroup.
const SHARE: usize = 256;

const LARGE: Tile = Tile {
    rows: 128,
    columns: 128,
    side: 16,
    splits: 1,
};
const USUAL: Tile = Tile {
    rows: 64,
    columns: 64,
    side: 8,
    splits: 1,
};
const FLAT: Tile = Tile { rows: 32, ..USUAL };
const SMALL: Tile = Tile {
    rows: 32,
    columns: 32,
    ..USUAL
};

/// The way for a product of this size.
pub fn way(size: &Size, room: &Room) -> Way {
    let plain = size.items == 1 && size.phases == 1;
    let lanes = room.software && room.subgroups;
    if plain && size.taps == 1 && size.rows <= if lanes { 1 } else { FEW } {
        // A text for every number would be compiled for every number.
        return Way::Few(match size.rows {
            few @ 0..=4 => few.max(1),
            more => more.next_multiple_of(4),
        });
    }
    if size.columns <= 4 && size.phases == 1 && !size.pair {
        return Way::Narrow(size.columns);
    }
    if lanes {
        return Way::Lanes;
    }
    if room.software {
        return Way::Direct;
    }
    let fits = |tile: &Tile| tile.memory() <= room.workgroup && tile.threads() <= room.threads;
    if fits(&LARGE) && LARGE.count(size) >= 2 * room.busy {
        return Way::Tiled(LARGE);
    }
    let tile = match (size.rows, size.columns) {
        (_, 0..=32) if !size.pair => SMALL,
        (0..=160, _) => FLAT,
        _ if USUAL.count(size) < room.busy => FLAT,
        _ => USUAL,
    };
    let missing = room.busy.div_ceil(tile.count(size).max(1));
    // Shares must be seen by one binding.
    let bytes = (size.rows * size.columns * size_of::<f32>()) as u64;
    let seen = usize::try_from(room.binding / bytes.max(1)).unwrap_or(usize::MAX);
    let splits = match size.splits {
        true => missing.min(size.depth / SHARE).min(seen).clamp(1, 8),
        false => 1,
    };
    Way::Tiled(Tile { splits, ..tile })
}

impl Tile {
    /// Bytes of workgroup memory: 16 summands of rows and columns.
    pub fn memory(&self) -> u32 {
        word((self.rows + self.columns) * 16 * size_of::<f32>())
    }

    /// Threads of a workgroup.
    pub fn threads(&self) -> u32 {
        word(self.side * self.side)
    }

    /// Columns of the output that a tile has.
    fn width(&self, pair: bool) -> usize {
        if pair { self.columns / 2 } else { self.columns }
    }

    /// Workgroups, without splitting.
    fn count(&self, size: &Size) -> usize {
        let columns = size.columns.div_ceil(self.width(size.pair));
        size.items * size.phases * size.rows.div_ceil(self.rows) * columns
    }
}

impl Way {
    /// The grid, for `columns` of the columns.
    pub fn groups(&self, size: &Size, columns: usize) -> [u32; 3] {
        match *self {
            Way::Tiled(tile) => [
                word(columns.div_ceil(tile.width(size.pair))),
                word(size.rows.div_ceil(tile.rows)),
                word(size.items * size.phases * tile.splits),
            ],
            Way::Direct => [
                word(columns.div_ceil(32)),
                word(size.rows.div_ceil(32)),
                word(size.items * size.phases),
            ],
            Way::Lanes => [
                word(columns.div_ceil(32)),
                word(size.rows.div_ceil(8)),
                word(size.items * size.phases),
            ],
            // Four pairs of columns, or columns of a pair of matrices.
            Way::Few(_) => folded(columns.div_ceil(if size.pair { 4 } else { 8 })),
            Way::Narrow(_) => {
                let mut groups = folded(size.rows.div_ceil(16));
                groups[2] = word(size.items);
                groups
            }
        }
    }
}

/// One way of each kind.
pub fn examples() -> Vec<Way> {
    let split = Tile { splits: 4, ..FLAT };
    let tiles = [LARGE, USUAL, split].map(Way::Tiled);
    let few = [1, 2, 3, 4, 8, 16].map(Way::Few);
    let others = [Way::Direct, Way::Lanes, Way::Narrow(2)];
    [&tiles[..], &few[..], &others[..]].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: Room = Room {
        binding: 128 << 20,
        workgroup: 32 << 10,
        threads: 256,
        subgroups: false,
        software: false,
        busy: 128,
    };

    #[test]
    fn tiles_fit_and_keep_a_device_busy() {
        for rows in [17, 125, 250, 750, 3000] {
            for (columns, depth) in [(1024, 2048), (2048, 2048), (6144, 2048), (64, 2048)] {
                let size = Size::linear(rows, columns, depth);
                let Way::Tiled(tile) = way(&size, &ROOM) else {
                    panic!("{size:?} is not tiled");
                };
                assert!(tile.memory() <= 16 << 10 && tile.threads() <= 256);
                let count = tile.count(&size) * tile.splits;
                assert!(count >= ROOM.busy || tile.splits == 8, "{size:?}: {count}");
                let groups = Way::Tiled(tile).groups(&size, columns);
                assert_eq!(groups.iter().product::<u32>(), word(count));
            }
        }
    }

    #[test]
    fn poor_devices_get_what_they_have_memory_for() {
        let poor = Room {
            threads: 64,
            workgroup: 8 << 10,
            ..ROOM
        };
        assert_eq!(
            way(&Size::linear(3000, 6144, 2048), &ROOM),
            Way::Tiled(LARGE)
        );
        assert_eq!(
            way(&Size::linear(3000, 6144, 2048), &poor),
            Way::Tiled(USUAL)
        );
        assert_eq!(way(&Size::linear(16, 6144, 2048), &poor), Way::Few(16));
        assert_eq!(way(&Size::linear(5, 6144, 2048), &poor), Way::Few(8));
        assert_eq!(way(&Size::linear(400, 2, 896), &poor), Way::Narrow(2));
    }
}
