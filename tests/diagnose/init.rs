//! `peristyle diagnose init`: its numbers, and the lecture's experiment with the initial weights of ten layers.

use crate::common::file;
use crate::common::runs::{CommandOutput, Folder, assert_code, output_of, peristyle};
use peristyle::data::{self, Batches};
use peristyle::diagnose::Subject;
use peristyle::diagnose::init::InitialNetwork;
use peristyle::train::{DataPolicy, Job};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::Value;
use std::path::Path;

/// A network of which everything can be computed by hand: relu is read by fc2 and by the join.
const HAND: &str = r#"name = "hand"

[data]
train = { tensors = "two.safetensors" }
batch = 2
normalize = "none"
order = "sequential"

[model]
input = [1, 1, 2]
layers = [
  { name = "fc1", dense = { units = 2 }, init = { listed = [1.0, -1.0, 0.5, 0.5] } },
  { name = "act", relu = {} },
  { name = "fc2", dense = { units = 2 }, init = { listed = [1.0, 0.0, 1.0, -2.0] } },
  { name = "join", add = {}, inputs = ["fc2", "act"] },
  { name = "out", dense = { units = 1 }, init = { listed = [1.0, -1.0] } },
]
loss = "mean_squared_error"

[optimizer]
lr = 0.1

[train]
steps = 1
"#;

/// Creates a folder with the network and its data: the inputs (3, 1) and (1, 2) with the targets 3 and 2.
fn hand(name: &str) -> Folder {
    let folder = Folder::new(name);
    let bytes = |values: &[f32]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
    let (images, targets) = (bytes(&[3.0, 1.0, 1.0, 2.0]), bytes(&[3.0, 2.0]));
    let tensors = [("images", vec![2, 2, 1, 1], &images), ("targets", vec![2], &targets)];
    let tensors = tensors.map(|(name, shape, bytes)| (name, TensorView::new(Dtype::F32, shape, bytes).unwrap()));
    std::fs::write(folder.at("two.safetensors"), safetensors::serialize(tensors, None).unwrap()).unwrap();
    folder.write("hand.toml", HAND);
    folder
}

fn json(output: &CommandOutput) -> Value {
    assert_eq!(output.code, Some(0), "{}", output.err);
    serde_json::from_str(&output.out).unwrap()
}

fn layer<'a>(report: &'a Value, name: &str) -> &'a Value {
    let found = report["layers"].as_array().unwrap().iter().find(|layer| layer["name"] == name);
    found.unwrap_or_else(|| panic!("no layer {name}"))
}

fn parameter<'a>(report: &'a Value, name: &str) -> &'a Value {
    let (of, _) = name.rsplit_once('.').unwrap();
    let all = layer(report, of)["parameters"].as_array().unwrap();
    all.iter().find(|parameter| parameter["name"] == name).unwrap()
}

/// Asserts some numbers of an object, to rounding.
fn assert_numbers(what: &str, object: &Value, expected: &[(&str, f64)]) {
    for &(key, number) in expected {
        let found = object[key].as_f64().unwrap_or_else(|| panic!("{what}: no number {key} in {object}"));
        assert!((found - number).abs() < 1e-12, "{what}: {key} is {found}, expected {number}");
    }
}

/// Returns the mean and the standard deviation, from their definition.
fn spread(values: &[f64]) -> (f64, f64) {
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let squares = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>();
    (mean, (squares / values.len() as f64).sqrt())
}

#[test]
fn the_numbers_of_a_small_network_are_those_computed_by_hand() {
    let folder = hand("init-hand");
    let report = json(&folder.run(&["diagnose", "init", "hand.toml", "--json"]));
    assert_numbers("report", &report, &[("samples", 2.0), ("loss", 0.625)]);
    // Outputs, and gradients of the loss with respect to them, of both samples.
    for (name, outputs, gradients) in [
        ("fc1", &[2.0, 2.0, -1.0, 1.5][..], &[1.0, 1.0, 0.0, -0.5][..]),
        // From fc2: (0, 2) and (0, -1). From the join: (1, -1) and (-0.5, 0.5).
        ("act", &[2.0, 2.0, 0.0, 1.5], &[1.0, 1.0, -0.5, -0.5]),
        ("fc2", &[2.0, -2.0, 0.0, -3.0], &[1.0, -1.0, -0.5, 0.5]),
        ("join", &[4.0, 0.0, 0.0, -1.5], &[1.0, -1.0, -0.5, 0.5]),
        ("out", &[4.0, 1.5], &[1.0, -0.5]),
    ] {
        let (least, most) = outputs.iter().fold((f64::MAX, f64::MIN), |(a, b), &y| (a.min(y), b.max(y)));
        let zeros = outputs.iter().filter(|&&y| y == 0.0).count() as f64 / outputs.len() as f64;
        let ((mean, std), found) = (spread(outputs), &layer(&report, name)["activations"]);
        let expected = [("mean", mean), ("std", std), ("min", least), ("max", most), ("zeros", zeros), ("dead", 0.0)];
        assert_numbers(name, found, &expected);
        assert!(found["saturated"].is_null(), "{found}");
        let (mean, std) = spread(gradients);
        assert_numbers(name, &layer(&report, name)["gradients"], &[("mean", mean), ("std", std)]);
    }
    // The sums over the samples of dy x: dy1 (3, 1) + dy2 (1, 2), and of dy for a bias.
    for (name, values, gradient) in [
        ("fc1.weight", &[1.0, -1.0, 0.5, 0.5][..], &[3.0, 1.0, 2.5, 0.0][..]),
        ("fc1.bias", &[0.0, 0.0], &[1.0, 0.5]),
        ("fc2.weight", &[1.0, 0.0, 1.0, -2.0], &[2.0, 1.25, -2.0, -1.25]),
        ("out.weight", &[1.0, -1.0], &[4.0, 0.75]),
    ] {
        let expected = [("std", spread(values).1), ("gradient_std", spread(gradient).1)];
        assert_numbers(name, parameter(&report, name), &expected);
    }
    // More samples than there are, by default and as an option.
    let all = json(&folder.run(&["diagnose", "init", "hand.toml", "--json", "--samples", "1000"]));
    assert_eq!(all, report);
    assert_eq!(report["verdict"], serde_json::json!([]));
}

#[test]
fn histograms_count_every_value_between_the_extremes() {
    let folder = Folder::new("init-histograms");
    let report = json(&folder.run(&["diagnose", "init", "small.toml", "--json", "--samples", "20"]));
    for layer in report["layers"].as_array().unwrap() {
        let shape = layer["shape"].as_array().unwrap();
        let features: u64 = shape.iter().map(|len| len.as_u64().unwrap()).product();
        for of in ["activations", "gradients"] {
            let (values, histogram) = (&layer[of], &layer[of]["histogram"]);
            let edges: Vec<f64> = histogram["edges"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect();
            let counts = histogram["counts"].as_array().unwrap().iter().map(|count| count.as_u64().unwrap());
            assert_eq!(counts.len() + 1, edges.len());
            assert_eq!(counts.sum::<u64>(), 20 * features, "{of} of {}", layer["name"]);
            assert!(edges.windows(2).all(|pair| pair[0] < pair[1]), "{edges:?}");
            assert_eq!((Some(edges[0]), edges.last().copied()), (values["min"].as_f64(), values["max"].as_f64()));
        }
    }
}

/// The gradients of the training program agree with those of layers run one by one: with several losses and weights,
/// dropout, batch norm, joins, augmented images, distributions as targets.
#[test]
fn gradients_are_those_of_the_training_program() {
    let folder = Folder::new("init-program");
    let small = folder.at("small.toml");
    let sets = ["data.batch=8", "devices.use=\"cpu\"", "devices.mesh={ data = 1, columns = 1 }"];
    for path in [small, file("tests/reference/heads.toml"), file("configs/residual_small.toml")] {
        let sets: Vec<String> = sets.iter().map(|set| set.to_string()).collect();
        let examined = InitialNetwork::open(&path, &[], 8).unwrap().examine(|| ()).unwrap();
        let (job, _) = Job::open(&path, &sets, DataPolicy::Required).unwrap();
        let splits = data::open(&job.config.data, job.config.seed, &job.config.base).unwrap();
        let mut batches = Batches::train(&splits);
        let mut batch = batches.empty();
        batches.fill(0, 0, &mut batch).unwrap();
        let (images, targets) = (&batch.images[..], &batch.targets[..]);
        let target_width = targets.len() / 8;
        let (network, seed) = (&job.network, job.config.seed);
        let gradients = Subject { network, seed, images, targets, target_width, threads: 1 }.gradients().unwrap();
        let found: Vec<_> = examined.layers.iter().flat_map(|layer| &layer.parameters).collect();
        assert_eq!(found.len(), gradients.len());
        let largest = gradients.iter().map(|gradient| spread(gradient).1).fold(0.0, f64::max);
        for (found, gradient) in found.iter().zip(&gradients) {
            let std = spread(gradient).1;
            // Relative to the largest, for a gradient that is 0 but for rounding: of a bias before batch_norm.
            let error = (found.gradient_std - std).abs() / (std + 1e-6 * largest);
            assert!(error < 1e-9, "{}: {} of {}, expected {std}", path.display(), found.gradient_std, found.name);
        }
    }
}

#[test]
fn values_are_those_with_which_training_begins() {
    let folder = Folder::new("init-lsuv");
    let arguments = ["diagnose", "init", "small.toml", "--json", "--samples", "64", "--set", "model.init=lsuv"];
    let report = json(&folder.run(&arguments));
    let std = layer(&report, "conv")["activations"]["std"].as_f64().unwrap();
    assert!((std - 1.0).abs() < 0.01, "{std}");
    // Weights of a file take the place of initial ones.
    folder.train("run", &["--set", "train.steps=1", "--set", "model.init.normal.std=0.5"]);
    let report = json(&folder.run(&["diagnose", "init", "small.toml", "--json", "--set", "model.from=run"]));
    let std = parameter(&report, "fc2.weight")["std"].as_f64().unwrap();
    assert!((std - 0.5).abs() < 0.1, "{std}");
}

#[test]
fn dead_units_are_found() {
    let folder = hand("init-dead");
    let dead = |weights: &str| {
        let text = HAND.replace("[1.0, -1.0, 0.5, 0.5]", weights);
        folder.write("dead.toml", &text);
        json(&folder.run(&["diagnose", "init", "dead.toml", "--json"]))
    };
    // The second unit is below 0 for both samples.
    let half = dead("[1.0, 1.0, -1.0, -1.0]");
    assert_numbers("act", &layer(&half, "act")["activations"], &[("dead", 0.5), ("zeros", 0.5)]);
    assert_numbers("fc1", &layer(&half, "fc1")["activations"], &[("dead", 0.0), ("zeros", 0.0)]);
    let sentence = "dead units: more than 20 % of the units of act (50 %) are 0 for all 2 samples";
    assert_eq!(half["verdict"], serde_json::json!([sentence]));
    let all = dead("[-1.0, -1.0]");
    assert_numbers("act", &layer(&all, "act")["activations"], &[("dead", 1.0), ("std", 0.0)]);
    assert_eq!(layer(&all, "act")["activations"]["histogram"]["counts"], serde_json::json!([4]));
    let sentences = [
        "activations vanish: those of join are all the same",
        "dead units: more than 20 % of the units of act (100 %) are 0 for all 2 samples",
    ];
    assert_eq!(all["verdict"], serde_json::json!(sentences));
}

#[test]
fn saturated_values_are_counted_where_a_layer_is_flat() {
    let folder = hand("init-saturated");
    // Inputs of the activation: 8, 16, -4 and 12 for both units.
    for (activation, share) in
        [("tanh", 1.0), ("sigmoid", 0.75), ("hard_sigmoid", 1.0), ("hard_swish", 0.25), ("relu6", 0.75)]
    {
        let text = HAND.replace("relu = {}", &format!("{activation} = {{}}"));
        folder.write("saturated.toml", &text.replace("[1.0, -1.0, 0.5, 0.5]", "[4.0, -4.0, 2.0, 10.0]"));
        let report = json(&folder.run(&["diagnose", "init", "saturated.toml", "--json"]));
        assert_numbers(activation, &layer(&report, "act")["activations"], &[("saturated", share)]);
        let verdict = report["verdict"].as_array().unwrap();
        let found = verdict.iter().any(|sentence| sentence.as_str().unwrap().starts_with("saturated: more than 50 %"));
        assert_eq!(found, share > 0.5, "{activation}: {verdict:?}");
    }
}

#[test]
fn text_and_picture_have_every_layer() {
    let folder = hand("init-output");
    let output = folder.good(&["diagnose", "init", "hand.toml", "--histograms", "--svg", "hand.svg"]);
    assert!(output.out.starts_with("hand: 2 samples, seed "), "{}", output.out);
    assert!(output.out.ends_with("\nnothing unusual\n"), "{}", output.out);
    let picture = folder.read("hand.svg");
    assert!(picture.starts_with("<svg") && picture.trim_end().ends_with("</svg>"));
    for name in ["fc1", "act", "fc2", "join", "out"] {
        assert_eq!(
            output.out.lines().filter(|line| line.starts_with(&format!("{name} "))).count(),
            3,
            "{}",
            output.out
        );
        assert!(picture.contains(&format!(". {name}\n")), "{name}");
    }
    assert!(output.out.lines().any(|line| line.starts_with("out.weight ")), "{}", output.out);
    assert_eq!(output.err.lines().filter(|line| line.contains("batch")).count(), 0, "{}", output.err);
}

#[test]
fn mistakes_are_reported_in_a_sentence() {
    let folder = hand("init-mistakes");
    for (arguments, code, sentence) in [
        (&["missing.toml"][..], 2, "missing.toml: cannot read"),
        (&["hand.toml", "--samples", "0"], 2, "invalid value '0' for '--samples <N>': 0 is not in 1..=1000000"),
        (&["hand.toml", "--json", "--histograms"], 2, "cannot be used with"),
        (&["hand.toml", "--set", "model.layers.fc1.units=0"], 2, "units = 0"),
        (&["hand.toml", "--svg", "nowhere/hand.svg"], 2, "nowhere/hand.svg"),
    ] {
        let output = folder.run(&[&["diagnose", "init"], arguments].concat());
        assert_code(&output, code, &[sentence]);
        assert_eq!(output.out, "", "{arguments:?}");
        assert!(!output.err.contains("panicked"), "{}", output.err);
    }
    folder.write("two.safetensors", "");
    assert_code(&folder.run(&["diagnose", "init", "hand.toml"]), 2, &["two.safetensors"]);
    let large = ["--set", "model.init={ normal = { std = 1e300 } }"];
    let output = lecture("init_relu_kaiming", &large);
    assert_code(&output, 1, &["layer \"fc2\": ", "outputs are not finite; use smaller initial values"]);
}

/// Runs the command on a file of the lecture.
fn lecture(name: &str, more: &[&str]) -> CommandOutput {
    let config = file(&format!("configs/lecture/{name}.toml"));
    let mut command = peristyle(Path::new("."));
    output_of(command.args(["diagnose", "init"]).arg(config).arg("--json").args(more))
}

/// What the lecture looks at, of the ten activations: the standard deviations of outputs and of gradients, and the smallest
/// share of saturated values.
struct Experiment {
    outputs: Vec<f64>,
    gradients: Vec<f64>,
    saturated: f64,
    verdict: Vec<String>,
}

impl Experiment {
    fn new(name: &str, seed: u64) -> Experiment {
        let report = json(&lecture(name, &["--set", &format!("seed={seed}")]));
        let all: Vec<&Value> = report["layers"].as_array().unwrap().iter().collect();
        let activations: Vec<&Value> = all.into_iter().filter(|layer| layer["kind"] != "dense").collect();
        assert_eq!((activations.len(), report["samples"].as_u64()), (10, Some(256)));
        let each = |of: &str, key: &str| -> Vec<f64> {
            activations.iter().map(|layer| layer[of][key].as_f64().unwrap_or(0.0)).collect()
        };
        let verdict = report["verdict"].as_array().unwrap().iter().map(|s| s.as_str().unwrap().to_string()).collect();
        Experiment {
            outputs: each("activations", "std"),
            gradients: each("gradients", "std"),
            saturated: each("activations", "saturated").into_iter().fold(1.0, f64::min),
            verdict,
        }
    }

    /// Returns the factor from the first to the last layer.
    fn change(stds: &[f64]) -> f64 {
        stds[9] / stds[0]
    }

    fn assert_verdict(&self, beginnings: &[&str]) {
        assert_eq!(self.verdict.len(), beginnings.len(), "{:?}", self.verdict);
        for (sentence, beginning) in self.verdict.iter().zip(beginnings) {
            assert!(sentence.starts_with(beginning), "{sentence}");
        }
    }
}

const SEEDS: [u64; 2] = [1, 2];

#[test]
fn small_weights_before_tanh_let_activations_and_gradients_vanish() {
    for experiment in SEEDS.map(|seed| Experiment::new("init_tanh_small", seed)) {
        let Experiment { outputs, gradients, .. } = &experiment;
        // A layer of n inputs multiplies by 0.01 sqrt(n), from 0.27 to 0.2, and in the backward pass by about the same.
        for (i, pair) in outputs.windows(2).enumerate() {
            let expected = 0.01 * f64::sqrt(800.0 - 50.0 * i as f64);
            assert!((pair[1] / pair[0] / expected - 1.0).abs() < 0.15, "{i}: {outputs:?}");
        }
        assert!(Experiment::change(outputs) < 1e-4, "{outputs:?}");
        assert!(Experiment::change(gradients) > 1e4, "{gradients:?}");
        experiment.assert_verdict(&["activations vanish: ", "gradients vanish: "]);
    }
}

#[test]
fn large_weights_saturate_tanh_and_let_gradients_explode() {
    for experiment in SEEDS.map(|seed| Experiment::new("init_tanh_large", seed)) {
        let Experiment { outputs, gradients, saturated, .. } = &experiment;
        assert!(*saturated > 0.8 && outputs.iter().all(|std| *std > 0.95), "{saturated} {outputs:?}");
        // Few values pass a gradient, but each through weights of a hundred times the size of Xavier's.
        assert!(Experiment::change(gradients) < 1e-3, "{gradients:?}");
        experiment
            .assert_verdict(&["gradients explode: ", "saturated: more than 50 % of the values of each of 10 layers"]);
    }
}

#[test]
fn xavier_keeps_the_spread_of_tanh() {
    for experiment in SEEDS.map(|seed| Experiment::new("init_tanh_xavier", seed)) {
        let Experiment { outputs, gradients, saturated, .. } = &experiment;
        assert!(outputs.iter().all(|std| (0.2..0.7).contains(std)), "{outputs:?}");
        assert!((1.0..10.0).contains(&Experiment::change(gradients)) && *saturated < 0.02, "{gradients:?}");
        experiment.assert_verdict(&[]);
    }
}

#[test]
fn xavier_before_relu_loses_half_of_the_variance_in_every_layer() {
    for experiment in SEEDS.map(|seed| Experiment::new("init_relu_xavier", seed)) {
        let outputs = &experiment.outputs;
        assert!(outputs.windows(2).all(|pair| (0.6..0.85).contains(&(pair[1] / pair[0]))), "{outputs:?}");
        let factor = Experiment::change(outputs).powf(1.0 / 9.0);
        assert!((factor / 0.5f64.sqrt() - 1.0).abs() < 0.05, "{factor} {outputs:?}");
    }
}

#[test]
fn kaiming_keeps_the_spread_of_relu() {
    for experiment in SEEDS.map(|seed| Experiment::new("init_relu_kaiming", seed)) {
        let Experiment { outputs, gradients, .. } = &experiment;
        let first = outputs[0];
        assert!(outputs.iter().all(|std| (first / 2.0..first * 2.0).contains(std)), "{outputs:?}");
        assert!((0.5..3.0).contains(&Experiment::change(gradients)), "{gradients:?}");
        experiment.assert_verdict(&[]);
    }
}
