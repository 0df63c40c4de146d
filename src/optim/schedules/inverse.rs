//! Inverse decay, as the theory of convex problems has it (Robbins and Monro 1951,
//! <https://doi.org/10.1214/aoms/1177729586>): lr c / (c + t) after t updates, which is in proportion to 1 / (c + t).

use super::schedule::{RunProgress, Schedule};
use crate::optim::Interval;
use crate::settings::settings;

settings! {
    /// The `inverse` schedule: `inverse = { c = "5 epochs" }`.
    pub struct Inverse from c {
        /// The number of updates after which the rate has halved.
        pub c: Interval = Interval::Epochs(1);
    }
}

impl Schedule for Inverse {
    fn key(&self) -> &'static str {
        "inverse"
    }
    fn factor(&self, at: &RunProgress, _: &[f64]) -> f64 {
        let c = at.updates(self.c).max(1) as f64;
        c / (c + at.step as f64)
    }
    fn examples() -> Vec<Self> {
        vec![Inverse::default(), Inverse { c: Interval::Steps(4) }]
    }
}
