//! `train.ema`: averages of the weights, evaluated and exported beside them.

use crate::common::runs::{Folder, assert_code, events};
use peristyle::train::weights::{TensorData, TensorFile, open_model};

const DECAY: f64 = 0.75;
/// The small network without momentum, so that a checkpoint after every update shows all weights.
const SETS: [&str; 6] =
    ["--set", "train.ema=0.75", "--set", "train.checkpoint.every=1", "--set", "devices.precision=\"f64\""];

fn values(file: &TensorFile, name: &str) -> Vec<f64> {
    match file.tensor(file.find(name).unwrap_or_else(|| panic!("no {name}"))).unwrap().data {
        TensorData::F64(values) => values,
        TensorData::F32(values) => values.into_iter().map(f64::from).collect(),
    }
}

#[test]
fn averages_follow_their_formula_and_leave_the_curve() {
    let folder = Folder::new("ema");
    folder.train("run", &[&SETS[..], &["--set", "train.steps=6"]].concat());
    folder.train("without", &[&SETS[2..], &["--set", "train.steps=6"]].concat());
    let losses = crate::common::runs::losses;
    assert_eq!(losses(&folder.metrics("run")), losses(&folder.metrics("without")));
    for name in ["conv.weight", "bn.bias", "fc2.weight"] {
        let mut average: Vec<f64> = Vec::new();
        for step in 1..=6 {
            let file =
                |kind| open_model(&folder.at(&format!("run/checkpoints/step-{step:08}/{kind}.safetensors"))).unwrap();
            let w = values(&file("model"), name);
            average = match step {
                1 => w,
                _ => average.iter().zip(w).map(|(a, w)| DECAY * a + (1.0 - DECAY) * w).collect(),
            };
            let got = values(&file("state"), &format!("{name}.ema.average"));
            assert!(got.iter().zip(&average).all(|(a, b)| (a - b).abs() < 1e-14), "{name} after {step} updates");
        }
    }
}

#[test]
fn evaluations_use_the_averages_unless_the_weights_are_asked_for() {
    let folder = Folder::new("ema-eval");
    let sets = ["--set", "train.ema=0.75", "--set", "train.steps=10", "--set", "train.evaluate=\"10 steps\""];
    for device in ["cpu", "emu"] {
        let device = format!("devices.use=\"{device}\"");
        folder.train("run", &[&sets[..], &["--set", &device]].concat());
        let evaluated = events(&folder.metrics("run"), "eval");
        let test = evaluated.iter().find(|event| event["split"] == "test").unwrap()["loss"].as_f64().unwrap();
        let printed = |arguments: &[&str]| folder.good(&[&["eval", "run"], arguments].concat()).out;
        let averaged = printed(&[]);
        assert!(averaged.contains(&format!("test: loss {test:.6}")), "{averaged}, {test}");
        let trained = printed(&["--trained"]);
        assert_ne!(trained, averaged);
        // What is exported is what was evaluated.
        for more in [&[][..], &["--trained"]] {
            let out = folder.good(&[&["ckpt", "export", "run", "out.safetensors"], more].concat()).out;
            assert_eq!(out.contains("are averages of weights"), more.is_empty(), "{out}");
            let file = |name: &str| open_model(&folder.at(name)).unwrap();
            let (state, model) =
                ("run/checkpoints/step-00000010/state.safetensors", "run/checkpoints/step-00000010/model.safetensors");
            let expected = match more.is_empty() {
                true => values(&file(state), "fc1.weight.ema.average"),
                false => values(&file(model), "fc1.weight"),
            };
            assert_eq!(values(&file("out.safetensors"), "fc1.weight"), expected);
            assert_eq!(values(&file("out.safetensors"), "bn.running_var"), values(&file(model), "bn.running_var"));
            assert_code(&folder.run(&["ckpt", "export", "run", "out.safetensors"]), 2, &["exists"]);
            std::fs::remove_file(folder.at("out.safetensors")).unwrap();
        }
        std::fs::remove_dir_all(folder.at("run")).unwrap();
    }
}

#[test]
fn averages_that_join_later_begin_with_the_weights() {
    let folder = Folder::new("ema-join");
    folder.train("run", &["--set", "train.steps=4", "--set", "train.evaluate=\"never\""]);
    let losses = |run: &str| events(&folder.metrics(run), "eval").iter().map(|e| e["loss"].clone()).collect::<Vec<_>>();
    assert!(losses("run").is_empty());
    let resume =
        ["train", "small.toml", "--run-dir", "run", "--resume", "--set", "train.ema=0.9", "--set", "train.steps=4"];
    assert_code(&folder.run(&resume), 2, &["train.ema: not set in the checkpoint, 0.9 now"]);
    // The evaluation that is made up for comes before any update: the averages are the weights.
    folder.good(&[&resume[..], &["--allow-change", "train.ema", "--set", "train.evaluate=\"2 steps\""]].concat());
    folder.train("whole", &["--set", "train.steps=4", "--set", "train.evaluate=\"2 steps\""]);
    assert_eq!(losses("run"), losses("whole")[2..]);
    let more =
        ["train", "small.toml", "--run-dir", "run", "--resume", "--set", "train.ema=0.9", "--set", "train.steps=5"];
    folder.good(&[&more[..], &["--allow-change", "train.ema"]].concat());
    let file = |kind| open_model(&folder.at(&format!("run/checkpoints/step-00000005/{kind}.safetensors"))).unwrap();
    assert_eq!(values(&file("state"), "fc1.weight.ema.average"), values(&file("model"), "fc1.weight"));
    let output = folder.run(&["check", "small.toml", "--set", "train.ema=1.0"]);
    assert_code(&output, 2, &["ema = 1, expected a number of at least 0 and below 1"]);
}
