//! Second-order methods, through the command: against PyTorch, on every mesh, resumed, and where they are refused.

use crate::common::file;
use crate::common::runs::Folder;
use peristyle::train::weights::{TensorData, open_model};
use serde_json::Value;

/// Returns a folder with the references of PyTorch.
fn folder(name: &str) -> Folder {
    let folder = Folder::new(name);
    std::os::unix::fs::symlink(file("tests/reference"), folder.at("reference")).unwrap();
    folder
}

/// Returns the losses of a run.
fn losses(folder: &Folder, dir: &str) -> Vec<f64> {
    let metrics = folder.metrics(dir);
    metrics.iter().filter(|event| event["event"] == "step").map(|event| event["loss"].as_f64().unwrap()).collect()
}

/// Trains the network of a reference from its weights, with more settings; returns the losses, and the last checkpoint.
fn train(folder: &Folder, name: &str, sets: &[&str]) -> (Vec<f64>, String) {
    let _ = std::fs::remove_dir_all(folder.at("run"));
    let from = format!(
        "model.from={{ file = {:?}, map = {{ \"init.*\" = \"*\" }} }}",
        folder.at(&format!("reference/{name}.safetensors"))
    );
    let config = format!("reference/{name}.toml");
    let more = sets.iter().flat_map(|set| ["--set", set]);
    let arguments: Vec<&str> = ["train", &config, "--run-dir", "run", "--set", &from].into_iter().chain(more).collect();
    folder.good(&arguments);
    let losses = losses(folder, "run");
    let last = format!("run/checkpoints/step-{:08}", losses.len());
    (losses, last)
}

fn numbers(name: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(file(&format!("tests/reference/{name}.json"))).unwrap()).unwrap()
}

/// Returns the largest relative difference between losses.
fn apart(ours: &[f64], theirs: &Value) -> f64 {
    let theirs = theirs.as_array().unwrap().iter().map(|loss| loss.as_f64().unwrap());
    ours.iter().zip(theirs).map(|(a, b)| ((a - b) / b).abs()).fold(0.0, f64::max)
}

const MESHES: [&str; 4] = ["{}", "{ data = 2 }", "{ columns = 2 }", "{ data = 2, columns = 2 }"];

#[test]
fn second_order_methods_agree_with_pytorch() {
    let folder = folder("second-order-pytorch");
    for name in ["lbfgs", "lbfgs_fixed", "newton"] {
        let numbers = numbers(name);
        let reference = open_model(&file(&format!("tests/reference/{name}.safetensors"))).unwrap();
        for (devices, mesh) in [1, 2, 2, 4].into_iter().zip(MESHES) {
            // Each of Newton's steps takes 652 products.
            if name == "newton" && devices == 2 {
                continue;
            }
            let sets = [
                "devices.precision=\"f64\"",
                &format!("devices.use=\"cpu*{devices}\""),
                &format!("devices.mesh={mesh}"),
            ];
            let (losses, last) = train(&folder, name, &sets);
            let (count, difference) = (losses.len(), apart(&losses, &numbers["f64_losses"]));
            println!("{name} on {mesh}: losses {difference:.1e}");
            assert_eq!(count, numbers["f64_losses"].as_array().unwrap().len());
            assert!(difference < 1e-9, "{name} on {mesh}: {difference:e}");
            let own = open_model(&folder.at(&last).join("model.safetensors")).unwrap();
            for tensor in ["fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"] {
                let values = |file: &peristyle::train::weights::TensorFile, name: &str| match file
                    .tensor(file.find(name).unwrap())
                    .unwrap()
                    .data
                {
                    TensorData::F64(values) => values,
                    TensorData::F32(_) => panic!("{name} is in f32"),
                };
                let (ours, theirs) = (values(&own, tensor), values(&reference, &format!("f64.final.{tensor}")));
                let largest = theirs.iter().fold(0.0f64, |most, x| most.max(x.abs()));
                let difference = ours.iter().zip(&theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max) / largest;
                assert!(difference < 1e-9, "{name} on {mesh}: {tensor} {difference:e}");
            }
        }
    }
}

#[test]
fn second_order_methods_in_single_precision_stay_as_near_as_pytorchs() {
    let folder = folder("second-order-single");
    for name in ["lbfgs", "lbfgs_fixed", "newton"] {
        let (losses, _) = train(&folder, name, &[]);
        let (difference, numbers) = (apart(&losses, &numbers(name)["f64_losses"]), numbers(name));
        let theirs = numbers["f32_drift"]["loss"].as_f64().unwrap();
        println!("{name}: {difference:.1e}, PyTorch's {theirs:.1e}");
        assert!(difference < 10.0 * theirs, "{name}: {difference:e}, PyTorch's {theirs:e}");
    }
}

/// `small.toml` with a method in place of the chain: a convolution, batch norm, dropout and random changes of the images.
fn small(folder: &Folder, method: &str) {
    let chain = "chain = [{ clip_by_global_norm = 5.0 }, { weight_decay = 5e-4 }, { momentum = 0.9 }]\nlr = 0.02";
    let text = crate::common::runs::SMALL.replace(chain, &format!("method = {method}\nlr = 1.0"));
    assert!(text.contains("method = "));
    folder.write("small.toml", &text);
}

#[test]
fn a_resumed_run_is_the_uninterrupted_one_bit_for_bit() {
    let folder = Folder::new("second-order-resume");
    for method in
        ["{ lbfgs = { history = 3, weight_decay = 1e-4 } }", "{ newton_cg = { iterations = 3, damping = 1.0 } }"]
    {
        small(&folder, method);
        for dir in ["whole", "parts"] {
            let _ = std::fs::remove_dir_all(folder.at(dir));
        }
        folder.train("whole", &["--set", "train.steps=10"]);
        folder.train("parts", &["--set", "train.steps=7"]);
        folder.train("parts", &["--resume", "--set", "train.steps=10"]);
        let (whole, parts) = (losses(&folder, "whole"), losses(&folder, "parts"));
        assert_eq!(whole, parts, "{method}");
        assert!(whole.iter().any(|loss| *loss < 0.95 * whole[0]), "{method}: {whole:?}");
        assert_eq!(folder.checkpoint("whole", 10), folder.checkpoint("parts", 10), "{method}");
        let [half, whole, parts] = [("parts", 7), ("whole", 10), ("parts", 10)].map(|(dir, step)| {
            let text = folder.read(&format!("{dir}/checkpoints/step-{step:08}/state.json"));
            serde_json::from_str::<Value>(&text).unwrap()["info"]["method"].clone()
        });
        assert_eq!(whole, parts);
        // The damping has changed before the interruption.
        assert_eq!(half["damping"].is_number() && half["damping"] != 1.0, method.contains("newton_cg"), "{half}");
    }
}

#[test]
fn a_batch_in_parts_makes_the_same_updates() {
    let folder = folder("second-order-parts");
    for name in ["lbfgs", "newton"] {
        let sets = ["devices.precision=\"f64\"", "train.steps=3", "devices.use=\"cpu*2\""];
        let (whole, _) = train(&folder, name, &sets);
        let (parts, _) = train(&folder, name, &[&sets[..], &["train.accumulate=3"]].concat());
        for (whole, parts) in whole.iter().zip(&parts) {
            assert!((whole - parts).abs() < 1e-12 * whole, "{name}: {whole} {parts}");
        }
    }
}

#[test]
fn weights_that_are_not_trained_stay_and_count_in_the_curvature() {
    let folder = folder("second-order-frozen");
    // Of a linear network whose first layer is frozen, the loss is quadratic in the second: one step reaches the minimum.
    let linear = "model.layers=[{ name = \"fc1\", dense = { units = 12 }, lr_mult = 0.0 }, { name = \"fc2\", dense = { units = 4 } }]";
    let sets = ["devices.precision=\"f64\"", "optimizer.method={ newton = {} }", "optimizer.lr=1.0", linear];
    let (losses, last) = train(&folder, "newton", &[&sets[..], &["train.steps=4"]].concat());
    assert!(losses[1] < 0.1 * losses[0], "{losses:?}");
    assert!((losses[3] - losses[1]).abs() < 1e-9 * losses[1], "{losses:?}");
    let reference = open_model(&file("tests/reference/newton.safetensors")).unwrap();
    let own = open_model(&folder.at(&last).join("model.safetensors")).unwrap();
    let values = |file: &peristyle::train::weights::TensorFile, name: &str| -> Vec<f64> {
        match file.tensor(file.find(name).unwrap()).unwrap().data {
            TensorData::F64(values) => values,
            TensorData::F32(values) => values.into_iter().map(f64::from).collect(),
        }
    };
    assert_eq!(values(&own, "fc1.weight"), values(&reference, "init.fc1.weight"));
    assert_ne!(values(&own, "fc2.weight"), values(&reference, "init.fc2.weight"));
}

#[test]
fn what_a_method_cannot_do_is_refused_with_a_sentence() {
    let folder = Folder::new("second-order-refused");
    small(&folder, "{ newton = {} }");
    folder.write("small.toml", &folder.read("small.toml").replace("units = 32", "units = 16"));
    for (sets, expected) in [
        (&["devices.use=\"emu\""][..], "method = \"newton\" runs on CPU devices, not on emu:0"),
        (&["train.ema=0.9"], "--set train.ema: [train]: ema needs a chain"),
        (&["optimizer.chain=[\"adam\"]"], "a method takes the place of the chain"),
        (&["optimizer.groups={ bias = { lr_mult = 2.0 } }"], "remove groups"),
        (&["optimizer.lr_by_depth=1.1"], "remove lr_by_depth"),
        (&["model.layers.fc2.lr_mult=2.0"], "but fc2.weight has lr_mult = 2, expected 1, or 0"),
        (&["model.layers.fc1.dense.units=64"], "newton trains at most 4000 weights, but the network has"),
        (&["optimizer.method={ newton = { line_search = \"backtracking\" } }"], "use curvature = \"absolute\""),
        (&["optimizer.method={ lbfgs = { history = 0 } }"], "history = 0, expected at least 1"),
        (&["optimizer.method={ lbgfs = {} }"], "unknown method \"lbgfs\" (did you mean \"lbfgs\"?)"),
    ] {
        let arguments: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).collect();
        let output = folder.run(&[&["check", "small.toml"], &arguments[..]].concat());
        assert_eq!(output.code, Some(2), "{sets:?}: {}", output.out);
        assert!(output.err.contains(expected), "{sets:?}: {}", output.err);
    }
    // An empty chain, as --defaults writes it, is none.
    folder.good(&["check", "small.toml", "--set", "optimizer.chain=[]", "--set", "optimizer.method=lbfgs"]);
}

#[test]
fn a_batch_that_is_not_finite_is_skipped_or_explained() {
    let folder = folder("second-order-nonfinite");
    let far = "model.init={ constant = { value = 1e30 } }";
    let arguments = ["train", "small.toml", "--run-dir", "run", "--set", far, "--set", "train.steps=2"];
    small(&folder, "{ lbfgs = {} }");
    let output = folder.run(&arguments);
    assert_eq!(output.code, Some(1), "{}", output.err);
    assert!(output.err.contains("step 1: ") && output.err.contains("not finite"), "{}", output.err);
}
