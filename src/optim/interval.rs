//! Lengths of training.

use crate::settings::values;
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

values! {
    Interval, "a number of steps, or text such as \"2 epochs\"", interval => format!("\"{interval}\"");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_read_and_written() {
        let read =
            |text: &str| format!("x = {text}").parse::<toml::Table>().unwrap()["x"].clone().try_into::<Interval>();
        assert_eq!(read("500").unwrap(), Interval::Steps(500));
        assert_eq!(read("\"1 step\"").unwrap(), Interval::Steps(1));
        assert_eq!(read("\"1 epoch\"").unwrap().to_string(), "1 epoch");
        assert_eq!(read("\"20 epochs\"").unwrap().to_string(), "20 epochs");
        for wrong in ["0", "-1", "1.5", "\"0 epochs\"", "\"epoch\"", "\"2 weeks\"", "\"two epochs\""] {
            let error = read(wrong).unwrap_err().to_string();
            assert!(error.contains("expected a number of steps"), "{wrong}: {error}");
        }
    }
}
