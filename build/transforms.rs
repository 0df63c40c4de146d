//! The transforms of the optimiser: each kernels/optim/x.cuh has a struct `XSettings` and a function `transform`, between
//! which kernels/optim.cu chooses. A transform with slots also has a kernel of its own.

use super::geometry::{self, Geometry};
use super::signatures::{Dtype, Kernel, Parameter};
use super::tokens::Code;
use std::fmt::Write;
use std::path::PathBuf;

/// A transform.
#[derive(Debug)]
pub struct DeviceTransform {
    /// The name of its file, without `.cuh`.
    pub stem: String,
    /// Its file.
    pub path: PathBuf,
    /// Its settings.
    pub settings: Geometry,
    /// Whether it has slots, and therefore a kernel.
    pub has_slots: bool,
}

impl DeviceTransform {
    /// The name of its variant in Rust: `clip_by_global_norm` is `ClipByGlobalNorm`.
    fn variant(&self) -> &str {
        self.settings.name.trim_end_matches("Settings")
    }
}

/// Returns the parameters that the kernel of every transform shares with `optim_apply`: all before its table of operations.
pub fn shared(apply: &Kernel) -> &[Parameter] {
    let end = apply.parameters.iter().position(|p| p.name == "operations").unwrap_or(apply.parameters.len());
    &apply.parameters[..end]
}

/// Reads a transform; `stem` is the name of its file, without `.cuh`.
///
/// # Errors
/// A message `file:line: what is missing, and how to write it`.
pub fn read(stem: &str, path: PathBuf, code: &Code) -> Result<DeviceTransform, String> {
    let camel = |word: &str| word[..1].to_uppercase() + &word[1..];
    let name: String = stem.split('_').filter(|word| !word.is_empty()).map(camel).collect::<String>() + "Settings";
    let settings = geometry::read(code, &name)?.ok_or_else(|| {
        let form = format!("struct {name} {{ float rate; }};");
        code.fault(0, format!("expected the settings of a transform of the optimiser, as in `{form}`"))
    })?;
    let has_slots = (0..code.tokens().len()).any(|i| code.word(i) == "slots");
    Ok(DeviceTransform { stem: stem.to_string(), path, settings, has_slots })
}

/// Writes what precedes kernels/optim.cu: the transforms, and the list of them.
pub fn prelude(transforms: &[DeviceTransform]) -> String {
    let include = |t: &DeviceTransform| format!("#include \"{}\"\n", t.path.display());
    let entry = |(number, t): (usize, &DeviceTransform)| format!(" F({number}, {})", t.settings.name);
    let includes: String = transforms.iter().map(include).collect();
    let entries: String = transforms.iter().enumerate().map(entry).collect();
    format!("{includes}#define TRANSFORMS(F){entries}\n")
}

/// Writes what follows kernels/optim.cu: a kernel for each transform that has slots, with the shared parameters. None requires
/// norms of units.
pub fn kernels(transforms: &[DeviceTransform], shared: &[Parameter]) -> String {
    let line = |p: &Parameter| {
        let shape = if p.shape.is_empty() { String::new() } else { format!("  // {}", p.shape) };
        format!("    {} {},{shape}\n", p.cuda(Dtype::F32), p.name)
    };
    let parameters: String = shared.iter().map(line).collect();
    let mut out = String::new();
    for t in transforms.iter().filter(|t| t.has_slots) {
        let name = format!("optim_{}", t.stem);
        let _ = writeln!(out, "__device__ void {name}(\n{parameters}    long long start, float before, float after,");
        let _ = writeln!(out, "    {} settings) {{", t.settings.name);
        out += "    if (*bad_gradients != 0.0f) return;\n";
        out += "    apply_single({w, halves, g, {slot0, slot1, slot2, slot3}, nullptr, 0}, norms, weight_norms, ranges + 8 * blockIdx.x,\n";
        out += "                 factors + 2 * blockIdx.x, *step, *lr, bad_weights, update, segments, start, before, after,\n";
        let _ = writeln!(out, "                 settings);\n}}\nKERNEL({name})");
    }
    out
}

/// Writes the enum of all settings in Rust, for `include!` in `gpu/kernels.rs`.
pub fn rust(transforms: &[DeviceTransform], shared: &[Parameter]) -> String {
    let each = |line: &dyn Fn(usize, &DeviceTransform) -> String| {
        transforms.iter().enumerate().map(|(number, t)| line(number, t)).collect::<String>()
    };
    let variants = each(&|_, t| {
        format!("    /// The settings of kernels/optim/{}.cuh.\n    {}({}),\n", t.stem, t.variant(), t.settings.name)
    });
    let from = each(&|_, t| {
        let (variant, name) = (t.variant(), &t.settings.name);
        format!(
            "\nimpl From<{name}> for TransformSettings {{\n    fn from(settings: {name}) -> Self {{\n        \
             TransformSettings::{variant}(settings)\n    }}\n}}\n"
        )
    });
    let codes = each(&|number, t| format!("            TransformSettings::{}(_) => {number},\n", t.variant()));
    let bytes = each(&|_, t| {
        let put = |field: &geometry::Field| {
            let (name, of) = (&field.name, &t.settings.name);
            format!("                put(std::mem::offset_of!({of}, {name}), &settings.{name}.to_ne_bytes());\n")
        };
        let fields: String = t.settings.fields.iter().map(put).collect();
        format!("            TransformSettings::{}(settings) => {{\n{fields}            }}\n", t.variant())
    });
    let argument = |p: &Parameter| match p.name.strip_prefix("slot") {
        Some(number) => format!("args.slots[{number}], "),
        None => format!("args.{}, ", p.name),
    };
    let arguments: String = shared.iter().map(argument).collect();
    let launches = each(&|_, t| match t.has_slots {
        false => String::new(),
        true => format!(
            "            TransformSettings::{}(settings) => Some(unsafe {{ optim_{}(on, grid, {arguments}start, before, after, \
             *settings) }}),\n",
            t.variant(),
            t.stem
        ),
    });
    TEMPLATE
        .replace("@VARIANTS", &variants)
        .replace("@FROM", &from)
        .replace("@CODES", &codes)
        .replace("@BYTES", &bytes)
        .replace("@LAUNCHES", &launches)
}

const TEMPLATE: &str = "
/// The settings of a transform, as its kernel reads them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum TransformSettings {
@VARIANTS}
@FROM
impl TransformSettings {
    /// Returns the number of the transform in kernels/optim.cu.
    pub fn code(&self) -> i32 {
        match self {
@CODES        }
    }

    /// Returns the settings as in the memory of a GPU.
    pub fn bytes(&self) -> [u8; SETTINGS_BYTES] {
        let mut bytes = [0; SETTINGS_BYTES];
        let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
        match self {
@BYTES        }
        bytes
    }

    /// Launches the kernel of this transform alone, after weight decay by `before` and before weight decay by `after`.
    /// Returns `None` if it has none.
    ///
    /// # Safety
    /// Each address is device memory of the shape that kernels/optim.cu states, and stays valid until the kernel has run.
    pub unsafe fn launch(&self, on: &Issue<'_>, grid: Grid, args: &UpdateAddresses, start: i64, before: f32, after: f32) -> Option<Result<()>> {
        // SAFETY: the caller guarantees the addresses.
        match self {
@LAUNCHES            #[allow(unreachable_patterns, reason = \"every transform may have slots\")]
            _ => None,
        }
    }
}
";
