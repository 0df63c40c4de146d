//! Line searches: how far to go along a direction.

use super::method::{Objective, StartPoint};
use crate::cpu::vectors::{dot, largest, sum};
use crate::error::Result;

/// The share of the decrease that the slope at the start promises which is sufficient (Armijo's condition).
const SUFFICIENT: f64 = 1e-4;
/// The share of the slope at the start below which a slope is flat enough (the strong condition on the curvature).
const FLAT: f64 = 0.9;
/// The change of a weight that is too small to search further.
const SMALLEST_CHANGE: f64 = 1e-9;

/// A point on a line.
#[derive(Debug, Clone)]
pub(super) struct Trial {
    /// The step length.
    pub t: f64,
    pub value: f64,
    /// The derivative along the line.
    pub slope: f64,
    pub gradient: Vec<f64>,
}

/// The function along a direction from a point.
pub(super) struct Line<'a> {
    pub function: &'a mut dyn Objective,
    pub start: StartPoint<'a>,
    pub direction: &'a [f64],
    /// The number of points that were evaluated.
    pub evaluations: usize,
}

impl<'a> Line<'a> {
    pub fn new(function: &'a mut dyn Objective, start: StartPoint<'a>, direction: &'a [f64]) -> Self {
        Line { function, start, direction, evaluations: 0 }
    }

    /// Returns the weights after a step of length `t`.
    pub fn weights(&self, t: f64) -> Vec<f64> {
        sum(self.start.w, t, self.direction)
    }

    fn origin(&self) -> Trial {
        let StartPoint { value, gradient, .. } = self.start;
        Trial { t: 0.0, value, slope: dot(gradient, self.direction), gradient: gradient.to_vec() }
    }

    /// Evaluates a step; a value that is not finite counts as infinite.
    fn at(&mut self, t: f64) -> Result<Trial> {
        self.evaluations += 1;
        let (value, gradient) = self.function.evaluate(&self.weights(t))?;
        let slope = dot(&gradient, self.direction);
        let value = if value.is_finite() && slope.is_finite() { value } else { f64::INFINITY };
        Ok(Trial { t, value, slope, gradient })
    }
}

/// Halves a step length until the value has decreased sufficiently. Returns the length, 0 if `most` lengths do not decrease
/// it, and the value at the first length.
pub(super) fn backtracking(line: &mut Line, first: f64, most: usize) -> Result<(f64, f64)> {
    let Trial { value, slope, .. } = line.origin();
    let (mut t, mut at_first) = (first, None);
    for _ in 0..most {
        let trial = line.at(t)?;
        let at_first = *at_first.get_or_insert(trial.value);
        if trial.value <= value + SUFFICIENT * t * slope {
            return Ok((t, at_first));
        }
        t /= 2.0;
    }
    Ok((0.0, at_first.unwrap_or(value)))
}

/// Searches a step length that meets the strong Wolfe conditions: the value has decreased sufficiently, and the slope is
/// flat enough (Nocedal and Wright 2006, algorithms 3.5 and 3.6). New lengths are minima of the cubic through the last two.
/// After `most` evaluations, the best length so far is taken. Returns `None` if no length decreases the value.
pub(super) fn strong_wolfe(line: &mut Line, first: f64, most: usize) -> Result<Option<Trial>> {
    let origin = line.origin();
    let decreases =
        |trial: &Trial| trial.value <= origin.value + SUFFICIENT * trial.t * origin.slope && trial.value.is_finite();
    let is_flat = |trial: &Trial| trial.slope.abs() <= -FLAT * origin.slope;
    let (mut low, mut here) = (origin.clone(), line.at(first)?);
    let mut high = loop {
        if decreases(&here) && is_flat(&here) {
            return Ok(Some(here));
        }
        if !decreases(&here) || (low.t > 0.0 && here.value >= low.value) {
            break here;
        }
        if here.slope >= 0.0 {
            break std::mem::replace(&mut low, here);
        }
        if line.evaluations >= most {
            return Ok(Some(here));
        }
        let range = [here.t + 0.01 * (here.t - low.t), 10.0 * here.t];
        let t = cubic_minimum(&low, &here, range);
        low = std::mem::replace(&mut here, line.at(t)?);
    };
    let longest = largest(line.direction);
    // Whether the last length was near an end of the interval.
    let mut near_end = false;
    while line.evaluations < most && (high.t - low.t).abs() * longest >= SMALLEST_CHANGE {
        let (left, right) = (low.t.min(high.t), low.t.max(high.t));
        let mut t = cubic_minimum(&low, &high, [left, right]);
        let margin = 0.1 * (right - left);
        let is_near = (right - t).min(t - left) < margin;
        if is_near && (near_end || t >= right || t <= left) {
            t = if (t - right).abs() < (t - left).abs() { right - margin } else { left + margin };
            near_end = false;
        } else {
            near_end = is_near;
        }
        let trial = line.at(t)?;
        if !decreases(&trial) || trial.value >= low.value {
            high = trial;
            continue;
        }
        if is_flat(&trial) {
            return Ok(Some(trial));
        }
        if trial.slope * (high.t - low.t) >= 0.0 {
            high = low;
        }
        low = trial;
    }
    Ok((low.t > 0.0).then_some(low))
}

/// Returns the minimum within a range of the cubic that has the values and slopes of two points; its middle, if there is none.
fn cubic_minimum(a: &Trial, b: &Trial, [from, to]: [f64; 2]) -> f64 {
    let (a, b) = if a.t <= b.t { (a, b) } else { (b, a) };
    let d1 = a.slope + b.slope - 3.0 * (a.value - b.value) / (a.t - b.t);
    let square = d1 * d1 - a.slope * b.slope;
    let root = square.sqrt();
    let minimum = b.t - (b.t - a.t) * ((b.slope + root - d1) / (b.slope - a.slope + 2.0 * root));
    if square >= 0.0 && minimum.is_finite() { minimum.clamp(from, to) } else { 0.5 * (from + to) }
}
