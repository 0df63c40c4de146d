//! The interface of a schedule, and lists of schedules.

use crate::error::Fault;
use crate::optim::{Interval, numbered};
use crate::settings::Settings;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

/// The progress of a run before an update.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunProgress {
    /// The updates made.
    pub step: u64,
    /// The epoch of the update, from 0.
    pub epoch: u64,
    /// The updates of an epoch, at least 1.
    pub per_epoch: u64,
    /// The updates of the whole run.
    pub steps: u64,
}

impl RunProgress {
    /// Returns the number of updates of an interval.
    pub fn updates(&self, interval: Interval) -> u64 {
        match interval {
            Interval::Steps(steps) => steps,
            Interval::Epochs(epochs) => epochs.saturating_mul(self.per_epoch),
        }
    }

    /// Returns the progress of what begins after an interval; before that, it is at its beginning.
    #[must_use]
    pub fn after(&self, interval: Interval) -> RunProgress {
        let updates = self.updates(interval);
        let step = self.step.saturating_sub(updates);
        let epoch = match interval {
            Interval::Steps(_) => step / self.per_epoch,
            Interval::Epochs(epochs) => self.epoch.saturating_sub(epochs),
        };
        RunProgress { step, epoch, per_epoch: self.per_epoch, steps: self.steps.saturating_sub(updates) }
    }
}

/// A loss that a schedule observes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Monitor {
    /// The mean training loss of an epoch.
    Train,
    /// The loss of an evaluation of the set with this name.
    Evaluated(&'static str),
}

/// What a run tells its schedules.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Observation {
    /// The training loss of an update.
    Update(f64),
    /// The end of an epoch.
    Epoch,
    /// The loss of an evaluation of the set with this name.
    Evaluation(&'static str, f64),
}

/// A schedule of the learning rate.
pub trait Schedule: Settings + Debug + Send + Sync {
    /// Returns its key in the file.
    fn key(&self) -> &'static str;

    /// Checks its settings.
    ///
    /// # Errors
    /// The first setting that is out of range.
    fn check(&self) -> Result<(), Fault> {
        self.check_ranges()
    }

    /// Returns the factor of the learning rate of an update, given the state.
    fn factor(&self, at: &RunProgress, state: &[f64]) -> f64;

    /// Returns the interval after which later schedules begin.
    fn delay(&self) -> Option<Interval> {
        None
    }

    /// Returns whether the factor depends on the length of the run.
    fn depends_on_length(&self) -> bool {
        false
    }

    /// Returns its state at the beginning of a run: finite numbers, which checkpoints keep.
    fn state(&self) -> Vec<f64> {
        Vec::new()
    }

    /// Returns the loss that it observes, if it has a state.
    fn monitor(&self) -> Option<Monitor> {
        None
    }

    /// Updates the state.
    fn observe(&self, _state: &mut [f64], _seen: Observation) {}

    /// Returns a few schedules of this kind, for the shared tests.
    fn examples() -> Vec<Self>
    where
        Self: Sized;
}

/// The states of the schedules of a list, in order; empty for those without one, and if none has observed anything.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ScheduleState(Vec<Vec<f64>>);

/// The schedules of a run, in order. An empty list is a constant rate.
#[derive(Debug, Clone, Default)]
pub struct ScheduleList(pub Vec<Arc<dyn Schedule>>);

impl ScheduleList {
    /// Returns the name of a schedule: `step`, and `step2` for the second of its kind.
    fn name(&self, i: usize) -> String {
        let key = self.0[i].key();
        numbered(key, self.0[..i].iter().filter(|other| other.key() == key).count())
    }

    /// Returns the states of all schedules: those that were kept, by name, and otherwise those at the beginning of a run.
    pub fn states(&self, kept: &BTreeMap<String, Vec<f64>>) -> ScheduleState {
        let state = |(i, schedule): (usize, &Arc<dyn Schedule>)| {
            let state = schedule.state();
            kept.get(&self.name(i)).filter(|kept| kept.len() == state.len()).cloned().unwrap_or(state)
        };
        ScheduleState(self.0.iter().enumerate().map(state).collect())
    }

    /// Returns the states to keep, by name.
    pub fn named(&self, states: &ScheduleState) -> BTreeMap<String, Vec<f64>> {
        let with_state = states.0.iter().enumerate().filter(|(_, state)| !state.is_empty());
        with_state.map(|(i, state)| (self.name(i), state.clone())).collect()
    }

    /// Returns the learning rate of an update, given the learning rate in the file.
    pub fn lr(&self, base: f64, mut at: RunProgress, states: &ScheduleState) -> f64 {
        let mut lr = base;
        for (i, schedule) in self.0.iter().enumerate() {
            lr *= schedule.factor(&at, states.0.get(i).map_or(&[], Vec::as_slice));
            at = schedule.delay().map_or(at, |delay| at.after(delay));
        }
        lr
    }

    /// Tells all schedules what the run observed.
    pub fn observe(&self, states: &mut ScheduleState, seen: Observation) {
        self.0.iter().zip(&mut states.0).for_each(|(schedule, state)| schedule.observe(state, seen));
    }

    /// Returns whether one of them has a state, which observations change.
    pub fn has_state(&self) -> bool {
        self.0.iter().any(|schedule| schedule.monitor().is_some())
    }

    /// Returns whether one of them observes a loss.
    pub fn observes(&self, monitor: Monitor) -> bool {
        self.0.iter().any(|schedule| schedule.monitor() == Some(monitor))
    }

    /// Returns whether the rate depends on the length of the run.
    pub fn depends_on_length(&self) -> bool {
        self.0.iter().any(|schedule| schedule.depends_on_length())
    }
}
