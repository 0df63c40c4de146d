//! The memory of a run against what `plan` prints.

mod common;

use common::runs::{Folder, peristyle};
use serde_json::Value;
use std::process::Stdio;

/// A network of 13 million weights on few samples.
const LARGE: &str = r#"
[data]
train = { synthetic = { images = 16, classes = 2, shape = [32, 32, 4] } }
batch = 8
[model]
input = [32, 32, 4]
layers = ["flatten", { dense = { units = 2048 } }, "relu", { dense = { units = 2048 } }, { dense = { units = 2 } }]
[optimizer]
chain = [{ momentum = 0.9 }]
lr = 0.001
[train]
steps = 1000000
evaluate = "never"
checkpoint = { every = "2 steps", keep = 1 }
"#;

/// Trains until two checkpoints have been written after the start or resume of that number; returns the largest memory so
/// far in bytes.
fn peak(folder: &Folder, starts: usize, more: &[&str]) -> f64 {
    let mut command = peristyle(&folder.0);
    command.args(["train", "large.toml", "--run-dir", "run"]).args(more);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let saved = || {
        let text = std::fs::read_to_string(folder.at("run/metrics.jsonl")).unwrap_or_default();
        let mut runs = text.split("\"event\":\"start\"").skip(starts);
        runs.next().is_some_and(|last| last.matches("\"event\":\"checkpoint\"").count() >= 2)
    };
    while !saved() {
        assert!(child.try_wait().unwrap().is_none(), "the run ended");
        std::thread::yield_now();
    }
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    peak.trim().trim_end_matches(" kB").parse::<f64>().unwrap() * 1024.0
}

#[test]
fn the_largest_memory_of_a_run_is_as_planned() {
    let folder = Folder::new("memory");
    folder.write("large.toml", LARGE);
    for devices in ["cpu", "cpu*2"] {
        let on = ["--devices", devices];
        let plan = folder.good(&[&["plan", "large.toml", "--format", "json"], &on[..]].concat()).out;
        let planned = serde_json::from_str::<Value>(&plan).unwrap()["process_bytes"].as_f64().unwrap();
        // Initial values and saving, then restoring.
        for (starts, resume) in [(1, &[][..]), (2, &["--resume"])] {
            let peak = peak(&folder, starts, &[&on[..], resume].concat());
            let most = (0.1 * planned).max(30e6);
            assert!((peak - planned).abs() <= most, "{devices} {resume:?}: {peak:.0} bytes, planned {planned:.0}");
        }
        std::fs::remove_dir_all(folder.at("run")).unwrap();
    }
}

#[test]
fn a_run_that_does_not_fit_this_machine_is_refused() {
    let folder = Folder::new("memory-excess");
    folder.write("large.toml", LARGE);
    let huge = ["large.toml", "--set", "data.batch=4000000", "--set", "data.train.synthetic.images=4000000"];
    for command in ["check", "train"] {
        let output = folder.run(&[&[command], &huge[..]].concat());
        assert_eq!(output.code, Some(2), "{}", output.err);
        assert!(output.err.contains("large.toml: [devices]: the run needs "), "{}", output.err);
        assert!(output.err.contains(" GB; use a smaller batch, more devices"), "{}", output.err);
    }
    // A plan may be for another machine.
    let output = folder.good(&[&["plan"], &huge[..]].concat());
    assert!(output.err.contains("note: the run needs "), "{}", output.err);
}
