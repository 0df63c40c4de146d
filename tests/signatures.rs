//! The build script: how it reads kernel files, the code that it generates, and the mistakes that it rejects.

#![allow(missing_docs, reason = "build/ documents itself")]

#[path = "../build/mod.rs"]
mod kernels;

use kernels::entries::{gpu_source, host_source};
use kernels::launchers::{entries, launchers};
use kernels::signatures::{self, Kernel};
use kernels::tokens::Code;
use kernels::transforms;

const HEADER: &str = "struct Shape {\n  int h, w;  // the image\n  unsigned long long n;\n};\n";

fn read(source: &str) -> Result<Vec<Kernel>, String> {
    signatures::read(&Code::of("kernels/f.cu", source), &[Code::of("kernels/g.cuh", HEADER)])
}

fn rust(kernels: &[Kernel]) -> String {
    let files = [("f".into(), kernels.to_vec())];
    entries(&files, &[]) + &launchers(&files)
}

#[test]
fn a_function_becomes_an_entry_and_a_typed_launcher() {
    let source = "/* __global__ */ // __global__\n\n__device__ void f(const float* __restrict__ x,  // (N, C)\n  \
                  __nv_bfloat16* y,  // (N)\n int n, unsigned long long k) {}\nKERNEL(f)";
    let kernels = read(source).expect("valid source");
    assert_eq!((kernels[0].name.as_str(), kernels[0].line, kernels[0].variants[0].threads), ("f", 3, 256));
    let code = rust(&kernels);
    assert!(code.contains("pub unsafe fn f(on: &Issue<'_>, grid: Grid, x: Const<f32>, y: Mut<bf16>, n: i32, k: u64)"));
    assert!(code.contains(r#"parameters: &["const float*", "__nv_bfloat16*", "int", "unsigned long long"]"#));
    assert!(!code.contains("ComputeType::common"), "only kernels with variants have a launcher that chooses one");
    let entry = "extern \"C\" __global__ void __launch_bounds__(256) f(const float* x, __nv_bfloat16* y, int n, \
                 unsigned long long k) {\n    ::f(x, y, n, k);\n}\n";
    let (gpu, host) = (gpu_source("/f.cu", &kernels), host_source("/f.cu", &kernels));
    assert!(gpu.starts_with("#include \"/f.cu\"\n") && gpu.contains(entry), "{gpu}");
    assert!(host.contains(&format!("{entry}EMU_KERNEL(f)\n")), "{host}");
}

const TEMPLATE: &str = "template <typename T>\n__device__ void f(\nconst T* x,  // (N)\nconst float* b,  // (N)\nT* y,  \
                        // (N)\nint n) {}\n";

#[test]
fn a_template_becomes_an_entry_for_each_variant_of_its_line() {
    let kernels = read(&format!("{TEMPLATE}KERNEL(f, f32(128, 2), bf16)")).expect("valid source");
    let gpu = gpu_source("f.cu", &kernels);
    for entry in [
        "__launch_bounds__(128, 2) f(const float* x, const float* b, float* y, int n) {\n    ::f<float>(x, b, y, n);\n}\n",
        "__launch_bounds__(256) f_bf16(const __nv_bfloat16* x, const float* b, __nv_bfloat16* y, int n) {\n    \
         ::f<bf16>(x, b, y, n);\n}\n",
    ] {
        assert!(gpu.contains(entry), "{gpu}");
    }
    let code = rust(&kernels);
    for launcher in ["f(on: &Issue<'_>, grid: Grid, x: Const<f32>", "f_bf16(on: &Issue<'_>, grid: Grid, x: Const<bf16>"]
    {
        assert!(code.contains(&format!("pub unsafe fn {launcher}, b: Const<f32>")), "{code}");
    }
    assert!(code.contains("name: \"f\", file: \"f\", threads: 128") && code.contains("name: \"f_bf16\""), "{code}");
}

#[test]
fn a_formula_becomes_a_kernel_over_the_elements_of_its_operands() {
    let source = "__device__ element f(element y, element dy, float slope) { return y * dy; }\nKERNEL(f, f32, bf16)";
    let kernels = read(source).expect("valid source");
    let entry = "f_bf16(const __nv_bfloat16* y, const __nv_bfloat16* dy, __nv_bfloat16* out, long long n, float slope) \
                 {\n    map_elements(out, n, [=](element y, element dy) { return ::f(y, dy, slope); }, y, dy);\n}\n";
    assert!(gpu_source("f.cu", &kernels).contains(entry), "{}", gpu_source("f.cu", &kernels));
    assert!(
        rust(&kernels).contains("y: AnyConst, dy: AnyConst, out: AnyMut, n: i64, slope: f32)"),
        "{}",
        rust(&kernels)
    );
}

#[test]
fn numbers_that_are_multiplied_as_tf32_are_stored_as_floats() {
    let template = TEMPLATE.replace("<typename T>", "<class Kind, typename T = Storage<Kind>>");
    let kernels = read(&format!("{template}KERNEL(f, f32, bf16, tf32(128))")).expect("valid source");
    let entry = "__launch_bounds__(128) f_tf32(const float* x, const float* b, float* y, int n) {\n    ::f<tf32>(x, b, \
                 y, n);\n}\n";
    assert!(gpu_source("f.cu", &kernels).contains(entry));
    assert!(rust(&kernels).contains("ComputeType::Tf32 => super::f_tf32(on, grid, x.typed(), b, y.typed(), n)"));
}

#[test]
fn the_grid_of_a_launch_chooses_the_entry_for_small_tiles() {
    let sized = TEMPLATE.replace("<typename T>", "<class Kind, int SIDE, typename T = Storage<Kind>>");
    let kernels = read(&format!("{sized}KERNEL(f, f32(256, 2, 3), bf16(128, 2, 4))")).expect("valid source");
    let gpu = gpu_source("f.cu", &kernels);
    for entry in ["(256, 2) f(", "(256, 3) f_small(", "(128, 2) f_bf16(", "(128, 4) f_bf16_small("] {
        assert!(gpu.contains(&format!("__launch_bounds__{entry}")), "{gpu}");
    }
    assert!(gpu.contains("::f<bf16, LARGE>(x") && gpu.contains("::f<bf16, SMALL>(x"), "{gpu}");
    let code = rust(&kernels);
    assert!(code.contains("on.driver.launch(if grid.small_tiles { 3 } else { 2 }, grid, &args, on.stream)"), "{code}");
    assert!(code.contains("name: \"f_bf16_small\"") && !code.contains("fn f_bf16_small"), "{code}");
    let fault = "expected `int SIDE` in the template, and a third number in each variant";
    for (template, line) in [(&*sized, "f32(256, 2, 3), bf16"), (TEMPLATE, "f32(256, 2, 3)"), (&sized, "f32(256, 2)")] {
        let error = read(&format!("{template}KERNEL(f, {line})")).expect_err("wrong source");
        assert!(error.contains(fault), "{error}");
    }
}

#[test]
fn a_variant_is_launched_by_the_format_of_its_operands() {
    let code = rust(&read(&format!("{TEMPLATE}KERNEL(f, f32, bf16)")).expect("valid source"));
    assert!(code.contains("f(on: &Issue<'_>, grid: Grid, x: AnyConst, b: Const<f32>, y: AnyMut, n: i32)"), "{code}");
    assert!(code.contains("ComputeType::Bf16 => super::f_bf16(on, grid, x.typed(), b, y.typed(), n)"), "{code}");
    assert!(code.contains("_ => super::f(on, grid, x.typed(), b, y.typed(), n)"), "{code}");
    assert!(code.contains("ComputeType::common(&[(x.address, x.format), (y.address, y.format)])"), "{code}");
}

#[test]
fn a_struct_is_passed_by_value_and_has_a_rust_counterpart() {
    let kernels = read(&format!("{}KERNEL(f, f32, bf16)", TEMPLATE.replace("int n", "Shape s"))).expect("valid source");
    let code = rust(&kernels);
    let twin = "/// `Shape` of kernels/g.cuh:1.\n#[derive(Debug, Clone, Copy, PartialEq)]\n#[repr(C)]\npub struct Shape {\n    \
                /// `int h`: the image.\n    pub h: i32,\n    /// `int w`: the image.\n    pub w: i32,\n    /// `unsigned long \
                long n`.\n    pub n: u64,\n}\n";
    assert!(code.contains(twin) && code.matches("pub struct").count() == 1, "{code}");
    assert!(code.contains("y: Mut<f32>, s: Shape)") && code.contains("y: AnyMut, s: super::Shape)"), "{code}");
    assert!(code.contains("size_of::<Mut<f32>>(), size_of::<Shape>()]"), "{code}");
    assert!(
        gpu_source("f.cu", &kernels)
            .contains("float* y, const __grid_constant__ Shape s) {\n    ::f<float>(x, b, y, s);\n}")
    );
}

#[test]
fn a_header_holds_no_kernels() {
    let check = |source: &str| signatures::check_header(&Code::of("kernels/g.cuh", source));
    assert_eq!(check("// KERNEL(f)\n#define KERNEL(...)"), Ok(()));
    assert!(check("\nKERNEL(f)").expect_err("wrong source").starts_with("kernels/g.cuh:2: a kernel in a header"));
}

#[test]
fn mistakes_are_reported_with_their_line() {
    let plain = |parameters: &str| format!("\n__device__ void f({parameters}) {{}} KERNEL(f)");
    let template = |head: &str, line: &str| format!("\n{head} __device__ void f(int n) {{}} KERNEL({line})");
    let formula = |given: &str, line: &str| format!("\n__device__ element f({given}) {{}} KERNEL({line})");
    let typed = |line: &str| template("template <typename T>", line);
    let cases = [
        ("\n#define K(name) KERNEL(name)".to_string(), "a macro makes a kernel"),
        ("\n#define K(name) __global__ void name(int n) {}".to_string(), "a macro makes a kernel"),
        ("\nextern \"C\" __global__ void f(int n) {}".to_string(), "`__global__` is written by build.rs"),
        ("\nKERNEL(f) __device__ void g() {}".to_string(), "expected one function `__device__ void f(...)`"),
        ("\n__device__ void f() {} __device__ void f(int n) {} KERNEL(f)".to_string(), "expected one function"),
        ("\n__device__ void f() {} KERNEL(f) KERNEL(f)".to_string(), "a second `KERNEL` line names \"f\""),
        ("\n__device__ void f(int n); KERNEL(f)".to_string(), "expected `(type name, ...) {`"),
        ("\n__device__ void f(int n KERNEL(f)".to_string(), "cannot read the parameters"),
        (plain("int (*n)"), "cannot read the parameters"),
        (plain("Form s"), "has the type `Form`"),
        (plain("Shape* s"), "has the type `Shape`"),
        (plain("Shape& s"), "expected `type name`"),
        ("\nstruct S { int h; T w; }; __device__ void f(S s) {} KERNEL(f)".to_string(), "expected numbers"),
        ("\nstruct S { int h[2]; }; __device__ void f(S s) {} KERNEL(f)".to_string(), "expected numbers"),
        (plain("const float* x"), "lacks its shape"),
        (plain("float** x"), "expected `type name`"),
        (template("", "f, f32"), "\"f\" is not a template; expected `KERNEL(f)`"),
        (formula("element x", "f"), "\"f\" is a formula; list its variants"),
        (formula("float x", "f, f32"), "expected `(element x, ...)`, with the settings after all elements"),
        (formula("element x, float a, element y", "f, f32"), "with the settings after all elements"),
        (typed("f"), "\"f\" is a template; list its variants"),
        (typed("f, bf16"), "with all variants or the first ones"),
        (typed("f, f32, f32"), "with all variants or the first ones"),
        (typed("f, f32, bf16, tf32, f64"), "with all variants or the first ones"),
        (typed("f, f32(BLOCK)"), "state launch bounds"),
        (typed("f, f32(256, 0)"), "state launch bounds"),
        (typed("f, f32(2048)"), "state launch bounds"),
        (typed("f, f32, bf16, tf32"), "numbers are not stored as tf32"),
        (template("template <int N>", "f, f32"), "expected `template <typename T>`"),
        (template("template <class Kind, typename T = Kind>", "f, f32"), "expected `template <typename T>`"),
        (typed("f, f32").replace("int n", "T n"), "parameter \"n\" has the type `T`"),
        (typed("f, f32").replace("int n", "U* n"), "parameter \"n\" has the type `U`"),
    ];
    for (source, words) in cases {
        let text = read(&source).expect_err("wrong source");
        assert!(text.starts_with("kernels/f.cu:2: ") && text.contains(words), "{text}");
    }
}

#[test]
fn a_transform_becomes_an_operation_and_with_slots_a_kernel() {
    let read = |source: &str| {
        transforms::read("my_rule", "/my_rule.cuh".into(), &Code::of("kernels/optim/my_rule.cuh", source))
    };
    let settings = "struct MyRuleSettings {\n  double beta;  // of the mean\n  int on;\n};\n";
    let plain = read(settings).expect("valid source");
    let held = read(&format!("{settings}void transform() {{ slots[0]; }}")).expect("valid source");
    assert_eq!((plain.has_slots, held.has_slots), (false, true));
    let apply = "__device__ void optim_apply(\n    float* w,  // (n)\n    float* slot0,  // (n), or null\n    int update,\n    \
                 const unsigned long long* operations,  // (ops, 8)\n    int ops) {}\nKERNEL(optim_apply)";
    let apply = signatures::read(&Code::of("kernels/optim.cu", apply), &[]).expect("valid source");
    let shared = transforms::shared(&apply[0]);
    assert!(transforms::kernels(std::slice::from_ref(&plain), shared).is_empty());
    let all = [plain, held];
    assert_eq!(
        transforms::prelude(&all),
        "#include \"/my_rule.cuh\"\n#include \"/my_rule.cuh\"\n#define TRANSFORMS(F) F(0, MyRuleSettings) F(1, MyRuleSettings)\n"
    );
    let kernel = transforms::kernels(&all, shared);
    let header = Code::of("kernels/optim/my_rule.cuh", settings);
    let kernels = signatures::read(&Code::of("g.cu", &kernel), &[header]).expect("a kernel that can be read");
    assert_eq!(kernels[0].name, "optim_my_rule");
    let names: Vec<&str> = kernels[0].parameters.iter().map(|p| p.name.as_str()).collect();
    assert_eq!(names, ["w", "slot0", "update", "start", "before", "after", "settings"]);
    let code = transforms::rust(&all, shared);
    for part in [
        "MyRule(MyRuleSettings),",
        "TransformSettings::MyRule(_) => 1,",
        "put(std::mem::offset_of!(MyRuleSettings, beta), &settings.beta.to_ne_bytes());",
        "optim_my_rule(on, grid, args.w, args.slots[0], args.update, start, before, after, *settings)",
    ] {
        assert!(code.contains(part), "{code}");
    }
    let error = read("struct Other { int n; };").expect_err("wrong source");
    assert!(
        error.starts_with("kernels/optim/my_rule.cuh:1: expected the settings") && error.contains("MyRuleSettings")
    );
}
