//! Images that the emulated device augments and normalises, compared with the same images from the host: a run has the
//! same bits.

use crate::common::Training;
use crate::common::runs::Folder;
use peristyle::data::{self, Batches, Preparation, Preparer};
use peristyle::device::Clock;
use peristyle::gpu::{Driver, DriverKind};
use peristyle::layers::Mode;
use peristyle::placement::Variant;
use peristyle::program::Persistent;
use peristyle::train::{DataPolicy, Job, exchange};
use std::path::Path;

const IMAGES: usize = 19;
const SHAPE: [usize; 3] = [9, 7, 3];

/// Writes a data set of floats, and a network that learns from it or from 8-bit images. What follows `augment` in the list may name `mix`.
fn write(folder: &Folder, source: &str, augment: &str) {
    let [h, w, c] = SHAPE;
    let input = if augment.contains("crop") { [7, 7, c] } else { SHAPE };
    let images: Vec<u8> =
        (0..IMAGES * h * w * c).flat_map(|i| ((i * i % 1013) as f32 / 100.0 - 4.0).to_le_bytes()).collect();
    let labels: Vec<u8> = (0..IMAGES).flat_map(|i| (i as i64 % 4).to_le_bytes()).collect();
    let view = |kind, shape: &[usize], data| safetensors::tensor::TensorView::new(kind, shape.to_vec(), data).unwrap();
    let tensors = [
        ("images", view(safetensors::Dtype::F32, &[IMAGES, c, h, w], &images[..])),
        ("labels", view(safetensors::Dtype::I64, &[IMAGES], &labels[..])),
    ];
    safetensors::serialize_to_file(tensors, None, &folder.at("floats.safetensors")).unwrap();
    let text = format!(
        "[data]\ntrain = {source}\ntest = {source}\nbatch = 8\nnormalize = \"standardize\"\naugment = {augment}\n[model]\n\
         input = {input:?}\nlayers = [{{ conv = {{ filters = 4, kernel = 3 }} }}, \"relu\", \"flatten\", {{ dense = {{ \
         units = 4 }} }}]\n[optimizer]\nlr = 0.05\n[train]\nsteps = 7\n"
    );
    folder.write("prepared.toml", &text);
}

/// Returns the losses of updates over more than two epochs and of an evaluation, followed by the final weights.
fn losses(config: &Path, sets: &[String], preparer: Preparer) -> Vec<f64> {
    let (job, plan) = Job::open(config, sets, DataPolicy::Required).unwrap_or_else(|e| panic!("{e}"));
    let splits = data::open(&job.config.data, job.config.seed, &job.config.base).unwrap();
    let mut session = job.session(plan).unwrap();
    assert_eq!(session.preparer(), Preparer::Host, "a session expects prepared images by default");
    if preparer == Preparer::Device {
        session.prepare(Preparation::of(&splits)).unwrap();
        assert_eq!(session.preparer(), Preparer::Device);
    }
    exchange::initialise(&mut session, job.config.seed).unwrap();
    let test = splits.test.clone().unwrap();
    let mut values = Vec::new();
    let ways = [(Mode::Train, Batches::train(&splits), 7), (Mode::Eval, Batches::eval(&test, splits.batch), 3)];
    for (mode, batches, steps) in ways {
        let mut batches = batches.prepared_by(preparer);
        let mut batch = batches.empty();
        for step in 0..steps {
            if session.under_way() == session.depth() {
                values.push(session.finish().unwrap().loss);
            }
            let (epoch, index) = batches.plan().at(step);
            batches.fill(epoch, index, &mut batch).unwrap();
            assert_eq!(batch.images.is_empty(), preparer == Preparer::Device);
            let clock = Clock { step: step + 1, epoch, lr: 0.05, row: 0 };
            let variant = if mode == Mode::Train { Variant::train(batch.rows) } else { Variant::eval(batch.rows) };
            session.submit(variant, &mut batch, clock).unwrap();
        }
        while session.under_way() > 0 {
            values.push(session.finish().unwrap().loss);
        }
    }
    assert_eq!(values.len(), 10);
    for parameter in 0..job.network.parameters.len() {
        values.extend(exchange::read_values(&session, Persistent::Parameter(parameter)).unwrap());
    }
    values
}

#[test]
fn a_run_has_the_same_bits_wherever_its_images_are_prepared() {
    if let Err(error) = Driver::count(DriverKind::Emu) {
        panic!("this test needs the emulated device: {error}");
    }
    let folder = Folder::new("prepared");
    let bytes = "{ synthetic = { images = 19, classes = 4, shape = [9, 7, 3] } }";
    let lists = [
        "[]",
        "[{ shift = 2 }]",
        "[{ shift = 3 }, { rotate = 30 }]",
        "[{ rotate = 9 }, { shift = 1 }, { rotate = 40 }]",
        "[{ crop = { size = 7, pad = 2 } }]",
        "[{ crop = { size = 9, pad = 3 } }, { rotate = 9 }, { crop = 7 }]",
        "[{ shift = 1 }, { pca_color = 0.1 }]",
        "[{ pca_color = 0.2 }]\nmix = [{ mixup = 0.5 }]",
        "[]\nwhiten = \"decorrelate\"",
        "[{ shift = 2 }]\nwhiten = { pca = 0.1 }",
        "[{ rotate = 9 }, { shift = 1 }, { rotate = 40 }]\nwhiten = { zca = 0.1 }",
        "[]\nmix = [{ mixup = 0.5 }]",
        "[{ shift = 2 }]\nmix = [{ cutmix = 1.0 }]",
        "[{ crop = { size = 9, pad = 3 } }, { rotate = 9 }, { crop = 7 }]\nmix = [{ cutmix = { alpha = 1.0, probability = 0.7 } }, { mixup = 1.0 }]",
        "[{ shift = 2 }]\nwhiten = { zca = 0.1 }\nmix = [{ cutmix = 1.0 }]",
    ];
    for source in [bytes, "{ tensors = \"floats.safetensors\" }"] {
        let mut before: Vec<f64> = Vec::new();
        for augment in lists {
            write(&folder, source, augment);
            for (data, columns) in [(1, 1), (2, 1), (3, 1), (2, 2)] {
                let sets = [
                    format!("devices.use=\"emu*{}\"", data * columns),
                    format!("devices.mesh={{ data = {data}, columns = {columns} }}"),
                ];
                let config = folder.at("prepared.toml");
                let [host, device] = [Preparer::Host, Preparer::Device].map(|by| losses(&config, &sets, by));
                assert_eq!(device, host, "{source}, {augment} on {data}x{columns}");
                assert_ne!(host, before, "augmentation has no effect on training");
                before = host;
            }
        }
    }
}

/// CPU devices cannot prepare images.
#[test]
#[should_panic(expected = "the batch must match the session's preparer")]
fn cpu_devices_reject_raw_images() {
    let mut training = Training::new("configs/digits.toml", &["devices.use=\"cpu\"".to_string()]);
    training.batches = training.batches.clone().prepared_by(Preparer::Device);
    training.batch = training.batches.empty();
    training.update();
}

/// The losses of a run on CPU devices and on emulated ones differ only by rounding.
#[test]
fn augmented_images_are_the_same_on_every_device() {
    let sets = |devices: &str| vec![format!("devices.use=\"{devices}\""), "data.batch=8".to_string()];
    let config = "configs/digits.toml";
    let [cpu, emu] = ["cpu", "emu"].map(|devices| Training::new(config, &sets(devices)).losses(4));
    // Four f32 updates from the same weights; without the rotation the losses differ in their second digit.
    assert!(cpu.iter().zip(&emu).all(|(a, b)| (a - b).abs() <= 1e-5 * a.abs()), "{emu:?}, expected {cpu:?}");
}
