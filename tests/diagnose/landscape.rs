//! `diagnose landscape`: the loss on planes where it is known, and the path of a run.

use crate::common::file;
use crate::common::runs::Folder;
use serde_json::Value;

fn landscape(folder: &Folder, arguments: &[&str]) -> Value {
    let output = folder.good(&[&["diagnose", "landscape"], arguments, &["--json"]].concat());
    serde_json::from_str(&output.out).unwrap_or_else(|error| panic!("{error}: {}", output.out))
}

fn numbers(list: &Value) -> Vec<f64> {
    list.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

#[test]
fn a_function_of_two_variables_is_shown_over_its_variables_with_the_path() {
    let folder = Folder::new("landscape-surface");
    folder.write("ravine.toml", &std::fs::read_to_string(file("configs/ravine.toml")).unwrap());
    let sets = ["--set", "train.steps=50", "--set", "train.checkpoint={ every = \"50 steps\" }"];
    folder.good(&[&["train", "ravine.toml", "--run-dir", "run"], &sets[..]].concat());
    let arguments = ["run", "--plane", "weights", "--points", "21", "--svg", "ravine.svg"];
    let found = landscape(&folder, &arguments);
    let [xs, ys] = [0, 1].map(|axis| numbers(&found["axes"][axis]));
    let losses = numbers(&found["losses"]);
    // The ravine ((1 - x)^2 + 10 (y - x^2)^2) / 2.
    for (j, y) in ys.iter().enumerate() {
        for (i, x) in xs.iter().enumerate() {
            let expected = ((1.0 - x).powi(2) + 10.0 * (y - x * x).powi(2)) / 2.0;
            let loss = losses[j * xs.len() + i];
            assert!(
                (loss - expected).abs() < 1e-9 * expected.abs().max(1.0),
                "at {x}, {y}: {loss}, expected {expected}"
            );
        }
    }
    let path: Vec<Vec<f64>> = found["path"].as_array().unwrap().iter().map(numbers).collect();
    assert_eq!((path.len(), &path[0][..]), (50, &[-1.5, 2.0][..]));
    assert!(xs[0] < -1.5 && ys[ys.len() - 1] > 2.0, "the axes have room for the path");
    let picture = folder.read("ravine.svg");
    assert!(
        picture.starts_with("<svg") && picture.contains("second weight") && picture.contains("loss"),
        "{picture:.300}"
    );
}

#[test]
fn principal_directions_hold_the_path_of_gradient_descent() {
    let folder = Folder::new("landscape-run");
    let sets = ["--set", "train.steps=40", "--set", "train.checkpoint={ every = \"5 steps\", keep = 10 }"];
    folder.train("run", &sets);
    let found = landscape(&folder, &["run", "--points", "9", "--samples", "64"]);
    let path: Vec<Vec<f64>> = found["path"].as_array().unwrap().iter().map(numbers).collect();
    assert!(path.len() == 8 && path[7].iter().all(|x| x.abs() < 1e-6), "{path:?}");
    assert!(found["share"].as_f64().unwrap() > 0.7, "{}", found["share"]);
    let [xs, ys] = [0, 1].map(|axis| numbers(&found["axes"][axis]));
    assert!(path.iter().all(|at| xs[0] < at[0] && at[0] < xs[8] && ys[0] < at[1] && at[1] < ys[8]), "{path:?}");
    assert!(numbers(&found["losses"]).len() == 81);
    // Random directions are the same for the same seed.
    let random = ["run", "--plane", "random", "--points", "3", "--samples", "32", "--reach", "0.5"];
    let first = landscape(&folder, &random);
    assert_eq!(first, landscape(&folder, &random));
    let losses = numbers(&first["losses"]);
    assert!(losses.iter().any(|loss| *loss > losses[4]), "the middle is not the highest: {losses:?}");
    let text = folder.good(&["diagnose", "landscape", "run", "--points", "5", "--samples", "32"]).out;
    assert!(text.contains("losses on 32 samples") && text.contains("of the checkpoints' squared distances"), "{text}");
}

#[test]
fn a_plane_that_is_not_there_is_refused() {
    let folder = Folder::new("landscape-refused");
    let failed = |arguments: &[&str]| {
        let output = folder.run(&[&["diagnose", "landscape"], arguments].concat());
        assert_eq!(output.code, Some(2), "{}", output.err);
        output.err
    };
    assert!(failed(&["small.toml", "--plane", "principal"]).contains("expected at least 3"));
    assert!(failed(&["small.toml", "--reach", "0"]).contains("expected a number above 0"));
}
