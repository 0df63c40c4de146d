//! Reparametrised weights in networks: where they start, and one curve on every mesh.

use crate::common::runs::{Folder, losses};
use crate::common::{Training, on_mesh};

const NORMALIZED: [&str; 3] = [
    "model.layers.conv.conv.reparam={ weight_norm = {} }",
    "model.layers.fc1.dense.reparam={ weight_norm = {} }",
    "model.layers.fc2.dense.reparam={ weight_norm = { gain = 0.5 } }",
];

fn curve(folder: &Folder, sets: &[String], updates: usize) -> Vec<f64> {
    Training::new(folder.at("small.toml").to_str().unwrap(), sets).losses(updates)
}

fn owned(sets: &[&str]) -> Vec<String> {
    sets.iter().map(|set| set.to_string()).collect()
}

fn apart(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b).abs() / b.abs()).fold(0.0, f64::max)
}

#[test]
fn normalised_weights_have_one_curve_on_every_mesh() {
    let folder = Folder::new("weight-norm-meshes");
    let double = owned(&["devices.precision=\"f64\""]);
    let one = curve(&folder, &[owned(&NORMALIZED), double.clone(), on_mesh((1, 1))].concat(), 6);
    let plain = curve(&folder, &[double.clone(), on_mesh((1, 1))].concat(), 6);
    assert!(one.last() < one.first() && apart(&one, &plain) > 1e-3, "{one:?} {plain:?}");
    for mesh in [(2, 1), (1, 2), (2, 2), (1, 4)] {
        for split in ["columns", "rows", "batch", "none"] {
            let fc1 = format!("model.layers.fc1.split={split:?}");
            let more = [owned(&NORMALIZED), double.clone(), on_mesh(mesh), vec![fc1]].concat();
            let apart = apart(&curve(&folder, &more, 6), &one);
            assert!(apart < 1e-10, "{mesh:?}, {split}: {apart:e}");
        }
    }
}

#[test]
fn emulated_gpus_have_the_curve_of_the_cpu() {
    let folder = Folder::new("weight-norm-emu");
    let one = curve(&folder, &[owned(&NORMALIZED), on_mesh((1, 1))].concat(), 4);
    for (precision, bound) in [("f32", 1e-5), ("bf16", 2e-2)] {
        let devices = ["devices.use=\"emu*2\"", "devices.mesh={ columns = 2 }", "model.layers.fc1.split=rows"];
        let precision = format!("devices.precision={precision:?}");
        let emulated = curve(&folder, &[owned(&NORMALIZED), owned(&devices), vec![precision.clone()]].concat(), 4);
        assert!(apart(&emulated, &one) < bound, "{precision}: {emulated:?} {one:?}");
    }
}

#[test]
fn the_weight_starts_as_it_would_without_norms() {
    let folder = Folder::new("weight-norm-start");
    let double = "devices.precision=\"f64\"";
    // The parameters of the layers before it are the same.
    let normalized = curve(&folder, &owned(&[double, "model.layers.fc2.dense.reparam={ weight_norm = {} }"]), 2);
    let plain = curve(&folder, &owned(&[double]), 2);
    assert!(
        (normalized[0] - plain[0]).abs() < 1e-12 && (normalized[1] - plain[1]).abs() > 1e-9,
        "{normalized:?} {plain:?}"
    );
}

#[test]
fn lsuv_scales_the_gains() {
    let folder = Folder::new("weight-norm-lsuv");
    let sets = [&NORMALIZED[..], &["model.init=lsuv", "train.steps=1"]].concat();
    folder.train("run", &sets.iter().flat_map(|set| ["--set", set]).collect::<Vec<_>>());
    let first = losses(&folder.metrics("run"))[0];
    // Ten independent logits of unit variance.
    assert!((first - 2.7).abs() < 0.3, "{first}");
}

#[test]
fn a_run_resumes_and_exports_its_norms() {
    let folder = Folder::new("weight-norm-resume");
    let sets: Vec<&str> = NORMALIZED.iter().flat_map(|set| ["--set", set]).collect();
    folder.train("whole", &[&sets[..], &["--set", "train.steps=6"]].concat());
    folder.train("parts", &[&sets[..], &["--set", "train.steps=3"]].concat());
    folder.good(
        &["train", "small.toml", "--run-dir", "parts", "--resume", "--set", "train.steps=6"]
            .iter()
            .copied()
            .chain(sets.iter().copied())
            .collect::<Vec<_>>(),
    );
    let steps = |dir: &str| losses(&folder.metrics(dir));
    assert_eq!(steps("parts"), steps("whole"));
    folder.good(&["ckpt", "export", "whole", "whole.safetensors"]);
    let file = peristyle::train::weights::open_model(&folder.at("whole.safetensors")).unwrap();
    for name in ["conv.weight_v", "conv.weight_g", "fc1.weight_v", "fc1.weight_g", "fc1.bias", "fc2.weight_g"] {
        assert!(file.find(name).is_some(), "{name}");
    }
}
