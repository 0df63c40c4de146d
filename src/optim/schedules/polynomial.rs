//! Polynomial decay, as in Caffe's `poly`: lr (f + (1 - f) (1 - t / T)^power) after t of T updates, with f = final_factor. T
//! is the rest of the run from where the schedule begins.

use super::schedule::{RunProgress, Schedule};
use crate::settings::{FRACTION, POSITIVE, settings};

settings! {
    /// The `polynomial` schedule.
    pub struct Polynomial {
        /// The power; 1 is a straight line.
        pub power: f64 = 1.0, in POSITIVE;
        /// The factor of the rate at the end.
        pub final_factor: f64 = 0.0, in FRACTION;
    }
}

impl Schedule for Polynomial {
    fn key(&self) -> &'static str {
        "polynomial"
    }
    fn factor(&self, at: &RunProgress, _: &[f64]) -> f64 {
        let left = 1.0 - at.step.min(at.steps) as f64 / at.steps.max(1) as f64;
        self.final_factor + (1.0 - self.final_factor) * left.powf(self.power)
    }
    fn depends_on_length(&self) -> bool {
        true
    }
    fn examples() -> Vec<Self> {
        vec![Polynomial::default(), Polynomial { power: 0.9, final_factor: 0.01 }]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_ends_above_its_final_factor() {
        let at = |step| RunProgress { step, epoch: 0, per_epoch: 1, steps: 4 };
        let line = Polynomial { final_factor: 0.5, ..Polynomial::default() };
        assert_eq!([0, 1, 2, 3].map(|step| line.factor(&at(step), &[])), [1.0, 0.875, 0.75, 0.625]);
        let square = Polynomial { power: 2.0, ..Polynomial::default() };
        assert_eq!([0, 2, 3].map(|step| square.factor(&at(step), &[])), [1.0, 0.25, 0.0625]);
    }
}
