//! What a classifier makes of one sample.

/// The probabilities of the classes of one sample.
///
/// p\[c\] = exp(x\[c\]) / sum over k of exp(x\[k\]), in f64 and then rounded to f32, of logits x of any precision. Which class is ahead of which depends on
/// the logits, not on rounded probabilities; of equal ones the first is ahead, as in the metrics of the loss.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ClassScores {
    logits: Vec<f64>,
    /// ln of the sum of exp(x).
    log_sum: f64,
    probabilities: Vec<f32>,
    class: Option<usize>,
}

impl ClassScores {
    /// Reads the logits of the next sample.
    pub fn read(&mut self, logits: &[f64]) {
        self.logits.clear();
        self.logits.extend_from_slice(logits);
        let max = logits.iter().fold(f64::NEG_INFINITY, |max, &x| max.max(x));
        let sum: f64 = logits.iter().map(|x| (x - max).exp()).sum();
        self.log_sum = max + sum.ln();
        self.probabilities.clear();
        self.probabilities.extend(logits.iter().map(|x| ((x - max).exp() / sum) as f32));
        let largest = (0..logits.len()).reduce(|best, c| if logits[c] > logits[best] { c } else { best });
        self.class = largest.filter(|_| self.log_sum.is_finite());
    }

    /// Returns the probabilities; NaN if logits are not finite.
    pub fn probabilities(&self) -> &[f32] {
        &self.probabilities
    }

    /// Returns the class with the largest probability; none if logits are not finite.
    pub fn class(&self) -> Option<usize> {
        self.class
    }

    /// Returns the largest probability; NaN if logits are not finite.
    pub fn confidence(&self) -> f32 {
        self.class.map_or(f32::NAN, |class| self.probabilities[class])
    }

    /// Returns the `most` classes with the largest probabilities, the largest first.
    pub fn best(&self, most: usize) -> Vec<usize> {
        let mut classes: Vec<usize> = (0..self.logits.len()).collect();
        // Stable, so that of equal ones the first is ahead.
        classes.sort_by(|&a, &b| self.logits[b].total_cmp(&self.logits[a]));
        classes.truncate(most);
        classes
    }

    /// Returns how many classes are ahead of a class; none if its loss is not finite.
    pub fn rank(&self, class: usize) -> Option<usize> {
        let own = self.logits[class];
        let is_ahead = |&(c, &x): &(usize, &f64)| x > own || (x == own && c < class);
        (self.log_sum - own).is_finite().then(|| self.logits.iter().enumerate().filter(is_ahead).count())
    }
}

/// Returns the true class of a sample: the given number, or that of the largest entry of its distribution, of equal ones the first.
pub(super) fn true_class(target: &[f32]) -> usize {
    match target {
        [class] => *class as usize,
        _ => (0..target.len()).fold(0, |best, c| if target[c] > target[best] { c } else { best }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scores(logits: &[f64]) -> ClassScores {
        let mut scores = ClassScores::default();
        scores.read(&[9.0; 7]);
        scores.read(logits);
        scores
    }

    #[test]
    fn probabilities_are_the_softmax_even_of_large_logits() {
        // exp of the logits: 1, 3, 4.
        let known = scores(&[1e4, 1e4 + 3f64.ln(), 1e4 + 4f64.ln()]);
        for (p, expected) in known.probabilities().iter().zip([0.125f32, 0.375, 0.5]) {
            assert!((p - expected).abs() < 1e-6, "{known:?}");
        }
        assert_eq!((known.class(), known.confidence()), (Some(2), known.probabilities()[2]));
        assert_eq!([0, 1, 2].map(|class| known.rank(class)), [Some(2), Some(1), Some(0)]);
    }

    #[test]
    fn equal_logits_are_ranked_by_number_and_tiny_ones_by_value() {
        let equal = scores(&[0.0, 2.0, 2.0, 0.0]);
        assert_eq!(equal.class(), Some(1));
        assert_eq!([0, 1, 2, 3].map(|class| equal.rank(class)), [Some(2), Some(0), Some(1), Some(3)]);
        // Both probabilities are 0 in f32.
        let tiny = scores(&[0.0, -901.0, -900.0]);
        assert_eq!(tiny.probabilities()[1..], [0.0, 0.0]);
        assert_eq!([1, 2].map(|class| tiny.rank(class)), [Some(2), Some(1)]);
    }

    #[test]
    fn what_is_not_finite_is_never_right() {
        for logits in [[f64::NAN, 1.0], [1.0, f64::NAN], [f64::INFINITY, 1.0], [f64::NEG_INFINITY; 2]] {
            let scores = scores(&logits);
            assert_eq!((scores.class(), scores.rank(0), scores.rank(1)), (None, None, None), "{logits:?}");
            assert!(scores.confidence().is_nan() && scores.probabilities().iter().all(|p| p.is_nan()), "{logits:?}");
        }
        let ruled_out = scores(&[f64::NEG_INFINITY, 1.0]);
        assert_eq!((ruled_out.class(), ruled_out.confidence(), ruled_out.rank(0)), (Some(1), 1.0, None));
    }

    #[test]
    fn the_true_class_of_a_distribution_is_its_largest_share() {
        assert_eq!(true_class(&[7.0]), 7);
        assert_eq!(true_class(&[0.1, 0.45, 0.45]), 1);
    }
}
