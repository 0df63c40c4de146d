//! `diagnose hessian`: against known and whole Hessians, at initial and at trained weights.

use crate::common::runs::Folder;
use serde_json::Value;

fn hessian(folder: &Folder, arguments: &[&str]) -> Value {
    let output = folder.good(&[&["diagnose", "hessian"], arguments, &["--json"]].concat());
    serde_json::from_str(&output.out).unwrap_or_else(|error| panic!("{error}: {}", output.out))
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value}"))
}

const LINEAR: &str = r#"name = "linear"
[data]
train = { linear = { samples = 100, inputs = 3, condition = 5.0 } }
batch = 100
normalize = "none"
[model]
input = [1, 1, 3]
layers = [{ name = "fc", dense = { units = 1, bias = false } }]
loss = "mean_squared_error"
[optimizer]
lr = 0.4
[train]
epochs = 60
checkpoint = { every = "20 epochs" }
"#;

#[test]
fn a_quadratic_has_its_condition_number_and_the_best_rate() {
    let folder = Folder::new("hessian-linear");
    folder.write("linear.toml", LINEAR);
    let found = hessian(&folder, &["linear.toml", "--dense"]);
    let all: Vec<f64> = found["eigenvalues"].as_array().unwrap().iter().map(number).collect();
    assert_eq!((all.len(), &found["weights"]), (3, &Value::from(3)));
    for (ritz, exact) in [(&found["smallest"], all[0]), (&found["largest"], all[2])] {
        assert!((number(ritz) - exact).abs() < 1e-9 * exact, "{found}");
    }
    // The covariance of the inputs has this condition number, and so has the Hessian.
    assert!((number(&found["condition"]) - 5.0).abs() < 0.05, "{found}");
    assert_eq!(found["kind"], "minimum");
    assert!(found["stationary"] == false && (number(&found["best_rate"]) * all[2] - 1.0).abs() < 1e-9, "{found}");
    // Gradient descent with the rate that it names does not diverge; with 2.5 times that rate it does.
    let last = |share: f64| {
        let rate = format!("optimizer.lr={}", share * number(&found["best_rate"]));
        let _ = std::fs::remove_dir_all(folder.at("run"));
        folder.run(&["train", "linear.toml", "--run-dir", "run", "--set", &rate, "--set", "train.epochs=20"]);
        let events = folder.metrics("run");
        let losses: Vec<f64> = events
            .iter()
            .filter(|event| event["event"] == "step")
            .map(|event| event["loss"].as_f64().unwrap_or(f64::INFINITY))
            .collect();
        losses[losses.len() - 1] / losses[0]
    };
    assert!(last(1.0) < 0.01 && last(2.5) > 10.0, "{} {}", last(1.0), last(2.5));
}

#[test]
fn a_trained_run_is_near_its_minimum() {
    let folder = Folder::new("hessian-run");
    folder.write("linear.toml", LINEAR);
    folder.good(&["train", "linear.toml", "--run-dir", "run"]);
    let start = hessian(&folder, &["linear.toml"]);
    let end = hessian(&folder, &["run"]);
    // The Hessian of a quadratic is the same everywhere; the gradient is not.
    assert!((number(&start["largest"]) / number(&end["largest"]) - 1.0).abs() < 1e-6, "{start} {end}");
    assert!(number(&end["gradient_norm"]) < 1e-3 * number(&start["gradient_norm"]), "{start} {end}");
    let text = folder.good(&["diagnose", "hessian", "run", "--samples", "50"]).out;
    assert!(text.contains("as at a minimum") && text.contains("share of eigenvalues"), "{text}");
}

#[test]
fn lanczos_agrees_with_the_whole_hessian_of_a_network() {
    let folder = Folder::new("hessian-network");
    let layers = "model.layers=[{ conv = { filters = 4, kernel = 3, stride = 2 } }, \"tanh\", \"flatten\", { dense = { units = 10 } }]";
    let sets =
        ["small.toml", "--set", layers, "--set", "data.augment=[]", "--samples", "100", "--dense", "--steps", "60"];
    let found = hessian(&folder, &sets);
    let all: Vec<f64> = found["eigenvalues"].as_array().unwrap().iter().map(number).collect();
    let (least, most) = (all[0], all[all.len() - 1]);
    for (name, exact) in [("smallest", least), ("largest", most)] {
        let bound = number(&found[&format!("{name}_error")]) + 1e-9 * most;
        assert!((number(&found[name]) - exact).abs() <= bound && bound < 1e-2 * most, "{name}: {found}");
    }
    // Shares of eigenvalues, from 2 random vectors: those above a tenth of the largest are few.
    let large = all.iter().filter(|value| **value > 0.1 * most).count() as f64 / all.len() as f64;
    let shares = found["ritz_values"].as_array().unwrap().iter();
    let share: f64 = shares.filter(|one| number(&one["value"]) > 0.1 * most).map(|one| number(&one["share"])).sum();
    assert!((share - large).abs() < 0.05, "{share}, {large}");
    // Frozen parameters are constants.
    let frozen =
        hessian(&folder, &[&sets[..5], &["--set", "model.layers.conv1.lr_mult=0.0", "--samples", "100"]].concat());
    assert!(number(&frozen["weights"]) < number(&found["weights"]), "{frozen}");
}

#[test]
fn a_saddle_is_told_from_a_minimum() {
    let folder = Folder::new("hessian-saddle");
    let config = r#"name = "saddle"
[data]
train = { point = {} }
batch = 1
normalize = "none"
[model]
input = [1, 1, 1]
layers = [{ name = "point", dense = { units = 2, bias = false }, init = { listed = [0.0, 0.0] } }]
loss = { surface = { function = "saddle" } }
[optimizer]
lr = 0.1
[train]
steps = 1
"#;
    folder.write("saddle.toml", config);
    let found = hessian(&folder, &["saddle.toml"]);
    assert!(
        found["kind"] == "saddle" && found["condition"].is_null() && number(&found["gradient_norm"]) == 0.0,
        "{found}"
    );
    assert!(found["verdict"].as_str().unwrap().contains("almost vanishes"), "{found}");
}

#[test]
fn the_density_is_drawn_with_its_axes_and_the_limit_of_the_rate() {
    let folder = Folder::new("hessian-svg");
    std::fs::copy(crate::common::file("configs/ravine.toml"), folder.at("ravine.toml")).unwrap();
    let surface = "model.loss={ surface = { function = \"quadratic\", condition = 5.0 } }";
    folder.good(&[
        "diagnose",
        "hessian",
        "ravine.toml",
        "--set",
        surface,
        "--set",
        "optimizer.lr=4.0",
        "--svg",
        "a.svg",
    ]);
    let picture = folder.read("a.svg");
    // The eigenvalues are 1/5 and 1; descent at a rate of 4 diverges above 1/2.
    for part in
        ["eigenvalue", "share of eigenvalues per unit", "smallest and largest, 0.200 and 1.000", "2 / lr = 0.500"]
    {
        assert!(picture.contains(part), "{part}");
    }
}

#[test]
fn what_cannot_be_computed_is_refused() {
    let folder = Folder::new("hessian-refused");
    let failed = |arguments: &[&str]| {
        let output = folder.run(&[&["diagnose", "hessian"], arguments].concat());
        assert_eq!(output.code, Some(2), "{}", output.err);
        output.err
    };
    assert!(failed(&["none.toml"]).contains("none.toml"));
    assert!(failed(&["small.toml", "--samples", "0"]).contains("--samples"));
    let large = failed(&["small.toml", "--dense", "--steps", "2", "--vectors", "1", "--samples", "4"]);
    assert!(large.contains("is too large, expected at most 4000 weights; leave out --dense"), "{large}");
}
