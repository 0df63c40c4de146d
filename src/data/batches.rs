//! Any batch of a sample set, computed from its index alone.

use super::dataset::ImageMemory;
use super::frames::{Framed, Frames};
use super::mix::{Partner, Recipe};
use super::order::order_of;
use super::prepare::RawPixels;
use super::whitening::IMAGES;
use super::workers::{Scratch, Workers};
use super::{Augment, ImageView, Mix, Preparer, Raw, SampleOrder, SampleSet, SampleSets};
use crate::device::{Heap, HostMemory, Pool, Random, RandomStream};
use crate::error::Result;
use crate::tensor::cut;
use serde::{Deserialize, Serialize};
use std::ops::Range;
use std::sync::Arc;

/// The samples of one step, ready for the devices.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Batch {
    /// Normalised, and if the settings say so mixed and whitened pixels: (rows, H, W, C); empty if a GPU prepares them.
    pub images: Vec<f32>,
    /// The raw images, if a GPU prepares them.
    pub raw: Option<Raw>,
    /// Class numbers (rows, 1), distributions (rows, classes), or values (rows, D); of samples that are mixed, their sum.
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

/// The rows of every batch that are needed: of so many parts, those of some consecutive ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// The number of parts into which batches are divided.
    pub of: usize,
    /// The parts that are needed.
    pub parts: Range<usize>,
}

impl Share {
    /// All rows.
    pub const ALL: Share = Share { of: 1, parts: 0..1 };

    /// Returns the needed rows of a batch.
    pub fn rows(&self, batch: usize) -> Range<usize> {
        let start = |part| cut(batch, self.of, part).0;
        start(self.parts.start)..if self.parts.end == self.of { batch } else { start(self.parts.end) }
    }
}

/// Computes batches of a sample set: a pure function of (sets, epoch, index), with scratch memory.
#[derive(Debug, Clone)]
pub struct Batches {
    set: Arc<SampleSet>,
    plan: EpochPlan,
    training: Option<Training>,
    /// The augmentations, and the shapes before each and after the last.
    augment: Vec<Augment>,
    shapes: Vec<[usize; 3]>,
    preparer: Preparer,
    /// The rows whose images are computed.
    share: Share,
    /// The losses of all samples, by which hard examples are chosen.
    losses: Option<Arc<[f32]>>,
    /// The order of the current epoch.
    order: Option<(u64, Vec<u32>)>,
    workers: Workers,
}

/// The settings that apply to training only.
#[derive(Debug, Clone, Copy)]
struct Training {
    seed: u64,
    order: SampleOrder,
    mixes: bool,
}

impl Batches {
    /// Creates the batches of the training set: in the order of the settings, augmented and mixed.
    pub fn train(sets: &SampleSets) -> Self {
        let training = Training { seed: sets.seed, order: sets.order, mixes: true };
        Batches { training: Some(training), ..Batches::with(&sets.train, sets.batch, sets.train.augment.to_vec()) }
    }

    /// Creates the batches of an evaluation: in the order of the data set, changed without chance or not at all.
    pub fn eval(set: &Arc<SampleSet>, batch: usize) -> Self {
        Batches::with(set, batch, Augment::of_evaluation(&set.augment))
    }

    fn with(set: &Arc<SampleSet>, batch: usize, augment: Vec<Augment>) -> Self {
        let plan = EpochPlan { samples: set.samples.len(), batch };
        // What does not suit the images has been reported when they were opened.
        let shapes = Augment::shapes(&augment, set.data.shape).expect("the augmentations suit the images");
        let (workers, preparer) = (Workers::new(None), Preparer::Host);
        Batches {
            set: Arc::clone(set),
            plan,
            training: None,
            augment,
            shapes,
            preparer,
            share: Share::ALL,
            losses: None,
            order: None,
            workers,
        }
    }

    /// Leaves every sample alone; targets keep their form.
    pub fn unmixed(self) -> Self {
        Batches { training: self.training.map(|training| Training { mixes: false, ..training }), ..self }
    }

    /// Sets the losses of all samples, by which hard examples are chosen if the settings say so.
    pub fn with_losses(self, losses: Option<Arc<[f32]>>) -> Self {
        Batches { losses, order: None, ..self }
    }

    /// Sets the threads that read images, besides the one that asks for a batch.
    pub fn read_by(self, pool: Option<Arc<Pool>>) -> Self {
        Batches { workers: Workers::new(pool), ..self }
    }

    /// Sets whether the host or a GPU prepares the images.
    pub fn prepared_by(self, preparer: Preparer) -> Self {
        Batches { preparer, ..self }
    }

    /// Sets the rows whose images are needed; those of others are not computed.
    pub fn shared(self, share: Share) -> Self {
        Batches { share, ..self }
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
        // There is room for the target of a partner.
        let (values, targets) = (rows * self.features(), (rows + 1) * self.set.target_width);
        let (images, raw) = match self.preparer {
            Preparer::Host => (Vec::with_capacity(values), None),
            Preparer::Device => {
                let images = rows * self.images_of_sample();
                let pixels = RawPixels::new(self.set.data.pixels, images * self.set.data.features(), memory)?;
                let drawn = Recipe::VALUES + self.augment.iter().map(|one| one.values_drawn()).sum::<usize>();
                (Vec::new(), Some(Raw { pixels, draws: Vec::with_capacity(images * drawn) }))
            }
        };
        Ok(Batch { images, raw, targets: Vec::with_capacity(targets), ..Batch::default() })
    }

    /// Computes batch `index` of an epoch into `batch`. Allocates only the order of a new epoch.
    ///
    /// # Errors
    /// If an image cannot be read.
    ///
    /// # Panics
    /// When the epoch has no such batch.
    pub fn fill(&mut self, epoch: u64, index: usize, batch: &mut Batch) -> Result<()> {
        assert!(index < self.plan.batches(), "batch {index} of an epoch of {}", self.plan.batches());
        self.fill_at(self.plan.place(epoch, index), batch)
    }

    /// Computes the batch at a place into `batch`, as [`Batches::fill`] does.
    ///
    /// # Errors
    /// If an image cannot be read.
    ///
    /// # Panics
    /// When the epoch ends before the place.
    pub fn fill_at(&mut self, place: Place, batch: &mut Batch) -> Result<()> {
        let rows = self.plan.rows_at(place);
        self.fill_part(place, (BatchPart::Whole, 0..rows), batch)
    }

    /// Computes a part of the batch at a place into `batch`.
    ///
    /// # Errors
    /// If an image cannot be read.
    ///
    /// # Panics
    /// When the epoch ends before the place.
    pub fn fill_part(&mut self, place: Place, (part, own): (BatchPart, Range<usize>), batch: &mut Batch) -> Result<()> {
        let Place { epoch, sample } = place;
        let first = sample + own.start;
        if let Some(Training { seed, order, .. }) = self.training
            && self.order.as_ref().is_none_or(|(of, _)| *of != epoch)
        {
            let SampleSet { samples, data, .. } = &*self.set;
            let order = order_of(order, (samples, &data.labels), self.losses.as_deref(), seed, epoch);
            self.order = order.map(|order| (epoch, order));
        }
        let (rows, needed) = (own.len(), self.share.rows(own.len()));
        (batch.epoch, batch.index, batch.first, batch.rows) = (epoch, sample / self.plan.batch, first, rows);
        (batch.whole, batch.part, batch.row) = (self.plan.rows_at(place), part, own.start);
        batch.targets.clear();
        (0..rows).for_each(|row| self.append_target(epoch, self.sample(first + row), &mut batch.targets));
        match &mut batch.raw {
            None => {
                let features = self.features();
                batch.images.resize(rows * features, 0.0);
                let first = first + needed.start;
                let read = |row, y: &mut [f32], memory: &mut Scratch| self.image(epoch, first + row, memory, y);
                self.workers.each(&mut batch.images[needed.start * features..needed.end * features], features, read)?;
                if let Some(whitening) = &self.set.whitening {
                    // Whole blocks: what is computed together is the same whoever needs it.
                    let blocks = needed.start / IMAGES * IMAGES..rows.min(needed.end.next_multiple_of(IMAGES));
                    let images = &mut batch.images[blocks.start * features..blocks.end * features];
                    self.workers.blocks(images, IMAGES * features, |images, memory| {
                        whitening.apply(images, &mut memory.centred);
                    });
                }
                Ok(())
            }
            Some(raw) => {
                raw.draws.clear();
                (0..rows).for_each(|row| self.draw_row(epoch, self.sample(first + row), &mut raw.draws));
                let (images, features) = (self.images_of_sample(), self.set.data.features());
                let bytes = raw.pixels.resize(rows * images * features);
                let width = features * self.set.data.pixels.bytes();
                let own = &mut bytes[needed.start * images * width..needed.end * images * width];
                self.workers.each(own, width, |image, to, memory| {
                    let sample = self.sample(first + needed.start + image / images);
                    let partner = if image % images == 0 { None } else { self.partner(epoch, sample) };
                    let (read, stream) = partner
                        .map_or((sample, RandomStream::Augment), |partner| (partner.sample, RandomStream::Partner));
                    let random = self.random(stream, epoch, sample);
                    let framed = random.as_ref().map_or(Framed::Middle, Framed::Random);
                    self.set.data.read_to(read as usize, framed, &mut memory.image, to)
                })
            }
        }
    }

    /// Reads the image of a sample, cut and resized with random numbers if there are some, or else as in an evaluation.
    fn read<'s>(&'s self, index: u32, random: Option<Random>, memory: &'s mut ImageMemory) -> Result<ImageView<'s>> {
        let framed = random.as_ref().map_or(Framed::Middle, Framed::Random);
        self.set.data.read(index as usize, framed, memory)
    }

    /// Returns the index in the data set of the sample at a position of the epoch that was computed last.
    pub fn sample(&self, position: usize) -> u32 {
        let place = self.order.as_ref().map_or(position, |(_, order)| order[position] as usize);
        self.set.samples[place]
    }

    /// Returns the number of values of a prepared image.
    fn features(&self) -> usize {
        self.shapes[self.shapes.len() - 1].iter().product()
    }

    /// Returns how many images a GPU receives of each sample: those of a pair, whether it is mixed or not.
    fn images_of_sample(&self) -> usize {
        if self.training.is_some() && !self.set.mix.is_empty() { 2 } else { 1 }
    }

    /// Returns what a sample is mixed with, if it is.
    fn partner(&self, epoch: u64, sample: u32) -> Option<Partner> {
        let training = self.training.filter(|training| training.mixes)?;
        let random = Random::new(training.seed, RandomStream::Mix, epoch, u64::from(sample));
        Mix::draw_partner(&self.set.mix, self.shapes[self.shapes.len() - 1], &self.set.samples, &random)
    }

    /// Appends the target of a sample, mixed with its partner's.
    fn append_target(&self, epoch: u64, sample: u32, to: &mut Vec<f32>) {
        self.set.append_target(sample, to);
        if let Some(partner) = self.partner(epoch, sample) {
            let end = to.len();
            self.set.append_target(partner.sample, to);
            let (own, other) = to.split_at_mut(end);
            partner.recipe.mix_targets(&mut own[end - other.len()..], other);
            to.truncate(end);
        }
    }

    /// Appends the values that are drawn for an image of a sample, from one of its random streams unless it is evaluated.
    fn draw(&self, stream: RandomStream, epoch: u64, sample: u32, to: &mut Vec<f32>) {
        let first = self.set.data.frames.as_ref().map_or(0, Frames::numbers);
        let random = self.random(stream, epoch, sample);
        Augment::draw_all(&self.augment, &self.shapes, (random.as_ref(), first, self.set.colors), to);
    }

    /// Returns the random numbers of a sample in training.
    fn random(&self, stream: RandomStream, epoch: u64, sample: u32) -> Option<Random> {
        self.training.as_ref().map(|training| Random::new(training.seed, stream, epoch, u64::from(sample)))
    }

    /// Appends what a GPU needs to know of a sample: the values drawn for its image, and for those of a pair also their recipe.
    fn draw_row(&self, epoch: u64, sample: u32, to: &mut Vec<f32>) {
        if self.images_of_sample() == 1 {
            return self.draw(RandomStream::Augment, epoch, sample, to);
        }
        let recipe = self.partner(epoch, sample).map_or(Recipe::ALONE, |partner| partner.recipe);
        for stream in [RandomStream::Augment, RandomStream::Partner] {
            self.draw(stream, epoch, sample, to);
            to.extend(recipe.values());
        }
    }

    /// Computes the image at a position of the epoch, mixed with its partner's.
    fn image(&self, epoch: u64, position: usize, memory: &mut Scratch, y: &mut [f32]) -> Result<()> {
        let sample = self.sample(position);
        memory.drawn.clear();
        self.draw(RandomStream::Augment, epoch, sample, &mut memory.drawn);
        self.prepared(sample, self.random(RandomStream::Augment, epoch, sample), memory, y)?;
        if let Some(partner) = self.partner(epoch, sample) {
            memory.drawn.clear();
            self.draw(RandomStream::Partner, epoch, sample, &mut memory.drawn);
            let mut other = std::mem::take(&mut memory.partner);
            other.resize(y.len(), 0.0);
            let random = self.random(RandomStream::Partner, epoch, sample);
            self.prepared(partner.sample, random, memory, &mut other)?;
            partner.recipe.mix_images(self.shapes[self.shapes.len() - 1], y, &other);
            memory.partner = other;
        }
        Ok(())
    }

    /// Computes the image of a sample with the drawn values: raw pixels, augmentation, normalisation.
    fn prepared(&self, index: u32, random: Option<Random>, memory: &mut Scratch, y: &mut [f32]) -> Result<()> {
        let normalization = &self.set.normalization;
        let Scratch { image, images: [x, next], drawn, work, .. } = memory;
        let raw = self.read(index, random, image)?;
        if self.augment.is_empty() {
            match raw {
                ImageView::U8(x) => normalization.bytes(x, y),
                ImageView::F32(x) => normalization.floats(x, y),
            }
            return Ok(());
        }
        x.clear();
        match raw {
            ImageView::U8(raw) => x.extend(raw.iter().map(|&raw| f32::from(raw))),
            ImageView::F32(raw) => x.extend_from_slice(raw),
        }
        let (mut x, mut next, mut drawn) = (x, next, &drawn[..]);
        for (one, shapes) in self.augment.iter().zip(self.shapes.windows(2)) {
            let (own, rest) = drawn.split_at(one.values_drawn());
            next.resize(shapes[1].iter().product(), 0.0);
            one.apply(own, shapes[0], x, work, next);
            std::mem::swap(&mut x, &mut next);
            drawn = rest;
        }
        normalization.floats(x, y);
        Ok(())
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
