//! The interface of an augmentation.

use super::draws::Draws;
use super::framing::Framing;
use crate::error::{Fault, Result};
use crate::gpu::{AnyMut, Const, Grid, Issue};
use crate::settings::Settings;
use std::fmt::Debug;

/// The launch of one augmentation: y from x, both raw; the last one of a list normalises y by the table.
#[derive(Debug, Clone, Copy)]
pub struct AugmentLaunch<'a> {
    /// The device and stream.
    pub issue: Issue<'a>,
    /// One thread per pixel of y, a row of the grid per image.
    pub grid: Grid,
    /// Bytes or floats: (images, shape of x).
    pub x: (Const<u8>, Const<f32>),
    /// The drawn values, `stride` for each image, starting at those of this augmentation.
    pub draws: Const<f32>,
    /// The scale, the number of means, the means and the deviations; or null.
    pub table: Const<f32>,
    /// (images, shape of y); f32, except after the last augmentation of a run in bf16.
    pub y: AnyMut,
    /// The number of images.
    pub images: i32,
    /// The shape (H, W, C) of x.
    pub from: [i32; 3],
    /// The shape (H, W, C) of y.
    pub to: [i32; 3],
    /// The drawn values of an image by all augmentations.
    pub stride: i32,
}

/// A change of images: its settings, the shape that it makes, the values that it draws for an image, and what it does with
/// them on the host and on a GPU, with the same bits. It works on raw pixels, before normalisation.
pub trait Augmentation: Settings + Debug + Send + Sync {
    /// Returns the key that selects it in the configuration file.
    fn key(&self) -> &'static str;

    /// Checks the ranges of the settings.
    ///
    /// # Errors
    /// If a setting is out of range; reports the first one.
    fn check(&self) -> Result<(), Fault> {
        self.check_ranges()
    }

    /// Returns the shape (H, W, C) that it makes of images of a shape.
    ///
    /// # Errors
    /// If it does not suit images of this shape.
    fn output(&self, shape: [usize; 3]) -> Result<[usize; 3], Fault>;

    /// Returns how it cuts and resizes pictures of any size while they are read, if it can.
    fn framing(&self) -> Option<&dyn Framing> {
        None
    }

    /// Returns true if it also applies to images of an evaluation, which it then changes without chance. It must if it
    /// changes the shape.
    fn evaluates(&self) -> bool {
        false
    }

    /// Returns true if it draws along the axes of the colours of the training set (`Draws::colors`), which are then measured when the data are
    /// opened and kept in checkpoints. It must refuse images without three channels.
    fn uses_colors(&self) -> bool {
        false
    }

    /// Returns how many values describe what it does to an image.
    fn values_drawn(&self) -> usize;

    /// Returns how many random numbers it may take for an image.
    fn numbers(&self) -> u64 {
        self.values_drawn() as u64
    }

    /// Draws the values for an image of a shape: `to` has room for them. Without random numbers, in an evaluation, they
    /// describe the change without chance.
    fn draw(&self, shape: [usize; 3], draws: Option<&Draws>, to: &mut [f32]);

    /// Computes `y` from `x`, (H, W, C), with the values in `drawn`. `work` is scratch memory, empty at first and kept
    /// between calls.
    fn apply(&self, drawn: &[f32], shape: [usize; 3], x: &[f32], work: &mut Vec<f32>, y: &mut [f32]);

    /// Launches it on a GPU.
    ///
    /// # Errors
    /// When the launch fails.
    fn launch(&self, launch: &AugmentLaunch) -> Result<()>;

    /// Returns augmentations of this type for the shared tests, for images of at least 7 x 9 pixels.
    fn examples() -> Vec<Self>
    where
        Self: Sized;
}
