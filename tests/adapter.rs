//! The device that tests of the WebGPU backend run on: the first there is, a software driver in
//! CI.

use engine::program::Math;
use engine::weights::demo;
use shaders::{Options, WgpuBackend};

/// The first device, which must be there where CI is set; elsewhere the test is skipped and says
/// so.
///
/// # Panics
/// In CI, when there is no device.
pub fn open(options: &Options) -> Option<WgpuBackend> {
    match WgpuBackend::open_with(0, options) {
        Ok(backend) => Some(backend),
        Err(error) => {
            assert!(std::env::var_os("CI").is_none(), "{error}");
            eprintln!("skipped: no adapter: {error}");
            None
        }
    }
}

/// What the demonstration engine computes in on any device.
pub const MATH: Math = Math::F32;

/// The demonstration tree in a folder of its own.
///
/// # Panics
/// When it cannot be written.
pub fn demo_tree() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    demo::demo(&dir.path().join("tree")).expect("written");
    dir
}
