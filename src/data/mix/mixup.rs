//! Mixup: weighted sums of two samples (Zhang et al. 2018, <https://arxiv.org/abs/1710.09412>).
//!
//! y = l a + (1 - l) b, for images and for targets, with l from Beta(alpha, alpha).

use super::beta::beta;
use super::mixture::Mixture;
use super::recipe::Recipe;
use crate::data::augment::Draws;
use crate::error::Fault;
use crate::settings::{POSITIVE, PROBABILITY, settings};

settings! {
    /// `{ mixup = 0.2 }`: a weighted sum of two samples and of their targets.
    pub struct Mixup from alpha {
        /// The weight l of the sample itself is drawn from Beta(alpha, alpha): near 0 or 1 if alpha is small, uniform if it is 1.
        pub alpha: f64, in POSITIVE, example "0.2";
        /// The share of samples that are mixed.
        pub probability: f64 = 1.0, in PROBABILITY;
    }
}

impl Mixture for Mixup {
    fn key(&self) -> &'static str {
        "mixup"
    }
    fn suits(&self, _: [usize; 3]) -> Result<(), Fault> {
        Ok(())
    }
    fn probability(&self) -> f64 {
        self.probability
    }
    fn draw(&self, _: [usize; 3], draws: &Draws) -> Recipe {
        Recipe::blend(beta(self.alpha, draws, 0))
    }
    fn examples() -> Vec<Self> {
        vec![Mixup { alpha: 1.0, probability: 1.0 }, Mixup { alpha: 0.2, probability: 0.5 }]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meaningless_settings_are_refused() {
        let message = |alpha, probability| Mixup { alpha, probability }.check().unwrap_err().message;
        assert_eq!(message(0.0, 1.0), "alpha = 0, expected a finite number above 0");
        assert_eq!(message(1.0, 1.5), "probability = 1.5, expected a number above 0, at most 1");
    }
}
