//! Checks of all kernels at once: the list that build.rs reads, and every test again under sanitizers.

use crate::faults::{SANITIZE, compile, cxx};
use peristyle::gpu::kernels::ENTRIES;
use std::path::Path;
use std::process::Command;

#[test]
#[ignore = "compiles every kernel again; scripts/check-kernels.sh runs it"]
fn the_ptx_has_the_entries_that_the_build_script_read() {
    let Some(nvcc) = option_env!("PERISTYLE_BUILT_WITH_NVCC") else {
        panic!("this test needs nvcc: scripts/cuda-toolchain.sh");
    };
    let root = Path::new(env!("PERISTYLE_ENTRIES"));
    let mut files: Vec<&str> = ENTRIES.iter().map(|entry| entry.file).collect();
    files.dedup();
    for file in files {
        let ptx = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{file}.ptx"));
        let done = Command::new(nvcc)
            .args(["-std=c++17", "-ptx", "-arch=compute_80", "-Werror", "all-warnings", "-o"])
            .args([&ptx, &root.join(format!("{file}.gpu.cu"))])
            .output()
            .expect("nvcc starts");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        let text = std::fs::read_to_string(&ptx).expect("nvcc wrote the file");
        let mut found: Vec<&str> =
            text.split(".entry ").skip(1).map(|rest| rest.split('(').next().unwrap_or("").trim()).collect();
        let mut listed: Vec<&str> = ENTRIES.iter().filter(|entry| entry.file == file).map(|entry| entry.name).collect();
        found.sort_unstable();
        listed.sort_unstable();
        assert_eq!(found, listed, "kernels/{file}.cu");
    }
}

/// Compiles the emulated device with AddressSanitizer and UndefinedBehaviorSanitizer, and runs this binary's other
/// tests with it. Each tensor of a test is a separate allocation with guarded memory on both sides.
#[test]
#[ignore = "compiles every kernel again; scripts/check-kernels.sh runs it"]
fn every_kernel_stays_inside_its_memory() {
    let root = Path::new(env!("PERISTYLE_ENTRIES"));
    let mut sources: Vec<&str> = ENTRIES.iter().map(|entry| entry.file).collect();
    sources.dedup();
    let sources: Vec<_> = sources.iter().map(|file| root.join(format!("{file}.host.cpp"))).collect();
    let library = Path::new(env!("CARGO_TARGET_TMPDIR")).join("emulator-sanitized.so");
    compile(&library, &[&SANITIZE[..], &["-fPIC", "-shared"]].concat(), &sources);
    let asked = Command::new(cxx()).arg("-print-file-name=libasan.so").output().expect("the compiler starts");
    let asan = String::from_utf8_lossy(&asked.stdout).trim().to_string();
    let done = Command::new(std::env::current_exe().expect("a test runs from a file"))
        .args(["--test-threads=1", "--skip", "faults::", "--skip", "whole::"])
        .env("LD_PRELOAD", asan)
        .env("ASAN_OPTIONS", "detect_leaks=0")
        .env("PERISTYLE_EMU_LIBRARY", &library)
        .output()
        .expect("the tests start");
    let text = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{text}");
    println!("{text}");
}
