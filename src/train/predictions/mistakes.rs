//! The surest wrong predictions.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

/// A wrong prediction.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mistake {
    /// The index of the sample in its data set.
    pub sample: u32,
    /// The true class.
    pub label: usize,
    /// The predicted class.
    pub predicted: usize,
    /// The probability of that class.
    pub probability: f32,
}

impl Eq for Mistake {}

impl Ord for Mistake {
    /// Compares how sure they are; of equally sure ones, the sample that comes first is ahead.
    fn cmp(&self, other: &Self) -> Ordering {
        let by_probability = self.probability.total_cmp(&other.probability);
        by_probability.then(other.sample.cmp(&self.sample))
    }
}

impl PartialOrd for Mistake {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The surest wrong predictions, at most a number of them.
#[derive(Debug, Clone)]
pub(super) struct Mistakes {
    most: usize,
    /// The least sure is on top.
    heap: BinaryHeap<Reverse<Mistake>>,
}

impl Mistakes {
    /// Creates an empty list for at most so many.
    pub fn new(most: usize) -> Self {
        Mistakes { most, heap: BinaryHeap::new() }
    }

    /// Adds one, in the place of the least sure if there is no more room.
    pub fn add(&mut self, mistake: Mistake) {
        self.heap.push(Reverse(mistake));
        if self.heap.len() > self.most {
            self.heap.pop();
        }
    }

    /// Returns them, the surest first.
    pub fn sorted(&self) -> Vec<Mistake> {
        self.heap.clone().into_sorted_vec().into_iter().map(|Reverse(mistake)| mistake).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_surest_are_kept_in_order() {
        let of = |sample, probability| Mistake { sample, label: 0, predicted: 1, probability };
        let all = [of(0, 0.5), of(1, 0.9), of(2, 0.4), of(3, 0.9), of(4, 0.7)];
        for (most, expected) in [(0, &[][..]), (1, &[1]), (3, &[1, 3, 4]), (9, &[1, 3, 4, 0, 2])] {
            let mut mistakes = Mistakes::new(most);
            all.iter().rev().for_each(|&mistake| mistakes.add(mistake));
            let samples: Vec<u32> = mistakes.sorted().iter().map(|mistake| mistake.sample).collect();
            assert_eq!(samples, expected, "{most}");
        }
    }
}
