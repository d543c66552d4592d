//! Memory of the CPU backend: blocks behind buffer handles, and the one arena that all prepared
//! programs share.

use super::conv::{PackForm, Packed};
use crate::backend::{HostBytes, Release};
use crate::error::{Error, Result};
use bytemuck::{Pod, Zeroable};
use memmap2::MmapMut;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Alignment of blocks and of every place in the arena: one cache line, one AVX-512 register.
pub const ALIGN: usize = 64;

/// From this size on a block is mapped on its own and asks for huge pages.
const LARGE: usize = 1 << 20;

/// One cache line.
#[repr(C, align(64))]
#[derive(Clone, Copy, Pod, Zeroable)]
pub struct Line([u8; ALIGN]);

/// Zeroed bytes aligned to [`ALIGN`].
pub enum Aligned {
    /// Small ones, on the heap.
    Heap(Vec<Line>, usize),
    /// Large ones: pages of their own.
    Pages(MmapMut),
}

impl Aligned {
    /// `bytes` zeros.
    pub fn zeroed(bytes: usize) -> Result<Aligned> {
        if bytes < LARGE {
            return Ok(Aligned::Heap(
                vec![Line::zeroed(); bytes.div_ceil(ALIGN).max(1)],
                bytes,
            ));
        }
        let map = MmapMut::map_anon(bytes).map_err(|e| {
            Error::Device(format!("the system gave no {bytes} bytes of memory: {e}"))
        })?;
        // Huge pages are a wish: without them everything works, a little slower.
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::HugePage);
        Ok(Aligned::Pages(map))
    }

    /// All bytes.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Aligned::Heap(lines, bytes) => &bytemuck::cast_slice(lines)[..*bytes],
            Aligned::Pages(map) => map,
        }
    }

    /// All bytes.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        match self {
            Aligned::Heap(lines, bytes) => &mut bytemuck::cast_slice_mut(lines)[..*bytes],
            Aligned::Pages(map) => map,
        }
    }
}

enum Owner {
    /// Memory of our own.
    Own { _memory: Aligned },
    /// A weight read where its file is mapped.
    Host(HostBytes),
}

/// Zeroed or mapped memory that does not move.
pub struct Block {
    /// First byte; null for [`Owner::Host`], whose owner is asked each time.
    ptr: *mut u8,
    bytes: usize,
    owner: Owner,
    /// Convolution weights that were packed from this block, by first byte and form.
    packed: Mutex<HashMap<(usize, PackForm), Arc<Packed>>>,
}

// SAFETY: the memory behind `ptr` is owned by the block and is touched only under the lock of
// `Memory` (see `Memory::lock`), so moving or sharing the block between threads is sound.
unsafe impl Send for Block {}
// SAFETY: as above.
unsafe impl Sync for Block {}

impl Block {
    /// `bytes` zeros, aligned to [`ALIGN`].
    pub fn zeroed(bytes: usize) -> Result<Block> {
        let mut memory = Aligned::zeroed(bytes)?;
        let ptr = memory.bytes_mut().as_mut_ptr();
        Ok(Block {
            ptr,
            bytes,
            owner: Owner::Own { _memory: memory },
            packed: Mutex::default(),
        })
    }

    fn host(host: HostBytes) -> Block {
        let bytes = host.bytes().len();
        let ptr = std::ptr::null_mut();
        Block {
            ptr,
            bytes,
            owner: Owner::Host(host),
            packed: Mutex::default(),
        }
    }

    /// First byte. Only blocks that are not [`Block::is_host`] may be written through it.
    pub fn ptr(&self) -> *mut u8 {
        match &self.owner {
            Owner::Host(host) => host.bytes().as_ptr().cast_mut(),
            _ => self.ptr,
        }
    }

    /// Size in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether it is memory of somebody else, only to be read.
    pub fn is_host(&self) -> bool {
        matches!(self.owner, Owner::Host(_))
    }

    /// The packed form `form` of the weights at `offset`, made by `pack` on first use.
    pub fn packed(
        &self,
        offset: usize,
        form: PackForm,
        pack: impl FnOnce() -> Result<Packed>,
    ) -> Result<Arc<Packed>> {
        let mut known = self.packed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(packed) = known.get(&(offset, form)) {
            return Ok(packed.clone());
        }
        let packed = Arc::new(pack()?);
        known.insert((offset, form), packed.clone());
        Ok(packed)
    }

    fn has_packed(&self) -> bool {
        !self
            .packed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_empty()
    }
}

/// What the lock guards: who may touch the contents of blocks and arena.
pub struct Inner {
    blocks: HashMap<u64, Arc<Block>>,
    next: u64,
    arena: Block,
}

impl Inner {
    /// The block behind a handle.
    pub fn block(&self, id: u64) -> Result<&Arc<Block>> {
        self.blocks
            .get(&id)
            .ok_or_else(|| Error::Bug(format!("buffer {id} does not belong to this CPU backend")))
    }

    /// The arena.
    pub fn arena(&self) -> &Block {
        &self.arena
    }

    /// Makes the arena at least this large. Its contents do not outlive a run, so none are kept.
    ///
    /// On failure the arena is empty: a program asks again before each of its runs.
    pub fn grow_arena(&mut self, bytes: usize) -> Result<()> {
        if bytes > self.arena.bytes() {
            // The old arena goes first: the two together may not fit.
            self.arena = Block::zeroed(0)?;
            self.arena = Block::zeroed(bytes)?;
        }
        Ok(())
    }

    fn range(&self, id: u64, offset: usize, len: usize) -> Result<&Arc<Block>> {
        let block = self.block(id)?;
        if offset
            .checked_add(len)
            .is_none_or(|end| end > block.bytes())
        {
            return Err(Error::Bug(format!(
                "bytes {offset}.. of length {len} lie outside a buffer of {} bytes",
                block.bytes()
            )));
        }
        Ok(block)
    }
}

/// All memory of one backend.
pub struct Memory {
    inner: Mutex<Inner>,
}

impl Memory {
    /// No blocks, an empty arena.
    pub fn new() -> Result<Self> {
        let inner = Inner {
            blocks: HashMap::new(),
            next: 1,
            arena: Block::zeroed(0)?,
        };
        Ok(Memory {
            inner: Mutex::new(inner),
        })
    }

    /// Exclusive access to the contents of every block and of the arena. A run holds it from its
    /// first to its last step.
    pub fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic in a kernel leaves numbers behind, not broken structure.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers a block of zeros and returns its number.
    pub fn alloc(&self, bytes: usize) -> Result<u64> {
        Ok(self.insert(Block::zeroed(bytes)?))
    }

    /// Registers memory of somebody else and returns its number.
    pub fn adopt(&self, host: HostBytes) -> u64 {
        self.insert(Block::host(host))
    }

    fn insert(&self, block: Block) -> u64 {
        let mut inner = self.lock();
        let id = inner.next;
        inner.next += 1;
        inner.blocks.insert(id, Arc::new(block));
        id
    }

    /// Copies `bytes` into block `id`.
    pub fn write(&self, id: u64, offset: usize, bytes: &[u8]) -> Result<()> {
        let inner = self.lock();
        let block = inner.range(id, offset, bytes.len())?;
        if block.is_host() || block.has_packed() {
            return Err(Error::Bug(
                "weights may not be written once they are mapped or packed for a program".into(),
            ));
        }
        // SAFETY: the range lies inside the block (checked above), the block is our own memory,
        // and the lock is held, so nobody reads or writes it; `bytes` is a borrow of other memory.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), block.ptr().add(offset), bytes.len());
        }
        Ok(())
    }

    /// Copies out of block `id`.
    pub fn read(&self, id: u64, offset: usize, bytes: &mut [u8]) -> Result<()> {
        let inner = self.lock();
        let block = inner.range(id, offset, bytes.len())?;
        // SAFETY: as in `write`, the other way round.
        unsafe {
            std::ptr::copy_nonoverlapping(block.ptr().add(offset), bytes.as_mut_ptr(), bytes.len());
        }
        Ok(())
    }
}

impl Release for Memory {
    fn release(&self, id: u64) {
        // The block is dropped after the lock: unmapping may take a while.
        let block = self.lock().blocks.remove(&id);
        drop(block);
    }
}

/// Memory of the machine in bytes, or of the container it is limited to; 0 when it is not known.
pub fn physical_bytes() -> u64 {
    let limit = std::fs::read_to_string("/sys/fs/cgroup/memory.max").unwrap_or_default();
    let machine = machine_bytes();
    match limit.trim().parse::<u64>() {
        Ok(limit) if machine > 0 => limit.min(machine),
        Ok(limit) => limit,
        // "max", or no control groups.
        Err(_) => machine,
    }
}

fn machine_bytes() -> u64 {
    // "MemTotal:       24635000 kB"
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text
        .lines()
        .find_map(|l| l.strip_prefix("MemTotal:"))
        .unwrap_or_default();
    line.trim()
        .trim_end_matches("kB")
        .trim()
        .parse::<u64>()
        .unwrap_or(0)
        * 1024
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_zeroed_aligned_and_bounded() {
        let memory = Memory::new().unwrap();
        for bytes in [1, 63, 4096, LARGE, LARGE + 1] {
            let id = memory.alloc(bytes).unwrap();
            assert_eq!(memory.lock().block(id).unwrap().ptr() as usize % ALIGN, 0);
            let mut all = vec![1u8; bytes];
            memory.read(id, 0, &mut all).unwrap();
            assert!(all.iter().all(|b| *b == 0));
            memory.write(id, bytes - 1, &[7]).unwrap();
            memory.read(id, 0, &mut all).unwrap();
            assert_eq!(all[bytes - 1], 7);
            assert!(memory.write(id, bytes, &[1]).is_err());
            assert!(memory.read(id, usize::MAX, &mut [0]).is_err());
            memory.release(id);
            assert!(memory.read(id, 0, &mut [0]).is_err());
        }
    }

    #[test]
    fn host_memory_is_read_in_place_and_never_written() {
        let memory = Memory::new().unwrap();
        let owner: Arc<Vec<u8>> = Arc::new((0..10).collect());
        let id = memory.adopt(HostBytes::new(owner, 3..9).unwrap());
        let mut out = [0; 4];
        memory.read(id, 1, &mut out).unwrap();
        assert_eq!(out, [4, 5, 6, 7]);
        assert!(memory.write(id, 0, &[1]).is_err());
    }
}
