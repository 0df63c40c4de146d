//! The curvature of the loss at given weights: the spectrum of its Hessian by the method of Lanczos on exact products (duals).
//!
//! From a random vector of length 1, k products give a tridiagonal matrix (Lanczos 1950; with full reorthogonalisation) whose eigenvalues
//! approach the extreme ones of the Hessian. The square of the first element of its eigenvector i is the weight of eigenvalue i: averaged
//! over random vectors, the weights are an estimate of the density of the Hessian's spectrum (stochastic Lanczos quadrature; Ghorbani et
//! al. 2019, <https://arxiv.org/abs/1901.10159>). The distance of eigenvalue i from one of the Hessian's is at most |beta_k s_ki|, where
//! s_ki is the last element of its eigenvector.

use super::probe::{Probe, Subject};
use crate::cpu::{Eigen, vectors};
use crate::device::{Random, RandomStream};
use crate::error::{Error, Result};
use crate::tensor::{Dual, Precision};

/// How a spectrum is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LanczosSettings {
    /// Products for each random vector; more find more of the extreme eigenvalues.
    pub steps: usize,
    /// Random vectors.
    pub vectors: usize,
}

/// An approximate eigenvalue.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RitzValue {
    /// The value.
    pub value: f64,
    /// The share of the eigenvalues that it stands for.
    pub share: f64,
    /// An eigenvalue of the Hessian is at most so far away.
    pub error: f64,
}

/// What a place is where the gradient vanishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StationaryKind {
    /// No direction that was found leads down.
    Minimum,
    /// No direction that was found leads up.
    Maximum,
    /// Some directions lead up, others down.
    Saddle,
    /// There is no curvature.
    Flat,
}

/// The spectrum of the Hessian of the loss.
#[derive(Debug, Clone, PartialEq)]
pub struct Spectrum {
    /// The number of weights that are trained.
    pub weights: usize,
    /// The loss.
    pub loss: f64,
    /// The norm of its gradient.
    pub gradient: f64,
    /// Approximate eigenvalues, the smallest first; their shares add up to 1.
    pub values: Vec<RitzValue>,
}

impl Spectrum {
    /// Returns the density of the spectrum at a value, if each approximate eigenvalue is spread as a normal distribution with this deviation: the
    /// share of eigenvalues in a unit of their value.
    pub fn density(&self, at: f64, deviation: f64) -> f64 {
        let bell = |one: &RitzValue| one.share * (-((at - one.value) / deviation).powi(2) / 2.0).exp();
        self.values.iter().map(bell).sum::<f64>() / (deviation * std::f64::consts::TAU.sqrt())
    }
}

/// The largest memory of the vectors of Lanczos, in bytes.
const MOST_BYTES: usize = 8 << 30;
/// The most weights for the whole Hessian.
pub const MOST_DENSE: usize = 4000;
/// A step along the gradient that lowers the loss by less than this share leaves it as it is.
const STILL: f64 = 1e-3;

/// A Hessian at given weights, by which vectors can be multiplied.
#[derive(Debug)]
pub struct Hessian {
    probe: Probe,
    /// The parameters that are trained, with their values.
    trained: Vec<(usize, Vec<f64>)>,
    /// The loss, and its gradient with respect to those parameters, one after another.
    loss: f64,
    gradient: Vec<f64>,
}

impl Hessian {
    /// Prepares the Hessian of the loss of a batch at weights, parameter by parameter; those of frozen ones are constants.
    ///
    /// # Errors
    /// If the network cannot be planned on one device, a step fails, or the loss is not finite.
    pub fn new(subject: &Subject, weights: &[Vec<f64>]) -> Result<Hessian> {
        let mut probe = Probe::new(subject, Precision::Dual, true)?;
        let parameters = &subject.network.parameters;
        for (p, values) in weights.iter().enumerate() {
            let constant: Vec<Dual> = values.iter().map(|&re| Dual { re, eps: 0.0 }).collect();
            probe.set(p, &constant)?;
        }
        let is_trained = |(p, _): &(usize, &Vec<f64>)| parameters[*p].lr_mult != 0.0;
        let trained: Vec<(usize, Vec<f64>)> =
            weights.iter().enumerate().filter(is_trained).map(|(p, values)| (p, values.clone())).collect();
        if trained.is_empty() {
            return Err(Error::Usage(
                "all parameters are frozen; there is nothing whose curvature could be measured".into(),
            ));
        }
        let loss = probe.loss()?;
        let mut hessian = Hessian { probe, trained, loss, gradient: Vec::new() };
        hessian.gradient = hessian.gradients()?.iter().map(|dual| dual.re).collect();
        Ok(hessian)
    }

    /// Returns the number of weights that are trained.
    pub fn weights(&self) -> usize {
        self.trained.iter().map(|(_, values)| values.len()).sum()
    }

    fn gradients(&self) -> Result<Vec<Dual>> {
        let mut all = Vec::with_capacity(self.weights());
        for (p, _) in &self.trained {
            all.extend(self.probe.gradient::<Dual>(*p)?);
        }
        Ok(all)
    }

    /// Returns the product with a vector.
    ///
    /// # Errors
    /// If a step fails, or the loss is not finite.
    pub fn product(&mut self, v: &[f64]) -> Result<Vec<f64>> {
        let mut rest = v;
        for (p, values) in &self.trained {
            let (own, after) = rest.split_at(values.len());
            let moved: Vec<Dual> = values.iter().zip(own).map(|(&re, &eps)| Dual { re, eps }).collect();
            self.probe.set(*p, &moved)?;
            rest = after;
        }
        self.probe.loss()?;
        Ok(self.gradients()?.iter().map(|dual| dual.eps).collect())
    }

    /// Returns the eigenvalues of the whole Hessian, the smallest first.
    ///
    /// # Errors
    /// If there are more than [`MOST_DENSE`] weights, or as [`Hessian::product`].
    pub fn dense(&mut self, mut report: impl FnMut(usize)) -> Result<Vec<f64>> {
        let n = self.weights();
        if n > MOST_DENSE {
            return Err(Error::Usage(format!(
                "the whole Hessian of {n} weights is too large, expected at most {MOST_DENSE} weights; leave out --dense"
            )));
        }
        let mut all = Vec::with_capacity(n * n);
        for i in 0..n {
            let unit: Vec<f64> = (0..n).map(|j| f64::from(u8::from(i == j))).collect();
            all.extend(self.product(&unit)?);
            report(i + 1);
        }
        let mut values = Eigen::of(all, n).values;
        values.sort_by(f64::total_cmp);
        Ok(values)
    }

    /// Computes the spectrum. Calls `report` with the number of products so far.
    ///
    /// # Errors
    /// If there is not enough memory for the vectors, or as [`Hessian::product`].
    pub fn spectrum(&mut self, seed: u64, how: LanczosSettings, mut report: impl FnMut(usize)) -> Result<Spectrum> {
        let n = self.weights();
        let steps = how.steps.min(n);
        if steps.saturating_mul(n).saturating_mul(size_of::<f64>()) > MOST_BYTES {
            let most = MOST_BYTES / size_of::<f64>() / n;
            return Err(Error::Usage(format!(
                "--steps {steps} keeps as many vectors of {n} weights, more than {} GiB; use at most {most}",
                MOST_BYTES >> 30
            )));
        }
        let (mut values, mut done) = (Vec::new(), 0);
        for vector in 0..how.vectors {
            let random = Random::new(seed, RandomStream::Probe, 3, vector as u64);
            let start: Vec<f64> = (0..n as u64).map(|i| random.normal(i)).collect();
            let found = lanczos(start, steps, |v| {
                done += 1;
                let product = self.product(v);
                report(done);
                product
            })?;
            values.extend(found.into_iter().map(|one| RitzValue { share: one.share / how.vectors as f64, ..one }));
        }
        values.sort_by(|a, b| a.value.total_cmp(&b.value));
        Ok(Spectrum { weights: n, loss: self.loss, gradient: vectors::norm(&self.gradient), values })
    }
}

/// Returns the eigenvalues of the tridiagonal matrix of a symmetric one, given a vector to start from and the product with it.
pub(super) fn lanczos(
    mut next: Vec<f64>,
    steps: usize,
    mut product: impl FnMut(&[f64]) -> Result<Vec<f64>>,
) -> Result<Vec<RitzValue>> {
    let (mut basis, mut diagonal, mut beside): (Vec<Vec<f64>>, Vec<f64>, Vec<f64>) = Default::default();
    let mut length = vectors::norm(&next);
    while basis.len() < steps {
        next.iter_mut().for_each(|x| *x /= length);
        let mut image = product(&next)?;
        diagonal.push(vectors::dot(&image, &next));
        basis.push(next);
        // Twice is enough (Parlett 1998, section 6.9).
        for _ in 0..2 {
            for earlier in &basis {
                let along = vectors::dot(&image, earlier);
                vectors::add(&mut image, -along, earlier);
            }
        }
        length = vectors::norm(&image);
        beside.push(length);
        next = image;
        // The space that the products span is complete.
        let scale = diagonal.iter().chain(&beside[..beside.len() - 1]).fold(0.0, |most: f64, x| most.max(x.abs()));
        if length <= 1e-13 * scale || scale == 0.0 {
            break;
        }
    }
    let k = diagonal.len();
    let mut matrix = vec![0.0; k * k];
    for i in 0..k {
        matrix[i * k + i] = diagonal[i];
        if i + 1 < k {
            (matrix[i * k + i + 1], matrix[(i + 1) * k + i]) = (beside[i], beside[i]);
        }
    }
    let Eigen { values, vectors } = Eigen::of(matrix, k);
    let ritz = |(&value, vector): (&f64, &[f64])| RitzValue {
        value,
        share: vector[0] * vector[0],
        error: (beside[k - 1] * vector[k - 1]).abs(),
    };
    Ok(values.iter().zip(vectors.chunks_exact(k)).map(ritz).collect())
}

impl Spectrum {
    /// Returns the smallest and the largest eigenvalue.
    pub fn extremes(&self) -> [RitzValue; 2] {
        [self.values[0], self.values[self.values.len() - 1]]
    }

    /// Returns the largest absolute value of an eigenvalue.
    pub fn radius(&self) -> f64 {
        self.extremes().iter().fold(0.0, |most, one| one.value.abs().max(most))
    }

    /// Returns the condition number, if all eigenvalues are above 0 by more than their errors.
    pub fn condition(&self) -> Option<f64> {
        let [least, most] = self.extremes();
        (least.value > least.error).then(|| most.value / least.value)
    }

    /// Returns the rate 1 / lambda of the largest eigenvalue, with which gradient descent removes the error along it in one step, if it is above 0.
    pub fn best_rate(&self) -> Option<f64> {
        let most = self.extremes()[1].value;
        (most > 0.0).then(|| 1.0 / most)
    }

    /// Returns what the place is if the gradient vanishes.
    pub fn kind(&self) -> StationaryKind {
        let flat = 1e-6 * self.radius();
        let [least, most] = self.extremes();
        let (down, up) = (least.value < -least.error.max(flat), most.value > most.error.max(flat));
        match (down, up) {
            (false, true) => StationaryKind::Minimum,
            (true, false) => StationaryKind::Maximum,
            (true, true) => StationaryKind::Saddle,
            (false, false) => StationaryKind::Flat,
        }
    }

    /// Returns by how much a step of 1 / lambda along the gradient would lower the loss: |g|^2 / (2 lambda), with the largest |lambda|.
    pub fn decrease(&self) -> f64 {
        let radius = self.radius();
        if radius > 0.0 { self.gradient * self.gradient / (2.0 * radius) } else { 0.0 }
    }

    /// Returns true if the gradient vanishes, in that such a step would lower the loss by less than a thousandth.
    pub fn is_stationary(&self) -> bool {
        self.decrease() <= STILL * self.loss.abs()
    }

    /// Returns the shares of eigenvalues between limits, given in units of the largest absolute value: those below the first one, between
    /// each two, and above the last one.
    pub fn shares(&self, limits: &[f64]) -> Vec<f64> {
        let mut shares = vec![0.0; limits.len() + 1];
        for one in &self.values {
            shares[limits.partition_point(|limit| limit * self.radius() <= one.value)] += one.share;
        }
        shares
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the Ritz values of a diagonal matrix, the smallest first.
    fn of_diagonal(diagonal: &[f64], steps: usize) -> Vec<RitzValue> {
        let random = Random::new(1, RandomStream::Probe, 9, 0);
        let start = (0..diagonal.len() as u64).map(|i| random.normal(i)).collect();
        let product = |v: &[f64]| Ok(v.iter().zip(diagonal).map(|(v, d)| v * d).collect());
        let mut found = lanczos(start, steps, product).unwrap();
        found.sort_by(|a, b| a.value.total_cmp(&b.value));
        found
    }

    #[test]
    fn a_density_sums_to_one_and_has_the_shares_of_its_eigenvalues() {
        let value = |value, share| RitzValue { value, share, error: 0.0 };
        let spectrum =
            Spectrum { weights: 4, loss: 0.0, gradient: 0.0, values: vec![value(-1.0, 0.25), value(3.0, 0.75)] };
        let sum =
            |from: i32, to: i32| (from..to).map(|i| spectrum.density(f64::from(i) * 1e-3, 0.1) * 1e-3).sum::<f64>();
        assert!((sum(-2000, 1000) - 0.25).abs() < 1e-9 && (sum(1000, 4000) - 0.75).abs() < 1e-9);
    }

    #[test]
    fn as_many_steps_as_eigenvalues_find_all_of_them() {
        let found = of_diagonal(&[3.0, -1.0, 0.5, 10.0], 10);
        assert_eq!(found.len(), 4);
        for (one, value) in found.iter().zip([-1.0, 0.5, 3.0, 10.0]) {
            assert!((one.value - value).abs() < 1e-10 && one.error < 1e-9, "{found:?}");
        }
        assert!((found.iter().map(|one| one.share).sum::<f64>() - 1.0).abs() < 1e-12);
        // Equal eigenvalues are found once.
        assert_eq!(of_diagonal(&[2.0; 5], 4).len(), 1);
        assert_eq!(of_diagonal(&[0.0; 5], 4).len(), 1);
    }

    #[test]
    fn extremes_of_many_eigenvalues_are_within_their_errors() {
        let mut diagonal: Vec<f64> = (0..1000).map(|i| f64::from(i) / 1000.0).collect();
        diagonal.extend([5.0, -2.0]);
        let found = of_diagonal(&diagonal, 25);
        let [least, most] = [found[0], found[24]];
        assert!((least.value + 2.0).abs() <= least.error + 1e-12 && least.error < 1e-3, "{least:?}");
        assert!((most.value - 5.0).abs() <= most.error + 1e-12 && most.error < 1e-3, "{most:?}");
        // Two of a thousand values are outside 0 to 1; a share is known to within the size of a random vector along them.
        let outside: f64 = [least, most].iter().map(|one| one.share).sum();
        assert!(outside < 0.02, "{outside}");
    }

    fn spectrum(values: [f64; 2], loss: f64, gradient: f64) -> Spectrum {
        let values = values.map(|value| RitzValue { value, share: 0.5, error: 1e-9 }).to_vec();
        Spectrum { weights: 2, loss, gradient, values }
    }

    #[test]
    fn places_are_told_apart() {
        let bowl = spectrum([1.0, 5.0], 2.0, 0.0);
        assert_eq!((bowl.kind(), bowl.condition(), bowl.best_rate()), (StationaryKind::Minimum, Some(5.0), Some(0.2)));
        let saddle = spectrum([-1.0, 5.0], 2.0, 1.0);
        assert_eq!((saddle.kind(), saddle.condition()), (StationaryKind::Saddle, None));
        assert_eq!(spectrum([-5.0, -1.0], 2.0, 0.0).kind(), StationaryKind::Maximum);
        assert_eq!(spectrum([0.0, 0.0], 2.0, 0.0).kind(), StationaryKind::Flat);
        // |g|^2 / (2 * 5) is 5 % of the loss.
        assert!((saddle.decrease() - 0.1).abs() < 1e-12 && !saddle.is_stationary() && bowl.is_stationary());
        assert_eq!(spectrum([-1.0, 5.0], 2.0, 0.0).shares(&[-0.1, 0.1]), [0.5, 0.0, 0.5]);
    }
}
