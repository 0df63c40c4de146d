//! Batches that a GPU prepares: it gets the pixels as the data set holds them, and what was drawn for every image, and
//! computes the same bits as [`Batches`](super::Batches) does on the host.

use super::{Augment, Normalization, PixelType, Pixels, SampleSets};
use crate::error::Result;
use crate::gpu::{Const, Grid, Issue, Launch, Mut, bytes_of, int, ints, kernels};
use std::sync::Arc;

/// Who augments and normalises images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Preparer {
    /// The host, while it puts a batch together.
    #[default]
    Host,
    /// The GPU that reads them.
    Device,
}

/// Images that are not prepared yet.
#[derive(Debug, Clone, PartialEq)]
pub struct Raw {
    /// As the data set holds them: (rows, H, W, C).
    pub pixels: Pixels,
    /// What was drawn: (rows, steps, [`Augment::DRAWS`]); empty where nothing is augmented.
    pub draws: Vec<f32>,
}

impl Raw {
    /// Returns the bytes of the pixels, and how many each value of them takes.
    pub fn bytes(&self) -> (&[u8], usize) {
        match &self.pixels {
            Pixels::U8(pixels) => (pixels, 1),
            Pixels::F32(pixels) => (bytes_of(pixels), size_of::<f32>()),
        }
    }

    /// Takes everything out, and keeps the memory.
    pub(super) fn clear(&mut self) {
        match &mut self.pixels {
            Pixels::U8(pixels) => pixels.clear(),
            Pixels::F32(pixels) => pixels.clear(),
        }
        self.draws.clear();
    }
}

/// What becomes of raw images.
#[derive(Debug, Clone, PartialEq)]
pub struct Preparation {
    shape: [usize; 3],
    pixels: PixelType,
    augment: Vec<Augment>,
    normalization: Arc<Normalization>,
}

/// Which images are augmented.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Augmented {
    /// Those of training.
    Yes,
    /// Those of an evaluation.
    No,
}

/// The operand of a load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoadRole {
    /// The device's images or targets.
    Batch,
}

/// Where raw images lie on a GPU.
#[derive(Debug, Clone, Copy)]
pub struct Arrived {
    /// The address of the pixels: (rows, H, W, C).
    pub pixels: u64,
    /// Their draws.
    pub draws: Const<f32>,
    /// [`Preparation::table`].
    pub table: Const<f32>,
}

/// One step of augmentation on a GPU: y from x, raw both, or normalised by the table.
#[derive(Debug, Clone, Copy)]
pub(super) struct AugmentLaunch<'a> {
    pub issue: Issue<'a>,
    /// One thread per pixel, a row per image.
    pub grid: Grid,
    /// Bytes or floats: (images, h, w, c).
    pub x: (Const<u8>, Const<f32>),
    /// (images, steps, 2), from the step's own on.
    pub draws: Const<f32>,
    /// (1 + 2 c), or nothing.
    pub table: Const<f32>,
    /// (images, h, w, c)
    pub y: Mut<f32>,
    /// Images, pixels of each, h, w, c, steps.
    pub extents: [i32; 6],
}

impl Preparation {
    /// Returns what a run does to its images.
    pub fn of(sets: &SampleSets) -> Self {
        Preparation {
            shape: sets.shape(),
            pixels: sets.train.data.header().pixels,
            augment: sets.augment.clone(),
            normalization: Arc::clone(&sets.train.normalization),
        }
    }

    /// Returns the normalisation as kernels read it: scale, means, deviations.
    pub fn table(&self) -> Vec<f32> {
        let Normalization { scale, mean, std, .. } = &*self.normalization;
        [&[*scale], &mean[..], &std[..]].concat()
    }

    /// Launches what turns raw images into the images of the batch: (rows, H, W, C). With several steps of augmentation
    /// the scratch memory has the same size.
    ///
    /// # Errors
    /// When the device refuses.
    pub fn launch(&self, augmented: Augmented, at: &Arrived, launch: &Launch<LoadRole>) -> Result<()> {
        let [h, w, c] = self.shape;
        let images = launch.operand(LoadRole::Batch).len(0);
        let Arrived { pixels, draws, table } = *at;
        let mut x = match self.pixels {
            PixelType::U8 => (Const::at(pixels), Const::NONE),
            PixelType::F32 => (Const::NONE, Const::at(pixels)),
        };
        let Some(last) = self.augment.len().checked_sub(1).filter(|_| augmented == Augmented::Yes) else {
            let (grid, n, c) = (launch.packs(LoadRole::Batch), launch.count(LoadRole::Batch), int(c)?);
            // SAFETY: raw images and the operand have n elements, the table c channels.
            let to = launch.write(LoadRole::Batch);
            return unsafe { kernels::augment_normalize(&launch.issue, grid, x.0, x.1, table, to, n, c) };
        };
        let grid = Grid::new((h * w).div_ceil(256), images.min(65535), 1);
        let extents = ints([images, h * w, h, w, c, self.augment.len()])?;
        for (step, augment) in self.augment.iter().enumerate() {
            // The last step writes the images, the one before it the scratch memory, and so on in turn.
            let to_images = (last - step).is_multiple_of(2);
            let y = if to_images { launch.write(LoadRole::Batch) } else { launch.scratch() };
            let table = if step == last { table } else { Const::NONE };
            let draws = draws.offset(step * Augment::DRAWS);
            augment.launch(&AugmentLaunch { issue: launch.issue, grid, x, draws, table, y, extents })?;
            x = (Const::NONE, Const::at(y.address()));
        }
        Ok(())
    }
}
