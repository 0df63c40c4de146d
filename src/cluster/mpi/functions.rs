//! The functions of a library.

use super::abi::Handle;
use libloading::os::unix::Library;
use std::ffi::{c_char, c_int, c_void};

/// The longest text that a library returns.
pub(super) const LONGEST_TEXT: usize = 8192;

/// What every call of MPI returns; zero is success.
pub(super) type Code = c_int;

/// The functions of a library, in the types of the standard with handles as words.
#[derive(Debug)]
pub(super) struct Functions {
    pub init_thread: unsafe extern "C" fn(*mut c_int, *mut *mut *mut c_char, c_int, *mut c_int) -> Code,
    pub finalize: unsafe extern "C" fn() -> Code,
    pub error_string: unsafe extern "C" fn(Code, *mut c_char, *mut c_int) -> Code,
    pub comm_set_errhandler: unsafe extern "C" fn(Handle, Handle) -> Code,
    pub comm_rank: unsafe extern "C" fn(Handle, *mut c_int) -> Code,
    pub comm_size: unsafe extern "C" fn(Handle, *mut c_int) -> Code,
    pub comm_dup: unsafe extern "C" fn(Handle, *mut Handle) -> Code,
    pub comm_split: unsafe extern "C" fn(Handle, c_int, c_int, *mut Handle) -> Code,
    pub comm_free: unsafe extern "C" fn(*mut Handle) -> Code,
    pub isend: unsafe extern "C" fn(*const c_void, c_int, Handle, c_int, c_int, Handle, *mut Handle) -> Code,
    pub irecv: unsafe extern "C" fn(*mut c_void, c_int, Handle, c_int, c_int, Handle, *mut Handle) -> Code,
    pub iallreduce:
        unsafe extern "C" fn(*const c_void, *mut c_void, c_int, Handle, Handle, Handle, *mut Handle) -> Code,
    pub test: unsafe extern "C" fn(*mut Handle, *mut c_int, *mut c_void) -> Code,
    pub iprobe: unsafe extern "C" fn(c_int, c_int, Handle, *mut c_int, *mut c_void) -> Code,
    pub get_count: unsafe extern "C" fn(*const c_void, Handle, *mut c_int) -> Code,
}

impl Functions {
    /// Finds the functions of a library.
    ///
    /// # Errors
    /// If one is missing.
    pub fn of(library: &Library) -> Result<Functions, libloading::Error> {
        // SAFETY: the types are those of the standard, with handles as words, which `Handle` explains.
        unsafe {
            Ok(Functions {
                init_thread: *library.get("MPI_Init_thread")?,
                finalize: *library.get("MPI_Finalize")?,
                error_string: *library.get("MPI_Error_string")?,
                comm_set_errhandler: *library.get("MPI_Comm_set_errhandler")?,
                comm_rank: *library.get("MPI_Comm_rank")?,
                comm_size: *library.get("MPI_Comm_size")?,
                comm_dup: *library.get("MPI_Comm_dup")?,
                comm_split: *library.get("MPI_Comm_split")?,
                comm_free: *library.get("MPI_Comm_free")?,
                isend: *library.get("MPI_Isend")?,
                irecv: *library.get("MPI_Irecv")?,
                iallreduce: *library.get("MPI_Iallreduce")?,
                test: *library.get("MPI_Test")?,
                iprobe: *library.get("MPI_Iprobe")?,
                get_count: *library.get("MPI_Get_count")?,
            })
        }
    }
}

/// Returns a text that ends with a zero.
pub(super) fn until_zero(mut text: Vec<u8>) -> String {
    text.truncate(text.iter().position(|&byte| byte == 0).unwrap_or(text.len()));
    String::from_utf8_lossy(&text).trim().to_string()
}
