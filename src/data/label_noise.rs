//! Wrong labels: some training samples get another class than theirs.

use super::{Dataset, Labels};
use crate::device::{Random, RandomStream};

/// Gives `wrong` of some samples of a data set other classes, a pure function of the seed: which samples, and for each one of the other classes
/// with equal chances. Does nothing to targets that are not class numbers.
pub(super) fn add(data: &mut Dataset, samples: &[u32], wrong: usize, seed: u64) {
    let Labels::Index(labels) = &mut data.labels else { return };
    let [choice, class] = [0, 1].map(|time| Random::new(seed, RandomStream::LabelNoise, time, 0));
    let (classes, others) = (data.classes as u32, (data.classes as u64).saturating_sub(1));
    for position in choice.permutation(samples.len()).into_iter().take(wrong) {
        let sample = samples[position as usize];
        let label = &mut labels[sample as usize];
        *label = (*label + 1 + class.below(u64::from(sample), others) as u32) % classes;
    }
}

#[cfg(test)]
mod tests {
    use super::super::Pixels;
    use super::*;

    fn classes(data: &Dataset) -> Vec<u32> {
        let Labels::Index(labels) = &data.labels else { panic!("class numbers") };
        labels.clone()
    }

    #[test]
    fn as_many_samples_as_asked_for_get_each_of_the_other_classes() {
        let labels: Vec<u32> = (0..4000).map(|i| i % 4).collect();
        let data = Dataset::loaded(Pixels::U8(vec![0; 4000]), Labels::Index(labels.clone()), [1, 1, 1], 4);
        let samples: Vec<u32> = (0..4000).filter(|i| i % 5 != 2).collect();
        let noisy = |seed| {
            let mut data = data.clone();
            add(&mut data, &samples, 1200, seed);
            classes(&data)
        };
        let found = noisy(7);
        let changed: Vec<usize> = (0..4000).filter(|&i| found[i] != labels[i]).collect();
        assert_eq!(changed.len(), 1200);
        assert!(changed.iter().all(|i| i % 5 != 2), "only those samples");
        let mut steps = [0; 4];
        changed.iter().for_each(|&i| steps[((found[i] + 4 - labels[i]) % 4) as usize] += 1);
        // Of 400 expected, four standard deviations are 65.
        assert!(steps[0] == 0 && steps[1..].iter().all(|&n| (335..465).contains(&n)), "{steps:?}");
        assert!(found == noisy(7) && found != noisy(8));
    }
}
