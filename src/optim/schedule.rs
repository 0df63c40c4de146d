//! Schedules: the learning rate as a function of the update number.

use super::transform::power;
use crate::error::Fault;
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer};
use std::fmt;

/// A length of training.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interval {
    /// A number of updates: `500`, `"500 steps"`.
    Steps(u64),
    /// A number of passes over the training data: `"2 epochs"`.
    Epochs(u64),
}

impl Interval {
    /// Returns how many whole intervals have passed after `steps` updates and `epochs` whole epochs.
    pub fn passed(self, steps: u64, epochs: u64) -> u64 {
        match self {
            Interval::Steps(every) => steps / every.max(1),
            Interval::Epochs(every) => epochs / every.max(1),
        }
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (count, unit) = match self {
            Interval::Steps(count) => (count, "step"),
            Interval::Epochs(count) => (count, "epoch"),
        };
        write!(f, "{count} {unit}{}", if *count == 1 { "" } else { "s" })
    }
}

impl<'de> Deserialize<'de> for Interval {
    fn deserialize<D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        value.deserialize_any(NumberOrText)
    }
}

struct NumberOrText;

impl Visitor<'_> for NumberOrText {
    type Value = Interval;
    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a number of steps of at least 1, or text such as \"2 epochs\" or \"500 steps\"")
    }
    fn visit_u64<E: Error>(self, steps: u64) -> Result<Interval, E> {
        if steps == 0 {
            return Err(E::invalid_value(serde::de::Unexpected::Unsigned(0), &self));
        }
        Ok(Interval::Steps(steps))
    }
    fn visit_i64<E: Error>(self, steps: i64) -> Result<Interval, E> {
        match u64::try_from(steps) {
            Ok(steps) => self.visit_u64(steps),
            Err(_) => Err(E::invalid_value(serde::de::Unexpected::Signed(steps), &self)),
        }
    }
    fn visit_str<E: Error>(self, text: &str) -> Result<Interval, E> {
        let count = |number: &str| number.parse().ok().filter(|&n: &u64| n > 0);
        let read = text.split_once(' ').and_then(|(number, unit)| match unit.trim_start() {
            "step" | "steps" => count(number).map(Interval::Steps),
            "epoch" | "epochs" => count(number).map(Interval::Epochs),
            _ => None,
        });
        read.ok_or_else(|| E::invalid_value(serde::de::Unexpected::Str(text), &self))
    }
}

/// The base learning rate at every update.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Constant {}

/// The base learning rate times factor^floor((step - 1) / every).
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepDecay {
    /// Updates or epochs from one decay to the next, at least 1.
    pub every: Interval,
    /// The factor of each decay, above 0 and not 1.
    pub factor: f64,
}

/// The learning rate as a function of the update number. It is a pure function, so there is no state to save or resume.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Schedule {
    /// The rate stays constant.
    Constant(Constant),
    /// The rate is multiplied by a factor at regular intervals.
    StepDecay(StepDecay),
}

/// The keys of all schedules.
pub const KEYS: &[&str] = &["constant", "step"];

/// Reads the settings of the schedule named `kind`. Returns `None` if there is no such schedule.
pub fn read<'de, D: Deserializer<'de>>(kind: &str, settings: D) -> Option<Result<Schedule, D::Error>> {
    match kind {
        "constant" => Some(Constant::deserialize(settings).map(Schedule::Constant)),
        "step" => Some(StepDecay::deserialize(settings).map(Schedule::StepDecay)),
        _ => None,
    }
}

impl Default for Schedule {
    fn default() -> Self {
        Schedule::Constant(Constant {})
    }
}

impl Schedule {
    /// Returns its key in the file.
    pub fn key(&self) -> &'static str {
        match self {
            Schedule::Constant(_) => "constant",
            Schedule::StepDecay(_) => "step",
        }
    }

    /// Checks the ranges of its settings.
    ///
    /// # Errors
    /// The first setting that is out of range.
    pub fn check(&self) -> Result<(), Fault> {
        match self {
            Schedule::Constant(_) => Ok(()),
            Schedule::StepDecay(StepDecay { factor, .. }) if factor.is_finite() && *factor > 0.0 && *factor != 1.0 => {
                Ok(())
            }
            Schedule::StepDecay(StepDecay { factor, .. }) => Err(Fault::at(
                "factor",
                format!("factor = {factor}, expected a number above 0 other than 1, such as 0.1"),
            )),
        }
    }

    /// Returns the learning rate of update `step` (from 1), which is made in an epoch (from 0), given the base learning
    /// rate in the file.
    pub fn lr(&self, base: f64, step: u64, epoch: u64) -> f64 {
        match self {
            Schedule::Constant(_) => base,
            Schedule::StepDecay(StepDecay { every, factor }) => base * power(*factor, every.passed(step - 1, epoch)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(text: &str) -> toml::Table {
        text.parse().unwrap()
    }

    #[test]
    fn the_step_schedule_falls_at_its_interval() {
        let schedule = read("step", table("every = 3\nfactor = 0.1")).unwrap().unwrap();
        let lr: Vec<f64> = (1..=7).map(|step| schedule.lr(2.0, step, 0)).collect();
        assert_eq!(lr, [2.0, 2.0, 2.0, 2.0 * 0.1, 2.0 * 0.1, 2.0 * 0.1, 2.0 * (0.1 * 0.1)]);
        let epochs = read("step", table("every = \"2 epochs\"\nfactor = 0.5")).unwrap().unwrap();
        let lr: Vec<f64> = [0, 1, 2, 3, 4].map(|epoch| epochs.lr(1.0, 9, epoch)).to_vec();
        assert_eq!(lr, [1.0, 1.0, 0.5, 0.5, 0.25]);
    }

    #[test]
    fn the_constant_schedule_is_the_base() {
        assert_eq!(Schedule::default().lr(0.3, 1_000_000, 7), 0.3);
        assert!(read("constant", table("factor = 1")).unwrap().is_err());
        assert!(read("cosine", table("")).is_none());
    }

    #[test]
    fn intervals_are_read_and_written() {
        let read = |text: &str| table(&format!("x = {text}"))["x"].clone().try_into::<Interval>();
        assert_eq!(read("500").unwrap(), Interval::Steps(500));
        assert_eq!(read("\"1 step\"").unwrap(), Interval::Steps(1));
        assert_eq!(read("\"1 epoch\"").unwrap().to_string(), "1 epoch");
        assert_eq!(read("\"20 epochs\"").unwrap().to_string(), "20 epochs");
        for wrong in ["0", "-1", "1.5", "\"0 epochs\"", "\"epoch\"", "\"2 weeks\"", "\"two epochs\""] {
            let error = read(wrong).unwrap_err().to_string();
            assert!(error.contains("expected a number of steps"), "{wrong}: {error}");
        }
    }

    #[test]
    fn a_factor_without_effect_is_refused() {
        for factor in [0.0, 1.0, -0.1, f64::NAN, f64::INFINITY] {
            let schedule = Schedule::StepDecay(StepDecay { every: Interval::Steps(1), factor });
            assert_eq!(schedule.check().unwrap_err().key, Some("factor"));
        }
    }
}
