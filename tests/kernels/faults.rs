//! The emulated device detects the faults that it promises to detect: each planted fault is caught, and a sound kernel
//! passes.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

/// Compiler flags that detect accesses outside memory.
pub const SANITIZE: [&str; 3] =
    ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer"];

/// The C++ compiler that build.rs used.
pub fn cxx() -> &'static str {
    match option_env!("PERISTYLE_BUILT_WITH_CXX") {
        Some(path) => path,
        None => panic!("the tests of the emulated device need a C++ compiler"),
    }
}

pub fn compile(output: &Path, flags: &[&str], sources: &[PathBuf]) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let done = Command::new(cxx())
        .args(["-std=c++20", "-O1", "-g1", "-fno-strict-aliasing", "-w", "-o"])
        .arg(output)
        .args(flags)
        .args(["kernels", "kernels/host", "tests/kernels"].map(|folder| format!("-I{}", root.join(folder).display())))
        .arg(root.join("kernels/host/runtime.cpp"))
        .args(sources)
        .output()
        .expect("the compiler starts");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

/// Runs a kernel of faults.cu in an order of threads, under AddressSanitizer if `sanitized`.
fn run(kernel: &str, order: u32, sanitized: bool) -> Output {
    static PLAIN: OnceLock<PathBuf> = OnceLock::new();
    static SANITIZED: OnceLock<PathBuf> = OnceLock::new();
    let (cell, name, flags) =
        if sanitized { (&SANITIZED, "faults-sanitized", &SANITIZE[..]) } else { (&PLAIN, "faults", &[][..]) };
    let path = cell.get_or_init(|| {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let main = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kernels/faults_main.cpp");
        compile(&path, flags, &[main]);
        path
    });
    Command::new(path).args([kernel, &order.to_string()]).output().expect("the program starts")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn a_sound_kernel_passes_every_check() {
    let want: Vec<String> = (0..64).rev().map(|i: i32| i.to_string()).collect();
    for (order, sanitized) in [(0, false), (1, false), (2, false), (0, true), (2, true)] {
        let output = run("fine", order, sanitized);
        assert!(output.status.success(), "{}", said(&output));
        assert_eq!(said(&output).split_whitespace().collect::<Vec<_>>(), want, "order {order}");
    }
}

#[test]
fn a_missing_barrier_shows_in_another_order_of_threads() {
    let outputs: Vec<String> = (0..3).map(|order| said(&run("missing_barrier", order, false))).collect();
    assert!(outputs[0] != outputs[1] && outputs[1] != outputs[2], "{outputs:?}");
}

#[test]
fn unwritten_memory_is_nan() {
    assert!(said(&run("unwritten_output", 0, false)).contains("nan"));
    assert!(said(&run("unwritten_shared", 0, false)).contains("nan"));
}

#[test]
fn barriers_and_warp_operations_that_not_all_threads_reach_are_errors_with_their_line() {
    for (kernel, words) in [
        ("different_barriers", "threads of a block wait at different __syncthreads"),
        ("half_a_warp", "deadlock: a warp operation waits for lanes that never arrive"),
        ("exited_lane", "a warp operation"),
        ("exited_at_barrier", "a __syncthreads waits for threads that have exited"),
    ] {
        for order in 0..3 {
            let output = run(kernel, order, false);
            let text = said(&output);
            assert!(
                !output.status.success() && text.contains(words) && text.contains("faults.cu:"),
                "{kernel}: {text}"
            );
        }
    }
}

#[test]
fn accesses_outside_memory_are_found_by_the_sanitizer_with_their_line() {
    for kernel in ["outside_global", "outside_shared", "outside_dynamic"] {
        let output = run(kernel, 0, true);
        let text = said(&output);
        let found = text.contains("AddressSanitizer: heap-buffer-overflow") || text.contains("out of bounds for type");
        let found = found && text.contains("faults.cu:");
        assert!(!output.status.success() && found, "{kernel}: {text}");
    }
}
