//! Checks gradients against finite differences of losses, and Hessian-vector products against those of gradients.
//!
//! Both run the network's own training program in f64. The gradient g of the loss L along a coordinate is compared with
//! (L(w + h) - L(w - h)) / 2h; the product H v, exact through dual numbers, with (g(w + h v) - g(w - h v)) / 2h.
//!
//! - *Kinks.* Where a relu or max_pool changes its choice between w - h and w + h, the difference is not the derivative.
//!   Such coordinates are recognised by reducing the step (`differences.rs`), skipped and counted, and others take their
//!   place. If a parameter has no more compared coordinates than kinks, it is not judged.
//! - *Scale.* An error is relative to the largest value compared in the parameter, or to a floor that the rounding of the
//!   loss sets: the step is chosen so that a difference has enough digits, at most [`WIDEST`]; a gradient that even this
//!   step cannot resolve, as that of a bias before batch_norm, which is 0, is compared with the floor.
//! - *Choice.* Half of the coordinates are those with the largest gradients, the others are random.

use super::differences::{Claim, Sides, Verdict};
use super::probe::{Probe, Subject};
use crate::device::{Random, RandomStream};
use crate::error::{Error, Result};
use crate::program::Persistent;
use crate::tensor::{Dual, Precision};

/// The check of one parameter.
#[derive(Debug, Clone, PartialEq)]
pub struct Check {
    /// The parameter's name.
    pub name: String,
    /// Number of coordinates that were compared.
    pub samples: usize,
    /// Number of coordinates that were skipped because a kink is too near.
    pub kinks: usize,
    /// The largest difference, relative to the largest value compared; infinite if a value is not finite.
    pub error: f64,
    /// Whether the values compared are large enough that rounding hides no relative error above 1e-4. If not, the error
    /// is relative to what rounding permits.
    pub is_resolved: bool,
}

impl Check {
    /// Returns true if more coordinates were compared than skipped. A difference that was found counts in any case.
    pub fn is_judged(&self) -> bool {
        self.samples > self.kinks
    }
}

/// The relative error that differences resolve: what is judged wrong, if it is not due to a kink, exceeds it.
const RESOLUTION: f64 = 1e-5;

/// The smallest and the widest step along a coordinate.
const STEPS: [f64; 2] = [1e-5, WIDEST];
const WIDEST: f64 = 1e-3;

/// The steps, relative to the first one.
const LEVELS: [[f64; 2]; 3] = [[1.0, 0.5], [1.0 / 8.0, 1.0 / 16.0], [1.0 / 64.0, 1.0 / 128.0]];

/// The steps of products, where all parameters move at once. In almost every network of some size, a unit of some relu
/// or pool is within 1e-5 of its kink; in few networks, one is within 1e-8.
const PRODUCT_STEPS: [[f64; 2]; 2] = [[1e-8, 1e-9], [1e-10, 1e-11]];

/// Number of elements of a parameter whose products are compared.
const PRODUCTS: usize = 1000;

/// The rounding error of a loss in units of its scale, and how many times that error a gradient that is 0 may be off.
const LOSS_ROUNDING: f64 = 2.0 * f64::EPSILON;
const MARGIN: f64 = 8.0;

/// The rounding error of gradients in units of the largest one.
const GRADIENT_ROUNDING: f64 = 16.0 * f64::EPSILON;

/// Number of floating-point operations, of all losses of a gradient check, that take about a minute on two cores.
const AFFORDABLE: f64 = 1e12;

impl Subject<'_> {
    /// Returns the number of coordinates of each parameter, 2 to 10, that a check can compare in about a minute.
    pub fn affordable_samples(&self) -> usize {
        let losses = AFFORDABLE / (self.network.cost() as f64 * self.rows() as f64);
        // Two losses for a coordinate, and some more for those near a kink.
        (losses / (3.0 * self.network.parameters.len().max(1) as f64)).clamp(2.0, 10.0) as usize
    }

    /// Returns the gradient of every parameter, as the backward pass computes it.
    ///
    /// # Errors
    /// If the network cannot be planned on one device, a step fails, or the loss is not finite.
    pub fn gradients(&self) -> Result<Vec<Vec<f64>>> {
        let mut probe = Probe::new(self, Precision::F64, true)?;
        for (p, values) in self.weights().iter().enumerate() {
            probe.set(p, values)?;
        }
        probe.loss()?;
        (0..self.network.parameters.len()).map(|p| probe.gradient(p)).collect()
    }

    /// Returns the network with the first sample of the batch alone, where fewer kinks are near.
    pub fn first_sample(&self) -> Self {
        let width = self.images.len() / self.rows();
        Subject { images: &self.images[..width], targets: &self.targets[..self.target_width], ..*self }
    }

    /// Compares `samples` coordinates of the given gradient of each of `parameters` with finite differences of losses.
    /// Calls `report` with the check of each in turn.
    ///
    /// # Errors
    /// As [`Subject::gradients`], or if `report` fails.
    pub fn check_gradients(
        &self,
        parameters: &[usize],
        gradients: &[Vec<f64>],
        samples: usize,
        mut report: impl FnMut(&Check) -> Result<()>,
    ) -> Result<Vec<Check>> {
        let mut probe = Probe::new(self, Precision::F64, false)?;
        let mut weights = self.weights();
        for (p, values) in weights.iter().enumerate() {
            probe.set(p, values)?;
        }
        let center = probe.loss()?;
        // The loss is that of weights which differ from the given ones by some rounding errors.
        let squares = |(w, g): (&Vec<f64>, &Vec<f64>)| w.iter().zip(g).map(|(w, g)| (w * g).powi(2)).sum::<f64>();
        let moved = weights.iter().zip(gradients).map(squares).sum::<f64>().sqrt();
        let rounding = LOSS_ROUNDING * (center.abs() + if moved.is_finite() { moved } else { 0.0 });
        let mut checks = Vec::new();
        for &p in parameters {
            let gradient = &gradients[p];
            let mut coordinates = self.coordinates(p, gradient, samples);
            let floor = MARGIN * rounding / (RESOLUTION * WIDEST);
            let mut tally = Tally::new(scale(coordinates.iter().map(|&at| gradient[at])), floor);
            let allowed = RESOLUTION * tally.scale;
            let step = (4.0 * rounding / allowed).clamp(STEPS[0], STEPS[1]);
            let steps = LEVELS.map(|pair| pair.map(|part| part * step));
            let row = gradient.len() / self.network.parameters[p].param.shape.0[0].max(1);
            coordinates.reverse();
            while let Some(at) = coordinates.pop().filter(|_| tally.samples < samples) {
                let first = at / row;
                let (original, range) = (weights[p][at], first * row..(first + 1) * row);
                let mut at_offset = |offset: f64| {
                    weights[p][at] = original + offset;
                    let which = Persistent::Parameter(p);
                    probe.session.write_rows(which, first..first + 1, &weights[p][range.clone()])?;
                    if offset == 0.0 { Ok(center) } else { probe.loss() }
                };
                let claim = Claim { value: gradient[at], center, allowed, rounding };
                let sides = |h| Ok::<_, Error>(Sides { h, plus: at_offset(h)?, minus: at_offset(-h)? });
                let verdict = claim.judge(&steps, sides)?;
                at_offset(0.0)?;
                tally.add(gradient[at], verdict);
            }
            let check = tally.check(&self.network.parameters[p].name);
            report(&check)?;
            checks.push(check);
        }
        Ok(checks)
    }

    /// Returns coordinates to compare: half of `samples` are those with the largest gradients, the others are random, as
    /// are those that follow, which replace skipped ones. All, if there are few.
    fn coordinates(&self, parameter: usize, gradient: &[f64], samples: usize) -> Vec<usize> {
        if gradient.len() <= samples {
            return (0..gradient.len()).collect();
        }
        let random = Random::new(self.seed, RandomStream::Probe, 0, parameter as u64);
        let mut chosen = largest(gradient, samples.div_ceil(2));
        let draws = (0..4 * samples as u64).map(|draw| random.below(draw, gradient.len() as u64) as usize);
        for at in draws {
            if chosen.len() < 2 * samples && !chosen.contains(&at) {
                chosen.push(at);
            }
        }
        chosen
    }

    /// Returns the direction of the products, the same in every call.
    fn direction(&self, weights: &[Vec<f64>]) -> Vec<Vec<f64>> {
        let normal = |p: usize| {
            let random = Random::new(self.seed, RandomStream::Probe, 1, p as u64);
            (0..weights[p].len() as u64).map(|i| random.normal(i)).collect()
        };
        (0..weights.len()).map(normal).collect()
    }

    /// Returns gradients, with Hessian-vector products along a random direction as their derivatives, of at most
    /// 1000 elements of each parameter.
    ///
    /// # Errors
    /// As [`Subject::gradients`].
    pub fn products(&self) -> Result<Vec<Vec<Dual>>> {
        let weights = self.weights();
        let direction = self.direction(&weights);
        let mut exact = Probe::new(self, Precision::Dual, true)?;
        for (p, (w, v)) in weights.iter().zip(&direction).enumerate() {
            let values: Vec<Dual> = w.iter().zip(v).map(|(&re, &eps)| Dual { re, eps }).collect();
            exact.set(p, &values)?;
        }
        exact.loss()?;
        let chosen = |p: usize| -> Result<Vec<Dual>> {
            let all: Vec<Dual> = exact.gradient(p)?;
            Ok(self.elements(p, all.len()).into_iter().map(|at| all[at]).collect())
        };
        (0..weights.len()).map(chosen).collect()
    }

    /// Compares the given products with finite differences of gradients.
    ///
    /// # Errors
    /// As [`Subject::gradients`].
    pub fn check_products(&self, products: &[Vec<Dual>]) -> Result<Vec<Check>> {
        let weights = self.weights();
        let direction = self.direction(&weights);
        let chosen: Vec<Vec<usize>> = weights.iter().enumerate().map(|(p, w)| self.elements(p, w.len())).collect();
        let mut near = Probe::new(self, Precision::F64, true)?;
        let mut gradients_at = |offset: f64| -> Result<Vec<Vec<f64>>> {
            for (p, (w, v)) in weights.iter().zip(&direction).enumerate() {
                let values: Vec<f64> = w.iter().zip(v).map(|(w, v)| w + offset * v).collect();
                near.set(p, &values)?;
            }
            near.loss()?;
            let picked = |p: usize| -> Result<Vec<f64>> {
                let all: Vec<f64> = near.gradient(p)?;
                Ok(chosen[p].iter().map(|&at| all[at]).collect())
            };
            (0..weights.len()).map(picked).collect()
        };
        // Gradients at every step that some coordinate needs.
        let mut known: Vec<(f64, [Vec<Vec<f64>>; 2])> = Vec::new();
        let rounding = GRADIENT_ROUNDING * scale(products.iter().flatten().map(|product| product.re));
        let mut checks = Vec::new();
        for (p, products) in products.iter().enumerate() {
            let floor = rounding / (RESOLUTION * PRODUCT_STEPS[0][0]);
            let mut tally = Tally::new(scale(products.iter().map(|product| product.eps)), floor);
            let allowed = RESOLUTION * tally.scale;
            for (i, product) in products.iter().enumerate() {
                let claim = Claim { value: product.eps, center: product.re, allowed, rounding };
                let sides = |h: f64| {
                    let place = match known.iter().position(|&(step, _)| step == h) {
                        Some(place) => place,
                        None => {
                            known.push((h, [gradients_at(h)?, gradients_at(-h)?]));
                            known.len() - 1
                        }
                    };
                    let [plus, minus] = &known[place].1;
                    Ok::<_, Error>(Sides { h, plus: plus[p][i], minus: minus[p][i] })
                };
                tally.add(product.eps, claim.judge(&PRODUCT_STEPS, sides)?);
            }
            checks.push(tally.check(&self.network.parameters[p].name));
        }
        Ok(checks)
    }

    /// Returns the elements of a parameter whose products are compared.
    fn elements(&self, parameter: usize, len: usize) -> Vec<usize> {
        let random = Random::new(self.seed, RandomStream::Probe, 2, parameter as u64);
        match len <= PRODUCTS {
            true => (0..len).collect(),
            false => (0..PRODUCTS as u64).map(|i| random.below(i, len as u64) as usize).collect(),
        }
    }
}

/// The results for the coordinates of a parameter.
struct Tally {
    samples: usize,
    kinks: usize,
    /// The largest distance.
    distance: f64,
    scale: f64,
    is_resolved: bool,
}

impl Tally {
    /// `largest` is the largest value, and `floor` the least value of which differences show an error of [`RESOLUTION`].
    fn new(largest: f64, floor: f64) -> Self {
        let is_resolved = largest * 1e-4 > floor * RESOLUTION;
        Tally { samples: 0, kinks: 0, distance: 0.0, scale: largest.max(floor).max(f64::MIN_POSITIVE), is_resolved }
    }

    fn add(&mut self, value: f64, verdict: Verdict) {
        match verdict {
            _ if !value.is_finite() => self.distance = f64::INFINITY,
            Verdict::Compared(distance) => self.distance = self.distance.max(distance),
            Verdict::Kink => {
                self.kinks += 1;
                return;
            }
        }
        self.samples += 1;
    }

    fn check(self, name: &str) -> Check {
        let Tally { samples, kinks, distance, scale, is_resolved } = self;
        Check { name: name.to_string(), samples, kinks, error: distance / scale, is_resolved }
    }
}

/// Returns the largest finite magnitude.
fn scale(values: impl Iterator<Item = f64>) -> f64 {
    values.map(f64::abs).filter(|value| value.is_finite()).fold(0.0, f64::max)
}

/// Returns the indices of the largest magnitudes, largest first. NaN is larger than any number.
fn largest(values: &[f64], count: usize) -> Vec<usize> {
    let size = |at: usize| if values[at].is_nan() { f64::INFINITY } else { values[at].abs() };
    let mut best: Vec<usize> = Vec::new();
    for at in 0..values.len() {
        if best.len() < count || size(at) > size(best[best.len() - 1]) {
            best.insert(best.partition_point(|&other| size(other) >= size(at)), at);
            best.truncate(count);
        }
    }
    best
}
