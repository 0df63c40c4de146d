//! NVIDIA's driver, loaded at run time: the GPUs it reports, their access to each other's memory, and its errors.

use super::embedded::IMAGES;
use crate::error::{Error, Result};
use cudarc::driver::{DriverError, result, sys};
use std::sync::OnceLock;

/// The version of the driver API for which the bindings were generated: 13.0, of driver 580.
const DRIVER: i32 = 13000;

/// Loads the driver once; the error describes what is missing.
fn driver() -> Result<()> {
    static STATE: OnceLock<std::result::Result<(), String>> = OnceLock::new();
    let state = STATE.get_or_init(|| {
        // SAFETY: this call only opens the library. If the library is missing, every other call of cudarc panics.
        if !unsafe { sys::is_culib_present() } {
            return Err("no NVIDIA driver was found (libcuda.so.1); install driver 580 or later, or use \"cpu\"".into());
        }
        let mut version = 0;
        // SAFETY: the function exists in every driver and needs no initialisation.
        let asked = unsafe { sys::cuDriverGetVersion(&raw mut version) };
        if asked != sys::CUresult::CUDA_SUCCESS || version < DRIVER {
            let (major, minor) = (version / 1000, version % 1000 / 10);
            return Err(format!(
                "the NVIDIA driver is too old: it supports CUDA {major}.{minor}, expected 13.0 or later; install \
                 driver 580 or later, or use \"cpu\""
            ));
        }
        result::init().map_err(|error| match error.0 {
            sys::CUresult::CUDA_ERROR_NO_DEVICE => {
                "no GPU was found: the NVIDIA driver is installed, but reports none (CUDA_VISIBLE_DEVICES may hide them); \
                 use \"cpu\""
                    .to_string()
            }
            other => format!("the NVIDIA driver cannot be initialised ({other:?})"),
        })
    });
    state.clone().map_err(Error::Usage)
}

/// Returns the number of GPUs that the driver reports (CUDA_VISIBLE_DEVICES may hide others).
pub(super) fn count() -> Result<usize> {
    driver()?;
    if IMAGES.is_empty() {
        return Err(Error::Usage(
            "this build has no GPU kernels; run scripts/cuda-toolchain.sh and build again, or use \"cpu\"".into(),
        ));
    }
    let count = result::device::get_count().map_err(|error| Error::Usage(format!("no GPU found ({:?})", error.0)))?;
    Ok(count as usize)
}

/// Returns the first two GPUs of which one cannot access the other's memory.
pub(super) fn apart(ordinals: &[usize]) -> Result<Option<(usize, usize)>> {
    driver()?;
    let device =
        |ordinal: usize| result::device::get(ordinal as i32).map_err(|error| sentence(ordinal, "be opened", error));
    for &a in ordinals {
        for &b in ordinals.iter().filter(|b| **b != a) {
            if !able(a, device(a)?, device(b)?)? {
                return Ok(Some((a, b)));
            }
        }
    }
    Ok(None)
}

/// Returns whether a GPU can be given access to the memory of another.
pub(super) fn able(ordinal: usize, this: sys::CUdevice, other: sys::CUdevice) -> Result<bool> {
    let mut able = 0;
    // SAFETY: both devices exist.
    let asked = unsafe { sys::cuDeviceCanAccessPeer(&raw mut able, this, other) };
    asked.result().map_err(|error| sentence(ordinal, "be queried about its peers", error))?;
    Ok(able != 0)
}

/// Describes an error of the driver in a sentence: `cuda:0 cannot launch dense_forward: ...`.
pub(super) fn sentence(ordinal: usize, action: &str, error: DriverError) -> Error {
    use sys::CUresult as C;
    let meaning = match error.0 {
        C::CUDA_ERROR_OUT_OF_MEMORY => "there is not enough memory",
        C::CUDA_ERROR_ILLEGAL_ADDRESS
        | C::CUDA_ERROR_MISALIGNED_ADDRESS
        | C::CUDA_ERROR_INVALID_ADDRESS_SPACE
        | C::CUDA_ERROR_LAUNCH_FAILED => {
            "a kernel made an invalid memory access; this is a bug in peristyle, please report it"
        }
        C::CUDA_ERROR_ILLEGAL_INSTRUCTION | C::CUDA_ERROR_INVALID_PC | C::CUDA_ERROR_ASSERT => {
            "a kernel executed invalid code; this is a bug in peristyle or in the driver, please report it"
        }
        C::CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES => {
            "a kernel needs more registers or shared memory than the GPU has; this is a bug in peristyle, please report it"
        }
        C::CUDA_ERROR_LAUNCH_TIMEOUT => {
            "a kernel ran too long for a GPU that also drives a display; use a GPU without one, or a smaller batch"
        }
        C::CUDA_ERROR_NO_BINARY_FOR_GPU | C::CUDA_ERROR_UNSUPPORTED_PTX_VERSION => {
            "this build has no kernels for this GPU; add its architecture to PERISTYLE_CUDA_ARCHS and build again"
        }
        C::CUDA_ERROR_DEVICE_UNAVAILABLE => "another process is using the GPU",
        C::CUDA_ERROR_ECC_UNCORRECTABLE
        | C::CUDA_ERROR_NVLINK_UNCORRECTABLE
        | C::CUDA_ERROR_HARDWARE_STACK_ERROR
        | C::CUDA_ERROR_CONTAINED => {
            "the GPU's hardware failed; its errors are listed by nvidia-smi -q and by the system's log (Xid)"
        }
        C::CUDA_ERROR_SYSTEM_NOT_READY => "the system's services for GPUs, such as the fabric manager, do not run",
        C::CUDA_ERROR_DEVICE_NOT_LICENSED => "the virtual GPU has no licence",
        C::CUDA_ERROR_STREAM_CAPTURE_UNJOINED => "a stream was not joined to the stream on which the capture began",
        _ => "the driver reports an error",
    };
    Error::Run(format!("cuda:{ordinal} cannot {action}: {meaning} ({:?})", error.0))
}
