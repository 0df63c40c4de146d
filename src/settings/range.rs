//! Ranges of values.

use super::value::Value;
use crate::error::Fault;
use std::fmt::Debug;

/// A range of values: how messages and the reference name it, and a test.
#[derive(Clone, Copy)]
pub struct Range<T> {
    /// Follows "expected" in messages.
    pub text: &'static str,
    /// Returns whether a value is inside.
    pub contains: fn(&T) -> bool,
}

impl<T> Range<T> {
    /// Returns how the reference names the range.
    pub fn text(&self) -> &'static str {
        self.text
    }

    /// Checks the value of a setting, if it is set.
    ///
    /// # Errors
    /// A fault of the setting if it is out of range.
    pub fn check(&self, key: &'static str, value: &impl Value<Inner = T>) -> Result<(), Fault> {
        match value.inner() {
            Some(inner) if !(self.contains)(inner) => {
                let shown = value.toml().unwrap_or_default();
                Err(Fault::at(key, format!("{key} = {shown}, expected {}", self.text)))
            }
            _ => Ok(()),
        }
    }
}

impl<T> Debug for Range<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Range({})", self.text)
    }
}

/// A share of something that does not vanish: [0, 1).
pub const FRACTION: Range<f64> =
    Range { text: "a number of at least 0 and below 1", contains: |x| (0.0..1.0).contains(x) };

/// A share that is neither nothing nor all: (0, 1).
pub const INSIDE: Range<f64> = Range { text: "a number above 0 and below 1", contains: |&x| x > 0.0 && x < 1.0 };

/// The share of what is chosen at random, at least something: (0, 1].
pub const PROBABILITY: Range<f64> = Range { text: "a number above 0, at most 1", contains: |&p| p > 0.0 && p <= 1.0 };

/// Any number.
pub const FINITE: Range<f64> = Range { text: "a finite number", contains: |x| x.is_finite() };

/// A positive number.
pub const POSITIVE: Range<f64> = Range { text: "a finite number above 0", contains: |&x| x > 0.0 && x.is_finite() };

/// A number that is not negative.
pub const NOT_NEGATIVE: Range<f64> = Range { text: "at least 0", contains: |&x| x >= 0.0 && x.is_finite() };

/// A positive number that is neither 0 nor infinite in single precision.
pub const SINGLE: Range<f64> =
    Range { text: "a number above 0 within single precision", contains: |&x| x as f32 > 0.0 && (x as f32).is_finite() };

/// As [`SINGLE`], or 0.
pub const SINGLE_OR_ZERO: Range<f64> =
    Range { text: "0 or a number above it within single precision", contains: |x| *x == 0.0 || (SINGLE.contains)(x) };

/// A count of something that must exist.
pub const AT_LEAST_ONE: Range<usize> = Range { text: "at least 1", contains: |&n| n >= 1 };
