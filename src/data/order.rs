//! The order in which an epoch takes the samples: a pure function of the seed and the epoch, and for hard examples of losses.

use super::{Labels, SampleOrder};
use crate::device::{Random, RandomStream};
use std::collections::BinaryHeap;

/// Returns the order of an epoch, as positions in `samples`; none is the order of the data set. Which examples are hard, their losses show;
/// before there are any, samples are shuffled.
///
/// # Panics
/// If the number of losses is not that of the samples.
pub(super) fn order_of(
    how: SampleOrder,
    (samples, labels): (&[u32], &Labels),
    losses: Option<&[f32]>,
    seed: u64,
    epoch: u64,
) -> Option<Vec<u32>> {
    let random = Random::new(seed, RandomStream::Order, epoch, 0);
    match (how, labels) {
        (SampleOrder::Sequential, _) => None,
        (SampleOrder::ClassAlternating, Labels::Index(labels)) => {
            let classes = samples.iter().map(|&sample| labels[sample as usize]).collect::<Vec<_>>();
            Some(alternating(&classes, &random))
        }
        (SampleOrder::HardExamples(hard), _) if let Some(losses) = losses => {
            assert_eq!(losses.len(), samples.len(), "every sample has a loss");
            Some(hard.order(losses, seed, epoch))
        }
        _ => Some(random.permutation(samples.len())),
    }
}

/// How many samples of each class are left, with their sums (Fenwick 1994).
struct Left {
    counts: Vec<u64>,
    sums: Vec<u64>,
}

impl Left {
    fn new(counts: Vec<u64>) -> Self {
        let mut left = Left { sums: vec![0; counts.len() + 1], counts: vec![0; counts.len()] };
        for (class, &count) in counts.iter().enumerate() {
            left.set(class, count);
        }
        left
    }

    fn set(&mut self, class: usize, count: u64) {
        let change = count.wrapping_sub(self.counts[class]);
        self.counts[class] = count;
        let mut at = class + 1;
        while at < self.sums.len() {
            self.sums[at] = self.sums[at].wrapping_add(change);
            at += at & at.wrapping_neg();
        }
    }

    /// Returns the class of sample `index` of all that are left, class by class.
    fn class_of(&self, mut index: u64) -> usize {
        let mut class = 0;
        let mut step = self.sums.len().next_power_of_two() / 2;
        while step > 0 {
            if class + step < self.sums.len() && self.sums[class + step] <= index {
                class += step;
                index -= self.sums[class];
            }
            step /= 2;
        }
        class
    }
}

/// Returns a random order in which no two successive samples share a class, unless one class has more samples than all others: then they are
/// as few as possible. A class is drawn from those of the samples that are left, other than that of the one before; one that has more than half
/// of what is left is taken.
fn alternating(classes: &[u32], random: &Random) -> Vec<u32> {
    let num_classes = classes.iter().max().map_or(0, |&most| most as usize + 1);
    let mut of_class = vec![Vec::new(); num_classes];
    for position in random.permutation(classes.len()) {
        of_class[classes[position as usize] as usize].push(position);
    }
    let mut left = Left::new(of_class.iter().map(|all| all.len() as u64).collect());
    // The class with the most, among entries that may be out of date.
    let mut largest: BinaryHeap<(u64, usize)> = left.counts.iter().copied().zip(0..).collect();
    let mut order = Vec::with_capacity(classes.len());
    // The class of the sample before, and how many of it are left: they are not in `left`.
    let mut before: Option<(usize, u64)> = None;
    for (drawn, total) in (0..classes.len()).map(|taken| (classes.len() + taken, (classes.len() - taken) as u64)) {
        let apart = before.map_or(0, |(_, count)| count);
        while largest.peek().is_some_and(|&(count, class)| left.counts[class] != count) {
            largest.pop();
        }
        let most = largest.peek().copied().filter(|&(count, _)| count > 0);
        let class = match (most, before) {
            (Some((count, class)), _) if 2 * count > total => class,
            (Some(_), _) => left.class_of(random.below(drawn as u64, total - apart)),
            (None, Some((class, _))) => class,
            (None, None) => unreachable!("there are samples left"),
        };
        if let Some((last, count)) = before.take() {
            left.set(last, count);
            largest.push((count, last));
        }
        order.push(of_class[class].pop().expect("the class has samples left"));
        before = Some((class, left.counts[class] - 1));
        left.set(class, 0);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(classes: &[u32], epoch: u64) -> Vec<u32> {
        let labels = Labels::Index(classes.to_vec());
        let samples: Vec<u32> = (0..classes.len() as u32).collect();
        order_of(SampleOrder::ClassAlternating, (&samples, &labels), None, 7, epoch).unwrap()
    }

    fn repeats(classes: &[u32], order: &[u32]) -> usize {
        order.windows(2).filter(|pair| classes[pair[0] as usize] == classes[pair[1] as usize]).count()
    }

    #[test]
    fn successive_samples_share_no_class_where_that_is_possible() {
        for (counts, expected) in [
            (vec![30, 30, 30], 0),
            (vec![50, 7, 43], 0),
            (vec![1, 51, 50], 0),
            (vec![70, 10, 5], 54),
            (vec![4], 3),
            (vec![0, 2, 0, 1], 0),
        ] {
            let classes: Vec<u32> = counts.iter().zip(0..).flat_map(|(&n, class)| vec![class; n]).collect();
            for epoch in 0..20 {
                let order = order(&classes, epoch);
                let mut sorted = order.clone();
                sorted.sort_unstable();
                assert_eq!(sorted, (0..classes.len() as u32).collect::<Vec<_>>(), "every sample once");
                assert_eq!(repeats(&classes, &order), expected, "{counts:?} in epoch {epoch}");
            }
        }
    }

    #[test]
    fn orders_are_random_and_classes_are_mixed_throughout() {
        let classes: Vec<u32> = (0..10_000).map(|i| i % 10).collect();
        let (first, second) = (order(&classes, 0), order(&classes, 1));
        assert!(first != second && first == order(&classes, 0));
        // Neither which class follows which, nor where samples of a class are, has a pattern.
        let mut pairs = [[0; 10]; 10];
        for pair in first.windows(2) {
            pairs[classes[pair[0] as usize] as usize][classes[pair[1] as usize] as usize] += 1;
        }
        for (a, row) in pairs.iter().enumerate() {
            assert!(row.iter().enumerate().all(|(b, count)| (a == b) == (*count == 0) && *count < 170), "{pairs:?}");
        }
        let early = first[..5000].iter().filter(|&&at| classes[at as usize] == 3).count();
        assert!((440..560).contains(&early), "{early}");
    }
}
