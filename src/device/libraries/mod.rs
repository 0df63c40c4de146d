//! NVIDIA's libraries for products and convolutions, where they can be opened: cuBLASLt and cuDNN. What they refuse is
//! left to the caller's own kernels.
//!
//! The functions are declared here, not taken from cudarc: its loaders panic when a library or a function is missing,
//! look for names only, and its enums have no room for the statuses of newer libraries.
//!
//! An algorithm is chosen when a product or convolution is issued for the first time, outside of a capture, and kept in
//! [`Choices`]: among those that give the same bits every time and stay inside a workspace of fixed size, the one that
//! the library's heuristic puts first.

mod choices;
mod convolutions;
mod find;
mod products;

pub use choices::{Algorithm, Choices, Record, Table};
pub use convolutions::{CONVOLUTION_WORKSPACE, Convolution, Direction, Images};
pub use products::{Factors, PRODUCT_WORKSPACE, Product, Which};

use super::driver::{Driver, Format, Stream};
use crate::error::{Error, Result};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a library answers; 0 is success.
type Status = i32;

/// A handle or a descriptor of a library.
type Pointer = *mut std::ffi::c_void;

/// A descriptor, destroyed with its owner.
struct Owned {
    raw: Pointer,
    destroy: unsafe extern "C" fn(Pointer) -> Status,
}

impl Drop for Owned {
    fn drop(&mut self) {
        // SAFETY: made by the function that `destroy` belongs to, and used by nobody else.
        unsafe { (self.destroy)(self.raw) };
    }
}

/// Returns how a version is written: 91002 is 9.10.2.
fn version_text(version: usize) -> String {
    format!("{}.{}.{}", version / 10_000, version / 100 % 100, version % 100)
}

/// Where workspace begins: at a multiple of this many bytes, as cuBLASLt asks for.
pub const WORKSPACE_ALIGN: usize = 256;

/// Names a format in the table of choices.
fn name(format: Format) -> &'static str {
    match format {
        Format::F32 => "f32",
        Format::Tf32 => "tf32",
        Format::Bf16 => "bf16",
    }
}

/// Device memory that a library may use while it computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Workspace {
    /// Its address.
    pub address: u64,
    /// Its length.
    pub bytes: usize,
}

impl Workspace {
    /// Returns the elements of scratch memory, wherever it lies, that hold `bytes` of workspace.
    pub const fn elements(bytes: usize) -> usize {
        (bytes + WORKSPACE_ALIGN).div_ceil(4)
    }

    /// Takes scratch memory from the first place where workspace may begin.
    pub fn inside(address: u64, bytes: usize) -> Self {
        let start = address.next_multiple_of(WORKSPACE_ALIGN as u64);
        Workspace { address: start, bytes: bytes.saturating_sub((start - address) as usize) }
    }
}

/// Why a library did not do something.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Refusal {
    /// True when it does not take the shape or type, false when it failed.
    refused: bool,
    /// The library's words.
    text: String,
}

/// Returns one line for each library: its version and file, or why it cannot be used.
pub fn described() -> [String; 2] {
    let lt = products::library().map(|l| (version_text(l.version), l.path.display().to_string()));
    let dnn = convolutions::library().map(|l| (version_text(l.version), l.path.display().to_string()));
    [("cuBLASLt", lt), ("cuDNN", dnn)].map(|(name, found)| match found {
        Ok((version, path)) => format!("{name}: {version}, {path}"),
        Err(reason) => format!("{name}: none: {reason}"),
    })
}

/// Returns true when this machine has one of the libraries.
pub fn present() -> bool {
    products::library().is_ok() || convolutions::library().is_ok()
}

#[derive(Debug)]
struct Handles {
    products: Option<products::Handle>,
    convolutions: Option<convolutions::Handle>,
}

/// The libraries on one GPU. Those that cannot be used are absent, which was said in the log.
#[derive(Debug)]
pub struct Libraries {
    /// What the GPU is called in messages: `cuda:0`.
    gpu: String,
    handles: Mutex<Handles>,
    choices: Arc<Choices>,
}

// SAFETY: the handles may be used from any thread, by one at a time, which the mutex sees to.
unsafe impl Send for Libraries {}
unsafe impl Sync for Libraries {}

impl Libraries {
    /// Makes handles on the GPU whose context is current; `name` is the hardware's.
    pub(super) fn new(gpu: String, name: &str, choices: &Arc<Choices>) -> Self {
        let products = products::library().map_err(String::from).and_then(|library| {
            products::Handle::new(library).map(|handle| (handle, library.version)).map_err(|why| why.text)
        });
        let convolutions = convolutions::library().map_err(String::from).and_then(|library| {
            convolutions::Handle::new(library).map(|handle| (handle, library.version)).map_err(|why| why.text)
        });
        let (products, lt) = used(&gpu, "products", "cuBLASLt", products);
        let (convolutions, dnn) = used(&gpu, "convolutions", "cuDNN", convolutions);
        choices.begin(name, lt, dnn);
        let handles = Handles { products, convolutions };
        Libraries { gpu, handles: Mutex::new(handles), choices: Arc::clone(choices) }
    }

    fn lock(&self) -> MutexGuard<'_, Handles> {
        self.handles.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Issues a product to a stream. Returns false when the caller's own kernel shall compute it.
    ///
    /// # Errors
    /// When the library fails.
    ///
    /// # Safety
    /// The GPU's context is current, the addresses are its, hold as much as the product says, and do not overlap.
    pub(super) unsafe fn multiply(
        &self,
        product: &Product,
        at: &Factors,
        workspace: Workspace,
        stream: u64,
    ) -> Result<bool> {
        let handles = self.lock();
        let Some(handle) = &handles.products else { return Ok(false) };
        let key = products::key(product, at);
        let known = self.choices.known(products::TABLE, &key);
        // SAFETY: passed on.
        let issued = unsafe { handle.multiply(product, at, workspace, stream, known) };
        self.settle(products::TABLE, "cuBLASLt", &key, known, issued)
    }

    /// Issues a convolution to a stream. Returns false when the caller's own kernel shall compute it.
    ///
    /// # Errors
    /// When the library fails.
    ///
    /// # Safety
    /// As for a product.
    pub(super) unsafe fn convolve(
        &self,
        convolution: &Convolution,
        at: &Images,
        workspace: Workspace,
        stream: u64,
    ) -> Result<bool> {
        let handles = self.lock();
        let Some(handle) = &handles.convolutions else { return Ok(false) };
        let key = convolutions::key(convolution);
        let known = self.choices.known(convolutions::TABLE, &key);
        // SAFETY: passed on.
        let issued = unsafe { handle.convolve(convolution, at, workspace, stream, known) };
        self.settle(convolutions::TABLE, "cuDNN", &key, known, issued)
    }

    /// Keeps the choice that was made, or makes the library's answer a sentence.
    fn settle(
        &self,
        table: choices::Library,
        library: &str,
        key: &str,
        known: Option<Algorithm>,
        issued: Result<Algorithm, Refusal>,
    ) -> Result<bool> {
        let gpu = &self.gpu;
        let algorithm = match issued {
            Ok(algorithm) => algorithm,
            Err(Refusal { refused: true, text }) => {
                tracing::info!("{gpu}: an own kernel computes {key}, which {library} refuses: {text}");
                Algorithm::Own
            }
            Err(Refusal { text, .. }) => {
                return Err(Error::Run(format!(
                    "{gpu} cannot compute {key}: {library} says: {text}; set libraries = \"off\" in [devices] to do \
                     without it"
                )));
            }
        };
        if known != Some(algorithm) {
            if known.is_some() {
                tracing::warn!("{gpu}: the algorithm kept for {key} does not run here; another one was chosen");
            }
            self.choices.keep(table, key, algorithm);
        }
        Ok(algorithm != Algorithm::Own)
    }
}

/// Says in the log what computes; returns a library's handle, and its version or 0.
fn used<H>(gpu: &str, what: &str, library: &str, made: Result<(H, usize), String>) -> (Option<H>, usize) {
    match made {
        Ok((handle, version)) => {
            tracing::info!("{gpu}: {library} {} computes {what}", version_text(version));
            (Some(handle), version)
        }
        Err(reason) => {
            tracing::info!("{gpu}: own kernels compute {what}: no {library}: {reason}");
            (None, 0)
        }
    }
}

impl Driver {
    /// Opens NVIDIA's libraries for this GPU, those that are there; does nothing on the emulated device.
    ///
    /// # Errors
    /// When the device refuses.
    pub fn use_libraries(&self, choices: &Arc<Choices>) -> Result<()> {
        match self {
            Driver::Cuda(device) => device.use_libraries(choices),
            Driver::Emu(_) => Ok(()),
        }
    }

    /// Returns true when libraries may be used.
    pub fn has_libraries(&self) -> bool {
        matches!(self, Driver::Cuda(device) if device.has_libraries())
    }

    /// Issues a product to a library. Returns false when an own kernel shall compute it.
    ///
    /// # Errors
    /// When the library fails.
    ///
    /// # Safety
    /// The addresses are of this device, hold as much as the product says, stay valid until it is computed, and do not
    /// overlap.
    pub unsafe fn multiply(&self, product: &Product, at: &Factors, work: Workspace, stream: Stream) -> Result<bool> {
        match self {
            // SAFETY: passed on.
            Driver::Cuda(device) => unsafe { device.multiply(product, at, work, stream) },
            Driver::Emu(_) => Ok(false),
        }
    }

    /// Issues a convolution to a library. Returns false when an own kernel shall compute it.
    ///
    /// # Errors
    /// When the library fails.
    ///
    /// # Safety
    /// As for a product.
    pub unsafe fn convolve(&self, what: &Convolution, at: &Images, work: Workspace, stream: Stream) -> Result<bool> {
        match self {
            // SAFETY: passed on.
            Driver::Cuda(device) => unsafe { device.convolve(what, at, work, stream) },
            Driver::Emu(_) => Ok(false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workspace_begins_at_its_alignment_and_is_whole() {
        for address in [0, 64, 255, 256, 1000] {
            let bytes = Workspace::elements(1 << 20) * 4;
            let inside = Workspace::inside(address, bytes);
            assert!(inside.address >= address && inside.address.is_multiple_of(256) && inside.bytes >= 1 << 20);
            assert!(inside.address + inside.bytes as u64 <= address + bytes as u64);
        }
        assert_eq!(Workspace::inside(1, 8).bytes, 0);
    }
}
