//! Decay on a plateau: the rate is multiplied by a factor when a loss has not improved for more than `patience` observations
//! in a row, which counts from the last improvement, decay or end of a cooldown.
//!
//! The loss is the mean training loss of each epoch, or that of each evaluation of a set. It improves if it is below
//! (1 - threshold) times the best one so far. The rules are those of PyTorch's `ReduceLROnPlateau`. Losses that are not
//! finite count as no improvement.

use super::schedule::{Monitor, Observation, RunProgress, Schedule};
use crate::settings::{FRACTION, INSIDE, settings, values};
use serde::Deserialize;

/// The loss that `plateau` observes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum PlateauMonitor {
    /// `"train.loss"`.
    #[serde(rename = "train.loss")]
    Train,
    /// `"validation.loss"`.
    #[serde(rename = "validation.loss")]
    Validation,
    /// `"test.loss"`.
    #[serde(rename = "test.loss")]
    Test,
}

values! {
    PlateauMonitor, "\"train.loss\", \"validation.loss\" or \"test.loss\"", monitor => format!("{:?}", monitor.name());
}

impl PlateauMonitor {
    /// Returns its name in the file.
    fn name(self) -> &'static str {
        match self {
            PlateauMonitor::Train => "train.loss",
            PlateauMonitor::Validation => "validation.loss",
            PlateauMonitor::Test => "test.loss",
        }
    }
}

settings! {
    /// The `plateau` schedule.
    pub struct Plateau {
        /// The factor of each decay.
        pub factor: f64 = 0.1, in INSIDE;
        /// The number of observations without improvement that are tolerated.
        pub patience: u64 = 10, unit "epochs or evaluations";
        /// The number of observations after a decay that do not count.
        pub cooldown: u64 = 0, unit "epochs or evaluations";
        /// The share of the best loss by which a loss must be lower to count as an improvement.
        pub threshold: f64 = 1e-4, in FRACTION;
        /// The factor below which the rate does not fall.
        pub min_factor: f64 = 0.0, in FRACTION;
        /// The loss that is observed.
        pub monitor: PlateauMonitor = PlateauMonitor::Train, example "\"validation.loss\"";
    }
}

/// The state, as an array of numbers.
struct State<'a> {
    /// The product of all decays.
    factor: &'a mut f64,
    /// The best loss; the largest number at first.
    best: &'a mut f64,
    /// The observations without improvement.
    bad: &'a mut f64,
    /// The observations left that do not count.
    cooldown: &'a mut f64,
    /// The sum and the number of the training losses of this epoch.
    sum: &'a mut f64,
    count: &'a mut f64,
}

impl Plateau {
    fn decide(&self, state: &mut State, loss: f64) {
        if loss < *state.best * (1.0 - self.threshold) {
            (*state.best, *state.bad) = (loss, 0.0);
        } else {
            *state.bad += 1.0;
        }
        if *state.cooldown > 0.0 {
            *state.cooldown -= 1.0;
            *state.bad = 0.0;
        }
        if *state.bad > self.patience as f64 {
            *state.factor = (*state.factor * self.factor).max(self.min_factor);
            (*state.bad, *state.cooldown) = (0.0, self.cooldown as f64);
        }
    }
}

impl Schedule for Plateau {
    fn key(&self) -> &'static str {
        "plateau"
    }
    fn factor(&self, _: &RunProgress, state: &[f64]) -> f64 {
        state.first().copied().unwrap_or(1.0)
    }
    fn state(&self) -> Vec<f64> {
        vec![1.0, f64::MAX, 0.0, 0.0, 0.0, 0.0]
    }
    fn monitor(&self) -> Option<Monitor> {
        Some(match self.monitor {
            PlateauMonitor::Train => Monitor::Train,
            PlateauMonitor::Validation => Monitor::Evaluated("validation"),
            PlateauMonitor::Test => Monitor::Evaluated("test"),
        })
    }
    fn observe(&self, state: &mut [f64], seen: Observation) {
        let [factor, best, bad, cooldown, sum, count] = state else { return };
        let state = &mut State { factor, best, bad, cooldown, sum, count };
        match (self.monitor(), seen) {
            (Some(Monitor::Train), Observation::Update(loss)) if loss.is_finite() => {
                *state.sum += loss;
                *state.count += 1.0;
            }
            (Some(Monitor::Train), Observation::Epoch) => {
                let mean = *state.sum / *state.count;
                (*state.sum, *state.count) = (0.0, 0.0);
                self.decide(state, mean);
            }
            (Some(Monitor::Evaluated(own)), Observation::Evaluation(set, loss)) if own == set => {
                self.decide(state, loss);
            }
            _ => {}
        }
    }
    fn examples() -> Vec<Self> {
        let plain = Plateau::default();
        let evaluated = PlateauMonitor::Validation;
        vec![plain.clone(), Plateau { factor: 0.5, patience: 0, cooldown: 1, monitor: evaluated, ..plain }]
    }
}
