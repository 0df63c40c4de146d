//! The libraries on one GPU: their handles, and the choice of an algorithm for each call.

use super::choices::{self, Algorithm, Choices, Record};
use super::convolutions::{self, Convolution, Images};
use super::products::{self, Factors, Product};
use super::raw::Refusal;
use super::workspace::Workspace;
use crate::device::LibraryUse;
use crate::error::{Error, Result};
use crate::gpu::handles::Stream;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Returns a version as text: 91002 is 9.10.2.
fn version_text(version: usize) -> String {
    format!("{}.{}.{}", version / 10_000, version / 100 % 100, version % 100)
}

/// Returns one line for each library: its version and file, or the reason why it cannot be used.
pub fn described() -> [String; 2] {
    let lt = products::library().map(|l| (version_text(l.version), l.path.display().to_string()));
    let dnn = convolutions::library().map(|l| (version_text(l.version), l.path.display().to_string()));
    [("cuBLASLt", lt), ("cuDNN", dnn)].map(|(name, found)| match found {
        Ok((version, path)) => format!("{name}: {version}, {path}"),
        Err(reason) => format!("{name}: none: {reason}"),
    })
}

/// Returns true if this machine has at least one of the libraries.
pub fn present() -> bool {
    products::library().is_ok() || convolutions::library().is_ok()
}

/// What NVIDIA's libraries compute on a GPU.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct LibraryReport {
    /// A line for each library: its version and file, or why it cannot be used.
    pub libraries: Vec<String>,
    /// The algorithm of every product and convolution so far.
    pub algorithms: Record,
    /// Those that a library declined, each with its reason.
    pub declined: BTreeMap<String, String>,
}

impl LibraryReport {
    /// Returns what the libraries compute so far.
    pub fn of(choices: &Choices) -> Self {
        LibraryReport { libraries: described().into(), algorithms: choices.record(), declined: choices.declined() }
    }
}

#[derive(Debug)]
struct Handles {
    products: Option<products::Handle>,
    convolutions: Option<convolutions::Handle>,
}

/// The libraries on one GPU. Those that cannot be used are absent, and the log records why.
#[derive(Debug)]
pub struct Libraries {
    /// The name of the GPU in messages: `cuda:0`.
    gpu: String,
    /// What they may compute.
    pub(in crate::gpu) used: LibraryUse,
    handles: Mutex<Handles>,
    choices: Arc<Choices>,
}

// SAFETY: the handles may be used from any thread, one at a time; the mutex ensures that.
unsafe impl Send for Libraries {}
unsafe impl Sync for Libraries {}

impl Libraries {
    /// Creates handles on the GPU whose context is current; `name` is the model of the GPU.
    pub(in crate::gpu) fn new(gpu: String, name: &str, used: LibraryUse, choices: &Arc<Choices>) -> Self {
        let products = products::library().map_err(String::from).and_then(|library| {
            products::Handle::new(library).map(|handle| (handle, library.version)).map_err(|why| why.text)
        });
        let convolutions = convolutions::library().map_err(String::from).and_then(|library| {
            convolutions::Handle::new(library).map(|handle| (handle, library.version)).map_err(|why| why.text)
        });
        let (products, lt) = logged(&gpu, "products", "cuBLASLt", products);
        let (convolutions, dnn) = logged(&gpu, "convolutions", "cuDNN", convolutions);
        choices.begin(name, lt, dnn);
        let handles = Handles { products, convolutions };
        Libraries { gpu, used, handles: Mutex::new(handles), choices: Arc::clone(choices) }
    }

    fn lock(&self) -> MutexGuard<'_, Handles> {
        self.handles.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Issues a product to a stream. Returns false if the caller should fall back to its own kernel.
    ///
    /// # Errors
    /// If the library fails.
    ///
    /// # Safety
    /// The GPU's context is current; the addresses belong to it, are large enough for the product, and do not overlap.
    pub(in crate::gpu) unsafe fn multiply(
        &self,
        product: &Product,
        at: &Factors,
        workspace: Workspace,
        stream: Stream,
    ) -> Result<bool> {
        let handles = self.lock();
        let Some(handle) = &handles.products else { return Ok(false) };
        let key = products::key(product, at);
        let known = self.choices.known(products::TABLE, &key);
        // SAFETY: the caller's guarantees are passed on.
        let issued = unsafe { handle.multiply(product, at, workspace, stream, known) };
        self.settle(products::TABLE, "cuBLASLt", &key, known, issued)
    }

    /// Issues a convolution to a stream. Returns false if the caller should fall back to its own kernel.
    ///
    /// # Errors
    /// If the library fails.
    ///
    /// # Safety
    /// As for [`Libraries::multiply`].
    pub(in crate::gpu) unsafe fn convolve(
        &self,
        convolution: &Convolution,
        at: &Images,
        workspace: Workspace,
        stream: Stream,
    ) -> Result<bool> {
        let handles = self.lock();
        let Some(handle) = &handles.convolutions else { return Ok(false) };
        if convolution.is_rounded() && self.used < LibraryUse::Fast {
            return Ok(false);
        }
        let key = convolutions::key(convolution);
        let known = self.choices.known(convolutions::TABLE, &key);
        // SAFETY: the caller's guarantees are passed on.
        let issued = unsafe { handle.convolve(convolution, at, workspace, stream, known) };
        self.settle(convolutions::TABLE, "cuDNN", &key, known, issued)
    }

    /// Records the algorithm that was used, or turns the library's failure into an error.
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
            Err(Refusal { refused: true, misplaced, text }) => {
                self.choices.decline(key, &format!("{library}: {text}"));
                if misplaced && self.choices.warns() {
                    tracing::warn!(
                        "{gpu}: our own kernel computes {key}, because {library} is not installed as it should be: \
                         {text}; see peristyle devices for its file"
                    );
                } else {
                    tracing::info!("{gpu}: our own kernel computes {key}, because {library} declines it: {text}");
                }
                Algorithm::Own
            }
            Err(Refusal { text, .. }) => {
                return Err(Error::Run(format!(
                    "{gpu} cannot compute {key}: {library} reports: {text}; set libraries = \"off\" in [devices] to \
                     run without it"
                )));
            }
        };
        if known != Some(algorithm) {
            if known.is_some() {
                tracing::warn!("{gpu}: the algorithm recorded for {key} does not run here; another one was chosen");
            }
            self.choices.keep(table, key, algorithm);
        }
        Ok(algorithm != Algorithm::Own)
    }
}

/// Logs whether a library is used. Returns its handle and version, or 0 as the version if it is not.
fn logged<H>(gpu: &str, what: &str, library: &str, made: Result<(H, usize), String>) -> (Option<H>, usize) {
    match made {
        Ok((handle, version)) => {
            tracing::info!("{gpu}: {library} {} computes {what}", version_text(version));
            (Some(handle), version)
        }
        Err(reason) => {
            tracing::info!("{gpu}: our own kernels compute {what}, because {library} cannot be used: {reason}");
            (None, 0)
        }
    }
}
