//! Repeats of a measurement, and their spread.

use crate::error::Result;
use std::time::{Duration, Instant};

/// The duration of a benchmark.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Effort {
    /// Seconds of measured steps, for all repeats together.
    pub seconds: f64,
    /// Number of repeats, at least 1.
    pub repeats: usize,
}

impl Effort {
    /// Calls `run`, which returns its own time in seconds, in each repeat until the repeat's share of the time is over.
    /// Returns the spread of the repeats' medians, and the total number of calls.
    pub fn repeat(self, mut run: impl FnMut() -> Result<f64>) -> Result<(Spread, usize)> {
        let share = Duration::from_secs_f64(self.seconds / self.repeats as f64);
        let (mut medians, mut count) = (Vec::new(), 0);
        for _ in 0..self.repeats {
            let begin = Instant::now();
            let mut times = Vec::new();
            while times.len() < 2 || begin.elapsed() < share {
                times.push(run()?);
            }
            count += times.len();
            medians.push(Spread::of(times).median);
        }
        Ok((Spread::of(medians), count))
    }
}

/// The median of some numbers, with their minimum and maximum.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// The median.
    pub median: f64,
    /// The minimum.
    pub least: f64,
    /// The maximum.
    pub most: f64,
}

impl Spread {
    /// Returns the spread of one or more numbers.
    pub fn of(mut all: Vec<f64>) -> Spread {
        all.sort_by(f64::total_cmp);
        let n = all.len();
        let median = (all[(n - 1) / 2] + all[n / 2]) / 2.0;
        Spread { median, least: all[0], most: all[n - 1] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_or_between_two() {
        assert_eq!(Spread::of(vec![3.0, 1.0, 2.0]), Spread { median: 2.0, least: 1.0, most: 3.0 });
        assert_eq!(Spread::of(vec![4.0, 1.0, 2.0, 3.0]).median, 2.5);
    }
}
