//! The uniform distribution between two limits.

use super::{InitialElement, Initializer};
use crate::error::Fault;
use crate::settings::{FINITE, Settings, settings};

settings! {
    /// Uniform from `min` to `max`: `{ uniform = { min = -0.1, max = 0.1 } }`.
    pub struct UniformValues {
        /// The lower limit.
        pub min: f64, in FINITE, example "-0.1";
        /// The upper limit.
        pub max: f64, in FINITE, example "0.1";
    }
}

impl Initializer for UniformValues {
    fn key(&self) -> &'static str {
        "uniform"
    }
    fn check(&self) -> Result<(), Fault> {
        self.check_ranges()?;
        if self.min < self.max {
            return Ok(());
        }
        Err(Fault::at("max", format!("max = {}, expected a number above min = {}", self.max, self.min)))
    }
    fn value(&self, at: InitialElement) -> f64 {
        self.min + (self.max - self.min) * at.random.uniform(at.index)
    }
    fn examples() -> Vec<Self> {
        vec![UniformValues { min: -0.1, max: 0.3 }]
    }
}
