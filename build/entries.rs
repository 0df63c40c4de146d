//! Writes the C++ for the compilers: a kernel file, and an entry with C linkage for each variant of its kernels.

use super::signatures::{Form, Kernel, Parameter, Tiles, Type, Variant};
use std::fmt::Write;

/// Writes the file that nvcc compiles; `path` is that of the kernel file.
pub fn gpu_source(path: &str, kernels: &[Kernel]) -> String {
    let mut out = format!("#include \"{path}\"\n// Kept apart from the functions of the same names that they call.\n");
    out += "namespace entries {\n";
    for (kernel, variant) in each(kernels) {
        out += &entry(kernel, variant);
    }
    out + "}\n"
}

/// Writes the file that compiles a kernel file for the CPU and registers its kernels.
pub fn host_source(path: &str, kernels: &[Kernel]) -> String {
    // The unnamed namespace keeps equal names in two kernel files apart, as separate modules do on a GPU.
    let mut out = format!("#include \"cuda_host.h\"\nnamespace {{\n#include \"{path}\"\nnamespace entries {{\n");
    for (kernel, variant) in each(kernels) {
        let _ = writeln!(out, "{}EMU_KERNEL({})", entry(kernel, variant), kernel.entry(variant));
    }
    out + "}\n}\n"
}

fn each(kernels: &[Kernel]) -> impl Iterator<Item = (&Kernel, &Variant)> {
    kernels.iter().flat_map(|kernel| kernel.variants.iter().map(move |variant| (kernel, variant)))
}

fn entry(kernel: &Kernel, variant: &Variant) -> String {
    // A struct stays where the launch puts it, because a copy would cost registers.
    let qualifier = |p: &Parameter| if matches!(p.ty, Type::Geometry(_)) { "const __grid_constant__ " } else { "" };
    let parameters: Vec<String> =
        kernel.parameters.iter().map(|p| format!("{}{} {}", qualifier(p), p.cuda(variant.dtype), p.name)).collect();
    let names: Vec<&str> = kernel.parameters.iter().map(|p| p.name.as_str()).collect();
    let blocks = variant.blocks.map_or(String::new(), |blocks| format!(", {blocks}"));
    let (name, all) = (&kernel.name, names.join(", "));
    let call = match kernel.form {
        Form::Plain => format!("::{name}({all})"),
        Form::Template => {
            let side = match variant.tiles {
                None => "",
                Some(Tiles::Large) => ", LARGE",
                Some(Tiles::Small) => ", SMALL",
            };
            format!("::{name}<{}{side}>({all})", variant.dtype.argument())
        }
        Form::Elements(operands) => {
            // The operands, the output, the number of elements, the settings.
            let (elements, settings) = (&names[..operands], &names[operands + 2..]);
            let values = [elements, settings].concat().join(", ");
            let (typed, elements) = (elements.join(", element "), elements.join(", "));
            format!("map_elements(out, n, [=](element {typed}) {{ return ::{name}({values}); }}, {elements})")
        }
    };
    format!(
        "extern \"C\" __global__ void __launch_bounds__({}{blocks}) {}({}) {{\n    {call};\n}}\n",
        variant.threads,
        kernel.entry(variant),
        parameters.join(", ")
    )
}
