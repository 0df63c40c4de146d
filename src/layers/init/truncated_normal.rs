//! The normal distribution without its tails: draws beyond `bound` standard deviations are drawn again.

use super::normal::STD;
use super::{InitialElement, Initializer};
use crate::settings::{Range, settings};

const BOUND: Range<f64> = Range { text: "a number of at least 0.1", contains: |bound| *bound >= 0.1 };
/// The most draws of an element; the chance that all are beyond the smallest bound is 1e-18.
const DRAWS: u64 = 500;

settings! {
    /// Normal with mean 0 and standard deviation `std`, without what is beyond `bound` standard deviations.
    pub struct TruncatedNormal {
        /// The standard deviation before the tails are cut off.
        pub std: f64 = 0.02, in STD;
        /// Where the tails are cut off.
        pub bound: f64 = 2.0, in BOUND, unit "standard deviations";
    }
}

impl Initializer for TruncatedNormal {
    fn key(&self) -> &'static str {
        "truncated_normal"
    }
    fn value(&self, at: InitialElement) -> f64 {
        // Parameters have fewer than 2^40 elements.
        let mut draws = (0..DRAWS).map(|draw| at.random.normal(at.index + (draw << 40)));
        self.std * draws.find(|draw| draw.abs() <= self.bound).unwrap_or(0.0)
    }
    fn examples() -> Vec<Self> {
        vec![TruncatedNormal::default(), TruncatedNormal { std: 1.0, bound: 0.5 }]
    }
}
