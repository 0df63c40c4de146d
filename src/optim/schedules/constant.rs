//! The constant schedule: the learning rate of the file at every update.

use super::schedule::{RunProgress, Schedule};
use crate::settings::settings;

settings! {
    /// The `constant` schedule.
    pub struct Constant {}
}

impl Schedule for Constant {
    fn key(&self) -> &'static str {
        "constant"
    }
    fn factor(&self, _: &RunProgress, _: &[f64]) -> f64 {
        1.0
    }
    fn examples() -> Vec<Self> {
        vec![Constant {}]
    }
}
