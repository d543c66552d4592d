//! How a device is opened.

use std::path::PathBuf;

/// What may be asked of a device beyond its number. The default is what users get.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Bytes that one binding sees at most, where the device would allow more: for tests.
    pub binding_bytes: Option<u64>,
    /// Bytes of a buffer at most, where the device would allow more: for tests.
    pub buffer_bytes: Option<u64>,
    /// Bytes that a workgroup shares at most, where the device would allow more: for tests.
    pub workgroup_bytes: Option<u32>,
    /// Whether subgroups are left alone, where the device has them: for tests.
    pub without_subgroups: bool,
    /// Whether the shaders meant for hardware run on a software device too: for tests.
    pub as_hardware: bool,
    /// Workgroups that keep the device busy; otherwise as many as a large one needs. Products are
    /// cut into smaller tiles to reach it.
    pub busy: Option<usize>,
    /// Bytes of memory in all, where the device has more.
    pub memory_bytes: Option<u64>,
    /// Multiplications and additions of one submission at most; otherwise as many as the device
    /// does in [`crate::SUBMISSION_SECONDS`], and any number on a software device, which nothing
    /// watches.
    pub submission_work: Option<f64>,
    /// Shaders test every index and bound every loop: slow, and wrong indices make wrong numbers
    /// instead of damage.
    pub checks: bool,
    /// Folder of compiled shaders; `None` keeps none.
    pub cache: Option<PathBuf>,
}

impl Options {
    /// What [`crate::open`] uses: compiled shaders are kept in the user's folder of caches.
    pub fn of_users() -> Self {
        Options {
            cache: crate::disk::user_cache(),
            ..Options::default()
        }
    }
}
