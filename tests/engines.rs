//! Engines over a tree of checkpoints.

use engine::Result;
use engine::backend::cpu::CpuBackend;
use engine::backend::{Backend, Device};
use engine::program::Math;
use engine::sample::noise::NoiseKind;
use engine::song::{Engine, EngineOptions};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The tree of tiny models that the reference tensors were made with.
pub fn tiny() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("goldens/tiny")
}

/// An engine on `backend`.
///
/// # Errors
/// When the tree does not open.
pub fn engine_on(tree: &Path, backend: Arc<dyn Backend>, math: Math) -> Result<Engine> {
    Engine::open(EngineOptions {
        checkpoints: tree.to_path_buf(),
        device: Device { backend, math },
        lm_device: None,
        noise: NoiseKind::default(),
    })
}

/// An engine on two threads of the processor, in f32.
///
/// # Errors
/// As [`engine_on`].
pub fn on_processor(tree: &Path) -> Result<Engine> {
    engine_on(tree, Arc::new(CpuBackend::new(2, None)?), Math::F32)
}
