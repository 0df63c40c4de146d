//! A generated problem for linear networks: inputs x that are normally distributed, and y = A x + noise.
//!
//! The covariance of x has eigenvalues from 1 down to 1 / condition, in a geometric sequence, along directions that are not those of
//! the inputs. With one dense layer without a bias, and `mean_squared_error`, the Hessian of the loss is in proportion to that
//! covariance, so that gradient descent zigzags in it as in a canyon (LeCun et al. 1998, "Efficient BackProp", section 5,
//! <https://doi.org/10.1007/3-540-49430-8_2>). A is drawn from the normal distribution with variance 1 / inputs. All random numbers are
//! counter-based.

use super::{DataFormat, Dataset, Description, Header, Labels, PixelType, Pixels, SourceContext, Subset};
use crate::device::{Random, RandomStream};
use crate::error::{Error, Fault, Result};
use crate::settings::{AT_LEAST_ONE, NOT_NEGATIVE, Range, Settings, settings};

const CONDITION: Range<f64> = Range { text: "a number from 1 to 1e12", contains: |x| (1.0..=1e12).contains(x) };
/// The largest number of values; more are taken for a mistake.
const LARGEST: usize = 1 << 36;

settings! {
    /// `{ linear = { samples = 100, inputs = 2, condition = 5.0 } }`: values y = A x + noise for generated inputs x, of shape
    /// [1, 1, inputs]. The samples of `test` differ from those of `train`; A is the same if the seeds are.
    pub struct Linear {
        /// The number of samples.
        pub samples: usize, in AT_LEAST_ONE, example "100";
        /// The number of inputs.
        pub inputs: usize, in AT_LEAST_ONE, example "2";
        /// The number of values to be predicted.
        pub outputs: usize = 1, in AT_LEAST_ONE;
        /// The ratio of the largest and the smallest eigenvalue of the covariance of the inputs.
        pub condition: f64 = 1.0, in CONDITION, example "5.0";
        /// The standard deviation of the noise.
        pub noise: f64 = 0.0, in NOT_NEGATIVE, example "0.1";
        /// The seed of A, the inputs and the noise.
        pub seed: u64 = 1;
    }
}

impl Linear {
    /// Returns the number of all inputs and outputs, or `None` if there are too many.
    fn values(&self) -> Option<usize> {
        let all = self.inputs.checked_add(self.outputs)?.checked_mul(self.samples)?;
        let weights = self.inputs.checked_mul(self.outputs)?;
        Some(all).filter(|&n| n.max(weights) <= LARGEST && self.samples <= u32::MAX as usize)
    }

    fn random(&self, purpose: u64, index: u64) -> Random {
        Random::new(self.seed, RandomStream::Synthetic, 16 + purpose, index)
    }

    /// Returns A, (outputs, inputs).
    fn weights(&self) -> Vec<f64> {
        let random = self.random(0, 0);
        let scale = (1.0 / self.inputs as f64).sqrt();
        (0..(self.inputs * self.outputs) as u64).map(|i| scale * random.normal(i)).collect()
    }

    /// Returns the direction along which inputs are mirrored, so that the eigenvectors are not the axes.
    fn mirror(&self) -> Vec<f64> {
        let random = self.random(1, 0);
        let mut v: Vec<f64> = (0..self.inputs as u64).map(|i| random.normal(i)).collect();
        let length = v.iter().map(|x| x * x).sum::<f64>().sqrt();
        v.iter_mut().for_each(|x| *x /= length);
        v
    }

    /// Appends the inputs of a sample and returns their values before rounding to f32.
    fn sample(&self, time: u64, index: usize, mirror: &[f64]) -> Vec<f64> {
        let random = self.random(time, index as u64);
        let steps = (self.inputs - 1).max(1) as f64;
        let std = |j: usize| self.condition.powf(-(j as f64) / steps / 2.0);
        let mut x: Vec<f64> = (0..self.inputs).map(|j| std(j) * random.normal(j as u64)).collect();
        if self.inputs > 1 {
            let along: f64 = x.iter().zip(mirror).map(|(x, v)| x * v).sum();
            x.iter_mut().zip(mirror).for_each(|(x, v)| *x -= 2.0 * along * v);
        }
        x
    }
}

impl DataFormat for Linear {
    fn key(&self) -> &'static str {
        "linear"
    }
    fn check(&self) -> Result<(), Fault> {
        self.check_ranges()?;
        let Linear { samples, inputs, outputs, .. } = self;
        if self.values().is_none() {
            let message = format!("{samples} samples of {inputs} inputs and {outputs} outputs are too many; use fewer");
            return Err(Fault::at("samples", message));
        }
        Ok(())
    }
    fn describe(&self, _: SourceContext) -> Result<Description> {
        let Linear { samples, inputs, outputs, .. } = *self;
        let shape = [1, 1, inputs];
        let header = Header { images: samples, shape, classes: 0, pixels: PixelType::F32, target_width: outputs };
        Ok(header.into())
    }
    fn load(&self, cx: SourceContext) -> Result<Dataset> {
        let Linear { samples, inputs, outputs, noise, .. } = *self;
        let (mut x, mut y) = (Vec::new(), Vec::new());
        if x.try_reserve_exact(samples * inputs).is_err() || y.try_reserve_exact(samples * outputs).is_err() {
            return Err(Error::Usage(format!("linear: no memory for {samples} samples of {inputs} inputs")));
        }
        let time = match cx.subset {
            Subset::Train => 2,
            Subset::Test => 3,
        };
        let (weights, mirror) = (self.weights(), self.mirror());
        for index in 0..samples {
            let own: Vec<f32> = self.sample(time, index, &mirror).into_iter().map(|x| x as f32).collect();
            let random = self.random(time + 2, index as u64);
            for (output, row) in weights.chunks_exact(inputs).enumerate() {
                let value: f64 = row.iter().zip(&own).map(|(a, &x)| a * f64::from(x)).sum();
                y.push((value + noise * random.normal(output as u64)) as f32);
            }
            x.extend(own);
        }
        Ok(Dataset::loaded(Pixels::F32(x), Labels::Values(outputs, y), [1, 1, inputs], 0))
    }
    fn examples() -> Vec<Self> {
        vec![Linear { samples: 20, inputs: 5, outputs: 2, condition: 10.0, noise: 0.1, seed: 1 }]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Linear = Linear { samples: 20_000, inputs: 2, outputs: 1, condition: 9.0, noise: 0.0, seed: 3 };

    fn load(linear: &Linear, subset: Subset) -> (Vec<f32>, Dataset) {
        let dataset = linear.load(SourceContext::new(subset, &crate::data::Base::default())).unwrap();
        let Pixels::F32(x) = dataset.all_pixels().unwrap() else { panic!("inputs are floats") };
        (x, dataset)
    }

    #[test]
    fn the_covariance_has_its_condition_number_and_is_not_diagonal() {
        let (x, _) = load(&PLAIN, Subset::Train);
        let mean = |f: &dyn Fn(&[f32]) -> f64| x.chunks(2).map(f).sum::<f64>() / 20_000.0;
        let [a, b, c] = [(0, 0), (0, 1), (1, 1)].map(|(i, j)| mean(&|x| f64::from(x[i]) * f64::from(x[j])));
        let (half, root) = ((a + c) / 2.0, ((a - c).powi(2) / 4.0 + b * b).sqrt());
        // Within five standard errors of a variance, sqrt(2 / 20000).
        assert!((half + root - 1.0).abs() < 0.05 && ((half - root) * 9.0 - 1.0).abs() < 0.05, "{a} {b} {c}");
        assert!(b.abs() > 0.05, "{b}");
    }

    #[test]
    fn values_are_linear_in_the_inputs_and_the_noise_has_its_size() {
        let small = Linear { samples: 300, inputs: 4, outputs: 3, ..PLAIN };
        let (x, dataset) = load(&small, Subset::Train);
        let weights = small.weights();
        let expected = |i: usize, o: usize| (0..4).map(|j| weights[o * 4 + j] * f64::from(x[i * 4 + j])).sum::<f64>();
        let Labels::Values(3, y) = &dataset.labels else { panic!("three values") };
        assert!((0..900).all(|k| (f64::from(y[k]) - expected(k / 3, k % 3)).abs() < 1e-6));
        let (same, noisy) = load(&Linear { noise: 0.5, ..small.clone() }, Subset::Train);
        let Labels::Values(_, noisy) = &noisy.labels else { panic!("values") };
        let square = y.iter().zip(noisy).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>() / 900.0;
        assert!(same == x && (square / 0.25 - 1.0).abs() < 0.25, "{square}");
        assert_ne!(load(&small, Subset::Test).0, x);
    }

    #[test]
    fn impossible_sizes_are_rejected() {
        let fault = |linear: Linear| linear.check().unwrap_err().message;
        assert_eq!(fault(Linear { condition: 0.5, ..PLAIN }), "condition = 0.5, expected a number from 1 to 1e12");
        assert!(fault(Linear { inputs: usize::MAX, ..PLAIN }).ends_with("are too many; use fewer"));
    }
}
