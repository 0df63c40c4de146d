//! Training samples with large losses come more often.
//!
//! With the loss l of each of N samples, a sample is expected n = 1 - share + share l / mean(l) times in an epoch, at most `cap` times; what
//! others lose to the cap is shared out in proportion, so that the sum of all n is N. The whole numbers next to n are drawn by systematic
//! resampling: with one offset u for the epoch, sample i comes as often as some integer plus u lies between the sums of n up to it, without
//! and with it. Losses below 0 count as 0.

use crate::device::{Random, RandomStream};
use crate::settings::{FRACTION, PROBABILITY, Range, settings};

/// A bound of how often a sample comes: below 1, not all places of an epoch could be filled.
const CAP: Range<f64> = Range { text: "a finite number of at least 1", contains: |&cap| cap >= 1.0 && cap.is_finite() };

settings! {
    /// Samples with large losses come more often.
    #[derive(Copy)]
    pub struct HardExamples {
        /// The share of an epoch that is given out in proportion to the losses.
        pub share: f64 = 0.5, in PROBABILITY;
        /// How often a sample is expected in an epoch at most.
        pub cap: f64 = 4.0, in CAP;
        /// The share of the samples, those with the largest losses, whose losses count as the median.
        pub outliers: f64 = 0.02, in FRACTION;
    }
}

impl HardExamples {
    /// Returns how often each sample is expected in an epoch, given the losses of all samples; the sum is their number.
    pub fn expected(&self, losses: &[f32]) -> Vec<f64> {
        let mut losses: Vec<f64> = losses.iter().map(|&loss| f64::from(loss).max(0.0)).collect();
        self.guard(&mut losses);
        let (count, sum) = (losses.len() as f64, losses.iter().sum::<f64>());
        if sum == 0.0 {
            return vec![1.0; losses.len()];
        }
        let mut expected: Vec<f64> =
            losses.iter().map(|loss| 1.0 - self.share + self.share * loss * count / sum).collect();
        let mut is_capped = vec![false; expected.len()];
        // Each pass caps at least one more, and together the others have room for what is left.
        while expected.iter().any(|&n| n > self.cap) {
            for (n, is_capped) in expected.iter_mut().zip(&mut is_capped).filter(|(n, _)| **n > self.cap) {
                (*n, *is_capped) = (self.cap, true);
            }
            let others = || expected.iter().zip(&is_capped).filter(|(_, is_capped)| !**is_capped);
            let (free, present) = (others().count() as f64, others().map(|(n, _)| n).sum::<f64>());
            let left = count - self.cap * (count - free);
            for (n, _) in expected.iter_mut().zip(&is_capped).filter(|(_, is_capped)| !**is_capped) {
                *n = if present > 0.0 { *n * left / present } else { left / free };
            }
        }
        expected
    }

    /// Sets the largest losses to the median.
    fn guard(&self, losses: &mut [f64]) {
        let outliers = (self.outliers * losses.len() as f64).round() as usize;
        if outliers == 0 || losses.is_empty() {
            return;
        }
        let mut sorted = losses.to_vec();
        sorted.sort_by(f64::total_cmp);
        let most = sorted[(sorted.len() - 1).saturating_sub(outliers)];
        let median = (sorted[(sorted.len() - 1) / 2] + sorted[sorted.len() / 2]) / 2.0;
        losses.iter_mut().filter(|loss| **loss > most).for_each(|loss| *loss = median);
    }

    /// Returns the order of an epoch as positions of samples, given their losses.
    pub(super) fn order(&self, losses: &[f32], seed: u64, epoch: u64) -> Vec<u32> {
        let offset = Random::new(seed, RandomStream::HardExamples, epoch, 0).uniform(0);
        let chosen = resampled(&self.expected(losses), offset);
        let places = Random::new(seed, RandomStream::Order, epoch, 0).permutation(chosen.len());
        places.into_iter().map(|place| chosen[place as usize]).collect()
    }
}

/// Returns as many positions as there are samples, each the whole number of times below or above what is expected.
fn resampled(expected: &[f64], offset: f64) -> Vec<u32> {
    let mut chosen = Vec::with_capacity(expected.len());
    let mut sum = 0.0;
    for (position, n) in expected.iter().enumerate() {
        sum += n;
        let end = match position + 1 == expected.len() {
            // The sum is their number up to rounding.
            true => expected.len(),
            false => ((sum - offset).ceil() as usize).min(expected.len()),
        };
        chosen.resize(end.max(chosen.len()), position as u32);
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(found: &[f64], expected: &[f64]) {
        assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12), "{found:?}, expected {expected:?}");
        assert_eq!(found.len(), expected.len());
    }

    #[test]
    fn expected_numbers_are_those_computed_by_hand() {
        let plain = HardExamples { share: 0.5, cap: 4.0, outliers: 0.0 };
        // The mean is 2.
        close(&plain.expected(&[1.0, 2.0, 1.0, 4.0]), &[0.75, 1.0, 0.75, 1.5]);
        // The last one loses 0.3, which the others take in the ratio 3 : 4 : 3.
        close(&HardExamples { cap: 1.2, ..plain }.expected(&[1.0, 2.0, 1.0, 4.0]), &[0.84, 1.12, 0.84, 1.2]);
        // With what it loses, the second one exceeds the cap, too.
        let two = HardExamples { share: 1.0, cap: 1.5, outliers: 0.0 };
        close(&two.expected(&[2.0, 11.0, 7.0, 0.0]), &[1.0, 1.5, 1.5, 0.0]);
        // Nothing to share it out by.
        close(&two.expected(&[0.0, 0.0, 0.0, 7.0]), &[2.5 / 3.0, 2.5 / 3.0, 2.5 / 3.0, 1.5]);
        close(&HardExamples { cap: 1.0, ..plain }.expected(&[1.0, 2.0, 9.0]), &[1.0; 3]);
        close(&plain.expected(&[0.0; 3]), &[1.0; 3]);
        close(&plain.expected(&[-5.0, 2.0, 4.0]), &[0.5, 1.0, 1.5]);
    }

    #[test]
    fn outliers_count_as_the_median() {
        let guarded = HardExamples { share: 1.0, cap: 9.0, outliers: 0.2 };
        // The median of 1, 1, 2, 4, 90 is 2, the mean then 2.
        close(&guarded.expected(&[1.0, 90.0, 2.0, 4.0, 1.0]), &[0.5, 1.0, 1.0, 2.0, 0.5]);
        // Of an even number, the mean of the two in the middle.
        let half = HardExamples { outliers: 0.25, ..guarded };
        close(&half.expected(&[1.0, 3.0, 100.0, 2.0]), &[4.0 / 8.5, 12.0 / 8.5, 10.0 / 8.5, 8.0 / 8.5]);
        // Half a sample is rounded, and those that share the largest loss are no outliers.
        close(
            &HardExamples { outliers: 0.09, ..guarded }.expected(&[1.0, 1.0, 1.0, 1.0, 6.0]),
            &[0.5, 0.5, 0.5, 0.5, 3.0],
        );
        close(&guarded.expected(&[1.0, 6.0, 6.0, 1.0, 1.0]), &[1.0 / 3.0, 2.0, 2.0, 1.0 / 3.0, 1.0 / 3.0]);
    }

    #[test]
    fn resampling_has_the_whole_numbers_next_to_what_is_expected() {
        // The sums are 0.75, 1.75, 2.5 and 4; of 0.3, 1.3, 2.3, 3.3 the first lies in the first range.
        assert_eq!(resampled(&[0.75, 1.0, 0.75, 1.5], 0.3), [0, 1, 2, 3]);
        assert_eq!(resampled(&[0.75, 1.0, 0.75, 1.5], 0.6), [0, 1, 3, 3]);
        assert_eq!(resampled(&[0.75, 1.0, 0.75, 1.5], 0.8), [1, 2, 3, 3]);
        let hard = HardExamples { cap: 2.0, ..HardExamples::default() };
        let losses: Vec<f32> = (0..997).map(|i| (i as f32 * 0.7).sin().abs() * (i % 13) as f32).collect();
        let expected = hard.expected(&losses);
        assert!((expected.iter().sum::<f64>() - 997.0).abs() < 1e-9 && expected.iter().all(|&n| n <= 2.0));
        let mut means = vec![0.0; losses.len()];
        for epoch in 1..201 {
            let mut counts = vec![0.0; losses.len()];
            let order = hard.order(&losses, 3, epoch);
            assert_eq!(order.len(), losses.len());
            order.iter().for_each(|&position| counts[position as usize] += 1.0);
            assert!(counts.iter().zip(&expected).all(|(count, n)| (n.floor()..=n.ceil()).contains(count)));
            means.iter_mut().zip(&counts).for_each(|(mean, count)| *mean += count / 200.0);
        }
        // The standard deviation of a mean of 200 is at most 0.035.
        assert!(means.iter().zip(&expected).all(|(mean, n)| (mean - n).abs() < 0.16));
        assert_ne!(hard.order(&losses, 3, 1), hard.order(&losses, 3, 2));
        assert_ne!(hard.order(&losses, 3, 1), hard.order(&losses, 4, 1));
    }
}
