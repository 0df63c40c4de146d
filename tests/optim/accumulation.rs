//! Batches that are divided into parts whose gradients are accumulated: the curve of the whole batch, on every device and
//! through a resume.

use crate::common::runs::{Folder, SMALL, assert_code, losses};

/// A folder with `plain.toml`: the small network without batch normalisation. An epoch has 12 batches of 100 samples and one
/// of 93.
fn folder(name: &str) -> Folder {
    let folder = Folder::new(name);
    let plain: String =
        SMALL.lines().filter(|line| !line.contains("batch_norm")).map(|line| format!("{line}\n")).collect();
    folder.write("plain.toml", &plain);
    folder
}

fn train(folder: &Folder, run: &str, sets: &[&str]) -> Vec<f64> {
    let sets: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).collect();
    folder.good(&[&["train", "plain.toml", "--run-dir", run][..], &sets].concat());
    losses(&folder.metrics(run))
}

fn apart(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| ((a - b) / b).abs()).fold(0.0, f64::max)
}

#[test]
fn parts_have_the_curve_of_the_whole_batch() {
    let folder = folder("accumulation");
    let whole = train(&folder, "whole", &["devices.precision=\"f64\""]);
    for (devices, mesh) in [("cpu", (1, 1)), ("cpu*2", (1, 2)), ("cpu*2", (2, 1)), ("cpu*4", (2, 2))] {
        for parts in [2, 3, 100] {
            let devices = format!("devices.use=\"{devices}\"");
            let mesh_set = format!("devices.mesh={{ data = {}, columns = {} }}", mesh.0, mesh.1);
            let accumulate = format!("train.accumulate={parts}");
            let run = format!("{}-{}-{parts}", mesh.0, mesh.1);
            let got = train(&folder, &run, &["devices.precision=\"f64\"", &devices, &mesh_set, &accumulate]);
            // Sums in another order, which twenty updates amplify.
            let difference = apart(&got, &whole);
            assert!(difference <= 1e-10, "{parts} parts on {mesh:?}: {difference:e}");
        }
    }
}

#[test]
fn parts_have_that_curve_on_emulated_devices() {
    let folder = folder("accumulation-emu");
    let whole = train(&folder, "whole", &[]);
    for (run, devices) in [("one", "emu"), ("four", "emu*4")] {
        let devices = format!("devices.use=\"{devices}\"");
        let mesh = if run == "one" { "devices.mesh={}" } else { "devices.mesh={ data = 2, columns = 2 }" };
        let got = train(&folder, run, &[&devices, mesh, "train.accumulate=3"]);
        let difference = apart(&got, &whole);
        assert!(difference <= 2e-5, "{devices}: {difference:e}");
    }
}

/// The parts of a batch need less memory, also where the network is evaluated.
#[test]
fn parts_save_memory_of_activations() {
    let folder = folder("accumulation-memory");
    let activations = |parts: &str| {
        let plan = folder.good(&["plan", "plain.toml", "--format", "json", "--set", parts]).out;
        let plan: serde_json::Value = serde_json::from_str(&plan).unwrap();
        plan["devices"][0]["activations_bytes"].as_f64().unwrap()
    };
    let (whole, parts) = (activations("train.accumulate=1"), activations("train.accumulate=4"));
    assert!(parts < 0.3 * whole, "{parts} of {whole} bytes");
}

#[test]
fn a_divided_run_resumes_bit_for_bit() {
    let folder = folder("accumulation-resume");
    for device in ["cpu", "emu"] {
        let device = format!("devices.use=\"{device}\"");
        let sets = [&device, "train.accumulate=3", "train.checkpoint.every=\"4 steps\""];
        let whole = train(&folder, "whole", &[&sets[..], &["train.steps=16"]].concat());
        train(&folder, "parts", &[&sets[..], &["train.steps=12"]].concat());
        let sets: Vec<&str> = sets.iter().flat_map(|set| ["--set", *set]).collect();
        let resume = ["train", "plain.toml", "--run-dir", "parts", "--resume", "--set", "train.steps=16"];
        folder.good(&[&resume[..], &sets].concat());
        assert_eq!(losses(&folder.metrics("parts")), whole);
        assert!(folder.checkpoint("parts", 16) == folder.checkpoint("whole", 16));
        for run in ["whole", "parts"] {
            std::fs::remove_dir_all(folder.at(run)).unwrap();
        }
    }
}

#[test]
fn what_is_not_finite_is_found_in_its_part() {
    let folder = folder("accumulation-nonfinite");
    for device in ["cpu", "emu"] {
        let device = format!("devices.use=\"{device}\"");
        let run = ["train", "plain.toml", "--run-dir", "run", "--set", &device, "--set", "train.accumulate=3"];
        let sets = ["--set", "optimizer.lr=1e30", "--set", "optimizer.chain=[]"];
        let output = folder.run(&[&run[..], &sets].concat());
        assert_code(&output, 1, &["the output of layer \"", "is not finite", "34 samples", "lower lr (now 1e30)"]);
        std::fs::remove_dir_all(folder.at("run")).unwrap();
    }
}

#[test]
fn the_number_of_parts_is_checked_and_is_part_of_what_is_learned() {
    let folder = folder("accumulation-check");
    let check = |sets: &[&str]| folder.run(&[&["check", "plain.toml"], sets].concat());
    let message = "[train]: accumulate = 101 divides a batch of 100 samples, expected at most 100";
    assert_code(&check(&["--set", "train.accumulate=101"]), 2, &[message]);
    assert_code(&check(&["--set", "train.accumulate=0"]), 2, &["accumulate = 0, expected at least 1"]);
    let with_norm = folder.run(&["check", "small.toml", "--set", "train.accumulate=4"]);
    assert!(
        (with_norm.out + &with_norm.err).contains("batch_norm (1 layer) normalises each part of a batch on its own")
    );
    let norm = |settings: &str| {
        let set = format!("model.layers.bn.batch_norm={settings}");
        folder.run(&["check", "small.toml", "--set", "train.accumulate=4", "--set", &set])
    };
    let fixed = norm("{ statistics = \"running\" }");
    assert_code(&fixed, 0, &[]);
    assert!(!(fixed.out + &fixed.err).contains("on its own"));
    let message = "accumulate = 4: layer \"bn\": cumulative = true is the mean over updates of one batch each";
    assert_code(&norm("{ cumulative = true }"), 2, &["[train]: ", message]);
    train(&folder, "run", &["train.steps=3"]);
    let resume = ["train", "plain.toml", "--run-dir", "run", "--resume", "--set", "train.accumulate=2"];
    assert_code(&folder.run(&resume), 2, &["train.accumulate: not set in the checkpoint, 2 now"]);
}
