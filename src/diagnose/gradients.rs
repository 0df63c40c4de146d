//! Checks gradients against finite differences of losses, and Hessian-vector products against those of gradients.
//!
//! The gradient g of the loss L along a coordinate is compared with the central difference
//! (L(w + h) - L(w - h)) / 2h; the product H v, exact through dual numbers, with (g(w + h v) - g(w - h v)) / 2h.
//! Both run the network's own training program in f64.

use crate::data;
use crate::device::{Clock, Random, RandomStream};
use crate::error::{Error, Result};
use crate::layers::Mode;
use crate::network::{self, Network};
use crate::optim::Chain;
use crate::placement::{Spec, Variant};
use crate::program::{Persistent, Plan, Session};
use crate::tensor::{Dual, Mesh, Precision, Real};
use std::sync::Arc;

/// A network with one batch, in one precision, for computing losses and gradients.
#[derive(Debug)]
pub struct Probe {
    session: Session,
    variant: Variant,
    batch: data::Batch,
}

impl Probe {
    /// Plans the network on a mesh for one batch of `targets.len() / target_width` samples.
    ///
    /// # Errors
    /// Every split that does not suit its layer, or too little memory.
    pub fn new(
        network: &Arc<Network>,
        precision: Precision,
        mesh: Mesh,
        seed: u64,
        (images, targets, target_width): (&[f32], &[f32], usize),
    ) -> Result<Probe> {
        let variant = Variant { mode: Mode::Train, batch: targets.len() / target_width, update: false };
        let spec = Spec { mesh, precision, target_width, seed, variants: vec![variant], ..Spec::default() };
        let plan = Plan::new(Arc::clone(network), Arc::new(Chain::default()), spec)
            .map_err(|problems| Error::Config(problems.into()))?;
        let session = Session::new(plan)?;
        let (images, targets) = (images.to_vec(), targets.to_vec());
        Ok(Probe { session, variant, batch: data::Batch { images, targets, ..data::Batch::default() } })
    }

    /// Sets a parameter.
    pub fn set<T: Real>(&mut self, parameter: usize, values: &[T]) {
        self.session.write(Persistent::Parameter(parameter), values).expect("CPU operands are host memory");
    }

    /// Computes the gradients and returns the loss. Every call uses the same dropout masks.
    ///
    /// # Errors
    /// If a step fails.
    pub fn loss(&mut self) -> Result<f64> {
        let clock = Clock { step: 1, ..Clock::default() };
        Ok(self.session.run(self.variant, &mut self.batch, clock)?.loss)
    }

    /// Returns the gradient of a parameter, as computed by the last call of [`Probe::loss`].
    pub fn gradient<T: Real>(&self, parameter: usize) -> Vec<T> {
        self.session.read(Persistent::Gradient(parameter)).expect("CPU operands are host memory")
    }
}

/// The check of one parameter.
#[derive(Debug, Clone, PartialEq)]
pub struct Check {
    /// The parameter's name.
    pub name: String,
    /// Number of coordinates that were compared.
    pub samples: usize,
    /// The largest difference, relative to the largest value compared.
    pub error: f64,
}

/// A batch: images, targets, width of the targets.
type Batch<'a> = (&'a [f32], &'a [f32], usize);

/// The step of a finite difference, whose error is about h^2 + 1e-16 / h.
const H: f64 = 1e-5;
/// The step for gradients, where all parameters move at once. In almost every network of some size, a unit of some relu
/// or pool is within 1e-5 of its kink; in few networks, one is within 1e-8.
const H_ALL: f64 = 1e-8;

fn start(network: &Network, seed: u64) -> Vec<Vec<f64>> {
    (0..network.parameters.len())
        .map(|p| {
            let elements = network.parameters[p].param.shape.elements();
            network::initial(network, seed, p, 0..elements)
        })
        .collect()
}

/// Compares up to `samples` coordinates of every parameter's gradient with finite differences of losses.
///
/// # Errors
/// If the network cannot be planned on one device or a step fails.
pub fn gradient_check(network: &Arc<Network>, seed: u64, batch: Batch, samples: usize) -> Result<Vec<Check>> {
    let mut probe = Probe::new(network, Precision::F64, Mesh::ONE, seed, batch)?;
    let mut weights = start(network, seed);
    for (p, values) in weights.iter().enumerate() {
        probe.set(p, values);
    }
    probe.loss()?;
    let gradients: Vec<Vec<f64>> = (0..weights.len()).map(|p| probe.gradient(p)).collect();
    let mut checks = Vec::new();
    for (p, gradient) in gradients.iter().enumerate() {
        let random = Random::new(seed, RandomStream::Probe, 0, p as u64);
        let count = samples.min(gradient.len());
        let (mut error, mut scale) = (0.0f64, 0.0f64);
        for sample in 0..count {
            let at = if count == gradient.len() {
                sample
            } else {
                random.below(sample as u64, gradient.len() as u64) as usize
            };
            let original = weights[p][at];
            let mut losses = [0.0; 2];
            for (loss, h) in losses.iter_mut().zip([H, -H]) {
                weights[p][at] = original + h;
                probe.set(p, &weights[p]);
                *loss = probe.loss()?;
            }
            weights[p][at] = original;
            let difference = (losses[0] - losses[1]) / (2.0 * H);
            error = error.max((difference - gradient[at]).abs());
            scale = scale.max(difference.abs()).max(gradient[at].abs());
        }
        probe.set(p, &weights[p]);
        // Below 1e-6, the difference of two losses near 1 has fewer digits than the comparison needs.
        checks.push(Check { name: network.parameters[p].name.clone(), samples: count, error: error / scale.max(1e-6) });
    }
    Ok(checks)
}

/// Compares Hessian-vector products along a random direction, exact through dual numbers, with finite differences of
/// gradients.
///
/// # Errors
/// If the network cannot be planned on one device or a step fails.
pub fn hessian_vector_check(network: &Arc<Network>, seed: u64, batch: Batch) -> Result<Vec<Check>> {
    let weights = start(network, seed);
    let direction: Vec<Vec<f64>> = (0..weights.len())
        .map(|p| {
            let random = Random::new(seed, RandomStream::Probe, 1, p as u64);
            (0..weights[p].len() as u64).map(|i| random.normal(i)).collect()
        })
        .collect();
    let mut exact = Probe::new(network, Precision::Dual, Mesh::ONE, seed, batch)?;
    for (p, (w, v)) in weights.iter().zip(&direction).enumerate() {
        let values: Vec<Dual> = w.iter().zip(v).map(|(&re, &eps)| Dual { re, eps }).collect();
        exact.set(p, &values);
    }
    exact.loss()?;
    let mut near = Probe::new(network, Precision::F64, Mesh::ONE, seed, batch)?;
    let mut gradients: Vec<Vec<Vec<f64>>> = Vec::new();
    for h in [H_ALL, -H_ALL] {
        for (p, (w, v)) in weights.iter().zip(&direction).enumerate() {
            let values: Vec<f64> = w.iter().zip(v).map(|(w, v)| w + h * v).collect();
            near.set(p, &values);
        }
        near.loss()?;
        gradients.push((0..weights.len()).map(|p| near.gradient(p)).collect());
    }
    let check = |p: usize| {
        let product: Vec<Dual> = exact.gradient(p);
        let difference = gradients[0][p].iter().zip(&gradients[1][p]).map(|(a, b)| (a - b) / (2.0 * H_ALL));
        let (mut error, mut scale) = (0.0f64, 0.0f64);
        for (product, difference) in product.iter().zip(difference) {
            error = error.max((product.eps - difference).abs());
            scale = scale.max(product.eps.abs()).max(difference.abs());
        }
        Check { name: network.parameters[p].name.clone(), samples: product.len(), error: error / scale.max(1e-6) }
    };
    Ok((0..weights.len()).map(check).collect())
}
