//! The sample sets of a run: the samples for training and for evaluation.

use super::augment::ColorAxes;
use super::classes::ClassCounts;
use super::colors::color_axes;
use super::file::both;
use super::label_noise;
use super::record::{DataRecord, SetRecord, stamps};
use super::{
    Augment, Base, DataSettings, Dataset, Labels, Mix, Normalization, SampleOrder, SourceContext, Subset, Whitening,
};
use crate::device::{Random, RandomStream};
use crate::error::{Error, Fault, Result, quantity};
use std::borrow::Cow;
use std::sync::Arc;

/// Some samples of a data set, with their normalisation.
#[derive(Debug, Clone, PartialEq)]
pub struct SampleSet {
    /// `train`, `validation` or `test`.
    pub name: &'static str,
    /// The data set.
    pub data: Arc<Dataset>,
    /// The indices of its samples in the data set, ascending.
    pub samples: Vec<u32>,
    /// The normalisation of its pixels.
    pub normalization: Arc<Normalization>,
    /// The whitening of its images after that.
    pub whitening: Option<Arc<Whitening>>,
    /// The augmentations of the run, of which some also apply in evaluations.
    pub augment: Arc<[Augment]>,
    /// The axes of the colours of the training samples; those of uniform pixels if no augmentation uses them.
    pub colors: ColorAxes,
    /// How pairs of samples are mixed in training.
    pub mix: Arc<[Mix]>,
    /// The number of values in the target of one image of a batch: with `mix`, class numbers become distributions.
    pub target_width: usize,
}

impl SampleSet {
    /// Appends the target of an image to those of a batch.
    pub(super) fn append_target(&self, image: u32, to: &mut Vec<f32>) {
        self.data.labels.append(self.target_width, image as usize, to);
    }
}

/// All sample sets of a run, with the settings of their batches.
#[derive(Debug, Clone, PartialEq)]
pub struct SampleSets {
    /// The samples for training.
    pub train: Arc<SampleSet>,
    /// The part of the training set that is held out for validation.
    pub validation: Option<Arc<SampleSet>>,
    /// The test set.
    pub test: Option<Arc<SampleSet>>,
    /// Samples in the global batch.
    pub batch: usize,
    /// Order of training samples.
    pub order: SampleOrder,
    /// The seed of the run.
    pub seed: u64,
    /// What is to be said of how the data were measured.
    pub notes: Vec<String>,
}

impl SampleSets {
    /// Returns the shape (H, W, C) of the images as they are stored.
    pub fn shape(&self) -> [usize; 3] {
        self.train.data.shape
    }

    /// Returns the number of classes.
    pub fn classes(&self) -> usize {
        self.train.data.classes
    }
}

/// What a checkpoint knows of the data that are to be read again.
#[derive(Debug, Clone, Copy, Default)]
pub struct Known<'a> {
    /// Whether there is one: it may have no record.
    pub is_resumed: bool,
    /// Its record, if there is one.
    pub record: Option<&'a DataRecord>,
    /// Whether files with unchanged sizes and times are compared as well.
    pub verify: bool,
    /// Whether the normalisation and the axes of colours are measured again, because the setting of the former has changed.
    pub measure: bool,
    /// Its whitening; without one, whitening is fitted to the training samples.
    pub whitening: Option<&'a Arc<Whitening>>,
}

/// Reads all data of a run.
///
/// # Errors
/// A file that is missing or not valid, and settings that are out of range or do not fit the data.
pub fn open(settings: &DataSettings, seed: u64, base: &Base) -> Result<SampleSets> {
    open_known(settings, seed, base, Known::default()).map(|(sets, _)| sets)
}

/// Reads all data of a run, and returns the record for its checkpoints. If a record is known, the pixels are normalised
/// with its constants, and its axes of colours are kept; and if a whitening is known, images are whitened by it.
///
/// # Errors
/// As [`open`].
pub fn open_known(settings: &DataSettings, seed: u64, base: &Base, known: Known) -> Result<(SampleSets, DataRecord)> {
    let refuse = |fault: Fault| Error::Usage(format!("[data]: {}", fault.message));
    settings.check().map_err(refuse)?;
    let cx = SourceContext { verify: known.verify, ..SourceContext::new(Subset::Train, base) };
    let loaded = settings.load(&settings.train, cx);
    let names = loaded.as_ref().ok().and_then(|train| train.names.clone());
    let (mut train, test) = both(loaded, open_set(settings, (base, names.as_deref()), known))?;
    let stamps = stamps(&settings.train, cx);
    let record = SetRecord::new(&train, stamps, known.record.map(|record| &record.train), known.verify)?;
    let header = test.as_ref().map(|(_, record)| record.header);
    if let Some(fault) = settings.faults_with(&record.header, header.as_ref()).into_iter().next() {
        return Err(refuse(fault));
    }
    let images = train.images();
    // Runs that held out samples regardless of their classes go on with those.
    let stratified = known.record.map_or(!known.is_resumed, |record| record.stratified);
    let classes = Some(&train.labels).filter(|_| stratified);
    let (kept, apart) = set_apart((images, classes), settings.num_validation(images), seed);
    // The record is that of the files.
    label_noise::add(&mut train, &kept, settings.num_wrong_labels(kept.len()), seed);
    let train = Arc::new(train);
    let how = settings.normalize_for(record.header.pixels);
    let uses_colors = settings.augment.iter().any(|one| one.uses_colors());
    let to_be_measured =
        [(how.is_measured(), "normalisation"), (settings.whiten.is_some(), "whitening"), (uses_colors, "colours")];
    let measured = match settings.train.is_stream() {
        true => to_measure(&kept, train.features(), seed),
        false => Cow::Borrowed(&kept[..]),
    };
    let normalization = match known.record.filter(|_| !known.measure) {
        Some(earlier) => earlier.normalization_of(record.header.shape)?,
        None => Normalization::new(how, &train, &measured).map_err(refuse)?,
    };
    let whitening = match (&settings.whiten, known.whitening) {
        (None, _) => None,
        (Some(_), Some(earlier)) => Some(fitting(earlier, record.header.shape)?),
        (Some(how), None) => Some(Arc::new(Whitening::fit(how, &normalization, &train, &measured)?)),
    };
    let earlier = known.record.filter(|_| !known.measure).and_then(|record| record.colors);
    let colors = match uses_colors {
        false => None,
        true => Some(earlier.map_or_else(|| color_axes(&train, &measured).map_err(refuse), Ok)?),
    };
    let what: Vec<&str> =
        to_be_measured.into_iter().filter(|(is_measured, _)| *is_measured).map(|(_, what)| what).collect();
    let is_part = measured.len() < kept.len() && known.record.is_none() && !what.is_empty();
    let note = is_part.then(|| {
        let (part, all, what) = (measured.len(), quantity(kept.len() as u64, "image"), what.join(", "));
        format!("[data]: measured on {part} of {all}: {what}")
    });
    drop(measured);
    let (sets, record) = sets(settings, seed, (train, record, kept, apart), test, (normalization, whitening, colors));
    Ok((SampleSets { notes: note.into_iter().collect(), ..sets }, DataRecord { stratified, ..record }))
}

/// The values of images that are measured, if these are read one by one.
const MOST_MEASURED: usize = 1 << 30;
/// The images that are measured, however many values they have.
const LEAST_MEASURED: usize = 1000;

/// Returns the samples on which a stream is measured, ascending: all, or a random choice of as many as have [`MOST_MEASURED`] values.
pub(super) fn to_measure(samples: &[u32], features: usize, seed: u64) -> Cow<'_, [u32]> {
    let most = (MOST_MEASURED / features.max(1)).max(LEAST_MEASURED);
    if samples.len() <= most {
        return Cow::Borrowed(samples);
    }
    let order = Random::new(seed, RandomStream::Measure, 0, 0).permutation(samples.len());
    let mut chosen: Vec<u32> = order.into_iter().take(most).map(|place| samples[place as usize]).collect();
    chosen.sort_unstable();
    Cow::Owned(chosen)
}

/// Returns a whitening that is known if it is one of images of a shape.
fn fitting(whitening: &Arc<Whitening>, shape: [usize; 3]) -> Result<Arc<Whitening>> {
    let (features, fitted) = (shape.iter().product::<usize>(), whitening.features());
    if features == fitted {
        return Ok(Arc::clone(whitening));
    }
    let message = format!("images of {features} features, but the checkpoint's whitening has {fitted}");
    Err(Error::Usage(format!("[data]: {message}; use the data of the run")))
}

/// Reads only the test data of a run, which are whitened by the whitening of the run; its training samples and its validation set are empty.
///
/// # Errors
/// As [`open`].
pub fn open_test(
    settings: &DataSettings,
    seed: u64,
    base: &Base,
    record: &DataRecord,
    whitening: Option<&Arc<Whitening>>,
) -> Result<SampleSets> {
    let names = record.names();
    let test = open_set(settings, (base, names.as_deref()), Known { record: Some(record), ..Known::default() })?;
    let train = Arc::new(Dataset { names, ..record.train.without_samples() });
    let train = (train, record.train.clone(), Vec::new(), Vec::new());
    let normalization = record.normalization_of(record.train.header.shape)?;
    let whitening = whitening.map(|whitening| fitting(whitening, record.train.header.shape)).transpose()?;
    Ok(sets(settings, seed, train, test, (normalization, whitening, record.colors)).0)
}

/// Reads the test data, if there are any.
fn open_set(
    settings: &DataSettings,
    (base, names): (&Base, Option<&[String]>),
    known: Known,
) -> Result<Option<(Arc<Dataset>, SetRecord)>> {
    let Some(source) = &settings.test else { return Ok(None) };
    let cx = SourceContext { subset: Subset::Test, base, names, verify: known.verify };
    let (data, stamps) = (settings.load(source, cx)?, stamps(source, cx));
    let record = SetRecord::new(&data, stamps, known.record.and_then(|record| record.test.as_ref()), known.verify)?;
    Ok(Some((Arc::new(data), record)))
}

fn sets(
    settings: &DataSettings,
    seed: u64,
    (train, record, kept, apart): (Arc<Dataset>, SetRecord, Vec<u32>, Vec<u32>),
    test: Option<(Arc<Dataset>, SetRecord)>,
    (normalization, whitening, measured): (Normalization, Option<Arc<Whitening>>, Option<ColorAxes>),
) -> (SampleSets, DataRecord) {
    let (test, test_record) = test.unzip();
    let (normalization, augment) = (Arc::new(normalization), Arc::from(settings.augmentations()));
    let mix: Arc<[Mix]> = Arc::from(&settings.mix[..]);
    let colors = measured.unwrap_or(ColorAxes::UNIFORM);
    let target_width = settings.targets(&record.header, test_record.as_ref().map(|test| &test.header)).width();
    let set = |name, data: &Arc<Dataset>, samples| {
        let (data, normalization, augment) = (Arc::clone(data), Arc::clone(&normalization), Arc::clone(&augment));
        let (mix, whitening) = (Arc::clone(&mix), whitening.clone());
        Arc::new(SampleSet { name, data, samples, normalization, whitening, augment, colors, mix, target_width })
    };
    let record = DataRecord {
        train: record,
        test: test_record,
        normalization: (*normalization).clone(),
        colors: measured,
        class_names: train.names.as_deref().unwrap_or_default().to_vec(),
        stratified: true,
    };
    let sets = SampleSets {
        validation: (!apart.is_empty()).then(|| set("validation", &train, apart)),
        test: test.map(|test| set("test", &test, (0..test.images() as u32).collect())),
        train: set("train", &train, kept),
        batch: settings.batch,
        order: settings.order,
        seed,
        notes: Vec::new(),
    };
    (sets, record)
}

/// Returns the samples kept for training and the `apart` samples held out for validation, both ascending. The latter
/// are the first `apart` of a random permutation; if the classes of all samples are given as numbers, the first of each class, so many that
/// its share is that of all samples, rounded so that the sum is right.
pub(super) fn set_apart((images, labels): (usize, Option<&Labels>), apart: usize, seed: u64) -> (Vec<u32>, Vec<u32>) {
    if apart == 0 {
        return ((0..images as u32).collect(), Vec::new());
    }
    let mut order = Random::new(seed, RandomStream::Validation, 0, 0).permutation(images);
    if let Some(Labels::Index(labels)) = labels {
        let mut left = shares(labels, apart);
        let (first, last): (Vec<u32>, Vec<u32>) = order.into_iter().partition(|&sample| {
            let left = &mut left[labels[sample as usize] as usize];
            let is_first = *left > 0;
            *left -= usize::from(is_first);
            is_first
        });
        order = [first, last].concat();
    }
    let mut kept = order.split_off(apart);
    kept.sort_unstable();
    order.sort_unstable();
    (kept, order)
}

/// Divides `apart` samples among the classes in proportion to theirs: each gets the whole part of its share, and those with the largest rests
/// one more; of equal rests, the lower class.
fn shares(labels: &[u32], apart: usize) -> Vec<usize> {
    let classes = labels.iter().max().map_or(0, |&largest| largest as usize + 1);
    let counts = ClassCounts::new(labels.iter().copied(), classes).samples;
    let (all, apart) = (labels.len() as u128, apart as u128);
    let share = |count: usize| (count as u128 * apart / all, count as u128 * apart % all);
    let mut shares: Vec<usize> = counts.iter().map(|&count| share(count).0 as usize).collect();
    let mut order: Vec<usize> = (0..classes).collect();
    order.sort_by_key(|&class| std::cmp::Reverse(share(counts[class]).1));
    let missing = apart as usize - shares.iter().sum::<usize>();
    order.into_iter().take(missing).for_each(|class| shares[class] += 1);
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_large_images_are_measured_on_a_choice_that_depends_on_the_seed() {
        let samples: Vec<u32> = (0..5000).map(|sample| 2 * sample + 1).collect();
        // All, if they are small or few.
        assert_eq!(*to_measure(&samples, 3072, 1), samples);
        assert_eq!(*to_measure(&samples[..1000], 1 << 24, 1), samples[..1000]);
        // As many as have 2^30 values, but at least 1000.
        assert_eq!(to_measure(&samples, 1 << 18, 1).len(), 4096);
        let chosen = to_measure(&samples, 1 << 24, 1);
        assert_eq!(chosen.len(), 1000);
        assert!(chosen.windows(2).all(|pair| pair[0] < pair[1]), "not ascending, or twice");
        assert!(chosen.iter().all(|sample| samples.binary_search(sample).is_ok()));
        assert_eq!(to_measure(&samples, 1 << 24, 1), chosen);
        assert_ne!(to_measure(&samples, 1 << 24, 2), chosen);
        // From everywhere: 100 of each tenth, give or take five standard deviations (hypergeometric, 8.5).
        for tenth in samples.chunks(500) {
            let here = chosen.iter().filter(|sample| tenth.contains(sample)).count();
            assert!((57..=143).contains(&here), "{here} of 1000 in a tenth");
        }
    }
}
