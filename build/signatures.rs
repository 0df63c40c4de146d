//! Reads the kernels of a file: functions of the device, each named by one `KERNEL` line.
//!
//! ```text
//! template <typename T>
//! __device__ void relu_forward(
//!     const T* x,  // (n)
//!     T* y,        // (n)
//!     long long n) { .. }
//! KERNEL(relu_forward, f32, bf16)
//! ```
//!
//! - The line lists the variants of a template, in the order f32, bf16, tf32. It lists none for a plain function:
//!   `KERNEL(optim_norm)`.
//! - A block has 256 threads unless a variant states its launch bounds, the threads and optionally the blocks per
//!   multiprocessor: `KERNEL(dense_forward, f32(256, 2), bf16(128, 2), tf32(128, 2))`.
//! - A kernel that computes tiles of a product has an entry for large tiles and one for small ones, between which the
//!   grid of a launch chooses: `template <class Kind, int SIDE, typename T = Storage<Kind>>`, where a third number
//!   states the blocks per multiprocessor of small tiles: `bf16(128, 2, 4)`.
//! - A template that stores numbers in a different type from the one it multiplies them in, as for tf32, is
//!   `template <class Kind, typename T = Storage<Kind>>`; its pointers are to `T`.
//! - An element-wise kernel is only its formula. Parameters of type `element` are read from operands, all others are
//!   settings, and build.rs adds the output and the number of elements after the operands:
//!   `__device__ element elu_forward(element x, float alpha) { .. }` becomes `elu_forward(x, out, n, alpha)`.
//! - A parameter is a scalar, a struct of scalars or a pointer, and every pointer has its shape in a comment at the end of
//!   its line. A struct is defined in the kernel's file or in a header.
//!
//! The reader compares text and does not parse C++: it would miss a kernel made by a macro, so macros that contain
//! `KERNEL` or `__global__` are rejected.

use super::geometry::{self, Geometry};
use super::tokens::{Code, Token};
use std::ops::Range;

/// Threads per block if the line states none.
const THREADS: u32 = 256;

const FLOAT: Scalar = Scalar { cuda: "float", rust: "f32" };
const BF16: Scalar = Scalar { cuda: "__nv_bfloat16", rust: "bf16" };

/// CUDA's scalar types and their Rust counterparts.
const SCALARS: &[Scalar] = &[
    FLOAT,
    BF16,
    Scalar { cuda: "double", rust: "f64" },
    Scalar { cuda: "int", rust: "i32" },
    Scalar { cuda: "unsigned", rust: "u32" },
    Scalar { cuda: "unsigned int", rust: "u32" },
    Scalar { cuda: "long long", rust: "i64" },
    Scalar { cuda: "unsigned long long", rust: "u64" },
    Scalar { cuda: "unsigned char", rust: "u8" },
];

/// A scalar type.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scalar {
    /// Its name in CUDA.
    pub cuda: &'static str,
    /// Its name in Rust.
    pub rust: &'static str,
}

impl Scalar {
    /// Returns the scalar with the given name in CUDA.
    pub fn of(cuda: &str) -> Option<Scalar> {
        SCALARS.iter().find(|scalar| scalar.cuda == cuda).copied()
    }
}

/// The numbers that a variant of a template computes with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Dtype {
    /// `float`.
    F32,
    /// `__nv_bfloat16`.
    Bf16,
    /// `float` in memory, rounded to tf32 where it is multiplied.
    Tf32,
}

impl Dtype {
    /// All, in the order in which a line lists them.
    pub const ALL: [Dtype; 3] = [Dtype::F32, Dtype::Bf16, Dtype::Tf32];

    /// Returns its name in a `KERNEL` line.
    pub fn name(self) -> &'static str {
        match self {
            Dtype::F32 => "f32",
            Dtype::Bf16 => "bf16",
            Dtype::Tf32 => "tf32",
        }
    }

    /// Returns the template's argument.
    pub fn argument(self) -> &'static str {
        match self {
            Dtype::F32 => "float",
            Dtype::Bf16 => "bf16",
            Dtype::Tf32 => "tf32",
        }
    }

    /// Returns its type in memory.
    pub fn storage(self) -> Scalar {
        if self == Dtype::Bf16 { BF16 } else { FLOAT }
    }
}

/// One variant of a kernel: an entry of the image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Variant {
    /// The type that it computes with; f32 for a plain function.
    pub dtype: Dtype,
    /// Threads per block.
    pub threads: u32,
    /// Minimum number of blocks per multiprocessor.
    pub blocks: Option<u32>,
    /// The tiles that it computes, if there are two sizes; the entry for small ones follows that for large ones.
    pub tiles: Option<Tiles>,
}

/// The size of the tiles of a product, as kernels/tile.cuh names it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Tiles {
    /// `LARGE`.
    Large,
    /// `SMALL`.
    Small,
}

/// The type of a parameter.
#[derive(Debug, Clone, PartialEq)]
pub enum Type {
    /// A number.
    Scalar(Scalar),
    /// A struct of numbers.
    Geometry(Geometry),
    /// An address.
    Pointer {
        /// The type that it points to; `None` for the template's type.
        to: Option<Scalar>,
        /// Whether the kernel only reads it.
        constant: bool,
    },
}

/// One parameter of a kernel.
#[derive(Debug, Clone, PartialEq)]
pub struct Parameter {
    /// Its name.
    pub name: String,
    /// Its type.
    pub ty: Type,
    /// Its shape comment, for pointers.
    pub shape: String,
}

impl Parameter {
    /// Returns true if its type differs between variants.
    pub fn varies(&self) -> bool {
        matches!(self.ty, Type::Pointer { to: None, .. })
    }

    /// Returns its type in a variant in CUDA, without `__restrict__`: `const float*`.
    pub fn cuda(&self, dtype: Dtype) -> String {
        match self.ty {
            Type::Scalar(scalar) => scalar.cuda.to_string(),
            Type::Geometry(ref geometry) => geometry.name.clone(),
            Type::Pointer { to, constant } => {
                format!("{}{}*", if constant { "const " } else { "" }, to.unwrap_or(dtype.storage()).cuda)
            }
        }
    }

    /// Returns its type in the launcher of a variant.
    pub fn rust(&self, dtype: Dtype) -> String {
        match self.ty {
            Type::Scalar(scalar) => scalar.rust.to_string(),
            Type::Geometry(ref geometry) => geometry.name.clone(),
            Type::Pointer { to, constant } => {
                format!("{}<{}>", if constant { "Const" } else { "Mut" }, to.unwrap_or(dtype.storage()).rust)
            }
        }
    }
}

/// What the function of a kernel is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Form {
    /// A function without variants.
    Plain,
    /// A template with variants.
    Template,
    /// A formula of elements: the first parameters are this number of operands.
    Elements(usize),
}

/// One kernel.
#[derive(Debug, Clone, PartialEq)]
pub struct Kernel {
    /// Its name.
    pub name: String,
    /// The line of its function.
    pub line: usize,
    /// What its function is.
    pub form: Form,
    /// Its parameters.
    pub parameters: Vec<Parameter>,
    /// Its variants, at least one.
    pub variants: Vec<Variant>,
}

impl Kernel {
    /// Returns the name of a variant, the same in the image and in Rust: `x`, `x_bf16`, `x_tf32`, and `x_bf16_small`
    /// with small tiles.
    pub fn entry(&self, variant: &Variant) -> String {
        let dtype = if variant.dtype == Dtype::F32 { String::new() } else { format!("_{}", variant.dtype.name()) };
        let tiles = if variant.tiles == Some(Tiles::Small) { "_small" } else { "" };
        format!("{}{dtype}{tiles}", self.name)
    }

    /// Returns the variants that have launchers: one for each type.
    pub fn launched(&self) -> impl Iterator<Item = &Variant> {
        self.variants.iter().filter(|variant| variant.tiles != Some(Tiles::Small))
    }
}

/// Rejects a header that contains a kernel, because the build script only compiles kernels/*.cu.
///
/// # Errors
/// A message `file:line: what belongs elsewhere`.
pub fn check_header(code: &Code) -> Result<(), String> {
    let kernel = |i: usize| matches!(code.word(i), "KERNEL" | "__global__") && !code.tokens()[i].directive;
    match (0..code.tokens().len()).find(|&i| kernel(i)) {
        Some(i) => Err(code.fault(i, "a kernel in a header; move it to a .cu file")),
        None => Ok(()),
    }
}

/// Reads every kernel of a file; `headers` may define the structs that its kernels take.
///
/// # Errors
/// A message `file:line: what cannot be read, and how to write it`.
pub fn read(code: &Code, headers: &[Code]) -> Result<Vec<Kernel>, String> {
    let mut kernels: Vec<Kernel> = Vec::new();
    for (i, placed) in code.tokens().iter().enumerate() {
        let word = code.word(i);
        if !matches!(word, "KERNEL" | "__global__") {
            continue;
        }
        if placed.directive {
            return Err(code.fault(i, "a macro makes a kernel; write out its function and its `KERNEL` line"));
        }
        if word == "__global__" {
            let form = "`__global__` is written by build.rs; expected `__device__ void name(...)` and `KERNEL(name)`";
            return Err(code.fault(i, form));
        }
        let kernel = kernel(code, headers, i)?;
        if kernels.iter().any(|other| other.name == kernel.name) {
            return Err(code.fault(i, format!("a second `KERNEL` line names \"{}\"", kernel.name)));
        }
        kernels.push(kernel);
    }
    Ok(kernels)
}

/// Reads the kernel named by the `KERNEL` line at a position.
fn kernel(code: &Code, headers: &[Code], at: usize) -> Result<Kernel, String> {
    let variants = variants(code, at)?;
    let name = code.word(at + 2);
    let heads = ["void", "element"].map(|result| format!("__device__ {result} {name} ("));
    let mut found = (0..code.tokens().len()).filter(|&i| heads.iter().any(|head| code.reads(i, head)));
    let (Some(start), None) = (found.next(), found.next()) else {
        let form = format!("expected one function `__device__ void {name}(...)` or `__device__ element {name}(...)`");
        return Err(code.fault(at, format!("{form} in this file")));
    };
    if code.word(start + 1) == "element" {
        if variants.is_empty() {
            return Err(
                code.fault(at, format!("\"{name}\" is a formula; list its variants: `KERNEL({name}, f32, bf16)`"))
            );
        }
        return elements(code, start, variants);
    }
    let element = element(code, start)?;
    let Some(Template { own, stored, sized }) = element else {
        if !variants.is_empty() {
            return Err(code.fault(at, format!("\"{name}\" is not a template; expected `KERNEL({name})`")));
        }
        let plain = Variant { dtype: Dtype::F32, threads: THREADS, blocks: None, tiles: None };
        return finish(code, headers, start, None, vec![plain]);
    };
    if variants.is_empty() {
        return Err(code.fault(at, format!("\"{name}\" is a template; list its variants: `KERNEL({name}, f32, bf16)`")));
    }
    if variants.iter().any(|variant| variant.tiles.is_some() != sized) {
        let form = "expected `int SIDE` in the template, and a third number in each variant: `bf16(128, 2, 4)`";
        return Err(code.fault(at, form));
    }
    if !stored && variants.len() == Dtype::ALL.len() {
        let form = "numbers are not stored as tf32; expected `template <class Kind, typename T = Storage<Kind>>`";
        return Err(code.fault(start, form));
    }
    finish(code, headers, start, Some(own), variants)
}

/// Reads the kernel of a formula: `element f(element x, float setting)` is called for every element of its operands.
fn elements(code: &Code, start: usize, variants: Vec<Variant>) -> Result<Kernel, String> {
    let pointer = |name: &str, constant| Parameter {
        name: name.to_string(),
        ty: Type::Pointer { to: None, constant },
        shape: "(n)".to_string(),
    };
    let mut read = parameters(code, &[], start + 4, Some("element"))?;
    let operands = read.iter().take_while(|p| p.varies()).count();
    if operands == 0 || read[operands..].iter().any(Parameter::varies) {
        return Err(code.fault(start, "expected `(element x, ...)`, with the settings after all elements"));
    }
    let (settings, number) = (read.split_off(operands), Scalar::of("long long").expect("it is in the list"));
    read = read.iter().map(|p| pointer(&p.name, true)).collect();
    read.push(pointer("out", false));
    read.push(Parameter { name: "n".to_string(), ty: Type::Scalar(number), shape: String::new() });
    read.extend(settings);
    let (name, line) = (code.word(start + 2).to_string(), code.line(start + 2));
    Ok(Kernel { name, line, form: Form::Elements(operands), parameters: read, variants })
}

fn finish(
    code: &Code,
    headers: &[Code],
    start: usize,
    own: Option<&str>,
    variants: Vec<Variant>,
) -> Result<Kernel, String> {
    let (name, line) = (code.word(start + 2).to_string(), code.line(start + 2));
    let parameters = parameters(code, headers, start + 4, own)?;
    let form = if own.is_some() { Form::Template } else { Form::Plain };
    Ok(Kernel { name, line, form, parameters, variants })
}

/// Reads `(name, variant, ...)` after `KERNEL`; returns the variants.
fn variants(code: &Code, at: usize) -> Result<Vec<Variant>, String> {
    let form = "expected `KERNEL(name)`, or `KERNEL(name, f32, bf16, tf32)` with all variants or the first ones of a \
                template; `f32(THREADS)`, `f32(THREADS, BLOCKS)` and `f32(THREADS, BLOCKS, SMALL)` state launch bounds";
    let fault = || code.fault(at, form);
    let number = |i: usize, most: u32| code.word(i).parse::<u32>().ok().filter(|n| (1..=most).contains(n));
    if !code.reads(at + 1, "(") || code.word(at + 2).is_empty() {
        return Err(fault());
    }
    let (mut variants, mut i, mut dtypes) = (Vec::new(), at + 3, Dtype::ALL.iter());
    while !code.reads(i, ")") {
        let dtype = *dtypes.next().ok_or_else(fault)?;
        if !code.reads(i, &format!(", {}", dtype.name())) {
            return Err(fault());
        }
        i += 2;
        let (mut threads, mut blocks, mut small) = (THREADS, None, None);
        if code.reads(i, "(") {
            threads = number(i + 1, 1024).ok_or_else(fault)?;
            i += 2;
            if code.reads(i, ",") {
                blocks = Some(number(i + 1, 32).ok_or_else(fault)?);
                i += 2;
            }
            if blocks.is_some() && code.reads(i, ",") {
                small = Some(number(i + 1, 32).ok_or_else(fault)?);
                i += 2;
            }
            if !code.reads(i, ")") {
                return Err(fault());
            }
            i += 1;
        }
        variants.push(Variant { dtype, threads, blocks, tiles: small.map(|_| Tiles::Large) });
        variants.extend(small.map(|_| Variant { dtype, threads, blocks: small, tiles: Some(Tiles::Small) }));
    }
    Ok(variants)
}

/// The template of a kernel.
struct Template<'a> {
    /// The name of the type that its pointers point to.
    own: &'a str,
    /// Whether that is `Storage` of the template's parameter.
    stored: bool,
    /// Whether it has `int SIDE`.
    sized: bool,
}

/// Reads the template that ends where a function begins; `None` if there is none.
fn element(code: &Code, function: usize) -> Result<Option<Template<'_>>, String> {
    if function == 0 || !code.reads(function - 1, ">") {
        return Ok(None);
    }
    let start = (0..function).rev().find(|&i| code.word(i) == "template").unwrap_or(function);
    let kind = code.word(start + 3);
    let keyword = |i: usize| matches!(code.word(i), "typename" | "class");
    if code.reads(start + 1, "<") && keyword(start + 2) && !kind.is_empty() {
        if code.reads(start + 4, ">") && start + 5 == function {
            return Ok(Some(Template { own: kind, stored: false, sized: false }));
        }
        let sized = code.reads(start + 4, ", int SIDE");
        let after = if sized { start + 7 } else { start + 4 };
        let (own, rest) = (code.word(after + 2), format!("= Storage < {kind} > >"));
        if code.reads(after, ",") && keyword(after + 1) && code.reads(after + 3, &rest) && after + 9 == function {
            return Ok(Some(Template { own, stored: true, sized }));
        }
    }
    let form = "expected `template <typename T>` or `template <class Kind, typename T = Storage<Kind>>` for a kernel";
    Err(code.fault(start, form))
}

/// Reads the parameters that begin at a position; `own` is the template's type.
fn parameters(code: &Code, headers: &[Code], first: usize, own: Option<&str>) -> Result<Vec<Parameter>, String> {
    let (mut parameters, mut start) = (Vec::new(), first);
    for (end, placed) in code.tokens().iter().enumerate().skip(first) {
        let Token::Mark(mark) = placed.token else { continue };
        if mark == ',' || (mark == ')' && end > start) {
            let read = parameter(code, headers, start..end, own)?;
            parameters.push(read);
            start = end + 1;
        }
        if mark == ')' && code.reads(end + 1, "{") {
            return Ok(parameters);
        }
        if matches!(mark, ')' | '(' | '{' | ';') {
            return Err(code.fault(end, "cannot read the parameters of a kernel; expected `(type name, ...) {`"));
        }
    }
    Err(code.fault(first, "the parameter list of a kernel does not end"))
}

fn parameter(code: &Code, headers: &[Code], range: Range<usize>, own: Option<&str>) -> Result<Parameter, String> {
    let last = range.end - 1;
    let fault = |message: String| Err(code.fault(last, message));
    let mut words: Vec<&str> = Vec::new();
    let (mut pointer, shape) = (false, code.comment(code.line(last)));
    for i in range {
        match &code.tokens()[i].token {
            Token::Word(word) if word == "__restrict__" => {}
            Token::Word(word) => words.push(word),
            Token::Mark('*') if !pointer => pointer = true,
            other => return fault(format!("{other:?} in a kernel's parameter; expected `type name` or `type* name`")),
        }
    }
    let name = words.pop().unwrap_or_default().to_string();
    let constant = words.first() == Some(&"const");
    let written = words[usize::from(constant)..].join(" ");
    let scalar = Scalar::of(&written);
    let ty = match scalar {
        Some(scalar) if !pointer => Type::Scalar(scalar),
        None if !pointer && written == "element" && own == Some("element") => {
            let ty = Type::Pointer { to: None, constant: true };
            return Ok(Parameter { name, ty, shape: "(n)".to_string() });
        }
        to if pointer && (to.is_some() || own == Some(written.as_str())) => Type::Pointer { to, constant },
        _ => {
            for file in std::iter::once(code).chain(headers).filter(|_| !pointer) {
                if let Some(geometry) = geometry::read(file, &written)? {
                    return Ok(Parameter { name, ty: Type::Geometry(geometry), shape: String::new() });
                }
            }
            let known: Vec<&str> = SCALARS.iter().map(|scalar| scalar.cuda).collect();
            let own = own.map_or(String::new(), |own| format!(", pointers to {own}"));
            let known = format!("expected one of {}{own}, or a struct of these", known.join(", "));
            return fault(format!("parameter \"{name}\" has the type `{written}`; {known}"));
        }
    };
    if pointer && !shape.starts_with('(') {
        return fault(format!("pointer \"{name}\" lacks its shape; write `// (N, H, W, C)` at the end of its line"));
    }
    Ok(Parameter { name, ty, shape: if pointer { shape.to_string() } else { String::new() } })
}
