//! Xavier: the variance of the outputs of a linear layer is that of its inputs (Glorot and Bengio 2010,
//! <https://proceedings.mlr.press/v9/glorot10a.html>). Weights have the variance gain^2 / n, where n is the number of inputs,
//! of outputs, or the mean of both.
//!
//! As in the paper, `"xavier"` is uniform within +-sqrt(6 / (fan_in + fan_out)). The lecture's form, N(0, 1/n) for n inputs, is
//! `{ fan = "in", distribution = "normal" }`, and Caffe's, uniform within +-sqrt(3 / fan_in), `{ fan = "in" }`.

use super::{Distribution, Fan, InitialElement, Initializer};
use crate::settings::{POSITIVE, settings};

settings! {
    /// Variance gain^2 / n, which preserves that of the inputs of a linear layer (Glorot and Bengio 2010).
    pub struct Xavier {
        /// The number n: of inputs of one output, of outputs of one input, or the mean of both.
        pub fan: Fan = Fan::Average, example "\"in\"";
        /// The distribution.
        pub distribution: Distribution = Distribution::Uniform, example "\"normal\"";
        /// Multiplies all values.
        pub gain: f64 = 1.0, in POSITIVE;
    }
}

impl Initializer for Xavier {
    fn key(&self) -> &'static str {
        "xavier"
    }
    fn value(&self, at: InitialElement) -> f64 {
        self.distribution.draw(at, self.gain * self.gain / self.fan.of(at))
    }
    fn examples() -> Vec<Self> {
        let plain = Xavier::default();
        let lecture = Xavier { fan: Fan::In, distribution: Distribution::Normal, gain: 1.0 };
        vec![plain.clone(), lecture, Xavier { fan: Fan::Out, gain: 0.5, ..plain }]
    }
}
