//! Kaiming: twice the variance of Xavier, as a relu sets half of its inputs to 0 (He et al. 2015,
//! <https://arxiv.org/abs/1502.01852>). Weights have the variance 2 gain^2 / n, where n is the number of inputs, of outputs, or
//! the mean of both.

use super::{Distribution, Fan, InitialElement, Initializer};
use crate::settings::{POSITIVE, settings};

settings! {
    /// Variance 2 gain^2 / n, which preserves that of the inputs of a layer after a relu (He et al. 2015).
    pub struct Kaiming {
        /// The number n: of inputs of one output, of outputs of one input, or the mean of both.
        pub fan: Fan = Fan::In, example "\"out\"";
        /// The distribution.
        pub distribution: Distribution = Distribution::Normal, example "\"uniform\"";
        /// Multiplies all values.
        pub gain: f64 = 1.0, in POSITIVE;
    }
}

impl Initializer for Kaiming {
    fn key(&self) -> &'static str {
        "kaiming"
    }
    fn value(&self, at: InitialElement) -> f64 {
        self.distribution.draw(at, 2.0 * self.gain * self.gain / self.fan.of(at))
    }
    fn examples() -> Vec<Self> {
        let plain = Kaiming::default();
        vec![plain.clone(), Kaiming { fan: Fan::Out, distribution: Distribution::Uniform, ..plain }]
    }
}
