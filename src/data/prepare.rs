//! Batches that a GPU prepares: it receives the raw pixels and the random draws for each image, and computes the same
//! bits as [`Batches`](super::Batches) computes on the host.

use super::augment::AugmentLaunch;
use super::mix::Recipe;
use super::sizes::largest;
use super::{Augment, Normalization, PixelType, SampleSets, Whitening};
use crate::device::{Heap, HostBuffer, HostMemory};
use crate::error::Result;
use crate::gpu::kernels::any;
use crate::gpu::{AnyMut, ComputeType, Const, Grid, Launch, int, ints};
use std::sync::Arc;

/// The processor that augments and normalises images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Preparer {
    /// The host, while it assembles a batch.
    #[default]
    Host,
    /// The GPU that loads the batch.
    Device,
}

/// Images before augmentation and normalisation.
#[derive(Debug, Clone, PartialEq)]
pub struct Raw {
    /// As stored in the data set: (rows, H, W, C), or in training with `mix` pairs of images, (rows, 2, H, W, C).
    pub pixels: RawPixels,
    /// The values drawn for each image; empty without augmentation. Those of an image of a pair are followed by the values of
    /// the pair's recipe.
    pub draws: Vec<f32>,
}

/// The pixels of a batch, in memory that a device may read.
#[derive(Debug)]
pub struct RawPixels {
    kind: PixelType,
    buffer: HostBuffer,
    /// The bytes that are in use.
    len: usize,
}

impl RawPixels {
    /// Allocates room for `values` values.
    ///
    /// # Errors
    /// If there is not enough memory.
    pub(super) fn new(kind: PixelType, values: usize, memory: &dyn HostMemory) -> Result<Self> {
        Ok(RawPixels { kind, buffer: memory.allocate(values * kind.bytes())?, len: 0 })
    }

    /// Makes room for so many values, and returns their bytes.
    pub(super) fn resize(&mut self, values: usize) -> &mut [u8] {
        self.len = values * self.kind.bytes();
        &mut self.buffer.as_mut_slice()[..self.len]
    }

    /// Returns the bytes of all values.
    pub fn bytes(&self) -> &[u8] {
        &self.buffer.as_slice()[..self.len]
    }

    /// Returns the memory that they begin, if devices copy it without staging.
    pub fn pinned(&self) -> Option<&HostBuffer> {
        Some(&self.buffer).filter(|buffer| buffer.is_pinned())
    }
}

impl Clone for RawPixels {
    fn clone(&self) -> Self {
        let mut buffer = Heap.allocate(self.buffer.as_slice().len()).expect("the heap has memory, or ends the process");
        buffer.as_mut_slice()[..self.len].copy_from_slice(self.bytes());
        RawPixels { kind: self.kind, buffer, len: self.len }
    }
}

impl PartialEq for RawPixels {
    fn eq(&self, other: &Self) -> bool {
        self.kind == other.kind && self.bytes() == other.bytes()
    }
}

/// The steps that turn raw images into the values of a batch.
#[derive(Debug, Clone, PartialEq)]
pub struct Preparation {
    /// The shapes of images as they are stored, and after each augmentation.
    shapes: Vec<[usize; 3]>,
    /// The values of the largest image between two steps.
    largest: usize,
    /// Whether training images arrive in pairs, which are mixed.
    mixes: bool,
    pixels: PixelType,
    augment: Arc<[Augment]>,
    normalization: Arc<Normalization>,
    whitening: Option<Arc<Whitening>>,
}

/// Whether images are augmented and mixed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Augmented {
    /// Yes, for training.
    Yes,
    /// No, for evaluation.
    No,
}

/// The operand of a load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoadRole {
    /// The device's images or targets.
    Batch,
}

/// The location of raw images in a GPU's memory.
#[derive(Debug, Clone, Copy)]
pub struct Arrived {
    /// The address of the pixels: (rows, H, W, C).
    pub pixels: u64,
    /// The random draws of the images.
    pub draws: Const<f32>,
    /// The table of [`Preparation::table`].
    pub table: Const<f32>,
}

impl Preparation {
    /// Creates the preparation of a run's images.
    ///
    /// # Panics
    /// If the augmentations do not suit the images, which has been reported when the data were opened.
    pub fn of(sets: &SampleSets) -> Self {
        let shapes = Augment::shapes(&sets.train.augment, sets.shape()).expect("the augmentations suit the images");
        let (mixes, whitening) = (!sets.train.mix.is_empty(), sets.train.whitening.clone());
        Preparation {
            largest: largest(&shapes, mixes || whitening.is_some()),
            shapes,
            mixes,
            pixels: sets.train.data.header().pixels,
            augment: Arc::clone(&sets.train.augment),
            normalization: Arc::clone(&sets.train.normalization),
            whitening,
        }
    }

    /// Returns the constants in the layout that the kernels read. Normalisation: scale, number of means, means, standard deviations;
    /// then those of the whitening, if there is one.
    pub fn table(&self) -> Vec<f32> {
        let Normalization { scale, mean, std, .. } = &*self.normalization;
        let [offsets, tiles] = self.whitening.as_ref().map_or([&[][..]; 2], |whitening| whitening.table());
        [&[*scale, mean.len() as f32], &mean[..], &std[..], offsets, tiles].concat()
    }

    /// Launches the kernels that turn raw images into the images of the batch: (rows, H, W, C). The last one writes the batch, all others
    /// f32 images in turn to the parts of the scratch memory.
    ///
    /// # Errors
    /// When a launch fails.
    pub fn launch(&self, augmented: Augmented, at: &Arrived, launch: &Launch<LoadRole>) -> Result<()> {
        let rows = launch.operand(LoadRole::Batch).len(0);
        let pairs = self.mixes && augmented == Augmented::Yes;
        let images = if pairs { 2 * rows } else { rows };
        let Arrived { pixels, draws, table } = *at;
        let mut x = match self.pixels {
            PixelType::U8 => (Const::at(pixels), Const::NONE),
            PixelType::F32 => (Const::NONE, Const::at(pixels)),
        };
        // Those that do not apply in evaluations leave the shape as it is.
        let all = self.augment.iter().zip(self.shapes.windows(2));
        let applied = || all.clone().filter(|(one, _)| augmented == Augmented::Yes || one.evaluates());
        let [h, w, c] = self.shapes[self.shapes.len() - 1];
        // The last augmentation also normalises; without any, that is a step of its own.
        let normalizes = applied().count().max(1) - 1;
        let mixes = normalizes + usize::from(pairs);
        let last = mixes + usize::from(self.whitening.is_some());
        let target = |step: usize| match step == last {
            true => launch.any_mut(LoadRole::Batch),
            false => AnyMut {
                address: launch.scratch().offset(step % 2 * images * self.largest).address(),
                format: ComputeType::F32,
            },
        };
        if applied().next().is_none() {
            let (means, n, to) = (int(self.normalization.mean.len())?, images * h * w * c, target(0));
            let bytes = if last == 0 { launch.operand(LoadRole::Batch).bytes() } else { n * size_of::<f32>() };
            // SAFETY: raw images and what they become have n elements, the table so many means.
            unsafe {
                let grid = Grid::cover(bytes, 256 * 16);
                any::augment_normalize(&launch.issue, grid, x.0, x.1, table, to, n as i64, means)?;
            }
            x = (Const::NONE, Const::at(to.address));
        }
        let drawn: usize = applied().map(|(one, _)| one.values_drawn()).sum();
        let stride = int(drawn + if pairs { Recipe::VALUES } else { 0 })?;
        let mut first = 0;
        for (step, (one, shapes)) in applied().enumerate() {
            let (from, shape, y) = (shapes[0], shapes[1], target(step));
            one.launch(&AugmentLaunch {
                issue: launch.issue,
                grid: Grid::new((shape[0] * shape[1]).div_ceil(256), images.min(65535), 1),
                x,
                draws: draws.offset(first),
                table: if step == normalizes { table } else { Const::NONE },
                y,
                images: int(images)?,
                from: ints(from)?,
                to: ints(shape)?,
                stride,
            })?;
            (first, x) = (first + one.values_drawn(), (Const::NONE, Const::at(y.address)));
        }
        if pairs {
            let grid = Grid::new((h * w).div_ceil(256), rows.min(65535), 1);
            let (draws, y, rows) = (draws.offset(drawn), target(mixes), int(rows)?);
            let [h, w, c] = ints([h, w, c])?;
            // SAFETY: x is (rows, 2, h, w, c), y is (rows, h, w, c), they do not overlap, and each image has `stride` drawn values.
            unsafe { any::augment_mix(&launch.issue, grid, x.1, draws, y, rows, h, w, c, stride)? };
            x = (Const::NONE, Const::at(y.address));
        }
        let Some(whitening) = &self.whitening else { return Ok(()) };
        let d = whitening.features();
        let mean = table.offset(2 + 2 * self.normalization.mean.len());
        let (grid, tiles) = (Grid::new(d.div_ceil(256), rows.min(65535), 1), mean.offset(d));
        let (to, tile) = (target(last), int(Whitening::tile())?);
        // SAFETY: x and y are (rows, d) and do not overlap; the table ends with a whitening of d features.
        unsafe { any::augment_whiten(&launch.issue, grid, x.1, mean, tiles, to, int(rows)?, int(d)?, tile) }
    }
}
