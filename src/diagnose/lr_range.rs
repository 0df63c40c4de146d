//! The loss against a rising learning rate (Smith 2017, <https://arxiv.org/abs/1506.01186>): one update with each rate, every rate larger than
//! the one before by the same factor, from the values with which training begins.

use crate::data::{Batches, Preparation, SampleSets};
use crate::device::Clock;
use crate::error::Result;
use crate::placement::Variant;
use crate::program::Plan;
use crate::train::Job;

/// Which rates are tried.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RateSweep {
    /// The first rate, above 0.
    pub from: f64,
    /// The last rate, above the first.
    pub to: f64,
    /// The number of rates, at least 2.
    pub steps: usize,
}

/// One update of a sweep.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SweepStep {
    /// The rate.
    pub lr: f64,
    /// The loss of the batch, before the update with this rate.
    pub loss: f64,
    /// The mean of the losses up to this one, whose weights fall by a tenth from one to the next.
    pub smooth: f64,
}

/// What a sweep found.
#[derive(Debug, Clone, PartialEq)]
pub struct SweepResult {
    /// The updates, up to the one before which the loss had left all bounds.
    pub steps: Vec<SweepStep>,
    /// Whether it had: the smooth loss was [`DIVERGED`] times the lowest, or not finite.
    pub diverged: bool,
}

/// By how many times the lowest smooth loss is exceeded when a sweep ends.
pub const DIVERGED: f64 = 4.0;
/// The share of the smooth loss that remains from one update to the next.
const MEMORY: f64 = 0.9;
/// By how many updates the smooth loss is behind.
const LAG: usize = 9;
/// How many times the suggested rates are below that of the lowest loss, where some directions oscillate already.
const MARGIN: f64 = 3.0;

impl RateSweep {
    /// Returns rate `index`.
    fn rate(self, index: usize) -> f64 {
        self.from * (self.to / self.from).powf(index as f64 / (self.steps - 1) as f64)
    }

    /// Runs the sweep on the devices of a job. Calls `report` with the number of updates so far.
    ///
    /// # Errors
    /// If the data cannot be read, or a step fails.
    pub fn run(
        self,
        job: &mut Job,
        plan: Plan,
        sets: &SampleSets,
        mut report: impl FnMut(usize),
    ) -> Result<SweepResult> {
        let mut session = job.session(plan)?;
        session.prepare(Preparation::of(sets))?;
        job.initialise(&mut session, sets)?;
        let mut batches = Batches::train(sets).prepared_by(session.preparer());
        let mut batch = batches.empty();
        let mut found = SweepResult { steps: Vec::new(), diverged: false };
        let (mut sum, mut weight, mut lowest) = (0.0, 0.0, f64::INFINITY);
        for index in 0..self.steps {
            let (epoch, of_epoch) = batches.plan().at(index as u64);
            batches.fill(epoch, of_epoch, &mut batch)?;
            let lr = self.rate(index);
            let clock = Clock { step: index as u64 + 1, epoch, lr, row: 0 };
            let loss = session.run(Variant::train(batch.rows), &mut batch, clock)?.loss;
            (sum, weight) = (MEMORY * sum + loss, MEMORY * weight + 1.0);
            let smooth = sum / weight;
            lowest = lowest.min(smooth);
            report(index + 1);
            if !smooth.is_finite() || smooth > DIVERGED * lowest.abs().max(f64::MIN_POSITIVE) {
                found.diverged = true;
                break;
            }
            found.steps.push(SweepStep { lr, loss, smooth });
        }
        Ok(found)
    }
}

impl SweepResult {
    fn lowest_index(&self) -> Option<usize> {
        (0..self.steps.len()).min_by(|&a, &b| self.steps[a].smooth.total_cmp(&self.steps[b].smooth))
    }

    /// Returns the rate of an update as many before as the smooth loss is behind.
    fn rate_before(&self, index: usize) -> f64 {
        self.steps[index.saturating_sub(LAG)].lr
    }

    /// Returns the rate at which the loss was lowest.
    pub fn lowest(&self) -> Option<f64> {
        self.lowest_index().map(|index| self.rate_before(index))
    }

    /// Returns the rate at which the loss falls fastest against the logarithm of the rate, before it is lowest.
    pub fn steepest(&self) -> Option<f64> {
        let fall = |&index: &usize| self.steps[index].smooth - self.steps[index - 1].smooth;
        let fastest = (1..=self.lowest_index()?).min_by(|a, b| fall(a).total_cmp(&fall(b)));
        fastest.filter(|index| fall(index) < 0.0).map(|index| self.rate_before(index))
    }

    /// Returns the suggested range: from the rate of the steepest fall, or a third of the upper end if that is lower, to a third of the rate at which the
    /// loss is lowest. None if the loss did not fall.
    pub fn suggested(&self) -> Option<[f64; 2]> {
        let (steepest, most) = (self.steepest()?, self.lowest()? / MARGIN);
        Some([steepest.min(most / MARGIN), most])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(losses: &[f64]) -> SweepResult {
        let step = |(&loss, i): (&f64, i32)| SweepStep { lr: 1.1f64.powi(i - 60), loss, smooth: loss };
        SweepResult { steps: losses.iter().zip(0..).map(step).collect(), diverged: false }
    }

    #[test]
    fn rates_rise_by_the_same_factor() {
        let sweep = RateSweep { from: 1e-4, to: 1.0, steps: 5 };
        for (index, expected) in [1e-4, 1e-3, 1e-2, 0.1, 1.0].into_iter().enumerate() {
            assert!((sweep.rate(index) / expected - 1.0).abs() < 1e-12);
        }
    }

    #[test]
    fn the_suggestion_lies_between_the_steepest_fall_and_the_lowest_loss() {
        // Even, falling from update 20 to 40, fastest at 30, and rising from 50 on.
        let mut losses = vec![2.0; 20];
        losses.extend((0..20).map(|i| 2.0 - 0.04 * f64::from(i) - if i >= 10 { 0.2 } else { 0.0 }));
        losses.extend([1.0; 10]);
        losses.extend([3.0; 10]);
        let found = result(&losses);
        let near = |found: f64, update: i32| (found / 1.1f64.powi(update - LAG as i32 - 60) - 1.0).abs() < 1e-9;
        assert!(near(found.lowest().unwrap(), 40) && near(found.steepest().unwrap(), 30), "{found:?}");
        let [least, most] = found.suggested().unwrap();
        assert!((most * 3.0 / found.lowest().unwrap() - 1.0).abs() < 1e-9 && least < most, "{least} {most}");
        assert_eq!(result(&[1.0, 2.0, 3.0]).suggested(), None);
    }
}
