//! What the interfaces in C of both libraries have in common: statuses, handles and descriptors.

/// What a library answers; 0 is success.
pub(super) type Status = i32;

/// A handle or a descriptor of a library.
pub(super) type Pointer = *mut std::ffi::c_void;

/// A descriptor, destroyed with its owner.
pub(super) struct Owned {
    pub raw: Pointer,
    pub destroy: unsafe extern "C" fn(Pointer) -> Status,
}

impl Drop for Owned {
    fn drop(&mut self) {
        // SAFETY: made by the function that `destroy` belongs to, and used by nobody else.
        unsafe { (self.destroy)(self.raw) };
    }
}

/// Why a library did not do something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    /// True when it does not take the shape or type, false when it failed.
    pub refused: bool,
    /// The library's words.
    pub text: String,
}
