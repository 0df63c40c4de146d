//! Losses, gradients and weights that are not finite: nothing of them counts as right, is saved or passes without a word.

use crate::common::runs::{CommandOutput, Folder, events, losses};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use std::collections::HashMap;

/// Three dense layers on 12 images of 4x4, 6 in a batch.
const DENSE: &str = r#"seed = 1
[data]
train = { synthetic = { images = 12, classes = 3, shape = [4, 4, 1] } }
test = { synthetic = { images = 12, classes = 3, shape = [4, 4, 1] } }
batch = 6
[model]
input = [4, 4, 1]
layers = ["flatten", { dense = { units = 16 } }, "relu", { dense = { units = 16 } }, "relu", { name = "fc", dense = { units = 3 } }]
[optimizer]
lr = 0.1
chain = [{ momentum = 0.9 }]
[train]
steps = 5
evaluate = "1 step"
checkpoint = { every = "1 step", keep = 1 }
"#;

/// The same network on files: 12 images, of which number 7 holds a large value.
fn with_a_large_pixel(folder: &Folder, value: f32) -> String {
    let mut pixels: Vec<f32> = (0..12 * 16).map(|i| (i * 37 % 100) as f32 / 100.0).collect();
    pixels[7 * 16 + 5] = value;
    let pixels: Vec<u8> = pixels.iter().flat_map(|x| x.to_le_bytes()).collect();
    let labels: Vec<u8> = (0..12i64).flat_map(|i| (i % 3).to_le_bytes()).collect();
    let tensors = HashMap::from([
        ("images", TensorView::new(Dtype::F32, vec![12, 1, 4, 4], &pixels).unwrap()),
        ("labels", TensorView::new(Dtype::I64, vec![12], &labels).unwrap()),
    ]);
    std::fs::write(folder.at("large.safetensors"), safetensors::serialize(tensors, None).unwrap()).unwrap();
    let source = DENSE.lines().find(|line| line.starts_with("train =")).unwrap();
    let text = DENSE.replace(source, "train = { tensors = \"large.safetensors\" }\nnormalize = \"none\"");
    text.lines()
        .filter(|line| !line.starts_with("test =") && !line.starts_with("evaluate ="))
        .collect::<Vec<_>>()
        .join("\n")
}

fn folder(name: &str) -> Folder {
    let folder = Folder::new(&format!("nonfinite-{name}"));
    folder.write("dense.toml", DENSE);
    folder
}

fn train(folder: &Folder, dir: &str, more: &[&str]) -> CommandOutput {
    folder.run(&[&["train", "dense.toml", "--run-dir", dir], more].concat())
}

fn assert_fails(output: &CommandOutput, parts: &[&str]) {
    assert_eq!(output.code, Some(1), "{}", output.err);
    for part in parts {
        assert!(output.err.contains(part), "no {part:?} in {}", output.err);
    }
}

/// Returns the names of the checkpoints of a run.
fn checkpoints(folder: &Folder, dir: &str) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder.at(dir).join("checkpoints")) else { return Vec::new() };
    let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn logits_that_are_not_finite_are_never_right_on_any_device() {
    let folder = folder("logits");
    for (dir, devices) in [("one", "cpu"), ("two", "cpu*2"), ("gpu", "emu"), ("gpus", "emu*2")] {
        // One update leaves finite weights whose outputs overflow.
        let sets = ["--set", "optimizer.lr=1e20", "--set", "train.steps=1", "--devices", devices];
        let output = train(&folder, dir, &sets);
        let what = "the test loss after step 1 is not finite: the output of layer \"";
        assert_fails(&output, &[what, "is not finite for all 6 samples", "lower lr (now 1e20)"]);
        assert!(checkpoints(&folder, dir).is_empty(), "{devices}: {:?}", checkpoints(&folder, dir));
        let evaluations = events(&folder.metrics(dir), "eval");
        assert!(evaluations[0]["loss"].is_null() && evaluations[0]["top1"] == 0.0, "{devices}: {evaluations:?}");
        assert_eq!(events(&folder.metrics(dir), "end")[0]["reason"], "failed");
    }
}

#[test]
fn a_resumed_run_that_diverges_keeps_its_good_checkpoint() {
    let folder = folder("diverges");
    assert_eq!(train(&folder, "run", &["--set", "train.steps=3"]).code, Some(0));
    assert_eq!(checkpoints(&folder, "run"), ["step-00000003"], "keep = 1");
    for lr in ["1e20", "1e36", "3e38"] {
        // The weights after step 4 are finite, but nothing can be computed from them.
        let set = format!("optimizer.lr={lr}");
        let change = ["--resume", "--set", &set, "--allow-change", "optimizer.lr", "--set", "train.evaluate=\"never\""];
        let output = train(&folder, "run", &[&change[..], &["--set", "train.steps=9"]].concat());
        let remove = "then remove checkpoints/step-00000004, whose weights are too large already, and resume";
        assert_fails(&output, &["step 5: ", "is not finite", "lower lr", "{ clip_by_global_norm = 1.0 }", remove]);
        assert_eq!(checkpoints(&folder, "run"), ["step-00000003", "step-00000004"]);
        std::fs::remove_dir_all(folder.at("run/checkpoints/step-00000004")).unwrap();
    }
    assert_eq!(train(&folder, "run", &["--resume", "--set", "train.steps=9"]).code, Some(0));
    assert_eq!(checkpoints(&folder, "run"), ["step-00000009"]);
}

#[test]
fn weights_that_overflow_in_an_update_are_never_saved() {
    let folder = folder("overflow");
    folder.write("dense.toml", &with_a_large_pixel(&folder, 9e3));
    for (dir, devices) in [("one", "cpu"), ("two", "cpu*2"), ("gpu", "emu*2")] {
        let sets = ["--set", "optimizer.lr=3e38", "--set", "train.steps=1", "--devices", devices];
        let output = train(&folder, dir, &sets);
        assert_fails(&output, &["step 1: the update made \"dense1.weight\" not finite; lower lr"]);
        assert!(checkpoints(&folder, dir).is_empty(), "{devices}: {:?}", checkpoints(&folder, dir));
    }
}

#[test]
fn a_pixel_that_overflows_is_named_with_its_sample() {
    let folder = folder("pixel");
    for (dir, value, devices) in [("a", 1e30f32, "cpu"), ("b", 3e38, "cpu*3"), ("c", 1e30, "emu*2")] {
        folder.write("dense.toml", &with_a_large_pixel(&folder, value));
        let output = train(&folder, dir, &["--set", "train.steps=2", "--devices", devices]);
        assert_fails(&output, &["step ", "sample 7 of large.safetensors has the value ", "is not finite"]);
        assert!(!output.err.contains("lower lr"), "{}", output.err);
        assert!(losses(&folder.metrics(dir)).len() < 2);
    }
}

#[test]
fn a_gradient_that_overflows_in_the_last_bucket_stops_the_run() {
    // Zero images and biases give zero outputs, a loss of ln 3, and gradients that grow by the weights of two layers on the
    // way down to dense1: those of the weights of dense2 and fc, which fill the first bucket, are finite.
    let folder = folder("bucket");
    let zeros = vec![0u8; 12 * 16 * 4];
    let labels: Vec<u8> = (0..12i64).flat_map(|i| (i % 3).to_le_bytes()).collect();
    let images = TensorView::new(Dtype::F32, vec![12, 1, 4, 4], &zeros).unwrap();
    let labels = TensorView::new(Dtype::I64, vec![12], &labels).unwrap();
    let data = HashMap::from([("images", images), ("labels", labels)]);
    std::fs::write(folder.at("zeros.safetensors"), safetensors::serialize(data, None).unwrap()).unwrap();
    let weights = [("dense1", 1024, 16, 1.0f32), ("dense2", 1024, 1024, 1e20), ("fc", 3, 1024, 1e20)];
    let values: Vec<_> = weights
        .iter()
        .flat_map(|&(layer, units, inputs, value)| {
            let fill =
                |n: usize, value: f32| (0..n).flat_map(|i| (value * (1 - i as i32 % 3) as f32).to_le_bytes()).collect();
            let weight: Vec<u8> = fill(units * inputs, value);
            let bias: Vec<u8> = fill(units, 0.0);
            [(format!("{layer}.weight"), vec![units, inputs], weight), (format!("{layer}.bias"), vec![units], bias)]
        })
        .collect();
    let views = values.iter().map(|(name, shape, v)| (name, TensorView::new(Dtype::F32, shape.clone(), v).unwrap()));
    std::fs::write(folder.at("large.safetensors"), safetensors::serialize(views, None).unwrap()).unwrap();
    let source = DENSE.lines().find(|line| line.starts_with("train =")).unwrap();
    let text = DENSE.replace(source, "train = { tensors = \"zeros.safetensors\" }\nnormalize = \"none\"");
    let text = text.replace("units = 16", "units = 1024").replace("relu", "tanh");
    let text: Vec<&str> =
        text.lines().filter(|line| !line.starts_with("test =") && !line.starts_with("evaluate =")).collect();
    folder.write("dense.toml", &text.join("\n").replace("[model]", "[model]\nfrom = \"large.safetensors\""));
    for (dir, devices) in [("cpu", "cpu"), ("gpu", "emu"), ("gpus", "emu*2")] {
        let output = train(&folder, dir, &["--devices", devices]);
        assert_fails(&output, &["step 1: the gradient of layer \"dense2\" is not finite for all 6 samples"]);
        assert!(checkpoints(&folder, dir).is_empty(), "{devices}: {:?}", checkpoints(&folder, dir));
    }
}

#[test]
fn decay_that_grows_weights_is_blamed_before_the_rate() {
    let folder = folder("decay");
    let chain = "optimizer.chain=[{ clip_by_global_norm = 1.0 }, { weight_decay = 1e20 }]";
    let output = train(&folder, "run", &["--set", chain, "--set", "train.evaluate=\"never\""]);
    assert_fails(&output, &["lr * weight_decay is 1", "lower weight_decay or lr (now 0.1)"]);
    assert!(!output.err.contains("first in the chain"), "{}", output.err);
}

#[test]
fn weights_of_a_file_that_overflow_are_blamed_on_the_file() {
    let folder = folder("weights");
    assert_eq!(train(&folder, "good", &[]).code, Some(0));
    let good = std::fs::read(folder.at("good/checkpoints/step-00000005/model.safetensors")).unwrap();
    let good = SafeTensors::deserialize(&good).unwrap();
    // Every value is finite, and so is the first layer's output.
    let scaled = |(name, tensor): (String, TensorView)| {
        let values = tensor.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        let values: Vec<u8> = values.flat_map(|v| (v * 1e25).to_le_bytes()).collect();
        (name, tensor.shape().to_vec(), values)
    };
    let scaled: Vec<_> = good.tensors().into_iter().map(scaled).collect();
    let views = scaled.iter().map(|(name, shape, v)| (name, TensorView::new(Dtype::F32, shape.clone(), v).unwrap()));
    std::fs::write(folder.at("big.safetensors"), safetensors::serialize(views, None).unwrap()).unwrap();
    for (dir, devices) in [("cpu", "cpu"), ("gpus", "emu*2")] {
        let output = train(&folder, dir, &["--set", "model.from=\"big.safetensors\"", "--devices", devices]);
        let blamed = "big.safetensors are too large for this network: start from other weights";
        assert_fails(&output, &["step 1: the output of layer \"dense2\" is not finite for all 6 samples", blamed]);
        assert!(checkpoints(&folder, dir).is_empty());
    }
}

#[test]
fn a_bad_sample_can_be_skipped() {
    let folder = folder("skip");
    // With such weights, the large pixel overflows at once.
    let text = with_a_large_pixel(&folder, 3e38);
    folder
        .write("dense.toml", &text.replacen("units = 16 } }", "units = 16 }, init = { normal = { std = 10.0 } } }", 1));
    let sets = ["--set", "train.on_nonfinite=\"skip\"", "--set", "train.steps=8", "--set", "optimizer.lr=1e-3"];
    let skipped = |dir: &str, more: &[&str]| {
        let output = train(&folder, dir, &[&sets[..], more].concat());
        assert_eq!(output.code, Some(0), "{}", output.err);
        let steps = events(&folder.metrics(dir), "step");
        assert_eq!(steps.len(), 8);
        steps.iter().filter(|step| step["skipped"] == true).map(|step| step["step"].as_u64().unwrap()).collect()
    };
    // One of the two batches of each epoch has the sample.
    let expected: Vec<u64> = skipped("one", &[]);
    assert_eq!(expected.len(), 4, "{expected:?}");
    for (dir, devices) in [("two", "cpu*2"), ("gpu", "emu"), ("gpus", "emu*2")] {
        assert_eq!(skipped(dir, &["--devices", devices]), expected, "{devices}");
    }
    // A skipped step leaves the weights as they were.
    let keep = ["--set", "train.checkpoint={ every = \"1 step\", keep = 9 }"];
    skipped("all", &keep);
    for step in 2..=8 {
        let same = folder.checkpoint("all", step) == folder.checkpoint("all", step - 1);
        assert_eq!(same, expected.contains(&step), "step {step}");
    }
    let more = ["--set", "data.batch=12", "--set", "train.max_skips=3"];
    let output = train(&folder, "most", &[&sets[..], &more].concat());
    assert_fails(&output, &["step 4: ", "sample 7 of large.safetensors"]);
}

#[test]
fn skipping_needs_a_limit_that_makes_sense() {
    let folder = folder("limits");
    for (set, message) in [
        ("train.on_nonfinite=\"ignore\"", "on_nonfinite = \"ignore\", expected \"stop\" or \"skip\""),
        ("train.max_skips=3", "max_skips has no effect without on_nonfinite = \"skip\""),
    ] {
        let output = folder.run(&["check", "dense.toml", "--set", set]);
        assert_eq!(output.code, Some(2), "{}", output.err);
        assert!(output.err.contains(message), "{}", output.err);
    }
}
