//! Whether an expectation holds, with the values that show it.

use super::course::Curve;
use super::experiment::{Condition, Expectation, Experiment};
use super::quantity::{Moment, shown};
use super::run::Comparison;
use crate::error::number;

/// The outcome of an expectation.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// Whether it holds.
    pub holds: bool,
    /// What was expected, and the values.
    pub text: String,
}

impl Comparison {
    /// Compares the values with what was expected.
    pub fn findings(&self, experiment: &Experiment) -> Vec<Finding> {
        experiment.expectations.iter().map(|expectation| self.finding(experiment, expectation)).collect()
    }

    fn finding(&self, experiment: &Experiment, expectation: &Expectation) -> Finding {
        let Expectation { of, at, holds } = expectation;
        let name = |variant: usize| experiment.variants[variant].name.as_str();
        let when = if of.has_curve() { format!(" {at}") } else { String::new() };
        match holds {
            Condition::Ascending { variants, factor, margin } => {
                let values: Vec<f64> = variants.iter().map(|&variant| self.median(variant, of, *at)).collect();
                let rises = |pair: &[f64]| {
                    let times = *factor == 1.0 || (pair[0] >= 0.0 && pair[1] >= factor * pair[0]);
                    pair[1] > pair[0] && times && pair[1] >= pair[0] + margin
                };
                let list = variants.iter().zip(&values).map(|(&v, value)| format!("{} {}", name(v), shown(*value)));
                let mut text = format!("{of}{when}: {}", list.collect::<Vec<_>>().join(" < "));
                match (*factor > 1.0, *margin > 0.0) {
                    (true, _) => text += &format!(", each at least {} times the one before", number(*factor)),
                    (_, true) => text += &format!(", each at least {} more than the one before", number(*margin)),
                    _ => {}
                }
                Finding { holds: values.windows(2).all(rises), text }
            }
            Condition::Bounds { variant, above, below } => {
                let value = self.median(*variant, of, *at);
                let holds = above.is_none_or(|low| value > low) && below.is_none_or(|high| value < high);
                let [low, high] = [("above", above), ("below", below)]
                    .map(|(word, bound)| bound.map(|bound| format!("{word} {}", number(bound))));
                let bounds: Vec<String> = low.into_iter().chain(high).collect();
                let text =
                    format!("{of}{when} of {}: {}, expected {}", name(*variant), shown(value), bounds.join(" and "));
                Finding { holds, text }
            }
            Condition::Same { variants, within } => {
                let names: Vec<&str> = variants.iter().map(|&variant| name(variant)).collect();
                let (apart, place) = self.apart(experiment, expectation, variants);
                let mut text = format!("{of}{when}: {} differ by {}", names.join(", "), shown(apart));
                if let Some(place) = place.filter(|_| apart > 0.0) {
                    text += &format!(" ({place})");
                }
                text += &format!(", expected at most {}", number(*within));
                Finding { holds: apart <= *within, text }
            }
        }
    }

    /// Returns the largest relative difference of variants from the first one, over all seeds, and where it is.
    fn apart(&self, experiment: &Experiment, expectation: &Expectation, variants: &[usize]) -> (f64, Option<String>) {
        let Expectation { of, at, .. } = expectation;
        let (mut most, mut place) = (0.0, None);
        for (s, &seed) in experiment.seeds.iter().enumerate() {
            let values = |variant: usize| -> Vec<(u64, f64)> {
                let course = &self.courses[variant][s];
                match at {
                    Moment::Every => course.curve(of).points,
                    _ => vec![(0, course.value(of, *at))],
                }
            };
            let first = values(variants[0]);
            for &variant in &variants[1..] {
                let others = values(variant);
                let name = &experiment.variants[variant].name;
                if others.len() != first.len() || others.is_empty() {
                    let counts =
                        format!("{name} with seed {seed} has {} values, {} expected", others.len(), first.len());
                    return (f64::INFINITY, Some(counts));
                }
                for (&(step, a), &(other, b)) in first.iter().zip(&others) {
                    let apart = if step == other { difference(a, b) } else { f64::INFINITY };
                    if apart > most {
                        let when = if *at == Moment::Every { format!(" at update {step}") } else { String::new() };
                        (most, place) = (apart, Some(format!("{name} with seed {seed}{when}")));
                    }
                }
            }
        }
        (most, place)
    }
}

/// Returns the difference of two values relative to the larger one. Two that are infinite are the same; what is not a number is not.
fn difference(a: f64, b: f64) -> f64 {
    match (a - b).abs() / a.abs().max(b.abs()) {
        _ if a == b => 0.0,
        apart if apart.is_nan() => f64::INFINITY,
        apart => apart,
    }
}

/// The median of curves over the seeds, with the lowest and the highest value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Band {
    /// The updates done.
    pub step: f64,
    /// The lowest value.
    pub low: f64,
    /// The median.
    pub median: f64,
    /// The highest value.
    pub high: f64,
}

/// Returns the band of curves of one variant; each point is the mean of `smooth` values.
pub fn band(curves: &[Curve], smooth: usize) -> Vec<Band> {
    let Some(longest) = curves.iter().max_by_key(|curve| curve.points.len()) else { return Vec::new() };
    let blocks = longest.points.chunks(smooth.max(1));
    blocks
        .map(|block| {
            let mean = |curve: &Curve| {
                let values = block.iter().map(|(step, _)| curve.until(*step).unwrap_or(curve.worst));
                values.sum::<f64>() / block.len() as f64
            };
            let values: Vec<f64> = curves.iter().map(mean).collect();
            let step = block.iter().map(|(step, _)| *step as f64).sum::<f64>() / block.len() as f64;
            let (low, high) = values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), &v| (a.min(v), b.max(v)));
            Band { step, low, median: super::course::median(&values), high }
        })
        .collect()
}
