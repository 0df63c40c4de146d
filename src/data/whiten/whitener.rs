//! The interface of a way to whiten.

use crate::error::{Fault, Result};
use crate::settings::Settings;
use std::fmt::Debug;

/// The most features that are whitened: W has 64 MiB.
pub const MOST_WHITENED: usize = 4096;

/// A way to whiten: x' = W (x - mean), where the covariance of the features is U diag(variances) U^T, and W = diag(factors) U^T or
/// U diag(factors) U^T.
pub trait Whitener: Settings + Debug + Send + Sync {
    /// Returns the key that selects it in the configuration file.
    fn key(&self) -> &'static str;

    /// Checks the ranges of the settings.
    ///
    /// # Errors
    /// If a setting is out of range; reports the first one.
    fn check(&self) -> Result<(), Fault> {
        self.check_ranges()
    }

    /// Returns the factor of a component from its variance, which is at least 0.
    fn factor(&self, variance: f64) -> f64;

    /// Returns true if the components are turned back to the axes of the features.
    fn turns_back(&self) -> bool {
        false
    }

    /// Returns ways of this type for the shared tests.
    fn examples() -> Vec<Self>
    where
        Self: Sized;
}
