//! Data through the public interface: shipped data sets, sample sets, batches, augmentation, restart, prefetch.

use peristyle::data::augment::Shift;
use peristyle::data::{
    Augment, Base, Batch, Batches, DataSettings, DataSource, Dataset, Destination, Labels, Loader, Pixels, Place,
    Preparer, Sample, SampleSet, SampleSets, Samples, SourceContext, StoredImage, Subset, all_examples, open,
};
use std::path::Path;
use std::sync::Arc;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn settings(text: &str) -> DataSettings {
    toml::from_str(text).expect("the test's settings are valid")
}

fn splits(text: &str) -> SampleSets {
    open(&settings(text), 1, &Base::from(Path::new(ROOT))).expect("the test's data is valid")
}

fn load(source: &str, subset: Subset) -> Dataset {
    let source = settings(&format!("train = {source}\nbatch = 1")).train;
    let base = Base::from(Path::new(ROOT));
    let cx = SourceContext::new(subset, &base);
    let dataset = source.load(cx).expect("the test's data is valid");
    assert_eq!(source.describe(cx).expect("its header is valid").header, dataset.header());
    dataset
}

fn class_numbers(dataset: &Dataset) -> &[u32] {
    match &dataset.labels {
        Labels::Index(labels) => labels,
        Labels::Dense(_) | Labels::Values(..) => panic!("the test's data has class numbers"),
    }
}

fn counts(dataset: &Dataset) -> Vec<usize> {
    let mut counts = vec![0; dataset.classes];
    class_numbers(dataset).iter().for_each(|&label| counts[label as usize] += 1);
    counts
}

fn bytes(dataset: &Dataset) -> Vec<u8> {
    match dataset.all_pixels().unwrap() {
        Pixels::U8(pixels) => pixels,
        Pixels::F32(_) => panic!("the test's data is bytes"),
    }
}

/// Returns all batches of an epoch, computed directly.
fn epoch(splits: &SampleSets, epoch: u64) -> Vec<Batch> {
    let mut batches = Batches::train(splits);
    (0..batches.plan().batches())
        .map(|index| {
            let mut batch = batches.empty();
            batches.fill(epoch, index, &mut batch).unwrap();
            batch
        })
        .collect()
}

#[test]
fn the_shipped_sets_match_their_readmes() {
    let train = load("\"digits\"", Subset::Train);
    assert_eq!((train.images(), train.shape), (8000, [28, 28, 1]));
    assert_eq!(counts(&train), [801, 927, 791, 832, 780, 663, 814, 870, 744, 778]);
    assert_eq!(class_numbers(&train)[..12], [2, 2, 1, 8, 4, 0, 8, 5, 7, 0, 6, 4][..]);
    let test = load("\"digits\"", Subset::Test);
    assert_eq!((test.images(), counts(&test)), (2000, vec![200; 10]));
    assert_eq!(load("{ digits = \"test\" }", Subset::Train), test);

    let idx = |subset: &str| {
        let file = |what: &str| format!("\"data/digits8/{subset}-{what}-ubyte.gz\"");
        load(
            &format!("{{ idx = {{ images = {}, labels = {} }} }}", file("images-idx3"), file("labels-idx1")),
            Subset::Train,
        )
    };
    assert_eq!(idx("train").shape, [8, 8, 1]);
    assert_eq!(counts(&idx("train")), [143, 146, 142, 146, 144, 145, 144, 143, 141, 143]);
    assert_eq!(counts(&idx("t10k")), [35, 36, 35, 37, 37, 37, 37, 36, 33, 37]);

    let signs = load("{ cifar = \"data/signs32/data_batch_1.bin\" }", Subset::Train);
    assert_eq!((signs.shape, signs.images()), ([32, 32, 3], 1650));
    assert_eq!(counts(&signs), [164, 165, 165, 165, 166, 166, 166, 164, 166, 163]);
    let both = "{ cifar = [\"data/signs32/data_batch_1.bin\", \"data/signs32/test_batch.bin\"] }";
    let both = load(both, Subset::Train);
    assert_eq!(counts(&both), [205, 206, 206, 206, 207, 207, 207, 206, 208, 204]);
    assert_eq!(bytes(&both)[..bytes(&signs).len()], *bytes(&signs));
}

#[test]
fn pixels_of_the_shipped_sets_are_golden() {
    let digits = load("\"digits\"", Subset::Train);
    let row = &bytes(&digits)[14 * 28..15 * 28];
    let sum = |bytes: &[u8]| bytes.iter().map(|&b| u64::from(b)).sum::<u64>();
    let signs = load("{ cifar = \"data/signs32/test_batch.bin\" }", Subset::Test);
    assert_eq!((&row[11..20], sum(&bytes(&digits))), (&[26, 110, 176, 93, 93, 214, 253, 253, 118][..], 209_039_444));
    assert_eq!((&bytes(&signs)[..6], sum(&bytes(&signs))), (&[115, 117, 129, 119, 121, 133][..], 206_058_234));
}

#[test]
fn every_epoch_has_every_sample_once_in_a_golden_order() {
    let set = splits("train = { synthetic = { images = 23, classes = 23, shape = [1, 1, 1] } }\nbatch = 5");
    let targets = |number| epoch(&set, number).into_iter().flat_map(|batch| batch.targets).collect::<Vec<f32>>();
    for number in 0..3 {
        let mut all = targets(number);
        all.sort_by(f32::total_cmp);
        assert_eq!(all, (0..23).map(|i| i as f32).collect::<Vec<_>>());
    }
    let golden =
        [21, 18, 7, 11, 0, 12, 14, 19, 8, 3, 4, 17, 2, 1, 20, 13, 22, 9, 16, 10, 6, 5, 15].map(|i: u8| f32::from(i));
    assert_eq!(targets(0), golden);
    let golden =
        [16, 6, 8, 20, 5, 7, 13, 11, 10, 4, 21, 17, 1, 14, 3, 9, 18, 0, 19, 12, 2, 15, 22].map(|i: u8| f32::from(i));
    assert_eq!(targets(1), golden);
    let rows: Vec<_> = epoch(&set, 0).iter().map(|batch| (batch.rows, batch.index, batch.first)).collect();
    assert_eq!(rows, [(5, 0, 0), (5, 1, 5), (5, 2, 10), (5, 3, 15), (3, 4, 20)]);
    let sequential = SampleSets { order: peristyle::data::SampleOrder::Sequential, ..set.clone() };
    assert!(epoch(&sequential, 4)[1].targets.iter().eq([5.0, 6.0, 7.0, 8.0, 9.0].iter()));
}

const AUGMENTED: &str =
    "train = { digits = \"test\" }\naugment = [{ shift = 2 }, { rotate = 15.0 }]\nnormalize = \"standardize\"\n";

/// Returns the sets with other augmentations.
fn augmented(sets: &SampleSets, augment: Vec<Augment>) -> SampleSets {
    SampleSets { train: Arc::new(SampleSet { augment: augment.into(), ..(*sets.train).clone() }), ..sets.clone() }
}

#[test]
fn augmentation_does_not_depend_on_the_batch() {
    let images = |batch: usize| {
        let set = splits(&format!("{AUGMENTED}batch = {batch}"));
        epoch(&set, 3).into_iter().flat_map(|batch| batch.images).collect::<Vec<f32>>()
    };
    let (small, large) = (images(7), images(2000));
    assert!(small.iter().map(|v| v.to_bits()).eq(large.iter().map(|v| v.to_bits())));
    let set = splits(&format!("{AUGMENTED}batch = 2000"));
    assert_ne!(epoch(&set, 4)[0].images, large);
    let plain = augmented(&set, vec![]);
    assert_eq!(epoch(&plain, 3)[0].targets, epoch(&set, 3)[0].targets);
    assert_ne!(epoch(&plain, 3)[0].images, large);
}

#[test]
fn augmented_pixels_are_golden() {
    let text = "train = { digits = \"test\" }\nbatch = 2000\nnormalize = \"none\"\norder = \"sequential\"\n";
    let weighted = |augment: &str| {
        let images = epoch(&splits(&format!("{text}augment = [{augment}]")), 3).remove(0).images;
        let weight = |(i, &v): (usize, &f32)| (i % 1009) as f64 * f64::from(v);
        (images.iter().enumerate().map(weight).sum::<f64>(), images.iter().take(78_400).enumerate().map(weight).sum())
    };
    // Computed independently in Python: the shift in integers, the rotation in f64.
    assert_eq!(weighted("{ shift = 2 }").0, 26516785635.0);
    let turned: (f64, f64) = weighted("{ shift = 2 }, { rotate = 15.0 }");
    assert!((turned.1 / 1301411923.4100788 - 1.0).abs() < 1e-6, "{}", turned.1);
}

#[test]
fn a_shifted_border_is_a_black_pixel_after_normalisation() {
    let set = splits(&format!("{AUGMENTED}batch = 2000"));
    let shifted = augmented(&set, vec![Shift { pixels: 27 }.into()]);
    let normalization = &set.train.normalization;
    let black = (0.0 / normalization.scale - normalization.mean[0]) / normalization.std[0];
    assert_ne!(black, 0.0);
    for image in epoch(&shifted, 0)[0].images.chunks_exact(784) {
        assert!(image.iter().filter(|&&v| v == black).count() > 100);
    }
}

#[test]
fn the_loader_gives_the_same_bits_as_direct_computation_from_any_start() {
    let set = splits(&format!("{AUGMENTED}batch = 96\nvalidation = 0.25"));
    let direct: Vec<Batch> = (5..8).flat_map(|number| epoch(&set, number)).collect();
    let batches = direct.len() / 3;
    assert_eq!(batches, 16);
    for (start, workers) in [(0, 1), (1, 1), (batches - 1, 1), (0, 2), (3, 7)] {
        let place = Batches::train(&set).plan().place(5, start);
        let to = Destination { workers, ..Destination::host() };
        let mut loader = Loader::train(&set, to, place, usize::MAX).expect("a thread starts");
        for expected in &direct[start..] {
            let batch = loader.next_batch().expect("the loader works").expect("training batches never end");
            assert!(batch == expected, "epoch {} batch {}", expected.epoch, expected.index);
        }
    }
    assert_eq!((direct[16].epoch, direct[16].index, direct[15].rows), (6, 0, 1500 - 15 * 96));
}

#[test]
fn every_source_is_as_described() {
    for format in all_examples() {
        for subset in [Subset::Train, Subset::Test] {
            let base = Base::default();
            let cx = SourceContext::new(subset, &base);
            let (description, data) = (format.describe(cx).unwrap(), format.load(cx).unwrap());
            assert_eq!(description.header, data.header(), "{format:?}");
            let pixels = match data.all_pixels().unwrap() {
                Pixels::U8(pixels) => pixels.len(),
                Pixels::F32(pixels) => pixels.len(),
            };
            assert_eq!((pixels, data.samples.len()), (data.images() * data.features(), data.images()));
        }
    }
}

#[test]
fn what_a_device_prepares_does_not_depend_on_the_workers() {
    let set = splits(&format!("{AUGMENTED}batch = 96"));
    let raw = |workers| {
        let to = Destination { workers, preparer: Preparer::Device, ..Destination::host() };
        let mut loader = Loader::train(&set, to, Place::default(), 50).expect("a thread starts");
        (0..40).map(|_| loader.next_batch().unwrap().unwrap().clone()).collect::<Vec<Batch>>()
    };
    let alone = raw(1);
    assert!(
        alone.iter().all(|batch| batch.images.is_empty() && batch.raw.as_ref().unwrap().pixels.bytes().len() > 784)
    );
    assert!(raw(2) == alone && raw(5) == alone);
}

/// Images in memory, of which some cannot be read.
#[derive(Debug)]
struct Damaged {
    whole: Dataset,
    wrong: Vec<usize>,
}

impl Samples for Damaged {
    fn len(&self) -> usize {
        self.whole.images()
    }
    fn read<'s>(&'s self, index: usize, sample: &'s mut Sample) -> peristyle::error::Result<StoredImage<'s>> {
        if self.wrong.contains(&index) {
            return Err(peristyle::error::Error::Run(format!("image {index} is damaged")));
        }
        self.whole.samples.read(index, sample)
    }
}

#[test]
fn an_image_that_cannot_be_read_ends_the_batches_whoever_reads_it() {
    let mut set = splits("train = { digits = \"test\" }\nbatch = 100\norder = \"sequential\"");
    let whole = load("{ digits = \"test\" }", Subset::Train);
    let samples = Arc::new(Damaged { whole: whole.clone(), wrong: vec![399, 377, 350] });
    let data = Arc::new(Dataset { samples, ..whole });
    set.train = Arc::new(SampleSet { data, ..(*set.train).clone() });
    for (workers, preparer) in [(1, Preparer::Host), (4, Preparer::Host), (3, Preparer::Device)] {
        let to = Destination { workers, preparer, ..Destination::host() };
        let mut loader = Loader::train(&set, to, Place::default(), usize::MAX).expect("a thread starts");
        (0..3).for_each(|index| assert_eq!(loader.next_batch().unwrap().unwrap().index, index));
        // Of several, the first in the batch is named.
        assert_eq!(loader.next_batch().unwrap_err().to_string(), "image 350 is damaged");
    }
}

#[test]
fn evaluation_visits_every_sample_once_without_augmentation() {
    let set = splits(&format!("{AUGMENTED}batch = 1\ntest = \"digits\"\nvalidation = 0.1"));
    let plain = SampleSets { order: peristyle::data::SampleOrder::Sequential, batch: 1800, ..augmented(&set, vec![]) };
    let mut loader = Loader::eval(&set.train, Destination::host(), 700).expect("a thread starts");
    let (mut images, mut rows) = (Vec::new(), Vec::new());
    while let Some(batch) = loader.next_batch().expect("the loader works") {
        images.extend_from_slice(&batch.images);
        rows.push(batch.rows);
    }
    assert_eq!(rows, [700, 700, 400]);
    assert_eq!(images, epoch(&plain, 0)[0].images);
    let [validation, test] = [&set.validation, &set.test].map(|split| split.as_ref().expect("the settings include it"));
    assert_eq!((validation.name, validation.samples.len(), test.samples.len()), ("validation", 200, 2000));
}

#[test]
fn the_validation_share_is_disjoint_and_leaves_the_rest_in_order() {
    let set = splits("train = { digits = \"test\" }\nbatch = 10\nvalidation = 0.15");
    let validation = set.validation.expect("the settings include it");
    assert_eq!((set.train.samples.len(), validation.samples.len()), (1700, 300));
    assert!(set.train.samples.is_sorted() && validation.samples.is_sorted());
    let mut all = [&set.train.samples[..], &validation.samples[..]].concat();
    all.sort_unstable();
    assert!(all.into_iter().eq(0..2000));
    assert_eq!(validation.samples[..5], [0, 1, 5, 11, 26]);
}

#[test]
fn normalisation_is_measured_on_the_training_split_alone() {
    let text = "batch = 10\nnormalize = \"standardize\"\n";
    let single = splits(&format!("train = \"digits\"\n{text}"));
    let with_test = splits(&format!("train = \"digits\"\ntest = \"digits\"\n{text}"));
    assert_eq!(single.train.normalization, with_test.train.normalization);
    assert_eq!(with_test.test.expect("the settings include it").normalization, single.train.normalization);
    // The usual figures of MNIST are 0.1307 and 0.3081.
    assert!((single.train.normalization.mean[0] - 0.1307).abs() < 0.002);
    assert!((single.train.normalization.std[0] - 0.3081).abs() < 0.002);
    let share = splits(&format!("train = \"digits\"\nvalidation = 0.5\n{text}"));
    assert_ne!(share.train.normalization, single.train.normalization);
}

#[test]
fn settings_that_do_not_fit_are_rejected_on_opening() {
    let complaint =
        |text: &str| open(&settings(text), 1, &Base::from(Path::new(ROOT))).expect_err("wrong settings").to_string();
    assert_eq!(complaint("train = \"digits\"\nbatch = 0"), "[data]: batch = 0, expected at least 1");
    assert_eq!(
        complaint("train = \"digits\"\nbatch = 1\ntest = { cifar = \"data/signs32/test_batch.bin\" }"),
        "[data]: the test set has images of shape [32, 32, 3], the training set [28, 28, 1]; give a test set of the \
         same kind"
    );
    let missing = format!(
        "data/none.bin: no such file; tried {ROOT}/data/none.bin and data/none.bin; relative paths start at the folder \
         of the configuration, or else at the current folder"
    );
    assert_eq!(complaint("train = { cifar = \"data/none.bin\" }\nbatch = 1"), missing);
    let wrong = complaint("train = { tensors = \"data/signs32/test_batch.bin\" }\nbatch = 1");
    assert!(wrong.contains("test_batch.bin: is not a safetensors file: declares a header of"), "{wrong}");
}

#[test]
fn floats_reach_the_batch_as_they_are() {
    let folder = std::env::temp_dir().join(format!("peristyle-data-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("the temporary folder is writable");
    let images: Vec<f32> = (0..24).map(|i| i as f32 / 7.0).collect();
    let labels = [0.25f32, 0.75, 1.0, 0.0];
    let raw = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    let view = |shape: &[usize], data| {
        safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.to_vec(), data).expect("valid tensor")
    };
    let (image_bytes, label_bytes) = (raw(&images), raw(&labels));
    let tensors = [("images", view(&[2, 3, 2, 2], &image_bytes)), ("labels", view(&[2, 2], &label_bytes))];
    safetensors::serialize_to_file(tensors, None, &folder.join("a.safetensors")).expect("the test's file is written");
    let text = "train = { tensors = \"a.safetensors\" }\nbatch = 2\norder = \"sequential\"";
    let set = open(&settings(text), 1, &Base::from(folder.as_path())).expect("the test's data is valid");
    let standardised = settings(&format!("{text}\nnormalize = \"standardize\""));
    let standardised = open(&standardised, 1, &Base::from(folder.as_path())).expect("the test's data is valid");
    std::fs::remove_dir_all(&folder).expect("the test's folder is removed");
    let batch = &epoch(&set, 0)[0];
    let channels_last = (0..24).map(|i| images[i / 12 * 12 + i % 3 * 4 + i % 12 / 3]);
    assert!(batch.images.iter().copied().eq(channels_last));
    assert_eq!(batch.targets, labels);
    let batch = &epoch(&standardised, 0)[0];
    let mean = batch.images.iter().sum::<f32>() / 24.0;
    assert!(mean.abs() < 1e-6, "{mean}");
}

#[test]
fn a_source_has_a_kind() {
    let source: DataSource = settings("train = \"digits\"\nbatch = 1").train;
    assert_eq!(source.key(), "digits");
}
