//! Writes the Rust code of gpu/embedded.rs and gpu/kernels.rs: the table of entries, a typed launcher for each, and
//! launchers that choose a variant by the formats of their operands.

use super::geometry::Geometry;
use super::signatures::{Dtype, Kernel, Tiles, Type, Variant};
use std::fmt::Write;

/// Writes the table of entries and the structs that kernels take, for `include!` in `gpu/embedded.rs`. Each file is
/// given by its name without `.cu`, and its kernels; `others` are structs that reach kernels through memory.
pub fn entries(files: &[(String, Vec<Kernel>)], others: &[Geometry]) -> String {
    let mut out = String::from("/// Every entry, in the order of [`Driver::launch`](super::Driver::launch).\n");
    out += "pub static ENTRIES: &[Entry] = &[\n";
    for (file, kernel, variant) in each(files) {
        let parameters: Vec<String> =
            kernel.parameters.iter().map(|p| format!("{:?}", p.cuda(variant.dtype))).collect();
        let sizes: Vec<String> =
            kernel.parameters.iter().map(|p| format!("size_of::<{}>()", p.rust(variant.dtype))).collect();
        let _ = writeln!(
            out,
            "    Entry {{ name: {:?}, file: {file:?}, threads: {}, parameters: &[{}], sizes: &[{}] }},",
            kernel.entry(variant),
            variant.threads,
            parameters.join(", "),
            sizes.join(", ")
        );
    }
    out + "];\n" + &structs(files, others)
}

/// Writes one launcher per entry, or per two entries that differ in the size of their tiles, and those that choose a
/// variant, for `include!` in `gpu/kernels.rs`.
pub fn launchers(files: &[(String, Vec<Kernel>)]) -> String {
    let mut out = String::new();
    for (index, (file, kernel, variant)) in each(files).enumerate() {
        if variant.tiles == Some(Tiles::Small) {
            continue;
        }
        let _ = writeln!(out, "\n/// kernels/{file}.cu:{}, {} threads a block.\n///", kernel.line, variant.threads);
        for p in &kernel.parameters {
            let _ = writeln!(out, "/// - `{}`: `{}` {}", p.name, p.cuda(variant.dtype), p.shape.replace('[', "\\["));
        }
        out += "///\n/// # Errors\n/// If the device rejects the launch.\n///\n/// # Safety\n";
        out += "/// Each address is device memory of the given shape, and stays valid until the kernel has run.\n";
        out += "#[allow(clippy::too_many_arguments, reason = \"the kernel's own parameters\")]\n";
        let _ = write!(out, "pub unsafe fn {}(on: &Issue<'_>, grid: Grid", kernel.entry(variant));
        for p in &kernel.parameters {
            let _ = write!(out, ", {}: {}", p.name, p.rust(variant.dtype));
        }
        out += ") -> Result<()> {\n    let args = [";
        for p in &kernel.parameters {
            let _ = write!(out, "address(&{}), ", p.name);
        }
        let _ =
            writeln!(out, "];\n    // SAFETY: the types are those of the kernel; the caller guarantees the addresses.");
        let index = match variant.tiles {
            None => index.to_string(),
            Some(_) => format!("if grid.small_tiles {{ {} }} else {{ {index} }}", index + 1),
        };
        let _ = writeln!(out, "    unsafe {{ on.driver.launch({index}, grid, &args, on.stream) }}\n}}");
    }
    out + &any(files)
}

/// Writes the structs, each once.
fn structs(files: &[(String, Vec<Kernel>)], others: &[Geometry]) -> String {
    let mut known: Vec<&Geometry> = others.iter().collect();
    for parameter in files.iter().flat_map(|(_, kernels)| kernels).flat_map(|kernel| &kernel.parameters) {
        match &parameter.ty {
            Type::Geometry(geometry) if !known.contains(&geometry) => known.push(geometry),
            _ => {}
        }
    }
    let mut out = String::new();
    for geometry in known {
        let _ =
            writeln!(out, "\n/// `{}` of {}.\n#[derive(Debug, Clone, Copy, PartialEq)]", geometry.name, geometry.place);
        let _ = writeln!(out, "#[repr(C)]\npub struct {} {{", geometry.name);
        for field in &geometry.fields {
            let comment = if field.comment.is_empty() { String::new() } else { format!(": {}", field.comment) };
            let _ = writeln!(out, "    /// `{} {}`{}.", field.scalar.cuda, field.name, comment.replace('[', "\\["));
            let _ = writeln!(out, "    pub {}: {},", field.name, field.scalar.rust);
        }
        out += "}\n";
    }
    out
}

fn each(files: &[(String, Vec<Kernel>)]) -> impl Iterator<Item = (&str, &Kernel, &Variant)> {
    let kernels = files.iter().flat_map(|(file, kernels)| kernels.iter().map(move |kernel| (file.as_str(), kernel)));
    kernels.flat_map(|(file, kernel)| kernel.variants.iter().map(move |variant| (file, kernel, variant)))
}

const ANY: &str = r#"
    /// Launches [`NAME`](super::NAME), or its variant for the format of the operands.
    ///
    /// # Errors
    /// If the device rejects the launch.
    ///
    /// # Panics
    /// If operands have different formats.
    ///
    /// # Safety
    /// As for [`NAME`](super::NAME).
    #[allow(clippy::too_many_arguments, reason = "the kernel's own parameters")]
    pub unsafe fn NAME(on: &Issue<'_>, grid: GridPARAMETERS) -> Result<()> {
        // SAFETY: the caller has the same obligations.
        unsafe {
            match ComputeType::common(&[FORMATS]) {
VARIANTS                _ => super::NAME(on, gridGIVEN),
            }
        }
    }
"#;

/// Writes the module `any`: for every kernel with several variants, a launcher that accepts the varying operands in any
/// format, and launches the variant for that format.
fn any(files: &[(String, Vec<Kernel>)]) -> String {
    let mut out = String::from(
        "\n/// Launchers of kernels with variants: the formats of the operands determine which.\npub mod any {\n",
    );
    out += "    use super::{AnyConst, AnyMut, ComputeType, Const, Grid, Issue, Mut, Result};\n";
    for kernel in files.iter().flat_map(|(_, kernels)| kernels).filter(|kernel| kernel.launched().count() > 1) {
        let (mut parameters, mut formats, mut given) = (String::new(), Vec::new(), String::new());
        for p in &kernel.parameters {
            let mut typed = p.rust(Dtype::F32);
            if matches!(p.ty, Type::Geometry(_)) {
                typed.insert_str(0, "super::");
            }
            let name = &p.name;
            if !p.varies() {
                parameters += &format!(", {name}: {typed}");
                given += &format!(", {name}");
                continue;
            }
            parameters += &format!(", {name}: Any{}", typed.trim_end_matches("<f32>"));
            given += &format!(", {name}.typed()");
            formats.push(format!("({name}.address, {name}.format)"));
        }
        let others = kernel.launched().filter(|variant| variant.dtype != Dtype::F32);
        let variants: String = others
            .map(|v| {
                format!("                ComputeType::{:?} => super::{}(on, gridGIVEN),\n", v.dtype, kernel.entry(v))
            })
            .collect();
        let text = ANY.replace("VARIANTS", &variants).replace("PARAMETERS", &parameters);
        out += &text.replace("FORMATS", &formats.join(", ")).replace("GIVEN", &given).replace("NAME", &kernel.name);
    }
    out + "}\n"
}
