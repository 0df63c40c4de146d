//! Types common to the C interfaces of both libraries: statuses, handles and descriptors.

/// The status that a library returns; 0 is success.
pub(super) type Status = i32;

/// A handle or a descriptor of a library.
pub(super) type Pointer = *mut std::ffi::c_void;

/// A descriptor, destroyed when this value is dropped.
pub(super) struct Owned {
    pub raw: Pointer,
    pub destroy: unsafe extern "C" fn(Pointer) -> Status,
}

impl Drop for Owned {
    fn drop(&mut self) {
        // SAFETY: created by the counterpart of `destroy`, and nothing else uses it.
        unsafe { (self.destroy)(self.raw) };
    }
}

/// The reason why a library did not execute a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    /// True if it does not support the shape or type, false if it failed.
    pub refused: bool,
    /// True if it declines because of how it was installed: another file or driver than it needs.
    pub misplaced: bool,
    /// The library's error text.
    pub text: String,
}
