//! Matrix products by cuBLASLt.
//!
//! cuBLASLt uses column-major order: a row-major (r, c) matrix is its (c, r) matrix with leading dimension c. So
//! y = x w^T is computed as y^T = w x^T, and no data is rearranged.

use super::choices::{Algorithm, Library, name};
use super::find::{Opened, functions, open};
use super::raw::{Owned, Pointer, Refusal, Status};
use super::workspace::{WORKSPACE_ALIGN, Workspace};
use crate::gpu::address::ComputeType;
use crate::gpu::handles::Stream;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::path::PathBuf;
use std::sync::OnceLock;

/// Bytes of workspace that each product may use: the size that cuBLAS reserves on Hopper, and recommends.
pub const PRODUCT_WORKSPACE: usize = 32 << 20;

/// One of the three products of a fully connected layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProductOf {
    /// y (N, O) = x (N, I) w^T + bias.
    Output,
    /// dx (N, I) = dy (N, O) w.
    Input,
    /// dw (O, I) = dy^T x.
    Weight,
}

/// A product of a fully connected layer with weights (O, I).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Product {
    /// Which of the three products.
    pub which: ProductOf,
    /// Samples N.
    pub rows: usize,
    /// Inputs I.
    pub inputs: usize,
    /// Outputs O.
    pub outputs: usize,
    /// The format of the operands.
    pub operands: ComputeType,
    /// The format of the result.
    pub result: ComputeType,
    /// Whether max(result, 0) is stored, where the result includes the bias.
    pub relu: bool,
}

/// The addresses of a product's operands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Factors {
    /// x, or dy for [`ProductOf::Input`].
    pub samples: u64,
    /// The weights, or dy for [`ProductOf::Weight`].
    pub other: u64,
    /// The bias (O), in the element type of the result.
    pub bias: Option<u64>,
    /// The result.
    pub result: u64,
}

/// A matrix in cuBLASLt's terms: rows, columns; the leading dimension is the number of rows.
type Extents = (usize, usize);

impl Product {
    /// Returns A, whether it is transposed, B, whether it is transposed, and D.
    fn matrices(&self) -> (Extents, bool, Extents, bool, Extents) {
        let (n, i, o) = (self.rows, self.inputs, self.outputs);
        match self.which {
            ProductOf::Output => ((i, o), true, (i, n), false, (o, n)),
            ProductOf::Input => ((i, o), false, (o, n), false, (i, n)),
            ProductOf::Weight => ((i, n), false, (o, n), true, (i, o)),
        }
    }

    /// Returns true if cuBLASLt may compute this product: all extents fit in 32 bits, and none is 0.
    fn fits(&self) -> bool {
        [self.rows, self.inputs, self.outputs].iter().all(|&n| n > 0 && i32::try_from(n).is_ok())
    }
}

const SUCCESS: Status = 0;
const INVALID_VALUE: Status = 7;
const ARCH_MISMATCH: Status = 8;
const NOT_SUPPORTED: Status = 15;

const CUDA_R_32F: c_int = 0;
const CUDA_R_16BF: c_int = 14;
const COMPUTE_32F: c_int = 68;
const COMPUTE_32F_FAST_TF32: c_int = 77;
const OP_T: i32 = 1;
/// The product alone.
const EPILOGUE_DEFAULT: u32 = 1;
const EPILOGUE_RELU: u32 = 2;
const EPILOGUE_BIAS: u32 = 4;

const DESC_TRANSA: c_int = 3;
const DESC_TRANSB: c_int = 4;
const DESC_EPILOGUE: c_int = 7;
const DESC_BIAS_POINTER: c_int = 8;

const PREF_MAX_WORKSPACE_BYTES: c_int = 1;
const PREF_REDUCTION_SCHEME_MASK: c_int = 3;
/// The attributes for the alignments of A, B, C and D are this one and the next three.
const PREF_MIN_ALIGNMENT_A_BYTES: c_int = 5;

const CONFIG_REDUCTION_SCHEME: c_int = 3;
/// Partial sums are stored in f32 in the workspace, and a second kernel adds them in order.
const REDUCTION_COMPUTE_TYPE: u32 = 2;
/// NONE is 0, and every other scheme has a bit. This mask excludes INPLACE (1), which adds partial sums to the result
/// in the order of their arrival, and OUTPUT_TYPE (4), which rounds each partial sum to the result's type.
const REDUCTIONS: u32 = REDUCTION_COMPUTE_TYPE;

/// The number of algorithms requested from cuBLASLt.
const ASKED: usize = 16;
/// The widest vectors that its kernels load are 16 bytes.
const WIDEST: u64 = 16;

/// The heuristic's result for one algorithm.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
struct Found {
    algorithm: [u64; 8],
    workspace: usize,
    state: Status,
    waves: f32,
    reserved: [c_int; 4],
}

functions! {
    /// The functions of cublasLt.h that are used here.
    Functions {
        cublasLtGetVersion() -> usize;
        cublasLtGetStatusString(Status) -> *const c_char;
        cublasLtCreate(*mut Pointer) -> Status;
        cublasLtDestroy(Pointer) -> Status;
        cublasLtMatmulDescCreate(*mut Pointer, c_int, c_int) -> Status;
        cublasLtMatmulDescDestroy(Pointer) -> Status;
        cublasLtMatmulDescSetAttribute(Pointer, c_int, *const c_void, usize) -> Status;
        cublasLtMatrixLayoutCreate(*mut Pointer, c_int, u64, u64, i64) -> Status;
        cublasLtMatrixLayoutDestroy(Pointer) -> Status;
        cublasLtMatmulPreferenceCreate(*mut Pointer) -> Status;
        cublasLtMatmulPreferenceDestroy(Pointer) -> Status;
        cublasLtMatmulPreferenceSetAttribute(Pointer, c_int, *const c_void, usize) -> Status;
        cublasLtMatmulAlgoGetHeuristic(
            Pointer, Pointer, Pointer, Pointer, Pointer, Pointer, Pointer, c_int, *mut Found, *mut c_int,
        ) -> Status;
        cublasLtMatmulAlgoCheck(
            Pointer, Pointer, Pointer, Pointer, Pointer, Pointer, *const [u64; 8], *mut Found,
        ) -> Status;
        cublasLtMatmulAlgoConfigGetAttribute(*const [u64; 8], c_int, *mut c_void, usize, *mut usize) -> Status;
        cublasLtMatmul(
            Pointer, Pointer, *const c_void, *const c_void, Pointer, *const c_void, Pointer, *const c_void,
            *const c_void, Pointer, *mut c_void, Pointer, *const [u64; 8], *mut c_void, usize, Pointer,
        ) -> Status;
    }
}

/// The library, opened once.
#[derive(Debug)]
pub(super) struct CublasLt {
    functions: Functions,
    /// The version number that the library reports: 130100 is 13.1.0.
    pub version: usize,
    /// Its file.
    pub path: PathBuf,
    _opened: Opened,
}

/// Opens cuBLASLt; the error explains why it cannot be used.
pub(super) fn library() -> Result<&'static CublasLt, &'static str> {
    static LIBRARY: OnceLock<Result<CublasLt, String>> = OnceLock::new();
    let load = || {
        let opened = open(&["libcublasLt.so.13", "libcublasLt.so.12"])?;
        let functions = Functions::load(&opened)?;
        // SAFETY: the function needs no handle.
        let version = unsafe { (functions.cublasLtGetVersion)() };
        Ok(CublasLt { functions, version, path: opened.path.clone(), _opened: opened })
    };
    LIBRARY.get_or_init(load).as_ref().map_err(String::as_str)
}

impl CublasLt {
    /// Converts an error status into a refusal or a failure.
    fn check(&self, status: Status) -> Result<(), Refusal> {
        if status == SUCCESS {
            return Ok(());
        }
        // SAFETY: the text is a constant of the library, or null.
        let text = unsafe {
            let text = (self.functions.cublasLtGetStatusString)(status);
            if text.is_null() { "no text".into() } else { CStr::from_ptr(text).to_string_lossy().into_owned() }
        };
        let refused = matches!(status, INVALID_VALUE | ARCH_MISMATCH | NOT_SUPPORTED);
        Err(Refusal { refused, misplaced: false, text: format!("{text} (status {status})") })
    }
}

/// The descriptors of a product.
struct Described {
    product: Owned,
    a: Owned,
    b: Owned,
    d: Owned,
}

/// A cuBLASLt handle for one GPU.
#[derive(Debug)]
pub(super) struct Handle {
    library: &'static CublasLt,
    raw: Pointer,
}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: created in `new`; the owner has made the context current.
        unsafe { (self.library.functions.cublasLtDestroy)(self.raw) };
    }
}

impl Handle {
    /// Creates a handle on the GPU whose context is current.
    pub fn new(library: &'static CublasLt) -> Result<Self, Refusal> {
        let mut raw = std::ptr::null_mut();
        // SAFETY: the context is current.
        library.check(unsafe { (library.functions.cublasLtCreate)(&raw mut raw) })?;
        Ok(Handle { library, raw })
    }

    fn make(
        &self,
        create: impl FnOnce(*mut Pointer) -> Status,
        destroy: unsafe extern "C" fn(Pointer) -> Status,
    ) -> Result<Owned, Refusal> {
        let mut raw = std::ptr::null_mut();
        self.library.check(create(&raw mut raw))?;
        Ok(Owned { raw, destroy })
    }

    fn describe(&self, product: &Product, at: &Factors) -> Result<Described, Refusal> {
        let f = self.library.functions;
        let (a, transposes_a, b, transposes_b, d) = product.matrices();
        let compute = if product.operands == ComputeType::Tf32 { COMPUTE_32F_FAST_TF32 } else { COMPUTE_32F };
        let matrix = |element: ComputeType, (rows, columns): Extents| {
            let (kind, ld) = (data_type(element), rows as i64);
            // SAFETY: the arguments are numbers.
            let create = |to| unsafe { (f.cublasLtMatrixLayoutCreate)(to, kind, rows as u64, columns as u64, ld) };
            self.make(create, f.cublasLtMatrixLayoutDestroy)
        };
        // SAFETY: the arguments are numbers.
        let create = |to| unsafe { (f.cublasLtMatmulDescCreate)(to, compute, CUDA_R_32F) };
        let described = Described {
            product: self.make(create, f.cublasLtMatmulDescDestroy)?,
            a: matrix(product.operands, a)?,
            b: matrix(product.operands, b)?,
            d: matrix(product.result, d)?,
        };
        let to = described.product.raw;
        for (attribute, transposes) in [(DESC_TRANSA, transposes_a), (DESC_TRANSB, transposes_b)] {
            if transposes {
                self.set(f.cublasLtMatmulDescSetAttribute, to, attribute, OP_T)?;
            }
        }
        let bits = if product.relu { EPILOGUE_RELU } else { 0 } | if at.bias.is_some() { EPILOGUE_BIAS } else { 0 };
        let epilogue = if bits == 0 { EPILOGUE_DEFAULT } else { bits };
        self.set(f.cublasLtMatmulDescSetAttribute, to, DESC_EPILOGUE, epilogue)?;
        if let Some(bias) = at.bias {
            self.set(f.cublasLtMatmulDescSetAttribute, to, DESC_BIAS_POINTER, bias)?;
        }
        Ok(described)
    }

    fn set<T>(
        &self,
        set: unsafe extern "C" fn(Pointer, c_int, *const c_void, usize) -> Status,
        to: Pointer,
        attribute: c_int,
        value: T,
    ) -> Result<(), Refusal> {
        // SAFETY: the value is read before the call returns; the library checks its size.
        self.library.check(unsafe { set(to, attribute, (&raw const value).cast(), size_of::<T>()) })
    }

    /// Returns the algorithm that gives the same bits every time and that cuBLASLt's heuristic expects to be fastest.
    fn choose(&self, described: &Described, at: &Factors) -> Result<Algorithm, Refusal> {
        let f = self.library.functions;
        // SAFETY: `to` is a valid place for the descriptor.
        let create = |to| unsafe { (f.cublasLtMatmulPreferenceCreate)(to) };
        let preference = self.make(create, f.cublasLtMatmulPreferenceDestroy)?;
        let set = f.cublasLtMatmulPreferenceSetAttribute;
        self.set(set, preference.raw, PREF_MAX_WORKSPACE_BYTES, PRODUCT_WORKSPACE)?;
        self.set(set, preference.raw, PREF_REDUCTION_SCHEME_MASK, REDUCTIONS)?;
        // Without these attributes, cuBLASLt assumes that every matrix starts at a multiple of 256 bytes.
        for (attribute, align) in (PREF_MIN_ALIGNMENT_A_BYTES..).zip(alignments(at)) {
            self.set(set, preference.raw, attribute, align)?;
        }
        let (mut found, mut count) = ([Found::default(); ASKED], 0);
        // SAFETY: all descriptors are alive; there is room for the requested number of results.
        let asked = unsafe {
            let (product, a, b, d) = (described.product.raw, described.a.raw, described.b.raw, described.d.raw);
            let asked = ASKED as c_int;
            (f.cublasLtMatmulAlgoGetHeuristic)(
                self.raw,
                product,
                a,
                b,
                d,
                d,
                preference.raw,
                asked,
                found.as_mut_ptr(),
                &raw mut count,
            )
        };
        self.library.check(asked)?;
        let found = found.iter().take(count.max(0) as usize);
        for one in found.filter(|one| one.state == SUCCESS && one.workspace <= PRODUCT_WORKSPACE) {
            if self.is_deterministic(&one.algorithm)? {
                return Ok(Algorithm::CublasLt(one.algorithm));
            }
        }
        Ok(Algorithm::Own)
    }

    fn is_deterministic(&self, algorithm: &[u64; 8]) -> Result<bool, Refusal> {
        let (mut scheme, mut written) = (0u32, 0);
        // SAFETY: `scheme` has room for the attribute.
        let asked = unsafe {
            (self.library.functions.cublasLtMatmulAlgoConfigGetAttribute)(
                algorithm,
                CONFIG_REDUCTION_SCHEME,
                (&raw mut scheme).cast(),
                size_of::<u32>(),
                &raw mut written,
            )
        };
        self.library.check(asked)?;
        Ok(scheme & !REDUCTIONS == 0)
    }

    /// Returns true if a choice from a checkpoint runs here.
    fn runs(&self, described: &Described, algorithm: &[u64; 8]) -> bool {
        let mut found = Found::default();
        let Described { product, a, b, d } = described;
        // SAFETY: all descriptors are alive.
        let status = unsafe {
            (self.library.functions.cublasLtMatmulAlgoCheck)(
                self.raw,
                product.raw,
                a.raw,
                b.raw,
                d.raw,
                d.raw,
                algorithm,
                &raw mut found,
            )
        };
        status == SUCCESS && found.workspace <= PRODUCT_WORKSPACE
    }

    /// Issues a product and returns the algorithm used. [`Algorithm::Own`] means that nothing was issued and the caller
    /// should use its own kernel. `known` is the earlier choice, if any.
    ///
    /// # Safety
    /// The context is current; the addresses belong to its GPU, are large enough for the product, and do not overlap.
    pub unsafe fn multiply(
        &self,
        product: &Product,
        at: &Factors,
        workspace: Workspace,
        stream: Stream,
        known: Option<Algorithm>,
    ) -> Result<Algorithm, Refusal> {
        let aligned = workspace.address.is_multiple_of(WORKSPACE_ALIGN as u64);
        if !product.fits() || workspace.bytes < PRODUCT_WORKSPACE || !aligned || known == Some(Algorithm::Own) {
            return Ok(Algorithm::Own);
        }
        let described = self.describe(product, at)?;
        let fits = |known: &Algorithm| matches!(known, Algorithm::CublasLt(words) if self.runs(&described, words));
        let algorithm = match known.filter(fits) {
            Some(known) => known,
            None => self.choose(&described, at)?,
        };
        let Algorithm::CublasLt(words) = algorithm else { return Ok(Algorithm::Own) };
        let (one, zero) = (1.0f32, 0.0f32);
        let [a, b] = match product.which {
            ProductOf::Output | ProductOf::Input => [at.other, at.samples],
            ProductOf::Weight => [at.samples, at.other],
        };
        let pointer = |address: u64| std::ptr::without_provenance_mut::<c_void>(address as usize);
        // SAFETY: the caller vouches for the addresses; one and zero are read before the call returns.
        let status = unsafe {
            (self.library.functions.cublasLtMatmul)(
                self.raw,
                described.product.raw,
                (&raw const one).cast(),
                pointer(a),
                described.a.raw,
                pointer(b),
                described.b.raw,
                (&raw const zero).cast(),
                pointer(at.result),
                described.d.raw,
                pointer(at.result),
                described.d.raw,
                &raw const words,
                pointer(workspace.address),
                PRODUCT_WORKSPACE,
                pointer(stream.0),
            )
        };
        self.library.check(status)?;
        Ok(algorithm)
    }
}

/// Returns the alignments of A, B, C and D in bytes, capped at [`WIDEST`]. A plan's addresses have the same alignments
/// in every run.
fn alignments(at: &Factors) -> [u32; 4] {
    let align = |address: u64| (1u64 << address.trailing_zeros().min(8)).min(WIDEST) as u32;
    // A and B may be in either order, so the smaller alignment applies to both.
    let operands = align(at.samples).min(align(at.other)).min(at.bias.map_or(WIDEST as u32, align));
    [operands, operands, align(at.result), align(at.result)]
}

fn data_type(element: ComputeType) -> c_int {
    if element == ComputeType::Bf16 { CUDA_R_16BF } else { CUDA_R_32F }
}

/// Returns the key of a product in the table of choices.
pub(super) fn key(product: &Product, at: &Factors) -> String {
    let Product { which, rows, inputs, outputs, operands, result, relu } = product;
    let [align, _, result_align, _] = alignments(at);
    let bias = if at.bias.is_some() { " bias" } else { "" };
    let relu = if *relu { " relu" } else { "" };
    let which = format!("{which:?}").to_lowercase();
    let (operands, result) = (name(*operands), name(*result));
    format!("{which} {rows}x{inputs}x{outputs} {operands} {result}{bias}{relu} {align} {result_align}")
}

/// The table that holds the choices for products.
pub(super) const TABLE: Library = Library::CublasLt;
