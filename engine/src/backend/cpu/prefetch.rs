//! Asking for memory before it is read.

/// Bytes of a line of the caches.
#[cfg(target_arch = "x86_64")]
const LINE: usize = 64;

/// Asks for all lines of `x`, into the first-level cache.
#[inline(always)]
pub fn prefetch<T>(x: &[T]) {
    #[cfg(target_arch = "x86_64")]
    for at in (0..size_of_val(x)).step_by(LINE) {
        prefetch_line::<FIRST_LEVEL>(x.as_ptr().cast::<u8>().wrapping_add(at));
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = x;
}

/// Into the first-level cache.
#[cfg(target_arch = "x86_64")]
pub const FIRST_LEVEL: i32 = 3;
/// Into the second-level cache.
pub const SECOND_LEVEL: i32 = 2;

/// Asks for the line of `p`, which may point anywhere, in the cache of this level.
#[inline(always)]
pub fn prefetch_line<const LEVEL: i32>(p: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch reads nothing that the program can see and never faults.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<LEVEL>(p.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = p;
}
