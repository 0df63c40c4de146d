//! Warmup (Goyal et al. 2017, <https://arxiv.org/abs/1706.02677>): the rate rises from start lr to lr in n updates:
//! lr (start + (1 - start) ((t + 1) / n)^power) after t < n updates, then lr.
//!
//! Schedules that follow in the list begin after the warmup: they count updates from its end. Those before it count from the
//! beginning of the run.

use super::schedule::{RunProgress, Schedule};
use crate::error::Fault;
use crate::optim::Interval;
use crate::settings::{FRACTION, POSITIVE, Range, Settings, settings};

const COUNT: Range<u64> = Range { text: "at least 1", contains: |&count| count >= 1 };

settings! {
    /// The `warmup` schedule.
    pub struct Warmup {
        /// Its length in updates; either this or `epochs`.
        pub steps: Option<u64> = None, in COUNT, unit "updates", example "500";
        /// Its length in epochs; either this or `steps`.
        pub epochs: Option<u64> = None, in COUNT, unit "epochs", example "5";
        /// The factor that the rate rises from.
        pub start: f64 = 0.0, in FRACTION;
        /// The power; 1 is a straight line, and Darknet's `burn_in` has 4.
        pub power: f64 = 1.0, in POSITIVE;
    }
}

impl Warmup {
    fn length(&self) -> Interval {
        match (self.steps, self.epochs) {
            (Some(steps), _) => Interval::Steps(steps),
            (_, epochs) => Interval::Epochs(epochs.unwrap_or(1)),
        }
    }
}

impl Schedule for Warmup {
    fn key(&self) -> &'static str {
        "warmup"
    }
    fn check(&self) -> Result<(), Fault> {
        match (self.steps, self.epochs) {
            (Some(_), Some(_)) => Err(Fault::at("steps", "steps and epochs are both given, expected one of them")),
            (None, None) => Err(Fault::whole("no length, expected steps = 500 or epochs = 5")),
            _ => self.check_ranges(),
        }
    }
    fn factor(&self, at: &RunProgress, _: &[f64]) -> f64 {
        let length = at.updates(self.length());
        if at.step >= length {
            return 1.0;
        }
        self.start + (1.0 - self.start) * ((at.step + 1) as f64 / length as f64).powf(self.power)
    }
    fn delay(&self) -> Option<Interval> {
        Some(self.length())
    }
    fn examples() -> Vec<Self> {
        let steps = Warmup { steps: Some(4), power: 4.0, ..Warmup::default() };
        vec![Warmup { epochs: Some(1), start: 0.1, ..Warmup::default() }, steps]
    }
}
