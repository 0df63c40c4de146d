//! Samples with large losses come more often, and some labels are wrong: how often, by which losses, on every device and through a resume.

use crate::common::file;
use crate::common::runs::{Folder, assert_code, events, losses};
use peristyle::data::{self, Base, Batches, DataSettings, HardExamples, Known, Labels, SampleOrder, SampleSets};
use peristyle::device::{Clock, Random, RandomStream};
use peristyle::layers::Mode;
use peristyle::placement::Variant;
use peristyle::train::{DataPolicy, Job};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// The share, the cap and the outliers of most tests.
const HARD: &str = "data.order={ hard_examples = { share = 0.7, cap = 3.0, outliers = 0.02 } }";

const DIGITS: &str = "train = { idx = { images = \"data/digits8/train-images-idx3-ubyte.gz\", labels = \
                      \"data/digits8/train-labels-idx1-ubyte.gz\" } }\nvalidation = 0.1\nbatch = 100\n";

fn settings(more: &str) -> DataSettings {
    toml::from_str(&format!("{DIGITS}{more}")).unwrap()
}

fn base() -> Base {
    Base::from(Path::new(env!("CARGO_MANIFEST_DIR")))
}

fn open(more: &str, seed: u64) -> SampleSets {
    data::open(&settings(more), seed, &base()).unwrap()
}

/// Returns the samples of an epoch in their order.
fn epoch(mut batches: Batches, epoch: u64) -> Vec<u32> {
    let mut batch = batches.empty();
    let mut all = Vec::new();
    for index in 0..batches.plan().batches() {
        batches.fill(epoch, index, &mut batch).unwrap();
        all.extend((0..batch.rows).map(|row| batches.sample(batch.first + row)));
    }
    all
}

#[test]
fn samples_come_as_often_as_their_losses_say() {
    let sets = open("order = { hard_examples = { share = 0.8, cap = 2.5, outliers = 0.101 } }", 1);
    let count = sets.train.samples.len();
    // A tenth has large losses, another tenth huge ones, and the others small ones.
    let kinds = Random::new(1, RandomStream::Probe, 0, 0).permutation(count);
    let values: Vec<f32> =
        kinds.iter().map(|&kind| [1e6, 10.0].get(kind as usize % 10).copied().unwrap_or(1.0)).collect();
    let with = || Batches::train(&sets).with_losses(Some(Arc::from(&values[..])));
    let order = epoch(with(), 3);
    assert_eq!((order.len(), epoch(with(), 3) == order, epoch(with(), 4) == order), (count, true, false));
    let mut counts: BTreeMap<u32, usize> = BTreeMap::new();
    order.iter().for_each(|&sample| *counts.entry(sample).or_default() += 1);
    let mean = |kind: u32| {
        let of = sets.train.samples.iter().zip(&kinds).filter(|(_, of)| *of % 10 == kind);
        let found: Vec<usize> = of.map(|(sample, _)| counts.get(sample).copied().unwrap_or(0)).collect();
        found.iter().sum::<usize>() as f64 / found.len() as f64
    };
    // The mean of the losses is 1.9 once the outliers have the median, 1. Large ones would come 0.2 + 0.8 * 10 / 1.9 = 4.4 times, and have 2.5; the
    // others share 10 - 2.5 among nine. Means of 129 whole numbers have standard deviations of 0.044 and 0.033.
    assert!((mean(1) - 2.5).abs() < 0.15, "{}", mean(1));
    for kind in [0, 2, 3, 4, 5, 6, 7, 8, 9] {
        assert!((mean(kind) - 7.5 / 9.0).abs() < 0.1, "{kind}: {}", mean(kind));
    }
    // Without losses, and with those of an order that has none, every sample comes once.
    let shuffled = epoch(Batches::train(&open("", 1)), 3);
    assert_eq!(epoch(Batches::train(&sets), 3), shuffled);
    let plain = Batches::train(&open("", 1)).with_losses(Some(Arc::from(&values[..])));
    assert_eq!(epoch(plain, 3), shuffled);
}

/// Returns the losses in a checkpoint.
fn stored(folder: &Folder, dir: &str, step: u64) -> Option<Vec<f32>> {
    let bytes = folder.checkpoint(dir, step)[1].clone();
    let state = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let tensor = state.tensor("data.losses").ok()?;
    Some(tensor.data().chunks(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect())
}

const SAME: &str = "data.test={ idx = { images = \"data/train-images-idx3-ubyte.gz\", labels = \
                    \"data/train-labels-idx1-ubyte.gz\" } }";

/// One sample after another, in an evaluation program of its own, on one device.
#[test]
fn the_measured_losses_are_those_of_single_samples_in_evaluations() {
    let folder = Folder::new("hard-losses");
    let two = "model.loss=[{ softmax_cross_entropy = { label_smoothing = 0.1 }, weight = 0.5 }, { name = \"square\", \
               mean_squared_error = {}, weight = 2.0 }]";
    for (dir, devices, mesh, more) in [
        ("one", "cpu", "data = 1", &[][..]),
        ("columns", "cpu*2", "columns = 2", &[two, "data.mix=[{ mixup = 0.3 }]"]),
        ("both", "cpu*4", "data = 2, columns = 2", &["train.accumulate=3"]),
        ("emulated", "emu*2", "data = 2", &[two, "data.mix=[{ cutmix = 1.0 }]"]),
        ("split", "cpu*3", "columns = 3", &["devices.split=\"batch\"", "data.batch=200"]),
    ] {
        let mut sets: Vec<String> = vec![HARD.into(), SAME.into(), "data.validation=0.0".into()];
        sets.extend(more.iter().map(|set| set.to_string()));
        let places = [format!("devices.use=\"{devices}\""), format!("devices.mesh={{ {mesh} }}")];
        let trained =
            ["train.epochs=2", "train.steps=20", "train.evaluate=\"1 epoch\"", "train.checkpoint.every=\"1 epoch\""];
        let run: Vec<String> =
            sets.iter().cloned().chain(places).chain(trained[1..].iter().map(|set| set.to_string())).collect();
        let arguments: Vec<&str> = run.iter().flat_map(|set| ["--set", set]).collect();
        folder.train(dir, &arguments);
        let evaluation = events(&folder.metrics(dir), "eval").remove(0);
        let step = evaluation["step"].as_u64().unwrap();
        let found = stored(&folder, dir, step).expect("the checkpoint has losses");
        assert_eq!(found.len(), 1437);
        // Each is rounded to three digits.
        let mean = found.iter().map(|&loss| f64::from(loss)).sum::<f64>() / found.len() as f64;
        let expected = evaluation["loss"].as_f64().unwrap();
        assert!((mean - expected).abs() < 1e-3 * expected, "{dir}: {mean}, expected {expected}");

        let checkpoint = folder.at(&format!("{dir}/checkpoints/step-{step:08}"));
        sets.extend(["data.batch=1".to_string(), "train.accumulate=1".to_string()]);
        sets.push(format!("model.from={:?}", checkpoint.display().to_string()));
        let (mut job, plan) = Job::open(&folder.at("small.toml"), &sets, DataPolicy::Required).unwrap();
        let splits = data::open(&job.config.data, job.config.seed, &job.config.base).unwrap();
        let mut session = job.session(plan).unwrap();
        session.prepare(data::Preparation::of(&splits)).unwrap();
        job.initialise(&mut session, &splits).unwrap();
        let mut batches = Batches::eval(&splits.train, 1).prepared_by(session.preparer());
        let mut batch = batches.empty();
        for (index, &loss) in found.iter().enumerate() {
            batches.fill(0, index, &mut batch).unwrap();
            let expected = session.run(Variant::eval(1), &mut batch, Clock::default()).unwrap().loss;
            let far = (f64::from(loss) - expected).abs();
            assert!(far <= 0.0051 * expected + 1e-6, "{dir}, sample {index}: {loss}, expected {expected}");
        }
    }
}

/// Seventy-two samples, so that in f32 hardly a loss lies so near to the border between two rounded ones that rounding decides.
#[test]
fn one_curve_on_every_device() {
    let folder = Folder::new("hard-devices");
    let curve = |dir: &str, order: &str, devices: &str, mesh: &str, more: &[&str]| {
        let (devices, mesh) = (format!("devices.use=\"{devices}\""), format!("devices.mesh={{ {mesh} }}"));
        let common = ["data.validation=0.95", "data.batch=16", order, &devices, &mesh];
        let sets: Vec<&str> = common.iter().chain(more).flat_map(|set| ["--set", set]).collect();
        folder.train(dir, &sets);
        losses(&folder.metrics(dir))
    };
    let far = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| ((a - b) / b).abs()).fold(0.0, f64::max);
    let double = ["devices.precision=\"f64\""];
    let reference = curve("f64", HARD, "cpu", "data = 1", &double);
    for (dir, devices, mesh) in [("f64-data", "cpu*2", "data = 2"), ("f64-columns", "cpu*4", "data = 2, columns = 2")] {
        let apart = far(&curve(dir, HARD, devices, mesh, &double), &reference);
        assert!(apart < 1e-9, "{dir}: {apart:e}");
    }
    for (dir, devices, mesh) in [
        ("one", "cpu", "data = 1"),
        ("two", "cpu*2", "data = 2"),
        ("columns", "cpu*2", "columns = 2"),
        ("emu", "emu", "data = 1"),
        ("emu-columns", "emu*2", "columns = 2"),
    ] {
        let apart = far(&curve(dir, HARD, devices, mesh, &[]), &reference);
        assert!(apart < 1e-3, "{dir}: {apart:e}");
    }
    let accumulated = curve("parts", HARD, "cpu", "data = 1", &["train.accumulate=2", "model.layers.bn=\"relu\""]);
    let whole = curve("whole", HARD, "cpu", "data = 1", &["model.layers.bn=\"relu\""]);
    assert!(far(&accumulated, &whole) < 1e-3, "{:e}", far(&accumulated, &whole));
    // The first epoch, of five updates, is a shuffle; the losses after it may still be so close that each sample comes once.
    let shuffled = curve("shuffled", "data.order=\"shuffle\"", "cpu", "data = 1", &double);
    assert!(shuffled[..5] == reference[..5] && far(&shuffled[5..], &reference[5..]) > 0.01);
}

#[test]
fn a_run_resumes_bit_for_bit() {
    let folder = Folder::new("hard-resume");
    let more = ["--set", HARD, "--set", "train.steps=33", "--set", "train.checkpoint.keep=9"];
    folder.train("whole", &more);
    // An epoch has 13 steps: in the first one, at its end, and in the middle of the second and third.
    let stops = ["train.steps=8", "train.steps=13", "train.steps=20", "train.steps=26", "train.steps=30"];
    folder.train("part", &[&more[..], &["--set", stops[0]]].concat());
    for stop in stops[1..].iter().chain(&["train.steps=33"]) {
        let resumed =
            folder.train("part", &[&more[..], &["--resume", "--set", stop, "--set", "devices.threads=3"]].concat());
        assert!(!resumed.err.contains("is not used"), "{}", resumed.err);
    }
    assert_eq!(losses(&folder.metrics("part")), losses(&folder.metrics("whole")));
    assert!(folder.checkpoint("part", 33) == folder.checkpoint("whole", 33));
    let [first, second, third] = [8, 20, 30].map(|step| stored(&folder, "part", step));
    assert!(first.is_none() && second.is_some() && third.is_some() && second != third);
    assert_eq!(stored(&folder, "whole", 21), second);
    let resume = |more: &[&str]| {
        folder
            .run(&[&["train", "small.toml", "--run-dir", "part", "--resume", "--set", "train.steps=40"], more].concat())
    };
    assert_code(&resume(&[]), 2, &["data.order.hard_examples.share: 0.7 in the checkpoint, not set now"]);
    let other = ["--set", "data.order=\"shuffle\"", "--allow-change", "data.order"];
    assert_code(&resume(&other), 0, &[]);
    assert_eq!(stored(&folder, "part", 40), None);
    // In the middle of an epoch, losses that are missing are measured.
    let back = ["--set", "data.order=\"hard_examples\"", "--allow-change", "data.order", "--set", "train.steps=44"];
    assert_code(&resume(&[&other[..2], &["--set", "train.steps=42"]].concat()), 0, &[]);
    assert_code(&resume(&back), 0, &[]);
    assert_eq!(stored(&folder, "part", 44).map(|losses| losses.len()), Some(1293));
    // "hard_examples" and a table without settings are the same.
    let table = ["--set", "data.order={ hard_examples = {} }", "--set", "train.steps=45"];
    assert_code(&resume(&table), 0, &[]);
}

#[test]
fn second_order_methods_choose_hard_examples_too() {
    let folder = Folder::new("hard-method");
    let more = [
        "--set",
        HARD,
        "--set",
        "optimizer.method={ lbfgs = {} }",
        "--set",
        "optimizer.chain=[]",
        "--set",
        "optimizer.schedule=[]",
        "--set",
        "data.batch=400",
        "--set",
        "train.steps=7",
    ];
    folder.train("whole", &more);
    folder.train("part", &[&more[..], &["--set", "train.steps=5"]].concat());
    folder.train("part", &[&more[..], &["--resume"]].concat());
    assert_eq!(losses(&folder.metrics("part")), losses(&folder.metrics("whole")));
    assert!(folder.checkpoint("part", 7) == folder.checkpoint("whole", 7));
}

#[test]
fn a_share_of_the_training_labels_is_wrong() {
    let classes = |sets: &SampleSets| {
        let Labels::Index(labels) = &sets.train.data.labels else { panic!("digits have class numbers") };
        labels.clone()
    };
    let (clean, noisy) = (open("", 5), open("label_noise = 0.2", 5));
    let (before, after) = (classes(&clean), classes(&noisy));
    let wrong: Vec<u32> = (0..before.len()).filter(|&i| before[i] != after[i]).map(|i| i as u32).collect();
    // A fifth of 1293.
    assert_eq!(wrong.len(), 259);
    assert!(after.iter().all(|&class| class < 10));
    assert!(
        wrong.iter().all(|sample| noisy.train.samples.binary_search(sample).is_ok()),
        "validation keeps its labels"
    );
    assert_eq!(classes(&open("label_noise = 0.2", 5)), after);
    assert_ne!(classes(&open("label_noise = 0.2", 6)), after);
    let record = |more: &str| data::open_known(&settings(more), 5, &base(), Known::default()).unwrap().1;
    assert!(record("") == record("label_noise = 0.2"), "fingerprints are those of the files");
    // Batches have the wrong labels.
    let mut batches = Batches::eval(&noisy.train, 1293);
    let mut batch = batches.empty();
    batches.fill(0, 0, &mut batch).unwrap();
    let seen: Vec<u32> = batch.targets.iter().map(|&target| target as u32).collect();
    let expected: Vec<u32> = noisy.train.samples.iter().map(|&sample| after[sample as usize]).collect();
    assert_eq!(seen, expected);
}

#[test]
fn another_noise_is_refused_on_a_resume() {
    let folder = Folder::new("noise-resume");
    let noise = ["--set", "data.label_noise=0.1"];
    folder.train("run", &[&noise[..], &["--set", "train.steps=7"]].concat());
    let resume = ["train", "small.toml", "--run-dir", "run", "--resume", "--set", "train.steps=9"];
    assert_code(&folder.run(&resume), 2, &["data.label_noise: 0.1 in the checkpoint, not set now"]);
    assert_code(&folder.run(&[&resume[..], &noise].concat()), 0, &[]);
}

#[test]
fn diagnoses_shuffle() {
    let folder = Folder::new("hard-diagnose");
    for command in [&["lr-range", "--steps", "30"][..], &["init"]] {
        let run = |more: &[&str]| folder.run(&[&["diagnose", command[0], "small.toml"], &command[1..], more].concat());
        let (plain, hard) = (run(&[]), run(&["--set", HARD]));
        assert_code(&hard, 0, &[]);
        assert_eq!(hard.out, plain.out);
    }
}

#[test]
fn mistakes_are_reported_where_they_are() {
    let folder = Folder::new("hard-mistakes");
    let linear = "data.train={ linear = { samples = 50, inputs = 2, condition = 5.0 } }";
    for (sets, message) in [
        (&["data.order=\"hard_example\""][..], "unknown order \"hard_example\" (did you mean \"hard_examples\"?)"),
        (&["data.order={ hard_examples = { sher = 1 } }"], "unknown key \"sher\""),
        (
            &["data.order={ hard_examples = {}, shuffle = {} }"],
            "\"shuffle\" beside \"hard_examples\", expected one order",
        ),
        (
            &["data.order={ hard_examples = { share = 0 } }"],
            "hard_examples: share = 0, expected a number above 0, at most 1",
        ),
        (
            &["data.order={ hard_examples = { cap = 0.9 } }"],
            "hard_examples: cap = 0.9, expected a finite number of at least 1",
        ),
        (
            &["data.order={ hard_examples = { outliers = 1 } }"],
            "outliers = 1, expected a number of at least 0 and below 1",
        ),
        (&["data.label_noise=1"], "label_noise = 1, expected 0 <= share < 1"),
        (
            &["data.label_noise=1e-5"],
            "label_noise = 0.00001 of 1293 training samples is none; give a larger share, or remove it",
        ),
        (
            &[linear, "data.label_noise=0.1"],
            "label_noise replaces class numbers, but the targets are 1 target value; remove it",
        ),
    ] {
        let sets: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).collect();
        assert_code(&folder.run(&[&["check", "small.toml"][..], &sets].concat()), 2, &[message]);
    }
    let (job, plan) =
        Job::open(&file("configs/digits.toml"), &["data.order=hard_examples".to_string()], DataPolicy::Required)
            .unwrap();
    assert_eq!(job.config.data.order, SampleOrder::HardExamples(HardExamples::default()));
    assert!(plan.spec.variants.iter().any(|variant| variant.mode == Mode::Eval));
}
