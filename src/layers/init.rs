//! Initial values of parameters.

use crate::device::Random;
use crate::error::Fault;
use crate::settings::Range;
use serde::Deserialize;

const STD: Range<f64> =
    Range { text: "a number above 0; for zeros write init = \"zeros\"", contains: |std| std.is_finite() && *std > 0.0 };
const VALUE: Range<f64> = Range { text: "a finite number", contains: |value| value.is_finite() };

/// How a parameter is initialised. `fan_in` is the number of inputs of one output, `fan_out` the number of outputs of
/// one input.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Init {
    /// All zero.
    Zeros,
    /// All the same value.
    Constant(f64),
    /// Normal with mean 0 and standard deviation `std` (> 0).
    Normal {
        /// Standard deviation.
        std: f64,
    },
    /// Uniform within +-sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio 2010,
    /// <https://proceedings.mlr.press/v9/glorot10a.html>).
    Xavier,
    /// Normal with standard deviation sqrt(2 / fan_in) (He et al. 2015, <https://arxiv.org/abs/1502.01852>).
    Kaiming,
}

impl Init {
    /// How each is written, the values of its setting, and what it means, for the reference.
    pub const KINDS: [(&'static str, &'static str, &'static str); 5] = [
        ("\"kaiming\"", "", "Normal with standard deviation sqrt(2 / fan_in) (He et al. 2015)."),
        ("\"xavier\"", "", "Uniform within +-sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio 2010)."),
        ("{ normal = { std = 0.01 } }", STD.text, "Normal with mean 0 and standard deviation `std`."),
        ("{ constant = 0.1 }", VALUE.text, "The value everywhere."),
        ("\"zeros\"", "", "0 everywhere."),
    ];

    /// Checks the ranges of the settings.
    ///
    /// # Errors
    /// A setting that is out of range, as a fault of the key `init`.
    pub fn check(self) -> Result<(), Fault> {
        let (key, value, range) = match self {
            Init::Normal { std } => ("init.normal.std", std, STD),
            Init::Constant(value) => ("init.constant", value, VALUE),
            Init::Zeros | Init::Xavier | Init::Kaiming => return Ok(()),
        };
        range.check(key, &value).map_err(|fault| Fault::at("init", fault.message))
    }

    /// Returns element `index` of a parameter; `random` is the random sequence of that parameter.
    pub fn value(self, random: &Random, index: u64, fan_in: usize, fan_out: usize) -> f64 {
        match self {
            Init::Zeros => 0.0,
            Init::Constant(value) => value,
            Init::Normal { std } => std * random.normal(index),
            Init::Xavier => (6.0 / (fan_in + fan_out) as f64).sqrt() * (2.0 * random.uniform(index) - 1.0),
            Init::Kaiming => (2.0 / fan_in as f64).sqrt() * random.normal(index),
        }
    }
}
