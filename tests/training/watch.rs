//! `train.watch`: what is reported of gradients, updates and activations, and the signs that training goes wrong.

use crate::common::runs::{Folder, assert_code, events, losses};
use peristyle::train::weights::{TensorData, open_model};
use serde_json::Value;

/// A network of every kind of layer that is watched.
const NETWORK: &str = r#"
name = "watched"
seed = 3
[data]
train = { synthetic = { images = 64, classes = 4, shape = [6, 6, 2] } }
batch = 16
[model]
input = [6, 6, 2]
init = "xavier"
layers = [
  { name = "conv", conv = { filters = 4, kernel = 3, pad = 1 } },
  { name = "relu", relu = {} },
  { name = "fc1", dense = { units = 8 } },
  { name = "tanh", tanh = {} },
  { name = "fc2", dense = { units = 4 } },
]
loss = "softmax_cross_entropy"
[optimizer]
lr = 0.1
[train]
steps = 13
checkpoint = { every = 1, keep = 20 }
watch = { every = "5 steps" }
"#;

fn train(folder: &Folder, run: &str, sets: &[&str]) -> Vec<Value> {
    let more: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).collect();
    folder.good(&[&["train", "watched.toml", "--run-dir", run], &more[..]].concat());
    folder.metrics(run)
}

fn folder(name: &str) -> Folder {
    let folder = Folder::new(name);
    folder.write("watched.toml", NETWORK);
    folder
}

/// Returns the weights of a layer after an update, its bias last.
fn weights(folder: &Folder, run: &str, step: u64, layer: &str) -> Vec<f64> {
    let file = open_model(&folder.at(&format!("{run}/checkpoints/step-{step:08}/model.safetensors"))).unwrap();
    let values = |name: &str| match file.tensor(file.find(&format!("{layer}.{name}")).unwrap()).unwrap().data {
        TensorData::F64(values) => values,
        TensorData::F32(values) => values.into_iter().map(f64::from).collect(),
    };
    [values("weight"), values("bias")].concat()
}

fn norm(values: &[f64]) -> f64 {
    values.iter().map(|x| x * x).sum::<f64>().sqrt()
}

fn difference(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a - b).collect()
}

/// Returns the layer of an event.
fn layer<'a>(event: &'a Value, name: &str) -> &'a Value {
    event["layers"]
        .as_array()
        .unwrap()
        .iter()
        .find(|layer| layer["name"] == name)
        .unwrap_or_else(|| panic!("no {name}"))
}

#[test]
fn what_is_reported_are_the_differences_of_checkpoints() {
    let folder = folder("watch-checkpoints");
    let metrics = train(&folder, "run", &["devices.precision=\"f64\""]);
    let watched = events(&metrics, "watch");
    assert_eq!(watched.iter().map(|event| event["step"].as_u64().unwrap()).collect::<Vec<_>>(), [2, 5, 10]);
    for event in &watched {
        let step = event["step"].as_u64().unwrap();
        let mut all = [Vec::new(), Vec::new(), Vec::new()];
        for name in ["conv", "fc1", "fc2", ""] {
            let (now, before) = match name {
                "" => (all[0].clone(), all[1].clone()),
                _ => (weights(&folder, "run", step, name), weights(&folder, "run", step - 1, name)),
            };
            let update = difference(&now, &before);
            // Updates of plain descent are gradients.
            let of = if name.is_empty() { event } else { layer(event, name) };
            let near = |key: &str, expected: f64| {
                let got = of[key].as_f64().unwrap_or_else(|| panic!("no {key} in {of}"));
                assert!(
                    (got - expected).abs() < 1e-9 * expected.abs().max(1e-3),
                    "{step} {name} {key}: {got}, {expected}"
                );
            };
            near("gradient_norm", norm(&update) / 0.1);
            near("update_ratio", norm(&update) / norm(&before));
            // There is no checkpoint of the initial values.
            if step > 2 {
                let earlier = if name.is_empty() { all[2].clone() } else { weights(&folder, "run", step - 2, name) };
                let last = difference(&before, &earlier);
                let product: f64 = update.iter().zip(&last).map(|(a, b)| a * b).sum();
                near("cosine", product / norm(&update) / norm(&last));
                all[2].extend(earlier);
            }
            all[0].extend(now);
            all[1].extend(before);
        }
        assert!(layer(event, "relu")["dead"].is_f64() && layer(event, "tanh")["saturated"].is_f64());
        assert!(layer(event, "relu").get("gradient_norm").is_none() && layer(event, "fc1").get("dead").is_none());
    }
}

#[test]
fn every_mesh_reports_the_same_and_no_loss_changes() {
    let folder = folder("watch-meshes");
    let train = |devices: &str, mesh: &str, more: &[&str]| {
        let sets = [
            &format!("devices.use=\"{devices}\"")[..],
            &format!("devices.mesh={mesh}"),
            "train.checkpoint.every=never",
        ];
        let _ = std::fs::remove_dir_all(folder.at("run"));
        train(&folder, "run", &[&sets[..], more].concat())
    };
    let watched = |metrics: &[Value]| {
        let numbers = |event: &Value| {
            let of = |value: &Value| {
                let keys = ["gradient_norm", "update_ratio", "cosine", "dead", "saturated"];
                keys.map(|key| value.get(key).and_then(Value::as_f64)).to_vec()
            };
            let layers = event["layers"].as_array().unwrap().iter().map(of);
            std::iter::once(of(event)).chain(layers).flatten().collect::<Vec<_>>()
        };
        events(metrics, "watch").iter().map(numbers).collect::<Vec<_>>()
    };
    let one = train("cpu", "{}", &[]);
    for (devices, mesh, more) in [
        ("cpu*2", "{ data = 2 }", &[][..]),
        ("cpu*2", "{ columns = 2 }", &[]),
        ("cpu*4", "{ data = 2, columns = 2 }", &[]),
        ("emu", "{}", &[]),
        ("emu*2", "{ columns = 2 }", &[]),
        ("emu*2", "{ data = 2 }", &["devices.precision=\"bf16\""]),
        ("cpu", "{}", &["train.accumulate=4"]),
        ("emu", "{}", &["train.accumulate=2"]),
    ] {
        let metrics = train(devices, mesh, more);
        let plain = train(devices, mesh, &[more, &["train.watch.every=1000"]].concat());
        assert_eq!(losses(&metrics), losses(&plain), "{devices} {mesh} {more:?}: watching changes nothing");
        let (all, expected) = (watched(&metrics), watched(&one));
        assert_eq!(all.len(), expected.len(), "{devices} {mesh}");
        // Parts of a batch show the outputs of the last part only.
        let whole = !more.iter().any(|set| set.contains("accumulate"));
        let tolerance = if more.iter().any(|set| set.contains("bf16")) { 0.1 } else { 2e-4 };
        for (got, expected) in all.iter().zip(&expected) {
            for (index, (got, expected)) in got.iter().zip(expected).enumerate() {
                let shares = index % 5 > 2;
                match (got, expected) {
                    (Some(got), Some(expected)) if whole || !shares => {
                        assert!(
                            (got - expected).abs() < tolerance,
                            "{devices} {mesh} {more:?} {index}: {got}, {expected}"
                        );
                    }
                    (got, expected) => assert_eq!(got.is_some(), expected.is_some(), "{devices} {mesh} {index}"),
                }
            }
        }
    }
}

#[test]
fn dead_units_and_saturated_values_are_counted() {
    let folder = folder("watch-units");
    let sets = ["model.layers.conv.conv.bias=-100.0", "train.checkpoint.every=never", "optimizer.lr=1e-9"];
    let metrics = train(&folder, "dead", &sets);
    for event in events(&metrics, "watch") {
        assert_eq!(
            (layer(&event, "relu")["dead"].as_f64(), layer(&event, "tanh")["saturated"].as_f64()),
            (Some(1.0), Some(0.0))
        );
    }
    let metrics = train(&folder, "saturated", &["model.layers.fc1.dense.bias=50.0", "train.checkpoint.every=never"]);
    let first = &events(&metrics, "watch")[0];
    assert_eq!(layer(first, "tanh")["saturated"].as_f64(), Some(1.0));
    assert!(layer(first, "relu")["dead"].as_f64().unwrap() < 0.5);
}

#[test]
fn a_resumed_run_reports_what_the_whole_run_does() {
    let folder = folder("watch-resume");
    let whole = train(&folder, "whole", &[]);
    for step in [3, 4, 5, 8] {
        let run = format!("run{step}");
        train(&folder, &run, &[&format!("train.steps={step}")]);
        folder.good(&["train", "watched.toml", "--run-dir", &run, "--resume"]);
        let (resumed, whole) = (events(&folder.metrics(&run), "watch"), events(&whole, "watch"));
        assert_eq!(resumed.len(), 3);
        for (resumed, whole) in resumed.iter().zip(&whole) {
            // After update 4, the weights before it are not known.
            let lost = step == 4 && whole["step"] == 5;
            assert_eq!(resumed.get("cosine").is_none(), lost);
            assert_eq!(resumed["gradient_norm"], whole["gradient_norm"], "resumed after update {step}");
            assert!(lost || resumed == whole);
        }
    }
}

#[test]
fn the_log_has_what_is_watched_if_the_file_says_so() {
    let folder = folder("watch-log");
    train(&folder, "run", &["train.watch.every=\"1 epoch\""]);
    assert!(!folder.read("run/log.txt").contains("update/weight"));
    let metrics = train(&folder, "logged", &["train.watch.every=\"1 epoch\"", "train.watch.log=true"]);
    let steps: Vec<u64> = events(&metrics, "watch").iter().map(|event| event["step"].as_u64().unwrap()).collect();
    assert_eq!(steps, [2, 4, 8, 12]);
    let log = folder.read("logged/log.txt");
    assert!(
        log.contains("step 12: gradient ") && log.contains("    relu: dead ") && log.contains("    tanh: saturated "),
        "{log}"
    );
    for (set, message) in [
        ("train.watch.every=never", "every is not a number of epochs or steps"),
        ("train.watch.every=\"2 hours\"", "every is not a number of epochs or steps"),
        ("train.watch.often=1", "unknown key \"often\""),
        ("optimizer.method={ newton = {} }", "watch is for updates by a chain"),
    ] {
        assert_code(&folder.run(&["check", "watched.toml", "--set", set]), 2, &[message]);
    }
}

/// Ten layers of a function on the digits.
fn deep(function: &str, std: &str) -> String {
    let hidden = format!("{{ dense = {{ units = 64 }} }}, \"{function}\",\n").repeat(6);
    format!(
        "name = \"deep\"\n[data]\ntrain = {{ digits = \"train\" }}\nbatch = 32\nnormalize = \"standardize\"\n[model]\n\
         input = [28, 28, 1]\ninit = {std}\nlayers = [\"flatten\", {hidden} {{ name = \"last\", dense = {{ units = 10 }} }}]\n\
         loss = \"softmax_cross_entropy\"\n[optimizer]\nlr = 0.1\n[train]\nsteps = 240\ncheckpoint = {{ every = \"never\" }}\n\
         watch = {{ every = 40 }}\n"
    )
}

/// A function of two variables from configs/ravine.toml.
fn surface() -> String {
    let text = std::fs::read_to_string(crate::common::file("configs/ravine.toml")).unwrap();
    text + "watch = { every = 10 }\n"
}

/// Returns the notes of a run that are signs: those of an update.
fn signs(name: &str, text: &str, sets: &[&str]) -> Vec<String> {
    let folder = Folder::new(&format!("watch-{name}"));
    folder.write("run.toml", text);
    let more: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).collect();
    folder.good(&[&["train", "run.toml", "--run-dir", "run"], &more[..]].concat());
    let notes = events(&folder.metrics("run"), "note");
    let texts = notes.iter().map(|note| note["text"].as_str().unwrap().to_string());
    texts.filter(|text| text.starts_with("step ")).collect()
}

#[test]
fn each_sign_is_reported_where_it_is_provoked() {
    let small = "{ normal = { std = 0.01 } }";
    let quadratic = "model.loss.surface={ function = \"quadratic\", condition = 5.0 }";
    let cliff = "model.loss.surface={ function = \"cliff\", condition = 50.0 }";
    for (name, text, sets, expected) in [
        (
            "vanishing",
            deep("tanh", small),
            &[][..],
            &["gradients vanish: that of layer \"dense1\" is", "the loss is on a plateau"][..],
        ),
        (
            "exploding",
            deep("relu", "{ normal = { std = 1.0 } }"),
            &["optimizer.lr=1e-9"],
            &["gradients explode: their norm is"],
        ),
        (
            "plateau",
            deep("sigmoid", small),
            &["optimizer.lr=0.01"],
            &["gradients vanish", "the loss is on a plateau: it is 2."],
        ),
        (
            "oscillating",
            surface(),
            &[quadratic, "optimizer.chain=[]", "optimizer.lr=1.9", "train.steps=40"],
            &["the learning rate is too high", "weights oscillate: the cosine between successive updates is -"],
        ),
        (
            "cliff",
            surface(),
            &[
                cliff,
                "optimizer.chain=[{ clip_by_global_norm = 1.0 }, { momentum = 0.9 }]",
                "optimizer.lr=0.02",
                "model.layers.point.init.listed=[2.0, 1.0]",
            ],
            &["a cliff: the norm of the gradients is "],
        ),
        (
            "rate",
            deep("relu", "\"kaiming\""),
            &["optimizer.lr=20.0", "train.on_nonfinite=skip", "train.max_skips=1000"],
            &["the learning rate is too high: one update changes the weights of layer"],
        ),
    ] {
        let found = signs(name, &text, sets);
        if name == "cliff" {
            for device in ["cpu*2", "emu*2"] {
                let device = format!("devices.use={device:?}");
                assert_eq!(signs(name, &text, &[sets, &[&device[..]]].concat()), found, "{device}");
            }
        }
        for part in expected {
            assert!(found.iter().any(|note| note.contains(part)), "{name}: {part:?} is not in {found:?}");
        }
    }
}

#[test]
fn healthy_runs_have_no_signs() {
    for (name, text, sets) in [
        ("tanh", deep("tanh", "\"xavier\""), &[][..]),
        ("relu", deep("relu", "\"kaiming\""), &["optimizer.lr=0.05"]),
        ("adam", deep("relu", "\"kaiming\""), &["optimizer.chain=[\"adam\"]", "optimizer.lr=0.001"]),
        (
            "clipped",
            deep("relu", "\"kaiming\""),
            &["optimizer.chain=[{ clip_by_global_norm = 1.0 }, { momentum = 0.9 }]", "optimizer.lr=0.01"],
        ),
    ] {
        assert_eq!(signs(&format!("healthy-{name}"), &text, sets), Vec::<String>::new(), "{name}");
    }
    for config in ["digits", "mlp", "lenet", "linear"] {
        let text = std::fs::read_to_string(crate::common::file(&format!("configs/{config}.toml"))).unwrap();
        let short = ["train.epochs=1", "train.evaluate=never", "train.checkpoint.every=never", "train.watch.every=20"];
        assert_eq!(signs(config, &text, &short), Vec::<String>::new(), "{config}");
    }
}
