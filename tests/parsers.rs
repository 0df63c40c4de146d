//! The fuzz targets on the stored corpus: what once went wrong in a parser, and inputs that reach each of its branches.

#[path = "../fuzz/src/lib.rs"]
mod targets;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

type Target = fn(&[u8]);

const TARGETS: [(&str, Target); 15] = [
    ("config", targets::config),
    ("set", targets::set),
    ("idx", targets::idx),
    ("cifar", targets::cifar),
    ("picture", targets::picture),
    ("tensors", targets::tensors),
    ("checkpoint", targets::checkpoint),
    ("metrics", targets::metrics),
    ("tensor_file", targets::tensor_file),
    ("name_map", targets::name_map),
    ("tar", targets::tar),
    ("list", targets::list),
    ("csv", targets::csv),
    ("index", targets::index),
    ("parquet", targets::parquet),
];

#[test]
fn every_parser_accepts_its_corpus() {
    for (target, run) in TARGETS {
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
}

/// Returns a copy with a few bytes replaced, removed or inserted, or cut off at the end: damage number `seed`.
fn damaged(bytes: &[u8], seed: u64) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    // A linear congruential generator, with the constants of Knuth's MMIX.
    let mut state = seed;
    let mut below = |bound: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % bound
    };
    for _ in 0..1 + below(3) {
        let at = below(bytes.len().max(1));
        match below(6) {
            _ if bytes.is_empty() => {}
            0 => bytes[at] = below(256) as u8,
            1 => bytes[at] ^= 1 << below(8),
            2 => bytes[at] = [0, 1, 0x22, 0x7f, 0x80, 0xff][below(6)],
            3 => bytes.insert(at, below(256) as u8),
            4 => drop(bytes.remove(at)),
            _ => bytes.truncate(at),
        }
    }
    bytes
}

#[test]
fn damaged_pictures_and_tables_are_refused_or_read() {
    for (target, run) in [("picture", targets::picture as Target), ("parquet", targets::parquet)] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
        for file in std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
            let bytes = std::fs::read(&file).unwrap();
            for seed in 0..500 {
                let done = catch_unwind(AssertUnwindSafe(|| run(&damaged(&bytes, seed))));
                assert!(done.is_ok(), "{}, damage {seed}", file.display());
            }
        }
    }
}
