//! Decay at given times: the rate is multiplied by a factor at each of them. Times count from where the schedule begins.

use super::schedule::{RunProgress, Schedule};
use super::step::DECAY;
use crate::error::{Fault, number};
use crate::optim::{Interval, power};
use crate::settings::{Settings, settings};

settings! {
    /// The `multi_step` schedule: `multi_step = { at = ["30 epochs", "60 epochs"] }`.
    pub struct MultiStep {
        /// The times, as numbers of updates or as texts.
        pub at: Vec<Interval>, example "[\"30 epochs\", \"60 epochs\"]";
        /// The factor of each decay.
        pub factor: f64 = 0.1, in DECAY;
        /// The factor at each of the times, in place of `factor`.
        pub factors: Option<Vec<f64>> = None, example "[0.1, 0.5]";
    }
}

impl Schedule for MultiStep {
    fn key(&self) -> &'static str {
        "multi_step"
    }
    fn check(&self) -> Result<(), Fault> {
        self.check_ranges()?;
        if self.at.is_empty() {
            return Err(Fault::at("at", "at is an empty list, expected at least one time"));
        }
        let Some(factors) = &self.factors else { return Ok(()) };
        if factors.len() != self.at.len() {
            let message =
                format!("factors has {} numbers, expected one for each of the {} times", factors.len(), self.at.len());
            return Err(Fault::at("factors", message));
        }
        match factors.iter().find(|factor| !(DECAY.contains)(factor)) {
            Some(&wrong) => Err(Fault::at("factors", format!("{} in factors, expected {}", number(wrong), DECAY.text))),
            None => Ok(()),
        }
    }
    fn factor(&self, at: &RunProgress, _: &[f64]) -> f64 {
        let passed = |time: &&Interval| time.passed(at.step, at.epoch) > 0;
        match &self.factors {
            Some(factors) => {
                let all = self.at.iter().zip(factors).filter(|(time, _)| passed(time));
                all.map(|(_, factor)| factor).product()
            }
            None => power(self.factor, self.at.iter().filter(passed).count() as u64),
        }
    }
    fn examples() -> Vec<Self> {
        let at = vec![Interval::Steps(3), Interval::Epochs(2)];
        vec![
            MultiStep { at: at.clone(), factor: 0.1, factors: None },
            MultiStep { at, factor: 0.1, factors: Some(vec![0.5, 0.1]) },
        ]
    }
}
