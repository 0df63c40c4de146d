//! Given values, one after another: for small problems with a known start.

use super::{InitialElement, Initializer};
use crate::error::{Fault, number};
use crate::settings::settings;

settings! {
    /// The values in the order of the memory, outputs first, and again from the beginning if they are fewer:
    /// `{ listed = [-1.5, 2.0] }`.
    pub struct Listed from values {
        /// The values.
        pub values: Vec<f64>, example "[-1.5, 2.0]";
    }
}

impl Initializer for Listed {
    fn key(&self) -> &'static str {
        "listed"
    }
    fn check(&self) -> Result<(), Fault> {
        match self.values.iter().find(|value| !value.is_finite()) {
            _ if self.values.is_empty() => Err(Fault::at("values", "values is empty, expected at least one number")),
            Some(&wrong) => Err(Fault::at("values", format!("{} in values, expected finite numbers", number(wrong)))),
            None => Ok(()),
        }
    }
    fn value(&self, at: InitialElement) -> f64 {
        self.values[at.index as usize % self.values.len()]
    }
    fn examples() -> Vec<Self> {
        vec![Listed { values: vec![-1.5, 2.0] }]
    }
}
