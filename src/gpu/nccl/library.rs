//! The library and its functions.

use super::unique_id::UniqueId;
use crate::error::{Error, Result};
use crate::gpu::libraries::find::{functions, open};
use std::ffi::{CStr, c_char, c_int, c_void};
use std::path::PathBuf;
use std::sync::OnceLock;

/// The name of the library, which is that of its API.
const NAME: &str = "libnccl.so.2";
/// The oldest version, as numbers of three parts: it finalises communicators.
const OLDEST: c_int = 21_400;
pub(super) const SUCCESS: c_int = 0;
pub(super) const IN_PROGRESS: c_int = 7;

/// A communicator of the library.
pub(super) type Handle = *mut c_void;
type Stream = *mut c_void;

functions! {
    /// The functions of nccl.h. A result is 0, or an error.
    pub(super) Functions {
        ncclGetVersion(*mut c_int) -> c_int;
        ncclGetUniqueId(*mut UniqueId) -> c_int;
        ncclCommInitRank(*mut Handle, c_int, UniqueId, c_int) -> c_int;
        ncclCommDestroy(Handle) -> c_int;
        ncclCommAbort(Handle) -> c_int;
        ncclCommGetAsyncError(Handle, *mut c_int) -> c_int;
        ncclGetErrorString(c_int) -> *const c_char;
        ncclGetLastError(Handle) -> *const c_char;
        ncclGroupStart() -> c_int;
        ncclGroupEnd() -> c_int;
        ncclAllReduce(*const c_void, *mut c_void, usize, c_int, c_int, Handle, Stream) -> c_int;
        ncclReduceScatter(*const c_void, *mut c_void, usize, c_int, c_int, Handle, Stream) -> c_int;
        ncclAllGather(*const c_void, *mut c_void, usize, c_int, Handle, Stream) -> c_int;
        ncclSend(*const c_void, usize, c_int, c_int, Handle, Stream) -> c_int;
        ncclRecv(*mut c_void, usize, c_int, c_int, Handle, Stream) -> c_int;
    }
}

/// The library.
#[derive(Debug)]
pub struct NcclLibrary {
    /// Its version: `2.27.7`.
    pub version: String,
    /// Its file.
    pub path: PathBuf,
    pub(super) functions: Functions,
}

/// Returns the library, which the first call loads.
///
/// # Errors
/// If it is missing or too old.
pub fn nccl() -> Result<&'static NcclLibrary> {
    static LIBRARY: OnceLock<Result<NcclLibrary, String>> = OnceLock::new();
    LIBRARY.get_or_init(load).as_ref().map_err(|why| {
        Error::Usage(format!(
            "NCCL, which moves data between GPUs of several processes, cannot be used: {why}; install it (libnccl2, or nvidia-nccl-cu13 of \
             PyPI), or set PERISTYLE_LIBRARIES to the folder of {NAME}, or collectives = \"mpi\""
        ))
    })
}

fn load() -> Result<NcclLibrary, String> {
    let opened = open(&[NAME])?;
    let functions = Functions::load(&opened)?;
    let mut version = 0;
    // SAFETY: the library is loaded; `version` is valid for the call.
    unsafe { (functions.ncclGetVersion)(&raw mut version) };
    let text = format!("{}.{}.{}", version / 10_000, version / 100 % 100, version % 100);
    if version < OLDEST {
        return Err(format!("{} is version {text}, expected at least 2.14", opened.path.display()));
    }
    let path = opened.path.clone();
    // Its threads run as long as the process.
    std::mem::forget(opened);
    Ok(NcclLibrary { version: text, path, functions })
}

impl NcclLibrary {
    /// Creates the identity of a communicator, at which this process listens.
    ///
    /// # Errors
    /// If the library finds no network interface.
    pub fn unique_id(&self) -> Result<UniqueId> {
        let mut id = UniqueId::empty();
        // SAFETY: `id` is valid for the call.
        let result = unsafe { (self.functions.ncclGetUniqueId)(&raw mut id) };
        self.check("listen for other processes (NCCL_SOCKET_IFNAME chooses the interface)", result).map(|()| id)
    }

    /// Returns the error of a call.
    pub(super) fn check(&self, action: &str, result: c_int) -> Result<()> {
        match self.meaning(result) {
            None => Ok(()),
            Some(meaning) => Err(Error::Run(format!("NCCL {} cannot {action}: {meaning}", self.version))),
        }
    }

    /// Returns what a result means, unless it is no error.
    pub(super) fn meaning(&self, result: c_int) -> Option<String> {
        if matches!(result, SUCCESS | IN_PROGRESS) {
            return None;
        }
        let text = |pointer: *const c_char| {
            // SAFETY: the library returns texts that end with a zero, or none.
            if pointer.is_null() { String::new() } else { unsafe { CStr::from_ptr(pointer) }.to_string_lossy().into() }
        };
        // SAFETY: the library is loaded, and the last error is not that of a communicator.
        let (kind, last) = unsafe {
            let functions = &self.functions;
            (text((functions.ncclGetErrorString)(result)), text((functions.ncclGetLastError)(std::ptr::null_mut())))
        };
        let last: String = last.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        Some(if last.is_empty() { kind } else { format!("{kind} ({last})") })
    }
}
