//! The interface of a kind of mixing.

use super::recipe::Recipe;
use crate::data::augment::Draws;
use crate::error::Fault;
use crate::settings::Settings;
use std::fmt::Debug;

/// How two training samples become one: its settings, and what it draws for a pair.
pub trait Mixture: Settings + Debug + Send + Sync {
    /// Returns the key that selects it in the configuration file.
    fn key(&self) -> &'static str;

    /// Checks the ranges of the settings.
    ///
    /// # Errors
    /// If a setting is out of range; reports the first one.
    fn check(&self) -> Result<(), Fault> {
        self.check_ranges()
    }

    /// Checks that it suits images of a shape (H, W, C).
    ///
    /// # Errors
    /// If it does not.
    fn suits(&self, shape: [usize; 3]) -> Result<(), Fault>;

    /// Returns the probability that a sample is mixed.
    fn probability(&self) -> f64;

    /// Draws what becomes of a pair of samples with images of a shape (H, W, C).
    fn draw(&self, shape: [usize; 3], draws: &Draws) -> Recipe;

    /// Returns mixtures of this type for the shared tests, for images of any shape that it suits.
    fn examples() -> Vec<Self>
    where
        Self: Sized;
}
