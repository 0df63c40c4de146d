//! The losses of single training samples after each epoch, by which `order = "hard_examples"` chooses those of the next one.

use super::evaluate::BatchOf;
use super::run::Run;
use super::sample_losses::{LossInputs, RowLosses, SampleLosses, rounded};
use super::signals::Stop;
use super::team;
use crate::data::{Batches, Destination, Loader, Place, SampleOrder};
use crate::device::Clock;
use crate::error::Result;
use crate::placement::Variant;
use crate::program::Observer;
use std::sync::Arc;

impl Run {
    /// Returns whether the order of the samples depends on their losses.
    pub(super) fn chooses_hard_examples(&self) -> bool {
        matches!(self.job.config.data.order, SampleOrder::HardExamples(_))
    }

    /// Returns the losses by which the samples of the epoch under way are chosen; none in the first epoch.
    pub(super) fn losses(&self) -> Option<&Arc<[f32]>> {
        self.losses.as_ref().filter(|losses| losses.epoch == self.place.epoch).map(|losses| &losses.values)
    }

    /// Returns the batches of the epoch under way.
    pub(super) fn training_batches(&self) -> Batches {
        Batches::train(&self.splits).with_losses(self.losses().cloned())
    }

    /// Returns the batches from the run's place on; with hard examples, to the end of the epoch.
    ///
    /// # Errors
    /// When the operating system cannot start a thread.
    pub(super) fn loader(&self) -> Result<Loader> {
        let destination = Destination { workers: self.job.workers(), ..self.session.destination() };
        Loader::train_on(self.training_batches(), destination, self.place, self.job.part())
    }

    /// Measures the losses for the epoch under way, if it needs them and they are not known, unless `stop` is requested.
    ///
    /// # Errors
    /// When the data cannot be read, a step fails or a loss is not finite.
    pub(super) fn measure_losses(&mut self, stop: &Stop) -> Result<()> {
        let epoch = self.place.epoch;
        if epoch > 0 && self.chooses_hard_examples() && self.losses().is_none() {
            self.losses = self.measured_losses(stop)?.map(|values| SampleLosses { epoch, values });
        }
        Ok(())
    }

    /// Returns the loss of each training sample with the present weights, as in an evaluation.
    fn measured_losses(&mut self, stop: &Stop) -> Result<Option<Arc<[f32]>>> {
        let (split, network) = (Arc::clone(&self.splits.train), Arc::clone(&self.job.network));
        let destination = Destination { workers: self.job.workers(), ..self.session.destination() };
        let batches = Batches::eval(&split, self.job.part());
        let mut loader = Loader::eval(&split, destination, self.job.part())?;
        let mut losses = RowLosses::new(&network, split.target_width)?;
        let inputs = Arc::new(LossInputs::new(losses.nodes()));
        let observer: Arc<dyn Observer> = Arc::clone(&inputs) as Arc<dyn Observer>;
        let clock = Clock { step: self.step, ..Clock::default() };
        let mut all = Vec::with_capacity(split.samples.len());
        let team = self.job.team.clone();
        while let Some(batch) = loader.next_batch()? {
            stop.look(false, 0.0)?;
            if stop.requested() {
                return Ok(None);
            }
            let variant = Variant::eval(batch.rows);
            self.session.submit_observed(variant, batch, clock, &observer)?;
            self.session.finish()?;
            let own = losses.of(&inputs.take(), &batch.targets)?;
            let own = own.iter().map(|loss| loss.map(|loss| if loss.is_finite() { rounded(loss) } else { f32::NAN }));
            for loss in team::of_rows(team.as_ref(), &own.collect::<Vec<_>>())? {
                if !loss.is_finite() {
                    let place = Place { epoch: 0, sample: batch.first };
                    return Err(self.nonfinite_evaluation(BatchOf {
                        set: split.name,
                        batches,
                        place,
                        part: None,
                        variant,
                        clock,
                    }));
                }
                all.push(loss);
            }
        }
        Ok(Some(all.into()))
    }
}
