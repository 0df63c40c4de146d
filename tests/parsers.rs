//! The fuzz targets on the stored corpus: what once went wrong in a parser, and inputs that reach each of its branches.

#[path = "../fuzz/src/lib.rs"]
mod targets;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

type Target = fn(&[u8]);

const TARGETS: [(&str, Target); 12] = [
    ("config", targets::config),
    ("set", targets::set),
    ("idx", targets::idx),
    ("cifar", targets::cifar),
    ("tensors", targets::tensors),
    ("checkpoint", targets::checkpoint),
    ("metrics", targets::metrics),
    ("tensor_file", targets::tensor_file),
    ("name_map", targets::name_map),
    ("tar", targets::tar),
    ("list", targets::list),
    ("csv", targets::csv),
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
