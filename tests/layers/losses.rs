//! Losses and metrics through the program: values, several losses, and what is recorded of them.

use crate::common::runs::{Folder, assert_code, events, losses};
use crate::common::{Training, file, on_mesh};
use peristyle::error::Fault;
use peristyle::layers::{Activation, Args, Launch, Layer, LayerContext, LayerPhases, Metric, MetricKind, Role};
use peristyle::program::{Plan, Session};
use peristyle::settings::{Setting, Settings};
use peristyle::tensor::{Layout, Placement};
use serde_json::Value;
use std::sync::Arc;

/// Three losses for `small.toml`: of its last layer, and two of an auxiliary head on the first dense layer.
const HEADS: &str = r#"
loss = [
  { softmax_cross_entropy = {}, name = "main", inputs = ["fc2"] },
  { softmax_cross_entropy = {}, name = "aux", inputs = ["side"], weight = 0.25 },
  { mean_squared_error = {}, inputs = ["side"], weight = 2.0 },
]

[optimizer]"#;

/// Returns a folder in which `small.toml` has three losses.
fn heads(name: &str) -> Folder {
    let folder = Folder::new(name);
    let last = "  \"relu\",\n  { name = \"fc2\", dense = { units = 10 } },\n]\n\n[optimizer]";
    let head = "  { name = \"act\", relu = {} },\n  { name = \"fc2\", dense = { units = 10 } },\n  \
                { name = \"side\", dense = { units = 10 }, inputs = [\"fc1\"] },\n]";
    let text = folder.read("small.toml");
    assert!(text.contains(last));
    folder.write("small.toml", &text.replace(last, &format!("{head}{HEADS}")));
    folder
}

fn number(event: &Value, key: &str) -> f64 {
    event[key].as_f64().unwrap_or_else(|| panic!("no {key} in {event}"))
}

/// Asserts that the loss of an event is the weighted sum of its losses.
fn is_weighted_sum(event: &Value, weights: [f64; 3]) {
    let parts = ["main.loss", "aux.loss", "loss3.loss"].map(|key| number(event, key));
    let sum: f64 = parts.iter().zip(weights).map(|(part, weight)| part * weight).sum();
    assert!((number(event, "loss") - sum).abs() < 1e-12 * sum, "{event}");
}

#[test]
fn several_losses_are_recorded_by_name_and_their_weighted_sum_is_minimised() {
    let folder = heads("losses-heads");
    // Larger first outputs leave more to learn within twenty updates.
    let best = "train.checkpoint={ keep_best = 1, best_by = \"test.aux.top1\" }";
    let output = folder.train("run", &["--set", best, "--set", "model.init=kaiming"]);
    let metrics = folder.metrics("run");
    let (steps, evaluated) = (events(&metrics, "step"), events(&metrics, "eval"));
    for event in steps.iter().chain(&evaluated) {
        is_weighted_sum(event, [1.0, 0.25, 2.0]);
        for key in ["main.top1", "main.top5", "aux.top1", "aux.top5"] {
            assert!((0.0..=1.0).contains(&number(event, key)), "{key}: {event}");
        }
        assert!(event.get("top1").is_none() && event.get("loss1.loss").is_none(), "{event}");
    }
    // All three heads learn.
    for key in ["main.loss", "aux.loss", "loss3.loss"] {
        assert!(number(&steps[19], key) < 0.9 * number(&steps[0], key), "{key}");
    }
    let test = evaluated.iter().rfind(|event| event["split"] == "test").unwrap();
    let said = format!("aux.top1 {:.2} %", 100.0 * number(test, "aux.top1"));
    assert!(output.err.contains(&said), "{said}: {}", output.err);
    let shown = folder.good(&["eval", "run"]).out;
    assert!(shown.contains(&format!("loss3.mae {:.4}", number(test, "loss3.mae"))), "{shown}");
    let shown = folder.good(&["ckpt", "show", "run"]).out;
    assert!(shown.contains(&format!("main.top5 {:.4}", number(test, "main.top5"))), "{shown}");

    // What changes is compared by the names of the losses.
    folder.train("weighted", &["--set", "model.loss.aux.weight=0.5", "--set", "train.steps=3"]);
    is_weighted_sum(&events(&folder.metrics("weighted"), "step")[2], [1.0, 0.5, 2.0]);
    let resume = ["train", "small.toml", "--run-dir", "run", "--resume", "--set", "model.loss.aux.weight=0.5"];
    assert_code(&folder.run(&resume), 2, &["model.loss.aux.weight: 0.25 in the checkpoint, 0.5 now"]);
    let unknown = folder.run(&["check", "small.toml", "--set", "model.loss.axu.weight=0.5"]);
    assert_code(&unknown, 2, &["there is no loss \"axu\" (did you mean \"aux\"?); expected one of: main, aux, loss3"]);
}

#[test]
fn several_losses_have_one_curve_on_all_devices_in_parts_and_after_a_resume() {
    let folder = heads("losses-curve");
    let plain = ["--set", "model.layers.bn={ relu = {} }", "--set", "devices.precision=\"f64\""];
    let run = |dir: &str, more: &[&str]| {
        folder.train(dir, &[&plain[..], more].concat());
        let metrics = folder.metrics(dir);
        let columns = |event: &Value| {
            let fields = event.as_object().unwrap().iter().filter(|(key, _)| key.contains('.') || *key == "loss");
            fields.map(|(_, value)| value.as_f64().unwrap()).collect::<Vec<f64>>()
        };
        [events(&metrics, "step"), events(&metrics, "eval")].concat().iter().map(columns).collect::<Vec<_>>()
    };
    let agree = |a: &[Vec<f64>], b: &[Vec<f64>], bound: f64, what: &str| {
        assert_eq!((a.len(), a[0].len()), (b.len(), 9), "{what}");
        for (a, b) in a.iter().flatten().zip(b.iter().flatten()) {
            assert!((a - b).abs() <= bound * b.abs().max(0.1), "{what}: {a} and {b}");
        }
    };
    let whole = run("whole", &[]);
    let mesh = "devices={ use = \"cpu*4\", mesh = { data = 2, columns = 2 }, precision = \"f64\" }";
    agree(&run("mesh", &["--set", mesh]), &whole, 1e-9, "four devices");
    agree(&run("parts", &["--set", "train.accumulate=3"]), &whole, 1e-9, "in parts");
    // f32, with kernels.
    let emulated = ["--set", "devices.precision=\"f32\"", "--set", "devices.use=\"emu*2\"", "--set", "train.steps=8"];
    let single = ["--set", "devices.precision=\"f32\"", "--set", "train.steps=8"];
    agree(&run("emulated", &emulated), &run("single", &single), 2e-4, "emulated devices");

    let halves = [&plain[..], &["--set", "train.steps=7"]].concat();
    folder.train("halves", &halves);
    let resume = ["train", "small.toml", "--run-dir", "halves", "--resume"];
    folder.good(&[&resume[..], &plain[..]].concat());
    assert_eq!(folder.checkpoint("halves", 20), folder.checkpoint("whole", 20));
}

#[test]
fn values_are_learned_through_the_program() {
    let folder = Folder::new("losses-values");
    let config = std::fs::read_to_string(file("tests/reference/values.toml")).unwrap();
    folder.write("values.toml", &config.replace("[data]", "[data]\nvalidation = 0.2"));
    std::fs::copy(file("tests/reference/values.data.safetensors"), folder.at("values.data.safetensors")).unwrap();
    let train = |dir: &str, more: &[&str]| {
        let sets = [
            "train",
            "values.toml",
            "--run-dir",
            dir,
            "--set",
            "train={ epochs = 12, checkpoint = { keep_best = 1 } }",
        ];
        folder.good(&[&sets[..], more].concat());
        folder.metrics(dir)
    };
    let metrics = train("run", &[]);
    let curve = losses(&metrics);
    assert!(curve[curve.len() - 1] < 0.1 * curve[0], "{curve:?}");
    let evaluated = events(&metrics, "eval");
    for event in &evaluated {
        // A mean of absolute differences is at most the root of that of their squares.
        let (loss, mae) = (number(event, "loss"), number(event, "mae"));
        assert!(mae > 0.0 && mae * mae <= loss && event.get("top1").is_none(), "{event}");
    }
    // The best checkpoint is the one with the smallest loss.
    let best = evaluated.iter().min_by(|a, b| number(a, "loss").total_cmp(&number(b, "loss"))).unwrap();
    assert!(folder.at(&format!("run/checkpoints/step-{:08}", best["step"].as_u64().unwrap())).exists());
    let emulated = losses(&train("emulated", &["--set", "devices.use=\"emu*2\""]));
    assert!(emulated.iter().zip(&curve).all(|(a, b)| (a - b).abs() < 1e-4 * b), "{emulated:?}, {curve:?}");
    let data = folder.good(&["check", "values.toml", "--data"]).out;
    assert!(data.contains("256 images of 7x7x1, 4 target values"), "{data}");
    folder.good(&["gradcheck", "values.toml"]);

    for (set, parts) in [
        (
            "model.loss=\"softmax_cross_entropy\"",
            "the targets have 4 values for each image, but softmax_cross_entropy does not learn them; write loss = \
             \"mean_squared_error\"",
        ),
        (
            "model.layers.fc2.units=5",
            "the targets have 4 values for each image, but the last layer has 5 outputs; give it 4",
        ),
        (
            "model.loss=[\"mean_squared_error\", { mean_squared_error = {}, inputs = [\"fc1\"] }]",
            "the targets have 4 values for each image, but layer \"fc1\" has 12 outputs; give it 4",
        ),
        ("train.checkpoint={ keep_best = 1, best_by = \"validation.top1\" }", "no metric \"top1\"; it has loss, mae"),
        ("data.test={ digits = \"test\" }", "the test set has"),
    ] {
        assert_code(&folder.run(&["check", "values.toml", "--set", set]), 2, &[parts]);
    }
}

#[test]
fn a_loss_that_is_not_finite_in_one_head_stops_the_run() {
    let folder = heads("losses-nan");
    // The square of what the head gives overflows, the other losses do not.
    let sets = ["--set", "model.layers.side.init={ constant = 1e30 }", "--set", "model.loss.aux.inputs=[\"fc2\"]"];
    let output = folder.run(&[&["train", "small.toml", "--run-dir", "run"][..], &sets].concat());
    assert_code(&output, 1, &["loss3"]);
}

/// A layer with a metric: the sum of the sizes of its inputs for a sample.
#[derive(Debug)]
struct Measured(Arc<dyn Layer>);

impl Settings for Measured {
    fn settings() -> Vec<Setting> {
        Vec::new()
    }
    fn values(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }
    fn check_ranges(&self) -> Result<(), Fault> {
        Ok(())
    }
}

impl Layer for Measured {
    fn key(&self) -> &'static str {
        self.0.key()
    }
    fn output(&self, inputs: &[Activation]) -> Result<Activation, Fault> {
        self.0.output(inputs)
    }
    fn metrics(&self) -> &'static [Metric] {
        &[Metric { name: "size", kind: MetricKind::Mean }, Metric { name: "positive", kind: MetricKind::Hits }]
    }
    fn phases(&self, cx: &LayerContext) -> Result<LayerPhases, Fault> {
        let mut phases = self.0.phases(cx)?;
        let columns = if cx.place == Placement::Replicate { Placement::Replicate } else { Placement::Partial };
        let metrics = Layout::new(Placement::Partial, columns);
        phases.forward[0] = phases.forward[0].clone().write(Role::Metrics, metrics);
        Ok(phases)
    }
    fn run(&self, phase: &str, args: &Args) {
        self.0.run(phase, args);
        if phase == "forward" {
            let x = args.read::<f64>(Role::X(0));
            let metrics = args.write::<f64>(Role::Metrics);
            metrics[0] = x.iter().map(|x| x.abs()).sum::<f64>() / args.divisor as f64;
            metrics[1] = x.iter().filter(|x| **x > 0.0).count() as f64;
        }
    }
    fn launch(&self, _: &str, _: &Launch) -> peristyle::Result<()> {
        panic!("this layer has no kernels")
    }
    fn examples() -> Vec<(Self, Vec<Activation>)> {
        Vec::new()
    }
}

#[test]
fn any_layer_may_have_metrics() {
    let measured = |mesh: (usize, usize)| {
        let sets = [on_mesh(mesh), vec!["devices.precision=\"f64\"".to_string()]].concat();
        let mut training = Training::new("configs/columns_small.toml", &sets);
        let plan = training.session.plan().clone();
        let mut network = (*plan.network).clone();
        let node = network.nodes.iter_mut().find(|node| node.layer.key() == "relu").unwrap();
        let name = node.name.clone();
        node.layer = Arc::new(Measured(Arc::clone(&node.layer)));
        network.metrics.clear();
        network.name_metrics();
        let names: Vec<String> = network.metrics.iter().map(|metric| metric.name.to_string()).collect();
        assert_eq!(names, [&format!("{name}.size"), &format!("{name}.positive"), "loss", "top1", "top5"]);
        training.session = Session::new(Plan::new(Arc::new(network), plan.chain, plan.spec).unwrap()).unwrap();
        peristyle::train::exchange::initialise(&mut training.session, 1).unwrap();
        let mut all = Vec::new();
        for _ in 0..3 {
            let loss = training.update();
            let metrics = training.session.metrics();
            assert_eq!((metrics.len(), metrics[2]), (5, loss));
            all.extend_from_slice(metrics);
        }
        all
    };
    let alone = measured((1, 1));
    assert!(alone[0] > 1.0 && alone[1] > 100.0, "{alone:?}");
    for mesh in [(2, 1), (1, 2), (2, 2)] {
        let apart = measured(mesh).iter().zip(&alone).map(|(a, b)| (a - b).abs() / b.max(1.0)).fold(0.0, f64::max);
        assert!(apart < 1e-12, "{mesh:?}: {apart:e}");
    }
}

#[test]
fn a_linear_network_descends_as_fast_as_its_condition_number_allows() {
    // The loss of the mean squared error has the Hessian 2 C, where the covariance C has the condition number 5: at the rate
    // 0.4, the slowest direction shrinks by 1 - 2 * 0.4 / 5 = 0.84 in each update, and its loss by 0.84^2, up to the sample.
    let folder = Folder::new("losses-linear");
    std::fs::copy(crate::common::file("configs/linear.toml"), folder.at("linear.toml")).unwrap();
    folder.good(&["train", "linear.toml", "--run-dir", "slow"]);
    let metrics = folder.metrics("slow");
    let losses: Vec<f64> = events(&metrics, "step").iter().map(|event| number(event, "loss")).collect();
    let factor = (losses[40] / losses[20]).powf(1.0 / 20.0);
    assert!((factor - 0.84f64.powi(2)).abs() < 0.1, "{factor}");
    assert!(losses[199] < 1e-12, "{}", losses[199]);
    // Above 2 / (2 * 1), the steepest direction grows.
    let fast = folder.run(&["train", "linear.toml", "--run-dir", "fast", "--set", "optimizer.lr=1.3"]);
    assert!(fast.code == Some(1) && fast.err.contains("lower lr (now 1.3)"), "{}", fast.err);
}
