//! Initial values in networks: the first loss, the last layer, and outputs of unit variance.

use crate::common::runs::{Folder, losses};
use crate::common::{file, on_mesh};
use peristyle::network;

fn init_of(config: &str, sets: &[&str], parameter: &str) -> String {
    let sets: Vec<String> = sets.iter().map(|set| set.to_string()).collect();
    let (_, network) = network::open(&file(config), &sets).unwrap_or_else(|error| panic!("{error}"));
    let found = network.parameters.iter().find(|found| found.name == parameter).unwrap();
    format!("{:?}", found.init.0)
}

#[test]
fn the_last_layer_starts_small_unless_the_file_says_otherwise() {
    let digits = "tests/reference/mlp.toml";
    let small = init_of(digits, &[], "fc3.weight");
    assert!(small.contains("gain: 0.1") && init_of(digits, &[], "fc2.weight").contains("gain: 1.0"), "{small}");
    assert!(init_of(digits, &["model.init=kaiming"], "fc3.weight").contains("gain: 1.0"));
    assert!(init_of(digits, &["model.layers.fc3.init=xavier"], "fc3.weight").starts_with("Xavier"));
    assert!(init_of(digits, &["model.layers.fc2.init=xavier"], "fc3.weight").contains("gain: 0.1"));
    // The losses of auxiliary heads have last layers of their own.
    for layer in ["fc3.weight", "side.weight", "low.weight"] {
        assert!(init_of("tests/reference/heads.toml", &[], layer).contains("gain: 0.1"), "{layer}");
    }
    assert!(init_of("tests/reference/heads.toml", &[], "fc2.weight").contains("gain: 1.0"));
    // The last layer is above a pool, which has no parameters.
    let pooled =
        "model.layers=[{ name = \"conv\", conv = { filters = 10, kernel = 3 } }, \"global_avg_pool\", \"flatten\"]";
    assert!(init_of(digits, &[pooled], "conv.weight").contains("gain: 0.1"));
}

#[test]
fn the_first_loss_is_about_that_of_a_guess() {
    let folder = Folder::new("first-loss");
    for seed in [1, 2, 3] {
        let (dir, seed) = (format!("run-{seed}"), format!("seed={seed}"));
        folder.train(&dir, &["--set", &seed, "--set", "train.steps=1"]);
        let first = losses(&folder.metrics(&dir))[0];
        assert!((first - 10f64.ln()).abs() < 0.1, "{first}");
    }
}

#[test]
fn lsuv_gives_every_layer_unit_variance_on_every_mesh() {
    let folder = Folder::new("lsuv");
    let sets = ["--set", "model.init=lsuv", "--set", "train.steps=3"];
    let mut curves = Vec::new();
    for mesh in [(1, 1), (2, 2)] {
        let dir = format!("mesh-{}", mesh.0);
        let devices: Vec<String> = on_mesh(mesh).into_iter().flat_map(|set| ["--set".to_string(), set]).collect();
        let devices: Vec<&str> = devices.iter().map(String::as_str).collect();
        folder.train(&dir, &[&sets[..], &devices].concat());
        curves.push(losses(&folder.metrics(&dir)));
    }
    let apart = curves[0].iter().zip(&curves[1]).map(|(a, b)| (a - b).abs() / a).fold(0.0, f64::max);
    assert!(apart < 1e-5, "{curves:?}");
    // Ten independent logits of unit variance: E[ln(sum of e^x)] is about ln(10) + 1/2 - 1/20 (e - 1).
    assert!((curves[0][0] - 2.7).abs() < 0.3, "{curves:?}");
    let zeros = ["--set", "model.init=lsuv", "--set", "model.layers.fc1.init=zeros"];
    let failed = folder.run(&[&["train", "small.toml", "--run-dir", "zeros"], &zeros[..]].concat());
    let expected =
        "init = \"lsuv\" in layer \"fc2\": the first batch gives it outputs of variance 0; use another init there";
    assert!(failed.code == Some(1) && failed.err.contains(expected), "{}", failed.err);
}

#[test]
fn lsuv_scales_a_new_head_to_the_weights_that_it_stands_on() {
    let folder = Folder::new("lsuv-from");
    // Weights whose outputs are hundreds of times larger than those of initial ones.
    let large = ["--set", "model.layers.fc1.init={ normal = { std = 50.0 } }", "--set", "optimizer.lr=1e-9"];
    folder.train("large", &[&large[..], &["--set", "train.steps=1"]].concat());
    let from = ["--set", "model.from={ file = \"large\", skip = [\"fc2\"] }", "--set", "model.init=lsuv"];
    folder.train("new", &[&from[..], &["--set", "optimizer.lr=1e-9", "--set", "train.steps=1"]].concat());
    let first = losses(&folder.metrics("new"))[0];
    assert!((first - 2.7).abs() < 0.3, "{first}");
}
