//! What can be said of a classifier after an evaluation.
//!
//! Of a class with s samples, of which h are predicted right, and which is predicted p times: precision h / p, recall h / s,
//! F1 = 2 h / (s + p). What would be 0 / 0 is NaN.
//!
//! The expected calibration error (Guo et al. 2017, <https://arxiv.org/abs/1706.04599>): the samples are divided into M = 15 bins by the probability c of
//! the predicted class, (m - 1) / M < c <= m / M. ECE = sum over bins of |B| / N |right / |B| - mean of c|.

use super::mistakes::{Mistake, Mistakes};
use super::scores::ClassScores;
use std::collections::BTreeMap;

/// The number of bins of the expected calibration error.
pub const CALIBRATION_BINS: usize = 15;

/// The results of one class.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ClassResult {
    /// The number of the class.
    pub class: usize,
    /// Its samples.
    pub samples: u64,
    /// The samples for which it is predicted.
    pub predicted: u64,
    /// The share of those that belong to it; NaN if there are none.
    pub precision: f64,
    /// The share of its samples that are predicted right; NaN if there are none.
    pub recall: f64,
    /// The harmonic mean of precision and recall; NaN if the class neither occurs nor is predicted.
    pub f1: f64,
}

/// Means over the classes that occur or are predicted, in which NaN counts as 0.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ClassMeans {
    /// The mean of the precisions.
    pub precision: f64,
    /// The mean of the recalls.
    pub recall: f64,
    /// The mean of the F1.
    pub f1: f64,
}

/// How often one class is taken for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Confusion {
    /// The true class.
    pub label: usize,
    /// The predicted class.
    pub predicted: usize,
    /// The samples.
    pub count: u64,
    /// The samples of the true class.
    pub of: u64,
}

/// A bin of the calibration.
#[derive(Debug, Clone, Copy, Default)]
struct Bin {
    samples: u64,
    right: u64,
    confidence: f64,
}

/// What a class has been seen as.
#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    samples: u64,
    predicted: u64,
    right: u64,
}

/// The results of a classifier on a set, built sample by sample.
#[derive(Debug, Clone)]
pub struct Report {
    samples: u64,
    /// The samples whose outputs are not finite.
    without: u64,
    top5: u64,
    classes: Vec<Counts>,
    /// The samples of a class for which another one is predicted: (true, predicted).
    confusions: BTreeMap<(usize, usize), u64>,
    bins: [Bin; CALIBRATION_BINS],
    mistakes: Mistakes,
}

/// Returns a share; NaN of nothing.
fn share(part: u64, whole: u64) -> f64 {
    part as f64 / whole as f64
}

impl Report {
    /// Creates the report of no samples, which keeps at most so many mistakes.
    pub fn new(classes: usize, most_mistakes: usize) -> Self {
        Report {
            samples: 0,
            without: 0,
            top5: 0,
            classes: vec![Counts::default(); classes],
            confusions: BTreeMap::new(),
            bins: [Bin::default(); CALIBRATION_BINS],
            mistakes: Mistakes::new(most_mistakes),
        }
    }

    /// Adds a sample of a class, by its index in the data set.
    ///
    /// # Panics
    /// If there is no such class.
    pub fn add(&mut self, sample: u32, scores: &ClassScores, label: usize) {
        self.samples += 1;
        self.classes[label].samples += 1;
        self.top5 += u64::from(scores.rank(label).is_some_and(|rank| rank < 5));
        let Some(predicted) = scores.class() else {
            self.without += 1;
            return;
        };
        self.classes[predicted].predicted += 1;
        let probability = scores.confidence();
        let right = predicted == label;
        if right {
            self.classes[label].right += 1;
        } else {
            *self.confusions.entry((label, predicted)).or_default() += 1;
            self.mistakes.add(Mistake { sample, label, predicted, probability });
        }
        let confidence = f64::from(probability);
        let bin = (confidence * CALIBRATION_BINS as f64).ceil() as usize;
        let bin = &mut self.bins[bin.clamp(1, CALIBRATION_BINS) - 1];
        bin.samples += 1;
        bin.right += u64::from(right);
        bin.confidence += confidence;
    }

    /// Returns the number of samples.
    pub fn samples(&self) -> u64 {
        self.samples
    }

    /// Returns the number of samples without a prediction, because their outputs are not finite.
    pub fn without_prediction(&self) -> u64 {
        self.without
    }

    /// Returns the share of samples whose class is the predicted one.
    pub fn top1(&self) -> f64 {
        share(self.classes.iter().map(|class| class.right).sum(), self.samples)
    }

    /// Returns the share of samples whose class is among the five with the largest probabilities, if there are more.
    pub fn top5(&self) -> Option<f64> {
        (self.classes.len() > 5).then(|| share(self.top5, self.samples))
    }

    /// Returns the results of all classes, in order.
    pub fn classes(&self) -> impl ExactSizeIterator<Item = ClassResult> {
        self.classes.iter().enumerate().map(|(class, &Counts { samples, predicted, right })| ClassResult {
            class,
            samples,
            predicted,
            precision: share(right, predicted),
            recall: share(right, samples),
            f1: share(2 * right, samples + predicted),
        })
    }

    /// Returns the means over the classes.
    pub fn means(&self) -> ClassMeans {
        let seen: Vec<ClassResult> = self.classes().filter(|class| class.samples + class.predicted > 0).collect();
        let mean = |of: fn(&ClassResult) -> f64| {
            let values = seen.iter().map(of).filter(|value| !value.is_nan());
            values.sum::<f64>() / seen.len() as f64
        };
        ClassMeans { precision: mean(|c| c.precision), recall: mean(|c| c.recall), f1: mean(|c| c.f1) }
    }

    /// Returns how often one class is taken for another: the most samples first, then the largest share of a class.
    pub fn confusions(&self) -> Vec<Confusion> {
        let confusion = |(&(label, predicted), &count): (&(usize, usize), &u64)| {
            let of = self.classes[label].samples;
            Confusion { label, predicted, count, of }
        };
        let mut all: Vec<Confusion> = self.confusions.iter().map(confusion).collect();
        all.sort_by_key(|confusion| (std::cmp::Reverse(confusion.count), confusion.of));
        all
    }

    /// Returns the expected calibration error; NaN without samples.
    pub fn calibration_error(&self) -> f64 {
        let samples: u64 = self.bins.iter().map(|bin| bin.samples).sum();
        let gaps = self.bins.iter().map(|bin| (bin.right as f64 - bin.confidence).abs());
        gaps.sum::<f64>() / samples as f64
    }

    /// Returns the surest wrong predictions, the surest first.
    pub fn mistakes(&self) -> Vec<Mistake> {
        self.mistakes.sorted()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the scores with these probabilities.
    fn of(probabilities: &[f64]) -> ClassScores {
        let mut scores = ClassScores::default();
        scores.read(&probabilities.iter().map(|p| p.ln()).collect::<Vec<_>>());
        scores
    }

    /// A matrix of three classes, rows are true: 3 1 0 / 0 2 2 / 0 0 2.
    fn three() -> Report {
        let mut report = Report::new(3, 2);
        let (zero, one, two) = ([0.8, 0.1, 0.1], [0.25, 0.5, 0.25], [0.05, 0.05, 0.9]);
        let samples: [(&[f64], usize); 10] = [
            (&zero, 0),
            (&zero, 0),
            (&zero, 0),
            (&one, 0),
            (&one, 1),
            (&one, 1),
            (&two, 1),
            (&two, 1),
            (&two, 2),
            (&two, 2),
        ];
        for (sample, (probabilities, class)) in samples.into_iter().enumerate() {
            report.add(sample as u32, &of(probabilities), class);
        }
        report
    }

    #[test]
    fn three_classes_have_the_numbers_worked_by_hand() {
        let report = three();
        assert_eq!((report.samples(), report.top1(), report.top5()), (10, 0.7, None));
        let classes: Vec<ClassResult> = report.classes().collect();
        let expected = [(4, 3, 1.0, 0.75, 6.0 / 7.0), (4, 3, 2.0 / 3.0, 0.5, 4.0 / 7.0), (2, 4, 0.5, 1.0, 4.0 / 6.0)];
        for (class, (samples, predicted, precision, recall, f1)) in classes.iter().zip(expected) {
            assert_eq!((class.samples, class.predicted), (samples, predicted));
            assert_eq!((class.precision, class.recall, class.f1), (precision, recall, f1));
        }
        let means = report.means();
        assert!((means.precision - 13.0 / 18.0).abs() < 1e-15 && (means.recall - 0.75).abs() < 1e-15);
        assert!((means.f1 - (6.0 / 7.0 + 4.0 / 7.0 + 2.0 / 3.0) / 3.0).abs() < 1e-15);
        let confusions: Vec<_> = report.confusions().iter().map(|c| (c.label, c.predicted, c.count, c.of)).collect();
        assert_eq!(confusions, [(1, 2, 2, 4), (0, 1, 1, 4)]);
        let mistakes: Vec<_> = report.mistakes().iter().map(|m| (m.sample, m.label, m.predicted)).collect();
        assert_eq!(mistakes, [(6, 1, 2), (7, 1, 2)]);
    }

    #[test]
    fn the_calibration_error_is_the_one_worked_by_hand() {
        // Three samples at 0.8, all right; three at 0.5, two right; four at 0.9, two right:
        // 0.3 |1 - 0.8| + 0.3 |2/3 - 0.5| + 0.4 |0.5 - 0.9| = 0.06 + 0.05 + 0.16.
        assert!((three().calibration_error() - 0.27).abs() < 1e-7);
        // Right and wrong at about 0.61 and 0.66, in one bin (0.6 to 0.667), cancel: |1 - 1.27| / 2.
        let mut report = Report::new(2, 0);
        report.add(0, &of(&[0.61, 0.39]), 0);
        report.add(1, &of(&[0.66, 0.34]), 1);
        assert!((report.calibration_error() - 0.135).abs() < 1e-7);
        // The upper end belongs to a bin: 1 to the last.
        let mut sure = Report::new(2, 0);
        sure.add(0, &of(&[1.0, 0.0]), 0);
        assert_eq!((sure.calibration_error(), sure.bins[CALIBRATION_BINS - 1].samples), (0.0, 1));
    }

    #[test]
    fn classes_without_samples_or_predictions_have_no_numbers_but_count_if_they_are_seen() {
        let mut report = Report::new(3, 1);
        assert!(report.top1().is_nan() && report.calibration_error().is_nan() && report.means().recall.is_nan());
        report.add(0, &of(&[0.1, 0.9, 0.0]), 0);
        let classes: Vec<ClassResult> = report.classes().collect();
        assert!(classes[0].precision.is_nan() && classes[0].recall == 0.0 && classes[0].f1 == 0.0);
        assert!(classes[1].recall.is_nan() && classes[1].precision == 0.0);
        assert!(classes[2].precision.is_nan() && classes[2].recall.is_nan() && classes[2].f1.is_nan());
        assert_eq!(report.means(), ClassMeans { precision: 0.0, recall: 0.0, f1: 0.0 });
    }

    #[test]
    fn samples_that_are_not_finite_count_as_wrong_and_as_nothing_else() {
        let mut report = Report::new(6, 9);
        report.add(0, &of(&[0.75, 0.05, 0.05, 0.05, 0.05, 0.05]), 0);
        report.add(1, &of(&[f64::NAN; 6]), 0);
        // Of five equal classes after the first, the last one is not among the first five.
        report.add(2, &of(&[0.75, 0.05, 0.05, 0.05, 0.05, 0.05]), 4);
        report.add(3, &of(&[0.75, 0.05, 0.05, 0.05, 0.05, 0.05]), 5);
        assert_eq!((report.top1(), report.top5(), report.without_prediction()), (0.25, Some(0.5), 1));
        assert_eq!((report.classes().next().unwrap().recall, report.mistakes().len()), (0.5, 2));
    }
}
