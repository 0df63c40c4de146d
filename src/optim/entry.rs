//! The entries of a chain in the file: transforms, and short forms that stand for several.

use super::transform::Transform;
use crate::error::Fault;
use crate::settings::Settings;
use std::fmt::Debug;

/// An entry of the chain.
pub trait ChainEntry: Settings + Debug + Send + Sync {
    /// Returns its key in the file.
    fn kind(&self) -> &'static str;

    /// Checks its settings.
    ///
    /// # Errors
    /// The first setting that is out of range.
    fn check_settings(&self) -> Result<(), Fault> {
        self.check_ranges()
    }

    /// Returns the transforms that it stands for, in order; some may leave every gradient as it is.
    fn transforms(&self) -> Vec<Box<dyn Transform>>;
}

impl<T: Transform + Clone + 'static> ChainEntry for T {
    fn kind(&self) -> &'static str {
        self.key()
    }
    fn check_settings(&self) -> Result<(), Fault> {
        self.check()
    }
    fn transforms(&self) -> Vec<Box<dyn Transform>> {
        vec![Box::new(self.clone())]
    }
}
