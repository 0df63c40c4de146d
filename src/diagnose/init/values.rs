//! What is reported of the values of a tensor: mean, standard deviation, extremes and distribution.

use serde::Serialize;

/// The number of bins of a histogram.
const BINS: usize = 30;

/// The distribution of some values.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Histogram {
    /// The edges of the bins, from the smallest value to the largest; one more than there are bins.
    pub edges: Vec<f64>,
    /// The number of values in each bin. A value on an edge belongs to the bin above it, the largest one to the last bin.
    pub counts: Vec<u64>,
}

/// A summary of some values.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ValueSummary {
    /// The mean.
    pub mean: f64,
    /// The standard deviation: the root of the mean square of the deviations from the mean.
    pub std: f64,
    /// The smallest value.
    pub min: f64,
    /// The largest value.
    pub max: f64,
    /// Their distribution.
    pub histogram: Histogram,
}

impl ValueSummary {
    /// Summarises at least one value; all must be finite.
    pub(super) fn of(values: &[f64]) -> Self {
        let (mean, std) = mean_and_std(values);
        let min = values.iter().copied().fold(f64::INFINITY, f64::min);
        let max = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        ValueSummary { mean, std, min, max, histogram: Histogram::of(values, min, max) }
    }
}

impl Histogram {
    /// Counts values between `min` and `max`, in one bin if these are the same.
    fn of(values: &[f64], min: f64, max: f64) -> Self {
        let width = max / BINS as f64 - min / BINS as f64;
        if width <= f64::MIN_POSITIVE {
            return Histogram { edges: vec![min, max], counts: vec![values.len() as u64] };
        }
        let edge = |i: usize| if i == BINS { max } else { min + i as f64 * width };
        let edges: Vec<f64> = (0..=BINS).map(edge).collect();
        let mut counts = vec![0; BINS];
        for &value in values {
            let mut bin = (((value - min) / width) as usize).min(BINS - 1);
            // The quotient may round across an edge.
            while bin > 0 && value < edges[bin] {
                bin -= 1;
            }
            while bin + 1 < BINS && value >= edges[bin + 1] {
                bin += 1;
            }
            counts[bin] += 1;
        }
        Histogram { edges, counts }
    }

    /// Returns the heights of the bins, relative to the highest.
    pub fn heights(&self) -> Vec<f64> {
        let most = self.counts.iter().copied().max().unwrap_or(0).max(1);
        self.counts.iter().map(|&count| count as f64 / most as f64).collect()
    }
}

/// Returns the mean and the standard deviation of at least one value.
pub(super) fn mean_and_std(values: &[f64]) -> (f64, f64) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count;
    (mean, variance.sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_in_the_bin_of_its_edges() {
        // Thirds are on edges, and their quotients are rounded.
        let values: Vec<f64> = (0..=90).map(|i| f64::from(i) / 3.0 - 10.0).collect();
        let Histogram { edges, counts } = ValueSummary::of(&values).histogram;
        assert_eq!((edges.len(), edges[0], edges[BINS]), (BINS + 1, -10.0, 20.0));
        for (bin, &count) in counts.iter().enumerate() {
            let inside = |&&value: &&f64| {
                value >= edges[bin] && (value < edges[bin + 1] || bin == BINS - 1 && value == edges[BINS])
            };
            assert_eq!(count, values.iter().filter(inside).count() as u64, "bin {bin}");
        }
    }

    #[test]
    fn values_that_are_all_the_same_are_in_one_bin() {
        let summary = ValueSummary::of(&[1e300; 3]);
        assert_eq!(summary.histogram, Histogram { edges: vec![1e300, 1e300], counts: vec![3] });
        assert_eq!((summary.min, summary.max), (1e300, 1e300));
    }
}
