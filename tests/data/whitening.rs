//! Whitening of real images: what it makes of the training data, that it is kept in checkpoints, and that every device has one curve.

use crate::common::runs::{Folder, assert_code, losses};
use peristyle::data::whiten::{Pca, Zca};
use peristyle::data::{Base, Batches, DataSettings, Dataset, Labels, Pixels, SampleSets, Whiten, Whitening, open};
use std::path::Path;

/// Opens the digits of 8x8 pixels: 1,437 images, of which 144 are for validation.
fn digits(more: &str) -> SampleSets {
    let file = |what: &str| format!("\"data/digits8/train-{what}-ubyte.gz\"");
    let text = format!(
        "train = {{ idx = {{ images = {}, labels = {} }} }}\nbatch = 100\nvalidation = 0.1\nnormalize = \
         \"standardize\"\n{more}",
        file("images-idx3"),
        file("labels-idx1")
    );
    let settings: DataSettings = toml::from_str(&text).unwrap();
    open(&settings, 1, &Base::from(Path::new(env!("CARGO_MANIFEST_DIR")))).unwrap()
}

/// Returns mean and covariance of the images that a network gets in an epoch without augmentation.
fn moments(sets: &SampleSets) -> (Vec<f64>, Vec<Vec<f64>>) {
    let mut batches = Batches::eval(&sets.train, sets.batch);
    let mut images: Vec<f64> = Vec::new();
    for index in 0..batches.plan().batches() {
        let mut batch = batches.empty();
        batches.fill(0, index, &mut batch).unwrap();
        images.extend(batch.images.iter().map(|&x| f64::from(x)));
    }
    let (n, count) = (64, images.len() as f64 / 64.0);
    let mean: Vec<f64> = (0..n).map(|i| images.iter().skip(i).step_by(n).sum::<f64>() / count).collect();
    let product = |i: usize, j: usize| {
        images.chunks(n).map(|image| (image[i] - mean[i]) * (image[j] - mean[j])).sum::<f64>() / count
    };
    let covariance = (0..n).map(|i| (0..n).map(|j| product(i, j)).collect()).collect();
    (mean, covariance)
}

fn whitening(sets: &SampleSets) -> &Whitening {
    sets.train.whitening.as_ref().unwrap()
}

/// Returns the largest difference of a covariance from a diagonal one.
fn off(covariance: &[Vec<f64>], diagonal: impl Fn(usize) -> f64) -> f64 {
    let each = covariance.iter().enumerate().flat_map(|(i, row)| row.iter().enumerate().map(move |(j, x)| (i, j, x)));
    each.map(|(i, j, x)| (x - if i == j { diagonal(i) } else { 0.0 }).abs()).fold(0.0, f64::max)
}

#[test]
fn the_covariance_of_the_whitened_training_part_is_diagonal_or_the_identity() {
    let plain = digits("");
    let decorrelated = digits("whiten = \"decorrelate\"");
    let (mean, covariance) = moments(&decorrelated);
    let variances: Vec<f64> = (0..64).map(|i| covariance[i][i]).collect();
    // Values of up to 40 in f32, in sums of 64: a few 1e-6 each.
    assert!(mean.iter().all(|mean| mean.abs() < 1e-5), "{mean:?}");
    assert!(off(&covariance, |i| variances[i]) < 2e-5, "{}", off(&covariance, |i| variances[i]));
    assert!(variances.is_sorted_by(|a, b| *a >= *b - 1e-5), "{variances:?}");
    // A turn keeps the sum of all variances.
    let trace = |covariance: &[Vec<f64>]| (0..64).map(|i| covariance[i][i]).sum::<f64>();
    let before = trace(&moments(&plain).1);
    assert!((trace(&covariance) - before).abs() < 1e-4, "{} {before}", trace(&covariance));

    // Some pixels are hardly ever inked: 9 of the variances are below 1e-3. All others are scaled to 1.
    let (mean, covariance) = moments(&digits("whiten = { pca = 1e-9 }"));
    assert!(mean.iter().all(|mean| mean.abs() < 1e-3), "{mean:?}");
    let large = variances.iter().filter(|&&v| v > 1e-3).count();
    assert!(large == 55, "{variances:?}");
    let part: Vec<Vec<f64>> = covariance[..large].iter().map(|row| row[..large].to_vec()).collect();
    assert!(off(&part, |_| 1.0) < 1e-3, "{}", off(&part, |_| 1.0));
    let (_, covariance) = moments(&digits("whiten = { pca = 0.5 }"));
    assert!(off(&covariance, |i| variances[i] / (variances[i] + 0.5)) < 1e-4);

    // ZCA is PCA whitening, turned back.
    let [u, pca, zca] = [&decorrelated, &digits("whiten = { pca = 0.1 }"), &digits("whiten = { zca = 0.1 }")]
        .map(|sets| whitening(sets).matrix());
    for i in 0..64 {
        for j in 0..64 {
            assert_eq!(zca[i * 64 + j], zca[j * 64 + i]);
            let turned: f64 = (0..64).map(|k| f64::from(u[k * 64 + i]) * f64::from(pca[k * 64 + j])).sum();
            assert!((f64::from(zca[i * 64 + j]) - turned).abs() < 1e-5, "{i}, {j}");
        }
    }
}

#[test]
fn samples_for_validation_have_no_influence() {
    for (text, how) in [
        ("whiten = { zca = 0.1 }", Whiten::from(Zca { epsilon: 0.1 })),
        ("whiten = { pca = 0.1 }", Pca { epsilon: 0.1 }.into()),
    ] {
        let sets = digits(text);
        let validation = sets.validation.as_ref().unwrap();
        let (set, data) = (&sets.train, &sets.train.data);
        let Pixels::U8(mut pixels) = data.all_pixels().unwrap() else { panic!("digits are bytes") };
        let labels = || Labels::Index(vec![0; data.images()]);
        let refitted = |pixels: &[u8], samples: &[u32]| {
            let data = Dataset::loaded(Pixels::U8(pixels.to_vec()), labels(), [8, 8, 1], 10);
            Whitening::fit(&how, &set.normalization, &data, samples).unwrap()
        };
        let all: Vec<u32> = (0..data.images() as u32).collect();
        assert!(refitted(&pixels, &all) != *whitening(&sets));
        validation.samples.iter().for_each(|&sample| pixels[sample as usize * 64..][..64].fill(255));
        assert!(refitted(&pixels, &set.samples) == *whitening(&sets));
        assert_eq!(validation.whitening, set.whitening);
    }
}

const ZCA: [&str; 2] = ["--set", "data.whiten={ zca = 0.1 }"];

/// Returns the whitening matrix in a checkpoint.
fn matrix(folder: &Folder, dir: &str, step: u64) -> Option<Vec<u8>> {
    let bytes = folder.checkpoint(dir, step)[1].clone();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let mean = file.tensor("data.whitening.mean").ok()?;
    let matrix = file.tensor("data.whitening.matrix").unwrap();
    assert_eq!((mean.shape(), matrix.shape()), (&[64][..], &[64, 64][..]));
    Some(matrix.data().to_vec())
}

#[test]
fn a_resume_and_an_evaluation_have_the_whitening_of_the_run() {
    let folder = Folder::new("whitening-resume");
    let to = |dir: &str, steps: &str, more: &[&str]| {
        let arguments = ["train", "small.toml", "--run-dir", dir, "--resume", "--set", steps];
        folder.run(&[&arguments[..], more].concat())
    };
    folder.train("whole", &[&ZCA[..], &["--set", "train.steps=20"]].concat());
    folder.train("parts", &[&ZCA[..], &["--set", "train.steps=7"]].concat());
    let resumed = to("parts", "train.steps=20", &[&ZCA[..], &["--set", "data.workers=3"]].concat());
    assert_code(&resumed, 0, &[]);
    assert!(!resumed.err.contains("is not used"), "{}", resumed.err);
    assert!(folder.checkpoint("parts", 20) == folder.checkpoint("whole", 20));
    assert_eq!(losses(&folder.metrics("parts")), losses(&folder.metrics("whole")));
    assert_eq!(matrix(&folder, "parts", 7), matrix(&folder, "whole", 20));
    let evaluated = folder.good(&["eval", "whole"]);
    let last = folder.metrics("whole").into_iter().rfind(|event| event["event"] == "eval" && event["split"] == "test");
    let loss = format!("{:.6}", last.unwrap()["loss"].as_f64().unwrap());
    assert!(evaluated.out.contains(&loss), "{loss}: {}", evaluated.out);
    let shown = folder.good(&["ckpt", "show", "whole"]);
    assert!(shown.out.contains("data.whitening.matrix"), "{}", shown.out);

    let fewer = ["--set", "data.validation=0.2", "--allow-change", "data.validation"];
    assert_code(&to("parts", "train.steps=21", &[&ZCA[..], &fewer].concat()), 0, &[]);
    assert_eq!(matrix(&folder, "parts", 21), matrix(&folder, "parts", 20), "other samples are not fitted again");
    let other = ["--set", "data.whiten={ zca = 0.2 }", "--set", "data.validation=0.2"];
    let refused = to("parts", "train.steps=22", &other);
    assert_code(&refused, 2, &["data.whiten.zca: 0.1 in the checkpoint, 0.2 now", "--allow-change data.whiten.zca"]);
    assert_code(&to("parts", "train.steps=22", &[&other[..], &["--allow-change", "data.whiten"]].concat()), 0, &[]);
    assert_ne!(matrix(&folder, "parts", 22), matrix(&folder, "parts", 21));
    let none = ["--set", "data.validation=0.2", "--allow-change", "data.whiten"];
    let without = to("parts", "train.steps=23", &none);
    assert_code(&without, 0, &["data.whiten: \"zca\" in the checkpoint, not set now"]);
    assert_eq!(matrix(&folder, "parts", 23), None);
}

#[test]
fn whitened_digits_have_one_curve_on_every_device() {
    let folder = Folder::new("whitening-devices");
    let on = |devices: &str| {
        let devices_set = format!("devices.use=\"{devices}\"");
        folder.train(devices, &[&ZCA[..], &["--set", &devices_set, "--set", "train.steps=15"]].concat());
        losses(&folder.metrics(devices))
    };
    let [one, two, emulated] = ["cpu", "cpu*2", "emu*2"].map(on);
    let plain = {
        folder.train("plain", &["--set", "train.steps=15"]);
        losses(&folder.metrics("plain"))
    };
    assert_eq!(one.len(), 15);
    // Only the order of sums differs: 1e-7 per operation in f32, amplified by 15 updates.
    for other in [&two, &emulated] {
        assert!(one.iter().zip(other).all(|(a, b)| (a - b).abs() <= 1e-4 * a.abs()), "{other:?}, expected {one:?}");
    }
    assert!(one.iter().zip(&plain).all(|(a, b)| a != b), "whitening has no effect");
}

#[test]
fn mistakes_are_found_before_the_data_are_read() {
    let folder = Folder::new("whitening-mistakes");
    let check = |set: &str, more: &[&str]| folder.run(&[&["check", "small.toml", "--set", set], more].concat());
    let large = ["--set", "data.train={ synthetic = { images = 9, classes = 2, shape = [64, 65, 1] } }"];
    let expected = "whiten multiplies by a matrix of all pairs of features, of which images of 64x65x1 have 4160, expected at most 4096";
    assert_code(&check("data.whiten=\"pca\"", &large), 2, &[expected]);
    let crop = ["--set", "data.augment=[{ crop = 6 }]", "--set", "model.input=[6, 6, 1]"];
    assert_code(&check("data.whiten=\"pca\"", &crop), 2, &["whiten is fitted to images as they are stored"]);
    let unknown = "unknown way to whiten \"zka\" (did you mean \"zca\"?); expected one of: decorrelate, pca, zca";
    assert_code(&check("data.whiten=\"zka\"", &[]), 2, &[unknown]);
    assert_code(&check("data.whiten={ zca = -1 }", &[]), 2, &["zca: epsilon = -1, expected a number above 0"]);
    assert_code(&check("data.whiten=\"decorrelate\"", &[]), 0, &[]);
}
