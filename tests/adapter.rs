//! The device that tests of the WebGPU backend run on: the first there is, a software driver in
//! CI.

use crate::requests::plain_sampling;
use engine::program::Math;
use engine::song::SongRequest;
use engine::weights::demo;
use shaders::{Options, WgpuBackend};
use std::path::PathBuf;

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

/// The demonstration tree, in a folder of its own as long as that is kept.
///
/// # Panics
/// When it cannot be written.
pub fn demo_tree() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a folder");
    let tree = dir.path().join("tree");
    demo::demo(&tree).expect("written");
    (dir, tree)
}

/// As short a song as there is, in two steps.
pub fn short_song(seeds: Vec<u64>) -> SongRequest {
    SongRequest {
        caption: "upbeat pop".into(),
        lyrics: "[verse]\nla la".into(),
        duration_s: Some(5.2),
        ..SongRequest::new("acestep-v15-turbo", seeds, plain_sampling(2))
    }
}

/// How far `read` is below `wanted`, in decibels.
///
/// # Panics
/// When they differ in length.
pub fn signal_to_error(wanted: &[f32], read: &[f32]) -> f64 {
    assert_eq!(wanted.len(), read.len());
    let power = |x: f32| f64::from(x) * f64::from(x);
    let signal: f64 = wanted.iter().map(|x| power(*x)).sum();
    let error: f64 = wanted.iter().zip(read).map(|(x, y)| power(x - y)).sum();
    10.0 * (signal / error.max(f64::MIN_POSITIVE)).log10()
}
