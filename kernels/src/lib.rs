//! The CUDA backend: NVIDIA cards through the driver alone.
//!
//! This build carries no CUDA kernels yet; [`open`] says so.

use engine::backend::Backend;
use engine::{Error, Result};
use std::sync::Arc;

/// Opens card number `index`.
///
/// # Errors
/// [`Error::Request`]: there are no CUDA kernels in this build.
pub fn open(index: usize) -> Result<Arc<dyn Backend>> {
    Err(Error::Request(format!(
        "cuda:{index} was asked for, but this build has no CUDA kernels; use --backend cpu"
    )))
}
