//! Any batch of a sample set, computed from its index alone.

use super::prepare::RawPixels;
use super::{Augment, Pixels, Preparer, Raw, SampleOrder, SampleSet, SampleSets};
use crate::device::{Heap, HostMemory, Random, RandomStream};
use crate::error::Result;
use serde::{Deserialize, Serialize};
use std::ops::Range;
use std::sync::Arc;

/// The samples of one step, ready for the devices.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Batch {
    /// Normalised pixels: (rows, H, W, C); empty if a GPU prepares them.
    pub images: Vec<f32>,
    /// The raw images, if a GPU prepares them.
    pub raw: Option<Raw>,
    /// Class numbers (rows, 1), distributions (rows, classes), or values (rows, D).
    pub targets: Vec<f32>,
    /// Number of samples; the last batch of an epoch may have fewer than the others.
    pub rows: usize,
    /// The number of samples of the whole batch that it is a part of.
    pub whole: usize,
    /// Which part of that batch it is.
    pub part: BatchPart,
    /// The position of its first sample in that batch.
    pub row: usize,
    /// The epoch, from 0.
    pub epoch: u64,
    /// The index of the batch in its epoch, from 0.
    pub index: usize,
    /// The position of its first sample in the order of the epoch.
    pub first: usize,
}

/// A part of a batch whose gradients are accumulated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum BatchPart {
    /// The whole batch.
    #[default]
    Whole,
    /// The first of several parts.
    First,
    /// Neither the first nor the last.
    Middle,
    /// The last of several parts, after which the weights are updated.
    Last,
}

impl BatchPart {
    /// Returns true if no part of the batch follows.
    pub fn is_last(self) -> bool {
        matches!(self, BatchPart::Whole | BatchPart::Last)
    }

    /// Divides a batch of `rows` into parts of at most `size`: each part, and its range of rows.
    pub fn divide(rows: usize, size: usize) -> impl Iterator<Item = (BatchPart, Range<usize>)> {
        (0..rows).step_by(size.max(1)).map(move |first| {
            let end = rows.min(first + size);
            let part = match (first == 0, end == rows) {
                (true, true) => BatchPart::Whole,
                (true, false) => BatchPart::First,
                (false, false) => BatchPart::Middle,
                (false, true) => BatchPart::Last,
            };
            (part, first..end)
        })
    }
}

/// A place in the training data: everything before it has been used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Place {
    /// The epoch, from 0.
    pub epoch: u64,
    /// The position of the next sample in the order of the epoch.
    #[serde(rename = "sample_in_epoch")]
    pub sample: usize,
}

/// How an epoch is divided into batches: each sample once; the last batch may be smaller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochPlan {
    /// Samples in an epoch, at least 1.
    pub samples: usize,
    /// Samples in a batch, at least 1.
    pub batch: usize,
}

impl EpochPlan {
    /// Returns the number of batches in an epoch.
    pub fn batches(self) -> usize {
        self.samples.div_ceil(self.batch)
    }

    /// Returns the number of samples in batch `index` of an epoch.
    pub fn rows(self, index: usize) -> usize {
        self.batch.min(self.samples - index * self.batch)
    }

    /// Returns the epoch of step `step`, counted from 0, and the index of its batch.
    pub fn at(self, step: u64) -> (u64, usize) {
        let batches = self.batches() as u64;
        (step / batches, (step % batches) as usize)
    }

    /// Returns the place of a batch of an epoch.
    pub fn place(self, epoch: u64, index: usize) -> Place {
        Place { epoch, sample: index * self.batch }
    }

    /// Returns the nearest place that exists in these epochs: the next epoch's start if the epoch has fewer samples.
    pub fn nearest(self, place: Place) -> Place {
        if place.sample < self.samples { place } else { Place { epoch: place.epoch + 1, sample: 0 } }
    }

    /// Returns the number of samples in the batch at a place. After a change of the batch, the batches of an epoch need
    /// not start at multiples of it.
    pub fn rows_at(self, place: Place) -> usize {
        self.batch.min(self.samples - place.sample)
    }

    /// Returns the place after the batch at a place.
    pub fn after(self, place: Place) -> Place {
        self.nearest(Place { sample: place.sample + self.rows_at(place), ..place })
    }

    /// Returns the number of batches from a place to the end of its epoch.
    pub fn batches_left(self, place: Place) -> usize {
        (self.samples - place.sample).div_ceil(self.batch)
    }
}

/// Computes batches of a sample set: a pure function of (sets, epoch, index), with scratch memory.
#[derive(Debug, Clone)]
pub struct Batches {
    set: Arc<SampleSet>,
    plan: EpochPlan,
    training: Option<Training>,
    preparer: Preparer,
    /// The order of the current epoch.
    order: Option<(u64, Vec<u32>)>,
    /// Two raw images, used in turn by the steps of augmentation.
    images: [Vec<f32>; 2],
    /// Scratch memory for one step of augmentation.
    work: Vec<f32>,
}

/// The settings that apply to training only.
#[derive(Debug, Clone)]
struct Training {
    seed: u64,
    augment: Vec<Augment>,
    order: SampleOrder,
}

impl Batches {
    /// Creates the batches of the training set: in the order of the settings, augmented.
    pub fn train(sets: &SampleSets) -> Self {
        let training = Training { seed: sets.seed, augment: sets.augment.clone(), order: sets.order };
        Batches { training: Some(training), ..Batches::eval(&sets.train, sets.batch) }
    }

    /// Creates the batches of an evaluation: in the order of the data set, without augmentation.
    pub fn eval(set: &Arc<SampleSet>, batch: usize) -> Self {
        let plan = EpochPlan { samples: set.samples.len(), batch };
        let image = vec![0.0; set.data.features()];
        Batches {
            set: Arc::clone(set),
            plan,
            training: None,
            preparer: Preparer::Host,
            order: None,
            images: [image.clone(), image],
            work: Vec::new(),
        }
    }

    /// Sets whether the host or a GPU prepares the images.
    pub fn prepared_by(self, preparer: Preparer) -> Self {
        Batches { preparer, ..self }
    }

    /// Returns how an epoch is divided into batches.
    pub fn plan(&self) -> EpochPlan {
        self.plan
    }

    /// Returns an empty batch with capacity for the largest one.
    pub fn empty(&self) -> Batch {
        self.empty_in(&Heap, self.plan.rows(0)).expect("the heap has memory, or ends the process")
    }

    /// Returns an empty batch with capacity for `rows` samples, whose raw pixels will be in the given memory.
    ///
    /// # Errors
    /// If there is not enough memory.
    pub fn empty_in(&self, memory: &dyn HostMemory, rows: usize) -> Result<Batch> {
        let (values, width) = (rows * self.set.data.features(), self.set.data.header().target_width);
        let (images, raw) = match self.preparer {
            Preparer::Host => (Vec::with_capacity(values), None),
            Preparer::Device => {
                let pixels = RawPixels::new(self.set.data.header().pixels, values, memory)?;
                let draws = Vec::with_capacity(rows * self.augment().len() * Augment::DRAWS);
                (Vec::new(), Some(Raw { pixels, draws }))
            }
        };
        Ok(Batch { images, raw, targets: Vec::with_capacity(rows * width), ..Batch::default() })
    }

    /// Computes batch `index` of an epoch into `batch`. Allocates only the order of a new epoch.
    ///
    /// # Panics
    /// When the epoch has no such batch.
    pub fn fill(&mut self, epoch: u64, index: usize, batch: &mut Batch) {
        assert!(index < self.plan.batches(), "batch {index} of an epoch of {}", self.plan.batches());
        self.fill_at(self.plan.place(epoch, index), batch);
    }

    /// Computes the batch at a place into `batch`, as [`Batches::fill`] does.
    ///
    /// # Panics
    /// When the epoch ends before the place.
    pub fn fill_at(&mut self, place: Place, batch: &mut Batch) {
        let rows = self.plan.rows_at(place);
        self.fill_part(place, (BatchPart::Whole, 0..rows), batch);
    }

    /// Computes a part of the batch at a place into `batch`.
    ///
    /// # Panics
    /// When the epoch ends before the place.
    pub fn fill_part(&mut self, place: Place, (part, own): (BatchPart, Range<usize>), batch: &mut Batch) {
        let Place { epoch, sample } = place;
        let first = sample + own.start;
        let shuffle = self.training.as_ref().filter(|training| training.order == SampleOrder::Shuffle);
        if let Some(Training { seed, .. }) = shuffle
            && self.order.as_ref().is_none_or(|(of, _)| *of != epoch)
        {
            let random = Random::new(*seed, RandomStream::Order, epoch, 0);
            self.order = Some((epoch, random.permutation(self.plan.samples)));
        }
        let features = self.set.data.features();
        let rows = own.len();
        (batch.epoch, batch.index, batch.first, batch.rows) = (epoch, sample / self.plan.batch, first, rows);
        (batch.whole, batch.part, batch.row) = (self.plan.rows_at(place), part, own.start);
        match &mut batch.raw {
            None => batch.images.resize(rows * features, 0.0),
            Some(raw) => raw.clear(),
        }
        batch.targets.clear();
        for row in 0..rows {
            let sample = self.sample(first + row);
            match &mut batch.raw {
                None => self.image(epoch, sample, &mut batch.images[row * features..][..features]),
                Some(raw) => self.raw_image(epoch, sample, raw),
            }
            self.set.data.labels.append(self.set.data.classes, sample as usize, &mut batch.targets);
        }
    }

    /// Returns the index in the data set of the sample at a position of the epoch that was computed last.
    pub fn sample(&self, position: usize) -> u32 {
        let place = self.order.as_ref().map_or(position, |(_, order)| order[position] as usize);
        self.set.samples[place]
    }

    /// Returns the steps of augmentation.
    fn augment(&self) -> &[Augment] {
        self.training.as_ref().map_or(&[], |training| &training.augment)
    }

    /// Returns the random stream of a sample's augmentation.
    fn random(&self, epoch: u64, sample: u32) -> Random {
        let seed = self.training.as_ref().map_or(0, |training| training.seed);
        Random::new(seed, RandomStream::Augment, epoch, u64::from(sample))
    }

    /// Appends one raw image and its draws.
    fn raw_image(&self, epoch: u64, sample: u32, raw: &mut Raw) {
        let features = self.set.data.features();
        let pixels = sample as usize * features..(sample as usize + 1) * features;
        raw.pixels.extend(&self.set.data.pixels, pixels);
        let random = self.random(epoch, sample);
        for (step, augment) in self.augment().iter().enumerate() {
            raw.draws.extend(augment.draw(&random, step));
        }
    }

    /// Computes one image: raw pixels, augmentation, normalisation.
    fn image(&mut self, epoch: u64, sample: u32, y: &mut [f32]) {
        let random = self.random(epoch, sample);
        let (data, normalization) = (&self.set.data, &self.set.normalization);
        let pixels = sample as usize * y.len()..(sample as usize + 1) * y.len();
        let training = self.training.as_ref().filter(|training| !training.augment.is_empty());
        let Some(Training { augment, .. }) = training else {
            return match &data.pixels {
                Pixels::U8(x) => normalization.bytes(&x[pixels], y),
                Pixels::F32(x) => normalization.floats(&x[pixels], y),
            };
        };
        let [mut x, mut next] = self.images.each_mut();
        match &data.pixels {
            Pixels::U8(raw) => x.iter_mut().zip(&raw[pixels]).for_each(|(x, &raw)| *x = f32::from(raw)),
            Pixels::F32(raw) => x.copy_from_slice(&raw[pixels]),
        }
        for (step, augment) in augment.iter().enumerate() {
            augment.apply(augment.draw(&random, step), data.shape, x, &mut self.work, next);
            std::mem::swap(&mut x, &mut next);
        }
        normalization.floats(x, y);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_is_divided_so_that_each_sample_counts_once() {
        let plan = EpochPlan { samples: 10, batch: 4 };
        assert_eq!((plan.batches(), plan.rows(0), plan.rows(2)), (3, 4, 2));
        assert_eq!((plan.at(0), plan.at(2), plan.at(3), plan.at(7)), ((0, 0), (0, 2), (1, 0), (2, 1)));
        let whole = EpochPlan { samples: 8, batch: 4 };
        assert_eq!((whole.batches(), whole.rows(1)), (2, 4));
        assert_eq!(EpochPlan { samples: 3, batch: 100 }.rows(0), 3);
    }

    #[test]
    fn after_a_change_of_the_batch_each_sample_is_still_used_once() {
        let plan = EpochPlan { samples: 10, batch: 4 };
        let mut place = Place { epoch: 2, sample: 3 };
        assert_eq!(plan.batches_left(place), 2);
        let rows: Vec<usize> = (0..3)
            .map(|_| {
                let rows = plan.rows_at(place);
                place = plan.after(place);
                rows
            })
            .collect();
        assert_eq!((rows, place), (vec![4, 3, 4], Place { epoch: 3, sample: 4 }));
        assert_eq!(plan.nearest(Place { epoch: 3, sample: 10 }), Place { epoch: 4, sample: 0 });
    }
}
