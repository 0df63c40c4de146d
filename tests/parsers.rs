//! The fuzz targets on the stored corpus: what once went wrong in a parser, and inputs that reach each of its branches.

#[path = "../fuzz/targets.rs"]
mod targets;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

/// Runs a target on every file of its corpus.
fn replay(target: &str, run: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() > 1, "{} has no corpus", folder.display());
    for file in files {
        let bytes = std::fs::read(&file).unwrap();
        let done = catch_unwind(AssertUnwindSafe(|| run(&bytes)));
        assert!(done.is_ok(), "{}", file.display());
    }
}

#[test]
fn configurations() {
    replay("config", targets::config);
    replay("set", targets::set);
}

#[test]
fn data_files() {
    replay("idx", targets::idx);
    replay("cifar", targets::cifar);
    replay("tensors", targets::tensors);
}

#[test]
fn files_of_a_run() {
    replay("checkpoint", targets::checkpoint);
    replay("metrics", targets::metrics);
}

#[test]
fn weights() {
    replay("tensor_file", targets::tensor_file);
    replay("name_map", targets::name_map);
}
