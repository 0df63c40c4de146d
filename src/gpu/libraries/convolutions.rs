//! Convolutions by cuDNN, in NHWC. Its filters (K, R, S, C) are our (O, KH, KW, depth), so no data is rearranged.

use super::choices::{Algorithm, Library, name};
use super::find::{Opened, functions, open};
use super::raw::{Owned, Pointer, Refusal, Status};
use super::workspace::{WORKSPACE_ALIGN, Workspace};
use crate::gpu::address::ComputeType;
use crate::gpu::handles::Stream;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::path::PathBuf;
use std::sync::OnceLock;

/// Bytes of workspace that each convolution may use. The implicit products in NHWC, which the heuristic prefers, need
/// none or a table. Splitting the sum of dw needs one copy of dw in f32 per part; 64 MiB hold seven copies of the
/// largest filters of VGG and ResNet (512 x 3 x 3 x 512). This size was not tuned by measurement.
pub const CONVOLUTION_WORKSPACE: usize = 64 << 20;

/// One of the three passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// y from x and w, without bias.
    Forward,
    /// dx from dy and w.
    BackwardInput,
    /// dw from x and dy.
    BackwardWeight,
}

/// A convolution of x (N, H, W, C) with filters (O, KH, KW, C / groups) to y (N, OH, OW, O).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Convolution {
    /// The pass.
    pub direction: Direction,
    /// N, H, W, C.
    pub x: [usize; 4],
    /// N, OH, OW, O.
    pub y: [usize; 4],
    /// KH, KW.
    pub kernel: [usize; 2],
    /// Stride down and right.
    pub stride: [usize; 2],
    /// Rows of zeros above and below, and columns of zeros left and right.
    pub pad: [usize; 2],
    /// Step between the positions of a filter on the image, down and right.
    pub dilation: [usize; 2],
    /// Groups of channels; their number divides C and O.
    pub groups: usize,
    /// The format of x, w, y and their gradients.
    pub format: ComputeType,
}

/// The addresses of a convolution's operands. The result is written, the others are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Images {
    /// x or dx.
    pub x: u64,
    /// w, or dw, which has the format of the operands.
    pub w: u64,
    /// y or dy.
    pub y: u64,
}

impl Convolution {
    /// Returns true if cuDNN rounds a result to bf16 that our own kernel keeps in f32.
    pub(super) fn is_rounded(&self) -> bool {
        self.direction == Direction::BackwardWeight && self.format == ComputeType::Bf16
    }

    /// Returns true if our own kernel is expected to be faster, as measured in bf16 on an H100. cuDNN copies every group of
    /// channels to and from a tensor of its own, while our kernel reads and writes groups in place, in tiles of 64 columns.
    fn is_ours(&self) -> bool {
        let columns = match self.direction {
            Direction::Forward => self.y[3],
            Direction::BackwardInput => self.x[3],
            Direction::BackwardWeight => self.kernel[0] * self.kernel[1] * self.x[3],
        };
        self.format == ComputeType::Bf16 && self.groups > 1 && columns / self.groups >= 64
    }

    /// Returns true if cuDNN may compute this convolution. It uses 32-bit counts and vectors of 16 bytes at multiples
    /// of 16.
    fn fits(&self, at: &Images) -> bool {
        let weights = [self.y[3], self.kernel[0], self.kernel[1], self.x[3] / self.groups.max(1)];
        let tensors = [self.x, self.y, weights];
        let counts = tensors.map(|shape| shape.iter().try_fold(1usize, |product, &n| product.checked_mul(n)));
        !self.is_ours()
            && counts.iter().all(|count| count.is_some_and(|n| n > 0 && i32::try_from(n).is_ok()))
            && [at.x, at.w, at.y].iter().all(|address| address.is_multiple_of(16))
    }
}

const SUCCESS: Status = 0;
const FORMAT_NHWC: c_int = 1;
const DATA_FLOAT: c_int = 0;
const DATA_BFLOAT16: c_int = 9;
const CROSS_CORRELATION: c_int = 1;
const DETERMINISTIC: c_int = 1;
/// The arithmetic follows from the element types; f32 may become TF32.
const DEFAULT_MATH: c_int = 0;
const TENSOR_OP_MATH: c_int = 1;
/// f32 stays f32.
const FMA_MATH: c_int = 3;

/// The number of algorithms requested from cuDNN, which has up to 8 for a pass, some with two math types.
const ASKED: usize = 24;

/// The heuristic's result for one algorithm; all three passes use the same struct.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
struct Found {
    algorithm: c_int,
    status: Status,
    milliseconds: f32,
    memory: usize,
    determinism: c_int,
    math: c_int,
    reserved: [c_int; 3],
}

type Heuristic =
    unsafe extern "C" fn(Pointer, Pointer, Pointer, Pointer, Pointer, c_int, *mut c_int, *mut Found) -> Status;
type Size = unsafe extern "C" fn(Pointer, Pointer, Pointer, Pointer, Pointer, c_int, *mut usize) -> Status;

functions! {
    /// The functions of cudnn.h that are used here.
    Functions {
        cudnnGetVersion() -> usize;
        cudnnGetErrorString(Status) -> *const c_char;
        cudnnCreate(*mut Pointer) -> Status;
        cudnnDestroy(Pointer) -> Status;
        cudnnSetStream(Pointer, Pointer) -> Status;
        cudnnCreateTensorDescriptor(*mut Pointer) -> Status;
        cudnnDestroyTensorDescriptor(Pointer) -> Status;
        cudnnSetTensor4dDescriptor(Pointer, c_int, c_int, c_int, c_int, c_int, c_int) -> Status;
        cudnnCreateFilterDescriptor(*mut Pointer) -> Status;
        cudnnDestroyFilterDescriptor(Pointer) -> Status;
        cudnnSetFilter4dDescriptor(Pointer, c_int, c_int, c_int, c_int, c_int, c_int) -> Status;
        cudnnCreateConvolutionDescriptor(*mut Pointer) -> Status;
        cudnnDestroyConvolutionDescriptor(Pointer) -> Status;
        cudnnSetConvolution2dDescriptor(Pointer, c_int, c_int, c_int, c_int, c_int, c_int, c_int, c_int) -> Status;
        cudnnSetConvolutionGroupCount(Pointer, c_int) -> Status;
        cudnnSetConvolutionMathType(Pointer, c_int) -> Status;
        cudnnGetConvolutionForwardAlgorithm_v7(
            Pointer, Pointer, Pointer, Pointer, Pointer, c_int, *mut c_int, *mut Found,
        ) -> Status;
        cudnnGetConvolutionBackwardDataAlgorithm_v7(
            Pointer, Pointer, Pointer, Pointer, Pointer, c_int, *mut c_int, *mut Found,
        ) -> Status;
        cudnnGetConvolutionBackwardFilterAlgorithm_v7(
            Pointer, Pointer, Pointer, Pointer, Pointer, c_int, *mut c_int, *mut Found,
        ) -> Status;
        cudnnGetConvolutionForwardWorkspaceSize(
            Pointer, Pointer, Pointer, Pointer, Pointer, c_int, *mut usize,
        ) -> Status;
        cudnnGetConvolutionBackwardDataWorkspaceSize(
            Pointer, Pointer, Pointer, Pointer, Pointer, c_int, *mut usize,
        ) -> Status;
        cudnnGetConvolutionBackwardFilterWorkspaceSize(
            Pointer, Pointer, Pointer, Pointer, Pointer, c_int, *mut usize,
        ) -> Status;
        cudnnConvolutionForward(
            Pointer, *const c_void, Pointer, *const c_void, Pointer, *const c_void, Pointer, c_int, *mut c_void,
            usize, *const c_void, Pointer, *mut c_void,
        ) -> Status;
        cudnnConvolutionBackwardData(
            Pointer, *const c_void, Pointer, *const c_void, Pointer, *const c_void, Pointer, c_int, *mut c_void,
            usize, *const c_void, Pointer, *mut c_void,
        ) -> Status;
        cudnnConvolutionBackwardFilter(
            Pointer, *const c_void, Pointer, *const c_void, Pointer, *const c_void, Pointer, c_int, *mut c_void,
            usize, *const c_void, Pointer, *mut c_void,
        ) -> Status;
    }
}

/// The library, opened once.
#[derive(Debug)]
pub(super) struct Cudnn {
    functions: Functions,
    /// The version number that the library reports: 91002 is 9.10.2.
    pub version: usize,
    /// Its file.
    pub path: PathBuf,
    _opened: Opened,
}

/// Opens cuDNN; the error explains why it cannot be used.
pub(super) fn library() -> Result<&'static Cudnn, &'static str> {
    static LIBRARY: OnceLock<Result<Cudnn, String>> = OnceLock::new();
    let load = || {
        // Some engines of cuDNN load cuBLASLt by name, so the copy that is in use must be opened first.
        let _ = super::products::library();
        let opened = open(&["libcudnn.so.9"])?;
        let functions = Functions::load(&opened)?;
        // SAFETY: the function needs no handle.
        let version = unsafe { (functions.cudnnGetVersion)() };
        Ok(Cudnn { functions, version, path: opened.path.clone(), _opened: opened })
    };
    LIBRARY.get_or_init(load).as_ref().map_err(String::as_str)
}

impl Cudnn {
    /// Converts an error status into a refusal or a failure.
    fn check(&self, status: Status) -> Result<(), Refusal> {
        if status == SUCCESS {
            return Ok(());
        }
        // SAFETY: the text is a constant of the library, or null.
        let text = unsafe {
            let text = (self.functions.cudnnGetErrorString)(status);
            if text.is_null() { "no text".into() } else { CStr::from_ptr(text).to_string_lossy().into_owned() }
        };
        // 2xxx means invalid parameters, 3xxx unsupported ones. Among the latter are an incompatible driver or runtime,
        // another architecture, a missing prerequisite, and a missing part of the library.
        let (refused, misplaced) = ((2000..4000).contains(&status), (3005..=3009).contains(&status));
        Err(Refusal { refused, misplaced, text: format!("{text} (status {status})") })
    }
}

/// Returns the math type to ask for. The heuristic offers tensor cores for bf16 only if they are asked for.
fn math(format: ComputeType) -> c_int {
    match format {
        ComputeType::F32 => FMA_MATH,
        ComputeType::Tf32 => DEFAULT_MATH,
        ComputeType::Bf16 => TENSOR_OP_MATH,
    }
}

/// The descriptors of a convolution.
struct Described {
    x: Owned,
    w: Owned,
    y: Owned,
    convolution: Owned,
}

impl Described {
    /// Returns the descriptors in the order that the pass expects: two operands, the convolution, the result.
    fn in_order(&self, direction: Direction) -> [Pointer; 4] {
        let (x, w, y, convolution) = (self.x.raw, self.w.raw, self.y.raw, self.convolution.raw);
        match direction {
            Direction::Forward => [x, w, convolution, y],
            Direction::BackwardInput => [w, y, convolution, x],
            Direction::BackwardWeight => [x, y, convolution, w],
        }
    }
}

/// A cuDNN handle for one GPU.
#[derive(Debug)]
pub(super) struct Handle {
    library: &'static Cudnn,
    raw: Pointer,
}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: created in `new`; the owner has made the context current.
        unsafe { (self.library.functions.cudnnDestroy)(self.raw) };
    }
}

impl Handle {
    /// Creates a handle on the GPU whose context is current.
    pub fn new(library: &'static Cudnn) -> Result<Self, Refusal> {
        let mut raw = std::ptr::null_mut();
        // SAFETY: the context is current.
        library.check(unsafe { (library.functions.cudnnCreate)(&raw mut raw) })?;
        Ok(Handle { library, raw })
    }

    fn make(
        &self,
        create: unsafe extern "C" fn(*mut Pointer) -> Status,
        destroy: unsafe extern "C" fn(Pointer) -> Status,
        set: impl FnOnce(Pointer) -> Status,
    ) -> Result<Owned, Refusal> {
        let mut raw = std::ptr::null_mut();
        // SAFETY: `raw` is a valid place for a handle.
        self.library.check(unsafe { create(&raw mut raw) })?;
        let made = Owned { raw, destroy };
        self.library.check(set(raw))?;
        Ok(made)
    }

    fn describe(&self, convolution: &Convolution) -> Result<Described, Refusal> {
        let f = self.library.functions;
        let kind = if convolution.format == ComputeType::Bf16 { DATA_BFLOAT16 } else { DATA_FLOAT };
        let int = |n: usize| n as c_int;
        let Convolution { x, y, kernel, stride, pad, dilation, groups, .. } = *convolution;
        let images = |[n, h, w, c]: [usize; 4]| {
            self.make(f.cudnnCreateTensorDescriptor, f.cudnnDestroyTensorDescriptor, |to| {
                // SAFETY: the arguments are numbers.
                unsafe { (f.cudnnSetTensor4dDescriptor)(to, FORMAT_NHWC, kind, int(n), int(c), int(h), int(w)) }
            })
        };
        let filters = self.make(f.cudnnCreateFilterDescriptor, f.cudnnDestroyFilterDescriptor, |to| {
            let (o, depth) = (int(y[3]), int(x[3] / groups));
            // SAFETY: the arguments are numbers.
            unsafe { (f.cudnnSetFilter4dDescriptor)(to, kind, FORMAT_NHWC, o, depth, int(kernel[0]), int(kernel[1])) }
        })?;
        let window = self.make(f.cudnnCreateConvolutionDescriptor, f.cudnnDestroyConvolutionDescriptor, |to| {
            let ([ph, pw], [sh, sw], [dh, dw]) = (pad.map(int), stride.map(int), dilation.map(int));
            // SAFETY: the arguments are numbers. Sums are f32 whatever the operands are.
            unsafe { (f.cudnnSetConvolution2dDescriptor)(to, ph, pw, sh, sw, dh, dw, CROSS_CORRELATION, DATA_FLOAT) }
        })?;
        // SAFETY: the arguments are numbers.
        self.library.check(unsafe { (f.cudnnSetConvolutionGroupCount)(window.raw, int(groups)) })?;
        let described = Described { x: images(x)?, w: filters, y: images(y)?, convolution: window };
        self.set_math(&described, math(convolution.format))?;
        Ok(described)
    }

    fn set_math(&self, described: &Described, math: c_int) -> Result<(), Refusal> {
        // SAFETY: the descriptor is alive.
        let status = unsafe { (self.library.functions.cudnnSetConvolutionMathType)(described.convolution.raw, math) };
        self.library.check(status)
    }

    /// Returns the algorithm that gives the same bits every time and that cuDNN's heuristic expects to be fastest.
    fn choose(&self, convolution: &Convolution, described: &Described) -> Result<Algorithm, Refusal> {
        let f = self.library.functions;
        let heuristic: Heuristic = match convolution.direction {
            Direction::Forward => f.cudnnGetConvolutionForwardAlgorithm_v7,
            Direction::BackwardInput => f.cudnnGetConvolutionBackwardDataAlgorithm_v7,
            Direction::BackwardWeight => f.cudnnGetConvolutionBackwardFilterAlgorithm_v7,
        };
        let [first, second, window, result] = described.in_order(convolution.direction);
        let (mut found, mut count) = ([Found::default(); ASKED], 0);
        // SAFETY: all descriptors are alive; there is room for the requested number of results.
        self.library.check(unsafe {
            let asked = ASKED as c_int;
            heuristic(self.raw, first, second, window, result, asked, &raw mut count, found.as_mut_ptr())
        })?;
        let found = found.iter().take(count.max(0) as usize);
        for one in found.filter(|one| one.status == SUCCESS && one.determinism == DETERMINISTIC) {
            let math = match (convolution.format, one.math) {
                (ComputeType::F32, DEFAULT_MATH | FMA_MATH) => FMA_MATH,
                (ComputeType::Tf32, DEFAULT_MATH | TENSOR_OP_MATH | FMA_MATH) => one.math,
                // If cuDNN expects an algorithm without tensor cores to be faster, our own kernel is faster than both.
                (ComputeType::Bf16, TENSOR_OP_MATH) => TENSOR_OP_MATH,
                (ComputeType::Bf16, DEFAULT_MATH | FMA_MATH) => break,
                // This arithmetic rounds more than the format allows.
                _ => continue,
            };
            if self.runs(convolution, described, one.algorithm, math) {
                return Ok(Algorithm::Cudnn { algorithm: one.algorithm, math });
            }
        }
        Ok(Algorithm::Own)
    }

    /// Returns true if an algorithm runs here within the workspace. Leaves its math type set in the descriptor.
    fn runs(&self, convolution: &Convolution, described: &Described, algorithm: c_int, math: c_int) -> bool {
        let f = self.library.functions;
        let size: Size = match convolution.direction {
            Direction::Forward => f.cudnnGetConvolutionForwardWorkspaceSize,
            Direction::BackwardInput => f.cudnnGetConvolutionBackwardDataWorkspaceSize,
            Direction::BackwardWeight => f.cudnnGetConvolutionBackwardFilterWorkspaceSize,
        };
        let [first, second, window, result] = described.in_order(convolution.direction);
        let mut bytes = 0;
        self.set_math(described, math).is_ok()
            // SAFETY: all descriptors are alive.
            && unsafe { size(self.raw, first, second, window, result, algorithm, &raw mut bytes) } == SUCCESS
            && bytes <= CONVOLUTION_WORKSPACE
    }

    /// Issues a convolution and returns the algorithm used. [`Algorithm::Own`] means that nothing was issued and the
    /// caller should use its own kernel. `known` is the earlier choice, if any.
    ///
    /// # Safety
    /// The context is current; the addresses belong to its GPU, are large enough for the convolution, and do not
    /// overlap.
    pub unsafe fn convolve(
        &self,
        convolution: &Convolution,
        at: &Images,
        workspace: Workspace,
        stream: Stream,
        known: Option<Algorithm>,
    ) -> Result<Algorithm, Refusal> {
        let aligned = workspace.address.is_multiple_of(WORKSPACE_ALIGN as u64);
        if !convolution.fits(at) || workspace.bytes < CONVOLUTION_WORKSPACE || !aligned || known == Some(Algorithm::Own)
        {
            return Ok(Algorithm::Own);
        }
        let f = self.library.functions;
        let described = self.describe(convolution)?;
        let fits = |known: &Algorithm| {
            matches!(*known, Algorithm::Cudnn { algorithm, math }
                if self.runs(convolution, &described, algorithm, math))
        };
        let chosen = match known.filter(fits) {
            Some(known) => known,
            None => self.choose(convolution, &described)?,
        };
        let Algorithm::Cudnn { algorithm, .. } = chosen else { return Ok(Algorithm::Own) };
        let pointer = |address: u64| std::ptr::without_provenance_mut::<c_void>(address as usize);
        let (x, w, y) = (pointer(at.x), pointer(at.w), pointer(at.y));
        let (run, a, b, to) = match convolution.direction {
            Direction::Forward => (f.cudnnConvolutionForward, x, w, y),
            Direction::BackwardInput => (f.cudnnConvolutionBackwardData, w, y, x),
            Direction::BackwardWeight => (f.cudnnConvolutionBackwardFilter, x, y, w),
        };
        let [first, second, window, result] = described.in_order(convolution.direction);
        let (one, zero) = (1.0f32, 0.0f32);
        let (scratch, bytes) = (pointer(workspace.address), CONVOLUTION_WORKSPACE);
        // SAFETY: the caller vouches for the addresses; one and zero are read before the call returns.
        unsafe {
            self.library.check((f.cudnnSetStream)(self.raw, pointer(stream.0)))?;
            let (one, zero) = ((&raw const one).cast(), (&raw const zero).cast());
            let status = run(self.raw, one, first, a, second, b, window, algorithm, scratch, bytes, zero, result, to);
            self.library.check(status)?;
        }
        Ok(chosen)
    }
}

/// Returns the key of a convolution in the table of choices.
pub(super) fn key(convolution: &Convolution) -> String {
    let Convolution { direction, x, y, kernel, stride, pad, dilation, groups, format } = convolution;
    let direction = match direction {
        Direction::Forward => "forward",
        Direction::BackwardInput => "backward input",
        Direction::BackwardWeight => "backward weight",
    };
    let list = |numbers: &[usize]| numbers.iter().map(usize::to_string).collect::<Vec<_>>().join("x");
    let (x, y, kernel, stride, pad) = (list(x), list(y), list(kernel), list(stride), list(pad));
    let dilation = if *dilation == [1, 1] { String::new() } else { format!(" dilation {}", list(dilation)) };
    format!(
        "{direction} {x} -> {y} kernel {kernel} stride {stride} pad {pad}{dilation} groups {groups} {}",
        name(*format)
    )
}

/// The table that holds the choices for convolutions.
pub(super) const TABLE: Library = Library::Cudnn;
