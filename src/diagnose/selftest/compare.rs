//! Compares computed with expected values: the worst element of a tensor, and the tally of a check over its cases.

use crate::error::{Error, Result};
use crate::gpu::Driver;
use crate::tensor::Real;
use serde::Serialize;

/// The element with the largest error.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Difference {
    /// Its index.
    pub index: usize,
    /// The computed value.
    pub got: f64,
    /// The expected value.
    pub expected: f64,
    /// The error; infinite if one of the values is NaN.
    pub error: f64,
}

/// Returns the worst element. Its error is relative to the largest expected magnitude, or to 1 if that is smaller.
///
/// # Panics
/// If the numbers of values differ.
pub fn worst<A: Real, B: Real>(got: &[A], expected: &[B]) -> Difference {
    let scale = largest(expected).max(1.0);
    furthest(got, expected, |got, expected| (got - expected).abs() / scale)
}

/// Returns the worst element. Its error is relative to the largest expected magnitude, however small, as those of second
/// moments are.
///
/// # Panics
/// If the numbers of values differ.
pub fn worst_relative<A: Real, B: Real>(got: &[A], expected: &[B]) -> Difference {
    let scale = largest(expected).max(f64::MIN_POSITIVE);
    furthest(got, expected, |got, expected| (got - expected).abs() / scale)
}

fn largest<T: Real>(values: &[T]) -> f64 {
    values.iter().fold(0.0, |m: f64, v| m.max(v.to_f64().abs()))
}

/// Returns the worst element of values that must be bit-identical. Zeros of different signs differ by the smallest
/// normal number.
///
/// # Panics
/// If the numbers of values differ.
pub fn worst_bits(got: &[f32], expected: &[f32]) -> Difference {
    furthest(got, expected, |got, expected| match (got - expected).abs() {
        _ if got.to_bits() == expected.to_bits() => 0.0,
        0.0 => f64::MIN_POSITIVE,
        apart => apart,
    })
}

fn furthest<A: Real, B: Real>(got: &[A], expected: &[B], apart: impl Fn(f64, f64) -> f64) -> Difference {
    assert_eq!(got.len(), expected.len(), "the numbers of computed and expected values must agree");
    let mut worst = Difference { index: 0, got: 0.0, expected: 0.0, error: -1.0 };
    for (index, (got, expected)) in got.iter().zip(expected).enumerate() {
        let (got, expected) = (got.to_f64(), expected.to_f64());
        let error = apart(got, expected);
        let error = if error.is_nan() { f64::INFINITY } else { error };
        if error > worst.error {
            worst = Difference { index, got, expected, error };
        }
    }
    Difference { error: worst.error.max(0.0), ..worst }
}

/// The comparison of a tensor of a case.
#[derive(Debug, Clone, PartialEq)]
pub struct Compared {
    /// The tensor: a layer's role, a region of the optimiser, a loss.
    pub role: String,
    /// Its worst element.
    pub difference: Difference,
    /// The largest error that passes.
    pub bound: f64,
}

/// The reason why a case failed.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Wrong {
    /// The error of a value exceeds the bound.
    Value {
        /// The tensor.
        role: String,
        /// The index of its worst element.
        index: usize,
        /// The computed value; null in JSON if it is not finite.
        got: f64,
        /// The expected value.
        expected: f64,
    },
    /// The device reported an error.
    Device {
        /// The error message.
        message: String,
    },
}

/// A case that failed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Failure {
    /// The case: the computation, its mesh and its split.
    pub case: String,
    /// The reason.
    #[serde(flatten)]
    pub wrong: Wrong,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.wrong {
            Wrong::Value { role, index, got, expected } => {
                write!(f, "{}: {role}[{index}] is {got:e}, expected {expected:e}", self.case)
            }
            Wrong::Device { message } => write!(f, "{}: {message}", self.case),
        }
    }
}

/// One check: a row of the table.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// The subject: a kind of layer, or another part of the program.
    pub check: String,
    /// The precision of activations and products.
    pub precision: &'static str,
    /// Number of cases that were run.
    pub cases: usize,
    /// The error that is largest relative to its bound; null in JSON if it is not finite.
    pub error: f64,
    /// The bound of that error.
    pub bound: f64,
    /// Seconds that all cases took.
    pub seconds: f64,
    /// Number of cases that failed.
    pub failed: usize,
    /// The first failure, with its worst value.
    pub failure: Option<Failure>,
}

impl Row {
    /// Returns true if there was at least one case and none failed.
    pub fn passed(&self) -> bool {
        self.failed == 0 && self.cases > 0
    }
}

/// The results of a check so far, while its cases run.
#[derive(Debug)]
pub(super) struct Tally<'a> {
    row: Row,
    driver: Option<&'a Driver>,
    /// Whether the device was lost in a case.
    pub lost: bool,
}

/// Returns an error relative to its bound; with a bound of 0, any error fails.
fn share(error: f64, bound: f64) -> f64 {
    if error <= bound { error / bound.max(f64::MIN_POSITIVE) } else { (error / bound).max(1.0).max(error) }
}

impl<'a> Tally<'a> {
    /// Creates the tally of a check without cases; `bound` is printed if there are none.
    pub fn new(check: &str, precision: &'static str, bound: f64, driver: Option<&'a Driver>) -> Self {
        let (check, failure) = (check.to_string(), None);
        let row = Row { check, precision, cases: 0, error: 0.0, bound, seconds: 0.0, failed: 0, failure };
        Tally { row, driver, lost: false }
    }

    /// Runs a case and adds its outcome, unless the device was lost before.
    pub fn run(&mut self, case: &str, outcome: impl FnOnce() -> Result<Vec<Compared>>) {
        if !self.lost {
            self.add(case, outcome());
        }
    }

    /// Adds a case: the comparisons of its tensors, or the device's error.
    pub fn add(&mut self, case: &str, outcome: Result<Vec<Compared>>) {
        let row = &mut self.row;
        row.cases += 1;
        let wrong = match outcome {
            Err(error) => {
                self.lost = self.driver.is_some_and(Driver::is_lost);
                row.error = f64::INFINITY;
                Wrong::Device { message: error.with_causes() }
            }
            Ok(compared) => {
                let of = |c: &Compared| share(c.difference.error, c.bound);
                let Some(furthest) = compared.into_iter().max_by(|a, b| of(a).total_cmp(&of(b))) else { return };
                let Compared { role, difference, bound } = furthest;
                let Difference { index, got, expected, error } = difference;
                if share(error, bound) >= share(row.error, row.bound) {
                    (row.error, row.bound) = (error, bound);
                }
                if error <= bound {
                    return;
                }
                Wrong::Value { role, index, got, expected }
            }
        };
        row.failed += 1;
        row.failure.get_or_insert(Failure { case: case.to_string(), wrong });
    }

    /// Returns the row of the check, which took `seconds`.
    pub fn row(self, seconds: f64) -> Row {
        Row { seconds, ..self.row }
    }
}

/// Returns the error of a case that cannot be set up.
pub(super) fn unfit(fault: &crate::error::Fault) -> Error {
    Error::Run(format!("the layer does not fit the setup: {}", fault.message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compared(got: &[f32], bound: f64) -> Result<Vec<Compared>> {
        Ok(vec![Compared { role: "y".into(), difference: worst(got, &[1.0f64, -4.0]), bound }])
    }

    #[test]
    fn the_worst_element_is_named_in_shares_of_the_largest() {
        let near = worst(&[1.0f32, -4.0], &[1.0f64, -4.0]);
        assert_eq!((near.index, near.error), (0, 0.0));
        let off = worst(&[1.5f32, -5.0], &[1.0f64, -4.0]);
        assert_eq!(off, Difference { index: 1, got: -5.0, expected: -4.0, error: 0.25 });
        assert_eq!(worst(&[0.0f32, f32::NAN], &[1.0f64, -4.0]).index, 1);
        assert_eq!(worst::<f32, f64>(&[], &[]).error, 0.0);
        // The error of small values is relative to 1.
        assert!((worst(&[1e-3f32], &[0.0f64]).error - 1e-3).abs() < 1e-9);
    }

    #[test]
    fn small_numbers_are_judged_by_their_own_size() {
        let expected = [1e-3f64 * 4e-6];
        let got = [((1.0 - 0.999f32) * 4e-6)];
        assert!(worst(&got, &expected).error < 1e-12, "relative to 1");
        let error = worst_relative(&got, &expected).error;
        assert!((1.2e-5..1.4e-5).contains(&error), "1 - 0.999f is off by 1.3e-5: {error}");
        assert_eq!(worst_relative(&[0.0f32], &[0.0f64]).error, 0.0);
    }

    #[test]
    fn every_bit_counts_where_it_must() {
        assert_eq!(worst_bits(&[1.0, f32::NAN, -0.0], &[1.0, f32::NAN, -0.0]).error, 0.0);
        let signs = worst_bits(&[1.0, 0.0], &[1.0, -0.0]);
        assert!(signs.index == 1 && signs.error > 0.0);
        assert!(worst_bits(&[1.0 + f32::EPSILON], &[1.0]).error > 0.0);
        assert_eq!(worst_bits(&[f32::NAN], &[1.0]).error, f64::INFINITY);
    }

    #[test]
    fn a_row_holds_the_largest_error_and_the_first_failure() {
        let mut tally = Tally::new("conv", "f32", 1e-3, None);
        tally.add("first", compared(&[1.0001, -4.0], 1e-3));
        assert!(tally.row.passed() && tally.row.error > 1e-5 && tally.row.failure.is_none());
        tally.add("second", compared(&[1.5, -4.0], 1e-3));
        tally.add("third", compared(&[1.0, -6.0], 1e-3));
        tally.add("fourth", compared(&[1.1, -4.0], 1e-3));
        let row = tally.row(2.0);
        assert_eq!((row.cases, row.failed, row.error, row.seconds), (4, 3, 0.5, 2.0));
        let text = row.failure.map(|failure| failure.to_string());
        assert_eq!(text.as_deref(), Some("second: y[0] is 1.5e0, expected 1e0"));
    }

    #[test]
    fn nothing_passes_a_bound_of_zero_and_no_number_passes_any() {
        let mut tally = Tally::new("casts", "f32", 0.0, None);
        tally.add("equal", compared(&[1.0, -4.0], 0.0));
        assert!(tally.row.passed());
        tally.add("near", compared(&[1.0 + f32::EPSILON, -4.0], 0.0));
        assert_eq!(tally.row.failed, 1);
        tally.add("no number", compared(&[f32::NAN, -4.0], 1e30));
        assert_eq!((tally.row.failed, tally.row.error), (2, f64::INFINITY));
    }

    #[test]
    fn a_device_error_is_a_failure_with_its_sentence_and_so_is_a_check_without_cases() {
        let mut tally = Tally::new("relu", "f32", 1.0, None);
        assert!(!tally.row.passed());
        tally.add("a", Err(Error::Run("cuda:0 cannot finish its work".into())));
        tally.add("b", compared(&[9.0, -4.0], 1e-3));
        let row = tally.row(0.0);
        assert_eq!(
            (row.failed, row.failure.map(|f| f.to_string())),
            (2, Some("a: cuda:0 cannot finish its work".into()))
        );
    }
}
