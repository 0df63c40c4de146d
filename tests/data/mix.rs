//! Pairs of training samples: what becomes of images and targets, on which they depend, and runs that learn from them.

use crate::common::Training;
use crate::common::runs::{Folder, assert_code, losses};
use peristyle::data::{
    self, Augment, Base, Batch, Batches, DataSettings, Dataset, Destination, Labels, Loader, Mix, Normalization,
    Normalize, Pixels, Place, SampleOrder, SampleSet, SampleSets, augment::ColorAxes,
};
use peristyle::device::Clock;
use peristyle::placement::Variant;
use std::path::Path;
use std::sync::Arc;

const IMAGES: usize = 40;
const SIDE: usize = 8;

#[derive(serde::Deserialize)]
struct Lists {
    #[serde(default)]
    mix: Vec<Mix>,
    #[serde(default)]
    augment: Vec<Augment>,
}

/// Returns images of one grey each, 4 times their number, which is also their class; every fourth is kept from training.
fn greys(lists: &str) -> SampleSets {
    let Lists { mix, augment } = toml::from_str(lists).unwrap();
    let pixels = (0..IMAGES * SIDE * SIDE).map(|i| (4 * (i / (SIDE * SIDE))) as u8).collect();
    let labels = Labels::Index((0..IMAGES as u32).collect());
    let data = Arc::new(Dataset::loaded(Pixels::U8(pixels), labels, [SIDE, SIDE, 1], IMAGES));
    let samples: Vec<u32> = (0..IMAGES as u32).filter(|sample| sample % 4 != 3).collect();
    let normalization = Arc::new(Normalization::new(Normalize::None, &data, &samples).unwrap());
    let (augment, mix) = (augment.into(), mix.into());
    let target_width = IMAGES;
    let train = Arc::new(SampleSet {
        name: "train",
        data,
        samples,
        normalization,
        whitening: None,
        augment,
        colors: ColorAxes::UNIFORM,
        mix,
        target_width,
    });
    SampleSets {
        train,
        validation: None,
        test: None,
        batch: 30,
        order: SampleOrder::Shuffle,
        seed: 5,
        notes: Vec::new(),
    }
}

/// Returns every sample of an epoch with its image and its target.
fn epoch(sets: &SampleSets, epoch: u64) -> Vec<(u32, Vec<f32>, Vec<f32>)> {
    let mut batches = Batches::train(sets);
    let mut batch = batches.empty();
    let mut all = Vec::new();
    for index in 0..batches.plan().batches() {
        batches.fill(epoch, index, &mut batch).unwrap();
        let (image, target) = (batch.images.len() / batch.rows, batch.targets.len() / batch.rows);
        for (row, (x, t)) in batch.images.chunks(image).zip(batch.targets.chunks(target)).enumerate() {
            all.push((batches.sample(batch.first + row), x.to_vec(), t.to_vec()));
        }
    }
    all
}

/// Returns the classes of a target with their shares.
fn shares(target: &[f32]) -> Vec<(usize, f32)> {
    target.iter().copied().enumerate().filter(|(_, share)| *share != 0.0).collect()
}

#[test]
fn shares_of_targets_are_those_of_boxes() {
    let sets = greys("mix = [{ cutmix = 1.0 }]");
    let (mut mixed, mut partners) = (0, std::collections::BTreeSet::new());
    for number in 0..20 {
        for (sample, image, target) in epoch(&sets, number) {
            for (class, share) in shares(&target) {
                let pixels = image.iter().filter(|&&x| x == 4.0 * class as f32).count();
                assert_eq!(share, pixels as f32 / 64.0, "class {class} in a mixture with sample {sample}");
            }
            // What is not a's lies in one box.
            let other: Vec<usize> = (0..64).filter(|&i| image[i] != 4.0 * sample as f32).collect();
            if let (Some(&first), Some(&last)) = (other.first(), other.last()) {
                let [height, width] = [last / 8 - first / 8 + 1, last % 8 - first % 8 + 1];
                assert_eq!(height * width, other.len());
                mixed += 1;
                partners.insert(image[first] as u32 / 4);
            }
        }
    }
    // A part of the boxes has less than half a pixel, or the sample itself is its partner.
    assert!((500..600).contains(&mixed), "{mixed} of 600");
    assert_eq!(partners.into_iter().collect::<Vec<_>>(), sets.train.samples, "partners are the training samples");
}

#[test]
fn blends_of_images_have_the_weights_of_their_targets() {
    let sets = greys("mix = [{ mixup = 0.4 }]");
    let mut weights = Vec::new();
    for (sample, image, target) in (0..20).flat_map(|number| epoch(&sets, number)) {
        let shares = shares(&target);
        let grey: f32 = shares.iter().map(|&(class, share)| share * 4.0 * class as f32).sum();
        assert!(image.iter().all(|x| (x - grey).abs() < 1e-4), "{sample}: {shares:?}");
        assert!((shares.iter().map(|&(_, share)| share).sum::<f32>() - 1.0).abs() < 1e-6);
        weights.push(f64::from(target[sample as usize]));
    }
    // Of Beta(0.4, 0.4), whose variance is 1 / (4 (2 a + 1)); one partner in thirty is the sample itself.
    let mean = weights.iter().sum::<f64>() / weights.len() as f64;
    let square = weights.iter().map(|w| (w - 0.5).powi(2)).sum::<f64>() / weights.len() as f64;
    assert!((mean - 0.5 - 0.5 / 30.0).abs() < 0.06 && (square - 1.0 / 7.2).abs() < 0.02, "{mean} {square}");
}

#[test]
fn a_share_of_samples_stays_alone_and_others_have_new_partners_in_every_epoch() {
    let sets = greys("mix = [{ mixup = { alpha = 1.0, probability = 0.5 } }]");
    let alone = |number| -> Vec<u32> {
        epoch(&sets, number).iter().filter(|(_, _, t)| shares(t).len() == 1).map(|(sample, ..)| *sample).collect()
    };
    let counts: Vec<usize> = (0..20).map(|number| alone(number).len()).collect();
    assert!((250..370).contains(&counts.iter().sum::<usize>()), "{counts:?} of 30 each");
    assert_eq!(epoch(&sets, 3), epoch(&sets, 3));
    assert_ne!(alone(3), alone(4));
}

/// The partner of an image is not what it is as a sample of its own in the same epoch.
#[test]
fn partners_are_augmented_with_draws_of_their_own() {
    // Half of each image, so that x = (a + b) / 2, where a is what the sample is alone.
    let lists = "augment = [{ noise = 10.0 }, { crop = 5 }]";
    let mixed = epoch(&greys(&format!("mix = [{{ mixup = 1e12 }}]\n{lists}")), 2);
    let alone = epoch(&greys(lists), 2);
    let of = |sample: usize| &alone.iter().find(|(other, ..)| *other as usize == sample).unwrap().1;
    for (sample, image, target) in &mixed {
        let Some((class, _)) = shares(target).into_iter().find(|(class, _)| *class != *sample as usize) else {
            continue;
        };
        let partner: Vec<f32> = image.iter().zip(of(*sample as usize)).map(|(x, a)| 2.0 * x - a).collect();
        let noise: Vec<f32> = partner.iter().map(|b| b - 4.0 * class as f32).collect();
        let square = noise.iter().map(|x| x * x).sum::<f32>() / 25.0;
        // The partner's grey with noise of deviation 10, but neither that of its own sample nor the sample's.
        assert!((40.0..190.0).contains(&square), "{square}");
        assert!(partner.iter().zip(of(class)).any(|(b, own)| (b - own).abs() > 5.0));
        let own = of(*sample as usize).iter().map(|a| a - 4.0 * *sample as f32);
        assert!(noise.iter().zip(own).any(|(noise, own)| (noise - own).abs() > 5.0));
    }
}

const DIGITS: &str = "train = { idx = { images = \"data/digits8/train-images-idx3-ubyte.gz\", labels = \
                      \"data/digits8/train-labels-idx1-ubyte.gz\" } }\nvalidation = 0.1\nnormalize = \"standardize\"\n\
                      augment = [{ shift = 1 }]\nmix = [{ mixup = 0.4 }, { cutmix = { alpha = 1.0, probability = 0.8 } }]\n";

fn digits(batch: usize) -> SampleSets {
    let settings: DataSettings = toml::from_str(&format!("{DIGITS}batch = {batch}")).unwrap();
    data::open(&settings, 1, &Base::from(Path::new(env!("CARGO_MANIFEST_DIR")))).unwrap()
}

#[test]
fn pairs_do_not_depend_on_batches_parts_or_workers() {
    let by = |batch: usize, part: usize, workers: usize| {
        let sets = digits(batch);
        let to = Destination { workers, ..Destination::host() };
        let mut loader = Loader::train(&sets, to, Place { epoch: 3, sample: 0 }, part).unwrap();
        let (mut images, mut targets) = (Vec::new(), Vec::new());
        while targets.len() < sets.train.samples.len() * 10 {
            let batch = loader.next_batch().unwrap().unwrap();
            images.extend(batch.images.iter().map(|x| x.to_bits()));
            targets.extend(batch.targets.iter().map(|x| x.to_bits()));
        }
        (images, targets)
    };
    let expected = by(5000, 5000, 1);
    for (batch, part, workers) in [(7, 7, 1), (100, 100, 3), (100, 33, 1), (256, 64, 2)] {
        assert!(by(batch, part, workers) == expected, "batch {batch}, part {part}, {workers} workers");
    }
}

#[test]
fn evaluations_and_other_uses_mix_nothing_but_have_the_same_targets() {
    let sets = digits(100);
    let validation = sets.validation.as_ref().unwrap();
    let mut batches = [Batches::eval(validation, 50), Batches::train(&sets).unmixed()];
    for batches in &mut batches {
        let mut batch = batches.empty();
        batches.fill(0, 0, &mut batch).unwrap();
        let Labels::Index(labels) = &validation.data.labels else { panic!("digits have class numbers") };
        for (row, target) in batch.targets.chunks_exact(10).enumerate() {
            let class = labels[batches.sample(batch.first + row) as usize] as usize;
            assert_eq!(shares(target), [(class, 1.0)]);
        }
    }
    let plain: DataSettings = toml::from_str(&DIGITS.replace("mix =", "batch = 100\n#")).unwrap();
    let plain = data::open(&plain, 1, &Base::from(Path::new(env!("CARGO_MANIFEST_DIR")))).unwrap();
    let first = |mut batches: Batches| -> Batch {
        let mut batch = batches.empty();
        batches.fill(2, 1, &mut batch).unwrap();
        batch
    };
    assert_eq!(first(Batches::train(&sets).unmixed()).images, first(Batches::train(&plain)).images);
}

const MIXED: &str = "data.mix=[{ mixup = 0.4 }, { cutmix = 1.0 }]";

/// Class numbers and distributions that are 1 at the class have the same losses and numbers of hits.
#[test]
fn evaluations_have_the_metrics_of_class_numbers() {
    for loss in ["softmax_cross_entropy", "mean_squared_error"] {
        for (devices, bound) in [("cpu", 1e-12), ("emu", 1e-6)] {
            let metrics = |mix: &str| {
                let precision = if devices == "cpu" { "f64" } else { "f32" };
                let sets = [
                    format!("devices.use=\"{devices}\""),
                    format!("devices.precision=\"{precision}\""),
                    format!("model.loss=\"{loss}\""),
                    mix.to_string(),
                ];
                let mut training = Training::new("configs/digits.toml", &sets);
                let config = &training.job.config;
                let test = data::open(&config.data, config.seed, &config.base).unwrap().test.unwrap();
                let mut batches = Batches::eval(&test, config.data.batch).prepared_by(training.session.preparer());
                let mut batch = batches.empty();
                batches.fill(0, 0, &mut batch).unwrap();
                training.session.run(Variant::eval(batch.rows), &mut batch, Clock::default()).unwrap();
                training.session.metrics().to_vec()
            };
            let (numbers, rows) = (metrics("data.mix=[]"), metrics(MIXED));
            assert!(numbers[0] > 0.01);
            for (number, row) in numbers.iter().zip(&rows) {
                assert!((number - row).abs() <= bound * number.abs(), "{loss} on {devices}: {numbers:?}, {rows:?}");
            }
            assert!(loss == "mean_squared_error" || numbers[1..] == rows[1..], "{loss} on {devices}");
        }
    }
}

#[test]
fn one_curve_on_every_mesh() {
    let curve = |devices: &str, mesh: &str, precision: &str| {
        let sets = [
            format!("devices.use=\"{devices}\""),
            format!("devices.mesh={{ {mesh} }}"),
            format!("devices.precision=\"{precision}\""),
            MIXED.to_string(),
            "data.batch=32".to_string(),
        ];
        Training::new("configs/digits.toml", &sets).losses(12)
    };
    let reference = curve("cpu", "data = 1", "f64");
    let far = |got: Vec<f64>| got.iter().zip(&reference).map(|(a, b)| ((a - b) / b).abs()).fold(0.0, f64::max);
    for (devices, mesh) in [("cpu*4", "data = 4"), ("cpu*4", "data = 2, columns = 2")] {
        let apart = far(curve(devices, mesh, "f64"));
        assert!(apart < 1e-10, "{devices} {mesh}: {apart:e}");
    }
    // Twelve updates in f32; without the mixing, losses differ in their first digits.
    for (devices, mesh) in [("cpu", "data = 1"), ("emu*2", "data = 2"), ("emu*2", "columns = 2")] {
        let apart = far(curve(devices, mesh, "f32"));
        assert!(apart < 1e-4, "{devices} {mesh}: {apart:e}");
    }
    let plain = Training::new("configs/digits.toml", &["data.batch=32".to_string()]).losses(12);
    assert!(far(plain) > 0.05);
}

#[test]
fn a_run_resumes_in_the_middle_of_an_epoch_bit_for_bit() {
    let folder = Folder::new("mix-resume");
    let more = ["--set", MIXED, "--set", "train.steps=20", "--set", "train.checkpoint.keep=9"];
    folder.train("whole", &more);
    // An epoch has 13 steps.
    folder.train("part", &[&more[..], &["--set", "train.steps=8"]].concat());
    folder.train("part", &[&more[..], &["--resume", "--set", "devices.threads=3", "--set", "data.workers=2"]].concat());
    assert_eq!(losses(&folder.metrics("part")), losses(&folder.metrics("whole")));
    assert_eq!(folder.checkpoint("part", 20), folder.checkpoint("whole", 20));
    let output = folder.run(&["train", "small.toml", "--run-dir", "part", "--resume", "--set", "train.steps=30"]);
    assert_code(&output, 2, &["data.mix: mixup, cutmix in the checkpoint, not set now"]);
}

#[test]
fn mistakes_are_reported_where_they_are() {
    let folder = Folder::new("mix-mistakes");
    for (sets, message) in [
        (&["data.mix={ mixup = 0.2 }"][..], "[data]: mix is not a list, expected a list like [{ mixup = 0.2 }]"),
        (
            &["data.mix=[{ mixpu = 0.2 }]"],
            "unknown mixture \"mixpu\" (did you mean \"mixup\"?); known mixtures: cutmix, mixup",
        ),
        (&["data.mix=[{ mixup = 0.0 }]"], "mixture \"mixup\": alpha = 0, expected a finite number above 0"),
        (
            &["data.mix=[{ cutmix = { alpha = 1, probability = 0.0 } }]"],
            "probability = 0, expected a number above 0, at most 1",
        ),
        (&["data.mix=[\"mixup\"]"], "alpha"),
        (
            &["data.mix=[{ mixup = 0.2 }]", "model.layers=[\"flatten\", { dense = { units = 12 } }]"],
            "mix makes distributions over 10 classes of the class numbers, but the last layer has 12 outputs; give it 10",
        ),
        (
            &[
                "data.mix=[{ cutmix = 1.0 }]",
                "data.augment=[{ crop = 1 }]",
                "model.input=[1, 1, 1]",
                "model.layers=[\"flatten\", { dense = { units = 10 } }]",
            ],
            "cutmix has no boxes in images of 1x1; use mixup",
        ),
        (
            &[
                "data.mix=[{ mixup = 0.2 }]",
                "data.validation=0.5",
                "data.train={ synthetic = { images = 2, classes = 2, shape = [8, 8, 1] } }",
            ],
            "mix needs at least 2 training samples; remove it, or give more data",
        ),
    ] {
        let sets: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).collect();
        assert_code(&folder.run(&[&["check", "small.toml"][..], &sets].concat()), 2, &[message]);
    }
}
