//! How often each class occurs among the class numbers of a data set.

/// The samples of each class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassCounts {
    /// The number of samples of each class, at least up to the largest label.
    pub samples: Vec<usize>,
    /// The index of the first sample of each class; meaningless for a class without samples.
    first: Vec<usize>,
}

/// The labels that are not below a number of outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beyond {
    /// The index of the first of these samples.
    pub sample: usize,
    /// Its label.
    pub label: usize,
    /// The number of these samples.
    pub samples: usize,
}

impl ClassCounts {
    /// Counts labels, each below `classes`.
    pub fn new(labels: impl IntoIterator<Item = u32>, classes: usize) -> Self {
        let mut counts = ClassCounts { samples: vec![0; classes], first: vec![0; classes] };
        for (index, label) in labels.into_iter().enumerate() {
            let (samples, first) = (&mut counts.samples[label as usize], &mut counts.first[label as usize]);
            if *samples == 0 {
                *first = index;
            }
            *samples += 1;
        }
        counts
    }

    /// Returns the classes that have samples, ascending.
    pub fn present(&self) -> impl Iterator<Item = usize> + '_ {
        self.samples.iter().enumerate().filter(|(_, samples)| **samples > 0).map(|(class, _)| class)
    }

    /// Returns the labels that are not below `outputs`, if there are any.
    pub fn beyond(&self, outputs: usize) -> Option<Beyond> {
        let labels = || self.present().filter(|&label| label >= outputs);
        let label = labels().min_by_key(|&label| self.first[label])?;
        let samples = labels().map(|label| self.samples[label]).sum();
        Some(Beyond { sample: self.first[label], label, samples })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_label_beyond_the_outputs_is_found() {
        let counts = ClassCounts::new([0, 2, 7, 2, 5, 7], 9);
        assert_eq!(counts.samples, [1, 0, 2, 0, 0, 1, 0, 2, 0]);
        assert_eq!(counts.present().collect::<Vec<_>>(), [0, 2, 5, 7]);
        assert_eq!(counts.beyond(8), None);
        assert_eq!(counts.beyond(6), Some(Beyond { sample: 2, label: 7, samples: 2 }));
        assert_eq!(counts.beyond(5), Some(Beyond { sample: 2, label: 7, samples: 3 }));
        assert_eq!(counts.beyond(1), Some(Beyond { sample: 1, label: 2, samples: 5 }));
    }
}
