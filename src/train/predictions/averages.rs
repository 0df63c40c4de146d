//! Means over several views of one picture.

use super::outputs::OutputKind;

/// Averages the outputs for so many views of each picture: probabilities of classes, or values.
#[derive(Debug)]
pub(super) struct Averages {
    views: usize,
    seen: usize,
    sums: Vec<f64>,
}

impl Averages {
    /// Averages over some views; one leaves outputs as they are.
    pub fn new(views: usize) -> Self {
        Averages { views, seen: 0, sums: Vec::new() }
    }

    /// Adds the outputs for the next view; after the last one, returns the mean: of classes, logits whose softmax is the mean of the
    /// probabilities.
    pub fn add<'a>(&'a mut self, outputs: &'a [f64], kind: OutputKind) -> Option<&'a [f64]> {
        if self.views == 1 {
            return Some(outputs);
        }
        if self.seen == 0 {
            self.sums.clear();
            self.sums.resize(outputs.len(), 0.0);
        }
        let max = outputs.iter().fold(f64::NEG_INFINITY, |max, &x| max.max(x));
        let total: f64 = outputs.iter().map(|x| (x - max).exp()).sum();
        for (sum, &x) in self.sums.iter_mut().zip(outputs) {
            *sum += match kind {
                OutputKind::Classes(_) => (x - max).exp() / total,
                OutputKind::Values(_) => x,
            };
        }
        self.seen += 1;
        if self.seen < self.views {
            return None;
        }
        self.seen = 0;
        let views = self.views as f64;
        for sum in &mut self.sums {
            *sum = match kind {
                OutputKind::Classes(_) => (*sum / views).ln(),
                OutputKind::Values(_) => *sum / views,
            };
        }
        Some(&self.sums)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_of_probabilities_is_that_of_the_views() {
        let mut averages = Averages::new(2);
        assert!(averages.add(&[0.0, 3f64.ln()], OutputKind::Classes(2)).is_none());
        let mean: Vec<f64> =
            averages.add(&[0.0, 0.0], OutputKind::Classes(2)).unwrap().iter().map(|x| x.exp()).collect();
        assert!((mean[0] - 0.375).abs() < 1e-12 && (mean[1] - 0.625).abs() < 1e-12, "{mean:?}");
        assert!(averages.add(&[1.0, 5.0], OutputKind::Values(2)).is_none());
        assert_eq!(averages.add(&[3.0, 5.0], OutputKind::Values(2)), Some(&[2.0, 5.0][..]));
        assert_eq!(Averages::new(1).add(&[7.0], OutputKind::Classes(1)), Some(&[7.0][..]));
    }
}
