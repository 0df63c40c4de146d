//! Augmentations that only cut and resize pictures.

use super::augmentation::{AugmentLaunch, Augmentation};
use super::draws::Draws;
use super::framing::Framing;
use crate::error::{Fault, Result};
use crate::settings::Settings;
use std::fmt::Debug;

/// An augmentation that only cuts and resizes pictures, on the host.
pub trait FramesOnly: Framing + Settings + Debug + Send + Sync {
    /// The key that selects it in the configuration file.
    const KEY: &'static str;

    /// How many random numbers it may take for a picture.
    const NUMBERS: u64;

    /// Checks the ranges of the settings.
    ///
    /// # Errors
    /// If a setting is out of range; reports the first one.
    fn check_settings(&self) -> Result<(), Fault> {
        self.check_ranges()
    }
}

/// Why no pixels are given to an augmentation that only cuts and resizes.
const FRAMED: &str = "pictures are cut and resized while they are read";

impl<T: FramesOnly> Augmentation for T {
    fn key(&self) -> &'static str {
        T::KEY
    }
    fn check(&self) -> Result<(), Fault> {
        self.check_settings()
    }
    fn output(&self, _: [usize; 3]) -> Result<[usize; 3], Fault> {
        let message = format!("{} comes after a change of pixels; put it before all augmentations but crop", T::KEY);
        Err(Fault::at("augment", message))
    }
    fn framing(&self) -> Option<&dyn Framing> {
        Some(self)
    }
    fn numbers(&self) -> u64 {
        T::NUMBERS
    }
    fn values_drawn(&self) -> usize {
        0
    }
    fn draw(&self, _: [usize; 3], _: Option<&Draws>, _: &mut [f32]) {
        unreachable!("{FRAMED}")
    }
    fn apply(&self, _: &[f32], _: [usize; 3], _: &[f32], _: &mut Vec<f32>, _: &mut [f32]) {
        unreachable!("{FRAMED}")
    }
    fn launch(&self, _: &AugmentLaunch) -> Result<()> {
        unreachable!("{FRAMED}")
    }
    fn examples() -> Vec<Self> {
        Vec::new()
    }
}
