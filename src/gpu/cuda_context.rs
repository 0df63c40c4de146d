//! What a process opens once on each GPU: its context, and every kernel.

use super::cuda_api::{count, sentence};
use super::embedded::{ARCHS, ENTRIES, IMAGES};
use super::kernel_image::KernelImage;
use crate::error::{Error, Result};
use cudarc::driver::{DriverError, result, sys};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

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
    /// The longest time to wait for the GPU; `None` waits for ever.
    patience: Option<Duration>,
    /// Whether the GPU took longer. Then no call is made any more, because many of them would wait as well.
    hangs: AtomicBool,
}

/// The default of PERISTYLE_GPU_TIMEOUT: longer than any step, unless a tool slows the GPU down.
const PATIENCE: u64 = 600;
/// How long the host polls before it sleeps between questions.
const POLLS: Duration = Duration::from_millis(2);
const SLEEP: Duration = Duration::from_micros(20);

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
        let patience = patience()?;
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
        let (hangs, functions) = (AtomicBool::new(false), Vec::new());
        let mut opened = CudaContext { ordinal, device, context, name, capability, functions, patience, hangs };
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
        if self.hangs.load(Ordering::Relaxed) {
            return Err(self.hanging());
        }
        // SAFETY: the context lives as long as `self`.
        unsafe { result::ctx::set_current(self.context) }.map_err(|e| self.fail("be made current", e))
    }

    /// Waits until a question about the GPU's work is no longer answered by "not ready".
    pub fn finish(&self, ask: impl Fn() -> sys::CUresult) -> Result<()> {
        self.enter()?;
        let begin = Instant::now();
        loop {
            match ask() {
                sys::CUresult::CUDA_SUCCESS => return Ok(()),
                sys::CUresult::CUDA_ERROR_NOT_READY => {}
                error => return Err(self.fail("finish its work", DriverError(error))),
            }
            let waited = begin.elapsed();
            if self.patience.is_some_and(|patience| waited > patience) {
                self.hangs.store(true, Ordering::Relaxed);
                return Err(self.hanging());
            }
            if waited < POLLS { std::thread::yield_now() } else { std::thread::sleep(SLEEP) }
        }
    }

    fn hanging(&self) -> Error {
        let seconds = self.patience.unwrap_or_default().as_secs();
        Error::Run(format!(
            "cuda:{} has not finished its work in {seconds} s: a kernel or the GPU hangs; see nvidia-smi and the \
             system's log (Xid), or give it more time (PERISTYLE_GPU_TIMEOUT=SECONDS, 0 for no limit)",
            self.ordinal
        ))
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

/// Returns the longest time to wait for a GPU.
fn patience() -> Result<Option<Duration>> {
    let Some(set) = std::env::var_os("PERISTYLE_GPU_TIMEOUT") else { return Ok(Some(Duration::from_secs(PATIENCE))) };
    let seconds = set.to_str().and_then(|set| set.parse::<u32>().ok()).ok_or_else(|| {
        Error::Usage(format!("PERISTYLE_GPU_TIMEOUT = {}, expected a number of seconds, or 0", set.display()))
    })?;
    Ok((seconds > 0).then(|| Duration::from_secs(seconds.into())))
}

impl Drop for CudaContext {
    /// Only runs for a context whose kernels could not be loaded.
    fn drop(&mut self) {
        // SAFETY: retained in `open`; nothing that was created in it is left.
        let _ = unsafe { result::primary_ctx::release(self.device) };
    }
}
