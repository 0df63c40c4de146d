//! What the build script reads out of kernel files, and what it refuses.

#![allow(missing_docs, reason = "build/signatures.rs documents itself")]

#[path = "../build/signatures.rs"]
mod signatures;

const HEAD: &str = "extern \"C\" __global__ void __launch_bounds__(256) ";

#[test]
fn a_signature_becomes_a_typed_launcher() {
    let source = format!(
        "/* __global__ */ // __global__\n{HEAD}\nf(const float* __restrict__ x,  // (N, C)\n  \
                          __nv_bfloat16* y,  // (N)\n int n, unsigned long long k) {{}}"
    );
    let kernels = signatures::read("f.cu", &source).expect("it reads");
    assert_eq!((kernels[0].name.as_str(), kernels[0].line, kernels[0].threads), ("f", 3, 256));
    let code = signatures::launchers(&[("f".into(), kernels.clone())]);
    assert!(code.contains("pub unsafe fn f(on: &Issue<'_>, grid: Grid, x: Const<f32>, y: Mut<bf16>, n: i32, k: u64)"));
    assert!(code.contains(r#"parameters: &["const float*", "__nv_bfloat16*", "int", "unsigned long long"]"#));
    assert!(signatures::host_source("f.cu", &kernels).contains("EMU_KERNEL(f)"));
}

#[test]
fn bounds_may_name_the_blocks_on_a_multiprocessor() {
    let source = format!("\n{}f(int n) {{}}", HEAD.replace("256", "128, 2"));
    let kernels = signatures::read("f.cu", &source).expect("it reads");
    assert_eq!((kernels[0].name.as_str(), kernels[0].threads, kernels[0].parameters.len()), ("f", 128, 1));
}

#[test]
fn what_cannot_be_read_is_named_with_its_line() {
    let refused = |source: String| signatures::read("kernels/f.cu", &source).expect_err("it is refused");
    let place = "kernels/f.cu:2: ";
    let cases = [
        (format!("\n#define K(name) {HEAD}name(int n) {{}}"), "a macro makes a kernel"),
        (format!("\n#define K(name) {}name(int n) {{}}", HEAD.replace("256", "128")), "a macro"),
        ("\n__global__ void f(int n) {}".to_string(), "without `extern \"C\"`"),
        ("\nextern \"C\" __global__ void f(int n) {}".to_string(), "expected `extern \"C\" __global__ void"),
        (format!("\n{}f(int n) {{}}", HEAD.replace("256", "THREADS")), "THREADS a number"),
        (format!("\n{}f(int n) {{}}", HEAD.replace("256", "256, BLOCKS")), "THREADS a number"),
        (format!("\n{HEAD}f(Shape s) {{}}"), "has the type `Shape`"),
        (format!("\n{HEAD}f(const float* x) {{}}"), "lacks its shape"),
        (format!("\n{HEAD}f(float** x) {{}}"), "expected `type name`"),
    ];
    for (source, words) in cases {
        let text = refused(source);
        assert!(text.starts_with(place) && text.contains(words), "{text}");
    }
}

#[test]
fn a_twin_is_launched_by_the_format_of_its_operands() {
    let read = |twin: &str| {
        let plain =
            format!("{HEAD}f(const float* x,  // (N)\nconst float* b,  // (N)\nfloat* y,  // (N)\nint n) {{}}\n");
        let kernels = signatures::read("f.cu", &(plain + HEAD + twin)).expect("it reads");
        signatures::twins(&[("f".into(), kernels)])
    };
    let twin = "f_bf16(const __nv_bfloat16* x,  // (N)\nconst float* b,  // (N)\n__nv_bfloat16* y,  // (N)\nint n) {}";
    let code = read(twin).expect("they are twins");
    assert!(code.contains("f(on: &Issue<'_>, grid: Grid, x: AnyConst, b: Const<f32>, y: AnyMut, n: i32)"), "{code}");
    assert!(code.contains("Format::Bf16 => super::f_bf16(on, grid, x.typed(), b, y.typed(), n)"), "{code}");
    assert!(code.contains("Format::common(&[(x.address, x.format), (y.address, y.format)])"), "{code}");
    for (from, to) in [("int n", "unsigned n"), ("const float* b", "float* b"), ("int n", "int m")] {
        let text = read(&twin.replace(from, to)).expect_err("it is no twin");
        assert!(text.starts_with("kernels/f.cu:5: \"f_bf16\" differs from \"f\""), "{text}");
    }
}
