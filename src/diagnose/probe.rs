//! Losses and gradients of a batch at chosen weights, on one CPU device.

use super::gradients::Subject;
use crate::data;
use crate::device::{Clock, Target};
use crate::error::{Error, Result};
use crate::optim::Chain;
use crate::placement::{Spec, Variant};
use crate::program::{Persistent, Plan, Session};
use crate::tensor::{Precision, Real};
use std::sync::Arc;

/// A session that computes losses, and gradients if `backward` is true.
#[derive(Debug)]
pub(super) struct Probe {
    pub(super) session: Session,
    variant: Variant,
    batch: data::Batch,
}

impl Probe {
    /// Prepares the programs.
    ///
    /// # Errors
    /// If the network cannot be planned on one device.
    pub(super) fn new(subject: &Subject, precision: Precision, backward: bool) -> Result<Probe> {
        let Subject { network, seed, target_width, threads, .. } = *subject;
        let variant = Variant::gradients(subject.rows());
        let target = Target::Cpu { threads };
        let variants = vec![variant];
        let spec = Spec { target, precision, target_width, seed, variants, backward, ..Spec::default() };
        let plan = Plan::new(Arc::clone(network), Arc::new(Chain::default()), spec)
            .map_err(|problems| Error::Config(problems.into()))?;
        let session = Session::new(plan)?;
        let (images, targets) = (subject.images.to_vec(), subject.targets.to_vec());
        Ok(Probe { session, variant, batch: data::Batch { images, targets, ..data::Batch::default() } })
    }

    /// Sets a parameter.
    pub(super) fn set<T: Real>(&mut self, parameter: usize, values: &[T]) -> Result<()> {
        self.session.write(Persistent::Parameter(parameter), values)
    }

    /// Runs the program and returns the loss. Every call uses the same dropout masks.
    pub(super) fn loss(&mut self) -> Result<f64> {
        let clock = Clock { step: 1, ..Clock::default() };
        let loss = self.session.run(self.variant, &mut self.batch, clock)?.loss;
        if loss.is_finite() { Ok(loss) } else { Err(Error::Goal(format!("the loss of the batch is {loss}"))) }
    }

    /// Returns the gradient of a parameter, as computed by the last call of [`Probe::loss`].
    pub(super) fn gradient<T: Real>(&self, parameter: usize) -> Result<Vec<T>> {
        self.session.read(Persistent::Gradient(parameter))
    }
}
