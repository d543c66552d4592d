//! A backend that remembers what it had no kernel for, so that a comparison can say what ran by
//! definition.

use engine::Result;
use engine::backend::{Backend, Bound, Buffer, Caps, HostBytes, Ready};
use engine::program::{Op, Program};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

/// The wrapped backend, and the names of the operations that it refused.
pub struct Refusals {
    backend: Arc<dyn Backend>,
    refused: Mutex<BTreeSet<&'static str>>,
}

impl Refusals {
    /// None so far.
    pub fn of(backend: Arc<dyn Backend>) -> Self {
        Refusals {
            backend,
            refused: Mutex::default(),
        }
    }

    /// Operations that were replaced by their definition.
    pub fn names(&self) -> BTreeSet<&'static str> {
        let names = self.refused.lock();
        names.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Backend for Refusals {
    fn caps(&self) -> &Caps {
        self.backend.caps()
    }

    fn claims(&self, op: &Op) -> bool {
        let claimed = self.backend.claims(op);
        if !claimed {
            let names = self.refused.lock();
            let mut names = names.unwrap_or_else(PoisonError::into_inner);
            names.insert(op.name());
        }
        claimed
    }

    fn scratch_bytes(&self, program: &Program, step: usize) -> usize {
        self.backend.scratch_bytes(program, step)
    }

    fn alloc(&self, bytes: usize) -> Result<Buffer> {
        self.backend.alloc(bytes)
    }

    fn adopt(&self, host: HostBytes, row_bytes: usize) -> Result<Buffer> {
        self.backend.adopt(host, row_bytes)
    }

    fn write(&self, to: &Buffer, offset: usize, bytes: &[u8]) -> Result<()> {
        self.backend.write(to, offset, bytes)
    }

    fn read(&self, from: &Buffer, offset: usize, bytes: &mut [u8]) -> Result<()> {
        self.backend.read(from, offset, bytes)
    }

    fn read_rate(&self) -> Result<Option<f64>> {
        self.backend.read_rate()
    }

    fn prepare(&self, bound: Bound) -> Result<Box<dyn Ready>> {
        self.backend.prepare(bound)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::Error;
    use engine::backend::by_definition;
    use engine::program::{Builder, Math};

    /// A device without a kernel of one fused operation.
    struct Bare(Caps);

    fn nothing<T>() -> Result<T> {
        Err(Error::Device("nothing runs here".into()))
    }

    impl Backend for Bare {
        fn caps(&self) -> &Caps {
            &self.0
        }
        fn claims(&self, op: &Op) -> bool {
            *op != Op::SwiGlu
        }
        fn alloc(&self, _: usize) -> Result<Buffer> {
            nothing()
        }
        fn adopt(&self, _: HostBytes, _: usize) -> Result<Buffer> {
            nothing()
        }
        fn write(&self, _: &Buffer, _: usize, _: &[u8]) -> Result<()> {
            nothing()
        }
        fn read(&self, _: &Buffer, _: usize, _: &mut [u8]) -> Result<()> {
            nothing()
        }
        fn prepare(&self, _: Bound) -> Result<Box<dyn Ready>> {
            nothing()
        }
    }

    #[test]
    fn what_is_replaced_is_remembered() {
        let caps = Caps {
            name: "bare".into(),
            memory_bytes: 0,
            align: 64,
            piece_bytes: usize::MAX,
            native_bf16: false,
        };
        let backend = Refusals::of(Arc::new(Bare(caps)));
        let mut b = Builder::new("gate", Math::F32);
        let x = b.input("x", &[2, 4]);
        let weights = ["gate", "up"].map(|name| b.input(name, &[3, 4]));
        let out = b.op(Op::SwiGlu, &[x, weights[0], weights[1]]);
        b.output("out", out);
        let program = b.finish().expect("a program");
        assert!(backend.names().is_empty());
        let replaced = by_definition(&backend, &program).expect("a definition");
        assert_eq!(replaced, backend.names());
        assert!(replaced.contains("swiglu"), "{replaced:?}");
    }
}
