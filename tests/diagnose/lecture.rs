//! Every experiment of configs/lecture shows its claim with seeds for which nothing was tuned.

use crate::common::file;
use crate::common::runs::peristyle;

/// The seeds, other than those of the files and of docs/LECTURE.md.
const SEEDS: &str = "41,42,43,44,45";

/// The experiments, each of which has a test of its own.
macro_rules! experiments {
    ($($name:ident),* $(,)?) => {
        const NAMES: &[&str] = &[$(stringify!($name)),*];
        $(#[test] fn $name() { holds(stringify!($name)); })*
    };
}

experiments! {
    augmentation, batch_norm, cliff, clipping_deep, decay, dropout, finetune, hard_examples, init_curves, inputs, layer_rates, optimizers, oscillation,
    parallel, plateau, quadratic, rates, saddle, shuffle, stochastic,
}

fn holds(name: &str) {
    let dir = std::env::temp_dir().join(format!("peristyle-lecture-{name}-{}", std::process::id()));
    let experiment = file(&format!("configs/lecture/experiments/{name}.toml"));
    let mut command = peristyle(&file("."));
    let output = command.arg("compare").arg(experiment).args(["--seeds", SEEDS, "--out"]).arg(&dir).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && text.lines().any(|line| line.starts_with("holds")), "{text}");
    let pictures = std::fs::read_dir(&dir).unwrap().filter(|entry| {
        let path = entry.as_ref().unwrap().path();
        path.extension().is_some_and(|extension| extension == "svg")
            && std::fs::read_to_string(path).unwrap().contains("<svg")
    });
    assert!(pictures.count() > 0, "{text}");
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn every_experiment_is_tested() {
    let all = std::fs::read_dir(file("configs/lecture/experiments")).unwrap();
    let mut all: Vec<String> =
        all.map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_string()).collect();
    all.sort();
    assert_eq!(all, NAMES);
}
