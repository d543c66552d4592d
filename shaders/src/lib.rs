//! The WebGPU backend: any GPU through Vulkan, Metal or DX12.
//!
//! This build carries no WGSL shaders yet; [`open`] says so.

use engine::backend::Backend;
use engine::{Error, Result};
use std::sync::Arc;

/// Opens adapter number `index`.
///
/// # Errors
/// [`Error::Request`]: there are no WGSL shaders in this build.
pub fn open(index: usize) -> Result<Arc<dyn Backend>> {
    Err(Error::Request(format!(
        "wgpu:{index} was asked for, but this build has no WGSL shaders; use --backend cpu"
    )))
}
