//! The kinds of mixing of a run, of which every sample takes one.

use super::mixture::Mixture;
use super::recipe::Recipe;
use super::{KEYS, read};
use crate::data::augment::Draws;
use crate::data::one_kind::{OneKind, deserialize};
use crate::device::Random;
use crate::settings::holder;
use serde::de::{Deserialize, Deserializer};
use std::sync::Arc;

holder! {
    /// A kind of mixing of a list.
    Mix of Mixture
}

/// What a sample is mixed with, and how.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Partner {
    /// The index of the other sample in the data set.
    pub sample: u32,
    /// What becomes of both.
    pub recipe: Recipe,
}

/// The counters of the random numbers of a sample.
const KIND: u64 = 0;
const WHETHER: u64 = 1;
const PARTNER: u64 = 2;
const FIRST: u64 = 3;

impl Mix {
    /// Draws one of `samples` as the partner of a sample with images of a shape, given the random numbers of the sample; none if it stays alone.
    pub(in crate::data) fn draw_partner(
        list: &[Mix],
        shape: [usize; 3],
        samples: &[u32],
        random: &Random,
    ) -> Option<Partner> {
        if list.is_empty() {
            return None;
        }
        let one = &list[random.below(KIND, list.len() as u64) as usize];
        if random.uniform(WHETHER) >= one.probability() {
            return None;
        }
        let recipe = one.draw(shape, &Draws::new(*random, FIRST));
        let sample = samples[random.below(PARTNER, samples.len() as u64) as usize];
        (recipe.share() < 1.0).then_some(Partner { sample, recipe })
    }
}

impl OneKind for Mix {
    const NOUN: &'static str = "mixture";
    const EXAMPLE: &'static str = "{ mixup = 0.2 }";
    const KINDS: &'static [&'static str] = KEYS;
    fn read_kind<'de, D: Deserializer<'de>>(kind: &str, settings: D) -> Option<Result<Self, D::Error>> {
        read(kind, settings).map(|read| read.map(|one| Mix(Arc::from(one))))
    }
}

impl<'de> Deserialize<'de> for Mix {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserialize(deserializer)
    }
}

#[cfg(test)]
mod tests {
    use super::super::cutmix::Cutmix;
    use super::super::mixup::Mixup;
    use super::*;
    use crate::device::RandomStream;

    fn drawn(list: &[Mix], sample: u64) -> Option<Partner> {
        Mix::draw_partner(list, [8, 8, 1], &[3, 5, 7, 11], &Random::new(1, RandomStream::Mix, 0, sample))
    }

    #[test]
    fn partners_are_uniform_and_kinds_are_equally_likely() {
        let list: [Mix; 2] =
            [Mixup { alpha: 1.0, probability: 1.0 }.into(), Cutmix { alpha: 1.0, probability: 1.0 }.into()];
        let all: Vec<Partner> = (0..4000).filter_map(|sample| drawn(&list, sample)).collect();
        for sample in [3, 5, 7, 11] {
            let count = all.iter().filter(|partner| partner.sample == sample).count();
            assert!((850..1150).contains(&count), "{sample}: {count}");
        }
        // A blend has no box.
        let blends = all.iter().filter(|partner| partner.recipe.values()[3] == 0.0).count();
        assert!((1850..2150).contains(&blends), "{blends}");
    }

    #[test]
    fn a_share_of_the_samples_is_mixed() {
        let list: [Mix; 1] = [Mixup { alpha: 1.0, probability: 0.25 }.into()];
        let mixed = (0..4000).filter(|&sample| drawn(&list, sample).is_some()).count();
        assert!((880..1120).contains(&mixed), "{mixed}");
        assert_eq!(drawn(&[], 0), None);
    }
}
