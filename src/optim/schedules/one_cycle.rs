//! One cycle (Smith and Topin 2018, <https://arxiv.org/abs/1708.07120>): the rate rises from initial_factor lr to lr, and then
//! falls to final_factor lr at the last update. lr is the largest rate, at the share `peak` of the run from where the
//! schedule begins.
//!
//! Both parts are half a cosine, as in PyTorch's `OneCycleLR`, or straight lines with `linear`. PyTorch's `div_factor` is
//! 1 / initial_factor, and its `final_div_factor` is initial_factor / final_factor; the momentum is not cycled.

use super::schedule::{RunProgress, Schedule};
use crate::settings::{FRACTION, INSIDE, settings};
use std::f64::consts::PI;

settings! {
    /// The `one_cycle` schedule.
    pub struct OneCycle {
        /// The share of the run after which the rate is largest.
        pub peak: f64 = 0.3, in INSIDE;
        /// The factor of the first rate.
        pub initial_factor: f64 = 0.04, in FRACTION;
        /// The factor of the last rate.
        pub final_factor: f64 = 4e-6, in FRACTION;
        /// Whether the rate follows straight lines.
        pub linear: bool = false;
    }
}

impl Schedule for OneCycle {
    fn key(&self) -> &'static str {
        "one_cycle"
    }
    fn factor(&self, at: &RunProgress, _: &[f64]) -> f64 {
        let (step, last) = (at.step as f64, at.steps.saturating_sub(1) as f64);
        let top = (self.peak * at.steps as f64 - 1.0).max(0.0);
        let (from, to, share) = match step < top {
            true => (self.initial_factor, 1.0, step / top),
            false if last > top => (1.0, self.final_factor, ((step - top) / (last - top)).min(1.0)),
            false => return 1.0,
        };
        let left = if self.linear { 1.0 - share } else { (1.0 + (PI * share).cos()) / 2.0 };
        to + (from - to) * left
    }
    fn depends_on_length(&self) -> bool {
        true
    }
    fn examples() -> Vec<Self> {
        vec![OneCycle::default(), OneCycle { peak: 0.4, initial_factor: 0.1, final_factor: 1e-3, linear: true }]
    }
}
