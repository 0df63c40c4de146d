//! What a process opens once on each GPU: its context, and every kernel.

use super::cuda_api::{count, sentence};
use super::embedded::{ARCHS, ENTRIES, IMAGES};
use super::kernel_image::KernelImage;
use crate::error::{Error, Result};
use cudarc::driver::{DriverError, result, sys};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// The context of a GPU with all kernels loaded. It lives as long as the process: loading them takes longer than most
/// checks of the selftest, and NVIDIA's libraries keep what they load in the context.
#[derive(Debug)]
pub(super) struct CudaContext {
    pub ordinal: usize,
    pub device: sys::CUdevice,
    pub context: sys::CUcontext,
    pub name: String,
    pub capability: (u32, u32),
    /// In the order of [`ENTRIES`].
    pub functions: Vec<sys::CUfunction>,
}

// SAFETY: the driver's handles may be used from any thread in which the context is current; `enter` makes it so.
unsafe impl Send for CudaContext {}
unsafe impl Sync for CudaContext {}

impl CudaContext {
    /// Returns the context of a GPU, which the first call in this process creates.
    pub fn of(ordinal: usize) -> Result<Arc<Self>> {
        static OPENED: Mutex<BTreeMap<usize, Arc<CudaContext>>> = Mutex::new(BTreeMap::new());
        let mut opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(context) = opened.get(&ordinal) {
            return Ok(Arc::clone(context));
        }
        let context = Arc::new(CudaContext::open(ordinal)?);
        opened.insert(ordinal, Arc::clone(&context));
        Ok(context)
    }

    fn open(ordinal: usize) -> Result<Self> {
        let found = count()?;
        if ordinal >= found {
            return Err(Error::Usage(format!(
                "cuda:{ordinal} does not exist: the driver reports {found} GPU(s), numbered from 0 \
                 (CUDA_VISIBLE_DEVICES may hide others)"
            )));
        }
        let fail = |action: &str, error: DriverError| sentence(ordinal, action, error);
        let device = result::device::get(ordinal as i32).map_err(|e| fail("be opened", e))?;
        let attribute = |which| {
            // SAFETY: the device exists.
            unsafe { result::device::get_attribute(device, which) }.map_err(|e| fail("be queried", e))
        };
        let major = attribute(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
        let minor = attribute(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
        let capability = (major as u32, minor as u32);
        let name = result::device::get_name(device).map_err(|e| fail("report its name", e))?;
        // SAFETY: released in `drop`.
        let context = unsafe { result::primary_ctx::retain(device) }.map_err(|e| fail("create a context", e))?;
        let mut opened = CudaContext { ordinal, device, context, name, capability, functions: Vec::new() };
        opened.enter()?;
        opened.load()?;
        Ok(opened)
    }

    fn load(&mut self) -> Result<()> {
        for (file, image) in IMAGES {
            // SAFETY: the image is a complete fatbin, which records its length.
            let module = unsafe { result::module::load_data(image.as_ptr().cast()) };
            let module = module.map_err(|e| self.fail(&format!("load kernels/{file}.cu"), e))?;
            for entry in ENTRIES.iter().filter(|entry| entry.file == *file) {
                let name = std::ffi::CString::new(entry.name).expect("a kernel's name contains no zero byte");
                // SAFETY: the module is loaded, and is not unloaded before its context ends.
                let function = unsafe { result::module::get_function(module, name) };
                self.functions.push(function.map_err(|e| self.fail(&format!("find {}", entry.name), e))?);
            }
        }
        assert_eq!(self.functions.len(), ENTRIES.len(), "images and entries list the files in the same order");
        Ok(())
    }

    /// Makes this GPU's context current in the calling thread.
    pub fn enter(&self) -> Result<()> {
        // SAFETY: the context lives as long as `self`.
        unsafe { result::ctx::set_current(self.context) }.map_err(|e| self.fail("be made current", e))
    }

    pub fn fail(&self, action: &str, error: DriverError) -> Error {
        sentence(self.ordinal, action, error)
    }

    /// Makes the context current and calls the driver; an error is described as `cuda:0 cannot {action}: ...`.
    pub fn call<T>(&self, action: &str, f: impl FnOnce() -> std::result::Result<T, DriverError>) -> Result<T> {
        self.enter()?;
        f().map_err(|error| self.fail(action, error))
    }

    pub fn code(&self, kernel: usize) -> Result<KernelImage> {
        use sys::CUfunction_attribute_enum::{CU_FUNC_ATTRIBUTE_BINARY_VERSION, CU_FUNC_ATTRIBUTE_PTX_VERSION};
        let ask = |attribute| {
            // SAFETY: the function lives as long as `self`.
            let asked = || unsafe { result::function::get_function_attribute(self.functions[kernel], attribute) };
            self.call(&format!("report the architecture of {}", ENTRIES[kernel].name), asked)
        };
        let (ptx, machine) = (ask(CU_FUNC_ATTRIBUTE_PTX_VERSION)?, ask(CU_FUNC_ATTRIBUTE_BINARY_VERSION)?);
        Ok(KernelImage::of(ptx as u32, machine as u32, ARCHS))
    }
}

impl Drop for CudaContext {
    /// Only runs for a context whose kernels could not be loaded.
    fn drop(&mut self) {
        // SAFETY: retained in `open`; nothing that was created in it is left.
        let _ = unsafe { result::primary_ctx::release(self.device) };
    }
}
