//! The WebGPU backend: any GPU through Vulkan, Metal or DX12, by hand-written WGSL.
//!
//! [`adapters`] finds devices, [`gpu`] opens one and turns its faults into errors, [`memory`]
//! keeps buffers, [`kernels`] is the table of shaders, [`pipelines`] compiles them, [`launch`]
//! says for every operation which shaders run with which parameters, [`resolve`] makes dispatches
//! of whole programs, [`exec`] binds and records them, [`core`] submits what was recorded.

mod adapters;
mod arena;
mod backend;
mod core;
mod disk;
mod exec;
mod gpu;
mod heaps;
mod kernels;
mod launch;
mod memory;
mod options;
mod pipelines;
mod resolve;
mod usage;
mod work;

pub use adapters::{Adapter, adapters};
pub use backend::{Counts, WgpuBackend};
pub use core::SUBMISSION_SECONDS;
pub use kernels::{ShaderText, variants};
pub use options::Options;

use engine::Result;
use engine::backend::Backend;
use std::sync::Arc;

/// Opens adapter number `index` of [`adapters`].
///
/// # Errors
/// [`engine::Error::Request`] when there is no such adapter (the sentence lists those that are
/// there), [`engine::Error::Device`] when it does not open or offers too little.
pub fn open(index: usize) -> Result<Arc<dyn Backend>> {
    Ok(Arc::new(WgpuBackend::open(index)?))
}
