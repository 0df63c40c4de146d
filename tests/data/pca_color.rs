//! Noise along the colours of a training set: its axes are those of the files' bytes, are kept in checkpoints, and change what is trained on.

use crate::common::file;
use crate::common::runs::{Folder, assert_code, losses};
use peristyle::data::augment::ColorAxes;
use peristyle::data::{Base, DataSettings, open};
use serde_json::Value;

const SIGNS: &str = "data/signs32/data_batch_1.bin";

/// Returns the configuration of a small network on colour photographs.
fn config(augment: &str) -> String {
    format!(
        "seed = 5\n[data]\ntrain = {{ cifar = {:?} }}\ntest = {{ cifar = {:?} }}\nvalidation = 0.1\nbatch = 32\nnormalize = \"standardize\"\naugment = {augment}\n\
         [model]\ninput = [32, 32, 3]\nlayers = [{{ conv = {{ filters = 4, kernel = 5, stride = 4 }} }}, \"relu\", \"flatten\", \
         {{ dense = {{ units = 10 }} }}]\n[optimizer]\nlr = 0.01\n[train]\nsteps = 8\ncheckpoint = {{ every = \"4 steps\", keep = 100 }}\n",
        file(SIGNS),
        file("data/signs32/test_batch.bin")
    )
}

#[test]
fn axes_are_eigenvectors_of_the_covariance_of_the_bytes() {
    let text = format!("train = {{ cifar = {SIGNS:?} }}\nbatch = 32\naugment = [{{ pca_color = {{}} }}]");
    let settings: DataSettings = toml::from_str(&text).unwrap();
    let sets = open(&settings, 1, &Base::from(file(".").as_path())).unwrap();
    // Records of a label and of red, green and blue planes; products of integers are exact.
    let bytes = std::fs::read(file(SIGNS)).unwrap();
    let (mut sums, mut products, mut count) = ([0u64; 3], [[0u64; 3]; 3], 0u64);
    for record in bytes.chunks_exact(3073) {
        for pixel in 0..1024 {
            let x = [0, 1, 2].map(|c| u64::from(record[1 + c * 1024 + pixel]));
            for i in 0..3 {
                sums[i] += x[i];
                (0..3).for_each(|j| products[i][j] += x[i] * x[j]);
            }
            count += 1;
        }
    }
    let mean = |sum: u64| sum as f64 / count as f64;
    let covariance = |i: usize, j: usize| (mean(products[i][j]) - mean(sums[i]) * mean(sums[j])) / (255.0 * 255.0);
    let axes = sets.train.colors.0;
    let length = |x: [f64; 3]| x.iter().map(|x| x * x).sum::<f64>().sqrt();
    let mut trace = 0.0;
    for (k, axis) in axes.into_iter().enumerate() {
        // C u = lambda u, where the axis is 255 lambda u.
        let eigenvalue = length(axis) / 255.0;
        for i in 0..3 {
            let product = (0..3).map(|j| covariance(i, j) * axis[j]).sum::<f64>();
            assert!((product - eigenvalue * axis[i]).abs() < 1e-9, "{k}: {axes:?}");
        }
        let largest = axis.into_iter().max_by(|a, b| a.abs().total_cmp(&b.abs())).unwrap();
        assert!(largest > 0.0 && (k == 0 || length(axis) < length(axes[k - 1])), "{axes:?}");
        trace += eigenvalue;
    }
    assert!((trace - (0..3).map(|i| covariance(i, i)).sum::<f64>()).abs() < 1e-9, "{trace}");
    let plain: DataSettings = toml::from_str(&format!("train = {{ cifar = {SIGNS:?} }}\nbatch = 32")).unwrap();
    let plain = open(&plain, 1, &Base::from(file(".").as_path())).unwrap();
    assert_eq!(plain.train.colors, ColorAxes::UNIFORM);
}

#[test]
fn a_resume_keeps_the_axes_and_goes_on_bit_for_bit() {
    let folder = Folder::new("pca-color");
    folder.write("signs.toml", &config("[{ shift = 2 }, { pca_color = 0.1 }]"));
    folder.write("plain.toml", &config("[{ shift = 2 }]"));
    let train =
        |config: &str, dir: &str, more: &[&str]| folder.run(&[&["train", config, "--run-dir", dir], more].concat());
    let axes = |dir: &str, step: u64| {
        let state: Value =
            serde_json::from_str(&folder.read(&format!("{dir}/checkpoints/step-{step:08}/state.json"))).unwrap();
        state["info"]["data"]["colors"].clone()
    };
    assert_code(&train("signs.toml", "whole", &[]), 0, &[]);
    assert_code(&train("signs.toml", "parts", &["--set", "train.steps=4"]), 0, &[]);
    assert_code(&train("signs.toml", "parts", &["--resume", "--set", "data.workers=3"]), 0, &[]);
    assert!(folder.checkpoint("parts", 8) == folder.checkpoint("whole", 8));
    assert_eq!(losses(&folder.metrics("parts")), losses(&folder.metrics("whole")));
    assert!(axes("whole", 8).is_array() && axes("parts", 4) == axes("whole", 8), "{}", axes("whole", 8));

    assert_code(&train("plain.toml", "plain", &[]), 0, &[]);
    assert_ne!(losses(&folder.metrics("plain")), losses(&folder.metrics("whole")));
    assert!(axes("plain", 8).is_null());

    // Other samples are not measured again; with another normalisation, all numbers are.
    let fewer = ["--resume", "--set", "data.validation=0.5", "--allow-change", "data.validation"];
    assert_code(&train("signs.toml", "parts", &[&fewer[..], &["--set", "train.steps=12"]].concat()), 0, &[]);
    assert_eq!(axes("parts", 12), axes("whole", 8));
    let unit = [
        "--resume",
        "--set",
        "data.validation=0.5",
        "--set",
        "data.normalize=\"unit\"",
        "--allow-change",
        "data.normalize",
    ];
    assert_code(&train("signs.toml", "parts", &[&unit[..], &["--set", "train.steps=16"]].concat()), 0, &[]);
    assert_ne!(axes("parts", 16), axes("whole", 8));

    // An augmentation that is new to the run is fitted when it is added.
    let added = ["--resume", "--allow-change", "data.augment", "--set", "train.steps=12"];
    assert_code(&train("signs.toml", "plain", &added), 0, &[]);
    assert_eq!(axes("plain", 12), axes("whole", 8));
    assert_code(&folder.run(&["eval", "whole"]), 0, &[]);
}

#[test]
fn mistakes_are_found() {
    let folder = Folder::new("pca-color-mistakes");
    let grey = folder.run(&["check", "small.toml", "--set", "data.augment=[{ pca_color = 0.1 }]"]);
    assert_code(&grey, 2, &["pca_color needs images of 3 channels, not 1; remove it"]);
    folder.write("signs.toml", &config("[{ pca_color = { std = -1 } }]"));
    assert_code(
        &folder.run(&["check", "signs.toml"]),
        2,
        &["\"pca_color\": std = -1, expected a finite number above 0"],
    );
}
