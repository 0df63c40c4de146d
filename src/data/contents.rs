//! Reads the contents of data sets as a run would, to report what is wrong with them and to summarise them.

use super::classes::ClassCounts;
use super::dataset::{ClassNames, Dataset, Labels, Subset, Targets};
use super::format::{Base, SourceContext};
use super::normalization::{Normalization, moments};
use super::record::fingerprint;
use super::sample_sets::set_apart;
use super::samples::ImageView;
use super::settings::DataSettings;
use crate::error::{Fault, Result, quantity};
use std::fmt;

/// The contents of data sets.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Contents {
    /// A summary of every set that could be read: the training set without its validation part, that part, the test set.
    pub sets: Vec<SetSummary>,
    /// Whether the training set and the test set are the same.
    pub is_test_train: bool,
    /// Everything that is wrong, by the key in `[data]`.
    pub faults: Vec<Fault>,
}

/// The samples of a set in numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct SetSummary {
    /// `train`, `validation` or `test`.
    pub name: &'static str,
    /// Number of samples.
    pub images: usize,
    /// Height H, width W and channels C of each image.
    pub shape: [usize; 3],
    /// What the targets are.
    pub targets: Targets,
    /// The samples of each class, if the labels are class numbers.
    pub counts: Option<ClassCounts>,
    /// Mean and standard deviation of the raw pixels of each channel.
    pub moments: Vec<[f64; 2]>,
    /// The smallest and the largest pixel.
    pub range: [f32; 2],
}

/// Reads the sets of the given subsets, one after another.
///
/// # Errors
/// An error of the operating system that is not a mistake in a path.
pub fn inspect(settings: &DataSettings, seed: u64, base: &Base, subsets: &[Subset]) -> Result<Contents> {
    let mut contents = Contents::default();
    let test = settings.test.as_ref().map(|source| ("test", source, Subset::Test));
    let (mut fingerprints, mut names) = (Vec::new(), None::<ClassNames>);
    for (key, source, subset) in [Some(("train", &settings.train, Subset::Train)), test].into_iter().flatten() {
        if !subsets.contains(&subset) {
            continue;
        }
        let cx = SourceContext { subset, base, names: names.as_deref(), verify: true };
        let found = settings.load(source, cx).and_then(|data| {
            names = names.take().or_else(|| data.names.clone());
            let apart = if subset == Subset::Train { settings.num_validation(data.images()) } else { 0 };
            // Without samples for training, the share for validation has been reported.
            if apart >= data.images() {
                return Ok((fingerprint(&data)?, Vec::new(), None));
            }
            let (kept, apart) = set_apart((data.images(), Some(&data.labels)), apart, seed);
            let how = settings.normalize_for(data.pixels);
            let fault = if subset == Subset::Train { Normalization::new(how, &data, &kept).err() } else { None };
            let mut sets = vec![SetSummary::new(key, &data, &kept)?];
            if !apart.is_empty() {
                sets.push(SetSummary::new("validation", &data, &apart)?);
            }
            Ok((fingerprint(&data)?, sets, fault))
        });
        match found {
            Ok((fingerprint, sets, fault)) => {
                fingerprints.push(fingerprint);
                contents.sets.extend(sets);
                contents.faults.extend(fault);
            }
            Err(error) if error.exit_code() == 1 => return Err(error),
            Err(error) => {
                let problems = error.problems();
                contents.faults.extend(problems.iter().map(|problem| Fault::at(key, problem.to_string())));
            }
        }
    }
    contents.is_test_train = matches!(&*fingerprints, [train, test] if train == test);
    Ok(contents)
}

impl SetSummary {
    /// Summarises some samples of a data set, at least one.
    ///
    /// # Errors
    /// If an image cannot be read.
    pub fn new(name: &'static str, data: &Dataset, samples: &[u32]) -> Result<Self> {
        let counts = match &data.labels {
            Labels::Index(labels) => {
                Some(ClassCounts::new(samples.iter().map(|&sample| labels[sample as usize]), data.classes))
            }
            Labels::Dense(_) | Labels::Values(..) => None,
        };
        let mut range = [f32::INFINITY, f32::NEG_INFINITY];
        let mut widen = |low: f32, high: f32| range = [range[0].min(low), range[1].max(high)];
        data.each(samples.iter().map(|&sample| sample as usize), |image| match image {
            ImageView::U8(x) => {
                let [low, high] = x.iter().fold([u8::MAX, 0], |[low, high], &x| [low.min(x), high.max(x)]);
                widen(low.into(), high.into());
            }
            ImageView::F32(x) => x.iter().for_each(|&x| widen(x, x)),
        })?;
        Ok(SetSummary {
            name,
            images: samples.len(),
            shape: data.shape,
            targets: data.header().targets(),
            counts,
            moments: moments(data, samples, data.shape[2])?,
            range,
        })
    }
}

impl fmt::Display for SetSummary {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let SetSummary { name, images, shape: [h, w, c], targets, counts, moments, range: [low, high] } = self;
        write!(f, "{name}: {} of {h}x{w}x{c}, ", quantity(*images as u64, "image"))?;
        match counts {
            Some(counts) => {
                let present: Vec<usize> = counts.present().map(|class| counts.samples[class]).collect();
                let (least, most) = (present.iter().min().unwrap_or(&0), present.iter().max().unwrap_or(&0));
                write!(f, "{} of {targets} with {least} to {most} samples each", present.len())?;
            }
            None => write!(f, "{targets}")?,
        }
        let each = |which: usize| moments.iter().map(|m| format!("{:.4}", m[which])).collect::<Vec<_>>().join(", ");
        write!(f, "; pixels {low} to {high}, by channel: mean {}, deviation {}", each(0), each(1))
    }
}
