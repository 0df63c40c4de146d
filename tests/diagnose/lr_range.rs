//! `diagnose lr-range`: where a loss whose curvature is known falls and leaves all bounds.

use crate::common::runs::Folder;
use serde_json::Value;

const LINEAR: &str = r#"name = "linear"
[data]
train = { linear = { samples = 100, inputs = 3, condition = 1.5 } }
batch = 100
normalize = "none"
[model]
input = [1, 1, 3]
layers = [{ name = "fc", dense = { units = 1, bias = false } }]
loss = "mean_squared_error"
[optimizer]
lr = 0.4
[train]
steps = 10
checkpoint = { every = "never" }
"#;

fn sweep(folder: &Folder, arguments: &[&str]) -> Value {
    let output = folder.good(&[&["diagnose", "lr-range"], arguments, &["--json"]].concat());
    serde_json::from_str(&output.out).unwrap_or_else(|error| panic!("{error}: {}", output.out))
}

fn numbers(list: &Value, key: &str) -> Vec<f64> {
    list.as_array().unwrap().iter().map(|one| one[key].as_f64().unwrap()).collect()
}

#[test]
fn a_quadratic_diverges_above_twice_the_best_rate() {
    let folder = Folder::new("lr-range-linear");
    folder.write("linear.toml", LINEAR);
    let hessian = folder.good(&["diagnose", "hessian", "linear.toml", "--json"]).out;
    let best = serde_json::from_str::<Value>(&hessian).unwrap()["best_rate"].as_f64().unwrap();
    let arguments = ["linear.toml", "--from", "1e-3", "--to", "1e3", "--steps", "120"];
    let found = sweep(&folder, &arguments);
    let (rates, losses) = (numbers(&found["steps"], "lr"), numbers(&found["steps"], "loss"));
    assert_eq!(found["diverged"], true);
    assert!(rates[0] == 1e-3 && rates[rates.len() - 1] > 2.0 * best, "{found}");
    // The first rates lower the loss a little, and those around the best one do so by orders of magnitude.
    assert!(
        losses[10] < losses[0] && losses.iter().fold(f64::INFINITY, |a, &b| a.min(b)) < 1e-6 * losses[0],
        "{found}"
    );
    let suggested: Vec<f64> =
        found["suggested"].as_array().unwrap().iter().map(|rate| rate.as_f64().unwrap()).collect();
    assert!(
        suggested[0] < suggested[1] && suggested[1] < 2.0 * best && suggested[1] > best / 20.0,
        "{suggested:?} {best}"
    );
    assert_eq!(found, sweep(&folder, &arguments), "a sweep is the same again");
    let text = folder.good(&[&["diagnose", "lr-range"], &arguments[..]].concat()).out;
    assert!(text.contains("then the loss left all bounds") && text.contains("suggested rates: "), "{text}");
}

#[test]
fn a_sweep_is_the_same_on_every_mesh() {
    let folder = Folder::new("lr-range-meshes");
    let arguments =
        ["small.toml", "--from", "1e-4", "--to", "1.0", "--steps", "30", "--set", "devices.precision=\"f64\""];
    let one = sweep(&folder, &arguments);
    let mesh = ["--devices", "cpu*4", "--set", "devices.mesh={ data = 2, columns = 2 }"];
    let four = sweep(&folder, &[&arguments[..], &mesh].concat());
    let [one, four] = [one, four].map(|found| numbers(&found["steps"], "loss"));
    assert_eq!(one.len(), four.len());
    assert!(one.iter().zip(&four).all(|(a, b)| (a - b).abs() < 1e-9 * a.abs()), "{one:?} {four:?}");
}

#[test]
fn rates_in_the_wrong_order_are_refused() {
    let folder = Folder::new("lr-range-refused");
    let output = folder.run(&["diagnose", "lr-range", "small.toml", "--from", "1", "--to", "0.1"]);
    assert!(output.code == Some(2) && output.err.contains("expected 0 < from < to"), "{}", output.err);
    let method = ["--set", "optimizer.method={ lbfgs = {} }", "--set", "optimizer.chain=[]"];
    let output = folder.run(&[&["diagnose", "lr-range", "small.toml"], &method[..]].concat());
    assert!(output.code == Some(2), "{}", output.err);
}
