//! Settings that do not fit the run: counts and rates that overflow, layers that are frozen, sweeps through 0.

use crate::common::runs::{CommandOutput, Folder, events, losses};

const DENSE: &str = r#"seed = 1
[data]
train = { synthetic = { images = 12, classes = 3, shape = [4, 4, 1] } }
batch = 4
[model]
input = [4, 4, 1]
layers = [{ name = "fc1", dense = { units = 8 } }, { name = "bn", batch_norm = {} }, "relu", { name = "fc2", dense = { units = 3 } }]
[optimizer]
lr = 0.1
chain = [{ weight_decay = 0.01 }, { momentum = 0.9 }]
[train]
epochs = 3
"#;

fn folder(name: &str) -> Folder {
    let folder = Folder::new(&format!("ranges-{name}"));
    folder.write("dense.toml", DENSE);
    folder
}

/// Runs a command on the configuration with settings.
fn run(folder: &Folder, command: &[&str], sets: &[&str]) -> CommandOutput {
    let sets = sets.iter().flat_map(|set| ["--set", set]);
    folder.run(&command.iter().copied().chain(sets).collect::<Vec<_>>())
}

#[test]
fn what_overflows_within_the_run_is_refused_by_check_and_train_alike() {
    let folder = folder("overflow");
    for (sets, message) in [
        (
            &["train.epochs=6148914691236517206"][..],
            "6148914691236517206 epochs of 3 batches are more than 2^64 updates",
        ),
        (
            &["optimizer.schedule={ step = { every = 1, factor = 1e9 } }"],
            "the schedule makes the learning rate 1.0e71 at step 9, which is infinite in single precision",
        ),
        (
            &["optimizer.schedule={ step = { every = \"1 epoch\", factor = 1e18 } }", "model.layers.fc1.lr_mult=1e4"],
            "the schedule makes the learning rate 1.0e39 at step 9 for a layer with lr_mult = 10000",
        ),
        (&["optimizer.lr=1e39"], "lr = 1e39, expected a number above 0 that is neither 0 nor infinite"),
    ] {
        for command in [&["check", "dense.toml"][..], &["train", "dense.toml", "--run-dir", "run"]] {
            let output = run(&folder, command, sets);
            assert_eq!(output.code, Some(2), "{sets:?}: {}", output.err);
            assert!(output.err.contains(message), "{sets:?}: {}", output.err);
        }
    }
    assert!(!folder.at("run").exists());
    // A rate that falls to 0 is a note: long schedules of this kind are common.
    let output =
        run(&folder, &["check", "dense.toml"], &["optimizer.schedule={ step = { every = 1, factor = 1e-9 } }"]);
    assert_eq!(output.code, Some(0), "{}", output.err);
    assert!(output.err.contains("makes the learning rate 0 in single precision"), "{}", output.err);
    assert_eq!(run(&folder, &["check", "dense.toml"], &["train.steps=18446744073709551615"]).code, Some(0));
}

#[test]
fn a_sweep_may_pass_through_zero() {
    let folder = folder("zero");
    let train = |dir: &str, sets: &[&str]| {
        let output = run(&folder, &["train", "dense.toml", "--run-dir", dir], sets);
        assert_eq!(output.code, Some(0), "{}", output.err);
        losses(&folder.metrics(dir))
    };
    let zero = train("zero", &["optimizer.chain.momentum=0.0", "optimizer.chain.weight_decay=0.0"]);
    let none = train("none", &["optimizer.chain=[]"]);
    let table = train("table", &["optimizer.chain=[{ momentum = { mu = 0, nesterov = true } }]"]);
    assert!(zero == none && table == none, "{zero:?} {none:?} {table:?}");
    assert_ne!(zero, train("both", &[]));
}

/// Returns the tensors of a checkpoint's model.
fn model(folder: &Folder, dir: &str, step: u64) -> std::collections::BTreeMap<String, Vec<f32>> {
    let bytes = folder.checkpoint(dir, step)[0].clone();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let values = |data: &[u8]| data.chunks_exact(4).map(|x| f32::from_le_bytes(x.try_into().unwrap())).collect();
    tensors.iter().map(|(name, tensor)| (name.to_string(), values(tensor.data()))).collect()
}

#[test]
fn frozen_layers_stay_and_do_not_count_in_the_norm() {
    let folder = folder("frozen");
    let keep = "train.checkpoint={ every = \"1 step\", keep = 9 }";
    let sets = ["model.layers.fc1.lr_mult=0", "model.layers.bn.lr_mult=0", "train.steps=3", keep];
    for devices in ["cpu", "cpu*2", "emu"] {
        let devices = format!("devices.use={devices:?}");
        let chain = "optimizer.chain=[{ clip_by_global_norm = 1e-2 }]";
        let sets = [&sets[..], &[chain, &devices]].concat();
        let dir = devices.replace(['"', '*', '='], "");
        let output = run(&folder, &["train", "dense.toml", "--run-dir", &dir], &sets);
        assert_eq!(output.code, Some(0), "{}", output.err);
        for step in [1, 2] {
            let (before, after) = (model(&folder, &dir, step), model(&folder, &dir, step + 1));
            let mut moved = 0.0;
            for (name, old) in &before {
                if name.starts_with("fc2") {
                    moved += old.iter().zip(&after[name]).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>();
                } else {
                    assert_eq!(old, &after[name], "{name} is frozen");
                }
            }
            // The whole clipped norm is that of fc2: lr * 1e-2.
            assert!((moved.sqrt() - 1e-3).abs() < 1e-6, "{devices}, step {step}: {}", moved.sqrt());
        }
    }
}

#[test]
fn factors_can_be_given_by_parameter() {
    let folder = folder("by-parameter");
    let keep = "train.checkpoint={ every = \"1 step\", keep = 9 }";
    let train = |dir: &str, sets: &[&str]| {
        let sets = [&["train.steps=2", "optimizer.chain=[]", keep], sets].concat();
        let output = run(&folder, &["train", "dense.toml", "--run-dir", dir], &sets);
        assert_eq!(output.code, Some(0), "{}", output.err);
        let (before, after) = (model(&folder, dir, 1), model(&folder, dir, 2));
        (before, after)
    };
    let (before, after) = train("run", &["model.layers.fc2.lr_mult={ bias = 0.0 }"]);
    assert_eq!(before["fc2.bias"], after["fc2.bias"]);
    assert_ne!(before["fc2.weight"], after["fc2.weight"]);
    assert_ne!(before["fc1.bias"], after["fc1.bias"]);
}

#[test]
fn batch_normalisation_of_one_value_is_reported_and_keeps_its_statistics() {
    let folder = folder("one-value");
    let sets = ["data.train.synthetic.images=13", "train.steps=4", "train.checkpoint={ every = \"1 step\", keep = 9 }"];
    for devices in ["cpu", "cpu*3", "emu"] {
        let devices = format!("devices.use={devices:?}");
        let dir = devices.replace(['"', '*', '='], "");
        let output = run(&folder, &["train", "dense.toml", "--run-dir", &dir], &[&sets[..], &[&devices]].concat());
        assert_eq!(output.code, Some(0), "{}", output.err);
        let note = "the last batch of each epoch, which has 1 sample of 13, gives bn one value per channel";
        assert!(output.err.contains(note), "{}", output.err);
        let (before, after) = (model(&folder, &dir, 3), model(&folder, &dir, 4));
        assert_eq!(before["bn.running_var"], after["bn.running_var"]);
        assert_eq!(before["bn.running_mean"], after["bn.running_mean"]);
        assert_ne!(model(&folder, &dir, 2)["bn.running_var"], before["bn.running_var"]);
    }
    let output = run(&folder, &["check", "dense.toml"], &["data.batch=1"]);
    assert!(output.err.contains("a batch of 1 sample gives bn one value per channel"), "{}", output.err);
}

/// Statistics with `cumulative` are the means of those of the batches, which `momentum = 1` keeps, also after a resume. The layer before
/// is frozen.
#[test]
fn cumulative_statistics_are_means_over_all_batches() {
    let folder = folder("cumulative");
    for (name, devices, mesh) in [("one", "cpu", "[1, 1]"), ("two", "cpu*2", "[2, 1]"), ("emu", "emu", "[1, 1]")] {
        let (devices, mesh) = (format!("devices.use={devices:?}"), format!("devices.mesh={mesh}"));
        let train = |kind: &str, steps: &str, settings: &str, more: &[&str]| {
            let (dir, layer) = (format!("{name}-{kind}"), format!("model.layers.bn.batch_norm={settings}"));
            let keep = "train.checkpoint={ every = \"1 step\", keep = 9 }";
            let sets = [&devices, &mesh, &layer, steps, keep, "model.layers.fc1.lr_mult=0"];
            let output = run(&folder, &[&["train", "dense.toml", "--run-dir", &dir], more].concat(), &sets);
            assert_eq!(output.code, Some(0), "{}", output.err);
            dir
        };
        let last = train("last", "train.steps=3", "{ momentum = 1.0 }", &[]);
        train("all", "train.steps=2", "{ cumulative = true }", &[]);
        let all = train("all", "train.steps=3", "{ cumulative = true }", &["--resume"]);
        for key in ["bn.running_mean", "bn.running_var"] {
            let batches = [1, 2, 3].map(|step| model(&folder, &last, step)[key].clone());
            for (i, &value) in model(&folder, &all, 3)[key].iter().enumerate() {
                let mean = batches.iter().map(|batch| batch[i]).sum::<f32>() / 3.0;
                assert!(
                    (value - mean).abs() < 1e-5 * (1.0 + mean.abs()),
                    "{name}: {key}[{i}]: {value}, expected {mean}"
                );
            }
            assert_ne!(batches[0], batches[2]);
        }
    }
}

#[test]
fn label_smoothing_is_part_of_the_training_loss_only() {
    let folder = folder("smoothing");
    folder.write(
        "dense.toml",
        &DENSE
            .replace("batch = 4", "batch = 4\ntest = { synthetic = { images = 12, classes = 3, shape = [4, 4, 1] } }"),
    );
    let loss = |dir: &str, devices: &str, smoothing: f64| {
        let smoothing = format!("model.loss={{ softmax_cross_entropy = {{ label_smoothing = {smoothing} }} }}");
        // The rate is too small to change a weight: the evaluations are of the same network.
        let sets = [&smoothing, "optimizer.lr=1e-30", "train.steps=1", &format!("devices.use={devices:?}")];
        let output = run(&folder, &["train", "dense.toml", "--run-dir", dir], &sets);
        assert_eq!(output.code, Some(0), "{}", output.err);
        let metrics = folder.metrics(dir);
        (losses(&metrics)[0], events(&metrics, "eval")[0]["loss"].as_f64().unwrap())
    };
    for devices in ["cpu", "emu"] {
        let (plain, smooth) =
            (loss(&format!("{devices}-a"), devices, 0.0), loss(&format!("{devices}-b"), devices, 0.2));
        assert!(plain.0 != smooth.0 && plain.1 == smooth.1, "{devices}: {plain:?} {smooth:?}");
    }
}
