//! The kind of initial values that a parameter has.

use super::{ConstantValues, Initializer};
use std::sync::Arc;

/// The initial values of a parameter.
#[derive(Debug, Clone)]
pub struct Init(pub Arc<dyn Initializer>);

impl Init {
    /// Creates initial values.
    pub fn of(kind: impl Initializer + 'static) -> Self {
        Init(Arc::new(kind))
    }

    /// Returns one value everywhere.
    pub fn constant(value: f64) -> Self {
        Init::of(ConstantValues { value })
    }
}

impl PartialEq for Init {
    fn eq(&self, other: &Self) -> bool {
        self.0.key() == other.0.key() && self.0.values() == other.0.values()
    }
}
