//! One output that many jobs of a pool region write at once, each its own places.

use std::marker::PhantomData;

/// A mutably borrowed slice that can be handed to all jobs of a region.
#[derive(Clone, Copy)]
pub struct Parts<'a, T> {
    ptr: *mut T,
    len: usize,
    borrow: PhantomData<&'a mut [T]>,
}

// SAFETY: it is a borrow of elements that may be sent; who hands out parts of it to several
// threads promises in `Parts::part` that they are disjoint.
unsafe impl<T: Send> Send for Parts<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Parts<'_, T> {}

impl<'a, T> Parts<'a, T> {
    /// Wraps a slice for the length of its borrow.
    pub fn new(data: &'a mut [T]) -> Self {
        Parts {
            ptr: data.as_mut_ptr(),
            len: data.len(),
            borrow: PhantomData,
        }
    }

    /// Elements `start..start + len`. Panics when they are not all inside.
    ///
    /// # Safety
    /// No two parts that are alive at once may overlap.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn part(&self, start: usize, len: usize) -> &'a mut [T] {
        assert!(
            start <= self.len && len <= self.len - start,
            "a part outside its slice"
        );
        // SAFETY: inside the borrowed slice (checked above); disjoint by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.ptr.add(start), len) }
    }
}
