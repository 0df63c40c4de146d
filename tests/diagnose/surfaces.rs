//! Functions of two variables, through the command: the paths that optimisers take, which metrics.jsonl holds.

use crate::common::file;
use crate::common::runs::Folder;
use serde_json::Value;

/// Returns x, y and the loss of every step of a run with more settings, before the update.
fn path(folder: &Folder, sets: &[&str]) -> Vec<[f64; 3]> {
    let _ = std::fs::remove_dir_all(folder.at("run"));
    let more: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).collect();
    folder.good(&[&["train", "ravine.toml", "--run-dir", "run"], &more[..]].concat());
    let number = |event: &Value, key: &str| event[key].as_f64().unwrap_or_else(|| panic!("no {key} in {event}"));
    let metrics = folder.metrics("run");
    let steps = metrics.iter().filter(|event| event["event"] == "step");
    steps.map(|event| ["x", "y", "loss"].map(|key| number(event, key))).collect()
}

fn folder(name: &str) -> Folder {
    let folder = Folder::new(name);
    std::fs::copy(file("configs/ravine.toml"), folder.at("ravine.toml")).unwrap();
    folder
}

const DESCENT: &str = "optimizer.chain=[]";

#[test]
fn descent_on_a_quadratic_shrinks_each_coordinate_by_its_curvature() {
    let folder = folder("surfaces-quadratic");
    for device in ["cpu", "cpu*2", "emu"] {
        let device = format!("devices.use={device:?}");
        let quadratic = "model.loss={ surface = { function = \"quadratic\", condition = 5.0 } }";
        let sets = [DESCENT, quadratic, "optimizer.lr=1.5", "train.steps=20", &device];
        for (step, [x, y, loss]) in path(&folder, &sets).into_iter().enumerate() {
            let exact = (-1.5 * 0.7f64.powi(step as i32), 2.0 * (-0.5f64).powi(step as i32));
            assert!((x - exact.0).abs() < 1e-6 && (y - exact.1).abs() < 1e-6, "{device} {step}: {x} {y}");
            assert!((loss - (exact.0.powi(2) / 5.0 + exact.1.powi(2)) / 2.0).abs() < 1e-6, "{device} {step}: {loss}");
        }
    }
}

#[test]
fn momentum_follows_the_ravine_to_its_minimum() {
    let folder = folder("surfaces-ravine");
    let last = *path(&folder, &[]).last().unwrap();
    assert!((last[0] - 1.0).abs() < 0.01 && (last[1] - 1.0).abs() < 0.02 && last[2] < 1e-4, "{last:?}");
    // Plain descent with the same rate is on its way.
    assert!((path(&folder, &[DESCENT]).last().unwrap()[0] - 1.0).abs() > 0.1);
}

#[test]
fn descent_leaves_a_saddle_along_its_maximum() {
    let folder = folder("surfaces-saddle");
    let sets = [
        DESCENT,
        "model.loss.surface.function=saddle",
        "model.layers.point.init.listed=[1.0, 1e-6]",
        "optimizer.lr=0.1",
    ];
    let all = path(&folder, &[&sets[..], &["train.steps=150"]].concat());
    // First towards the saddle point, where the gradient nearly vanishes; then away from it.
    let slowest = all.iter().map(|[x, y, _]| x.hypot(*y)).fold(f64::INFINITY, f64::min);
    let last = all[149];
    assert!(slowest < 0.01 && last[0].abs() < 1e-6 && last[1] > 1.0 && last[2] < -0.5, "{slowest} {last:?}");
}

#[test]
fn clipping_avoids_the_jump_at_a_cliff() {
    let folder = folder("surfaces-cliff");
    let cliff = "model.loss={ surface = { function = \"cliff\", condition = 400.0 } }";
    // At the edge of the cliff, where the slope is 42.
    let start = "model.layers.point.init.listed=[0.005, 0.0]";
    let furthest = |chain: &str| {
        let sets = [cliff, start, chain, "optimizer.lr=0.5", "train.steps=60"];
        path(&folder, &sets).iter().map(|[x, ..]| x.abs()).fold(0.0, f64::max)
    };
    let (free, clipped) = (furthest(DESCENT), furthest("optimizer.chain=[{ clip_by_global_norm = 1.0 }]"));
    assert!(free > 5.0 && clipped < 1.0, "{free} {clipped}");
}

#[test]
fn mistakes_have_their_place() {
    let folder = folder("surfaces-mistakes");
    for (set, expected) in [
        (
            "model.layers.point.units=3",
            "layer \"point\": 3 outputs for each sample, expected 2: the variables of the function",
        ),
        ("model.loss.surface.condition=0.5", "condition = 0.5, expected a number from 1 to 1e6"),
        (
            "model.layers.point.init.listed=[]",
            "layer \"point\" init \"listed\": values is empty, expected at least one number",
        ),
        ("model.loss.surface.function=bowl", "\"bowl\""),
    ] {
        let failed = folder.run(&["check", "ravine.toml", "--set", set]);
        assert!(failed.code == Some(2) && failed.err.contains(expected), "{set}: {}", failed.err);
    }
}
