//! Losses and gradients of a batch at chosen weights, on one CPU device.

use crate::data;
use crate::device::{Clock, Target};
use crate::error::{Error, Result};
use crate::network::{self, Network};
use crate::optim::Chain;
use crate::placement::{Spec, Variant};
use crate::program::{Persistent, Plan, Session};
use crate::tensor::{Precision, Real};
use std::sync::Arc;

/// A network at its initial values, with the batch on which it is checked.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// The network.
    pub network: &'a Arc<Network>,
    /// The seed of initial values and of the choice of coordinates.
    pub seed: u64,
    /// The images of the batch.
    pub images: &'a [f32],
    /// Their targets.
    pub targets: &'a [f32],
    /// Width of the targets: 1 for class indices, otherwise the number of classes.
    pub target_width: usize,
    /// Number of threads; results do not depend on it.
    pub threads: usize,
}

impl Subject<'_> {
    /// Returns the number of samples in the batch.
    pub fn rows(&self) -> usize {
        self.targets.len() / self.target_width
    }

    /// Returns the initial values of all parameters.
    pub fn weights(&self) -> Vec<Vec<f64>> {
        let elements = |p: usize| self.network.parameters[p].param.shape.elements();
        let parameters = 0..self.network.parameters.len();
        parameters.map(|p| network::initial(self.network, self.seed, p).elements(0..elements(p))).collect()
    }
}

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
