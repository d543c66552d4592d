//! The CPU backend: runs everywhere, reads weights where their file is mapped, and is the oracle
//! for the other backends.
//!
//! [`exec`] resolves a program to places in [`memory`] and calls [`dispatch`] for every step; the
//! other modules are kernels, plain functions over slices that share out their work on the
//! [`pool::Pool`] and match on [`Level`] where instructions differ.

mod attention;
mod conv;
mod dcw;
mod dispatch;
mod elementwise;
mod embed;
mod exec;
mod fsq;
mod gemm;
mod gemv;
mod guidance;
pub(crate) mod level;
mod linear;
mod memory;
mod moving;
mod norm;
mod pack;
mod parts;
pub mod pool;
mod prefetch;
mod read_rate;
mod rope;
mod swiglu;
mod tile;
pub(crate) mod vecmath;
mod weight;

pub use level::Level;
pub use memory::physical_bytes;

use super::{Backend, Bound, Buffer, Caps, HostBytes, Ready, Release};
use crate::error::{Error, Result};
use crate::program::{Op, Program};
use memory::Memory;
use pool::Pool;
use std::sync::Arc;

/// What a backend and its prepared programs share.
struct Core {
    pool: Pool,
    level: Level,
    memory: Arc<Memory>,
}

impl Core {
    /// Scratch space of a step in the arena.
    fn scratch_bytes(&self, program: &Program, step: usize) -> usize {
        let bytes = dispatch::scratch_bytes(program, step, self.level, self.pool.threads());
        // Lines of both ends are not shared with what other threads write.
        bytes.next_multiple_of(memory::ALIGN)
    }
}

/// The processor as a device.
pub struct CpuBackend {
    caps: Caps,
    core: Arc<Core>,
}

impl CpuBackend {
    /// A backend of `threads` compute threads (the caller's included; at least one). `level`
    /// forces a lower instruction set than the processor has.
    pub fn new(threads: usize, level: Option<Level>) -> Result<Self> {
        let level = Level::up_to(level)?;
        let pool = Pool::new(threads)
            .map_err(|e| Error::Device(format!("{threads} compute threads do not start: {e}")))?;
        let caps = Caps {
            name: format!("cpu ({level}, {} threads)", pool.threads()),
            memory_bytes: memory::physical_bytes(),
            align: memory::ALIGN,
            piece_bytes: usize::MAX,
            native_bf16: level == Level::Avx512Bf16,
        };
        let memory = Arc::new(Memory::new()?);
        Ok(CpuBackend {
            caps,
            core: Arc::new(Core {
                pool,
                level,
                memory,
            }),
        })
    }

    /// One thread per physical core, as far as the process may use them. Two threads of one core
    /// share the units that products keep busy.
    pub fn default_threads() -> usize {
        let usable = std::thread::available_parallelism().map_or(1, usize::from);
        physical_cores().map_or(usable, |cores| cores.min(usable))
    }

    /// The instruction set in use.
    pub fn level(&self) -> Level {
        self.core.level
    }

    fn buffer(&self, id: u64, bytes: usize) -> Buffer {
        Buffer::new(id, bytes, self.core.memory.clone() as Arc<dyn Release>)
    }
}

/// Physical cores of the machine, where the system tells: processors that are the first of the
/// list of threads of their core.
fn physical_cores() -> Option<usize> {
    let first_of_core = |cpu: usize| {
        let path = format!("/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list");
        // "0,64", "0-1" or "0".
        let list = std::fs::read_to_string(path).ok()?;
        let first = list
            .trim()
            .split([',', '-'])
            .next()?
            .parse::<usize>()
            .ok()?;
        Some(first == cpu)
    };
    let present = std::fs::read_to_string("/sys/devices/system/cpu/present").ok()?;
    let last = present
        .trim()
        .rsplit([',', '-'])
        .next()?
        .parse::<usize>()
        .ok()?;
    // Processors that are switched off have no topology.
    let cores = (0..=last)
        .filter(|cpu| first_of_core(*cpu) == Some(true))
        .count();
    (cores > 0).then_some(cores)
}

impl Backend for CpuBackend {
    fn caps(&self) -> &Caps {
        &self.caps
    }

    fn claims(&self, op: &Op) -> bool {
        // Reshapes are aliases of the program, never steps.
        !matches!(op, Op::Reshape)
    }

    fn scratch_bytes(&self, program: &Program, step: usize) -> usize {
        self.core.scratch_bytes(program, step)
    }

    fn alloc(&self, bytes: usize) -> Result<Buffer> {
        Ok(self.buffer(self.core.memory.alloc(bytes)?, bytes))
    }

    fn adopt(&self, host: HostBytes, _row_bytes: usize) -> Result<Buffer> {
        let bytes = host.bytes().len();
        Ok(self.buffer(self.core.memory.adopt(host), bytes))
    }

    fn write(&self, to: &Buffer, offset: usize, bytes: &[u8]) -> Result<()> {
        self.core.memory.write(to.id(), offset, bytes)
    }

    fn read(&self, from: &Buffer, offset: usize, bytes: &mut [u8]) -> Result<()> {
        self.core.memory.read(from.id(), offset, bytes)
    }

    fn read_rate(&self) -> Result<Option<f64>> {
        read_rate::read_rate(&self.core.pool, self.core.level).map(Some)
    }

    fn prepare(&self, bound: Bound) -> Result<Box<dyn Ready>> {
        Ok(Box::new(exec::Prepared::new(self.core.clone(), bound)?))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::backend::{NoWeights, Region, prepare};
    use crate::program::{Builder, Math, Scalar};

    fn backend() -> CpuBackend {
        CpuBackend::new(2, None).unwrap()
    }

    #[test]
    fn default_threads_are_within_what_the_process_may_use() {
        let usable = std::thread::available_parallelism().unwrap().get();
        let threads = CpuBackend::default_threads();
        assert!(threads >= 1 && threads <= usable);
        assert!(physical_cores().is_none_or(|cores| cores >= 1));
    }

    #[test]
    fn a_program_runs_twice_with_other_scalars() {
        let cpu = backend();
        let mut b = Builder::new("test", Math::F32);
        let x = b.input("x", &[2, 3]);
        let w = b.input("w", &[2, 3]);
        let y = b.linear(x, w);
        let z = b.op(Op::Silu, &[y]);
        let z = b.combine(Scalar(0), z, Scalar(1), y);
        b.output("z", z);
        let p = b.finish().unwrap();
        let x = Region::from_f32(&cpu, &[2, 3], &[1.0, 2.0, 3.0, -1.0, 0.0, 1.0]).unwrap();
        let w = Region::from_f32(&cpu, &[2, 3], &[1.0, 0.0, 0.0, 1.0, 1.0, -1.0]).unwrap();
        let z = Region::zeros(&cpu, &[2, 2], crate::program::DType::F32).unwrap();
        let mut ready =
            prepare(&cpu, &p, &NoWeights, &[("x", &x), ("w", &w)], &[("z", &z)]).unwrap();
        let y = [1.0f32, 0.0, -1.0, -2.0];
        for (a, c) in [(0.0, 1.0), (1.0, 0.5)] {
            ready.run(&[a, c]).unwrap();
            for (got, y) in z.read_f32(&cpu).unwrap().iter().zip(y) {
                let want = a * y / (1.0 + (-y).exp()) + c * y;
                assert!((got - want).abs() < 1e-6, "{got} {want}");
            }
        }
        assert!(matches!(ready.run(&[1.0]), Err(Error::Bug(_))));
    }

    #[test]
    fn a_program_outlives_a_failed_growth_of_the_arena() {
        let cpu = backend();
        let mut b = Builder::new("test", Math::F32);
        let x = b.input("x", &[1 << 16]);
        let y = b.add(x, x);
        let y = b.silu(y);
        let y = b.add(y, x);
        b.output("y", y);
        let p = b.finish().unwrap();
        let x = Region::from_f32(&cpu, &[1 << 16], &vec![1.0; 1 << 16]).unwrap();
        let y = Region::zeros(&cpu, &[1 << 16], crate::program::DType::F32).unwrap();
        let mut ready = prepare(&cpu, &p, &NoWeights, &[("x", &x)], &[("y", &y)]).unwrap();
        assert!(cpu.core.memory.lock().grow_arena(usize::MAX / 2).is_err());
        assert_eq!(cpu.core.memory.lock().arena().bytes(), 0);
        ready.run(&[]).unwrap();
        let want = 2.0 / (1.0 + (-2.0f32).exp()) + 1.0;
        assert!(
            y.read_f32(&cpu)
                .unwrap()
                .iter()
                .all(|v| (v - want).abs() < 1e-5)
        );
    }

    #[test]
    fn a_state_is_updated_in_its_own_region() {
        let cpu = backend();
        let mut b = Builder::new("test", Math::F32);
        let x = b.input("x", &[4]);
        let y = b.add(x, x);
        b.output("x", y);
        let p = b.finish().unwrap();
        let x = Region::from_f32(&cpu, &[4], &[1.0, 2.0, 3.0, 4.0]).unwrap();
        let mut ready = prepare(&cpu, &p, &NoWeights, &[("x", &x)], &[("x", &x)]).unwrap();
        ready.run(&[]).unwrap();
        ready.run(&[]).unwrap();
        assert_eq!(x.read_f32(&cpu).unwrap(), [4.0, 8.0, 12.0, 16.0]);
    }

    #[test]
    fn a_region_is_written_whole_or_not_at_all() {
        let cpu = backend();
        let all = Region::zeros(&cpu, &[2, 2], crate::program::DType::F32).unwrap();
        // Too long for the slab, though not for its buffer.
        for (region, n) in [(&all, 3), (&all, 5), (&all.slab(0), 4)] {
            let data = vec![1.0; n];
            assert!(matches!(region.write_f32(&cpu, &data), Err(Error::Bug(_))));
        }
        assert!(matches!(
            Region::from_i32(&cpu, &[2], &[1]),
            Err(Error::Bug(_))
        ));
        assert_eq!(all.read_f32(&cpu).unwrap(), [0.0; 4]);
    }

    #[test]
    fn contents_out_of_range_are_refused() {
        let cpu = backend();
        let mut b = Builder::new("test", Math::F32);
        let ids = b.input_i32("ids", &[2]);
        let table = b.input("table", &[3, 2]);
        let rows = b.embed(ids, table);
        b.output("rows", rows);
        let p = b.finish().unwrap();
        let ids = Region::zeros(&cpu, &[2], crate::program::DType::I32).unwrap();
        let table = Region::from_f32(&cpu, &[3, 2], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]).unwrap();
        let rows = Region::zeros(&cpu, &[2, 2], crate::program::DType::F32).unwrap();
        let ins = [("ids", &ids), ("table", &table)];
        let mut ready = prepare(&cpu, &p, &NoWeights, &ins, &[("rows", &rows)]).unwrap();
        for (a, b, ok) in [
            (2, 0, true),
            (3, 0, false),
            (0, -1, false),
            (i32::MIN, 0, false),
        ] {
            let bytes = [a, b].map(i32::to_le_bytes).concat();
            cpu.write(ids.buffer(), 0, &bytes).unwrap();
            match ready.run(&[]) {
                Ok(()) => assert!(ok, "{a} {b}"),
                Err(e) => assert!(!ok && matches!(e, Error::Corrupt(_)), "{a} {b}: {e}"),
            }
        }
        cpu.write(ids.buffer(), 0, &[2i32, 0].map(i32::to_le_bytes).concat())
            .unwrap();
        ready.run(&[]).unwrap();
        assert_eq!(rows.read_f32(&cpu).unwrap(), [4.0, 5.0, 0.0, 1.0]);
    }
}
